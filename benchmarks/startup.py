"""How long is it from a path to a store that can be read?"""

import storage_impl
from benchmarks.common import BACKENDS, StoreSuite, compare, facts, version


class OpenStore(StoreSuite):
    """`open_store` of a store of `count` images, and `close`."""

    params = (BACKENDS, (1, 1_000, 10_000))
    warmup_time = 0.1
    version = version(1)

    def setup(self, backend: str, count: int) -> None:
        """Make a store of `count` images, where no benchmark has yet."""
        self.begin(count)
        self.path = self.stored(backend)
        if self.first:
            with storage_impl.open_store(self.path) as store:
                compare(len(store), len(self.images))

    @facts(images=1)  # what opening costs is told as it is, not shared among the images
    def time_open(self, backend: str, count: int) -> None:
        """Open the store and close it."""
        storage_impl.open_store(self.path).close()
