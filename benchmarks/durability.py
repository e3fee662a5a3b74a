"""What does it cost that a write survives a power cut, and not only the end of the process?

The article that README names compares LMDB with syncs to PNG and HDF5 without. Here each backend is
measured both ways. A store that is not durable syncs when it is closed. The benchmarks whose names
end in `close` include that: they are the figure for a program that needs its images on the disk
when it ends.
"""

import storage_impl
from benchmarks.common import BACKENDS, StoreSuite, facts, sync, version


class DurableSuite(StoreSuite):
    """Base of the benchmarks that write with and without `durable`."""

    params = (BACKENDS, (True, False))
    param_names = ("backend", "durable")

    def prepare(self, backend: str, durable: bool) -> None:
        """Open an empty store, after earlier writes are on the disk."""
        self.store = self.new_store(backend, durable=durable)
        sync()

    def check(self, backend: str, durable: bool) -> None:
        """Raise RuntimeError unless the store holds what was written."""
        self.write()
        self.compare(self.store)

    def write(self) -> None:
        """Write all images."""
        raise NotImplementedError


class OneByOne(DurableSuite):
    """`write_one` of each of 100 images into an empty, open store."""

    count = 100
    version = version(1)

    def write(self) -> None:
        """Write all images, one by one."""
        for image, label in zip(self.images, self.labels, strict=True):
            self.store.write_one(image, label)

    @facts(images=100)
    def time_write_100(self, backend: str, durable: bool) -> None:
        """Write 100 images."""
        self.write()

    @facts(images=100)
    def time_write_100_close(self, backend: str, durable: bool) -> None:
        """Write 100 images, and close the store."""
        self.write()
        self.store.close()


class WriteBatches(DurableSuite):
    """`write_many` of 5 batches of 100 images into an empty, open store."""

    count = 500
    batch = 100
    version = version(1)

    def write(self) -> None:
        """Write all images, batch by batch."""
        for start in range(0, len(self.images), self.batch):
            here = slice(start, start + self.batch)
            self.store.write_many(self.images[here], self.labels[here])

    @facts(images=500)
    def time_write_500(self, backend: str, durable: bool) -> None:
        """Write 500 images."""
        self.write()

    @facts(images=500)
    def time_write_500_close(self, backend: str, durable: bool) -> None:
        """Write 500 images, and close the store."""
        self.write()
        self.store.close()


class CreateToClose(StoreSuite):
    """Create a durable store, write 1,000 images with one `write_many`, and close it."""

    params = (BACKENDS,)
    param_names = ("backend",)
    count = 1_000
    version = version(1)

    def prepare(self, backend: str) -> None:
        """Choose a path, after earlier writes are on the disk."""
        self.path = self.scratch / "store"
        sync()

    def check(self, backend: str) -> None:
        """Raise RuntimeError unless the store holds what was written."""
        self.time_write_1000(backend)
        with storage_impl.open_store(self.path) as store:
            self.compare(store)

    @facts(images=1_000, plain="plain_stores.PlainSyncedWrite.time_write_1000")
    def time_write_1000(self, backend: str) -> None:
        """Create the store, write 1,000 images and close it."""
        with self.create(self.path, backend, durable=True) as store:
            store.write_many(self.images, self.labels)
