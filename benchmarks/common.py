"""Shared by the benchmarks: parameters, images, stores, scratch space and checks.

asv calls `setup_cache` once for each commit and environment, and runs every benchmark in the
directory where it called it. The benchmarks make images and stores there once, and asv removes the
directory at the end, also after a crash. Each sample has its own scratch directory inside it.
TMPDIR chooses the disk.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import storage_impl
from benchmarks import datasets, environment

BACKENDS = ("png", "lmdb", "hdf5")
LARGE_COUNT = 100_000
COUNTS = (1, 10, 100, 1_000, 10_000, LARGE_COUNT)
MADE = 10_000  # images that `setup_cache` makes

LARGE = "STORAGE_IMPL_LARGE"
ENOUGH = (2, 5, 20.0)  # samples per round if one takes long: minimum, maximum, seconds

_Method = TypeVar("_Method", bound=Callable[..., object])


def facts(**values: int | str | dict[str, str]) -> Callable[[_Method], _Method]:
    """Attach facts to a benchmark, which asv stores beside its name for the reports.

    Parameters
    ----------
    images : int
        Images per call, if the parameter "count" does not give them.
    bytes : int
        Bytes of pixels per call, if a parameter is the size of the images.
    cache : str
        "cold" if the page cache holds nothing of what is read.
    floors : dict of str to str
        For each backend, the benchmark in `floor` whose time no implementation can beat.
    plain : str
        The benchmark of plain code that does the same work. The values of its first parameter, the
        store, include the names of the backends. Its other parameters take only values that this
        benchmark also has.
    """

    def mark(method: _Method) -> _Method:
        for name, value in values.items():
            setattr(method, name, value)
        return method

    return mark


def version(number: int) -> str:
    """Return a benchmark's version: results of different versions are not compared.

    asv would hash only the benchmark's own code. Raise the number by hand when a change here or in
    `datasets` changes what is measured. Results on other images have their own environment: see
    `report.own_images`.
    """
    return str(number)


def compare(found: object, written: object) -> None:
    """Raise RuntimeError unless two arrays or numbers are equal: a wrong read has no figure."""
    if not np.array_equal(np.asarray(found), np.asarray(written)):
        raise RuntimeError("what was read differs from what was written")


def scattered(number: int, count: int) -> list[int]:
    """Return `number` different indices of `count` images, in random order from a fixed seed."""
    draw = random.Random(7).random  # the same in every version of Python and numpy
    return sorted(range(count), key=lambda _: draw())[:number]


class Suite:
    """Base of all benchmarks: images, a scratch directory for each sample, and the checks.

    A benchmark defines `prepare`, which makes a sample ready, and `check`, which fails if a read
    differs from what was written. `setup` calls both.

    Attributes
    ----------
    images : ndarray
        (N, H, W, C) uint8, the first images of the dataset.
    labels : ndarray
        (N,) int64.
    scratch : Path
        An empty directory, new for each sample.
    undo : ExitStack
        What `teardown` undoes, last first.
    first : bool
        Whether `prepare` runs for the first time in this process.
    """

    # rounds x repeat >= 10: with fewer samples asv cannot call a difference significant.
    rounds = 2
    repeat: int | tuple[int, int, float] = 5
    number = 1
    warmup_time = 0.0
    timeout = 1_800.0

    params: tuple[tuple[Any, ...], ...] = ()
    param_names: tuple[str, ...] = ()
    count = MADE  # images, if no parameter says how many
    large: tuple[object, ...] = (LARGE_COUNT,)  # parameters that are measured only on request

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    scratch: Path
    first: bool

    def __init__(self) -> None:
        self.undo = ExitStack()

    def setup_cache(self) -> None:
        """Make the images for all benchmarks of up to 10,000 images."""
        environment.record_facts()  # here, because asv calls this once for each environment
        images, labels = datasets.load(MADE)
        np.save("images.npy", images)
        np.save("labels.npy", labels)
        sync()  # asv has just made the environment: writing it must not slow down a sample

    def setup(self, *parameters: Any) -> None:
        """Make a sample ready; once in a process, first check that reads are correct.

        Raises
        ------
        NotImplementedError
            The parameters are large, and nobody asked for them: asv shows "n/a".
        RuntimeError
            A read differs from what was written.
        """
        if any(parameter in self.large for parameter in parameters):
            if not os.environ.get(LARGE):
                raise NotImplementedError(f"large parameters: set {LARGE}=1 to measure them")
            self.repeat = ENOUGH
        self.first = not hasattr(self, "images")
        if self.first:
            environment.check_versions()
            named = dict(zip(self.param_names, parameters, strict=True))
            self.images, self.labels = self.load(*self.amount(**named))
        self.begin(*parameters)
        if self.first:
            self.check(*parameters)
            self.teardown()
            self.first = False
            self.begin(*parameters)

    def amount(self, **parameters: Any) -> tuple[int, int]:
        """Return how many images a sample handles, and their height and width in pixels."""
        return parameters.get("count", self.count), parameters.get("side", 32)

    def load(self, count: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images and labels; the first call makes those that `setup_cache` did not make."""
        if count <= MADE and side == 32:
            return (
                np.array(np.load("images.npy", mmap_mode="r")[:count]),
                np.load("labels.npy")[:count],
            )

        def make(path: Path) -> None:
            images, labels = datasets.load(count, side)
            with open(path, "xb") as file:
                np.savez(file, images=images, labels=labels)

        with np.load(kept(f"images-{count}-{side}.npz", make)) as saved:
            return saved["images"], saved["labels"]

    def begin(self, *parameters: Any) -> None:
        """Start a sample in an empty directory."""
        self.scratch = Path(tempfile.mkdtemp(dir=Path.cwd()))
        self.undo.callback(shutil.rmtree, self.scratch)
        self.prepare(*parameters)

    def prepare(self, *args: Any, **kwargs: Any) -> None:
        """Make a sample ready: `setup` calls this for each sample."""

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Raise RuntimeError unless the benchmark reads what was written."""

    def teardown(self, *_: Any) -> None:
        """Close and remove what the sample opened and made."""
        self.undo.close()


class StoreSuite(Suite):
    """Base of the benchmarks of the backends."""

    params: tuple[tuple[Any, ...], ...] = (BACKENDS, COUNTS)
    param_names: tuple[str, ...] = ("backend", "count")

    def new_store(
        self, backend: str, *, durable: bool = False, **options: Any
    ) -> storage_impl.ImageStore:
        """Return an empty store, open for this sample, that does not sync unless it is durable.

        Without syncing, every backend gives the same promise at the same cost: what was written
        survives the end of the process, but not a power cut.
        """
        store = self.create(self.scratch / "store", backend, durable=durable, **options)
        self.undo.callback(discard, store)
        return store

    def create(self, path: Path, backend: str, **options: Any) -> storage_impl.ImageStore:
        """Return an empty store for images of this size."""
        shape = self.images.shape[1:]
        return storage_impl.create_store(path, backend, image_shape=shape, **options)

    def compare(self, store: storage_impl.ImageStore, part: slice = slice(None)) -> None:
        """Raise RuntimeError unless a new reader finds `images`, or `part` of them, in a store."""
        with storage_impl.open_store(store.path) as reader:
            images, labels = reader.read_many()
        compare(images, self.images[part])
        compare(labels, self.labels[part])

    def stored(self, backend: str, part: slice = slice(None), **options: Any) -> Path:
        """Return a store of `images`, or `part` of them; the first benchmark to ask writes it."""
        start, stop, _ = part.indices(len(self.images))
        name = f"{backend}-{start}-{stop}" if start else f"{backend}-{stop}"
        if self.images.shape[1] != 32:
            name += f"-side={self.images.shape[1]}"

        def make(path: Path) -> None:
            store = self.create(path, backend, durable=False, **options)
            try:
                store.write_many(self.images[part], self.labels[part])
                self.compare(store, part)
                sync()  # much faster than closing, which would sync file by file
            finally:
                store.close()

        return kept(name + "".join(f"-{key}={options[key]}" for key in options), make)

    def warm_store(self, backend: str, **options: Any) -> storage_impl.ImageStore:
        """Return a store of all `images` that was opened, read and checked once in this process.

        The samples share it, so that they time a store that has been read before. LMDB maps its
        file, and the first read after opening pays for every page of the map.
        """
        if self.first:
            self.opened = storage_impl.open_store(self.stored(backend, **options))
            images, labels = self.opened.read_many()
            compare(images, self.images)
            compare(labels, self.labels)
        return self.opened


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return the path of what `make` writes; the first benchmark to ask for it makes it."""
    path = Path.cwd() / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
            aside = Path(directory, "aside")
            make(aside)
            os.rename(aside, path)
    return path


def sync() -> None:
    """Flush earlier writes to the disk, so that nothing that is timed waits for them."""
    if hasattr(os, "sync"):
        os.sync()


def discard(store: storage_impl.ImageStore) -> None:
    """Remove a store, then close it: closing finds nothing left to sync."""
    if os.name != "nt":  # Windows removes no open file
        shutil.rmtree(store.path, ignore_errors=True)
    with suppress(storage_impl.WriteFailedError):
        store.close()
