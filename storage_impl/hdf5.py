"""Images in HDF5 files, with h5py.

On-disk format, version 1::

    store.json
    write.lock
    commit                            the commit record, see `storage_impl._commit`
    segments/00000000-00010000.h5     the images 0 to 9,999
    segments/00010000-00010001.h5     ...

A segment is an HDF5 file of superblock version 3, which every HDF5 since 1.10 reads, and
whose metadata carry checksums of their own. It holds three datasets::

    images     (n, H, W, C) u8   contiguous, or chunked where an option asks for it
    labels     (n,) i64          contiguous
    checksums  (n + 1,) u64      contiguous: of each image, then XXH3-64 of the labels plus
                                 the index of the first, modulo 2**64

all little-endian. It is written aside, synced, renamed and never opened for writing again: HDF5
has no journal, and a file that is cut off while it is open for writing may lose
what it held before. A call writes one segment, or several when it brings more than
1 GiB or 131,072 images at once. Segments at and beyond the committed count are what an
interrupted call left: ignored, and removed by the next writer.

Many small writes are not what HDF5 is made for: each call makes a file. LMDB is.

What is checked when: opening checks that the segments are there, without a gap, and long
enough for their images. The inside of a segment is checked when it is first read.
"""

import os
import re
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from storage_impl import _inputs
from storage_impl._commit import INITIAL, CommitRecord
from storage_impl._files import (
    MAX_RATIO,
    check_directory,
    check_regular,
    open_regular,
    sync,
    sync_directory,
    sync_file,
    write_all,
    write_new,
)
from storage_impl._hdf5_segment import Segment, labels_sum
from storage_impl._marker import Marker, Options
from storage_impl._source import Source, Staged
from storage_impl.base import ImageStore, Sums
from storage_impl.errors import (
    DamagedImageError,
    DamagedStoreError,
    InvalidInputError,
    StorageError,
    read_error,
)

_COMMIT = "commit"
_SEGMENTS = "segments"
_NAME = re.compile(r"(\d{8,12})-(\d{8,12})\.h5")
_ASIDE = ".tmp"

_SEGMENT_BYTES = 1 << 30
_SEGMENT_IMAGES = 1 << 17
_OPEN_SEGMENTS = 32
_DATA_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)  # of h5py, for a bad file


class Hdf5Store(ImageStore):  # numpydoc ignore=PR02
    """A store of immutable HDF5 files.

    Other Parameters
    ----------------
    chunk_images : int or None, optional
        Images in a chunk. None, the default, lays the images out contiguously.
    gzip_level : int or None, optional
        1 to 9, compresses each chunk; needs `chunk_images`. None, the default, does not.

    Notes
    -----
    Each call that writes makes a file, which costs milliseconds whatever it holds: give
    `write_many` as many images as there are.

    Microseconds an image to write, to read all in order and to read one at random, and bytes
    stored over bytes of pixels, for 5,000 images of 32 pixels a side in memory: contiguous 1.5,
    0.6, 18 and 1.01; ``chunk_images=16`` 2.7, 1.2, 19 and 1.01; ``chunk_images=64`` 2.2, 1.1, 32
    and 1.02; ``chunk_images=16, gzip_level=6`` 78, 23, 299 and 0.95. HDF5 keeps chunks that it has
    read, as long as they fit its cache, and the next image of one costs less. Measured by
    `Hdf5Layout` of benchmarks/tuning_hdf5.py, on a store that was just opened; the intervals,
    machine and versions are in docs/findings.md.
    """

    backend = "hdf5"
    _defaults: ClassVar[Options] = {"chunk_images": None, "gzip_level": None}
    _errors = (OSError, RuntimeError)

    _commit: int
    _record: CommitRecord

    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> Options:
        checked = super()._check_options(options)
        if checked["gzip_level"] is not None and checked["chunk_images"] is None:
            raise InvalidInputError("gzip_level needs chunk_images: HDF5 compresses chunk by chunk")
        return checked

    @classmethod
    def _check_option(cls, name: str, value: object) -> int | None:
        if value is None:
            return None
        high = 9 if name == "gzip_level" else _SEGMENT_IMAGES
        return _inputs.whole_number(name, value, 1, high)

    @classmethod
    def _make(cls, directory: Path, marker: Marker) -> None:
        (directory / _SEGMENTS).mkdir()
        write_new(directory / _COMMIT, INITIAL, durable=marker.durable)

    def _open(self) -> int:
        self._directory = self.path / _SEGMENTS
        check_directory(self._directory)
        self._open_segments: OrderedDict[int, Segment] = OrderedDict()
        self._segments_lock = threading.RLock()  # a signal's handler may close the store
        flags = os.O_RDONLY if self._lock is None else os.O_RDWR
        commit = open_regular(self.path / _COMMIT, flags)
        try:
            self._record = CommitRecord(commit, self.path / _COMMIT)
            self._starts, self._stops = self._list(self._record.count)
        except BaseException:
            os.close(commit)
            raise
        self._commit = commit
        self._unsynced = len(self._starts)
        return self._record.count

    def _close(self) -> None:
        os.close(self._commit)
        with self._segments_lock:
            self._open_segments.clear()  # which closes the files

    def _forget(self) -> None:
        # Descriptors and HDF5's ids are the child's own copies; another thread of the parent may
        # have held the lock.
        os.close(self._commit)
        self._open_segments.clear()

    def _list(self, count: int) -> tuple[list[int], list[int]]:
        """Where the committed segments start and stop."""
        starts, stops = [], []
        expected = 0
        for start, stop, name in sorted(_parse(self._directory)):
            if start >= count:
                break
            if start != expected or not start < stop <= count:
                raise DamagedStoreError(
                    f"{self._directory}: {name} does not follow image {expected - 1}"
                )
            size = check_regular(self._directory / name).st_size
            if (stop - start) * self._image_bytes > size * self._shrinks():
                raise DamagedStoreError(f"{self._directory / name} is cut off: {size:,} bytes")
            starts.append(start)
            stops.append(stop)
            expected = stop
        if expected != count:
            raise DamagedStoreError(
                f"{self._directory}: the segment that starts with image {expected} is missing"
            )
        return starts, stops

    def _shrinks(self) -> int:
        return 1 if self._options["gzip_level"] is None else MAX_RATIO

    # -- writing -----------------------------------------------------------------------------

    def _append(self, source: Source) -> None:
        starts, stops = [], []
        limit = max(min(_SEGMENT_BYTES // self._image_bytes, _SEGMENT_IMAGES), 1)
        for part in source.parts(limit):
            stop = part.first + len(part.images)
            self._write_segment(self._segment_path(part.first, stop), part)
            starts.append(part.first)
            stops.append(stop)
        if not starts:
            return
        if self.durable:
            sync_directory(self._directory)
        self._record.commit(stops[-1], durable=self.durable)
        self._starts += starts
        self._stops += stops

    def _write_segment(self, path: Path, part: Staged) -> None:
        chunk, level = self._options["chunk_images"], self._options["gzip_level"]
        chunks = None if chunk is None else (min(chunk, len(part.images)), *self.image_shape)
        sums = np.append(part.sums, labels_sum(part.labels, part.first))
        aside = path.with_name(path.name + _ASIDE)
        descriptor = open_regular(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "w+b", buffering=0) as raw:
            patient = _PatientFile(raw)
            with h5py.File(patient, "w", libver=("v110", "v110")) as file:
                file.create_dataset(
                    "images",
                    data=part.images,
                    chunks=chunks,
                    compression="gzip" if level else None,
                    compression_opts=level,
                )
                file.create_dataset("labels", data=part.labels, dtype="<i8")
                file.create_dataset("checksums", data=sums, dtype="<u8")
            if patient.error is not None:
                raise patient.error
            if self.durable:
                sync(raw.fileno())
        os.replace(aside, path)

    def _discard(self, count: int) -> None:
        self._record.restore(count, durable=self.durable)
        kept = bisect_left(self._starts, count)
        del self._starts[kept:], self._stops[kept:]
        with self._segments_lock:
            self._open_segments.clear()
        for start, _, name in _parse(self._directory):
            if start >= count:
                os.unlink(self._directory / name)
        for aside in self._directory.glob(f"*{_ASIDE}"):
            os.unlink(aside)

    def _sync(self) -> None:
        for start, stop in zip(
            self._starts[self._unsynced :], self._stops[self._unsynced :], strict=True
        ):
            sync_file(self._segment_path(start, stop))
        sync_directory(self._directory)
        sync(self._commit)

    def _segment_path(self, start: int, stop: int) -> Path:
        return self._directory / f"{start:08d}-{stop:08d}.h5"

    # -- reading -----------------------------------------------------------------------------

    def _read_one(self, index: int) -> tuple[NDArray[np.uint8], int, int]:
        segment = self._segment(index)
        inside = index - segment.start
        return segment.image(inside), int(segment.labels[inside]), int(segment.sums[inside])

    def _read_range(
        self,
        start: int,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        for segment, inside, here in self._pieces(start, len(images)):
            try:
                segment.read_images(inside, images[here])
            except self._errors as error:
                raise self._locate(start + here.start, images[here], error) from error
            labels[here] = segment.labels[inside]
            if sums is not None:
                sums[here] = segment.sums[inside]

    def _locate(self, start: int, images: NDArray[np.uint8], error: Exception) -> StorageError:
        """Which of consecutive images HDF5 could not read, by reading them one by one."""
        failure = read_error(f"{self.path} cannot be read", error)
        if not isinstance(failure, DamagedStoreError):
            return failure
        damaged = []
        for index in range(start, start + len(images)):
            segment = self._segment(index)
            try:
                segment.image(index - segment.start)
            except self._errors:
                damaged.append(index)
        return DamagedImageError(str(failure), damaged) if damaged else failure

    def _read_indices(
        self,
        indices: NDArray[np.int64],
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        # One selection of many images costs HDF5 more than many of one, but for runs.
        ends = np.flatnonzero(np.diff(indices, append=-2) != 1) + 1
        position = 0
        for stop in ends.tolist():
            index = int(indices[position])
            if stop - position == 1:
                segment = self._segment(index)
                inside = index - segment.start
                images[position] = segment.image(inside)
                labels[position] = segment.labels[inside]
                if sums is not None:
                    sums[position] = segment.sums[inside]
            else:
                run = slice(position, stop)
                self._read_range(
                    index, images[run], labels[run], None if sums is None else sums[run]
                )
            position = stop

    def _read_labels(
        self, wanted: range | NDArray[np.int64], labels: NDArray[np.int64], *, check: bool
    ) -> None:
        if isinstance(wanted, range):
            for segment, inside, here in self._pieces(wanted.start, len(wanted)):
                labels[here] = segment.checked_labels(check)[inside]
            return
        owners = np.searchsorted(self._stops, wanted, side="right")
        for number in sorted(set(owners.tolist())):
            start = self._starts[number]
            here = owners == number
            labels[here] = self._segment(start).checked_labels(check)[wanted[here] - start]

    def _pieces(self, start: int, count: int) -> Iterator[tuple[Segment, slice, slice]]:
        """The segments of consecutive images: which of the segment go where in the result."""
        position = 0
        while position < count:
            segment = self._segment(start + position)
            inside = start + position - segment.start
            length = min(segment.stop - segment.start - inside, count - position)
            yield segment, slice(inside, inside + length), slice(position, position + length)
            position += length

    def _segment(self, index: int) -> Segment:
        number = bisect_right(self._stops, index)
        with self._segments_lock:
            segment = self._open_segments.get(number)
            if segment is None:
                start, stop = self._starts[number], self._stops[number]
                path = self._segment_path(start, stop)
                try:
                    segment = Segment(path, start, stop, self.image_shape, self._shrinks())
                except _DATA_ERRORS as error:
                    if isinstance(error, StorageError):
                        raise
                    raise read_error(f"{path} cannot be read", error) from error
                if self.closed:  # by another thread, since this one began to read
                    return segment
                self._open_segments[number] = segment
                if len(self._open_segments) > _OPEN_SEGMENTS:
                    # Not closed, but let go: another thread may be reading it.
                    self._open_segments.popitem(last=False)
            else:
                self._open_segments.move_to_end(number)
        return segment


class _PatientFile:
    """A file that tells HDF5 of no failed write, and keeps the error for afterwards.

    HDF5 closes what it cannot write, and on the way there ends the process with a signal:
    with its own driver on any full disk, with a Python file when a chunk cannot be written.
    """

    def __init__(self, raw: FileIO) -> None:
        self._raw = raw
        self.error: OSError | None = None
        self.read, self.readinto = raw.read, raw.readinto
        self.seek, self.tell = raw.seek, raw.tell

    def write(self, data: memoryview) -> int:
        self._attempt(write_all, self._raw.fileno(), data)
        return len(data)

    def truncate(self, size: int) -> int:
        self._attempt(self._raw.truncate, size)
        return size

    def flush(self) -> None:
        """Do nothing: the file has no buffer."""

    def _attempt(self, call: Callable[..., object], *arguments: object) -> None:
        if self.error is None:
            try:
                call(*arguments)
            except OSError as error:
                self.error = error


def _parse(directory: Path) -> Iterator[tuple[int, int, str]]:
    """Start, stop and name of each segment."""
    for name in os.listdir(directory):
        if match := _NAME.fullmatch(name):
            yield int(match[1]), int(match[2]), name


# h5py has one lock around all of HDF5, and since 3.14 holds it across a fork by itself. Before, a
# child that was forked while another thread had it would wait for that thread for ever.
if h5py.version.version_tuple < (3, 14) and hasattr(os, "register_at_fork"):
    _lock = h5py._objects.phil
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )
