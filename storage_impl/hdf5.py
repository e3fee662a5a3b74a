"""Images in HDF5 files, with h5py.

On-disk format, version 1::

    store.json
    write.lock
    commit                            the commit record, see `storage_impl._commit`
    segments/00000000-00010000.h5     the images 0 to 9,999
    segments/00010000-00010001.h5     ...

A segment is an HDF5 file that is never opened for writing again. If all n images are raw and of one
shape, a segment has a header of superblock version 0, which every HDF5 reads, and then these
datasets, in this order::

    labels     (n,) i64
    checksums  (n + 1,) u64      of each image, then XXH3-64 of the labels plus the index of the
                                 first image, modulo 2**64
    images     (n, H, W, C) u8

For encoded images, and for raw images of different shapes, it has these datasets instead of
`images`::

    offsets    (n + 1,) u64      where each image begins in `data`, then the length of `data`
    shapes     (n, 3) u32        height, width, channels
    data       (offsets[n],) u8  the stored bytes of the images, one after another

All datasets are little-endian and contiguous. If `images` or `data` have 64 KiB or more, they begin
at a multiple of 4,096. With `chunk_images`, only the images are chunked. The file then has
superblock version 3, which every HDF5 since 1.10 reads, and its metadata have checksums.

A call writes one segment. It writes several if it brings more than 1 GiB (chunked: 64 MiB) or
131,072 images at once, or an iterable of more than 32 MiB. An interrupted call leaves segments at
or beyond the committed count. Readers ignore them, and the next writer removes them.

HDF5 is not suited to many small writes, because each call creates a file. Use LMDB for these.

Opening checks that no segment is missing and that each is long enough for its images. The inside of
a segment is checked when it is first read. With `verify=True`, contiguous segments must have
exactly the header that this package writes.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from storage_impl import _hdf5_chunks, _inputs
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
from storage_impl._hdf5_files import SegmentFiles, segment_name
from storage_impl._hdf5_index import Index
from storage_impl._marker import Marker, Options, OptionValue
from storage_impl._records import Places, Records, Shape, part_of, split
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

_SEGMENT_BYTES = 1 << 30
_CHUNKED_BYTES = 64 << 20  # held in memory twice during a write
_SEGMENT_IMAGES = 1 << 17
_WRITTEN_BYTES = 8 << 20  # per system call, so that the disk can start early
_JOINED_BYTES = 1 << 16  # of images: a segment of up to this is written by one call
_AT_ONCE = 1 << 13  # images read in one pass over arrays


class Hdf5Backend(Backend):
    """Immutable HDF5 files.

    Other Parameters
    ----------------
    chunk_images : int or None, optional
        Images per chunk. None, the default, stores the images contiguously. Only for raw images of
        one shape.
    gzip_level : int or None, optional
        The compression level of each chunk, 1 to 9. It needs `chunk_images`. None, the default,
        does not compress.

    Notes
    -----
    Each writing call creates a file, which takes milliseconds for any number of images. Pass as
    many images as possible to each `write_many`.

    Contiguous images are read directly from their place in the file, because calls of HDF5 take
    several times as long as the read. Chunked images are read by HDF5, which runs one thread at a
    time.
    """

    name = "hdf5"
    distribution = "h5py"
    made = frozenset({_SEGMENTS, _COMMIT})
    defaults: ClassVar[Options] = {"chunk_images": None, "gzip_level": None}
    errors = (OSError, RuntimeError)

    def __init__(
        self, directory: Directory, marker: Marker, *, writable: bool, verify: bool
    ) -> None:
        super().__init__(directory, marker, writable=writable, verify=verify)
        self._chunk_images = marker.options["chunk_images"]
        self._gzip_level = marker.options["gzip_level"]
        self._row_bytes = marker.row_bytes
        self._commit = directory.open(_COMMIT, os.O_RDWR if writable else os.O_RDONLY)
        self._record = CommitRecord(self._commit)
        self.count = self._record.count
        self._segments = SegmentFiles(
            directory.subdirectory(_SEGMENTS), marker, self.count, strict=verify
        )
        self._layout = self._segments.layout
        self._unsynced = len(self._segments.starts)
        self._sound: set[int] = set()  # segments whose labels have been checked

    @classmethod
    def check_option(cls, name: str, value: object) -> OptionValue:
        """An integer within its limits, or None."""
        if value is None:
            return None
        return _inputs.whole_number(name, value, 1, 9 if name == "gzip_level" else _SEGMENT_IMAGES)

    @classmethod
    def check_marker(cls, marker: Marker) -> None:
        """Refuse gzip without chunks, and chunks of images that are encoded or differ in shape."""
        chunked = marker.options["chunk_images"] is not None
        if marker.options["gzip_level"] is not None and not chunked:
            raise InvalidInputError("gzip_level needs chunk_images: HDF5 compresses chunk by chunk")
        if chunked and marker.row_bytes is None:
            raise InvalidInputError(
                "chunk_images needs raw images of one shape; leave it out, or use encoding='raw' "
                "and an image_shape"
            )

    @classmethod
    def make(cls, directory: Directory, marker: Marker) -> None:
        """Create an empty directory of segments and the commit record."""
        directory.make(_SEGMENTS)
        directory.write(_COMMIT, INITIAL, durable=False)

    def after_fork(self) -> None:
        """Drop what HDF5 has open."""
        self._segments.after_fork()

    # -- writing -----------------------------------------------------------------------------

    def append(self, batches: Iterable[Records]) -> None:
        """Write a segment for each batch, then the commit record."""
        starts, stops = [], []
        start = self.count
        limit = _SEGMENT_BYTES if self._chunk_images is None else _CHUNKED_BYTES
        directory, durable = self._segments.directory, self.marker.durable
        for records in split(batches, limit, _SEGMENT_IMAGES):
            stop = start + records.count
            with directory.new(segment_name(start, stop)) as fd:
                self._write(fd, start, records)
                if durable:
                    sync_together(fd, directory)
            starts.append(start)
            stops.append(stop)
            start = stop
        if not starts:
            return
        self._record.commit(start, durable=durable)
        self._segments.extend(starts, stops)
        self.count = start

    def _write(self, fd: int, start: int, records: Records) -> None:
        sums = np.append(records.checksums, np.uint64(_labels_sum(records.labels, start)))
        columns: list[NDArray[Any]] = [records.labels, sums]
        if isinstance(records.data, np.ndarray):
            pixels = memoryview(records.data.data).cast("B")
            if self._chunk_images is not None:
                columns.append(records.data)
                data = _hdf5_chunks.file_of(
                    self._layout, columns, self._chunk_images, self._gzip_level
                )
                write_all(fd, data)
                return
            size = len(pixels)
            parts: Iterator[memoryview | bytes] = (
                pixels[i : i + _WRITTEN_BYTES] for i in range(0, size, _WRITTEN_BYTES)
            )
        else:
            offsets = np.zeros(records.count + 1, np.uint64)
            np.cumsum([len(data) for data in records.data], out=offsets[1:])
            columns += [offsets, records.shapes]
            size = int(offsets[-1])
            parts = (b"".join(part.data) for part in split([records], _WRITTEN_BYTES))
        rows = self._layout.rows(records.count, size)
        front = b"".join(
            [self._layout.header(rows), *(column.tobytes() for column in columns)]
        ).ljust(self._layout.places(rows)[-1].offset, b"\0")
        if size <= _JOINED_BYTES:
            write_all(fd, b"".join([front, *parts]))
            return
        write_all(fd, front)
        offset = len(front)
        for part in parts:
            write_all(fd, part)
            if self.marker.durable:
                begin_writing(fd, offset, len(part))
            offset += len(part)

    def discard(self, count: int) -> None:
        """Remove the segments from `count` on."""
        self._record.restore(count, durable=self.marker.durable)
        self.count = count
        self._segments.cut(count)
        kept = len(self._segments.starts)
        self._unsynced = min(self._unsynced, kept)
        self._sound = {number for number in self._sound if number < kept}
        for start, _, name in self._segments.names():
            if start >= count:
                self._segments.directory.remove(name)

    def sync(self) -> None:
        """Sync the new segments, then the directory and the commit record that lead to them."""
        segments = self._segments
        for start, stop in zip(
            segments.starts[self._unsynced :], segments.stops[self._unsynced :], strict=True
        ):
            segments.directory.sync_name(segment_name(start, stop))
        segments.directory.sync()
        sync(self._commit.fd)

    # -- reading -----------------------------------------------------------------------------

    def read_one(self, index: int) -> tuple[NDArray[np.uint8] | bytes, Shape, int, int]:
        """Read an image from its place in the file or, if chunked, with HDF5."""
        segments = self._segments
        number = bisect_right(segments.stops, index)
        known = segments.index()
        segment = known.segments[number] or segments.learn(known, number)
        label, checksum = known.labels.item(index), known.checksums.item(index)
        if self._row_bytes is None:
            data = self._fetch(known, np.array([index]), np.array([number]))[0]
            return data, tuple(known.shapes[index].tolist()), label, checksum
        shape = self.marker.image_shape
        assert shape is not None
        if self._chunk_images is not None:
            image = self._segments.chunks(number).read_one(index - self._segments.starts[number])
            return image, shape, label, checksum
        file = segments.file(known, number)
        image = np.empty(shape, np.uint8)
        position = segment.base + index * self._row_bytes
        if preadv(file.fd, (image,), position) != self._row_bytes:  # type: ignore[arg-type]
            raise DamagedStoreError(f"{file.path} ends before image {index}")
        return image, shape, label, checksum

    def fill(self, wanted: Wanted, records: Records, places: Places) -> None:
        """Read neighbouring images with one call of the system, or of HDF5."""
        # A range needs no arrays that would have to be kept small.
        at_once = max(len(wanted), 1) if isinstance(wanted, range) else _AT_ONCE
        for start in range(0, len(wanted), at_once):
            part = slice(start, start + at_once)
            self._fill(wanted[part], *part_of(records, places, part))

    def _fill(self, wanted: Wanted, records: Records, places: Places) -> None:
        rows = records.data
        assert isinstance(rows, np.ndarray)
        known, numbers = self._segments.know(wanted)
        where = slice(wanted.start, wanted.stop) if isinstance(wanted, range) else wanted
        filled = slice(None) if places is None else places
        records.labels[filled] = known.labels[where]
        records.checksums[filled] = known.checksums[where]
        runs = _runs(wanted, numbers, known.stops, places)
        if self._chunk_images is not None:
            self._fill_from_chunks(runs, rows)
            return
        buffer = memoryview(rows.data).cast("B")
        step = self._segments.files_per_read(runs.shape[1])
        if step < runs.shape[1]:  # sorted by segment, each file is opened once
            runs = runs[:, np.argsort(runs[0], kind="stable")]
        for i in range(0, runs.shape[1], step):
            self._fill_runs(known, runs[:, i : i + step], buffer)

    def _fill_runs(self, known: Index, runs: NDArray[np.int64], buffer: memoryview) -> None:
        """Read each run of consecutive images into its place."""
        assert self._row_bytes is not None
        numbers, firsts, lengths, places = runs
        sizes = (lengths * self._row_bytes).tolist()
        positions = (known.bases[numbers] + firsts * self._row_bytes).tolist()
        begins = (places * self._row_bytes).tolist()
        files = self._segments.files(known, numbers)
        views = [buffer[i : i + size] for i, size in zip(begins, sizes, strict=True)]
        done = list(map(preadv, [file.fd for file in files], zip(views), positions))
        if done != sizes:
            for file, view, position, had in zip(files, views, positions, done, strict=True):
                _read_rest(file, view[had:], position + had)

    def _fill_from_chunks(self, runs: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        for number, first, length, place in runs.T.tolist():
            inside = first - self._segments.starts[number]
            images = self._segments.chunks(number)
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
        """Read images one by one, and return the error that names the damaged ones."""
        failure = read_error(f"{self._segments.directory.path} cannot be read", error)
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
        """Read the bytes of each image from its place in the file."""
        known, numbers = self._segments.know(wanted)
        indices = np.asarray(wanted, np.int64)
        if isinstance(wanted, range):
            numbers = np.searchsorted(known.stops, indices, side="right")
        data: list[bytes] = []
        step = self._segments.files_per_read(len(indices))
        for start in range(0, len(indices), step):
            part = slice(start, start + step)
            data += self._fetch(known, indices[part], numbers[part])
        return Records(data, known.shapes[indices], known.labels[indices], known.checksums[indices])

    def _fetch(
        self, known: Index, indices: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> list[bytes]:
        files = self._segments.files(known, numbers)
        sizes = known.sizes[indices].tolist()
        data = list(map(pread, [file.fd for file in files], sizes, known.begins[indices].tolist()))
        if list(map(len, data)) != sizes:
            index = next(i for i, n in enumerate(sizes) if len(data[i]) != n)
            raise DamagedStoreError(f"{files[index].path} ends before image {indices[index]}")
        return data

    def read_labels(self, wanted: Wanted, *, check: bool) -> NDArray[np.int64]:
        """Read labels. Those of a segment are checked only once."""
        known, numbers = self._segments.know(wanted)
        for number in set(numbers.tolist()) if check else ():
            self._check_labels(known, number)
        where = slice(wanted.start, wanted.stop) if isinstance(wanted, range) else wanted
        return known.labels[where].copy()

    def _check_labels(self, known: Index, number: int) -> None:
        if number in self._sound:
            return
        start, stop = self._segments.starts[number], self._segments.stops[number]
        segment = known.segments[number]
        assert segment is not None
        if _labels_sum(known.labels[start:stop], start) != segment.labels_sum:
            raise DamagedStoreError(
                f"{self._segments.directory.path}: the labels of images {start} to {stop - 1} "
                "are damaged"
            )
        self._sound.add(number)


def _runs(
    wanted: Wanted, numbers: NDArray[np.int64], stops: NDArray[np.int64], places: Places
) -> NDArray[np.int64]:
    """Find runs: consecutive images of one segment, for consecutive places.

    Returns (4, r) int64: the number of the segment, the first image, the number of images, and the
    place of the first image.
    """
    if isinstance(wanted, range):
        ends = np.minimum(stops[numbers], wanted.stop)
        firsts = np.concatenate([[wanted.start], ends[:-1]])
        return np.array([numbers, firsts, ends - firsts, firsts - wanted.start])
    # np.diff and np.concatenate take several times as long for the few images of one shard of many.
    is_edge = np.ones(len(wanted) + 1, np.bool_)
    breaks = is_edge[1:-1]
    np.not_equal(wanted[1:], wanted[:-1] + 1, out=breaks)
    breaks |= numbers[1:] != numbers[:-1]
    if places is not None:
        breaks |= places[1:] != places[:-1] + 1
    edges = is_edge.nonzero()[0]
    begins = edges[:-1]
    firsts = begins if places is None else places[begins]
    return np.array([numbers[begins], wanted[begins], edges[1:] - begins, firsts])


def _read_rest(file: File, view: memoryview, position: int) -> None:
    """Read the rest after a short read: one read returns at most 2 GiB, and less at the end."""
    while len(view):
        done = preadv(file.fd, (view,), position)
        if not done:
            raise DamagedStoreError(f"{file.path} is cut off: it ends at byte {position:,}")
        view = view[done:]
        position += done


def _labels_sum(labels: NDArray[np.int64], first: int) -> int:
    """The checksum of a segment's labels. `first` is the index of its first image."""
    return (digest(np.ascontiguousarray(labels).data) + first) % 2**64


# h5py has one lock around all of HDF5. Since 3.14 it holds the lock across a fork by itself.
# Before, a child that was forked while another thread held the lock would wait forever.
if h5py.version.version_tuple < (3, 14) and hasattr(os, "register_at_fork"):
    _lock = h5py._objects.phil
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )
