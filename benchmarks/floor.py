"""What is the minimum time that any implementation can take for the same images?

A floor moves the same bytes through only the file system, memory or Pillow: without index, labels,
checksums or commit. The reports show the time of every backend as a multiple of its floor.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from benchmarks import single_image  # not the class: asv would list it as one of this module
from benchmarks.common import COUNTS, Suite, compare, facts, kept, version


def encode(image: NDArray[np.uint8]) -> bytes:
    """Return the PNG bytes of an image, as Pillow writes them by default."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def decode(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels of PNG bytes; `Image.open` and numpy's own conversion take longer."""
    image = PngImageFile(BytesIO(data))
    pixels = np.frombuffer(image.tobytes(), np.uint8)
    return pixels.reshape(image.height, image.width, len(image.getbands()))


WARMUP = 0.1  # seconds, as in the benchmarks that read stores


class FloorSuite(Suite):
    """Base of the floors, which have a count and no backend."""

    params: tuple[tuple[Any, ...], ...] = (COUNTS,)
    param_names = ("count",)
    warmup_time = WARMUP


class RawFile(FloorSuite):
    """The floor of the backends that keep raw pixels: all images as one file, not synced.

    The file is open, as a store is, and is read into a preallocated buffer. Allocating memory can
    take more time than the copy, or hardly any, so it would make the floor vary.
    """

    warmup_time = 0.0
    version = version(2)

    def prepare(self, count: int) -> None:
        """Open a file of the images and an empty one."""
        self.images.tofile(self.scratch / "images")
        self.stored = open(self.scratch / "images", "rb", buffering=0)  # noqa: SIM115
        self.undo.callback(self.stored.close)
        self.empty = open(self.scratch / "empty", "xb", buffering=0)  # noqa: SIM115
        self.undo.callback(self.empty.close)
        self.found = np.zeros_like(self.images)

    def check(self, count: int) -> None:
        """Raise RuntimeError unless the file holds the images."""
        compare(self.read(), self.images)

    def read(self) -> NDArray[np.uint8]:
        """Read the file into the buffer, and return it."""
        self.stored.seek(0)
        self.stored.readinto(self.found.data)
        return self.found

    def time_write(self, count: int) -> None:
        """Write all images in one call."""
        self.empty.write(self.images.data)

    def time_read(self, count: int) -> None:
        """Read all images in one call."""
        self.read()

    time_read.warmup_time = WARMUP  # type: ignore[attr-defined]


class Memory(FloorSuite):
    """The floor of every backend: a copy of the images within memory."""

    version = version(1)

    def time_copy(self, count: int) -> None:
        """Copy all images."""
        self.images.copy()


class Png(FloorSuite):
    """Pillow alone, from memory to memory, image by image."""

    version = version(2)

    def prepare(self, count: int) -> None:
        """Encode the images to decode."""
        if self.first:
            self.encoded = [encode(image) for image in self.images]

    def check(self, count: int) -> None:
        """Raise RuntimeError unless decoding gives the images."""
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
    version = version(2)

    def prepare(self, count: int) -> None:
        """Write the files to read, unless a benchmark has written them."""

        def make(directory: Path) -> None:
            directory.mkdir()
            self.write(directory)

        self.stored = kept(f"floor-png-{count}", make)

    def check(self, count: int) -> None:
        """Raise RuntimeError unless the files hold the images; Pillow loads its plugins here."""
        compare(self.read(self.stored), self.images)
        encode(self.images[0])

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

    time_read.warmup_time = WARMUP  # type: ignore[attr-defined]


class One(Suite):
    """Base of the floors of single images: what the library alone does to read one.

    The images are those of `single_image.ReadOne`, in the same number and order.
    """

    warmup_time = WARMUP
    count = 1_000

    def prepare(self) -> None:
        """Store 1,000 images, once in a process."""
        if self.first:
            self.directory = Path.cwd() / f"floor-{type(self).__name__}"
            self.directory.mkdir(exist_ok=True)
            self.store()

    def check(self) -> None:
        """Raise RuntimeError unless an image is right."""
        compare(self.read(3), self.images[3])

    def store(self) -> None:
        """Store the images."""
        raise NotImplementedError

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return one image."""
        raise NotImplementedError

    def read_each(self) -> None:
        """Read the images one by one."""
        for index in single_image.ReadOne.indices:
            self.read(index)


class OnePng(One):
    """Read and decode a file."""

    version = version(2)

    def store(self) -> None:
        """Write the files."""
        for index, image in enumerate(self.images):
            (self.directory / f"{index}.png").write_bytes(encode(image))

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read a file and decode it."""
        with open(f"{self.directory}/{index}.png", "rb") as file:
            return decode(file.read())

    @facts(images=100)
    def time_read_100(self) -> None:
        """Read 100 images."""
        self.read_each()


class OneLmdb(One):
    """Find a value in a transaction, and copy it out of the map."""

    version = version(1)

    def store(self) -> None:
        """Put the values, and begin the transaction that reads."""
        environment = lmdb.open(str(self.directory), map_size=1 << 30)
        with environment.begin(write=True) as transaction:
            for index, image in enumerate(self.images):
                transaction.put(index.to_bytes(8, "big"), image.tobytes())
        self.shape = self.images.shape[1:]
        self.transaction = environment.begin(buffers=True)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Get a value."""
        value = self.transaction.get(index.to_bytes(8, "big"))
        return np.ndarray(self.shape, np.uint8, value).copy()

    @facts(images=100)
    def time_read_100(self) -> None:
        """Read 100 images."""
        self.read_each()


class OneHdf5(One):
    """Read an image of a dataset, by h5py's own indexing."""

    version = version(1)

    def store(self) -> None:
        """Write the dataset, and open it."""
        path = self.directory / "images.h5"
        with h5py.File(path, "w") as file:
            file["images"] = self.images
        self.dataset = h5py.File(path, "r")["images"]

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read an image."""
        image: NDArray[np.uint8] = self.dataset[index]
        return image

    @facts(images=100)
    def time_read_100(self) -> None:
        """Read 100 images."""
        self.read_each()
