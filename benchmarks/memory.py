"""How much memory do reading and writing take, including the process and its libraries?"""

import os
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import storage_impl
from benchmarks.common import BACKENDS, LARGE, LARGE_COUNT, MADE, StoreSuite, compare, kept, version


class PeakRead(StoreSuite):
    """The peak of a process that opens a store and reads `count` images of 3,072 bytes.

    asv records the peak since the process began, including pages of mapped files. So another
    process makes the stores, and the check of what was read comes after the figure is taken.
    """

    params = (BACKENDS, (MADE, LARGE_COUNT))
    version = version(2)

    def setup_cache(self) -> None:
        """Make the images and the stores."""
        super().setup_cache()
        for count in (MADE, LARGE_COUNT) if os.environ.get(LARGE) else (MADE,):
            for backend in BACKENDS:
                maker = StoreSuite()
                maker.setup(backend, count)
                kept(f"read-{backend}-{count}", partial(os.rename, maker.stored(backend)))
                maker.teardown()

    def amount(self, **parameters: Any) -> tuple[int, int]:
        """Return one image, since the measured process should hold only what it reads."""
        return 1, 32

    def prepare(self, backend: str, count: int) -> None:
        """Find the store."""
        self.path = Path.cwd() / f"read-{backend}-{count}"
        self.sums = [np.empty(0, np.uint64)]
        self.found = [np.empty(0, np.int64)]

    def remember(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """Keep only the sums and the labels of what was read, for the check."""
        self.sums.append(sums(images))
        self.found.append(labels)

    def compare_read(self, count: int) -> None:
        """Raise RuntimeError unless everything was read."""
        images, labels = self.load(count, 32)
        compare(np.concatenate(self.sums), sums(images))
        compare(np.concatenate(self.found), labels)

    def peakmem_read_many(self, backend: str, count: int) -> None:
        """Read all images at once."""
        self.undo.callback(self.compare_read, count)
        with storage_impl.open_store(self.path) as store:
            self.remember(*store.read_many())

    def peakmem_batches(self, backend: str, count: int) -> None:
        """Read all images in batches of 256, in order."""
        self.undo.callback(self.compare_read, count)
        with storage_impl.open_store(self.path) as store:
            for images, labels in store.batches(256):
                self.remember(images, labels)


def sums(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the sum of each image's pixels."""
    found: NDArray[np.uint64] = images.sum(axis=(1, 2, 3), dtype=np.uint64)
    return found


class PeakWrite(StoreSuite):
    """The peak of a process that writes `count` images from a generator: 614 MB of pixels."""

    params = (BACKENDS, (200_000,))
    large = (200_000,)
    version = version(1)

    def amount(self, **parameters: Any) -> tuple[int, int]:
        """Return the one image that is written."""
        return 1, 32

    def prepare(self, backend: str, count: int) -> None:
        """Open an empty store."""
        self.store = self.new_store(backend)

    def compare_written(self, count: int) -> None:
        """Raise RuntimeError unless another reader finds the image `count` times."""
        with storage_impl.open_store(self.store.path) as store:
            compare(len(store), count)
            for images, _ in store.batches(1_000):
                compare(images, np.broadcast_to(self.images[0], images.shape))

    def peakmem_write_many(self, backend: str, count: int) -> None:
        """Write one image `count` times."""
        self.undo.callback(self.compare_written, count)
        self.store.write_many(repeat(self.images[0], count), repeat(0, count))
