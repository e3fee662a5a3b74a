"""Check what a user wants to write, and turn it into batches of records.

Arrays and sequences are checked completely before a byte is written. Other iterables are checked
during the write. If an item is refused, the store undoes what was written before it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from storage_impl import _checksum, _inputs, codecs
from storage_impl._inputs import Images, Labels
from storage_impl._marker import Marker
from storage_impl._records import Records, Shape, same_shape, shapes_of
from storage_impl.errors import InvalidInputError, ReadOnlyStoreError

Encoded = bytes | bytearray | memoryview

_BATCH_BYTES = 32 << 20  # bytes collected from an iterable before the backend gets them
_BATCH_IMAGES = 1 << 16  # the limit for small images

_Item = TypeVar("_Item")


class Batches:
    """The batches of one write, with their checksums.

    Attributes
    ----------
    stop : int
        Index after the last image of the batches so far.
    error : BaseException or None
        The exception that was raised while the next batch was made. It distinguishes an error of
        the caller's iterable from one of the backend.
    """

    def __init__(self, batches: Iterator[Records], start: int) -> None:
        self._batches = batches
        self._process = os.getpid()
        self.stop = start
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[Records]:
        return self

    def __next__(self) -> Records:
        try:
            records = next(self._batches)
            if self.forked():
                raise ReadOnlyStoreError(
                    "this process was forked during the write; only the process that began the "
                    "write can finish it, and this one can only read"
                )
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise
        indices = np.arange(self.stop, self.stop + records.count, dtype=np.int64)
        self.stop += records.count
        return records._replace(checksums=_checksum.checksums(indices, records))

    def forked(self) -> bool:
        """Whether this is a child of the process that began the write."""
        return os.getpid() != self._process


def one(image: object, label: object, marker: Marker) -> Iterator[Records]:
    """The batch of `write_one`."""
    _check_takes_pixels(marker)
    checked = _one_image(image, marker)
    number = _inputs.one_label(label)
    return iter([_of_images([checked], np.array([number], np.int64), marker)])


def of_images(images: Images, labels: Labels, marker: Marker) -> Iterator[Records]:
    """The batches of `write_many`."""
    _check_takes_pixels(marker)
    shape = marker.image_shape
    if isinstance(images, np.ndarray):
        _inputs.check_images(images, shape)
        if shape is None:
            codecs.check_shape(marker.encoding, images.shape[1:])
        return _of_array(images, _inputs.label_array(labels, len(images)), marker)
    if _inputs.is_text(images) or not isinstance(images, Iterable):
        raise InvalidInputError(
            "images must be an array (N, height, width, channels) of uint8 or an iterable of "
            f"images, got {type(images).__name__}"
        )
    gather = _gather_images if marker.row_bytes is None else _gather_rows
    return gather(*_pairs(images, labels, partial(_one_image, marker=marker)), marker)


def of_encoded(data: Encoded | Iterable[Encoded], labels: Any, marker: Marker) -> Iterator[Records]:
    """The batches of `write_encoded`."""
    if marker.encoding == "raw":
        raise InvalidInputError(
            "the store holds raw pixels; write_encoded needs a store made with "
            "encoding='png', 'jpeg', 'webp' or 'mixed'"
        )
    if isinstance(data, bytes | bytearray | memoryview):
        shape = _shape_of(data, marker)
        number = np.array([_inputs.one_label(labels)], np.int64)
        return iter([_records([bytes(data)], [shape], number)])
    if _inputs.is_text(data) or not isinstance(data, Iterable):
        raise InvalidInputError(
            f"data must be bytes or an iterable of bytes, got {type(data).__name__}"
        )
    pairs = _pairs(data, labels, partial(_shape_of, marker=marker))
    return _gather_encoded(*pairs, marker)


def _check_takes_pixels(marker: Marker) -> None:
    if marker.encoding == "mixed":
        raise InvalidInputError(
            "the store has the encoding 'mixed' and accepts only encoded files; use write_encoded"
        )


def _one_image(image: object, marker: Marker) -> NDArray[np.uint8]:
    checked = _inputs.one_image(image, marker.image_shape)
    if marker.image_shape is None:
        codecs.check_shape(marker.encoding, checked.shape)
    return checked


def _shape_of(data: object, marker: Marker) -> Shape:
    """Read the shape of an encoded image from its header, or raise InvalidInputError."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidInputError(f"an encoded image must be bytes, got {type(data).__name__}")
    shape = codecs.header_of(bytes(data), marker.encoding).shape
    if marker.image_shape not in (None, shape):
        raise InvalidInputError(
            f"the encoded image has the shape {shape}, but the store needs {marker.image_shape}"
        )
    return shape


def _pairs(
    items: Iterable[_Item], labels: Labels, check: Callable[[Any], object]
) -> tuple[Iterator[_Item], Iterator[int]]:
    """Return items and labels as iterators. Sequences are checked first."""
    if isinstance(items, Sequence):
        for item in items:
            check(item)
        labels = _inputs.label_array(labels, len(items))
    elif isinstance(labels, np.ndarray):
        labels = _inputs.label_array(labels, labels.size)
    if _inputs.is_text(labels) or not isinstance(labels, Iterable):
        raise InvalidInputError(
            f"labels must be an iterable of integers, one per image, got {type(labels).__name__}"
        )
    return iter(items), iter(labels)


def _of_array(
    images: NDArray[np.uint8], labels: NDArray[np.int64], marker: Marker
) -> Iterator[Records]:
    size = int(np.prod(images.shape[1:]))
    step = max(_BATCH_BYTES // max(size, 1), 1)
    if marker.row_bytes is not None and images.flags.c_contiguous:
        step = max(len(images), 1)  # one batch, without a copy
    for start in range(0, len(images), step):
        part = np.ascontiguousarray(images[start : start + step])
        yield _of_images(part, np.ascontiguousarray(labels[start : start + step]), marker)


def _of_images(
    images: NDArray[np.uint8] | list[NDArray[np.uint8]],
    labels: NDArray[np.int64],
    marker: Marker,
) -> Records:
    """Records of C-contiguous images."""
    if marker.row_bytes is not None:
        rows = np.asarray(images).reshape(len(images), marker.row_bytes)
        return Records(rows, same_shape(len(rows), images[0].shape), labels, _NO_CHECKSUMS)
    data = codecs.encode_all(images, marker.encoding, marker.options)
    return _records(data, [image.shape for image in images], labels)


def _records(data: list[bytes], shapes: list[Shape], labels: NDArray[np.int64]) -> Records:
    return Records(data, shapes_of(shapes), labels, _NO_CHECKSUMS)


_NO_CHECKSUMS = np.empty(0, np.uint64)


def _gather_rows(
    images: Iterator[NDArray[np.uint8]], labels: Iterator[int], marker: Marker
) -> Iterator[Records]:
    """Batches of raw images of one shape; each batch is copied into one array."""
    shape, row_bytes = marker.image_shape, marker.row_bytes
    assert shape is not None
    assert row_bytes is not None
    capacity = max(_BATCH_BYTES // row_bytes, 1)
    paired = _paired(images, labels)
    while True:
        pixels: NDArray[np.uint8] | None = None
        numbers: list[int] = []
        for image, label in islice(paired, capacity):
            if pixels is None:
                pixels = np.empty((capacity, *shape), np.uint8)
            pixels[len(numbers)] = _inputs.one_image(image, shape)
            numbers.append(_inputs.one_label(label))
        if pixels is None:
            return
        yield _of_images(pixels[: len(numbers)], np.array(numbers, np.int64), marker)


def _gather_images(
    images: Iterator[NDArray[np.uint8]], labels: Iterator[int], marker: Marker
) -> Iterator[Records]:
    """Batches of images that have to be encoded, or that differ in shape."""

    def check(image: object) -> tuple[NDArray[np.uint8], int]:
        checked = _one_image(image, marker).copy()
        return checked, checked.nbytes

    for found, numbers in _gathered(images, labels, check):
        yield _of_images(found, numbers, marker)


def _gather_encoded(
    data: Iterator[Encoded], labels: Iterator[int], marker: Marker
) -> Iterator[Records]:
    """Batches of images that are encoded already."""

    def check(data: Any) -> tuple[tuple[bytes, Shape], int]:
        shape = _shape_of(data, marker)
        return (bytes(data), shape), len(data)

    for found, numbers in _gathered(data, labels, check):
        yield _records([one for one, _ in found], [shape for _, shape in found], numbers)


def _gathered(
    items: Iterator[Any], labels: Iterator[int], check: Callable[[Any], tuple[_Item, int]]
) -> Iterator[tuple[list[_Item], NDArray[np.int64]]]:
    """Checked items and labels, up to the limits of a batch; `check` also returns the bytes."""
    found: list[_Item] = []
    numbers: list[int] = []
    held = 0
    for item, label in _paired(items, labels):
        checked, size = check(item)
        numbers.append(_inputs.one_label(label))
        found.append(checked)
        held += size
        if held >= _BATCH_BYTES or len(found) == _BATCH_IMAGES:
            yield found, np.array(numbers, np.int64)
            found, numbers, held = [], [], 0
    if found:
        yield found, np.array(numbers, np.int64)


def _paired(items: Iterator[Any], labels: Iterator[int]) -> Iterator[tuple[Any, int]]:
    """Items with their labels; InvalidInputError if one of the two ends first."""
    count = 0
    for item in items:
        for label in labels:
            yield item, label
            break
        else:
            raise InvalidInputError(f"there are more images than labels: got {count:,} labels")
        count += 1
    for _ in labels:
        raise InvalidInputError(f"there are more labels than images: got {count:,} images")
