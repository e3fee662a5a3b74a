"""How long does plain code take with the same images, and with stores that storage_impl lacks?

The code is in `plain`. It has no checksums, no commits and no other promises. Each benchmark has
the workload of a benchmark of storage_impl, which names it as its `plain`. The ratio of the two
times is what the promises cost. Both sync what they write, or neither does.
"""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import finalize

import numpy as np

from benchmarks import single_image  # not the class: asv would list it as one of this module
from benchmarks.common import LARGE_COUNT, Suite, compare, facts, kept, sync, version
from benchmarks.plain import bytes_on_disk

OTHERS = ("leveldb", "feather", "tiledb", "zarr")  # each needs a package of its own
STORES = ("png", "lmdb", "hdf5", "hdf5_growing", "sqlite", "npy", *OTHERS)
COUNTS = (1_000, 10_000, LARGE_COUNT)


class PlainSuite(Suite):
    """Base of the benchmarks of plain code; a store has the name of its module."""

    params: tuple[tuple[Any, ...], ...] = (STORES, COUNTS)
    param_names: tuple[str, ...] = ("store", "count")

    plain: ModuleType

    def setup(self, *parameters: Any) -> None:
        """Import the code, and make a sample ready."""
        self.plain = plain(parameters[0])
        super().setup(*parameters)

    def stored(self, store: str) -> Path:
        """Return a store of all images; the first benchmark to ask writes it."""

        def make(path: Path) -> None:
            self.plain.write_all(path, self.images, self.labels, sync=False)
            sync()

        return kept(f"plain-{store}-{len(self.images)}", make)

    def compare(self, path: Path) -> None:
        """Raise RuntimeError unless a store holds the images."""
        with self.plain.opened(path) as opened:
            images, labels = self.plain.read_all(opened)
        compare(images, self.images)
        compare(labels, self.labels)


def plain(store: str) -> ModuleType:
    """Return the code for a store.

    Raises
    ------
    NotImplementedError
        The store is one of `OTHERS`, and the package that it needs is not installed.
    """
    if store not in OTHERS:
        return importlib.import_module(f"benchmarks.plain.{store}")
    try:
        return importlib.import_module(f"benchmarks.plain.others.{store}")
    except ImportError as error:
        raise NotImplementedError(
            f"{store} needs {error.name}, which `tox run -e others` installs if it has a wheel"
        ) from error


class WarmSuite(PlainSuite):
    """Base of the benchmarks that read a store which this process opened once and read before."""

    warmup_time = 0.1

    def prepare(self, store: str, *_: Any) -> None:
        """Open the store."""
        if self.first:
            stack = ExitStack()
            finalize(self, stack.close)
            self.opened = stack.enter_context(self.plain.opened(self.stored(store)))


class PlainWrite(PlainSuite):
    """Make a store of `count` images, and close it; not synced."""

    version = version(1)

    def prepare(self, store: str, count: int) -> None:
        """Choose a path."""
        self.path = self.scratch / "store"

    def check(self, store: str, count: int) -> None:
        """Raise RuntimeError unless the store holds what was written."""
        self.time_write(store, count)
        self.compare(self.path)

    def time_write(self, store: str, count: int) -> None:
        """Write `count` images."""
        self.plain.write_all(self.path, self.images, self.labels, sync=False)


class PlainSyncedWrite(PlainSuite):
    """Make a store of 1,000 images, sync it and close it."""

    params = (STORES,)
    param_names = ("store",)
    count = 1_000
    version = version(1)

    def prepare(self, store: str) -> None:
        """Choose a path, after earlier writes are on the disk."""
        self.path = self.scratch / "store"
        sync()

    def check(self, store: str) -> None:
        """Raise RuntimeError unless the store holds what was written."""
        self.time_write_1000(store)
        self.compare(self.path)

    @facts(images=1_000)
    def time_write_1000(self, store: str) -> None:
        """Write 1,000 images, and sync them."""
        self.plain.write_all(self.path, self.images, self.labels, sync=True)


class PlainRead(WarmSuite):
    """Read all images, in order."""

    version = version(1)

    def check(self, store: str, count: int) -> None:
        """Raise RuntimeError unless the images are right."""
        images, labels = self.plain.read_all(self.opened)
        compare(images, self.images)
        compare(labels, self.labels)

    def time_read(self, store: str, count: int) -> None:
        """Read `count` images."""
        self.plain.read_all(self.opened)


class PlainBatches(WarmSuite):
    """1,024 of 10,000 images in random order, in four batches of 256."""

    params = (STORES, ("shuffled",), (256,))
    param_names = ("store", "order", "batch")
    version = version(1)

    def read(self, batch: int) -> Iterator[Any]:
        """Yield the indices of each batch, and the batch."""
        order = np.random.default_rng(7).permutation(len(self.images))
        for start in range(0, 4 * batch, batch):
            indices = order[start : start + batch]
            yield indices, self.plain.read_batch(self.opened, indices)

    def check(self, store: str, order: str, batch: int) -> None:
        """Raise RuntimeError unless the images are right."""
        for indices, (images, labels) in self.read(batch):
            compare(images, self.images[indices])
            compare(labels, self.labels[indices])

    @facts(images=1_024)
    def time_read_1024(self, store: str, order: str, batch: int) -> None:
        """Read four batches."""
        for _ in self.read(batch):
            pass


class PlainOne(WarmSuite):
    """100 of 1,000 images, one by one: those of `single_image.ReadOne`, in the same order."""

    params = (STORES,)
    param_names = ("store",)
    count = 1_000
    version = version(1)

    def check(self, store: str) -> None:
        """Raise RuntimeError unless the images are right."""
        for index in single_image.ReadOne.indices:
            image, label = self.plain.read_one(self.opened, index)
            compare(image, self.images[index])
            compare(label, self.labels[index])

    @facts(images=100)
    def time_read_100(self, store: str) -> None:
        """Read 100 images."""
        read_one, opened = self.plain.read_one, self.opened
        for index in single_image.ReadOne.indices:
            read_one(opened, index)


class PlainOpen(PlainSuite):
    """Open a store of `count` images, read the image in the middle, and close the store."""

    params = (STORES, (10_000,))
    warmup_time = 0.1
    version = version(1)

    def prepare(self, store: str, count: int) -> None:
        """Make the store, unless a benchmark has made it."""
        self.path = self.stored(store)

    def check(self, store: str, count: int) -> None:
        """Raise RuntimeError unless the images are right."""
        self.compare(self.path)

    @facts(images=1)  # the cost of opening, not divided by the number of images
    def time_open_read(self, store: str, count: int) -> None:
        """Open the store, read an image and close it."""
        with self.plain.opened(self.path) as opened:
            self.plain.read_one(opened, len(self.images) // 2)


class PlainUsage(PlainSuite):
    """The bytes on disk of a store of `count` images."""

    unit = "bytes"
    version = version(1)

    def prepare(self, store: str, count: int) -> None:
        """Make the store, unless a benchmark has made it."""
        self.path = self.stored(store)

    def check(self, store: str, count: int) -> None:
        """Raise RuntimeError unless the images are right."""
        self.compare(self.path)

    def track_allocated(self, store: str, count: int) -> int:
        """Return the disk space of the files and directories, as `du` counts it."""
        return bytes_on_disk(self.path)
