"""How long does it take to import the package, and to open a store?"""

import storage_impl
from benchmarks.common import BACKENDS, StoreSuite, Suite, compare, facts, version


class ImportPackage(Suite):
    """Import the package, numpy included, in a Python that has just started."""

    warmup_time = 0.1  # one import, in which Python compiles the files and the system reads them
    count = 1
    version = version(1)

    @facts(images=1)
    def timeraw_import(self) -> str:
        """Import the package."""
        return "import storage_impl"


class ImportBackend(Suite):
    """Import the package and a backend, with the library that the backend needs."""

    warmup_time = 0.1
    count = 1
    version = version(1)
    params = (BACKENDS,)
    param_names = ("backend",)

    @facts(images=1)
    def timeraw_import(self, backend: str) -> str:
        """Import the package and the backend."""
        return f"import storage_impl; storage_impl.BACKENDS[{backend!r}]"


class OpenStore(StoreSuite):
    """`open_store` of a store of `count` images, and `close`.

    Backends differ in how much work they leave for the first read. `time_open_read` includes it.
    """

    params = (BACKENDS, (1, 1_000, 10_000))
    warmup_time = 0.1
    version = version(1)

    def prepare(self, backend: str, count: int) -> None:
        """Make a store of `count` images, unless a benchmark has made it."""
        self.path = self.stored(backend)

    def check(self, backend: str, count: int) -> None:
        """Raise RuntimeError unless the images are there."""
        with storage_impl.open_store(self.path) as store:
            compare(len(store), len(self.images))
            compare(store.read_one(count // 2)[0], self.images[count // 2])

    @facts(images=1)  # the cost of opening, not divided by the number of images
    def time_open(self, backend: str, count: int) -> None:
        """Open the store and close it."""
        storage_impl.open_store(self.path).close()

    @facts(images=1, plain="plain_stores.PlainOpen.time_open_read")
    def time_open_read(self, backend: str, count: int) -> None:
        """Open the store, read the image in the middle and close it."""
        with storage_impl.open_store(self.path) as store:
            store.read_one(count // 2)
