"""Images and labels that follow from their index, so that any process can tell which it sees."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Shape = tuple[int, int, int] | None  # None: shapes differ

SHAPE = (5, 7, 3)
SHAPES = ((20, 20, 3), (33, 7, 1), (1, 2, 4), (40, 40, 3))  # of images that differ in shape
CHANNELS = {"jpeg": (1, 3), "webp": (3, 4)}  # others take 1, 3 and 4
# How Pillow writes the files that are stored; each gives back the pixels of `images_of`.
FILES: dict[str, dict[str, Any]] = {
    "png": {},
    "jpeg": {"quality": 90},
    "webp": {"lossless": True, "exact": True, "method": 0},
}


def images_of(count: int, shape: Shape = SHAPE, first: int = 0, encoding: str = "raw") -> Any:
    """The images `first` to ``first + count - 1``, each unlike the others.

    An array (n, H, W, C); with `shape` None a list of arrays of differing shapes. They are such as
    an encoding can hold and gives back unchanged: of "jpeg", 85 of them before they repeat.
    """
    if shape is None:
        return [_one_of(i, encoding) for i in range(first, first + count)]
    index = np.arange(first, first + count, dtype=np.int64)[:, np.newaxis]
    if encoding == "jpeg":
        return _grey_squares(index[..., np.newaxis], shape)
    place = np.arange(int(np.prod(shape)), dtype=np.int64)
    values = (index * 7919 + place * 104_729) ^ (index * place >> 3)
    return (values & 255).astype(np.uint8).reshape(count, *shape)


def labels_of(count: int, first: int = 0) -> NDArray[np.int64]:
    """Their labels, some of them negative."""
    return np.arange(first, first + count, dtype=np.int64) * 1_000_003 - 5_000_000


def files_of(count: int, first: int = 0) -> list[bytes]:
    """The images of "mixed", of differing shapes, as files: PNG, JPEG and WebP by turns."""
    images = images_of(count, None, first, "mixed")
    return [file_of(image, encoding_of(i)) for i, image in enumerate(images, first)]


def file_of(image: NDArray[np.uint8], encoding: str) -> bytes:
    """An image as a file of an encoding."""
    buffer = io.BytesIO()
    pixels = image[:, :, 0] if image.shape[2] == 1 else image
    Image.fromarray(pixels).save(buffer, encoding.upper(), **FILES[encoding])
    return buffer.getvalue()


def encoding_of(index: int) -> str:
    """The encoding of one of the files of "mixed"."""
    return tuple(FILES)[index % len(FILES)]


def _one_of(index: int, encoding: str) -> NDArray[np.uint8]:
    """One of the images that differ in shape, with channels that the encoding takes."""
    if encoding == "mixed":
        encoding = encoding_of(index)
    height, width, channels = SHAPES[index % len(SHAPES)]
    if channels not in CHANNELS.get(encoding, (1, 3, 4)):
        channels = 3
    image: NDArray[np.uint8] = images_of(1, (height, width, channels), index, encoding)[0]
    return image


def _grey_squares(index: NDArray[np.int64], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Squares of 16 pixels in greys 3 apart, which JPEG of quality 90 holds without a loss."""
    height, width, channels = shape
    square = 5 * (np.arange(height)[:, np.newaxis] // 16) + 11 * (np.arange(width) // 16)
    grey = (index * 37 + square) % 85 * 3 + 2
    return grey.astype(np.uint8)[..., np.newaxis].repeat(channels, axis=-1)
