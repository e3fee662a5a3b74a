"""How many bytes on disk do `count` images take?"""

import storage_impl
from benchmarks.common import StoreSuite, facts, version


class DiskUsage(StoreSuite):
    """The bytes of a store of `count` images that one `write_many` wrote."""

    unit = "bytes"
    version = version(1)

    def prepare(self, backend: str, count: int) -> None:
        """Get the disk usage of a store of `count` images."""
        with storage_impl.open_store(self.stored(backend)) as store:
            self.usage = store.disk_usage()

    def track_apparent(self, backend: str, count: int) -> int:
        """Return the sum of the lengths of the files."""
        return self.usage.apparent

    @facts(plain="plain_stores.PlainUsage.track_allocated")
    def track_allocated(self, backend: str, count: int) -> int:
        """Return the disk space of the files and directories, as `du` counts it."""
        return self.usage.allocated
