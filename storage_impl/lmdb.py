"""Images in an LMDB environment.

On-disk format, version 1::

    store.json
    write.lock
    commit               the commit record, see `storage_impl._commit`
    data.mdb, lock.mdb   one environment, with
        main database    "storage_impl" -> version u32 | H u32 | W u32 | C u32 | count u64
        "images"         index -> header of 32 bytes, then the pixels, C-contiguous
        "labels"         block number -> checksum u64, then up to 509 labels i64

Keys are u64 big-endian, so that LMDB's order is that of the indices; all else is
little-endian. The header of an image::

    encoding u8 = 0 | channels u8 | 0 u16 | height u32 | width u32 | 0 u32 |
    label i64 | checksum u64

The checksum of a block of labels is XXH3-64 of them plus the block's number, modulo 2**64.
A block is the 4,096 bytes of a page but for its header of 16, so that labels
are read without touching an image. A long call takes several transactions, the last
of which moves the count: images at and beyond it are what an interrupted call left,
ignored, and removed by the next writer. The count that decides is LMDB's own; the
commit record follows it, so that an environment that damage took back to an older
transaction is noticed.

What is checked when: opening checks both meta pages and, while there are no more than
256 branch and leaf pages (some 38,000 images of 3 KB), each of them, so that no pointer leads
LMDB out of its map. Beyond that the pages take longer than a user waits for; they are
checked where the store is opened with ``verify=True``, and by `verify`.
"""

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import ClassVar, cast

import lmdb
import numpy as np
from numpy.typing import NDArray

from storage_impl import _inputs
from storage_impl._checksum import digest
from storage_impl._commit import INITIAL, CommitRecord
from storage_impl._files import open_regular, sync, sync_file, write_new
from storage_impl._lmdb_environment import Environment, acquire, create, release
from storage_impl._marker import FORMAT_VERSION, Marker, Options
from storage_impl._source import Source, Staged
from storage_impl.base import ImageStore, Sums
from storage_impl.errors import (
    DamagedImageError,
    DamagedStoreError,
)

_COMMIT = "commit"
_META_KEY = b"storage_impl"
_META = struct.Struct("<IIIIQ")
_HEADER = np.dtype([("fixed", "<u8", 2), ("label", "<i8"), ("checksum", "<u8")])
_FIXED = struct.Struct("<BBHIII")
_ONE_HEADER = struct.Struct("<16sqQ")
_SUM = struct.Struct("<Q")
_LABELS_PER_BLOCK = 509

_TRANSACTION_BYTES = 4 << 20  # of images in one transaction: its pages stay in the cache
_COPY_BYTES = 128 << 10  # of records copied in one go: what the processor's cache holds
_DELETED_AT_ONCE = 1000  # keys in one transaction


class LmdbStore(ImageStore):  # numpydoc ignore=PR02
    """A store in an LMDB environment.

    Other Parameters
    ----------------
    readahead : bool, optional
        Whether the system may read ahead of a page that is missing in memory, True unless
        given.

    Notes
    -----
    Only processes of one machine may share a store, on a local file system. With
    ``durable=False`` a power cut may cost the whole store, not its last images alone:
    LMDB then leaves the order of its writes to the system. A reader that may not write to the
    directory takes no lock in it, and LMDB does not promise it a sound view beside a writer.

    Readahead matters where the pages are not in memory. Microseconds an image, for 5,000 of 32
    pixels a side right after the page cache was emptied: reading all in order 5.0 with it and 80
    without, reading 500 at random 50 with it and 79 without. It can only cost where a store is
    much larger than the memory and read at random. Measured by `LmdbColdReadahead` of
    benchmarks/tuning_lmdb.py; the intervals, machine, versions are in docs/findings.md.
    """

    backend = "lmdb"
    _defaults: ClassVar[Options] = {"readahead": True}
    _errors = (OSError, lmdb.Error)

    _env: Environment
    _commit: int
    _record: CommitRecord

    @classmethod
    def _check_option(cls, name: str, value: object) -> bool:
        return _inputs.boolean(name, value)

    @classmethod
    def _make(cls, directory: Path, marker: Marker) -> None:
        write_new(directory / _COMMIT, INITIAL, durable=marker.durable)
        create(directory, _META_KEY, _META.pack(FORMAT_VERSION, *marker.image_shape, 0))
        if marker.durable:
            sync_file(directory / "lock.mdb")

    def _open(self) -> int:
        height, width, channels = self.image_shape
        self._fixed = _FIXED.pack(0, channels, 0, height, width, 0)
        self._record_bytes = _HEADER.itemsize + self._image_bytes
        self._at_once = max(_COPY_BYTES // self._record_bytes, 1)
        with ExitStack() as undo:
            flags = os.O_RDONLY if self._lock is None else os.O_RDWR
            self._commit = open_regular(self.path / _COMMIT, flags)
            undo.callback(os.close, self._commit)
            self._record = CommitRecord(self._commit, self.path / _COMMIT)
            readahead = bool(self._options["readahead"])
            self._env = acquire(self.path, readahead=readahead, durable=self.durable)
            undo.callback(release, self._env)
            if self._verify_reads:
                self._env.check()
            count = self._env.read(self._read_count)
            self._check_count(count)
            undo.pop_all()
        return count

    def _check_count(self, count: int) -> None:
        if count < self._record.count:
            raise DamagedStoreError(
                f"{self.path}: the environment holds {count:,} images, "
                f"{self._record.count:,} were committed"
            )
        if count * self._record_bytes > os.stat(self.path / "data.mdb").st_size:
            raise DamagedStoreError(f"{self.path} is too small for its {count:,} images")

    def _close(self) -> None:
        os.close(self._commit)
        release(self._env)

    def _forget(self) -> None:
        os.close(self._commit)
        del self._env  # which was closed before the fork

    def _read_count(self, txn: lmdb.Transaction) -> int:
        meta = txn.get(_META_KEY)
        if meta is None or len(meta) != _META.size:
            raise DamagedStoreError(f"{self.path}: the environment does not say what it holds")
        version, *shape, count = _META.unpack(meta)
        if version != FORMAT_VERSION or tuple(shape) != self.image_shape:
            raise DamagedStoreError(
                f"{self.path}: the environment holds version {version} and shape {tuple(shape)}, "
                f"store.json says {FORMAT_VERSION} and {self.image_shape}"
            )
        return int(count)

    # -- writing -----------------------------------------------------------------------------

    def _append(self, source: Source) -> None:
        try:
            waiting: Staged | None = None
            for part in source.parts(max(_TRANSACTION_BYTES // self._record_bytes, 1)):
                if waiting is not None:
                    self._put(waiting, None)
                waiting = part
            if waiting is not None:
                self._put(waiting, source.stop)
                with suppress(OSError):  # LMDB's own count has been committed
                    self._record.commit(source.stop, durable=False)
        except lmdb.Error:
            # After a failed commit LMDB refuses every further transaction of the environment.
            self._env.close()
            raise

    def _put(self, part: Staged, count: int | None) -> None:
        """Write images in one transaction, which also moves the count if it is given."""

        def put(txn: lmdb.Transaction) -> None:
            cursor = txn.cursor(db=self._env.images)
            # One small buffer for all: it stays in the processor's cache, and LMDB copies it.
            buffer = np.empty((self._at_once, self._record_bytes), np.uint8)
            buffer[:, : _FIXED.size] = np.frombuffer(self._fixed, np.uint8)
            headers = np.ndarray(len(buffer), _HEADER, buffer, strides=self._record_bytes)
            for here in self._parts(len(part.images)):
                size = here.stop - here.start
                headers["label"][:size] = part.labels[here]
                headers["checksum"][:size] = part.sums[here]
                buffer[:size, _HEADER.itemsize :] = part.images[here].reshape(size, -1)
                keys = _keys(np.arange(part.first + here.start, part.first + here.stop))
                records = list(zip(keys, cast("Iterable[memoryview]", buffer), strict=False))
                # Appended, they fill each page; else one that holds two is left with one.
                _, added = cursor.putmulti(records, append=True)
                if added < size:  # LMDB skips a key that is not beyond the last
                    raise lmdb.KeyExistsError(
                        "there are images beyond those committed, which opening it again removes"
                    )
            self._put_labels(txn, part.first, part.labels)
            if count is not None:
                self._put_count(txn, count)

        self._env.write(put)

    def _put_count(self, txn: lmdb.Transaction, count: int) -> None:
        txn.put(_META_KEY, _META.pack(FORMAT_VERSION, *self.image_shape, count))

    def _put_labels(self, txn: lmdb.Transaction, first: int, labels: NDArray[np.int64]) -> None:
        block, kept = divmod(first, _LABELS_PER_BLOCK)
        if kept:
            labels = np.concatenate([self._label_block(txn, block, True)[:kept], labels])
        for number, start in enumerate(range(0, len(labels), _LABELS_PER_BLOCK), block):
            data = labels[start : start + _LABELS_PER_BLOCK].astype("<i8", copy=False).tobytes()
            txn.put(_key(number), _block_sum(number, data) + data, db=self._env.labels)

    def _discard(self, count: int) -> None:
        self._record.restore(count, durable=False)

        def delete(txn: lmdb.Transaction) -> bool:
            if self._read_count(txn) != count:  # a commit that failed, and yet reached the file
                self._put_count(txn, count)
            left = False
            for database, first in beyond:
                cursor = txn.cursor(db=database)
                found = cursor.set_range(_key(first))
                for _ in range(_DELETED_AT_ONCE):
                    found = found and cursor.delete()
                left = left or found
            return left

        on_disk = self._env.read(self._read_count)
        beyond = (self._env.images, count), (self._env.labels, -(-count // _LABELS_PER_BLOCK))
        if on_disk != count or any(
            self._env.read(_last_key, database) >= first for database, first in beyond
        ):
            while self._env.write(delete):
                pass

    def _sync(self) -> None:
        self._env.sync()
        sync(self._commit)

    # -- reading -----------------------------------------------------------------------------

    def _read_one(self, index: int) -> tuple[NDArray[np.uint8], int, int]:
        return self._env.read(self._get_one, index)

    def _get_one(self, txn: lmdb.Transaction, index: int) -> tuple[NDArray[np.uint8], int, int]:
        record = txn.get(index.to_bytes(8, "big"), b"", self._env.images)
        if len(record) != self._record_bytes:
            raise self._malformed([index])
        fixed, label, stored = _ONE_HEADER.unpack_from(record)
        if fixed != self._fixed:
            raise self._malformed([index])
        image = np.ndarray(self.image_shape, np.uint8, record, _HEADER.itemsize)
        return image.copy(), label, stored

    def _read_range(
        self,
        start: int,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        def get(txn: lmdb.Transaction, part: slice) -> None:
            cursor = txn.cursor(db=self._env.images)
            wanted = range(start + part.start, start + part.stop)
            cursor.set_key(_key(wanted.start))
            records = list(islice(cursor.iternext(keys=False), len(wanted)))
            # Keys are unique and in order: right at both ends, they are right in between.
            if len(records) < len(wanted) or cursor.key() != _key(wanted[-1]):
                missing = [i for i in wanted if txn.get(_key(i), db=self._env.images) is None]
                raise self._malformed(missing)
            self._copy(records, wanted, images[part], labels[part], _cut(sums, part))

        for part in self._parts(len(images)):
            self._env.read(get, part)

    def _read_indices(
        self,
        indices: NDArray[np.int64],
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        def get(txn: lmdb.Transaction, part: slice) -> None:
            database = self._env.images
            records = [txn.get(key, b"", database) for key in _keys(indices[part])]
            self._copy(records, indices[part], images[part], labels[part], _cut(sums, part))

        for part in self._parts(len(images)):
            self._env.read(get, part)

    def _parts(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self._at_once):
            yield slice(start, min(start + self._at_once, count))

    def _copy(
        self,
        records: Sequence[bytes | memoryview],
        wanted: Sequence[int] | NDArray[np.int64],
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        """Copy records out of the map, and check their headers together."""
        # Joined by C and cut apart by numpy: less time than a few Python calls an image.
        data = records[0] if len(records) == 1 else b"".join(records)
        if len(data) == len(records) * self._record_bytes:
            rows = np.frombuffer(data, np.uint8).reshape(len(records), -1)
            headers = np.ascontiguousarray(rows[:, : _HEADER.itemsize]).view(_HEADER).ravel()
            wrong = (headers["fixed"] != np.frombuffer(self._fixed, "<u8")).any(axis=1)
        else:
            wrong = np.array([len(record) != self._record_bytes for record in records])
        if wrong.any():
            raise self._malformed(np.asarray(wanted)[wrong])
        images.reshape(len(records), -1)[...] = rows[:, _HEADER.itemsize :]
        labels[...] = headers["label"]
        if sums is not None:
            sums[...] = headers["checksum"]

    def _read_labels(
        self, wanted: range | NDArray[np.int64], labels: NDArray[np.int64], *, check: bool
    ) -> None:
        blocks, inside = np.divmod(np.asarray(wanted, np.int64), _LABELS_PER_BLOCK)
        numbers: Sequence[int]
        if isinstance(wanted, range):
            numbers = range(int(blocks[0]), int(blocks[-1]) + 1)
            rows = blocks - blocks[0]
        else:
            numbers = sorted(set(blocks.tolist()))
            rows = np.searchsorted(numbers, blocks)
        table = np.empty((len(numbers), _LABELS_PER_BLOCK), np.int64)

        def get(txn: lmdb.Transaction) -> None:
            for row, number in zip(table, numbers, strict=True):
                block = self._label_block(txn, number, check)
                row[: len(block)] = block

        self._env.read(get)
        labels[...] = table[rows, inside]

    def _label_block(self, txn: lmdb.Transaction, number: int, check: bool) -> NDArray[np.int64]:
        data = txn.get(_key(number), b"", self._env.labels)
        first = number * _LABELS_PER_BLOCK
        stop = min(first + _LABELS_PER_BLOCK, self._count)
        whole = len(data) % 8 == 0 and stop - first < len(data) // 8 <= 1 + _LABELS_PER_BLOCK
        if not whole or (check and data[:8] != _block_sum(number, data[8:])):
            raise DamagedStoreError(
                f"{self.path}: the labels of images {first} to {stop - 1} are damaged"
            )
        return np.frombuffer(data[8:], "<i8")

    def _check_structure(self) -> None:
        self._env.check()

    def _malformed(self, indices: Sequence[int] | NDArray[np.int64]) -> DamagedImageError:
        return DamagedImageError(
            f"missing or malformed in {self.path}", [int(index) for index in indices]
        )


def _block_sum(number: int, labels: bytes | memoryview) -> bytes:
    return _SUM.pack((digest(labels) + number) % 2**64)


def _cut(sums: Sums | None, part: slice) -> Sums | None:
    return None if sums is None else sums[part]


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _keys(numbers: NDArray[np.int64]) -> Iterator[bytes]:
    data = numbers.astype(">u8").tobytes()
    return (data[start : start + 8] for start in range(0, len(data), 8))


def _last_key(txn: lmdb.Transaction, database: "lmdb._Database") -> int:
    cursor = txn.cursor(db=database)
    return int.from_bytes(cursor.key(), "big") if cursor.last() else -1
