"""What does an image cost when many are written or read at once?"""

from benchmarks.common import BACKENDS, LARGE_COUNTS, LargeSuite, StoreSuite, facts, version


class WriteMany(StoreSuite):
    """`write_many` of `count` images into an empty store that is open; not synced."""

    version = version(1)

    def setup(self, backend: str, count: int) -> None:
        """Open an empty store; once in a process, write to it and look at what is there."""
        self.open_empty(backend, count)
        if self.first:
            self.time_write(backend, count)
            self.compare(self.store)
            self.teardown()
            self.open_empty(backend, count)

    def open_empty(self, backend: str, count: int) -> None:
        """Start a sample with an empty store."""
        self.begin(count)
        self.store = self.new_store(backend)

    @facts(
        floors={
            "png": "floor.PngFiles.time_write",
            "lmdb": "floor.RawFile.time_write",
            "hdf5": "floor.RawFile.time_write",
        }
    )
    def time_write(self, backend: str, count: int) -> None:
        """Write `count` images."""
        self.store.write_many(self.images, self.labels)


class WriteManyLarge(LargeSuite, WriteMany):
    """`WriteMany` of 100,000 images."""

    params = (BACKENDS, LARGE_COUNTS)


class ReadMany(StoreSuite):
    """`read_many` of everything, in order, from a store that was read before."""

    warmup_time = 0.1
    version = version(1)

    def setup(self, backend: str, count: int) -> None:
        """Open a store of `count` images."""
        self.begin(count)
        self.store = self.warm_store(backend)

    @facts(
        floors={
            "png": "floor.PngFiles.time_read",
            "lmdb": "floor.RawFile.time_read",
            "hdf5": "floor.RawFile.time_read",
        }
    )
    def time_read(self, backend: str, count: int) -> None:
        """Read `count` images."""
        self.store.read_many()


class ReadManyLarge(LargeSuite, ReadMany):
    """`ReadMany` of 100,000 images."""

    params = (BACKENDS, LARGE_COUNTS)
