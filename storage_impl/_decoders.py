"""Encode and decode image files with Pillow and, if it is installed, simplejpeg.

This is a separate module because Pillow takes longer to import than the rest of the package. Stores
of raw images never need it.

PNG and JPEG files go directly to Pillow's decoders, with the values of their headers. Pillow's
classes for these files would first parse all metadata, which takes longer than decoding a small
image. They also warn about metadata, and accept truncated files if somebody set
``LOAD_TRUNCATED_IMAGES``.
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

# What Pillow raises for a broken file, or for one of another format.
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
_COLOURS = {1: "GRAY", 3: "RGB"}  # simplejpeg's names
# For each bit depth and colour type of PNG: Pillow's modes of the decoded and the stored pixels.
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


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of a decoded image for the next one.

    Otherwise it returns that memory to the system, and each image needs new pages: a fifth of the
    processor time of JPEG files of 256 x 256 pixels. It keeps up to twice the size of the largest
    block that was freed, if that is below 32 MiB (M_MMAP_THRESHOLD in mallopt(3)).
    """
    bytearray(4 << 20)


_keep_freed_memory()
simplejpeg = _installed("simplejpeg")
# Before 9.4, Pillow has no option that keeps the colours of transparent pixels in WebP.
KEEPS_TRANSPARENT = tuple(map(int, PIL.__version__.split(".")[:2])) >= (9, 4)


def names() -> dict[str, str]:
    """The library that decodes each format, with its version."""
    pillow = f"Pillow {version('Pillow')}"
    jpeg = pillow if simplejpeg is None else f"simplejpeg {version('simplejpeg')}"
    return {"png": pillow, "jpeg": jpeg, "webp": pillow}


def encode(image: NDArray[np.uint8], encoding: str, arguments: dict[str, Any]) -> bytes:
    """Encode an image, uint8 (H, W, C), C-contiguous, and return the bytes of the file."""
    height, width, channels = image.shape
    if encoding == "webp" and channels == 4 and not KEEPS_TRANSPARENT:
        raise InvalidInputError(
            f"webp with 4 channels needs Pillow 9.4 or later, got {PIL.__version__}; install a "
            "newer Pillow, or use encoding='png'"
        )
    mode = _MODES[channels]
    buffer = BytesIO()
    picture = Image.frombuffer(mode, (width, height), image, "raw", mode, 0, 1)
    picture.save(buffer, encoding, **arguments)
    return buffer.getvalue()


def decode(data: bytes, header: Header, channels: int) -> NDArray[np.uint8]:
    """Decode a file to pixels, (H, W, C) uint8.

    `channels` is C. It may be 4 if the header says 3, because WebP drops the alpha channel of
    opaque images. Raises one of `ERRORS` for a file that is damaged after its header.
    """
    height, width, _ = header.shape
    if header.encoding == "jpeg" and simplejpeg is not None and header.components != 4:
        pixels = _fast_jpeg(data, header.shape)
        if pixels is not None:
            return pixels
    image = _PILLOW[header.encoding](data, header)
    if image.size != (width, height):
        raise ValueError(f"the decoder found {image.size} pixels, the header says {header.shape}")
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
        elif parts:  # later chunks do not change the pixels
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
    # Programs write CMYK inverted. Pillow also assumes this of all files.
    raw_mode = "CMYK;I" if mode == "CMYK" else mode
    return Image.frombytes(mode, (width, height), data, "jpeg", raw_mode, "")


def _webp(data: bytes, _: Header) -> Image.Image:
    return WebPImageFile(BytesIO(data))


_PILLOW = {"png": _png, "jpeg": _jpeg, "webp": _webp}


def _fast_jpeg(data: bytes, shape: Shape) -> NDArray[np.uint8] | None:
    """Decode a JPEG file; return None if Pillow, which accepts more files, has to try."""
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, _COLOURS[shape[2]])
    except ValueError as error:
        if not is_ours(error):
            raise
        return None
    return pixels if pixels.shape == shape else None
