"""What does the encoding cost, and what does the container cost, by the size of the images?

Each size has 6 MiB of pixels: 2,048 images of 32 pixels a side, 32 images of 256, or 22 images of
64 to 512. If STORAGE_IMPL_DATASET names a folder, its first PNG, JPEG and WebP files take the place
of those 22, in their own sizes: as many as have about 6 MiB of pixels, but at least one. A file
that has the encoding is then stored unchanged.

`PillowAlone` is the floor, from memory to memory. `Folder` is what users have without a store: a
file for each image, read with Pillow.
"""

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import storage_impl
from benchmarks import datasets, plain
from benchmarks.cold_cache import ColdSuite
from benchmarks.common import (
    BACKENDS,
    StoreSuite,
    Suite,
    compare,
    discard,
    facts,
    kept,
    scattered,
    version,
)
from benchmarks.datasets import decoded

Pixels = NDArray[np.uint8]

ENCODINGS = ("raw", "png", "jpeg", "webp")
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}  # as Pillow calls them
# An image with other channels is encoded as RGB. JPEG has no alpha and WebP no grey, and WebP drops
# the alpha channel of an opaque image.
CHANNELS = {"raw": (1, 3, 4), "png": (1, 3, 4), "jpeg": (1, 3), "webp": (3,)}
SIZES = (32, 256, "64 to 512")
PIXEL_BYTES = 6 << 20
# Heights and widths of the images of 64 to 512 pixels, in squares of 64 pixels: 512 squares in all,
# in few large and many small images.
GRID = (
    *((8, 8), (8, 6), (6, 8), (7, 7), (5, 8), (8, 5), (4, 8), (6, 6), (6, 4), (4, 6), (5, 5)),
    *((3, 4), (4, 3), (4, 4), (3, 3), (2, 3), (3, 2), (2, 2), (1, 2), (2, 1), (1, 1), (3, 4)),
)
QUALITY = 90


def encode(image: Pixels, encoding: str) -> bytes:
    """Return the bytes of an image's file, as Pillow writes it."""
    options = {"jpeg": {"quality": QUALITY}, "webp": {"lossless": True, "exact": True, "method": 0}}
    file = BytesIO()
    picture(image).save(file, FORMATS[encoding], **options.get(encoding, {}))
    return file.getvalue()


def picture(image: Pixels) -> Image.Image:
    """Return an image as Pillow holds it; grey has no axis for its channel there."""
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


class PhotoSuite(Suite):
    """Base of the benchmarks of encodings.

    Attributes
    ----------
    photos : list of ndarray
        (H, W, C) uint8, the images.
    files : list of bytes
        The encoded images; the pixels if the encoding is raw.
    """

    param_names: tuple[str, ...] = ("encoding", "size")
    params: tuple[tuple[Any, ...], ...] = (ENCODINGS, SIZES)

    photos: list[Pixels]
    files: list[bytes]

    def load(self, count: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return no images: `begin` loads those that the encoding and the size need."""
        return np.empty((0, 32, 32, 3), np.uint8), np.empty(0, np.int64)

    def begin(self, *parameters: Any) -> None:
        """Load the images of a size and their files, once in a process, and start a sample."""
        *_, encoding, size = parameters
        if self.first:
            name = f"photos-{encoding}-{size}.npz".replace(" ", "-")
            with np.load(kept(name, lambda path: self.make(path, encoding, size))) as saved:
                count = len(saved.files) // 2
                self.photos = [saved[f"photo-{index}"] for index in range(count)]
                self.files = [saved[f"file-{index}"].tobytes() for index in range(count)]
                self.labels = saved["labels"]
        super().begin(*parameters)

    def make(self, path: Path, encoding: str, size: Any) -> None:
        """Save the images of a size, and their files; the first benchmark to ask makes them."""
        originals: list[bytes] = []
        if size == 32:
            images, labels = datasets.load(PIXEL_BYTES // (32 * 32 * 3))
            self.photos = list(images)
        elif size == 256:
            self.photos, labels = datasets.photos([(256, 256)] * (PIXEL_BYTES // (256 * 256 * 3)))
        else:
            originals, labels = datasets.originals(PIXEL_BYTES)
            self.photos = [decoded(data) for data in originals]
            if not originals:
                self.photos, labels = datasets.photos(
                    [(64 * height, 64 * width) for height, width in GRID]
                )
        made: dict[str, Any] = {"labels": labels}
        for index, data in enumerate(self.encoded(encoding, originals)):
            made[f"photo-{index}"] = self.photos[index]
            made[f"file-{index}"] = np.frombuffer(data, np.uint8)
        with open(path, "xb") as file:
            np.savez(file, **made)

    def encoded(self, encoding: str, originals: list[bytes]) -> Iterator[bytes]:
        """Yield the file of each image: the original if it has the encoding."""
        for index, image in enumerate(self.photos):
            if originals and encoding != "raw":
                with Image.open(BytesIO(originals[index])) as original:
                    kind = original.format
                if kind == FORMATS[encoding] or (kind, encoding) == ("MPO", "jpeg"):
                    yield originals[index]
                    continue
            if image.shape[2] not in CHANNELS[encoding]:
                image = self.photos[index] = np.asarray(picture(image).convert("RGB"))
            yield image.tobytes() if encoding == "raw" else encode(image, encoding)

    def expected(self, encoding: str) -> list[Pixels]:
        """Return the pixels that a read should give; JPEG is lossy."""
        return [decoded(data) for data in self.files] if encoding == "jpeg" else self.photos


def compare_all(found: Any, expected: list[Pixels]) -> None:
    """Raise RuntimeError unless these are the expected images, whatever their sizes."""
    compare(len(found), len(expected))
    for one, other in zip(found, expected, strict=True):
        compare(one, other)


class PillowAlone(PhotoSuite):
    """Pillow alone, from memory to memory, image by image; raw is a copy."""

    version = version(1)

    def check(self, encoding: str, size: Any) -> None:
        """Raise RuntimeError unless decoding gives the images."""
        compare_all([self.decode(encoding, i) for i in range(len(self.files))], self.pixels)

    def prepare(self, encoding: str, size: Any) -> None:
        """Decode the expected images once, because JPEG is lossy."""
        if self.first:
            self.pixels = self.expected(encoding)

    def decode(self, encoding: str, index: int) -> Pixels:
        """Return the pixels of a file."""
        if encoding == "raw":
            shape = self.photos[index].shape
            return np.frombuffer(self.files[index], np.uint8).reshape(shape).copy()
        return decoded(self.files[index])

    @facts(bytes=PIXEL_BYTES)
    def time_encode_6mib(self, encoding: str, size: Any) -> None:
        """Encode each image."""
        for image in self.photos:
            if encoding == "raw":
                image.tobytes()
            else:
                encode(image, encoding)

    @facts(bytes=PIXEL_BYTES)
    def time_decode_6mib(self, encoding: str, size: Any) -> None:
        """Decode each image."""
        for index in range(len(self.files)):
            self.decode(encoding, index)


class EncodedSuite(PhotoSuite, StoreSuite):
    """Base of the benchmarks of stores; the png backend holds only PNG files."""

    params: tuple[tuple[Any, ...], ...] = (BACKENDS, ENCODINGS, SIZES)
    param_names = ("backend", "encoding", "size")

    def setup(self, *parameters: Any) -> None:
        """Make a sample ready, if the backend has the encoding."""
        backend, encoding, _ = parameters
        if backend == "png" and encoding != "png":
            raise NotImplementedError("the png backend holds only PNG files")
        super().setup(*parameters)

    def empty(self, path: Path, backend: str, encoding: str, size: Any) -> storage_impl.ImageStore:
        """Return an empty store for these images."""
        shape = None if size == SIZES[-1] else self.photos[0].shape
        options = {"quality": QUALITY} if encoding == "jpeg" else {}
        return storage_impl.create_store(
            path, backend, image_shape=shape, encoding=encoding, durable=False, **options
        )

    def stored_photos(self, backend: str, encoding: str, size: Any) -> Path:
        """Return a store of the images; the first benchmark to ask writes it."""

        def make(path: Path) -> None:
            with self.empty(path, backend, encoding, size) as store:
                if encoding == "raw":
                    images = self.photos if size == SIZES[-1] else np.stack(self.photos)
                    store.write_many(images, self.labels)
                else:
                    store.write_encoded(self.files, self.labels)

        return kept(f"{backend}-{encoding}-{size}".replace(" ", "-"), make)


class EncodedRead(EncodedSuite):
    """Reads of a store that this process opened once and read before."""

    warmup_time = 0.1
    version = version(1)

    def prepare(self, backend: str, encoding: str, size: Any) -> None:
        """Open the store."""
        if self.first:
            self.store = storage_impl.open_store(self.stored_photos(backend, encoding, size))
            self.indices = scattered(20, len(self.store))
            self.batch = 8 if size != 32 else 256

    def check(self, backend: str, encoding: str, size: Any) -> None:
        """Raise RuntimeError unless the images are right, also if they are read one by one."""
        expected = self.expected(encoding)
        images, labels = self.store.read_many()
        compare_all(images, expected)
        compare(labels, self.labels)
        for index in self.indices:
            compare(self.store.read_one(index)[0], expected[index])
        found = [len(labels) for _, labels in self.store.batches(self.batch, shuffle=7)]
        compare(sum(found), len(expected))

    @facts(bytes=PIXEL_BYTES)
    def time_read_6mib(self, backend: str, encoding: str, size: Any) -> None:
        """Read all images by one `read_many`."""
        self.store.read_many()

    @facts(bytes=PIXEL_BYTES)
    def time_shuffled_6mib(self, backend: str, encoding: str, size: Any) -> None:
        """Read all images in shuffled batches: of 256 if they have 32 pixels a side, else of 8."""
        for _ in self.store.batches(self.batch, shuffle=7):
            pass

    @facts(images=20)
    def time_read_20(self, backend: str, encoding: str, size: Any) -> None:
        """Read 20 scattered images, one by one."""
        for index in self.indices:
            self.store.read_one(index)


class ColdEncoded(EncodedSuite, ColdSuite):
    """`open_store` and `read_many` of everything, with nothing of the store in the page cache."""

    params = (("lmdb", "hdf5"), ENCODINGS, (256,))
    version = version(1)

    def prepare(self, backend: str, encoding: str, size: Any) -> None:
        """Empty the page cache."""
        self.path = self.stored_photos(backend, encoding, size)
        self.empty_cache(self.path)

    def check(self, backend: str, encoding: str, size: Any) -> None:
        """Raise RuntimeError unless the images are right."""
        with storage_impl.open_store(self.path) as store:
            compare_all(store.read_many()[0], self.expected(encoding))

    @facts(bytes=PIXEL_BYTES, cache="cold")
    def time_open_read_6mib(self, backend: str, encoding: str, size: Any) -> None:
        """Open the store, read all images and close it."""
        with storage_impl.open_store(self.path) as store:
            store.read_many()


class EncodedWrite(EncodedSuite):
    """Writes into an empty, open store; not synced."""

    version = version(1)

    def prepare(self, backend: str, encoding: str, size: Any) -> None:
        """Open an empty store."""
        self.store = self.empty(self.scratch / "store", backend, encoding, size)
        self.undo.callback(discard, self.store)
        if self.first:
            self.given = self.photos if size == SIZES[-1] else np.stack(self.photos)

    def check(self, backend: str, encoding: str, size: Any) -> None:
        """Raise RuntimeError unless the store holds what was written; JPEG is lossy."""
        self.time_write_6mib(backend, encoding, size)
        with storage_impl.open_store(self.store.path) as reader:
            images, labels = reader.read_many()
        compare(labels, self.labels)
        if encoding != "jpeg":
            compare_all(images, self.photos)
        for found, image in zip(images, self.photos, strict=True):
            compare(np.abs(found.astype(int) - image).mean() < 16, True)

    @facts(bytes=PIXEL_BYTES)
    def time_write_6mib(self, backend: str, encoding: str, size: Any) -> None:
        """Write all images by one `write_many`, which encodes them."""
        self.store.write_many(self.given, self.labels)


class EncodedUsage(EncodedSuite):
    """The disk space of the images."""

    unit = "stored/raw"
    version = version(1)

    def prepare(self, backend: str, encoding: str, size: Any) -> None:
        """Get the disk usage of a store."""
        with storage_impl.open_store(self.stored_photos(backend, encoding, size)) as store:
            self.usage = store.disk_usage()

    def track_ratio(self, backend: str, encoding: str, size: Any) -> float:
        """Return the bytes allocated divided by the bytes of the pixels."""
        return self.usage.allocated / sum(image.nbytes for image in self.photos)


class Folder(PhotoSuite):
    """A folder of files, each read or written with Pillow, without index, labels or checksums."""

    params = (ENCODINGS[1:], SIZES)
    unit = "stored/raw"
    version = version(1)

    def prepare(self, encoding: str, size: Any) -> None:
        """Write the files to read, unless a benchmark has written them."""

        def make(path: Path) -> None:
            path.mkdir()
            for index, data in enumerate(self.files):
                (path / f"{index}.{encoding}").write_bytes(data)

        self.path = kept(f"plain-{encoding}-{size}".replace(" ", "-"), make)
        self.count = len(self.files)
        self.indices = scattered(20, self.count)

    def check(self, encoding: str, size: Any) -> None:
        """Raise RuntimeError unless the images are right, also those that were written."""
        compare_all(self.read(self.path, encoding, range(self.count)), self.expected(encoding))
        self.time_write_6mib(encoding, size)
        found = self.read(self.scratch, encoding, range(self.count))
        if encoding != "jpeg":
            compare_all(found, self.photos)
        for one, image in zip(found, self.photos, strict=True):
            compare(np.abs(one.astype(int) - image).mean() < 16, True)

    def read(self, path: Path, encoding: str, indices: Iterable[int]) -> list[Pixels]:
        """Return the pixels of files."""
        found = []
        for index in indices:
            with Image.open(path / f"{index}.{encoding}") as picture:
                pixels = np.asarray(picture)
            found.append(pixels if pixels.ndim == 3 else pixels[..., np.newaxis])
        return found

    @facts(bytes=PIXEL_BYTES)
    def time_read_6mib(self, encoding: str, size: Any) -> None:
        """Read all images, and hold them at the end."""
        self.read(self.path, encoding, range(self.count))

    @facts(images=20)
    def time_read_20(self, encoding: str, size: Any) -> None:
        """Read 20 scattered images."""
        self.read(self.path, encoding, self.indices)

    @facts(bytes=PIXEL_BYTES)
    def time_write_6mib(self, encoding: str, size: Any) -> None:
        """Encode all images and write their files; not synced."""
        for index, image in enumerate(self.photos):
            (self.scratch / f"{index}.{encoding}").write_bytes(encode(image, encoding))

    def track_ratio(self, encoding: str, size: Any) -> float:
        """Return the bytes allocated for the files divided by the bytes of the pixels."""
        return plain.bytes_on_disk(self.path) / sum(image.nbytes for image in self.photos)

    time_read_6mib.warmup_time = 0.1  # type: ignore[attr-defined]
    time_read_20.warmup_time = 0.1  # type: ignore[attr-defined]
