"""An LMDB environment that the threads, stores and forks of a process can share.

LMDB allows a process one environment of a file, none that crosses a fork, and a new map only
while nobody uses the old one. `acquire` and `release` see to the first, hooks of `os.fork` to the
second, `Environment.read` and `Environment.write` to the third.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import lmdb

from storage_impl._files import check_regular, open_regular
from storage_impl._lmdb_pages import check_pages, read_metas
from storage_impl.errors import (
    ClosedStoreError,
    DamagedStoreError,
    ReadFailedError,
    StoreFullError,
)

_FIRST_MAP = 16 << 20  # bytes
_PAGES_AT_OPENING = 256
_CHECK_ATTEMPTS = 1000  # a writer would have to commit twice within each of them
_READERS = 250  # slots of 64 bytes in lock.mdb, one a process and thread that reads at a moment
_LOCK_FILE_BYTES = 16 << 10  # these and LMDB's header, in whole pages

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


def create(directory: Path, key: bytes, value: bytes) -> None:
    """Make an environment of the databases "images" and "labels" that holds one record."""
    _allocate_lock_file(directory)
    with lmdb.open(str(directory), map_size=_FIRST_MAP, max_dbs=2, max_readers=_READERS) as env:
        for name in (b"images", b"labels"):
            env.open_db(name)
        with env.begin(write=True) as txn:
            txn.put(key, value)


class Environment:
    """An environment, shared by all stores of this process that have its path.

    Whatever uses it goes through `read` or `write`. They wait while another thread has the
    environment `_alone`, and open it again after a fork.
    """

    def __init__(self, path: Path, key: tuple[int, int], readahead: bool, durable: bool) -> None:
        self.key = key
        self.users = 1
        self._path = path
        self._data = path / "data.mdb"
        self._readahead = readahead
        self._durable = durable
        self._env: lmdb.Environment
        self._lock = threading.Lock()
        self._active: set[object] = set()  # a member for each transaction
        self._released = False
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
            if writable:
                self._env.reader_check()  # the slots of processes that were killed
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
            token = object()
            try:
                self._active.add(token)  # which is atomic, and so is discard
                if not self._busy:
                    txn = self._env.begin(buffers=True)
                    try:
                        return action(txn, *arguments)
                    finally:
                        txn.abort()  # less work than a commit
                needed = 0
            except lmdb.MapResizedError:  # another process made the file longer than the map
                needed = 2 * self._file_size()
            except lmdb.ReadersFullError as error:
                if not self._env.reader_check():  # which frees the slots of processes that died
                    raise ReadFailedError(
                        errno.EAGAIN,
                        f"{_READERS} threads and processes read {self._path} at this moment",
                    ) from error
                needed = 0
            finally:
                self._active.discard(token)
            self._fit(needed)

    def write(self, action: Callable[[lmdb.Transaction], _T]) -> _T:
        """Call `action` in a transaction that writes, again in a larger map if it is full."""
        while True:
            token = object()
            try:
                self._active.add(token)
                if not self._busy:
                    with self._env.begin(write=True, buffers=True) as txn:
                        return action(txn)
                needed = 0
            except (lmdb.MapFullError, lmdb.MapResizedError):
                needed = 2 * self._env.info()["map_size"]
            finally:
                self._active.discard(token)
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

    def close(self, *, for_good: bool = False) -> None:
        """Close it; unless `for_good`, what uses it next opens it again."""
        with self._alone():
            self._released = for_good
            self._close()

    def _fit(self, needed: int) -> None:
        """Make the map at least `needed` bytes long, and open it if it is closed."""
        with self._alone():
            if self._released:
                raise ClosedStoreError(f"{self._path} was closed while it was read")
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
                try:
                    with self._env.begin() as txn:
                        meta = read_metas(descriptor)[txn.id() % 2]
                        if meta.transaction == txn.id():  # else a writer has gone on by two
                            check_pages(descriptor, meta, limit)
                            return
                except lmdb.MapResizedError:
                    self._env.set_mapsize(2 * self._file_size())
            raise DamagedStoreError(f"{self._data}: the transaction numbers do not agree")
        finally:
            os.close(descriptor)

    def _file_size(self) -> int:
        return os.stat(self._data).st_size


# One environment a process for each data file, by device and inode.
_environments: dict[tuple[int, int], Environment] = {}
_environments_lock = threading.RLock()


def acquire(path: Path, *, readahead: bool, durable: bool) -> Environment:
    """The environment of the store at `path`, opened unless it is open.

    Parameters
    ----------
    path
        The store's directory.
    readahead, durable
        What the store was made with.
    """
    status = check_regular(path / "data.mdb")
    key = status.st_dev, status.st_ino
    with _environments_lock:
        environment = _environments.get(key)
        if environment is None:
            environment = _environments[key] = Environment(path, key, readahead, durable)
        else:
            environment.users += 1
        return environment


def release(environment: Environment) -> None:
    """Give back what `acquire` returned; the last one closes it."""
    with _environments_lock:
        environment.users -= 1
        if environment.users == 0:
            del _environments[environment.key]
            environment.close(for_good=True)


def _before_fork() -> None:
    # Nothing of LMDB may cross: its child would free the parent's slots in lock.mdb. The lock
    # is held across the fork, or the child might inherit it in the hands of another thread.
    _environments_lock.acquire()
    for environment in list(_environments.values()):
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
