"""Images in HDF5 files, with h5py.

On-disk format, version 1::

    store.json
    write.lock
    commit                            the commit record, see `storage_impl._commit`
    segments/00000000-00010000.h5     the images 0 to 9,999
    segments/00010000-00010001.h5     ...

A segment is an HDF5 file that is never opened for writing again. Where all n images are raw and of
one shape, it holds, in this order and behind a header of superblock version 0, which every HDF5
reads::

    labels     (n,) i64
    checksums  (n + 1,) u64      of each image, then XXH3-64 of the labels plus the index of the
                                 first image, modulo 2**64
    images     (n, H, W, C) u8

Encoded images, and raw ones whose shapes differ, have instead of `images`::

    offsets    (n + 1,) u64      where each image begins in `data`, then the length of `data`
    shapes     (n, 3) u32        height, width, channels
    data       (offsets[n],) u8  what is stored of the images, one after another

All are little-endian and contiguous. With `chunk_images` the images alone are chunked, and the file
has superblock version 3, which every HDF5 since 1.10 reads, and whose metadata carry checksums.

A call writes one segment, or several when it brings more than 1 GiB (chunked: 64 MiB) or 131,072
images at once, or an iterable of more than 32 MiB. Segments at and beyond the committed count are
what an interrupted call left: ignored, and removed by the next writer.

Many small writes are not what HDF5 is made for: each call makes a file. LMDB is.

What is checked when: opening checks that the segments are there, without a gap, and long
enough for their images. The inside of a segment is checked when it is first read; what
`verify=True` accepts there of contiguous segments is this package's own header and no other.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from storage_impl import _hdf5_chunks, _hdf5_segment, _inputs
from storage_impl._checksum import digest
from storage_impl._commit import INITIAL, CommitRecord
from storage_impl._files import (
    Directory,
    File,
    begin_writing,
    pread,
    preadv,
    sync,
    sync_together,
    write_all,
)
from storage_impl._hdf5_chunks import ChunkedImages
from storage_impl._hdf5_index import Index, Known
from storage_impl._hdf5_layout import layout_of
from storage_impl._hdf5_segment import Segment
from storage_impl._marker import Marker, Options, OptionValue
from storage_impl._records import Records, Shape, split
from storage_impl.backend import Backend, Wanted
from storage_impl.errors import (
    DamagedImageError,
    DamagedStoreError,
    InvalidInputError,
    StorageError,
    is_ours,
    read_error,
)

_COMMIT = "commit"
_SEGMENTS = "segments"
_SUFFIX = ".h5"

_SEGMENT_BYTES = 1 << 30
_CHUNKED_BYTES = 64 << 20  # in memory twice while they are written
_SEGMENT_IMAGES = 1 << 17
_WRITTEN_BYTES = 8 << 20  # by one call of the system; then the disk can begin
_JOINED_BYTES = 1 << 16  # of images, up to which all of a segment is written by one call
_AT_ONCE = 1 << 13  # images that are read by one pass over arrays
_OPEN_CHUNKED = 32  # each has a cache of some MiB
_DATA_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)  # of h5py, for a bad file

_T = TypeVar("_T")


class Hdf5Backend(Backend):
    """Immutable HDF5 files.

    Other Parameters
    ----------------
    chunk_images : int or None, optional
        Images in a chunk. None, the default, lays the images out contiguously. Only of raw images
        of one shape.
    gzip_level : int or None, optional
        1 to 9, compresses each chunk; needs `chunk_images`. None, the default, does not.

    Notes
    -----
    Each call that writes makes a file, which costs milliseconds whatever it holds: give
    `write_many` as many images as there are.

    Contiguous images are read at their place in the file, past HDF5: it was asked where they are,
    and its calls cost several times what the reading does. Chunked images are read by HDF5, which
    lets one thread in at a time.
    """

    name = "hdf5"
    defaults: ClassVar[Options] = {"chunk_images": None, "gzip_level": None}
    errors = (OSError, RuntimeError)

    def __init__(
        self, directory: Directory, marker: Marker, *, writable: bool, verify: bool
    ) -> None:
        super().__init__(directory, marker, writable=writable, verify=verify)
        self._chunk_images = marker.options["chunk_images"]
        self._gzip_level = marker.options["gzip_level"]
        self._row_bytes = marker.row_bytes
        self._layout = layout_of(marker)
        self._segments = directory.subdirectory(_SEGMENTS)
        self._commit = directory.open(_COMMIT, os.O_RDWR if writable else os.O_RDONLY)
        self._record = CommitRecord(self._commit)
        self.count = self._record.count
        self._starts, self._stops = self._list(self.count)
        self._unsynced = len(self._starts)
        self._known = Index(self._row_bytes)
        self._open_files = _files_at_once()
        self._files: dict[int, File] = {}
        self._chunked: dict[int, ChunkedImages] = {}
        self._sound: set[int] = set()  # segments whose labels have been checked

    @classmethod
    def check_option(cls, name: str, value: object) -> OptionValue:
        """An integer in its limits, or None."""
        if value is None:
            return None
        return _inputs.whole_number(name, value, 1, 9 if name == "gzip_level" else _SEGMENT_IMAGES)

    @classmethod
    def check_marker(cls, marker: Marker) -> None:
        """Refuse chunks of encoded images, and of differing ones, and gzip without chunks."""
        chunked = marker.options["chunk_images"] is not None
        if marker.options["gzip_level"] is not None and not chunked:
            raise InvalidInputError("gzip_level needs chunk_images: HDF5 compresses chunk by chunk")
        if chunked and marker.row_bytes is None:
            raise InvalidInputError("chunk_images is for raw images of one shape only")

    @classmethod
    def make(cls, directory: Directory, marker: Marker) -> None:
        """Make an empty directory of segments and the commit record."""
        directory.make(_SEGMENTS)
        directory.write(_COMMIT, INITIAL, durable=marker.durable)

    def after_fork(self) -> None:
        """Let go of what HDF5 has open: it may read at a position that both processes share."""
        self._chunked.clear()

    def _list(self, count: int) -> tuple[list[int], list[int]]:
        """Where the committed segments start and stop."""
        starts, stops = [], []
        expected = 0
        path = self._segments.path
        least = (self._row_bytes or 1) if self._gzip_level is None else 0
        for start, stop, name in sorted(_parse(self._segments)):
            if start >= count:
                break
            if start != expected or not start < stop <= count:
                raise DamagedStoreError(f"{path}: {name} does not follow image {expected - 1}")
            size = self._segments.regular(name).st_size
            if (stop - start) * least > size:
                raise DamagedStoreError(f"{path / name} is cut off: {size:,} bytes")
            starts.append(start)
            stops.append(stop)
            expected = stop
        if expected != count:
            raise DamagedStoreError(
                f"{path}: the segment that starts with image {expected} is missing"
            )
        return starts, stops

    # -- writing -----------------------------------------------------------------------------

    def append(self, batches: Iterable[Records]) -> None:
        """Write a segment for each batch, then the commit record."""
        starts, stops = [], []
        start = self.count
        limit = _SEGMENT_BYTES if self._chunk_images is None else _CHUNKED_BYTES
        durable = self.marker.durable
        file: File | None = None
        for records in split(batches, limit, _SEGMENT_IMAGES):
            if durable and file is not None:
                sync(file.fd)
            stop = start + records.count
            file = self._segments.new(_segment_name(start, stop))
            self._write(file, start, records)
            starts.append(start)
            stops.append(stop)
            start = stop
        if file is None:
            return
        if durable:
            sync_together(file, self._segments)
        self._record.commit(start, durable=durable)
        self._starts += starts
        self._stops += stops
        self.count = start

    def _write(self, file: File, start: int, records: Records) -> None:
        sums = np.append(records.checksums, np.uint64(_labels_sum(records.labels, start)))
        columns: list[NDArray[Any]] = [records.labels, sums]
        if isinstance(records.data, np.ndarray):
            pixels = memoryview(records.data).cast("B")
            if self._chunk_images is not None:
                columns.append(records.data)
                data = _hdf5_chunks.file_of(
                    self._layout, columns, self._chunk_images, self._gzip_level
                )
                write_all(file.fd, data)
                return
            size = len(pixels)
            parts = (pixels[i : i + _WRITTEN_BYTES] for i in range(0, size, _WRITTEN_BYTES))
        else:
            offsets = np.zeros(records.count + 1, np.uint64)
            np.cumsum([len(data) for data in records.data], out=offsets[1:])
            columns += [offsets, records.shapes]
            size = int(offsets[-1])
            parts = (b"".join(part.data) for part in split([records], _WRITTEN_BYTES))
        header = self._layout.header(self._layout.rows(records.count, size))
        front = b"".join([header, *(column.tobytes() for column in columns)])
        if size <= _JOINED_BYTES:
            write_all(file.fd, b"".join([front, *parts]))
            return
        write_all(file.fd, front)
        offset = len(front)
        for part in parts:
            write_all(file.fd, part)
            if self.marker.durable:
                begin_writing(file.fd, offset, len(part))
            offset += len(part)

    def discard(self, count: int) -> None:
        """Remove the segments from `count` on."""
        self._record.restore(count, durable=self.marker.durable)
        self.count = count
        kept = bisect_left(self._starts, count)
        del self._starts[kept:], self._stops[kept:]
        self._known = self._known.fitted(self._stops)
        self._sound = {number for number in self._sound if number < kept}
        self._unsynced = min(self._unsynced, kept)
        for start, _, name in _parse(self._segments):
            if start >= count:
                self._segments.remove(name)

    def sync(self) -> None:
        """Sync the segments that were written, then the names and the record that lead to them."""
        for start, stop in zip(
            self._starts[self._unsynced :], self._stops[self._unsynced :], strict=True
        ):
            self._segments.sync_name(_segment_name(start, stop))
        self._segments.sync()
        sync(self._commit.fd)

    # -- reading -----------------------------------------------------------------------------

    def read_one(self, index: int) -> tuple[NDArray[np.uint8] | bytes, Shape, int, int]:
        """Read an image at its place in the file, or with HDF5."""
        number = bisect_right(self._stops, index)
        known = self._index()
        segment = known.segments[number] or self._learn(known, number)
        label, checksum = known.labels.item(index), known.checksums.item(index)
        if self._row_bytes is None:
            data = self._fetch(known, np.array([index]), np.array([number]))[0]
            return data, tuple(known.shapes[index].tolist()), label, checksum
        shape = self.marker.image_shape
        assert shape is not None
        if self._chunk_images is not None:
            image = self._chunks(number).read_one(index - self._starts[number])
            return image, shape, label, checksum
        file = self._files.get(number) or self._file(known, number)
        image = np.empty(shape, np.uint8)
        position = segment.base + index * self._row_bytes
        if preadv(file.fd, (image,), position) != self._row_bytes:
            raise DamagedStoreError(f"{file.path} ends before image {index}")
        return image, shape, label, checksum

    def fill(self, wanted: Wanted, records: Records) -> None:
        """Read what lies together with one call of the system, or of HDF5."""
        for start in range(0, len(wanted), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            self._fill(wanted[part], records.part(part))

    def _fill(self, wanted: Wanted, records: Records) -> None:
        known, numbers = self._know(wanted)
        where = slice(wanted.start, wanted.stop) if isinstance(wanted, range) else wanted
        records.labels[:] = known.labels[where]
        records.checksums[:] = known.checksums[where]
        runs = _runs(wanted, numbers, known.stops)
        if self._chunk_images is not None:
            self._fill_from_chunks(runs, records.data)
            return
        if len(self._stops) > self._open_files:
            # Each file is opened once and let go when another takes its place.
            runs = runs[:, np.argsort(runs[0], kind="stable")]
            step = max(self._open_files // 8, 1)
        else:
            step = _AT_ONCE
        for i in range(0, runs.shape[1], step):
            self._fill_runs(known, runs[:, i : i + step], memoryview(records.data).cast("B"))

    def _fill_runs(self, known: Index, runs: NDArray[np.int64], buffer: memoryview) -> None:
        """Read consecutive images, each time as many as a run has, into their place."""
        assert self._row_bytes is not None
        numbers, firsts, lengths, places = runs
        sizes = (lengths * self._row_bytes).tolist()
        positions = (known.bases[numbers] + firsts * self._row_bytes).tolist()
        begins = (places * self._row_bytes).tolist()
        files = self._opened(known, numbers)
        views = [buffer[i : i + size] for i, size in zip(begins, sizes, strict=True)]
        done = list(map(preadv, [file.fd for file in files], zip(views), positions))
        if done != sizes:
            for file, view, position, had in zip(files, views, positions, done, strict=True):
                _read_rest(file, view[had:], position + had)

    def _fill_from_chunks(self, runs: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        for number, first, length, place in runs.T.tolist():
            inside = first - self._starts[number]
            images = self._chunks(number)
            try:
                if length == 1:
                    rows[place] = images.read_one(inside).reshape(-1)
                else:
                    images.read(inside, rows[place : place + length])
            except self.errors as error:
                if not is_ours(error):
                    raise
                raise self._locate(images, inside, first, length, error) from error

    def _locate(
        self, images: ChunkedImages, inside: int, first: int, length: int, error: Exception
    ) -> StorageError:
        """Which of consecutive images HDF5 could not read, by reading them one by one."""
        failure = read_error(f"{self._segments.path} cannot be read", error)
        if not isinstance(failure, DamagedStoreError):
            return failure
        damaged = []
        for i in range(length):
            try:
                images.read_one(inside + i)
            except self.errors as error:
                if not is_ours(error):
                    raise
                damaged.append(first + i)
        return DamagedImageError(str(failure), damaged) if damaged else failure

    def fetch(self, wanted: Wanted) -> Records:
        """Read the bytes of each image at their place in the file."""
        known, numbers = self._know(wanted)
        indices = np.asarray(wanted, np.int64)
        if isinstance(wanted, range):
            numbers = np.searchsorted(known.stops, indices, side="right")
        data: list[bytes] = []
        step = _AT_ONCE if len(self._stops) <= self._open_files else max(self._open_files // 8, 1)
        for start in range(0, len(indices), step):
            part = slice(start, start + step)
            data += self._fetch(known, indices[part], numbers[part])
        return Records(data, known.shapes[indices], known.labels[indices], known.checksums[indices])

    def _fetch(
        self, known: Index, indices: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> list[bytes]:
        files = self._opened(known, numbers)
        sizes = known.sizes[indices].tolist()
        data = list(map(pread, [file.fd for file in files], sizes, known.begins[indices].tolist()))
        if list(map(len, data)) != sizes:
            index = next(i for i, n in enumerate(sizes) if len(data[i]) != n)
            raise DamagedStoreError(f"{files[index].path} ends before image {indices[index]}")
        return data

    def read_labels(self, wanted: Wanted, *, check: bool) -> NDArray[np.int64]:
        """Read labels; those of a segment are checked once."""
        known, numbers = self._know(wanted)
        for number in set(numbers.tolist()) if check else ():
            self._check_labels(known, number)
        where = slice(wanted.start, wanted.stop) if isinstance(wanted, range) else wanted
        return known.labels[where].copy()

    def _check_labels(self, known: Index, number: int) -> None:
        if number in self._sound:
            return
        start, stop = self._starts[number], self._stops[number]
        segment = known.segments[number]
        assert segment is not None
        if _labels_sum(known.labels[start:stop], start) != segment.labels_sum:
            raise DamagedStoreError(
                f"{self._segments.path / _segment_name(start, stop)}: the labels of images "
                f"{start} to {stop - 1} are damaged"
            )
        self._sound.add(number)

    # -- what is known, and open -------------------------------------------------------------

    def _index(self) -> Index:
        known = self._known
        if len(known.segments) != len(self._stops):
            known = self._known = known.fitted(self._stops)
        return known

    def _know(self, wanted: Wanted) -> tuple[Index, NDArray[np.int64]]:
        """Open what is wanted and not yet known.

        Returns the numbers of its segments: of a range each once, of indices that of each.
        """
        known = self._index()
        if isinstance(wanted, range):
            last = bisect_right(self._stops, wanted.stop - 1) if wanted else -1
            numbers = np.arange(bisect_right(self._stops, wanted.start), last + 1)
        else:
            numbers = np.searchsorted(known.stops, wanted, side="right")
        unknown = numbers[~known.is_known[numbers]]
        for number in sorted(set(unknown.tolist())):
            self._learn(known, number)
        return known, numbers

    def _learn(self, known: Index, number: int) -> Known:
        """Check a segment, and add what it holds beside its images to the index."""
        images = self._stops[number] - self._starts[number]
        if self._chunk_images is not None:
            columns = self._chunks(number).columns
            segment = Segment((0, 0), 0, columns)
        else:
            file = self._open(number)
            segment = self._checked(
                lambda: _hdf5_segment.read(file, images, self._layout, strict=self.verify)
            )
            _keep(self._files, number, file, self._open_files)
        return known.add(number, segment)

    def _open(self, number: int) -> File:
        return self._segments.open(_segment_name(self._starts[number], self._stops[number]))

    def _checked(self, call: Callable[[], _T]) -> _T:
        """Call what opens a file with HDF5, which has many ways to say that it is damaged."""
        try:
            return call()
        except _DATA_ERRORS as error:
            if isinstance(error, StorageError) or not is_ours(error):
                raise
            raise read_error(f"a segment in {self._segments.path} cannot be read", error) from error

    def _file(self, known: Index, number: int) -> File:
        """The open file of a known segment, the same as when that was checked."""
        file = self._files.get(number)
        if file is None:
            file = self._open(number)
            segment = known.segments[number]
            status = os.fstat(file.fd)
            if segment is None or segment.identity != (status.st_dev, status.st_ino):
                raise DamagedStoreError(f"{file.path} was replaced while the store is open")
            _keep(self._files, number, file, self._open_files)
        return file

    def _opened(self, known: Index, numbers: NDArray[np.int64]) -> list[File]:
        """The open files of known segments, each time it is named."""
        wanted = numbers.tolist()
        files = list(map(self._files.get, wanted))
        if None in files:
            return [self._file(known, number) for number in wanted]
        return files  # type: ignore[return-value]

    def _chunks(self, number: int) -> ChunkedImages:
        """The chunked images of a segment, open and checked."""
        images = self._chunked.get(number)
        if images is None:
            count = self._stops[number] - self._starts[number]
            images = self._checked(
                lambda: ChunkedImages(
                    self._open(number), count, self._layout, compressed=self._gzip_level is not None
                )
            )
            _keep(self._chunked, number, images, _OPEN_CHUNKED)
        return images


def _keep(kept: dict[int, _T], number: int, value: _T, limit: int) -> None:
    """Keep an open file, and let go of those that have been kept longest; no lock guards them."""
    kept[number] = value
    if len(kept) > limit:
        # They are closed when no thread uses them any more.
        for old in list(kept)[: -(-limit // 8)]:
            kept.pop(old, None)


def _files_at_once() -> int:
    """How many files a store keeps open: a quarter of what the system lets this process open."""
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return 128
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 4096 if soft == resource.RLIM_INFINITY else min(max(soft // 4, 32), 4096)


def _runs(
    wanted: Wanted, numbers: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Consecutive images of one segment each.

    Returns (4, r) int64: number of the segment, first image, images, place of the first in
    `wanted`.
    """
    if isinstance(wanted, range):
        ends = np.minimum(stops[numbers], wanted.stop)
        firsts = np.concatenate([[wanted.start], ends[:-1]])
        return np.stack([numbers, firsts, ends - firsts, firsts - wanted.start])
    breaks = (np.diff(wanted) != 1) | (np.diff(numbers) != 0)
    places = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    return np.stack([numbers[places], wanted[places], np.diff(places, append=len(wanted)), places])


def _read_rest(file: File, view: memoryview, position: int) -> None:
    """Read what the system left out: it takes 2 GiB at most, and less at the end of a file."""
    while len(view):
        done = preadv(file.fd, (view,), position)
        if not done:
            raise DamagedStoreError(f"{file.path} is cut off: it ends at byte {position:,}")
        view = view[done:]
        position += done


def _labels_sum(labels: NDArray[np.int64], first: int) -> int:
    """The checksum of a segment's labels, the first of which has the index `first`."""
    return (digest(np.ascontiguousarray(labels).data) + first) % 2**64


def _segment_name(start: int, stop: int) -> str:
    return f"{start:08d}-{stop:08d}{_SUFFIX}"


def _parse(directory: Directory) -> Iterator[tuple[int, int, str]]:
    """Start, stop and name of each segment."""
    for name in directory.names():
        start, _, stop = name.removesuffix(_SUFFIX).partition("-")
        if start.isdecimal() and stop.isdecimal():
            numbers = int(start), int(stop)
            if name == _segment_name(*numbers):
                yield *numbers, name


# h5py has one lock around all of HDF5, and since 3.14 holds it across a fork by itself. Before, a
# child that was forked while another thread had it would wait for that thread for ever.
if h5py.version.version_tuple < (3, 14) and hasattr(os, "register_at_fork"):
    _lock = h5py._objects.phil
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )
