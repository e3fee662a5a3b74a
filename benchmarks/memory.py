"""How much memory does reading and writing take, the process and its libraries included?"""

from itertools import repeat

import storage_impl
from benchmarks.common import BACKENDS, COUNTS, LargeSuite, StoreSuite, compare, version


class ReadMany(StoreSuite):
    """`read_many` of 10,000 images, 30.7 MB of pixels."""

    params = (BACKENDS,)
    param_names = ("backend",)
    version = version(1)

    def setup(self, backend: str) -> None:
        """Make a store, and let go of the images."""
        self.begin(COUNTS[-1])
        self.path = self.stored(backend)
        self.images = self.images[:1].copy()

    def peakmem_read(self, backend: str) -> None:
        """Read all images."""
        with storage_impl.open_store(self.path) as store:
            store.read_many()


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

    def peakmem_write(self, backend: str, count: int) -> None:
        """Write one image `count` times."""
        written = self.store.write_many(repeat(self.images[0], count), repeat(0, count))
        compare(written, range(count))
