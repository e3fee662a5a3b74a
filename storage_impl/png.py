"""Images as PNG files.

On-disk format, version 1::

    store.json
    write.lock
    images/0000/00000000.png   one file per image, named by its index, 10,000 per directory
    images/0000/00000001.png
    ...
    labels.log                 the commit record (64 bytes, see `storage_impl._commit`),
                               then 24 bytes per image, little-endian:
                               label i64 | checksum of the image u64 | check of this record u64

The check of a record is XXH3-64 of its first 16 bytes, plus the index, modulo 2**64. An interrupted
call leaves files and records at or beyond the committed count. Readers ignore them, and the next
writer removes them.

The files that `write_many` makes have only the chunks IHDR, IDAT and IEND, with 8 bits per channel,
not interlaced: greyscale, RGB or RGBA for 1, 3 or 4 channels. Any PNG reader reads them. Files that
`write_encoded` was given are stored unchanged.
"""

import math
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import PIL.PngImagePlugin  # noqa: F401 - now, instead of with the first image
from numpy.typing import NDArray

from storage_impl import codecs
from storage_impl._checksum import digests
from storage_impl._commit import INITIAL, SIZE, CommitRecord
from storage_impl._files import Directory, pread, pwrite, sync
from storage_impl._marker import Marker, OptionValue
from storage_impl._records import Places, Records, Shape, same_shape, shapes_of
from storage_impl.backend import Backend, Wanted
from storage_impl.errors import (
    DamagedImageError,
    DamagedStoreError,
    InvalidInputError,
    is_ours,
    read_error,
)

_LOG = "labels.log"
_IMAGES = "images"
_PER_DIRECTORY = 10_000
_RECORD = np.dtype([("label", "<i8"), ("checksum", "<u8"), ("check", "<u8")])
_CHECKED_BYTES = 16  # of a record: all except its check
_RECORDS_AT_ONCE = 4096
_THREADS = 8  # that sync files, each one this many at a time:
_SYNCS = 64
_OPEN_DIRECTORIES = 64


class PngBackend(Backend):
    """PNG files in numbered directories, and a log of their labels.

    Notes
    -----
    Each image is a file that has to be created and, with ``durable=True``, synced. Each image that
    is read has to be decoded, and reading many at once saves nothing.

    This table has the milliseconds to encode and to decode an image, and the bytes of the file over
    the bytes of its pixels ("size"), by ``compress_level``. The images have 32 x 32 or 256 x 256
    pixels:

    =====  =========  =========  =======  ==========  ==========  ========
    level  encode 32  decode 32  size 32  encode 256  decode 256  size 256
    =====  =========  =========  =======  ==========  ==========  ========
    0      0.09       0.04       1.03     3.6         1.2         1.00
    1      0.14       0.08       0.75     6.4         2.7         0.54
    6      0.15       0.07       0.73     23          2.4         0.49
    9      0.15       0.09       0.73     41          2.4         0.49
    =====  =========  =========  =======  ==========  ==========  ========

    Level 6, the default, is for images that are written once and read often. `PngCodec` and
    `PngLevel` of benchmarks/tuning_png.py measure the figures. docs/findings.md has the machine and
    the versions.
    """

    name = "png"
    distribution = "Pillow"
    made = frozenset({_IMAGES, _LOG})
    encodings = ("png",)

    def __init__(
        self, directory: Directory, marker: Marker, *, writable: bool, verify: bool
    ) -> None:
        super().__init__(directory, marker, writable=writable, verify=verify)
        shape = marker.image_shape
        self._file_limit = codecs.file_limit(
            codecs.MAX_BYTES if shape is None else math.prod(shape)
        )
        self._images = directory.subdirectory(_IMAGES)
        self._directories: dict[int, Directory] = {}
        self._log = directory.open(_LOG, os.O_RDWR if writable else os.O_RDONLY)
        self._record = CommitRecord(self._log)
        self.count = self._unsynced = self._record.count
        if self._log.size() < SIZE + self.count * _RECORD.itemsize:
            raise DamagedStoreError(f"{self._log.path} ends before its {self.count:,} images")
        self._check_proportion()

    def _check_proportion(self) -> None:
        """Refuse a shape that is too large for the first file, before memory is allocated."""
        if self.count and self.marker.image_shape is not None:
            pixels = math.prod(self.marker.image_shape)
            with suppress(FileNotFoundError):  # reading and verify report that
                size = self._directory(0).status(_file_name(0)).st_size
                if size * codecs.MAX_RATIO < pixels:
                    path = self._directory(0).path / _file_name(0)
                    raise DamagedStoreError(f"{path} is too short for {self.marker.image_shape}")

    @classmethod
    def check_option(cls, name: str, value: object) -> OptionValue:
        """Refuse all options. The encoding has options, the backend has none."""
        raise InvalidInputError(f"the png backend has no option {name!r}")

    @classmethod
    def make(cls, directory: Directory, marker: Marker) -> None:
        """Create an empty directory of images and an empty log."""
        directory.make(_IMAGES)
        directory.write(_LOG, INITIAL, durable=False)

    # -- writing -----------------------------------------------------------------------------

    def append(self, batches: Iterable[Records]) -> None:
        """Write the files, their records in the log, and the commit record."""
        start = self.count
        for batch in batches:
            for index, data in enumerate(batch.data, start):
                if index % _PER_DIRECTORY == 0:
                    with suppress(FileExistsError):
                        self._images.make(_directory_name(index))
                self._directory(index).write(_file_name(index), data, durable=False)
            stop = start + batch.count
            records = np.empty(batch.count, _RECORD)
            records["label"] = batch.labels
            records["checksum"] = batch.checksums
            records["check"] = _checks(range(start, stop), records)
            pwrite(self._log.fd, records.tobytes(), SIZE + start * _RECORD.itemsize)
            start = stop
        if start == self.count:
            return
        if self.marker.durable:
            self._sync_range(self.count, start)
        self._record.commit(start, durable=self.marker.durable)
        self.count = start

    def discard(self, count: int) -> None:
        """Remove files and records from `count` on."""
        self._record.restore(count, durable=self.marker.durable)
        self.count = count
        for name in self._images.names():
            if not name.isdecimal() or int(name) < count // _PER_DIRECTORY:
                continue
            directory = self._images.subdirectory(name)
            for file in directory.names():
                stem = file.removesuffix(".png")
                if stem.isdecimal() and int(stem) >= count:
                    directory.remove(file)
            if int(name) * _PER_DIRECTORY >= count:
                self._directories.pop(int(name), None)
                self._images.remove_directory(name)
        length = SIZE + count * _RECORD.itemsize
        if self._log.size() > length:
            os.ftruncate(self._log.fd, length)

    def sync(self) -> None:
        """Sync all files written since the store was opened."""
        self._sync_range(self._unsynced, self.count)

    def _sync_range(self, start: int, stop: int) -> None:
        """Sync the files of images, then the directories and the log that lead to them."""
        parts = [range(i, min(i + _SYNCS, stop)) for i in range(start, stop, _SYNCS)]
        if len(parts) > 1:
            # Threads take a third of the time per image, because the file system's journal syncs
            # many files at once. While the interpreter shuts down, no thread can be started, and
            # the files are synced one after another.
            with ThreadPoolExecutor(_THREADS) as pool:
                synced: list[Future[None]] = []
                with suppress(RuntimeError):
                    synced += (pool.submit(self._sync_files, part) for part in parts)
                for future in synced:
                    future.result()
                parts = parts[len(synced) :]
        for part in parts:
            self._sync_files(part)
        for number in range(start // _PER_DIRECTORY, -(-stop // _PER_DIRECTORY)):
            self._directory(number * _PER_DIRECTORY).sync()
        self._images.sync()
        sync(self._log.fd)

    def _sync_files(self, indices: range) -> None:
        for index in indices:
            self._directory(index).sync_name(_file_name(index))

    # -- reading -----------------------------------------------------------------------------

    def read_one(self, index: int) -> tuple[bytes, Shape, int, int]:
        """Read a file and its record."""
        ((label, checksum, _),) = self._record_range(index, index + 1).tolist()
        data = self._read(index)
        return data, self._shape(index, data), label, checksum

    def fill(self, wanted: Wanted, records: Records, places: Places) -> None:
        """Never called, because no image here is raw."""
        raise NotImplementedError

    def fetch(self, wanted: Wanted) -> Records:
        """Read files and their records."""
        found = self._records(wanted)
        indices: Iterable[int] = wanted if isinstance(wanted, range) else wanted.tolist()
        data = [self._read(index) for index in indices]
        if self.marker.image_shape is not None:
            shapes = same_shape(len(data), self.marker.image_shape)
        else:
            shapes = shapes_of([self._shape(*pair) for pair in zip(indices, data, strict=True)])
        return Records(data, shapes, found["label"], found["checksum"])

    def read_labels(self, wanted: Wanted, *, check: bool) -> NDArray[np.int64]:
        """Read labels from the log."""
        labels = np.empty(len(wanted), np.int64)
        for start in range(0, len(wanted), _RECORDS_AT_ONCE):
            part = wanted[start : start + _RECORDS_AT_ONCE]
            records = self._records(part)
            if check:
                wrong = _checks(part, records) != records["check"]
                if wrong.any():
                    damaged = np.asarray(part)[wrong].tolist()
                    raise DamagedImageError(f"label damaged in {self._log.path}", damaged)
            labels[start : start + len(part)] = records["label"]
        return labels

    def _records(self, wanted: Wanted) -> NDArray[np.void]:
        if isinstance(wanted, range):
            return self._record_range(wanted.start, wanted.stop)
        low, high = int(wanted.min()), int(wanted.max())
        # One read of everything between them is faster than many reads, unless they lie far apart.
        if high - low < 64 * len(wanted):
            return self._record_range(low, high + 1)[wanted - low]
        return np.concatenate([self._record_range(i, i + 1) for i in wanted.tolist()])

    def _record_range(self, start: int, stop: int) -> NDArray[np.void]:
        size = (stop - start) * _RECORD.itemsize
        data = pread(self._log.fd, size, SIZE + start * _RECORD.itemsize)
        if len(data) < size:
            raise DamagedStoreError(f"{self._log.path} ends before image {stop - 1}")
        return np.frombuffer(data, _RECORD)

    def _read(self, index: int) -> bytes:
        try:
            return self._directory(index).read(_file_name(index), self._file_limit)
        except OSError as error:
            if not is_ours(error):
                raise
            raise read_error(f"{self.directory.path}: {_file_name(index)}", error, index) from error

    def _shape(self, index: int, data: bytes) -> Shape:
        if self.marker.image_shape is not None:
            return self.marker.image_shape
        try:
            return codecs.header_of(data, "png").shape
        except InvalidInputError as error:
            raise DamagedImageError(f"{self.directory.path}: {error}", [index]) from error

    def _directory(self, index: int) -> Directory:
        number = index // _PER_DIRECTORY
        directory = self._directories.get(number)
        if directory is None:
            directory = self._images.subdirectory(_directory_name(index))
            if len(self._directories) >= _OPEN_DIRECTORIES:
                with suppress(KeyError, RuntimeError):  # another thread removed it
                    del self._directories[next(iter(self._directories))]
            self._directories[number] = directory
        return directory


def _directory_name(index: int) -> str:
    return f"{index // _PER_DIRECTORY:04d}"


def _file_name(index: int) -> str:
    return f"{index:08d}.png"


def _checks(indices: Wanted, records: NDArray[np.void]) -> NDArray[np.uint64]:
    """The check of each record, (n,) uint64."""
    rows = records.view(np.uint8).reshape(len(records), _RECORD.itemsize)
    return digests(rows[:, :_CHECKED_BYTES]) + np.asarray(indices, np.uint64)
