"""What does reading cost when the page cache holds nothing of the store?

Before each sample, the pages of all files of the store are dropped, which needs no root. mincore
then says whether they are gone; if any stay, there is no figure. Directories and inodes stay in
memory. So do the caches below the page cache: those of the disk, of the host of a virtual machine,
and of a file system with its own cache (ZFS). The time includes opening the store, because opening
brings back some of its pages.
"""

from pathlib import Path

import storage_impl
from benchmarks import page_cache
from benchmarks.common import BACKENDS, StoreSuite, compare, facts, version


class ColdSuite(StoreSuite):
    """Base of the benchmarks that read with nothing of the store in the page cache."""

    def empty_cache(self, directory: Path) -> None:
        """Drop the files of a directory from the page cache, at the end of `prepare`.

        Raises
        ------
        NotImplementedError
            They cannot be dropped: asv records "n/a" for the benchmark.
        RuntimeError
            They could be dropped before, but not for this sample: the benchmark fails. After the
            first sample asv ignores NotImplementedError, and would time a warm read.
        """
        try:
            page_cache.empty(directory)
        except NotImplementedError as error:
            if self.first:
                raise
            raise RuntimeError(
                f"the page cache was emptied before, but not for this sample: {error}"
            ) from error


class ColdAll(ColdSuite):
    """`open_store` and `read_many` of everything, in order, with nothing in the page cache."""

    params = (BACKENDS, (1_000, 10_000))
    version = version(1)

    def prepare(self, backend: str, count: int) -> None:
        """Empty the page cache."""
        self.path = self.stored(backend)
        self.empty_cache(self.path)

    def check(self, backend: str, count: int) -> None:
        """Raise RuntimeError unless everything is right; this also imports the library."""
        with storage_impl.open_store(self.path) as store:
            self.compare(store)

    @facts(cache="cold")
    def time_open_read(self, backend: str, count: int) -> None:
        """Open the store, read `count` images and close it."""
        with storage_impl.open_store(self.path) as store:
            store.read_many()


class ColdOne(ColdSuite):
    """`open_store` of 10,000 images and one `read_one`, with nothing in the page cache."""

    params = (BACKENDS,)
    param_names = ("backend",)
    version = version(1)

    def prepare(self, backend: str) -> None:
        """Empty the page cache."""
        self.path = self.stored(backend)
        self.index = len(self.images) * 2 // 3
        self.empty_cache(self.path)

    def check(self, backend: str) -> None:
        """Raise RuntimeError unless the image is right; this also imports the library."""
        with storage_impl.open_store(self.path) as store:
            image, label = store.read_one(self.index)
        compare(image, self.images[self.index])
        compare(label, self.labels[self.index])

    @facts(images=1, cache="cold")
    def time_open_read(self, backend: str) -> None:
        """Open the store, read one image and close it."""
        with storage_impl.open_store(self.path) as store:
            store.read_one(self.index)


class ColdOpen(ColdSuite):
    """`open_store` of 10,000 images, and `close`, with nothing in the page cache."""

    params = (BACKENDS,)
    param_names = ("backend",)
    version = version(1)

    def prepare(self, backend: str) -> None:
        """Empty the page cache."""
        self.path = self.stored(backend)
        self.empty_cache(self.path)

    def check(self, backend: str) -> None:
        """Raise RuntimeError unless all images are there; this also imports the library."""
        with storage_impl.open_store(self.path) as store:
            compare(len(store), len(self.images))

    @facts(images=1, cache="cold")  # the cost of opening, not divided by the number of images
    def time_open(self, backend: str) -> None:
        """Open the store and close it."""
        storage_impl.open_store(self.path).close()
