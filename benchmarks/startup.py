"""How long is it from nothing to a library, and from a path to a store that can be read?"""

import storage_impl
from benchmarks.common import BACKENDS, StoreSuite, Suite, check_versions, compare, facts, version


class Import(Suite):
    """What an `import` takes in a Python that has just started, numpy included.

    With a backend the library that it needs is imported, too.
    """

    warmup_time = 0.1  # one time, in which Python compiles and the system reads the files
    version = version(1)

    def setup(self) -> None:
        """Make sure of what is installed."""
        check_versions()

    @facts(images=1)
    def timeraw_storage_impl(self) -> str:
        """Import the package alone."""
        return "import storage_impl"

    @facts(images=1)
    def timeraw_png(self) -> str:
        """Import it and its PNG backend."""
        return "import storage_impl; storage_impl.BACKENDS['png']"

    @facts(images=1)
    def timeraw_lmdb(self) -> str:
        """Import it and its LMDB backend."""
        return "import storage_impl; storage_impl.BACKENDS['lmdb']"

    @facts(images=1)
    def timeraw_hdf5(self) -> str:
        """Import it and its HDF5 backend."""
        return "import storage_impl; storage_impl.BACKENDS['hdf5']"


class OpenStore(StoreSuite):
    """`open_store` of a store of `count` images, and `close`.

    Backends differ in what they leave for the first read, which `time_open_read` includes.
    """

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
                compare(store.read_one(count // 2)[0], self.images[count // 2])

    @facts(images=1)  # what opening costs is told as it is, not shared among the images
    def time_open(self, backend: str, count: int) -> None:
        """Open the store and close it."""
        storage_impl.open_store(self.path).close()

    @facts(images=1)
    def time_open_read(self, backend: str, count: int) -> None:
        """Open the store, read the image in the middle and close it."""
        with storage_impl.open_store(self.path) as store:
            store.read_one(count // 2)
