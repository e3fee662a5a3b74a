"""Arguments, checked before a byte is written.

Each function returns its argument in the one form that the rest of the package
works with, or raises an error that says what was given and what is accepted.
"""

import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from storage_impl.errors import InvalidIndexError, InvalidInputError

CHANNELS = (1, 3, 4)
_INT64 = np.iinfo(np.int64)
_MAX_SIDE = 1 << 24
_MAX_BYTES = 1 << 30

Images = NDArray[np.uint8] | Iterable[NDArray[np.uint8]]
Labels = NDArray[np.integer[Any]] | Iterable[int]
Selection = slice | Sequence[int] | NDArray[np.integer[Any]] | None


class Chunk(NamedTuple):
    """Images on their way into a store: C-contiguous (n, H, W, C), and labels (n,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def image_shape(value: object) -> tuple[int, int, int]:
    """(H, W, C) as plain integers."""
    try:
        height, width, channels = (_integer(side) for side in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"image_shape must be three integers (height, width, channels), got {value!r}"
        ) from None
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise InvalidInputError(
            f"image_shape must have sides of 1 to {_MAX_SIDE:,} pixels, got {value!r}"
        )
    if channels not in CHANNELS:
        raise InvalidInputError(f"image_shape must have 1, 3 or 4 channels, got {value!r}")
    if height * width * channels > _MAX_BYTES:
        raise InvalidInputError(f"image_shape must be at most 1 GiB of pixels, got {value!r}")
    return height, width, channels


def one_image(value: object, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """One image as a C-contiguous array of exactly `shape`."""
    if not isinstance(value, np.ndarray):
        raise InvalidInputError(
            f"an image must be a numpy array of uint8, got {type(value).__name__}; "
            "np.asarray(image) converts most image objects"
        )
    _check_array("an image", value, shape, ("height", "width", "channels"))
    return np.ascontiguousarray(value)


def one_label(value: object) -> int:
    """One label as a Python integer that fits int64."""
    try:
        label = _integer(value)
    except TypeError:
        raise InvalidInputError(
            f"a label must be an integer, got {value!r} of type {type(value).__name__}"
        ) from None
    if not _INT64.min <= label <= _INT64.max:
        raise InvalidInputError(f"a label must fit int64 (-2**63 to 2**63 - 1), got {label}")
    return label


def chunks(
    images: Images, labels: Labels, shape: tuple[int, int, int], chunk_bytes: int
) -> Iterator[Chunk]:
    """What `write_many` was given, in pieces.

    Arrays and sequences are checked whole before this returns. What can only be
    iterated is checked on the way: the caller undoes what it staged.

    Parameters
    ----------
    images, labels
        As given to `write_many`.
    shape
        (H, W, C) of each image.
    chunk_bytes
        Pixels gathered from an iterable at most, in bytes, but one image at least.
        An array that is C-contiguous is one piece, never copied.
    """
    if isinstance(images, np.ndarray):
        if images.ndim == 3:
            raise InvalidInputError(
                f"images must be (N, height, width, channels), got shape {images.shape}; "
                "write_one takes a single image"
            )
        _check_array("images", images, (len(images) if images.ndim else 0, *shape), None)
        checked = _label_array(labels, len(images))
        return _split_array(images, checked, shape, chunk_bytes)
    if _is_text(images) or not isinstance(images, Iterable):
        raise InvalidInputError(
            "images must be an array (N, height, width, channels) of uint8 or an iterable of "
            f"images, got {type(images).__name__}"
        )
    if isinstance(images, Sequence):
        for image in images:
            one_image(image, shape)
        labels = _label_array(labels, len(images))
    elif isinstance(labels, np.ndarray):
        labels = _label_array(labels, labels.size)
    if _is_text(labels) or not isinstance(labels, Iterable):
        raise InvalidInputError(
            f"labels must be integers, as many as images, got {type(labels).__name__}"
        )
    return _gather(iter(images), iter(labels), shape, chunk_bytes)


def selection(value: Selection, count: int) -> range | NDArray[np.int64]:
    """What a read was asked for: a range of step 1, or checked indices (n,) int64."""
    if value is None:
        return range(count)
    if isinstance(value, (slice, range)):
        if isinstance(value, slice):
            try:
                value = range(count)[value]
            except (TypeError, ValueError) as error:
                raise InvalidIndexError(f"{value}: {error}") from None
        elif len(value) and not (0 <= min(value[0], value[-1]) <= max(value[0], value[-1]) < count):
            raise InvalidIndexError(f"indices must be {_accepted(count)}, got {value}")
        return value if value.step == 1 else np.arange(*_bounds(value), dtype=np.int64)
    if isinstance(value, Sequence) and not _is_text(value):
        if not all(type(item) is int for item in value):
            return np.array([_position(item, count) for item in value], np.int64)
        try:
            value = np.array(value, np.int64)
        except OverflowError:
            return np.array([_position(item, count) for item in value], np.int64)
    indices = np.asarray(value)
    if indices.ndim != 1:
        raise InvalidIndexError(
            "indices must be None, a slice or one-dimensional, got "
            + (repr(value) if indices.ndim == 0 else f"an array of shape {indices.shape}")
            + "; read_one reads a single image"
        )
    if indices.size == 0:
        return np.empty(0, np.int64)
    if indices.dtype.kind == "b":
        raise InvalidIndexError("indices must be integers, got booleans; np.flatnonzero converts")
    if indices.dtype.kind not in "iu":
        raise InvalidIndexError(f"indices must be integers, got dtype {indices.dtype}")
    outside = (indices < 0) | (indices >= count)
    if outside.any():
        position = int(outside.argmax())
        raise InvalidIndexError(
            f"indices must be {_accepted(count)}, got {indices[position]} at position {position}"
        )
    return indices.astype(np.int64, copy=False)


def index(value: SupportsIndex, count: int) -> int:
    """One index, 0 to `count` - 1."""
    return _position(value, count, "an index must be an integer")


def output(value: object, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The caller's array for the images that a read returns."""
    if not isinstance(value, np.ndarray):
        raise InvalidInputError(f"out must be a numpy array, got {type(value).__name__}")
    if value.dtype != np.uint8 or value.shape != shape:
        raise InvalidInputError(
            f"out must be uint8 of shape {shape}, got {value.dtype} of shape {value.shape}"
        )
    if not (value.flags.c_contiguous and value.flags.writeable):
        raise InvalidInputError("out must be C-contiguous and writeable")
    return value


def whole_number(name: str, value: object, low: int, high: int | None = None) -> int:
    """An integer option between `low` and `high`, both included."""
    accepted = f"an integer of at least {low}" if high is None else f"an integer {low} to {high}"
    try:
        number = _integer(value)
    except TypeError:
        raise InvalidInputError(f"{name} must be {accepted}, got {value!r}") from None
    if number < low or (high is not None and number > high):
        raise InvalidInputError(f"{name} must be {accepted}, got {value!r}")
    return number


def boolean(name: str, value: object) -> bool:
    """An option that is True or False and nothing else."""
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} must be True or False, got {value!r}")
    return value


def _integer(value: object) -> int:
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, np.ndarray) and value.ndim):
        raise TypeError(f"{value!r} is no integer")
    return operator.index(value)  # type: ignore[arg-type]


def _is_text(value: object) -> bool:
    return isinstance(value, str | bytes)  # which can be iterated, too


def _bounds(value: range) -> tuple[int, int, int]:
    return value.start, value.stop, value.step


def _position(
    value: object, count: int, accepted: str = "indices must be one-dimensional integers"
) -> int:
    try:
        position = _integer(value)
    except TypeError:
        raise InvalidIndexError(
            f"{accepted}, got {value!r} of type {type(value).__name__}"
        ) from None
    if not 0 <= position < count:
        raise InvalidIndexError(f"{accepted}, {_accepted(count)}, got {position}")
    return position


def _accepted(count: int) -> str:
    return f"0 to {count - 1}" if count else "but the store is empty"


def _check_array(
    what: str,
    array: NDArray[Any],
    shape: tuple[int, ...],
    names: tuple[str, ...] | None,
) -> None:
    if array.dtype != np.uint8:
        raise InvalidInputError(f"{what} must be uint8, got {array.dtype}")
    if array.shape != shape:
        wanted = shape if names else f"(N, {', '.join(map(str, shape[1:]))})"
        meaning = ", ".join(names or ("number", "height", "width", "channels"))
        raise InvalidInputError(
            f"{what} must have the shape {wanted} ({meaning}), got {array.shape}"
        )


def _label_array(labels: Labels, count: int) -> NDArray[np.int64]:
    if _is_text(labels):
        raise InvalidInputError(f"labels must be integers, got {type(labels).__name__}")
    if isinstance(labels, Iterable) and not isinstance(labels, np.ndarray):
        if not isinstance(labels, Sequence):
            # One more than there are images is enough to see that there are too many.
            labels = list(islice(labels, count + 1))
        labels = _label_list(labels)
    array = np.asarray(labels)
    if array.ndim != 1:
        raise InvalidInputError(f"labels must be one-dimensional, got shape {array.shape}")
    if len(array) == count == 0:
        return np.empty(0, np.int64)  # numpy makes floats of an empty list
    if array.dtype.kind not in "iu":
        raise InvalidInputError(f"labels must be integers, got dtype {array.dtype}")
    if len(array) != count:
        raise InvalidInputError(f"{count:,} images need {count:,} labels, got {len(array):,}")
    if array.dtype.kind == "u" and count:
        one_label(array.max())
    return array.astype(np.int64, order="C", copy=False)


def _label_list(labels: Sequence[int]) -> NDArray[np.int64]:
    # Of mixed integers numpy would make floats, and of booleans among them integers.
    if all(type(label) is int for label in labels):
        with suppress(OverflowError):
            return np.array(labels, np.int64)
    return np.array([one_label(label) for label in labels], np.int64)


def _split_array(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    shape: tuple[int, int, int],
    chunk_bytes: int,
) -> Iterator[Chunk]:
    if images.flags.c_contiguous:
        step = max(len(images), 1)
    else:
        step = max(chunk_bytes // (shape[0] * shape[1] * shape[2]), 1)
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        yield Chunk(np.ascontiguousarray(images[part]), np.ascontiguousarray(labels[part]))


def _gather(
    images: Iterator[NDArray[np.uint8]],
    labels: Iterator[int],
    shape: tuple[int, int, int],
    chunk_bytes: int,
) -> Iterator[Chunk]:
    capacity = max(chunk_bytes // (shape[0] * shape[1] * shape[2]), 1)
    total = 0
    nothing = object()
    while True:
        pixels: NDArray[np.uint8] | None = None
        numbers: list[int] = []
        for image in islice(images, capacity):
            label = next(labels, nothing)
            if label is nothing:
                raise InvalidInputError(
                    f"labels ended after {total + len(numbers):,}, there are more images"
                )
            if pixels is None:
                pixels = np.empty((capacity, *shape), np.uint8)
            pixels[len(numbers)] = one_image(image, shape)
            numbers.append(one_label(label))
        if pixels is None:
            break
        total += len(numbers)
        yield Chunk(pixels[: len(numbers)], np.array(numbers, np.int64))
    if next(labels, nothing) is not nothing:
        raise InvalidInputError(f"images ended after {total:,}, there are more labels")
