"""What the benchmarks share: parameters, images, stores, scratch space and the checks.

asv calls `setup_cache` once for a commit and an environment, and runs every benchmark in the
directory it was called in. The images and the stores to read are made there once, and asv removes
it at the end, also after a crash. Each sample gets a scratch directory of its own in it. TMPDIR
chooses the disk.
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
ENOUGH = (2, 5, 20.0)  # samples a round where one takes long: at least, at most, seconds

_Method = TypeVar("_Method", bound=Callable[..., object])


def facts(**values: int | str | dict[str, str]) -> Callable[[_Method], _Method]:
    """Give a benchmark facts that asv carries along with its name, for the reports.

    Parameters
    ----------
    images : int
        How many images one call handles, where no parameter "count" says so.
    bytes : int
        How many bytes of pixels one call handles, where a parameter is the size of the images.
    cache : str
        "cold" where the page cache held nothing of what is read.
    floors : dict of str to str
        By backend, the benchmark in `floor` whose time no implementation can beat.
    plain : str
        The benchmark of plain code for the same work. Its first parameter, the store, has the names
        of the backends among its values, and its others have values of this one's.
    """

    def mark(method: _Method) -> _Method:
        for name, value in values.items():
            setattr(method, name, value)
        return method

    return mark


def version(number: int) -> str:
    """Return the version of a benchmark: results of another version are not compared with it.

    asv hashes only the benchmark's own code, so the number is raised by hand when
    something here or in `datasets` changes what is measured. Results on other images have an
    environment of their own: see `report.own_images`.
    """
    return str(number)


def compare(found: object, written: object) -> None:
    """Raise RuntimeError unless two arrays or numbers are equal: no figure counts otherwise."""
    if not np.array_equal(np.asarray(found), np.asarray(written)):
        raise RuntimeError("what was read is not what was written")


def scattered(number: int, count: int) -> list[int]:
    """Return `number` different indices of `count` images, in no order."""
    draw = random.Random(7).random  # alike in all versions of Python and of numpy
    return sorted(range(count), key=lambda _: draw())[:number]


class Suite:
    """Base of all benchmarks: images, a scratch directory for each sample, and the checks.

    A benchmark has `prepare`, which makes a sample ready, and `check`, which fails where what
    is read is not what was written. `setup` calls both.

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
    count = MADE  # images, where no parameter says how many
    large: tuple[object, ...] = (LARGE_COUNT,)  # parameters that are measured only when asked for

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    scratch: Path
    first: bool

    def __init__(self) -> None:
        self.undo = ExitStack()

    def setup_cache(self) -> None:
        """Make the images for all benchmarks of up to 10,000."""
        environment.record_facts()  # here, since it is called once for an environment
        images, labels = datasets.load(MADE)
        np.save("images.npy", images)
        np.save("labels.npy", labels)
        sync()  # the environment has just been made: writing it is not measured

    def setup(self, *parameters: Any) -> None:
        """Make a sample ready; once in a process, check what is measured before.

        Raises
        ------
        NotImplementedError
            The parameters are large, and nobody asked for them: asv shows "n/a".
        RuntimeError
            What is read is not what was written.
        """
        if any(parameter in self.large for parameter in parameters):
            if not os.environ.get(LARGE):
                raise NotImplementedError(f"large: measured where {LARGE}=1 is set")
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
        """Return images and labels; what `setup_cache` has not made, the first to ask makes."""
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
        """Make a sample ready: `setup` of a benchmark, for each call that is timed."""

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Raise RuntimeError unless what is measured reads what was written."""

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

        Not to sync is the one promise that all backends can give at the same price:
        what was written survives the end of the process, not a power cut.
        """
        store = self.create(self.scratch / "store", backend, durable=durable, **options)
        self.undo.callback(discard, store)
        return store

    def create(self, path: Path, backend: str, **options: Any) -> storage_impl.ImageStore:
        """Return an empty store for images of this size."""
        shape = self.images.shape[1:]
        return storage_impl.create_store(path, backend, image_shape=shape, **options)

    def compare(self, store: storage_impl.ImageStore, part: slice = slice(None)) -> None:
        """Raise RuntimeError unless another reader finds `images`, or `part`, in a store."""
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
                sync()  # much faster than file by file, as closing does it
            finally:
                store.close()

        return kept(name + "".join(f"-{key}={options[key]}" for key in options), make)

    def warm_store(self, backend: str, **options: Any) -> storage_impl.ImageStore:
        """Return the store of all of `images`, opened once in a process, read and compared.

        Samples share it: what is timed is a store that has been read before. LMDB maps
        its file, and the first read after opening pays for every page of the map.
        """
        if self.first:
            self.opened = storage_impl.open_store(self.stored(backend, **options))
            images, labels = self.opened.read_many()
            compare(images, self.images)
            compare(labels, self.labels)
        return self.opened


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return what `make` writes to a path; the first benchmark to ask for it makes it."""
    path = Path.cwd() / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
            aside = Path(directory, "aside")
            make(aside)
            os.rename(aside, path)
    return path


def sync() -> None:
    """Have nothing wait for the disk that was written before."""
    if hasattr(os, "sync"):
        os.sync()


def discard(store: storage_impl.ImageStore) -> None:
    """Remove a store and close it, so that closing finds nothing that it had to sync."""
    if os.name != "nt":  # which removes no open file
        shutil.rmtree(store.path, ignore_errors=True)
    with suppress(storage_impl.WriteFailedError):
        store.close()
