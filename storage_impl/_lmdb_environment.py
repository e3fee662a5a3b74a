"""LMDB environments, shared by the stores of a process: opening, running, growing and closing them.

`storage_impl._lmdb_sharing` knows who uses an environment. On top of its rules:

- If operations are in progress when a store closes, the last one of them closes the environment.
- Stores that only read share a read-only environment. The first store that writes replaces it,
  between two reads.
"""

import errno
import os
import sys
import time
from collections.abc import Callable
from threading import get_ident
from typing import TypeVar, TypeVarTuple
from weakref import ref

import lmdb

from storage_impl._files import Directory
from storage_impl._lmdb_pages import check_pages, read_metas
from storage_impl._lmdb_sharing import (
    PAUSE,
    OpenFile,
    Operation,
    forks,
    inherited,
    must_wait,
    open_files,
)
from storage_impl.errors import (
    DamagedStoreError,
    ReadFailedError,
    ReadOnlyStoreError,
    StoreFullError,
    is_ours,
)

if sys.platform == "linux":
    import fcntl

_DATA, _LOCK = "data.mdb", "lock.mdb"
_NAMES = (b"images", b"labels")
# Addresses are reserved once, enough for all later growth. Only pages that are read take memory. On
# Windows the file would become as long as the map, so nothing is reserved there.
_MAP = 1 << 40 if sys.maxsize > 1 << 32 and os.name != "nt" else 0
_LEAST_MAP = 16 << 20
_READERS = 250  # slots in lock.mdb, one for each read in progress
_LOCK_FILE_BYTES = 16 << 10  # 64 for each slot, plus LMDB's header, in whole pages
_SHORT_OF_SPACE = 16 << 20  # bytes, enough for several transactions
_CHECK_ATTEMPTS = 1000  # one fails only if a writer commits twice during it
_DESCRIPTORS = "/proc/self/fd"
_BY_DESCRIPTOR = os.path.isdir(_DESCRIPTORS)

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


def create(directory: Directory, key: bytes, value: bytes) -> None:
    """Create an environment with the databases "images" and "labels" and one record, unsynced."""
    _allocate_lock_file(directory)
    file, token = OpenFile(), Operation()
    mark = ref(token)
    place = (-1, id(file))
    while True:
        try:
            open_files[place] = file  # so that a fork sees it
            file.active[mark] = get_ident()
            if not must_wait(mark):
                _create(directory, key, value)
                return
        finally:
            open_files.pop(place, None)
        time.sleep(PAUSE)


def _create(directory: Directory, key: bytes, value: bytes) -> None:
    path = _path(directory)
    with (
        lmdb.open(path, map_size=_LEAST_MAP, max_dbs=2, max_readers=_READERS, sync=False) as env,
        env.begin(write=True) as txn,
    ):
        for name in _NAMES:
            env.open_db(name, txn)
        txn.put(key, value)


class Environment:
    """The environment of a store, as one store object uses it.

    Parameters
    ----------
    directory : Directory
        The store's directory.
    writable : bool
        Whether the store object writes.
    readahead, durable : bool
        The store's options.
    verify : bool
        Whether to check all pages before LMDB follows a pointer in them.

    Attributes
    ----------
    data : File
        The data file.
    """

    def __init__(
        self, directory: Directory, *, writable: bool, readahead: bool, durable: bool, verify: bool
    ) -> None:
        self._file = OpenFile()
        self._key = (-1, -1)
        self.writable = writable
        self._directory = directory
        self._readahead = readahead
        self._durable = durable
        self._unchecked = verify
        self._closed = False
        self._mark = ref(self)
        self.data = directory.open(_DATA)
        self._key = self.data.opened.st_dev, self.data.opened.st_ino
        try:
            self._prepare()
            if self._unchecked:
                self.check()
        except BaseException:
            self.close()
            raise

    def run(
        self,
        action: Callable[[lmdb.Transaction, OpenFile, *_Arguments], _T],
        *arguments: *_Arguments,
        write: bool = False,
    ) -> _T:
        """Call `action` with a transaction, the databases (`OpenFile`) and `arguments`.

        The transaction returns views of the map, which must not be kept. An `action` that writes
        may be called again, with a larger map.
        """
        while True:
            file, token, too_small = self._file, Operation(), 0
            mark = ref(token)
            try:
                file.active[mark] = get_ident()
                env = file.env
                if (
                    env is not None
                    and not file.foreign
                    and not ((forks or file.changing) and must_wait(mark, file))
                    and not (write and (file.failed or not file.writable))
                ):
                    txn = env.begin(write=write, buffers=True)
                    try:
                        result = action(txn, file, *arguments)
                        if write:
                            if file.foreign:
                                raise ReadOnlyStoreError(
                                    "this process was forked during a write to "
                                    f"{self._directory.path}; only its parent can finish it"
                                )
                            txn.commit()
                        return result
                    finally:
                        if not file.foreign:  # otherwise the transaction is the parent's
                            txn.abort()
            except (lmdb.MapFullError, lmdb.MapResizedError):
                too_small = file.map_size
            except lmdb.PanicError:
                file.failed = True
            except lmdb.ReadersFullError as error:
                if env is None or not env.reader_check():  # it frees slots of killed processes
                    raise self._readers_full() from error
            except lmdb.Error as error:
                file.failed |= write
                if write and self._is_short_of_space(error):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                raise
            finally:
                file.active.pop(mark, None)
                if self._closed:
                    self.close()
            self._prepare(too_small)
            if self._file.map_size <= too_small:
                raise self._no_larger_map(write)

    def sync(self) -> None:
        """Sync committed data to the disk."""
        self.run(self._sync, write=True)

    def check(self) -> None:
        """Check all pages of the last transaction."""
        for _ in range(_CHECK_ATTEMPTS):
            if self.run(self._is_checked):
                return
        raise DamagedStoreError(f"{self._directory.path}: the transaction numbers do not match")

    def close(self) -> None:
        """Release the environment. Operations in progress end as if it were open."""
        self._closed = True
        for file in {self._file, open_files.get(self._key)}:
            if file is not None:
                file.users.pop(self._mark, None)
                self._close_unless_used(file)

    def __del__(self) -> None:
        if "_file" in vars(self):  # missing if __init__ was interrupted
            self.close()

    def _close_unless_used(self, file: OpenFile) -> None:
        token = Operation()
        mark = ref(token)
        while not (file.env is None or file.foreign or file.is_used() or file.operations()):
            try:
                file.active[mark] = get_ident()
                if forks or file.claim(mark)[0] is not mark:
                    return  # a fork closes it; a thread that changes it uses it
                if not file.is_used() and len(file.operations()) == 1:
                    env, file.env = file.env, None
                    if len(file.operations()) > 1:
                        file.env = env  # an operation has just begun
                    else:
                        env.close()
                        open_files.pop(self._key, None)
            finally:
                file.unclaim(mark)
                file.active.pop(mark, None)

    def _prepare(self, too_small: int = 0) -> None:
        """Open the environment if necessary. Wait for forks and other threads that change it.

        If it is opened again, its map is longer than `too_small`, if possible.
        """
        token = Operation()
        mark = ref(token)
        file = self._file
        try:
            while True:
                file = open_files.get(self._key) or open_files.setdefault(self._key, OpenFile())
                try:
                    file.users[self._mark] = None
                    file.active[mark] = get_ident()
                    if self._is_prepared(file, mark, too_small):
                        self._file = file
                        return
                finally:
                    file.active.pop(mark, None)
                time.sleep(PAUSE)
        finally:
            file.unclaim(mark)

    def _is_prepared(self, file: OpenFile, mark: "ref[Operation]", too_small: int) -> bool:
        interrupted = file.interrupted(mark)
        if must_wait(mark):
            file.unclaim(mark)
            return False
        claimant, thread = file.claim(mark)
        if claimant is not mark:
            if interrupted or thread == get_ident():
                raise self._interrupted()
            return False
        if open_files.get(self._key) is not file:  # it was closed meanwhile
            file.unclaim(mark)
            return False
        if file.env is not None:
            fits = file.writable or not self.writable
            if fits and not file.failed and file.map_size > too_small:
                return True
            if interrupted:
                raise self._interrupted()
            if file.others():
                return False  # the claim is kept, so no new operation begins
            env, file.env = file.env, None
            env.close()
        try:
            return self._open(file, too_small)
        except lmdb.MapResizedError:  # a writer has just made the file longer
            return False
        except lmdb.ReadersFullError as error:
            raise self._readers_full() from error

    def _open(self, file: OpenFile, too_small: int) -> bool:
        old = inherited.get(self._key)
        if old is file:  # a signal handler has just forked this process
            return False
        if old is not None:
            if old.operations():
                raise self._interrupted()
            del inherited[self._key]
            if old.env is not None:
                old.env.close()
        first, second = read_metas(self.data.fd)
        used = (max(first.last_page, second.last_page) + 1) * first.page_size
        locks = _allocate_lock_file(self._directory, must=self.writable)
        env, size = self._map(used, too_small, locks)
        try:
            found = _data_file(self._directory)
            if (found.st_dev, found.st_ino) != self._key:
                raise ReadFailedError(
                    errno.ESTALE,
                    f"{self._directory.path / _DATA} was replaced since the store was opened; "
                    "open the store again",
                )
            while self._unchecked:
                with env.begin() as txn:
                    self._unchecked = not self._check(txn, locks)
            if self.writable:
                env.reader_check()  # free the slots of killed processes
                # Without this transaction, each `open_db` would begin its own.
                with env.begin(write=True) as txn:
                    images, labels = (env.open_db(name, txn, create=False) for name in _NAMES)
            else:
                images, labels = (env.open_db(name, create=False) for name in _NAMES)
        except BaseException:
            env.close()
            raise
        if file.foreign:  # a signal handler has just forked this process
            env.close()
            return False
        file.images, file.labels = images, labels
        file.map_size, file.writable, file.locks, file.failed = size, self.writable, locks, False
        file.env = env
        return True

    def _map(self, used: int, too_small: int, locks: bool) -> tuple[lmdb.Environment, int]:
        """Open it with the longest map that is possible."""
        needed = max(2 * used, 2 * too_small, _LEAST_MAP)
        sizes = [_MAP] if needed < _MAP else []
        # On Windows, a reader's map is as long as the file, whatever it asks for.
        sizes += [needed, used] if self.writable or os.name != "nt" else [used]
        path = _path(self._directory)
        for size in sizes:
            try:
                return lmdb.open(
                    path,
                    map_size=size,
                    max_dbs=2,
                    max_readers=_READERS,
                    # A spare transaction would save 0.3 us per read. But it would keep a slot while
                    # nothing is read, and a child that closes its copy would free the slot of its
                    # parent.
                    max_spare_txns=0,
                    create=False,
                    readonly=not self.writable,
                    lock=locks,
                    readahead=self._readahead,
                    sync=self._durable,
                ), size
            except (lmdb.MemoryError, lmdb.InvalidParameterError):  # not enough addresses
                if size == sizes[-1]:
                    raise
            except (lmdb.MapResizedError, lmdb.ReadersFullError):
                raise
            except lmdb.Error as error:
                text = str(error).replace(os.fsdecode(path), str(self._directory.path))
                if "already open" in text:
                    raise ReadFailedError(
                        errno.EBUSY, f"{text} Close that lmdb.Environment first."
                    ) from None
                raise type(error)(text) from None
        raise AssertionError("there is always a size")

    @staticmethod
    def _sync(txn: lmdb.Transaction, file: OpenFile) -> None:
        if file.env is not None:
            file.env.sync(True)

    def _is_checked(self, txn: lmdb.Transaction, file: OpenFile) -> bool:
        return self._check(txn, file.locks)

    def _check(self, txn: lmdb.Transaction, locks: bool) -> bool:
        """Check all pages of a transaction; False if a writer has overwritten some of them."""
        number = txn.id()
        meta = read_metas(self.data.fd)[number % 2]
        if meta.transaction != number:
            return False
        try:
            check_pages(self.data.fd, meta)
        except DamagedStoreError:
            if locks or read_metas(self.data.fd)[number % 2].transaction == number:
                raise
            return False
        return True

    def _is_short_of_space(self, error: lmdb.Error) -> bool:
        """Whether the disk is full, if LMDB says that it could write only a part."""
        if not str(error).endswith(os.strerror(errno.EIO)) or not hasattr(os, "fstatvfs"):
            return False
        status = os.fstatvfs(self._directory.fd)
        return status.f_bavail * status.f_frsize < _SHORT_OF_SPACE

    def _readers_full(self) -> ReadFailedError:
        return ReadFailedError(
            errno.EAGAIN,
            f"{self._directory.path}: all {_READERS:,} slots for readers are in use by processes "
            "and threads that are reading now; try again, or close the store in some of them",
        )

    def _interrupted(self) -> ReadFailedError:
        return ReadFailedError(
            errno.EDEADLK,
            f"{self._directory.path} is in use by the code that a signal handler interrupted, so "
            "the handler cannot open it; open it after the handler has returned",
        )

    def _no_larger_map(self, write: bool) -> ReadFailedError | StoreFullError:
        what = (
            f"{self._directory.path}: the map cannot be longer than {self._file.map_size:,} bytes, "
            "because the address space of this process is limited; raise its limit (ulimit -v)"
        )
        if write:
            return StoreFullError(errno.ENOMEM, f"{what}; the store is as it was before the call")
        return ReadFailedError(errno.ENOMEM, what)


def _path(directory: Directory) -> bytes:
    """The path that LMDB opens: the open directory itself, if descriptors have paths."""
    if _BY_DESCRIPTOR:
        return f"{_DESCRIPTORS}/{directory.fd}".encode()
    return os.fsencode(directory.path)


def _data_file(directory: Directory) -> os.stat_result:
    """The status of the data file that LMDB found by that path."""
    if _BY_DESCRIPTOR:
        return directory.status(_DATA)
    return os.stat(directory.path / _DATA)


def _allocate_lock_file(directory: Directory, *, must: bool = True) -> bool:
    """Create lock.mdb without holes.

    LMDB writes to it through a map. If a write met a hole and the disk were full, a signal would
    end the process. Do not call this while this process has the environment open: closing the file
    would free LMDB's locks.

    Returns
    -------
    bool
        Whether this process may write to the file. If it `must` and may not, OSError is raised.
    """
    try:
        file = directory.open(_LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if (
            must
            or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS)
            or not is_ours(error)
        ):
            raise
        return False
    status = file.opened
    if status.st_size == 0:
        _keep_in_place(file.fd)
    length = max(status.st_size, _LOCK_FILE_BYTES)
    if hasattr(os, "posix_fallocate") and status.st_blocks * 512 < length:
        os.posix_fallocate(file.fd, 0, length)  # keeps what other processes wrote there
    return True


if sys.platform == "linux":
    _GET_FLAGS, _SET_FLAGS, _NO_COPY_ON_WRITE = 0x80086601, 0x40086602, 0x00800000

    def _keep_in_place(fd: int) -> None:
        """Turn off copy-on-write for an empty file: btrfs would need new blocks for each write."""
        try:
            flags = int.from_bytes(fcntl.ioctl(fd, _GET_FLAGS, bytes(8)), sys.byteorder)
            flags |= _NO_COPY_ON_WRITE
            fcntl.ioctl(fd, _SET_FLAGS, flags.to_bytes(8, sys.byteorder))
        except OSError as error:  # most file systems write in place anyway, and refuse the flag
            if not is_ours(error):
                raise

else:

    def _keep_in_place(fd: int) -> None:
        """Nothing to do: no other system has btrfs."""
