"""What does an image cost when many are written or read at once?"""

from benchmarks.common import StoreSuite, facts, version


class WriteMany(StoreSuite):
    """`write_many` of `count` images into an empty, open store; not synced."""

    version = version(1)

    def prepare(self, backend: str, count: int) -> None:
        """Open an empty store."""
        self.store = self.new_store(backend)

    def check(self, backend: str, count: int) -> None:
        """Raise RuntimeError unless the store holds what was written."""
        self.time_write(backend, count)
        self.compare(self.store)

    @facts(
        floors={
            "png": "floor.PngFiles.time_write",
            "lmdb": "floor.RawFile.time_write",
            "hdf5": "floor.RawFile.time_write",
        },
        plain="plain_stores.PlainWrite.time_write",
    )
    def time_write(self, backend: str, count: int) -> None:
        """Write `count` images."""
        self.store.write_many(self.images, self.labels)


class ReadMany(StoreSuite):
    """`read_many` of everything, in order, from a store that was read before."""

    warmup_time = 0.1
    version = version(1)

    def prepare(self, backend: str, count: int) -> None:
        """Open a store of `count` images."""
        self.store = self.warm_store(backend)

    @facts(
        floors={
            "png": "floor.PngFiles.time_read",
            "lmdb": "floor.RawFile.time_read",
            "hdf5": "floor.RawFile.time_read",
        },
        plain="plain_stores.PlainRead.time_read",
    )
    def time_read(self, backend: str, count: int) -> None:
        """Read `count` images."""
        self.store.read_many()
