"""The index of an HDF5 store: the label, the checksum and the place of each image.

A segment is added to it when its first image is read. The index is kept, because segments never
change.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from storage_impl._hdf5_segment import Segment


class Known(NamedTuple):
    """A segment that was checked.

    Attributes
    ----------
    identity : tuple of int
        Device and inode of the file.
    base : int
        If images have one size, the offset in the file at which image 0 of the store would begin.
        Otherwise the offset of the segment's first image.
    labels_sum : int
        The checksum of all its labels.
    """

    identity: tuple[int, int]
    base: int
    labels_sum: int


class Index:
    """Columns with a row for each image of a store. A row is valid if its segment is known.

    No lock is needed. Threads that read one segment at the same time write the same rows. If one of
    them makes a longer index meanwhile, a segment of the other one may be unknown there. It is then
    read again.

    Parameters
    ----------
    row_bytes : int or None
        Bytes of each image. None if they differ.

    Attributes
    ----------
    stops : ndarray
        (s,) int64, the index after the last image of each segment, ascending.
    segments : list
        `Known` for each segment that is known, else None.
    is_known : ndarray
        (s,) bool, whether each segment is known.
    bases : ndarray
        (s,) int64, `Known.base` of the segments that are known.
    labels, checksums : ndarray
        (n,) int64 and uint64, n at least the number of images.
    begins, sizes, shapes : ndarray
        Empty if all images have one shape and size. Otherwise (n,) int64, where each image begins
        in its file, (n,) int64, its bytes, and (n, 3) uint32, its shape.
    """

    def __init__(self, row_bytes: int | None) -> None:
        self.stops = np.empty(0, np.int64)
        self.segments: list[Known | None] = []
        self.is_known = np.empty(0, np.bool_)
        self.bases = np.empty(0, np.int64)
        self.labels = np.empty(0, np.int64)
        self.checksums = np.empty(0, np.uint64)
        self.begins = np.empty(0, np.int64)
        self.sizes = np.empty(0, np.int64)
        self.shapes = np.empty((0, 3), np.uint32)
        self._row_bytes = row_bytes

    def fitted(self, stops: Sequence[int]) -> Self:
        """An index of segments with these `stops`, with what is known of the first ones."""
        new = type(self)(self._row_bytes)
        kept = min(len(self.segments), len(stops))
        # Copy what is known before the rows. `add` writes the rows first, so a segment that is
        # known here has its rows.
        new.segments = self.segments[:kept] + [None] * (len(stops) - kept)
        new.is_known = np.zeros(len(stops), np.bool_)
        new.is_known[:kept] = [segment is not None for segment in new.segments[:kept]]
        new.stops = np.concatenate([self.stops[:kept], np.array(stops[kept:], np.int64)])
        new.bases = _longer(self.bases[:kept], len(stops))
        count = stops[-1] if stops else 0
        longer = max(count, 2 * len(self.labels)) if count > len(self.labels) else 0
        for name in ("labels", "checksums"):
            setattr(new, name, _longer(getattr(self, name), longer))
        if self._row_bytes is None:
            for name in ("begins", "sizes", "shapes"):
                setattr(new, name, _longer(getattr(self, name), longer))
        return new

    def add(self, number: int, segment: Segment) -> Known:
        """Record a segment that was checked."""
        labels, checksums, *others = segment.columns
        stop = int(self.stops[number])
        start = stop - len(labels)
        self.labels[start:stop] = labels
        self.checksums[start:stop] = checksums[:-1]
        base = segment.images
        if self._row_bytes is not None:
            base -= start * self._row_bytes
        else:
            offsets = others[0].astype(np.int64)
            self.begins[start:stop] = offsets[:-1] + base
            self.sizes[start:stop] = np.diff(offsets)
            self.shapes[start:stop] = others[1]
        self.bases[number] = base
        known = Known(segment.identity, base, int(checksums[-1]))
        self.segments[number] = known
        self.is_known[number] = True
        return known


def _longer(column: NDArray[Any], length: int) -> NDArray[Any]:
    """A column with room for `length` rows: the same one if it is long enough."""
    if length <= len(column):
        return column
    new = np.empty((length, *column.shape[1:]), column.dtype)
    new[: len(column)] = column
    return new
