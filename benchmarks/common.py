"""What the benchmarks share: parameters, images, stores, scratch space and the checks.

asv calls `setup_cache` once for a commit and an environment and runs every benchmark
in the directory it was called in: the images and the stores to read are made there
once, and asv removes it at the end, also after a crash. Each sample gets a scratch
directory of its own in it. TMPDIR chooses the disk.
"""

import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import storage_impl
from benchmarks import datasets
from benchmarks.facts import record_facts

BACKENDS = ("png", "lmdb", "hdf5")
COUNTS = (1, 10, 100, 1_000, 10_000)
LARGE_COUNTS = (100_000,)

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
    """

    def mark(method: _Method) -> _Method:
        for name, value in values.items():
            setattr(method, name, value)
        return method

    return mark


def version(number: int) -> str:
    """Return the version of a benchmark: results of another version are not compared with it.

    asv hashes only the benchmark's own code, so the number is raised by hand when
    something here or in `datasets` changes what is measured. Other images are another
    measurement, too.
    """
    return f"{number}, {Path(os.environ.get(datasets.VARIABLE, '')).name or 'synthetic'}"


def check_versions() -> None:
    """Raise RuntimeError unless the versions installed are those the results will name."""
    directory = os.environ.get("ASV_ENV_DIR")
    if directory is None:  # an environment of the user's own: the results name no versions
        return
    environment = json.loads(Path(directory, "asv-env-info.json").read_text())
    for library, named in environment["requirements"].items():
        found = importlib.metadata.version(library)
        if found != named:
            raise RuntimeError(
                f"the results would name {library} {named}, and {found} is installed; "
                f"remove {directory} and run again"
            )


def compare(found: object, written: object) -> None:
    """Raise RuntimeError unless two arrays or numbers are equal: no figure counts otherwise."""
    if not np.array_equal(np.asarray(found), np.asarray(written)):
        raise RuntimeError("what was read is not what was written")


class Suite:
    """Base of all benchmarks: images, and a scratch directory for each sample.

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
        Whether this is the first sample of the process.
    """

    # rounds x repeat >= 10: with fewer samples asv cannot call a difference significant.
    rounds = 2
    repeat: int | tuple[int, int, float] = 5
    number = 1
    warmup_time = 0.0
    timeout = 600.0

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    scratch: Path
    first: bool

    def __init__(self) -> None:
        self.undo = ExitStack()

    def setup_cache(self) -> None:
        """Make the images for all benchmarks of up to 10,000."""
        _save_images(COUNTS[-1])

    def begin(self, count: int, side: int = 32) -> None:
        """Start a sample on `count` images of `side` by `side` pixels."""
        self.first = not hasattr(self, "images")
        self.scratch = Path(tempfile.mkdtemp(dir=Path.cwd()))
        self.undo.callback(shutil.rmtree, self.scratch)
        if self.first:
            check_versions()
            if side == 32:
                self.images = np.array(np.load("images.npy", mmap_mode="r")[:count])
                self.labels = np.load("labels.npy")[:count]
            else:
                self.images, self.labels = self._sized(count, side)

    def _sized(self, count: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images of another size; the first benchmark to ask for them makes them."""
        path = Path.cwd() / f"images-{count}-{side}.npz"
        if not path.exists():
            aside = self.scratch / path.name
            images, labels = datasets.load(count, side)
            np.savez(aside, images=images, labels=labels)
            os.rename(aside, path)
        with np.load(path) as saved:
            return saved["images"], saved["labels"]

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
        shape = self.images.shape[1:]
        path = self.scratch / "store"
        store = storage_impl.create_store(
            path, backend, image_shape=shape, durable=durable, **options
        )
        self.undo.callback(discard, store)
        return store

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
        path = Path.cwd() / (name + "".join(f"-{key}={options[key]}" for key in options))
        if not path.exists():
            with self.new_store(backend, **options) as store:
                store.write_many(self.images[part], self.labels[part])
                self.compare(store, part)
                if hasattr(os, "sync"):  # much faster than file by file, as closing does it
                    os.sync()
            os.rename(store.path, path)
        return path

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


def discard(store: storage_impl.ImageStore) -> None:
    """Remove a store and close it, so that closing finds nothing that it had to sync."""
    if os.name != "nt":  # which removes no open file
        shutil.rmtree(store.path, ignore_errors=True)
    with suppress(storage_impl.WriteFailedError):
        store.close()


class LargeSuite(Suite):
    """Mixed into a benchmark for its 100,000 images: few samples, and images of its own.

    The quick run leaves out the classes whose name ends in "Large".
    """

    rounds = 1
    repeat = 3
    timeout = 3600.0

    def setup_cache(self) -> None:
        """Make 100,000 images."""
        _save_images(LARGE_COUNTS[-1])


def _save_images(count: int) -> None:
    record_facts()  # here, since every setup_cache makes images
    images, labels = datasets.load(count)
    np.save("images.npy", images)
    np.save("labels.npy", labels)
    if hasattr(os, "sync"):  # the environment has just been made: writing it is not measured
        os.sync()
