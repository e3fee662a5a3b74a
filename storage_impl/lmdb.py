"""Images in an LMDB environment.

On-disk format, version 1::

    store.json
    write.lock
    data.mdb, lock.mdb   one environment, with
        main database    "storage_impl" -> version u32 | H u32 | W u32 | C u32 | count u64
        "images"         index -> header of 32 bytes, then the pixels, C-contiguous
        "labels"         block number -> XXH3-64 of the rest u64, then up to 509 labels i64

Keys are u64 big-endian, so that LMDB's order is that of the indices; all else is
little-endian. The header of an image::

    encoding u8 = 0 | channels u8 | 0 u16 | height u32 | width u32 | 0 u32 |
    label i64 | checksum u64

A block of labels is the 4,096 bytes of a page but for its header of 16, so that labels
are read without touching an image. A long call takes several transactions, the last
of which moves the count: images at and beyond it are what an interrupted call left,
ignored, and removed by the next writer.

What is checked when: opening checks both meta pages and, while there are no more than
256 branch and leaf pages (some 38,000 images of 3 KB), each of them, so that no pointer leads
LMDB out of its map. Beyond that the pages take longer than a user waits for; they are
checked where the store is opened with ``verify=True``, and by `verify`.
"""

import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import ClassVar, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

import lmdb
from storage_impl import _inputs
from storage_impl._checksum import digest
from storage_impl._files import check_regular, open_regular, sync_file
from storage_impl._lmdb_pages import check_pages, read_metas
from storage_impl._marker import FORMAT_VERSION, Marker, Options
from storage_impl.base import ImageStore, Source, Staged, Sums
from storage_impl.errors import (
    DamagedImageError,
    DamagedStoreError,
    StoreFullError,
    WriteFailedError,
)

_META_KEY = b"storage_impl"
_META = struct.Struct("<IIIIQ")
_HEADER = np.dtype([("fixed", "<u8", 2), ("label", "<i8"), ("checksum", "<u8")])
_FIXED = struct.Struct("<BBHIII")
_ONE_HEADER = struct.Struct("<16xqQ")
_SUM = struct.Struct("<Q")
_LABELS_PER_BLOCK = 509

_FIRST_MAP = 16 << 20  # bytes
_TRANSACTION_BYTES = 8 << 20  # of images in one transaction: its pages are held in memory
_READ_BYTES = 256 << 10  # copied in one go: what the processor's cache holds
_PAGES_AT_OPENING = 256
_CHECK_ATTEMPTS = 1000  # a writer would have to commit twice within each of them
_READERS = 512  # slots of 64 bytes in lock.mdb, one a process and thread that reads at a moment

_T = TypeVar("_T")
_P = ParamSpec("_P")


class LmdbStore(ImageStore):
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
    LMDB then leaves the order of its writes to the system.
    """

    backend = "lmdb"
    _defaults: ClassVar[Options] = {"readahead": True}
    _errors = (OSError, lmdb.Error)

    _env: "_Environment"

    @classmethod
    def _check_option(cls, name: str, value: object) -> bool:
        return _inputs.boolean(name, value)

    @classmethod
    def _make(cls, directory: Path, marker: Marker) -> None:
        with lmdb.open(str(directory), map_size=_FIRST_MAP, max_dbs=2, max_readers=_READERS) as env:
            for name in (b"images", b"labels"):
                env.open_db(name)
            with env.begin(write=True) as txn:
                txn.put(_META_KEY, _META.pack(FORMAT_VERSION, *marker.image_shape, 0))
        if marker.durable:
            sync_file(directory / "lock.mdb")

    def _open(self) -> int:
        height, width, channels = self.image_shape
        self._fixed = _FIXED.pack(0, channels, 0, height, width, 0)
        self._record_bytes = _HEADER.itemsize + self._image_bytes
        self._per_read = max(_READ_BYTES // self._record_bytes, 1)
        self._env = _acquire(self)
        try:
            count = self._env.read(self._read_count)
            if count * self._record_bytes > os.stat(self.path / "data.mdb").st_size:
                raise DamagedStoreError(f"{self.path} is too small for its {count:,} images")
        except BaseException:
            self._close()
            raise
        return count

    def _close(self) -> None:
        _release(self._env)

    def _forget(self) -> None:
        # Closing it would close the parent's: `_after_fork` below keeps it instead.
        del self._env

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
        except lmdb.Error:
            # After a failed commit LMDB refuses every further transaction of the environment.
            self._env.reopen()
            raise

    def _put(self, part: Staged, count: int | None) -> None:
        """Write images in one transaction, which also moves the count if it is given."""
        stop = part.first + len(part.images)
        records = np.empty((len(part.images), self._record_bytes), np.uint8)
        heads = np.empty(len(records), _HEADER)
        heads["fixed"] = np.frombuffer(self._fixed, "<u8")
        heads["label"] = part.labels
        heads["checksum"] = part.sums
        records[:, : _HEADER.itemsize] = heads.view(np.uint8).reshape(len(records), -1)
        records[:, _HEADER.itemsize :] = part.images.reshape(len(records), -1)
        items = list(zip(_keys(np.arange(part.first, stop)), records, strict=True))

        def put(txn: lmdb.Transaction) -> None:
            if self._read_count(txn) != self._count:
                raise WriteFailedError(
                    f"an earlier write to {self.path} failed so that its outcome is open; "
                    "close the store and open it again"
                )
            txn.cursor(db=self._env.images).putmulti(items)
            self._put_labels(txn, part.first, part.labels)
            if count is not None:
                txn.put(_META_KEY, _META.pack(FORMAT_VERSION, *self.image_shape, count))

        self._env.write(put)

    def _put_labels(self, txn: lmdb.Transaction, first: int, labels: NDArray[np.int64]) -> None:
        block, kept = divmod(first, _LABELS_PER_BLOCK)
        if kept:
            labels = np.concatenate([self._label_block(txn, block)[:kept], labels])
        for number, start in enumerate(range(0, len(labels), _LABELS_PER_BLOCK), block):
            data = labels[start : start + _LABELS_PER_BLOCK].astype("<i8", copy=False).tobytes()
            txn.put(_key(number), _SUM.pack(digest(data)) + data, db=self._env.labels)

    def _discard(self, count: int) -> None:
        def delete(txn: lmdb.Transaction) -> bool:
            if self._read_count(txn) != count:
                return False  # an earlier commit is in doubt: nothing it refers to may go
            cursor = txn.cursor(db=self._env.images)
            left = cursor.set_range(_key(count))
            for _ in range(_LABELS_PER_BLOCK):
                left = left and cursor.delete()
            return left

        last = self._env.read(_last_index, self._env.images)
        while last >= count and self._env.write(delete):
            pass

    def _sync(self) -> None:
        self._env.sync()

    # -- reading -----------------------------------------------------------------------------

    def _read_one(self, index: int) -> tuple[NDArray[np.uint8], int, int]:
        key = _key(index)

        def get(txn: lmdb.Transaction) -> tuple[NDArray[np.uint8], int, int]:
            record = txn.get(key, db=self._env.images)
            if record is None or len(record) != self._record_bytes or record[:16] != self._fixed:
                raise self._malformed([index])
            label, stored = _ONE_HEADER.unpack_from(record)
            image = np.frombuffer(record, np.uint8, offset=_HEADER.itemsize)
            return image.reshape(self.image_shape).copy(), label, stored

        return self._env.read(get)

    def _read_range(
        self,
        start: int,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        def get(txn: lmdb.Transaction, part: slice) -> None:
            cursor = txn.cursor(db=self._env.images)
            cursor.set_key(_key(start + part.start))
            records = islice(cursor.iternext(keys=False), part.stop - part.start)
            self._copy(records, start + part.start, images[part], labels[part], _cut(sums, part))
            # Keys are unique and in order: right at both ends, they are right in between.
            if cursor.key() != _key(start + part.stop - 1):
                raise self._malformed(range(start + part.start, start + part.stop))

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
            records = (txn.get(key, b"", database) for key in _keys(indices[part]))
            self._copy(records, indices[part], images[part], labels[part], _cut(sums, part))

        for part in self._parts(len(images)):
            self._env.read(get, part)

    def _parts(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self._per_read):
            yield slice(start, min(start + self._per_read, count))

    def _copy(
        self,
        records: Iterable[memoryview],
        wanted: Sequence[int] | NDArray[np.int64],
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        """Copy records out of the map, each with one copy, and check their headers together."""
        size = self._image_bytes
        pixels = images.reshape(-1).data
        heads = []
        position = 0
        try:
            for record in records:
                pixels[position : position + size] = record[_HEADER.itemsize :]
                heads.append(record[: _HEADER.itemsize])
                position += size
        except ValueError:  # a record of another length
            raise self._malformed(wanted[len(heads) : len(heads) + 1]) from None
        if len(heads) < len(images):
            raise self._malformed(wanted[len(heads) :])
        headers = np.frombuffer(b"".join(heads), _HEADER)
        wrong = (headers["fixed"] != np.frombuffer(self._fixed, "<u8")).any(axis=1)
        if wrong.any():
            raise self._malformed(np.asarray(wanted)[wrong])
        labels[...] = headers["label"]
        if sums is not None:
            sums[...] = headers["checksum"]

    def _read_labels(self, wanted: range | NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        blocks, inside = np.divmod(np.asarray(wanted, np.int64), _LABELS_PER_BLOCK)
        if isinstance(wanted, range):
            numbers = range(int(blocks[0]), int(blocks[-1]) + 1)
            rows = blocks - blocks[0]
        else:
            numbers = sorted(set(blocks.tolist()))
            rows = np.searchsorted(numbers, blocks)
        table = np.empty((len(numbers), _LABELS_PER_BLOCK), np.int64)

        def get(txn: lmdb.Transaction) -> None:
            for row, number in zip(table, numbers, strict=True):
                block = self._label_block(txn, number)
                row[: len(block)] = block

        self._env.read(get)
        labels[...] = table[rows, inside]

    def _label_block(self, txn: lmdb.Transaction, number: int) -> NDArray[np.int64]:
        data = txn.get(_key(number), b"", self._env.labels)
        first = number * _LABELS_PER_BLOCK
        stop = min(first + _LABELS_PER_BLOCK, self._count)
        if len(data) < (1 + stop - first) * 8 or data[:8] != _SUM.pack(digest(data[8:])):
            raise DamagedStoreError(
                f"{self.path}: the labels of images {first} to {stop - 1} are damaged"
            )
        return np.frombuffer(data[8:], "<i8")

    def _check_structure(self) -> None:
        self._env.check(None)

    def _malformed(self, indices: Sequence[int] | NDArray[np.int64]) -> DamagedImageError:
        return DamagedImageError(
            f"missing or malformed in {self.path}", [int(index) for index in indices]
        )


class _Environment:
    """An open environment, shared by all stores of this process that have its path.

    LMDB allows one a process. Its map may only be replaced while no transaction reads it,
    which threads could: `read` and `resize` keep them apart.
    """

    def __init__(self, store: LmdbStore, descriptor: int) -> None:
        self.key = _identity(descriptor)
        self.users = 1
        self._path = store.path
        self._readahead = bool(store._options["readahead"])
        self._durable = store.durable
        self._readers: list[None] = []
        self._resizing = False
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        # Whoever may write opens for writing, readers too: a writer may join them later.
        writable = all(os.access(p, os.W_OK) for p in (self._path, self._path / "data.mdb"))
        self._env = lmdb.open(
            str(self._path),
            map_size=max(2 * os.stat(self._path / "data.mdb").st_size, _FIRST_MAP),
            max_dbs=2,
            max_readers=_READERS,
            create=False,
            readonly=not writable,
            lock=writable,
            readahead=self._readahead,
            sync=self._durable,
        )
        try:
            self.check(_PAGES_AT_OPENING)  # before LMDB follows the first pointer
            self.images = self._env.open_db(b"images", create=False)
            self.labels = self._env.open_db(b"labels", create=False)
        except BaseException:
            self._env.close()
            raise

    def close(self) -> None:
        self._env.close()

    def reopen(self) -> None:
        """Open again what LMDB has declared broken."""
        with self._alone():
            self._env.close()
            self._open()

    def sync(self) -> None:
        self._env.sync(True)

    def read(
        self,
        action: Callable[Concatenate[lmdb.Transaction, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Call `action` in a transaction that reads; its values are views of the map."""
        while True:
            self._readers.append(None)  # append and pop are atomic
            try:
                if not self._resizing:
                    with self._env.begin(buffers=True) as txn:
                        return action(txn, *args, **kwargs)
                needed = 0
            except lmdb.MapResizedError:  # another process made the file longer than the map
                needed = 2 * os.stat(self._path / "data.mdb").st_size
            finally:
                self._readers.pop()
            self._resize(needed)

    def write(self, action: Callable[[lmdb.Transaction], _T]) -> _T:
        """Call `action` in a transaction that writes, again in a larger map if it is full."""
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    return action(txn)
            except (lmdb.MapFullError, lmdb.MapResizedError):
                self._resize(2 * self._env.info()["map_size"])

    def check(self, limit: int | None) -> None:
        """Check the pages of the last transaction: see `_lmdb_pages.check_pages`."""
        descriptor = open_regular(self._path / "data.mdb")
        try:
            for _ in range(_CHECK_ATTEMPTS):
                if self.read(_check_transaction, descriptor, limit):
                    return
            raise DamagedStoreError(f"{self._path}: the transaction numbers do not agree")
        finally:
            os.close(descriptor)

    def _resize(self, needed: int) -> None:
        with self._alone():
            if self._env.info()["map_size"] < needed:
                try:
                    self._env.set_mapsize(needed)
                except (lmdb.Error, OverflowError) as error:
                    raise StoreFullError(
                        f"{self._path} cannot grow its map to {needed:,} bytes: {error}; "
                        "the address space of this process is limited (ulimit -v)"
                    ) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            self._resizing = True
            try:
                while self._readers:
                    time.sleep(0.0001)
                yield
            finally:
                self._resizing = False


# One environment a process for each data file, by device and inode.
_environments: dict[tuple[int, int], _Environment] = {}
_environments_lock = threading.Lock()
# What a forked child inherited. Freeing it would free the parent's slots in lock.mdb.
_inherited: list[_Environment] = []


def _acquire(store: LmdbStore) -> _Environment:
    """The environment of a store, opened unless it is open."""
    with suppress(FileNotFoundError):
        check_regular(store.path / "lock.mdb")  # LMDB would follow a symbolic link and write
    descriptor = open_regular(store.path / "data.mdb")
    try:
        with _environments_lock:
            environment = _environments.get(_identity(descriptor))
            if environment is None:
                read_metas(descriptor)
                environment = _Environment(store, descriptor)
                _environments[environment.key] = environment
            else:
                environment.users += 1
    finally:
        os.close(descriptor)
    if store._verify_reads:
        try:
            environment.check(None)
        except BaseException:
            _release(environment)
            raise
    return environment


def _release(environment: _Environment) -> None:
    with _environments_lock:
        environment.users -= 1
        if environment.users == 0:
            del _environments[environment.key]
            environment.close()


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _check_transaction(txn: lmdb.Transaction, descriptor: int, limit: int | None) -> bool:
    """Check the pages of a transaction that is held, unless a writer is two ahead already."""
    number = txn.id()
    meta = read_metas(descriptor)[number % 2]
    if meta.transaction != number:
        return False
    check_pages(descriptor, meta, limit)
    return True


def _after_fork() -> None:
    global _environments_lock
    _inherited.extend(_environments.values())
    _environments.clear()
    _environments_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _cut(sums: Sums | None, part: slice) -> Sums | None:
    return None if sums is None else sums[part]


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _keys(numbers: NDArray[np.int64]) -> Iterator[bytes]:
    data = numbers.astype(">u8").tobytes()
    return (data[start : start + 8] for start in range(0, len(data), 8))


def _last_index(txn: lmdb.Transaction, database: "lmdb._Database") -> int:
    cursor = txn.cursor(db=database)
    return int.from_bytes(cursor.key(), "big") if cursor.last() else -1
