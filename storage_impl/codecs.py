"""Encode images to bytes and decode them, in the same way for all backends.

==========  ==============================  ===============================================
encoding    what is stored                  options and their defaults
==========  ==============================  ===============================================
"raw"       the pixels, C-contiguous
"png"       a PNG file, lossless            ``compress_level=6``, 0 to 9
"jpeg"      a JPEG file, lossy              ``quality=90``, 1 to 100
"webp"      a WebP file, lossless
"mixed"     PNG, JPEG and WebP files        none: only `write_encoded` writes, unchanged files
==========  ==============================  ===============================================

JPEG is lossy. The pixels that `write_many` gets come back changed, and they change again if they
are read and written again. Colours have the usual subsampling, 4:2:0. PNG and WebP give back every
pixel, including the colours of fully transparent ones.

A file from another source is decoded to the pixels that are stored in it:

=============================  =====================================================================
in the file                    what is read
=============================  =====================================================================
EXIF orientation               the pixels as stored, not rotated
colour profile, gamma          the pixels as stored, not converted
palette                        RGB; RGBA if the palette has transparency
1, 2 or 4 bits per channel     8 bits, from 0 to 255
grey with alpha                RGBA
one transparent colour (PNG)   grey or RGB, without transparency
CMYK, YCCK                     RGB: each ink subtracted from white, without a printing profile
interlaced, progressive        the same as for other files
WebP, lossy                    the same as for other files
several images (MPO)           the first one
bytes after the end            not read; `read_encoded` returns them
=============================  =====================================================================

The following files are refused because of their headers, before a byte is written:

- PNG files with 16 bits per channel, and JPEG files with 12.
- Animations.
- Lossless, hierarchical and arithmetic-coded JPEG files.
- JPEG files with more than 100 scans.
- Files with more than 1 GiB of pixels.
- Files with more than 32 MiB of pixels that also have more than 1,100 times the file's length.
- Files longer than twice their pixels plus 16 MiB.

Files are not decoded when they are written. A file that is damaged after its header is stored
unchanged. `ImageStore.verify` only checks that it is what was written, and reading it raises
`DamagedImageError`.

Pillow encodes and decodes. If `simplejpeg` is installed (``pip install storage_impl[fast]``), it
decodes JPEG, to the same pixels, and Pillow decodes what simplejpeg refuses. `decoders` returns the
libraries in use.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage_impl import _image_header, _inputs
from storage_impl._image_header import Header
from storage_impl._records import Shape
from storage_impl._threads import each
from storage_impl.errors import InvalidInputError, is_ours

ENCODINGS = ("raw", "png", "jpeg", "webp", "mixed")
OPTIONS: dict[str, dict[str, int]] = {"png": {"compress_level": 6}, "jpeg": {"quality": 90}}
"""The options of each encoding that has any, with their defaults."""
LIMITS = {"compress_level": (0, 9), "quality": (1, 100)}
"""The smallest and the largest value of each option."""

MAX_BYTES = _inputs.MAX_BYTES
MAX_RATIO = 1100  # bytes of pixels for each byte of a file; deflate reaches 1,032
# Bytes of pixels that a file of any length may have. A decoder takes up to 7 times that.
_ANY_FILE = 32 << 20
_METADATA = 16 << 20  # bytes for metadata: profiles, previews
_SIDES = {"jpeg": 65_500, "webp": 16_383}  # the limits of libjpeg and of the WebP format, in pixels
# Threads are faster for images of at least these bytes of pixels. JPEG is encoded without threads,
# because Pillow holds the GIL meanwhile.
_DECODE_IN_THREADS = 64 * 64 * 3
_ENCODE_IN_THREADS = {"png": 32 * 32 * 3, "webp": 64 * 64 * 3}


class DecodeError(ValueError):
    """The bytes are not an image of the expected encoding and shape."""


def decoders() -> dict[str, str]:
    """The library that decodes each format, with its version."""
    from storage_impl import _decoders

    return _decoders.names()


def check_shape(encoding: str, shape: Shape) -> None:
    """Raise InvalidInputError unless an encoding supports images of a shape."""
    channels = shape[2]
    if encoding == "jpeg" and channels == 4:
        raise InvalidInputError("jpeg supports 1 or 3 channels, got 4; png and webp support 4")
    if encoding == "webp" and channels == 1:
        raise InvalidInputError("webp supports 3 or 4 channels, got 1; png and jpeg support 1")
    side = _SIDES.get(encoding, _inputs.MAX_SIDE)
    if max(shape) > side:
        raise InvalidInputError(
            f"{encoding} supports at most {side:,} pixels per side, got {shape}; "
            "png supports larger images"
        )


def load() -> None:
    """Import what encodes and decodes.

    This is called when a store is opened. If several threads made the first import during a read,
    an interrupt could leave Python's import system waiting for itself.
    """
    for module in ("PIL.Image", "PIL.JpegImagePlugin", "PIL.WebPImagePlugin"):
        import_module(module)
    import_module("storage_impl._decoders")


def encode(image: NDArray[np.uint8], encoding: str, options: Mapping[str, Any]) -> bytes:
    """Encode an image, uint8 (H, W, C), C-contiguous, and return the bytes to store.

    Raises
    ------
    InvalidInputError
        The encoding does not support an image of that shape.
    """
    height, width, channels = image.shape
    if encoding == "raw":
        return image.tobytes()
    check_shape(encoding, (height, width, channels))
    arguments: dict[str, Any]
    if encoding == "webp":
        arguments = {"lossless": True, "exact": True, "method": 0}
    else:
        arguments = {name: options[name] for name in OPTIONS[encoding]}
    from storage_impl import _decoders

    data = _decoders.encode(image, encoding, arguments)
    if _is_bomb(image.nbytes, len(data)):
        raise InvalidInputError(
            f"the image of shape {image.shape} takes only {len(data):,} bytes as {encoding}, which "
            "reading would refuse as a decompression bomb; store it as png or raw"
        )
    return data


def encode_all(
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    encoding: str,
    options: Mapping[str, Any],
) -> list[bytes]:
    """`encode` each of several images, on all cores if that is faster."""
    calls = [(image, encoding, options) for image in images]
    threshold = _ENCODE_IN_THREADS.get(encoding)
    if threshold is None or sum(image.nbytes for image in images) < threshold * len(images):
        return [encode(*call) for call in calls]
    return each(encode, calls)


def header_of(data: bytes, encoding: str) -> Header:
    """Read and check the header of a file. `encoding` is the store's, which may be "mixed".

    Raises
    ------
    InvalidInputError
        The file has another encoding, is refused, or declares too many pixels for its length.
    """
    header = _image_header.read(data)
    if encoding not in ("mixed", header.encoding):
        raise InvalidInputError(
            f"the data is a {header.encoding} file, the store accepts {encoding}; a store with "
            "encoding='mixed' accepts PNG, JPEG and WebP"
        )
    height, width, channels = header.shape
    pixels = height * width * channels
    if not 0 < pixels <= MAX_BYTES or max(height, width) > _inputs.MAX_SIDE:
        raise InvalidInputError(
            f"the file declares the shape {header.shape}; sides must be 1 to {_inputs.MAX_SIDE:,} "
            "pixels, and all pixels at most 1 GiB"
        )
    if len(data) > file_limit(pixels):
        raise InvalidInputError(
            f"the file has {len(data):,} bytes; at most {file_limit(pixels):,} are accepted for "
            f"the shape {header.shape}"
        )
    if _is_bomb(pixels, len(data)):
        raise InvalidInputError(
            f"the file has {len(data):,} bytes and declares {pixels:,} bytes of pixels; at most "
            f"{_ANY_FILE >> 20} MiB or {MAX_RATIO:,} times the file's length are accepted"
        )
    return header


def _is_bomb(pixels: int, length: int) -> bool:
    return pixels > max(_ANY_FILE, MAX_RATIO * length)


def file_limit(pixels: int) -> int:
    """The length in bytes of the longest file that is accepted for `pixels` bytes of pixels."""
    return 2 * pixels + _METADATA


def decode(data: bytes, encoding: str, shape: Shape) -> NDArray[np.uint8]:
    """Decode an image to its pixels, (H, W, C) uint8. They are read-only if that saves a copy.

    Raises
    ------
    DecodeError
        The bytes are not an image of that encoding and shape.
    """
    height, width, channels = shape
    if encoding == "raw":
        if len(data) != height * width * channels:
            raise DecodeError(f"{len(data):,} bytes are not an image of shape {shape}")
        return np.frombuffer(data, np.uint8).reshape(shape)
    from storage_impl import _decoders

    try:
        header = header_of(data, encoding)
        # WebP drops the alpha channel of an opaque image.
        opaque = header == Header("webp", (height, width, 3), 3) and channels == 4
        if header.shape != shape and not opaque:
            raise DecodeError(f"the file has the shape {header.shape}, expected {shape}")
        return _decoders.decode(data, header, channels)
    except DecodeError:
        raise
    except _decoders.ERRORS as error:
        if not is_ours(error):
            raise
        raise DecodeError(str(error) or type(error).__name__) from error


def decode_all(
    data: Sequence[bytes] | NDArray[np.uint8],
    encoding: str,
    shapes: Sequence[Shape],
    rows: Sequence[NDArray[np.uint8]] | None = None,
) -> list[NDArray[np.uint8] | DecodeError]:
    """`decode` each of several images, on all cores if that is faster. Errors are returned.

    If `rows` are given, (H * W * C,) each, the pixels are written to them.
    """
    places = [None] * len(data) if rows is None else rows
    calls = [
        (one, encoding, shape, row) for one, shape, row in zip(data, shapes, places, strict=True)
    ]
    pixels = sum(height * width * channels for height, width, channels in shapes)
    if encoding == "raw" or pixels < _DECODE_IN_THREADS * len(calls):
        return [_decoded(*call) for call in calls]
    return each(_decoded, calls)


def _decoded(
    data: bytes, encoding: str, shape: Shape, row: NDArray[np.uint8] | None
) -> NDArray[np.uint8] | DecodeError:
    try:
        image = decode(data, encoding, shape)
    except DecodeError as error:
        return error
    if row is None:
        return image
    # Images that all stay until the last one is decoded would each need new pages of memory.
    row[:] = image.reshape(-1)
    return row
