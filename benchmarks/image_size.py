"""What changes with the size of the images?

Each size has the same 6 MiB of pixels, in images of 24 to 512 pixels a side, so that the times of
all sizes are comparable.
"""

from typing import Any

import storage_impl
from benchmarks.common import BACKENDS, StoreSuite, facts, version

LARGE_SIDE = 512
SIDES = (24, 32, 64, 128, 256, LARGE_SIDE)
PIXEL_BYTES = 6 << 20  # 8 images of 512 pixels a side


class SizeSuite(StoreSuite):
    """Base of the benchmarks of images of several sizes."""

    params: tuple[tuple[Any, ...], ...] = (BACKENDS, SIDES)
    param_names = ("backend", "side")
    large = (LARGE_SIDE,)

    def amount(self, **parameters: Any) -> tuple[int, int]:
        """Return how many images have 6 MiB of pixels together, and their side."""
        side = parameters["side"]
        return PIXEL_BYTES // (side * side * 3), side


class WriteSize(SizeSuite):
    """`write_many` of 6 MiB of pixels into an empty, open store; not synced."""

    version = version(1)

    def prepare(self, backend: str, side: int) -> None:
        """Open an empty store."""
        self.store = self.new_store(backend)

    def check(self, backend: str, side: int) -> None:
        """Raise RuntimeError unless the store holds what was written."""
        self.time_write_6mib(backend, side)
        self.compare(self.store)

    @facts(bytes=PIXEL_BYTES)
    def time_write_6mib(self, backend: str, side: int) -> None:
        """Write all images."""
        self.store.write_many(self.images, self.labels)


class ReadSize(SizeSuite):
    """`read_many` of 6 MiB of pixels, in order, from a store that was read before."""

    warmup_time = 0.1
    version = version(1)

    def prepare(self, backend: str, side: int) -> None:
        """Open a store."""
        self.store = self.warm_store(backend)

    @facts(bytes=PIXEL_BYTES)
    def time_read_6mib(self, backend: str, side: int) -> None:
        """Read all images."""
        self.store.read_many()


class SizeOnDisk(SizeSuite):
    """The disk space of 6 MiB of pixels that one `write_many` wrote."""

    unit = "stored/raw"
    version = version(1)

    def prepare(self, backend: str, side: int) -> None:
        """Get the disk usage of a store."""
        with storage_impl.open_store(self.stored(backend)) as store:
            self.usage = store.disk_usage()

    def track_ratio(self, backend: str, side: int) -> float:
        """Return the bytes allocated for all files of the store, divided by those of the pixels."""
        return self.usage.allocated / self.images.nbytes
