"""What is the least that any implementation can take for the same images?

The same bytes through nothing but the file system, memory or Pillow: no index, no
labels, no checksums, no commit. The reports show every backend as a multiple of it.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import COUNTS, LARGE_COUNTS, LargeSuite, Suite, compare, version


def encode(image: NDArray[np.uint8]) -> bytes:
    """Return the PNG bytes of an image, as Pillow writes them by default."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def decode(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels of PNG bytes."""
    return np.asarray(Image.open(BytesIO(data), formats=["PNG"]))


class FloorSuite(Suite):
    """Base of the floors: they have a count, and no backend."""

    params: tuple[tuple[Any, ...], ...] = (COUNTS,)
    param_names = ("count",)
    warmup_time = 0.1


class RawFile(FloorSuite):
    """The floor of the backends that keep raw pixels: all images as one file, not synced."""

    version = version(1)

    def setup(self, count: int) -> None:
        """Write the file to read, and choose the name of the file to write."""
        self.begin(count)
        self.written = self.scratch / "written"
        self.path = self.scratch / "images"
        self.images.tofile(self.path)
        if self.first:
            compare(np.fromfile(self.path, np.uint8), self.images.ravel())

    def time_write(self, count: int) -> None:
        """Write all images with ndarray.tofile."""
        self.images.tofile(self.written)

    def time_read(self, count: int) -> None:
        """Read all images with numpy.fromfile."""
        np.fromfile(self.path, np.uint8)


class Memory(FloorSuite):
    """The floor of everything: the images copied within memory."""

    version = version(1)

    def setup(self, count: int) -> None:
        """Load the images."""
        self.begin(count)

    def time_copy(self, count: int) -> None:
        """Copy all images."""
        self.images.copy()


class Png(FloorSuite):
    """Pillow alone, from memory to memory, image by image."""

    version = version(1)

    def setup(self, count: int) -> None:
        """Encode what is to be decoded."""
        self.begin(count)
        if self.first:
            self.encoded = [encode(image) for image in self.images]
            compare(np.stack([decode(data) for data in self.encoded]), self.images)

    def time_encode(self, count: int) -> None:
        """Encode each image."""
        for image in self.images:
            encode(image)

    def time_decode(self, count: int) -> None:
        """Decode each image into one array."""
        images = np.empty_like(self.images)
        for index, data in enumerate(self.encoded):
            images[index] = decode(data)


class PngFiles(FloorSuite):
    """The floor of PNG files: Pillow in memory, and a file created or read for each image."""

    warmup_time = 0.0
    version = version(1)

    def setup(self, count: int) -> None:
        """Write the files to read, where no benchmark has yet."""
        self.begin(count)
        if self.first:  # Pillow loads its plugins when they are first used
            decode(encode(self.images[0]))
        self.stored = Path.cwd() / f"floor-png-{count}"
        if not self.stored.exists():
            aside = self.scratch / "aside"
            aside.mkdir()
            self.write(aside)
            compare(self.read(aside), self.images)
            aside.rename(self.stored)

    def write(self, directory: Path) -> None:
        """Encode each image into a new file."""
        for index, image in enumerate(self.images):
            with open(f"{directory}/{index}.png", "xb") as file:
                file.write(encode(image))

    def read(self, directory: Path) -> NDArray[np.uint8]:
        """Decode each file into one array."""
        images = np.empty_like(self.images)
        for index in range(len(images)):
            with open(f"{directory}/{index}.png", "rb") as file:
                images[index] = decode(file.read())
        return images

    def time_write(self, count: int) -> None:
        """Write all images."""
        self.write(self.scratch)

    def time_read(self, count: int) -> None:
        """Read all images."""
        self.read(self.stored)


class RawFileLarge(LargeSuite, RawFile):
    """`RawFile` of 100,000 images."""

    params = (LARGE_COUNTS,)


class MemoryLarge(LargeSuite, Memory):
    """`Memory` of 100,000 images."""

    params = (LARGE_COUNTS,)


class PngLarge(LargeSuite, Png):
    """`Png` of 100,000 images."""

    params = (LARGE_COUNTS,)


class PngFilesLarge(LargeSuite, PngFiles):
    """`PngFiles` of 100,000 images."""

    params = (LARGE_COUNTS,)
