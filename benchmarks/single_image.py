"""What does one image cost, written or read by itself?"""

from benchmarks.common import BACKENDS, StoreSuite, compare, facts, version


class WriteOne(StoreSuite):
    """`write_one` of the first image into an empty, open store; not synced."""

    params = (BACKENDS,)
    param_names = ("backend",)
    repeat = 25  # the time of one image is noisy, and short
    count = 1
    version = version(1)

    def prepare(self, backend: str) -> None:
        """Open an empty store."""
        self.store = self.new_store(backend)
        self.image, self.label = self.images[0], self.labels[0]

    def check(self, backend: str) -> None:
        """Raise RuntimeError unless the store holds what was written."""
        self.time_write(backend)
        self.compare(self.store)

    def time_write(self, backend: str) -> None:
        """Write one image."""
        self.store.write_one(self.image, self.label)


class ReadOne(StoreSuite):
    """`read_one` of 100 scattered images out of 1,000, from a store that was read before."""

    params = (BACKENDS,)
    param_names = ("backend",)
    warmup_time = 0.1
    count = 1_000
    version = version(1)

    # 389 and 1,000 are coprime: all indices differ, and no two consecutive ones are neighbours.
    indices = tuple(i * 389 % 1_000 for i in range(100))

    def prepare(self, backend: str) -> None:
        """Open a store."""
        self.store = self.warm_store(backend)

    def check(self, backend: str) -> None:
        """Raise RuntimeError unless the images and their labels are right."""
        images, labels = zip(*map(self.store.read_one, self.indices), strict=True)
        compare(images, self.images[list(self.indices)])
        compare(labels, self.labels[list(self.indices)])

    @facts(
        images=100,
        floors={
            "png": "floor.OnePng.time_read_100",
            "lmdb": "floor.OneLmdb.time_read_100",
            "hdf5": "floor.OneHdf5.time_read_100",
        },
        plain="plain_stores.PlainOne.time_read_100",
    )
    def time_read_100(self, backend: str) -> None:
        """Read 100 images, one by one."""
        read_one = self.store.read_one
        for index in self.indices:
            read_one(index)
