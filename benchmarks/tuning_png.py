"""What do Pillow's compression levels cost, and how much space do they save?"""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import floor  # not its classes: asv would list them as benchmarks of this module
from benchmarks.common import StoreSuite, Suite, compare, facts, version

LEVELS = (0, 1, 6, 9)
SIDES = (32, 256)
BYTES = 3 << 18  # 256 images of 32 pixels a side, 4 of 256


def images_of(side: int) -> int:
    """Return how many images with this side have 768 KiB of pixels together."""
    return BYTES // (side * side * 3)


class PngLevel(StoreSuite):
    """Stores of PNG files by compression level, with images of 32 and 256 pixels a side."""

    params = (LEVELS, SIDES)
    param_names = ("level", "side")
    unit = "file bytes/raw"
    version = version(1)

    def amount(self, **parameters: Any) -> tuple[int, int]:
        """Return how many images have 768 KiB of pixels together, and their side."""
        return images_of(parameters["side"]), parameters["side"]

    def prepare(self, level: int, side: int) -> None:
        """Open a store that was read before, and an empty one."""
        self.store = self.warm_store("png", compress_level=level)
        self.empty = self.new_store("png", compress_level=level)

    def check(self, level: int, side: int) -> None:
        """Raise RuntimeError unless the store holds what was written."""
        self.time_write_768kib(level, side)
        self.compare(self.empty)

    @facts(bytes=BYTES)
    def time_write_768kib(self, level: int, side: int) -> None:
        """Write all images; not synced."""
        self.empty.write_many(self.images, self.labels)

    @facts(bytes=BYTES)
    def time_read_768kib(self, level: int, side: int) -> None:
        """Read all images."""
        self.store.read_many()

    def track_ratio(self, level: int, side: int) -> float:
        """Return the total length of the PNG files divided by the bytes of the pixels."""
        files = self.store.path.rglob("*.png")
        return sum(path.stat().st_size for path in files) / self.images.nbytes


class PngCodec(Suite):
    """The same images and levels as `PngLevel`, without files: Pillow from memory to memory."""

    params = (LEVELS, SIDES)
    param_names = ("level", "side")
    version = version(2)

    def amount(self, **parameters: Any) -> tuple[int, int]:
        """Return how many images have 768 KiB of pixels together, and their side."""
        return images_of(parameters["side"]), parameters["side"]

    def check(self, level: int, side: int) -> None:
        """Raise RuntimeError unless decoding gives the images; keep the encoded ones to decode."""
        self.time_encode_768kib(level, side)
        self.time_decode_768kib(level, side)
        compare(np.stack(self.decoded), self.images)

    @facts(bytes=BYTES)
    def time_encode_768kib(self, level: int, side: int) -> None:
        """Encode each image."""
        self.encoded = []
        for image in self.images:
            buffer = BytesIO()
            Image.fromarray(image).save(buffer, "PNG", compress_level=level)
            self.encoded.append(buffer.getvalue())

    @facts(bytes=BYTES)
    def time_decode_768kib(self, level: int, side: int) -> None:
        """Decode each image."""
        self.decoded = [floor.decode(data) for data in self.encoded]
