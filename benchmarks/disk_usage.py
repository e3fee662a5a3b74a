"""How many bytes on disk do `count` images take?"""

import storage_impl
from benchmarks.common import StoreSuite, facts, version


class DiskUsage(StoreSuite):
    """The bytes of a store of `count` images that was written by one `write_many`."""

    unit = "bytes"
    version = version(1)

    def prepare(self, backend: str, count: int) -> None:
        """Weigh a store of `count` images."""
        with storage_impl.open_store(self.stored(backend)) as store:
            self.usage = store.disk_usage()

    def track_apparent(self, backend: str, count: int) -> int:
        """Return the sum of the lengths of the files."""
        return self.usage.apparent

    @facts(plain="plain_stores.PlainUsage.track_allocated")
    def track_allocated(self, backend: str, count: int) -> int:
        """Return what the files and directories take on the disk, as `du` counts it."""
        return self.usage.allocated
