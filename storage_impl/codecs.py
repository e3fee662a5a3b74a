"""Pixels to bytes and back: what is stored of an image, whichever the container.

==========  ==============================  ===========================================
encoding    what is stored                  options and their defaults
==========  ==============================  ===========================================
"raw"       the pixels, C-contiguous
"png"       a PNG file, lossless            ``compress_level=6``, 0 to 9
"jpeg"      a JPEG file, lossy              ``quality=90``, 1 to 100
"webp"      a WebP file, lossless
"mixed"     PNG, JPEG and WebP files        taken as they are, by `write_encoded` alone
==========  ==============================  ===========================================

JPEG is lossy: what `write_many` is given comes back changed, and so does what is read and written
again. Its files have the usual subsampling of colour, 4:2:0. PNG and WebP give back every pixel,
the colours below full transparency too.

A file that comes from elsewhere is decoded to its pixels as they are stored:

=============================  =====================================================================
what a file brings             what is read
=============================  =====================================================================
EXIF orientation               the pixels as stored, not turned
colour profile, gamma          the pixels as stored, not converted
palette                        RGB; RGBA where the palette has transparency
1, 2 or 4 bits a channel       8 bits, from 0 to 255
grey with alpha                RGBA
one transparent colour (PNG)   grey or RGB, without transparency
CMYK, YCCK                     RGB, without the profile of a press: ink is taken from white
interlaced, progressive        as others
WebP, lossy                    as others
several images (MPO)           the first
bytes after the end            nothing; `read_encoded` gives them back
=============================  =====================================================================

These are refused, by what their headers say, before a byte is written: 16 bits a channel (PNG) and
12 (JPEG); animations; lossless, hierarchical and arithmetic-coded JPEG files; JPEG files of more
than 100 scans; more than 1 GiB of pixels, or more than 32 MiB that are also more than 1,100 times
the file's length; files longer than twice their pixels and 16 MiB.

Nothing is decoded when a file is written. A file that is damaged behind its header is stored as it
is: `ImageStore.verify` compares it with what was written, and reading raises `DamagedImageError`.

Pillow decodes and encodes. Where `simplejpeg` is installed (``pip install storage_impl[fast]``) it
decodes JPEG, to the same pixels, and Pillow what that refuses. `decoders` names what is in use.
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
"""The options of each encoding that has some, with their defaults."""
LIMITS = {"compress_level": (0, 9), "quality": (1, 100)}
"""The least and the greatest value of each option."""

MAX_BYTES = _inputs.MAX_BYTES
MAX_RATIO = 1100  # of pixels to a file's own length; deflate reaches 1,032
# A file may ask for this much memory whatever its length: a decoder takes up to 7 times that.
_ANY_FILE = 32 << 20
_METADATA = 16 << 20  # bytes beside the pixels: profiles, previews
_SIDES = {"jpeg": 65_500, "webp": 16_383}  # pixels at most, as libjpeg and the format have it
# Bytes of pixels of an image from which on threads pay. Pillow keeps the lock of the interpreter
# while it encodes JPEG.
_DECODE_IN_THREADS = 64 * 64 * 3
_ENCODE_IN_THREADS = {"png": 32 * 32 * 3, "webp": 64 * 64 * 3}


class DecodeError(ValueError):
    """Bytes that are no image of the encoding and shape that was expected."""


def decoders() -> dict[str, str]:
    """The library that decodes each format here, with its version."""
    from storage_impl import _decoders

    return _decoders.names()


def check_shape(encoding: str, shape: Shape) -> None:
    """Raise InvalidInputError unless an encoding can hold images of a shape."""
    channels = shape[2]
    if encoding == "jpeg" and channels == 4:
        raise InvalidInputError("jpeg holds images of 1 or 3 channels, got 4; png and webp hold 4")
    if encoding == "webp" and channels == 1:
        raise InvalidInputError("webp holds images of 3 or 4 channels, got 1; png and jpeg hold 1")
    side = _SIDES.get(encoding, _inputs.MAX_SIDE)
    if max(shape) > side:
        raise InvalidInputError(
            f"{encoding} holds images of up to {side:,} pixels a side, got {shape}; "
            "png holds larger ones"
        )


def load() -> None:
    """Import what encodes and decodes.

    Called when a store is opened: an interrupt in the midst of the first import, by several threads
    at once, can leave Python's import system waiting for itself.
    """
    for module in ("PIL.Image", "PIL.JpegImagePlugin", "PIL.WebPImagePlugin", "concurrent.futures"):
        import_module(module)
    import_module("storage_impl._decoders")


def encode(image: NDArray[np.uint8], encoding: str, options: Mapping[str, Any]) -> bytes:
    """Return what is stored of an image: uint8 (H, W, C), C-contiguous.

    Raises
    ------
    InvalidInputError
        The encoding cannot hold an image of that shape.
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
            f"the image of shape {image.shape} becomes {encoding} of {len(data):,} bytes, which "
            "reading would refuse as a bomb; store it as png or raw"
        )
    return data


def encode_all(
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    encoding: str,
    options: Mapping[str, Any],
) -> list[bytes]:
    """`encode` of each of several images, on all cores where that pays."""
    calls = [(image, encoding, options) for image in images]
    threshold = _ENCODE_IN_THREADS.get(encoding)
    if threshold is None or sum(image.nbytes for image in images) < threshold * len(images):
        return [encode(*call) for call in calls]
    return each(encode, calls)


def header_of(data: bytes, encoding: str) -> Header:
    """What a file says of itself; `encoding` is that of the store, which may be "mixed".

    Raises
    ------
    InvalidInputError
        It is of another encoding, is refused, or asks for memory out of proportion.
    """
    header = _image_header.read(data)
    if encoding not in ("mixed", header.encoding):
        raise InvalidInputError(
            f"it is a {header.encoding} file, the store holds {encoding}; encoding='mixed' takes "
            "files of each kind"
        )
    height, width, channels = header.shape
    pixels = height * width * channels
    if not 0 < pixels <= MAX_BYTES or max(height, width) > _inputs.MAX_SIDE:
        raise InvalidInputError(
            f"the file declares the shape {header.shape}; accepted are sides of 1 to "
            f"{_inputs.MAX_SIDE:,} pixels and at most 1 GiB of pixels"
        )
    if len(data) > file_limit(pixels):
        raise InvalidInputError(
            f"the file has {len(data):,} bytes; for the shape {header.shape} at most "
            f"{file_limit(pixels):,} are accepted"
        )
    if _is_bomb(pixels, len(data)):
        raise InvalidInputError(
            f"the file has {len(data):,} bytes and declares {pixels:,} bytes of pixels; accepted "
            f"are {_ANY_FILE >> 20} MiB, or {MAX_RATIO:,} times the file's length"
        )
    return header


def _is_bomb(pixels: int, length: int) -> bool:
    return pixels > max(_ANY_FILE, MAX_RATIO * length)


def file_limit(pixels: int) -> int:
    """The length, in bytes, of the longest file that is accepted for so many bytes of pixels."""
    return 2 * pixels + _METADATA


def decode(data: bytes, encoding: str, shape: Shape) -> NDArray[np.uint8]:
    """Return the pixels of an image, (H, W, C) uint8, read-only where that saves a copy.

    Raises
    ------
    DecodeError
        They are not an image of that encoding and shape.
    """
    height, width, channels = shape
    if encoding == "raw":
        if len(data) != height * width * channels:
            raise DecodeError(f"{len(data):,} bytes are no image of shape {shape}")
        return np.frombuffer(data, np.uint8).reshape(shape)
    from storage_impl import _decoders

    try:
        header = header_of(data, encoding)
        # WebP keeps no alpha where all of an image is opaque.
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
    data: Sequence[bytes] | NDArray[np.uint8], encoding: str, shapes: Sequence[Shape]
) -> list[NDArray[np.uint8] | DecodeError]:
    """`decode` of each of several images, on all cores where that pays; errors are returned."""
    calls = [(one, encoding, shape) for one, shape in zip(data, shapes, strict=True)]
    pixels = sum(height * width * channels for height, width, channels in shapes)
    if encoding == "raw" or pixels < _DECODE_IN_THREADS * len(calls):
        return [_decoded(*call) for call in calls]
    return each(_decoded, calls)


def _decoded(data: bytes, encoding: str, shape: Shape) -> NDArray[np.uint8] | DecodeError:
    try:
        return decode(data, encoding, shape)
    except DecodeError as error:
        return error
