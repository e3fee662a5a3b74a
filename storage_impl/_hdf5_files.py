"""The segments of a store: their names, their index, and the open files.

No lock is needed. What is known of a segment never changes, so threads that read it at the same
time record the same values. A file that is dropped here is closed when its last user is done.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from storage_impl import _hdf5_segment
from storage_impl._files import Directory, File
from storage_impl._hdf5_chunks import ChunkedImages
from storage_impl._hdf5_index import Index, Known
from storage_impl._hdf5_layout import layout_of
from storage_impl._hdf5_segment import Segment
from storage_impl._marker import Marker
from storage_impl.backend import Wanted
from storage_impl.errors import DamagedStoreError, StorageError, is_ours, read_error

_SUFFIX = ".h5"
_BESIDE_BYTES = 16  # per image: its label and its checksum
_OPEN_CHUNKED = 32  # each has a cache of a few MiB
# What h5py raises for a bad file.
_DATA_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)

_T = TypeVar("_T")


class SegmentFiles:
    """The committed segments of a store.

    Parameters
    ----------
    directory : Directory
        The directory of the segments.
    marker : Marker
    count : int
        The number of committed images.
    strict : bool
        Whether contiguous images must have this package's own header.

    Attributes
    ----------
    directory : Directory
    layout : Layout
    starts, stops : list of int
        The index of the first image of each segment, and the index after the last.

    Raises
    ------
    DamagedStoreError
        A segment is missing, overlaps another, or is too short for its images.
    """

    def __init__(self, directory: Directory, marker: Marker, count: int, *, strict: bool) -> None:
        self.directory = directory
        self.layout = layout_of(marker)
        self._at_once = _files_at_once()
        self.starts: list[int] = []
        self.stops: list[int] = []
        self._strict = strict
        self._is_chunked = marker.options["chunk_images"] is not None
        self._is_compressed = marker.options["gzip_level"] is not None
        self._known = Index(marker.row_bytes)
        self._files: dict[int, File] = {}
        self._chunked: dict[int, ChunkedImages] = {}
        row_bytes = 0 if self._is_compressed else marker.row_bytes or 1
        self._list(count, row_bytes + _BESIDE_BYTES)

    def _list(self, count: int, least: int) -> None:
        """Record the committed segments. Each image takes at least `least` bytes."""
        expected = 0
        path = self.directory.path
        for start, stop, name in sorted(self.names()):
            if start >= count:
                break
            if start != expected or not start < stop <= count:
                raise DamagedStoreError(
                    f"{path}: {name} cannot be the segment after image {expected - 1}"
                )
            size = self.directory.regular(name).st_size
            if (stop - start) * least > size:
                raise DamagedStoreError(f"{path / name} is cut off: it has only {size:,} bytes")
            self.extend([start], [stop])
            expected = stop
        if expected != count:
            raise DamagedStoreError(
                f"{path}: the segment that starts with image {expected} is missing"
            )

    def names(self) -> Iterator[tuple[int, int, str]]:
        """Start, stop and name of each segment on the disk, committed or not."""
        for name in self.directory.names():
            start, _, stop = name.removesuffix(_SUFFIX).partition("-")
            if start.isdecimal() and stop.isdecimal():
                numbers = int(start), int(stop)
                if name == segment_name(*numbers):
                    yield *numbers, name

    def extend(self, starts: list[int], stops: list[int]) -> None:
        """Add segments that were just committed."""
        self.starts += starts
        self.stops += stops

    def cut(self, count: int) -> None:
        """Forget the segments from image `count` on."""
        kept = bisect_left(self.starts, count)
        del self.starts[kept:], self.stops[kept:]
        self._known = self._known.fitted(self.stops)

    def after_fork(self) -> None:
        """Drop what HDF5 has open: it may read at a position that both processes share."""
        self._chunked.clear()

    # -- what is known -----------------------------------------------------------------------

    def index(self) -> Index:
        """The index of the images, with room for all segments."""
        known = self._known
        if len(known.segments) != len(self.stops):
            known = self._known = known.fitted(self.stops)
        return known

    def know(self, wanted: Wanted) -> tuple[Index, NDArray[np.int64]]:
        """Check the segments that hold the wanted images and are not known yet.

        Returns the index and segment numbers: for a range, each segment once; for indices, the
        segment of each index.
        """
        known = self.index()
        numbers: NDArray[np.int64]
        if isinstance(wanted, range):
            last = bisect_right(self.stops, wanted.stop - 1) if wanted else -1
            numbers = np.arange(bisect_right(self.stops, wanted.start), last + 1)
        else:
            numbers = known.stops.searchsorted(wanted, side="right")
        unknown = numbers[~known.is_known[numbers]]
        for number in sorted(set(unknown.tolist())):
            self.learn(known, number)
        return known, numbers

    def learn(self, known: Index, number: int) -> Known:
        """Check a segment, and add everything except its images to the index."""
        if self._is_chunked:
            segment = Segment((0, 0), 0, self.chunks(number).columns)
        else:
            file = self._open(number)
            images = self.stops[number] - self.starts[number]
            segment = _checked(
                file, lambda: _hdf5_segment.read(file, images, self.layout, strict=self._strict)
            )
            _keep(self._files, number, file, self._at_once)
        return known.add(number, segment)

    # -- what is open ------------------------------------------------------------------------

    def _open(self, number: int) -> File:
        return self.directory.open(segment_name(self.starts[number], self.stops[number]))

    def file(self, known: Index, number: int) -> File:
        """The open file of a known segment. It must be the file that was checked."""
        file = self._files.get(number)
        if file is None:
            file = self._open(number)
            segment = known.segments[number]
            status = os.fstat(file.fd)
            if segment is None or segment.identity != (status.st_dev, status.st_ino):
                raise DamagedStoreError(f"{file.path} was replaced while the store was open")
            _keep(self._files, number, file, self._at_once)
        return file

    def files(self, known: Index, numbers: NDArray[np.int64]) -> list[File]:
        """The open files of known segments, one for each number."""
        wanted = numbers.tolist()
        found = list(map(self._files.get, wanted))
        files = [file for file in found if file is not None]
        return files if len(files) == len(found) else [self.file(known, i) for i in wanted]

    def files_per_read(self, wanted: int) -> int:
        """How many of the `wanted` files, counting repeats, to use at once."""
        return wanted if len(self.stops) <= self._at_once else max(self._at_once // 8, 1)

    def chunks(self, number: int) -> ChunkedImages:
        """The chunked images of a segment, open and checked."""
        images = self._chunked.get(number)
        if images is None:
            file = self._open(number)
            count = self.stops[number] - self.starts[number]
            images = _checked(
                file,
                lambda: ChunkedImages(file, count, self.layout, compressed=self._is_compressed),
            )
            _keep(self._chunked, number, images, _OPEN_CHUNKED)
        return images


def segment_name(start: int, stop: int) -> str:
    """The name of the segment with the images `start` to `stop` - 1."""
    return f"{start:08d}-{stop:08d}{_SUFFIX}"


def _checked(file: File, call: Callable[[], _T]) -> _T:
    """Call a function that may open a file with HDF5, and translate its many kinds of errors."""
    try:
        return call()
    except _DATA_ERRORS as error:
        if isinstance(error, StorageError) or not is_ours(error):
            raise
        raise read_error(f"{file.path} cannot be read", error) from error


def _keep(kept: dict[int, _T], number: int, value: _T, limit: int) -> None:
    """Keep an open file. If there are too many, drop those that were kept longest."""
    kept[number] = value
    if len(kept) > limit:
        for old in list(kept)[: -(-limit // 8)]:
            kept.pop(old, None)


def _files_at_once() -> int:
    """How many files a store keeps open: a quarter of the process's limit, 32 to 4,096."""
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return 128
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 4096 if soft == resource.RLIM_INFINITY else min(max(soft // 4, 32), 4096)
