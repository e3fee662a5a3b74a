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

A file that comes from elsewhere is decoded to its pixels as they are stored: EXIF orientation is
not applied, a palette becomes RGB, or RGBA where it has transparency, grey with alpha becomes
RGBA, and CMYK becomes RGB. Bytes after the end of the image are kept and mean nothing. Images of
16 bits a channel and animations are refused.
"""

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from io import BytesIO
from itertools import starmap
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from storage_impl import _image_header
from storage_impl._image_header import Header
from storage_impl._records import Shape
from storage_impl.errors import InvalidInputError, is_ours

ENCODINGS = ("raw", "png", "jpeg", "webp", "mixed")
OPTIONS: dict[str, dict[str, int]] = {"png": {"compress_level": 6}, "jpeg": {"quality": 90}}
"""The options of each encoding that has some, with their defaults."""
LIMITS = {"compress_level": (0, 9), "quality": (1, 100)}
"""The least and the greatest value of each option."""

_PLUGINS = {"png": "Png", "jpeg": "Jpeg", "webp": "WebP"}
_FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_WEBP_SIDE = 16383  # pixels at most
MAX_BYTES = 1 << 30  # of pixels, as everywhere in this package
# A file may ask for this much memory; for more only if it is in proportion to its own length.
_ANY_FILE = 64 << 20
MAX_RATIO = 1100
_METADATA = 16 << 20  # bytes beside the pixels: profiles, previews
# What Pillow raises for a file that is not of its format or a broken one.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, IndexError, EOFError, KeyError, struct.error)
_IN_THREADS = 64 * 64 * 3  # bytes of pixels of an image, from which on threads pay

_T = TypeVar("_T")


class DecodeError(ValueError):
    """Bytes that are no image of the encoding and shape that was expected."""


def check_channels(encoding: str, channels: int) -> None:
    """Raise InvalidInputError unless an encoding can hold images of so many channels."""
    if encoding == "jpeg" and channels == 4:
        raise InvalidInputError("jpeg holds images of 1 or 3 channels, got 4; png and webp hold 4")
    if encoding == "webp" and channels == 1:
        raise InvalidInputError("webp holds images of 3 or 4 channels, got 1; png and jpeg hold 1")


def encode(image: NDArray[np.uint8], encoding: str, options: Mapping[str, Any]) -> bytes:
    """Return what is stored of an image: uint8 (H, W, C), C-contiguous."""
    height, width, channels = image.shape
    if encoding == "raw":
        return image.tobytes()
    check_channels(encoding, channels)
    arguments: dict[str, Any]
    if encoding == "webp":
        if max(height, width) > _WEBP_SIDE:
            raise InvalidInputError(
                f"webp holds up to {_WEBP_SIDE:,} pixels a side, got {image.shape}"
            )
        arguments = {"lossless": True, "exact": True, "method": 0}
    else:
        arguments = {name: options[name] for name in OPTIONS[encoding]}
    from PIL import Image

    mode = _MODES[channels]
    buffer = BytesIO()
    picture = Image.frombuffer(mode, (width, height), image, "raw", mode, 0, 1)
    picture.save(buffer, _FORMATS[encoding], **arguments)
    return buffer.getvalue()


def header_of(data: bytes, encoding: str) -> Header:
    """What a file says of itself; `encoding` is that of the store, which may be "mixed".

    Raises
    ------
    InvalidInputError
        It is of another encoding, is refused, or asks for memory out of proportion.
    """
    header = _image_header.read(data)
    if encoding not in ("mixed", header.encoding):
        raise InvalidInputError(f"it is a {header.encoding} file, expected {encoding}")
    height, width, channels = header.shape
    pixels = height * width * channels
    if not 0 < pixels <= MAX_BYTES:
        raise InvalidInputError(f"its shape is {header.shape}, at most 1 GiB of pixels is accepted")
    if len(data) > file_limit(pixels):
        raise InvalidInputError(f"{len(data):,} bytes are too many for the shape {header.shape}")
    if pixels > max(_ANY_FILE, MAX_RATIO * len(data)):
        raise InvalidInputError(f"{len(data):,} bytes that declare {header.shape} are no image")
    return header


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
    try:
        header = header_of(data, encoding)
        # WebP keeps no alpha where all of an image is opaque.
        opaque = header == Header("webp", (height, width, 3)) and channels == 4
        if header.shape != shape and not opaque:
            raise DecodeError(f"the file has the shape {header.shape}, expected {shape}")
        image = _opener(header.encoding)(BytesIO(data))
        if image.size != (width, height):
            raise DecodeError(f"the decoder finds {image.size} pixels, the header says {shape}")
        mode = _MODES[channels]
        pixels = image.tobytes() if image.mode == mode else image.convert(mode).tobytes()
        return np.frombuffer(pixels, np.uint8).reshape(shape)
    except DecodeError:
        raise
    except _DECODE_ERRORS as error:
        if not is_ours(error):
            raise
        raise DecodeError(str(error) or type(error).__name__) from error


@cache
def _opener(encoding: str) -> Callable[[BytesIO], Any]:
    """Pillow's class for a format: `Image.open` would search for it, and warn of large images."""
    # Pillow takes longer to import than all else here, and a store of raw images never needs it.
    plugin = import_module(f"PIL.{_PLUGINS[encoding]}ImagePlugin")
    opener: Callable[[BytesIO], Any] = getattr(plugin, f"{_PLUGINS[encoding]}ImageFile")
    return opener


def each(function: Callable[..., _T], arguments: Sequence[tuple[Any, ...]], size: int) -> list[_T]:
    """Call a function for each of several images, in threads where that pays.

    Parameters
    ----------
    function : callable
    arguments : sequence of tuple
        Of each call.
    size : int
        Bytes of pixels of an image, on average.
    """
    workers = min(_cores(), len(arguments))
    if size < _IN_THREADS or workers < 2:
        return list(starmap(function, arguments))
    # A share of the images for each thread: handing over single ones would cost too much.
    shares = [arguments[i::workers] for i in range(workers)]
    try:
        found = list(_pool().map(lambda share: list(starmap(function, share)), shares))
    except RuntimeError as error:
        if "after" not in str(error):  # the interpreter ends: no thread can be started
            raise
        return list(starmap(function, arguments))
    results: list[Any] = [None] * len(arguments)
    for i, share in enumerate(found):
        results[i::workers] = share
    return results


_threads: ThreadPoolExecutor | None = None


def _pool() -> ThreadPoolExecutor:
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(_cores(), "storage_impl")
    return _threads


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _forget_threads() -> None:
    global _threads
    _threads = None  # no thread but the one that forks is in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
