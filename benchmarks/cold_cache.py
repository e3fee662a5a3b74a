"""What does reading cost when the page cache holds nothing of the store?

Before each sample the pages of all files of the store are dropped, which needs no root, and
mincore is asked whether they are gone; where they stay there is no figure. Directories and
inodes stay in memory, and so does what lies below the page cache: the caches of the disk, of the
host of a virtual machine, of a file system with one of its own (ZFS). Opening is timed with the
reading, since opening a store brings back some of its pages.
"""

import storage_impl
from benchmarks.common import BACKENDS, compare, facts, version
from benchmarks.page_cache import ColdSuite


class ColdReadMany(ColdSuite):
    """`open_store` and `read_many` of everything, in order, with nothing in the page cache."""

    params = (BACKENDS, (1_000, 10_000))
    version = version(1)

    def setup(self, backend: str, count: int) -> None:
        """Empty the page cache; once in a process, read everything before."""
        self.begin(count)
        self.path = self.stored(backend)
        if self.first:  # which also imports the library
            with storage_impl.open_store(self.path) as store:
                self.compare(store)
        self.empty_cache(self.path)

    @facts(cache="cold")
    def time_read(self, backend: str, count: int) -> None:
        """Read `count` images."""
        with storage_impl.open_store(self.path) as store:
            store.read_many()


class ColdReadOne(ColdSuite):
    """`open_store` and `read_one` of 10,000 images, with nothing in the page cache."""

    params = (BACKENDS,)
    param_names = ("backend",)
    version = version(1)

    def setup(self, backend: str) -> None:
        """Empty the page cache; once in a process, read the image before."""
        self.begin(10_000)
        self.path = self.stored(backend)
        self.index = len(self.images) * 2 // 3
        if self.first:
            with storage_impl.open_store(self.path) as store:
                image, label = store.read_one(self.index)
            compare(image, self.images[self.index])
            compare(label, self.labels[self.index])
        self.empty_cache(self.path)

    @facts(images=1, cache="cold")
    def time_read(self, backend: str) -> None:
        """Read one image."""
        with storage_impl.open_store(self.path) as store:
            store.read_one(self.index)


class ColdOpen(ColdSuite):
    """`open_store` of 10,000 images, and `close`, with nothing in the page cache."""

    params = (BACKENDS,)
    param_names = ("backend",)
    version = version(1)

    def setup(self, backend: str) -> None:
        """Empty the page cache; once in a process, open the store before."""
        self.begin(10_000)
        self.path = self.stored(backend)
        if self.first:
            with storage_impl.open_store(self.path) as store:
                compare(len(store), len(self.images))
        self.empty_cache(self.path)

    @facts(images=1, cache="cold")  # what opening costs is told as it is, not shared by the images
    def time_open(self, backend: str) -> None:
        """Open the store and close it."""
        storage_impl.open_store(self.path).close()
