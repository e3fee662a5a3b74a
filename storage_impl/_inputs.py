"""Check arguments before a byte is written.

Each function returns its argument in the form that the rest of the package uses. Otherwise it
raises an error that says what was given and what is accepted.
"""

import operator
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from storage_impl._records import Shape
from storage_impl.errors import InvalidIndexError, InvalidInputError

CHANNELS = (1, 3, 4)
_INT64 = np.iinfo(np.int64)
MAX_SIDE = 1 << 24  # pixels
MAX_BYTES = 1 << 30  # of pixels

Images = NDArray[np.uint8] | Iterable[NDArray[np.uint8]]
Labels = NDArray[np.integer[Any]] | Iterable[int]
Selection = slice | Sequence[int] | NDArray[np.integer[Any]] | None


def image_shape(value: object) -> Shape | None:
    """(H, W, C) as plain integers, or None."""
    if value is None:
        return None
    try:
        height, width, channels = (_integer(side) for side in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"image_shape must be None or three integers (height, width, channels), got {value!r}"
        ) from None
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise InvalidInputError(
            f"image_shape must have sides of 1 to {MAX_SIDE:,} pixels, got {value!r}"
        )
    if channels not in CHANNELS:
        raise InvalidInputError(f"image_shape must have 1, 3 or 4 channels, got {value!r}")
    if height * width * channels > MAX_BYTES:
        raise InvalidInputError(f"image_shape must be at most 1 GiB of pixels, got {value!r}")
    return height, width, channels


def one_image(value: object, shape: Shape | None) -> NDArray[np.uint8]:
    """Check an image, and return it as a C-contiguous array. None accepts any shape."""
    if not isinstance(value, np.ndarray):
        raise InvalidInputError(
            f"an image must be a numpy array of uint8, got {type(value).__name__}; "
            "np.asarray(image) converts most image objects"
        )
    if shape is None:
        _check_any_shape("an image", value, 3)
    else:
        _check_array("an image", value, shape, ("height", "width", "channels"))
    return np.ascontiguousarray(value)


def check_images(images: NDArray[Any], shape: Shape | None) -> None:
    """Raise InvalidInputError unless an array holds images of `shape`. None accepts any."""
    if images.ndim == 3:
        raise InvalidInputError(
            f"images must be (N, height, width, channels), got shape {images.shape}; "
            "write_one takes a single image"
        )
    if shape is None:
        _check_any_shape("images", images, 4)
    else:
        _check_array("images", images, (len(images) if images.ndim else 0, *shape), None)


def one_label(value: object) -> int:
    """Check a label; return it as a Python integer that fits int64."""
    try:
        label = _integer(value)
    except TypeError:
        raise InvalidInputError(
            f"a label must be an integer, got {value!r} of type {type(value).__name__}"
        ) from None
    if not _INT64.min <= label <= _INT64.max:
        raise InvalidInputError(f"a label must fit int64 (-2**63 to 2**63 - 1), got {label}")
    return label


def selection(value: Selection, count: int) -> range | NDArray[np.int64]:
    """Check the indices of a read; return a range of step 1, or indices (n,) int64."""
    if value is None:
        return range(count)
    if isinstance(value, (slice, range)):
        if isinstance(value, slice):
            try:
                value = range(count)[value]
            except (TypeError, ValueError) as error:
                raise InvalidIndexError(f"{value}: {error}") from None
        elif value and not (0 <= min(value[0], value[-1]) <= max(value[0], value[-1]) < count):
            raise InvalidIndexError(f"indices must be integers, {_accepted(count)}, got {value}")
        return value if value.step == 1 else np.arange(*_bounds(value), dtype=np.int64)
    if isinstance(value, Sequence) and not is_text(value):
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
        raise InvalidIndexError(
            "indices must be integers, got booleans; np.flatnonzero converts them"
        )
    if indices.dtype.kind not in "iu":
        raise InvalidIndexError(f"indices must be integers, got dtype {indices.dtype}")
    outside = (indices < 0) | (indices >= count)
    if outside.any():
        position = int(outside.argmax())
        raise InvalidIndexError(
            f"indices must be integers, {_accepted(count)}, got {indices[position]} at position "
            f"{position}"
        )
    return indices.astype(np.int64, copy=False)


def index(value: SupportsIndex, count: int) -> int:
    """Check an index; it must be from 0 to `count` - 1."""
    return _position(value, count, "an index must be an integer")


def from_the_end(value: Sequence[int] | NDArray[np.integer[Any]], count: int) -> Selection:
    """Replace negative indices, which count from the end."""
    if isinstance(value, range):
        ends = (*value[:1], *value[-1:])
        if min(ends, default=0) >= 0 or not all(-count <= end < count for end in ends):
            return value  # nothing to replace, or refused by its ends
    if all(type(item) is int and item >= 0 for item in value):
        return value
    if not isinstance(value, np.ndarray):
        return [
            int(item) + count
            if isinstance(item, (int, np.integer)) and -count <= item < 0
            else item
            for item in value
        ]
    if value.dtype.kind != "i":
        return value
    indices = value.astype(np.int64)  # a smaller type may not hold the count
    return np.where((indices < 0) & (indices >= -count), indices + count, indices)


def output(value: object, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Check the caller's array for the images of a read."""
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
    """Check an integer option from `low` to `high`, both included."""
    accepted = f"an integer of at least {low}" if high is None else f"an integer {low} to {high}"
    try:
        number = _integer(value)
    except TypeError:
        raise InvalidInputError(f"{name} must be {accepted}, got {value!r}") from None
    if number < low or (high is not None and number > high):
        raise InvalidInputError(f"{name} must be {accepted}, got {value!r}")
    return number


def choice(name: str, value: object, accepted: Sequence[str]) -> str:
    """Check that a value is one of several words."""
    if not isinstance(value, str) or value not in accepted:
        raise InvalidInputError(f"{name} must be {one_of(accepted)}, got {value!r}")
    return value


def one_of(words: Iterable[object]) -> str:
    """Join words for a message: "png, jpeg or webp"."""
    *others, last = map(str, words)
    return f"{', '.join(others)} or {last}" if others else last


def boolean(name: str, value: object) -> bool:
    """Check that an option is True or False."""
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} must be True or False, got {value!r}")
    return value


def _integer(value: object) -> int:
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, np.ndarray) and value.ndim):
        raise TypeError(f"{value!r} is not an integer")
    return operator.index(value)  # type: ignore[arg-type]


def is_text(value: object) -> bool:
    """Whether a value is text or bytes, which are also iterable."""
    return isinstance(value, str | bytes)


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
    return f"from 0 to {count - 1}" if count else "but the store is empty"


def _check_any_shape(what: str, array: NDArray[Any], dimensions: int) -> None:
    if array.dtype != np.uint8:
        raise InvalidInputError(f"{what} must be uint8, got {array.dtype}")
    wanted = ("N", "height", "width", "channels")[-dimensions:]
    if array.ndim != dimensions:
        raise InvalidInputError(f"{what} must be ({', '.join(wanted)}), got shape {array.shape}")
    try:
        image_shape(array.shape[-3:])
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{what}: {str(error).replace('image_shape', 'the shape')}"
        ) from None


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


def label_array(labels: Labels, count: int) -> NDArray[np.int64]:
    if is_text(labels):
        raise InvalidInputError(f"labels must be integers, got {type(labels).__name__}")
    if isinstance(labels, Iterable) and not isinstance(labels, np.ndarray):
        if not isinstance(labels, Sequence):
            # One label more than there are images is enough to find that there are too many.
            labels = list(islice(labels, count + 1))
        labels = _label_list(labels)
    array = np.asarray(labels)
    if array.ndim != 1:
        raise InvalidInputError(f"labels must be one-dimensional, got shape {array.shape}")
    if len(array) == count == 0:
        return np.empty(0, np.int64)  # numpy turns an empty list into floats
    if array.dtype.kind not in "iu":
        raise InvalidInputError(f"labels must be integers, got dtype {array.dtype}")
    if len(array) != count:
        raise InvalidInputError(f"{count:,} images need {count:,} labels, got {len(array):,}")
    if array.dtype.kind == "u" and count:
        one_label(array.max())
    return array.astype(np.int64, order="C", copy=False)


def _label_list(labels: Sequence[int]) -> NDArray[np.int64]:
    # numpy would turn some mixed integers into floats, and booleans among them into integers.
    if all(type(label) is int for label in labels):
        with suppress(OverflowError):
            return np.array(labels, np.int64)
    return np.array([one_label(label) for label in labels], np.int64)
