"""Images as a backend stores them: their bytes, shapes, labels and checksums together."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]

_SHAPE = struct.Struct("=3I")


class Records(NamedTuple):
    """Images that are being written to a store or read from it.

    Attributes
    ----------
    data : ndarray or list of bytes
        The stored bytes of each image. For raw images of one shape, these are the pixels, (n,
        bytes) uint8, C-contiguous. For all others, they are n byte strings.
    shapes : ndarray
        (n, 3) uint32: height, width and channels of each image. For images of one shape, it is a
        view that repeats one row.
    labels : ndarray
        (n,) int64.
    checksums : ndarray
        (n,) uint64, see `storage_impl._checksum`.
    """

    data: NDArray[np.uint8] | list[bytes]
    shapes: NDArray[np.uint32]
    labels: NDArray[np.int64]
    checksums: NDArray[np.uint64]

    @property
    def count(self) -> int:  # type: ignore[override]
        """The number of images. ``len`` of a named tuple is the number of its fields."""
        return len(self.labels)

    def part(self, part: slice) -> Self:
        """Some of the images; the arrays are views."""
        if part.start == 0 and part.stop >= self.count:
            return self
        return type(self)(
            self.data[part], self.shapes[part], self.labels[part], self.checksums[part]
        )

    def at(self, places: NDArray[np.int64]) -> Self:
        """Copies of the raw images at some places."""
        assert isinstance(self.data, np.ndarray)
        shapes = self.shapes[: len(places)]
        return type(self)(self.data[places], shapes, self.labels[places], self.checksums[places])


Places = NDArray[np.int64] | None
"""Which records to fill, (n,) int64. None means all, in order; for a range, it is always None."""


def part_of(records: Records, places: Places, part: slice) -> tuple[Records, Places]:
    """A part of the records to fill, and their places."""
    return (records.part(part), None) if places is None else (records, places[part])


def to_fill(images: NDArray[np.uint8]) -> Records:
    """Records of n images of one shape. Filling them writes the pixels to `images` (n, H, W, C)."""
    count, height, width, channels = images.shape
    return Records(
        images.reshape(count, height * width * channels),
        same_shape(count, (height, width, channels)),
        np.empty(count, np.int64),
        np.empty(count, np.uint64),
    )


def same_shape(count: int, shape: Shape) -> NDArray[np.uint32]:
    """The shapes of `count` images of one shape, (count, 3) uint32, without taking memory."""
    # The same as from `np.broadcast_to`, but 10 times as fast.
    return np.ndarray((count, 3), np.uint32, _SHAPE.pack(*shape), strides=(0, 4))


def shapes_of(shapes: Sequence[Shape]) -> NDArray[np.uint32]:
    """Shapes as an array, (n, 3) uint32."""
    return np.array(shapes, np.uint32).reshape(len(shapes), 3)


def split(batches: Iterable[Records], at_most: int, images: int | None = None) -> Iterator[Records]:
    """Split batches into parts of at most `at_most` bytes, but at least one image.

    Parameters
    ----------
    batches : iterable of Records
    at_most : int
        Bytes of data in a part.
    images : int, optional
        The maximal number of images in a part.
    """
    for batch in batches:
        if isinstance(batch.data, np.ndarray):
            step = min(max(at_most // batch.data.shape[1], 1), images or batch.count)
            for start in range(0, batch.count, step):
                yield batch.part(slice(start, start + step))
            continue
        start = held = 0
        for stop, data in enumerate(batch.data):
            full = held + len(data) > at_most or (images is not None and stop - start == images)
            if stop > start and full:
                yield batch.part(slice(start, stop))
                start, held = stop, 0
            held += len(data)
        if start < batch.count:
            yield batch.part(slice(start, batch.count))
