"""Images as PNG files, with Pillow.

On-disk format, version 1::

    store.json
    write.lock
    images/0000/00000000.png   one file an image, named by its index, 10,000 a directory
    images/0000/00000001.png
    ...
    labels.log                 the commit record (64 bytes, see `storage_impl._commit`),
                               then 24 bytes an image, little-endian:
                               label i64 | checksum of the image u64 | check of this record u64

The check of a record is XXH3-64 of its first 16 bytes, plus the index, modulo 2**64. Files and
records at and beyond the committed count are what an interrupted call left: they are
ignored, and removed by the next writer.

A file holds nothing but IHDR, IDAT and IEND, 8 bits a channel, not interlaced: greyscale,
RGB or RGBA for 1, 3 or 4 channels. Any PNG reader reads it.
"""

import os
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import ClassVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from storage_impl import _inputs
from storage_impl._checksum import digests
from storage_impl._commit import INITIAL, SIZE, CommitRecord
from storage_impl._files import (
    MAX_RATIO,
    check_directory,
    open_regular,
    pread,
    pwrite,
    read_regular,
    sync,
    sync_directory,
    sync_file,
    write_new,
)
from storage_impl._marker import Marker, Options
from storage_impl._source import Source
from storage_impl.base import ImageStore, Sums
from storage_impl.errors import DamagedImageError, DamagedStoreError, read_error

_LOG = "labels.log"
_IMAGES = "images"
_PER_DIRECTORY = 10_000
_RECORD = np.dtype([("label", "<i8"), ("checksum", "<u8"), ("check", "<u8")])
_CHECKED_BYTES = 16  # of a record, all but its check
_RECORDS_AT_ONCE = 4096
_THREADS = 8  # that sync files, each this many in turn:
_SYNCS = 64

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
# What Pillow raises for a file that is no PNG or a broken one.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error)


class PngStore(ImageStore):  # numpydoc ignore=PR02
    """A store of PNG files.

    Other Parameters
    ----------------
    compress_level : int, optional
        0 (no compression) to 9, 6 unless given.

    Notes
    -----
    Every image is a file to create, and with ``durable=True`` one to sync. Reading one
    image costs its decoding; there is no cheaper way to many.

    Milliseconds to encode and to decode an image, and bytes of the file over bytes of pixels. Of 32
    pixels a side: level 0 takes 0.09, 0.04 and 1.03; level 1 0.14, 0.08 and 0.75; level 6 0.15,
    0.07 and 0.73; level 9 0.15, 0.09 and 0.73. Of 256 pixels a side: level 0 3.6, 1.2 and 1.00;
    level 1 6.4, 2.7 and 0.54; level 6 23, 2.4 and 0.49; level 9 41, 2.4 and 0.49. Level 6 is
    written once, and read often. Measured by `PngCodec` and `PngLevel` of
    benchmarks/tuning_png.py; the intervals, machine and versions are in docs/findings.md.
    """

    backend = "png"
    _defaults: ClassVar[Options] = {"compress_level": 6}

    _log: int
    _record: CommitRecord

    @classmethod
    def _check_option(cls, name: str, value: object) -> int:
        return _inputs.whole_number(name, value, 0, 9)

    @classmethod
    def _make(cls, directory: Path, marker: Marker) -> None:
        (directory / _IMAGES).mkdir()
        write_new(directory / _LOG, INITIAL, durable=marker.durable)

    def _open(self) -> int:
        height, width, channels = self.image_shape
        header = struct.pack(
            ">4sIIBBBBB", b"IHDR", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0
        )
        self._header = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + crc32(header).to_bytes(4, "big")
        # Deflate stores what it cannot shrink in blocks with a few bytes of overhead each.
        self._file_limit = int((self._image_bytes + height) * 1.01) + 1024
        self._images = str(self.path / _IMAGES)
        check_directory(self._images)
        self._checked: set[int] = set()  # directories of images that are no links
        log = open_regular(self.path / _LOG, os.O_RDONLY if self._lock is None else os.O_RDWR)
        try:
            self._record = CommitRecord(log, self.path / _LOG)
            count = self._record.count
            if os.fstat(log).st_size < SIZE + count * _RECORD.itemsize:
                raise DamagedStoreError(f"{self.path / _LOG} ends before its {count:,} images")
            self._check_proportion(count)
        except BaseException:
            os.close(log)
            raise
        self._log = log
        self._unsynced = count
        return count

    def _check_proportion(self, count: int) -> None:
        """Refuse a shape that no file of this size can have, before memory is asked for."""
        with suppress(FileNotFoundError):
            if count and os.lstat(self._file(0)).st_size * MAX_RATIO < self._image_bytes:
                raise DamagedStoreError(f"{self._file(0)} is too short for {self.image_shape}")

    def _close(self) -> None:
        os.close(self._log)

    def _forget(self) -> None:
        # The descriptor is the child's own; its parent keeps its own, too.
        os.close(self._log)

    # -- writing -----------------------------------------------------------------------------

    def _append(self, source: Source) -> None:
        first = source.stop
        for start, images, labels, sums in source:
            for index, image in enumerate(images, start):
                if index % _PER_DIRECTORY == 0:
                    os.makedirs(self._directory(index), exist_ok=True)
                write_new(self._file(index), self._encode(image), durable=False)
            records = np.empty(len(images), _RECORD)
            records["label"] = labels
            records["checksum"] = sums
            records["check"] = _checks(range(start, source.stop), records)
            pwrite(self._log, records.tobytes(), SIZE + start * _RECORD.itemsize)
        if source.stop == first:
            return
        if self.durable:
            self._sync_range(first, source.stop)
        self._record.commit(source.stop, durable=self.durable)

    def _discard(self, count: int) -> None:
        self._record.restore(count, durable=self.durable)
        for name in os.listdir(self._images):
            if not name.isdecimal() or int(name) < count // _PER_DIRECTORY:
                continue
            directory = f"{self._images}/{name}"
            check_directory(directory)
            for file in os.listdir(directory):
                stem = file.removesuffix(".png")
                if stem.isdecimal() and int(stem) >= count:
                    os.unlink(f"{directory}/{file}")
            if int(name) * _PER_DIRECTORY >= count:
                os.rmdir(directory)
                self._checked.discard(int(name))
        length = SIZE + count * _RECORD.itemsize
        if os.fstat(self._log).st_size > length:
            os.ftruncate(self._log, length)

    def _sync(self) -> None:
        self._sync_range(self._unsynced, self._count)

    def _sync_range(self, start: int, stop: int) -> None:
        """Sync the files of images, then the names and labels that lead to them."""
        parts = [range(i, min(i + _SYNCS, stop)) for i in range(start, stop, _SYNCS)]
        if len(parts) > 1:
            # The file system's journal takes many at once: a third of the time an image. No
            # thread can be started when the interpreter ends: then one after another.
            with suppress(RuntimeError), ThreadPoolExecutor(_THREADS) as pool:
                for _ in pool.map(self._sync_files, parts):
                    pass
                parts = []
        for part in parts:
            self._sync_files(part)
        for shard in range(start // _PER_DIRECTORY, -(-stop // _PER_DIRECTORY)):
            sync_directory(self._directory(shard * _PER_DIRECTORY))
        sync_directory(self._images)
        sync(self._log)

    def _sync_files(self, indices: range) -> None:
        for index in indices:
            sync_file(self._file(index))

    def _encode(self, image: NDArray[np.uint8]) -> memoryview:
        height, width, channels = self.image_shape
        buffer = BytesIO()
        Image.frombuffer(
            _MODES[channels], (width, height), image, "raw", _MODES[channels], 0, 1
        ).save(buffer, "PNG", compress_level=self._options["compress_level"])
        return buffer.getbuffer()

    # -- reading -----------------------------------------------------------------------------

    def _read_one(self, index: int) -> tuple[NDArray[np.uint8], int, int]:
        (record,) = self._records(range(index, index + 1)).tolist()
        return self._decode(index).copy(), record[0], record[1]

    def _read_range(
        self,
        start: int,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        self._fill(range(start, start + len(images)), images, labels, sums)

    def _read_indices(
        self,
        indices: NDArray[np.int64],
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        self._fill(indices, images, labels, sums)

    def _fill(
        self,
        wanted: range | NDArray[np.int64],
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        for start in range(0, len(wanted), _RECORDS_AT_ONCE):
            part = slice(start, start + _RECORDS_AT_ONCE)
            records = self._records(wanted[part])
            labels[part] = records["label"]
            if sums is not None:
                sums[part] = records["checksum"]
        indices: Iterable[int] = wanted if isinstance(wanted, range) else wanted.tolist()
        for index, image in zip(indices, images, strict=True):
            image[...] = self._decode(index)

    def _read_labels(
        self, wanted: range | NDArray[np.int64], labels: NDArray[np.int64], *, check: bool
    ) -> None:
        for start in range(0, len(wanted), _RECORDS_AT_ONCE):
            part = wanted[start : start + _RECORDS_AT_ONCE]
            records = self._records(part)
            wrong = _checks(part, records) != records["check"] if check else np.False_
            if np.any(wrong):
                damaged = np.asarray(part)[wrong]
                raise DamagedImageError(f"label damaged in {self.path / _LOG}", damaged.tolist())
            labels[start : start + len(part)] = records["label"]

    def _records(self, wanted: range | NDArray[np.int64]) -> NDArray[np.void]:
        if isinstance(wanted, range):
            return self._record_range(wanted.start, wanted.stop)
        low, high = int(wanted.min()), int(wanted.max())
        # One read of everything between them is cheaper than many, unless they lie far apart.
        if high - low < 64 * len(wanted):
            return self._record_range(low, high + 1)[wanted - low]
        return np.concatenate([self._record_range(i, i + 1) for i in wanted.tolist()])

    def _record_range(self, start: int, stop: int) -> NDArray[np.void]:
        size = (stop - start) * _RECORD.itemsize
        data = pread(self._log, size, SIZE + start * _RECORD.itemsize)
        if len(data) < size:
            raise DamagedStoreError(f"{self.path / _LOG} ends before image {stop - 1}")
        return np.frombuffer(data, _RECORD)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        try:
            data = read_regular(self._file(index), self._file_limit)
            # Nothing but this package's own header reaches the decoder, so no other size, depth,
            # palette or interlacing does.
            if not data.startswith(self._header) or data[37:41] != b"IDAT":
                raise ValueError(f"no PNG file of shape {self.image_shape}")
            if len(data) * MAX_RATIO < self._image_bytes:
                raise ValueError("too short for its image")
            pixels = PngImageFile(BytesIO(data)).tobytes()
            return np.frombuffer(pixels, np.uint8).reshape(self.image_shape)
        except _DECODE_ERRORS as error:
            raise read_error(f"{self.path}: {index:08d}.png", error, index) from error

    def _directory(self, index: int) -> str:
        return f"{self._images}/{index // _PER_DIRECTORY:04d}"

    def _file(self, index: int) -> str:
        directory = self._directory(index)
        if index // _PER_DIRECTORY not in self._checked:
            check_directory(directory)
            self._checked.add(index // _PER_DIRECTORY)
        return f"{directory}/{index:08d}.png"


def _checks(indices: range | NDArray[np.int64], records: NDArray[np.void]) -> NDArray[np.uint64]:
    """The check of each record, (n,) uint64."""
    rows = records.view(np.uint8).reshape(len(records), _RECORD.itemsize)
    return digests(rows[:, :_CHECKED_BYTES]) + np.asarray(indices, np.uint64)
