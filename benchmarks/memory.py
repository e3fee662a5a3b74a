"""How much memory does reading and writing take, the process and its libraries included?"""

from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import storage_impl
from benchmarks.common import BACKENDS, COUNTS, LargeSuite, StoreSuite, compare, version


class ReadSuite(StoreSuite):
    """Base of the benchmarks that read 10,000 images, 30.7 MB of pixels.

    asv takes the peak of the process since it began, pages of mapped files included: another
    process makes the stores, and what was read is compared when the figure has been taken.
    """

    params = (BACKENDS,)
    param_names = ("backend",)

    def setup_cache(self) -> None:
        """Make the images and the stores."""
        super().setup_cache()
        maker = StoreSuite()
        maker.begin(COUNTS[-1])
        for backend in BACKENDS:
            maker.stored(backend)
        maker.teardown()

    def setup(self, backend: str) -> None:
        """Find the store."""
        self.begin(1)
        (self.path,) = Path().glob(f"{backend}-*")
        self.sums = [np.empty(0, np.uint64)]
        self.found = [np.empty(0, np.int64)]
        self.undo.callback(self.check)

    def remember(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """Keep little of what was read."""
        self.sums.append(sums(images))
        self.found.append(labels)

    def check(self) -> None:
        """Raise RuntimeError unless everything was read."""
        compare(np.concatenate(self.sums), sums(np.load("images.npy")))
        compare(np.concatenate(self.found), np.load("labels.npy"))


def sums(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the sum of each image's pixels."""
    found: NDArray[np.uint64] = images.sum(axis=(1, 2, 3), dtype=np.uint64)
    return found


class ReadMany(ReadSuite):
    """`read_many` of everything."""

    version = version(2)

    def peakmem_read(self, backend: str) -> None:
        """Read all images."""
        with storage_impl.open_store(self.path) as store:
            self.remember(*store.read_many())


class ReadBatches(ReadSuite):
    """`batches` of 256, in order."""

    version = version(1)

    def peakmem_read(self, backend: str) -> None:
        """Read all batches."""
        with storage_impl.open_store(self.path) as store:
            for images, labels in store.batches(256):
                self.remember(images, labels)


class WriteGeneratorLarge(LargeSuite, StoreSuite):
    """`write_many` of 200,000 images that a generator gives, 614 MB of pixels."""

    params = (BACKENDS, (200_000,))
    version = version(1)

    def setup_cache(self) -> None:
        """Make the one image that is written."""
        StoreSuite.setup_cache(self)

    def setup(self, backend: str, count: int) -> None:
        """Open an empty store."""
        self.begin(1)
        self.store = self.new_store(backend)
        self.undo.callback(self.check, count)

    def check(self, count: int) -> None:
        """Raise RuntimeError unless another reader finds the image `count` times."""
        with storage_impl.open_store(self.store.path) as store:
            compare(len(store), count)
            for images, _ in store.batches(1_000):
                compare(images, np.broadcast_to(self.images[0], images.shape))

    def peakmem_write(self, backend: str, count: int) -> None:
        """Write one image `count` times."""
        self.store.write_many(repeat(self.images[0], count), repeat(0, count))
