"""Images in an LMDB environment.

On-disk format, version 1::

    store.json
    write.lock
    commit               the commit record, see `storage_impl._commit`
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
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import ClassVar, TypeVar, TypeVarTuple, cast

import lmdb
import numpy as np
from numpy.typing import NDArray

from storage_impl import _inputs
from storage_impl._checksum import digest
from storage_impl._commit import INITIAL, CommitRecord
from storage_impl._files import check_regular, open_regular, sync_file, write_new
from storage_impl._lmdb_pages import check_pages, read_metas
from storage_impl._marker import FORMAT_VERSION, Marker, Options
from storage_impl.base import ImageStore, Source, Staged, Sums
from storage_impl.errors import (
    DamagedImageError,
    DamagedStoreError,
    StoreFullError,
)

_COMMIT = "commit"
_META_KEY = b"storage_impl"
_META = struct.Struct("<IIIIQ")
_HEADER = np.dtype([("fixed", "<u8", 2), ("label", "<i8"), ("checksum", "<u8")])
_FIXED = struct.Struct("<BBHIII")
_ONE_HEADER = struct.Struct("<16sqQ")
_SUM = struct.Struct("<Q")
_LABELS_PER_BLOCK = 509

_FIRST_MAP = 16 << 20  # bytes
_TRANSACTION_BYTES = 16 << 20  # of images in one transaction: its pages are held in memory
_COPY_BYTES = 128 << 10  # of records copied in one go: what the processor's cache holds
_PAGES_AT_OPENING = 256
_DELETED_AT_ONCE = 1000  # keys in one transaction
_CHECK_ATTEMPTS = 1000  # a writer would have to commit twice within each of them
_READERS = 250  # slots of 64 bytes in lock.mdb, one a process and thread that reads at a moment
_LOCK_FILE_BYTES = 16 << 10  # these and LMDB's header, in whole pages

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


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

    Readahead matters where the pages are not in memory. Measured on 5,000 CIFAR-10 images
    right after the page cache was emptied, microseconds an image: reading all in order 4.6
    with it and 128 without, reading one at random 55 with it and 150 without. It can only cost
    where a store is much larger than the memory and read at random.
    """

    backend = "lmdb"
    _defaults: ClassVar[Options] = {"readahead": True}
    _errors = (OSError, lmdb.Error)

    _env: "_Environment"
    _commit: int
    _record: CommitRecord

    @classmethod
    def _check_option(cls, name: str, value: object) -> bool:
        return _inputs.boolean(name, value)

    @classmethod
    def _make(cls, directory: Path, marker: Marker) -> None:
        write_new(directory / _COMMIT, INITIAL, sync=marker.durable)
        _allocate_lock_file(directory)
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
        self._at_once = max(_COPY_BYTES // self._record_bytes, 1)
        with ExitStack() as undo:
            flags = os.O_RDONLY if self._lock is None else os.O_RDWR
            self._commit = open_regular(self.path / _COMMIT, flags)
            undo.callback(os.close, self._commit)
            self._record = CommitRecord(self._commit)
            self._env = _acquire(self)
            undo.callback(_release, self._env)
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
        _release(self._env)

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
                    self._record.commit(source.stop, sync=False)
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
                cursor.putmulti(list(zip(keys, cast("Iterable[memoryview]", buffer), strict=False)))
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
            txn.put(_key(number), _SUM.pack(digest(data)) + data, db=self._env.labels)

    def _discard(self, count: int) -> None:
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
        os.fsync(self._commit)

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
        if not whole or (check and data[:8] != _SUM.pack(digest(data[8:]))):
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


class _Environment:
    """An environment, shared by all stores of this process that have its path.

    LMDB allows one a process, none that crosses a fork, and a new map only while no transaction
    uses the old one. So whatever uses it goes through `read` or `write`. They wait while
    another thread has the environment `_alone`, and open it again after a fork.
    """

    def __init__(self, store: "LmdbStore", key: tuple[int, int]) -> None:
        self.key = key
        self.users = 1
        self._path = store.path
        self._data = store.path / "data.mdb"
        self._readahead = bool(store._options["readahead"])
        self._durable = store.durable
        self._env: lmdb.Environment
        self._lock = threading.Lock()
        self._active: list[None] = []  # an entry for each transaction; append and pop are atomic
        self._is_open = False
        self._busy = True  # while it is closed, and while a thread has it alone
        with self._alone():
            self._open()

    def _open(self) -> None:
        # Whoever may write opens for writing, readers too: a writer may join them later.
        writable = all(os.access(path, os.W_OK) for path in (self._path, self._data))
        if writable:
            _allocate_lock_file(self._path)
        descriptor = open_regular(self._data)
        try:
            read_metas(descriptor)
        finally:
            os.close(descriptor)
        size = self._file_size()
        try:
            self._env = self._map(max(2 * size, _FIRST_MAP), writable)
        except lmdb.MemoryError:  # no address space to grow into
            self._env = self._map(size, writable)
        self._is_open = True
        try:
            self._check(_PAGES_AT_OPENING)  # before LMDB follows the first pointer
            self.images = self._env.open_db(b"images", create=False)
            self.labels = self._env.open_db(b"labels", create=False)
        except BaseException:
            self._close()
            raise

    def _map(self, size: int, writable: bool) -> lmdb.Environment:
        return lmdb.open(
            str(self._path),
            map_size=size,
            max_dbs=2,
            max_readers=_READERS,
            max_spare_txns=1,
            create=False,
            readonly=not writable,
            lock=writable,
            readahead=self._readahead,
            sync=self._durable,
        )

    def _close(self) -> None:
        if self._is_open:
            self._env.close()
            self._is_open = False

    def read(
        self, action: Callable[[lmdb.Transaction, *_Arguments], _T], *arguments: *_Arguments
    ) -> _T:
        """Call `action` in a transaction that reads.

        What the transaction returns are views of the map, not to be kept.
        """
        while True:
            self._active.append(None)
            try:
                if not self._busy:
                    txn = self._env.begin(buffers=True)
                    try:
                        return action(txn, *arguments)
                    finally:
                        txn.abort()  # less work than a commit
                needed = 0
            except lmdb.MapResizedError:  # another process made the file longer than the map
                needed = 2 * self._file_size()
            finally:
                self._active.pop()
            self._fit(needed)

    def write(self, action: Callable[[lmdb.Transaction], _T]) -> _T:
        """Call `action` in a transaction that writes, again in a larger map if it is full."""
        while True:
            self._active.append(None)
            try:
                if not self._busy:
                    with self._env.begin(write=True, buffers=True) as txn:
                        return action(txn)
                needed = 0
            except (lmdb.MapFullError, lmdb.MapResizedError):
                needed = 2 * self._env.info()["map_size"]
            finally:
                self._active.pop()
            self._fit(needed)

    def sync(self) -> None:
        self._fit(0)
        with self._alone():
            self._env.sync(True)

    def check(self) -> None:
        """Check all pages of the last transaction."""
        self._fit(0)
        with self._alone():
            self._check(None)

    def close(self) -> None:
        """Close it; what uses it next opens it again."""
        with self._alone():
            self._close()

    def _fit(self, needed: int) -> None:
        """Make the map at least `needed` bytes long, and open it if it is closed."""
        with self._alone():
            if not self._is_open:
                self._open()
            elif self._env.info()["map_size"] < needed:
                try:
                    self._env.set_mapsize(needed)
                except (lmdb.Error, OverflowError) as error:
                    self._close()  # LMDB has dropped the old map; the next use opens it again
                    raise StoreFullError(
                        f"{self._path} cannot grow its map to {needed:,} bytes: {error}; "
                        "the address space of this process is limited (ulimit -v)"
                    ) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            self._busy = True
            while self._active:
                time.sleep(0.0001)
            try:
                yield
            finally:
                self._busy = not self._is_open

    def _check(self, limit: int | None) -> None:
        descriptor = open_regular(self._data)
        try:
            for _ in range(_CHECK_ATTEMPTS):
                # The transaction keeps a writer from using its pages again meanwhile.
                with self._env.begin() as txn:
                    meta = read_metas(descriptor)[txn.id() % 2]
                    if meta.transaction == txn.id():  # else a writer has gone on by two
                        check_pages(descriptor, meta, limit)
                        return
            raise DamagedStoreError(f"{self._data}: the transaction numbers do not agree")
        finally:
            os.close(descriptor)

    def _file_size(self) -> int:
        return os.stat(self._data).st_size


# One environment a process for each data file, by device and inode.
_environments: dict[tuple[int, int], _Environment] = {}
_environments_lock = threading.RLock()


def _acquire(store: LmdbStore) -> _Environment:
    """The environment of a store, opened unless it is open."""
    status = check_regular(store.path / "data.mdb")
    key = status.st_dev, status.st_ino
    with _environments_lock:
        environment = _environments.get(key)
        if environment is None:
            environment = _environments[key] = _Environment(store, key)
        else:
            environment.users += 1
        return environment


def _release(environment: _Environment) -> None:
    with _environments_lock:
        environment.users -= 1
        if environment.users == 0:
            del _environments[environment.key]
            environment.close()


def _before_fork() -> None:
    # Nothing of LMDB may cross: its child would free the parent's slots in lock.mdb. The lock
    # is held across the fork, or the child might inherit it in the hands of another thread.
    _environments_lock.acquire()
    for environment in _environments.values():
        environment.close()


def _after_fork_in_child() -> None:
    _environments.clear()
    _environments_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_environments_lock.release,
        after_in_child=_after_fork_in_child,
    )


def _allocate_lock_file(directory: Path) -> None:
    """Make lock.mdb without holes: LMDB writes to it by a map, which on a full disk is a signal.

    A symbolic link is refused, which LMDB would follow and write to.
    """
    descriptor = open_regular(directory / "lock.mdb", os.O_RDWR | os.O_CREAT)
    try:
        status = os.fstat(descriptor)
        length = max(status.st_size, _LOCK_FILE_BYTES)
        if hasattr(os, "posix_fallocate") and status.st_blocks * 512 < length:
            os.posix_fallocate(descriptor, 0, length)  # keeps what another process wrote there
    finally:
        os.close(descriptor)


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
