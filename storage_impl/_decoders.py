"""Files to pixels and back, by Pillow and, where it is installed, simplejpeg.

A module of its own, imported when the first image is decoded or encoded: Pillow takes longer to
import than all else here, and a store of raw images never needs it.

Pillow's decoders are called with what the header says. Its classes for files parse all of the
metadata first, which takes longer than decoding a small image; they warn of what they find there,
and take a file that was cut short for whole where somebody set ``LOAD_TRUNCATED_IMAGES``.
"""

import struct
from importlib import import_module
from importlib.metadata import version
from io import BytesIO
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image
from PIL.WebPImagePlugin import WebPImageFile

from storage_impl import _image_header
from storage_impl._image_header import Header
from storage_impl._records import Shape
from storage_impl.errors import InvalidInputError, is_ours

# What Pillow raises for a file that is not of its format or a broken one.
ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    EOFError,
    KeyError,
    struct.error,
    Image.DecompressionBombError,
)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_COLOURS = {1: "GRAY", 3: "RGB"}  # as simplejpeg names them
# What Pillow calls the pixels of a PNG file: once decoded, and as they are in the file.
_PNG_MODES = {
    (1, 0): ("1", "1"),
    (2, 0): ("L", "L;2"),
    (4, 0): ("L", "L;4"),
    (8, 0): ("L", "L"),
    (8, 2): ("RGB", "RGB"),
    (1, 3): ("P", "P;1"),
    (2, 3): ("P", "P;2"),
    (4, 3): ("P", "P;4"),
    (8, 3): ("P", "P"),
    (8, 4): ("LA", "LA"),
    (8, 6): ("RGBA", "RGBA"),
}


def _installed(name: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, ValueError):  # ValueError: it was built for another numpy
        return None


simplejpeg = _installed("simplejpeg")
# Before 9.4 Pillow cannot tell WebP to keep the colours of transparent pixels.
KEEPS_TRANSPARENT = tuple(map(int, PIL.__version__.split(".")[:2])) >= (9, 4)


def names() -> dict[str, str]:
    """The library that decodes each format, with its version."""
    pillow = f"Pillow {version('Pillow')}"
    jpeg = pillow if simplejpeg is None else f"simplejpeg {version('simplejpeg')}"
    return {"png": pillow, "jpeg": jpeg, "webp": pillow}


def encode(image: NDArray[np.uint8], encoding: str, arguments: dict[str, Any]) -> bytes:
    """Return the file of an image: uint8 (H, W, C), C-contiguous."""
    height, width, channels = image.shape
    if encoding == "webp" and channels == 4 and not KEEPS_TRANSPARENT:
        raise InvalidInputError(
            f"webp of 4 channels needs Pillow 9.4 or later, this is {PIL.__version__}; install a "
            "newer Pillow or store png"
        )
    mode = _MODES[channels]
    buffer = BytesIO()
    picture = Image.frombuffer(mode, (width, height), image, "raw", mode, 0, 1)
    picture.save(buffer, encoding, **arguments)
    return buffer.getvalue()


def decode(data: bytes, header: Header, channels: int) -> NDArray[np.uint8]:
    """Return the pixels of a file, (H, W, C) uint8; `channels` may be 4 for a header of 3.

    Raises one of `ERRORS` for a file that is damaged behind its header.
    """
    height, width, _ = header.shape
    if header.encoding == "jpeg" and simplejpeg is not None and header.components != 4:
        pixels = _fast_jpeg(data, header.shape)
        if pixels is not None:
            return pixels
    image = _PILLOW[header.encoding](data, header)
    if image.size != (width, height):
        raise ValueError(f"the decoder finds {image.size} pixels, the header says {header.shape}")
    if image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
    return np.frombuffer(image.tobytes(), np.uint8).reshape(height, width, channels)


def _png(data: bytes, found: Header) -> Image.Image:
    header = _image_header.png_header(data)
    mode, raw_mode = _PNG_MODES[header.depth, header.colour]
    parts: list[bytes] = []
    palette = transparency = b""
    for kind, start, stop in _image_header.png_chunks(data):
        if kind == b"IDAT":
            if stop + 4 > len(data):
                raise ValueError("the PNG file was cut short")
            parts.append(data[start:stop])
        elif parts:  # all pixels are there, and what follows changes none
            break
        elif kind == b"PLTE":
            palette = data[start:stop]
        elif kind == b"tRNS":
            transparency = data[start:stop]
    size = header.width, header.height
    image = Image.frombytes(mode, size, b"".join(parts), "zip", raw_mode, header.interlaced)
    if header.colour != _image_header.PALETTE:
        return image
    colours = np.zeros((256, 4), np.uint8)
    colours[:, 3] = 255
    known = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    colours[: len(known), :3] = known
    alpha = np.frombuffer(transparency[:256], np.uint8)
    colours[: len(alpha), 3] = alpha
    return Image.fromarray(colours[:, : found.shape[2]][np.asarray(image)])


def _jpeg(data: bytes, header: Header) -> Image.Image:
    height, width, _ = header.shape
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[header.components]
    # Programs write CMYK inverted; Pillow, too, takes all files for such.
    raw_mode = "CMYK;I" if mode == "CMYK" else mode
    return Image.frombytes(mode, (width, height), data, "jpeg", raw_mode, "")


def _webp(data: bytes, _: Header) -> Image.Image:
    return WebPImageFile(BytesIO(data))


_PILLOW = {"png": _png, "jpeg": _jpeg, "webp": _webp}


def _fast_jpeg(data: bytes, shape: Shape) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG file; None where Pillow is to try, which accepts more."""
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, _COLOURS[shape[2]])
    except ValueError as error:
        if not is_ours(error):
            raise
        return None
    return pixels if pixels.shape == shape else None
