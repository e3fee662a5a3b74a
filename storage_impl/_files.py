"""Files as a store needs them: regular or refused, synced, locked, counted.

Names below a store may come from a stranger. A FIFO would hang the process that
opens it and a symbolic link would lead it elsewhere, so nothing is opened here
but regular files at the name itself.
"""

import errno
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from storage_impl.errors import NotAStoreError, StoreLockedError

if sys.platform == "win32":  # pragma: no cover
    import msvcrt
else:
    import fcntl

# Absent on Windows: it has no FIFOs, and few may make links there.
_REGULAR_ONLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_FLAGS = _REGULAR_ONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


# Deflate shrinks 1,032 times at most: what declares more than this holds is not what it says.
MAX_RATIO = 1100


class DiskUsage(NamedTuple):
    """Bytes that a store takes.

    Attributes
    ----------
    apparent : int
        The lengths of its files.
    allocated : int
        The blocks that the file system gave its files and directories, as `du`
        counts them. Where the system does not tell (Windows), the same as `apparent`.
    """

    apparent: int
    allocated: int


def open_regular(path: str | Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Open a file that must be a regular one, and return its descriptor.

    Raises
    ------
    OSError
        As `os.open`, and with ``errno.ELOOP`` or ``errno.EINVAL`` for a symbolic link,
        a directory, a FIFO, a socket or a device.
    """
    descriptor = os.open(path, flags | _FLAGS, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def check_regular(path: Path) -> os.stat_result:
    """The status of a file that a library is about to open by its name."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status


def check_directory(path: str | Path) -> None:
    """Raise OSError unless `path` is a directory, and no link to one."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))


def read_regular(path: str | Path, limit: int) -> bytes:
    """The whole content of a regular file of at most `limit` bytes.

    Raises
    ------
    OSError
        As `open_regular`, and with ``errno.EFBIG`` when the file is longer.
    """
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"{size:,} bytes, more than the {limit:,} possible")
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def write_new(path: str | Path, data: bytes | memoryview, *, durable: bool) -> None:
    """Write a file that did not exist; a leftover of the same name is replaced."""
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        os.unlink(path)
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        write_all(descriptor, data)
        if durable:
            sync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however often the system takes only a part."""
    written = os.write(descriptor, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


if hasattr(os, "pread"):
    pread = os.pread

    def pwrite(descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        while data:
            written = os.pwrite(descriptor, data, offset)
            data = data[written:]
            offset += written

else:  # pragma: no cover
    _position = threading.Lock()  # which all threads share

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        """Read up to `length` bytes at `offset`."""
        with _position:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, length)

    def pwrite(descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        with _position:
            os.lseek(descriptor, offset, os.SEEK_SET)
            write_all(descriptor, data)


def sync(descriptor: int) -> None:
    """Bring a file's content to the disk, and not only to the disk's own cache."""
    if sys.platform == "darwin":  # pragma: no cover
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_file(path: str | Path) -> None:
    """Bring a file's content to the disk."""
    # Windows syncs only what is open for writing; elsewhere the owner alone may have the right.
    descriptor = open_regular(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: str | Path) -> None:
    """Bring a directory's entries to the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class WriterLock:
    """The lock that a writer holds: one process, and there one store.

    The system frees it when the process ends, however it ends.

    Parameters
    ----------
    path : Path
        The lock file, made when missing.

    Raises
    ------
    StoreLockedError
        Another writer holds it.
    NotAStoreError
        Something else than a regular file has its name.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO):
                raise NotAStoreError(f"{path}: the lock file is not a regular file") from error
            raise
        try:
            _lock(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise  # a file system without locks
            raise StoreLockedError(
                error.errno,
                f"{path.parent} is open for writing in another store object or process; "
                "close that one first, or open for reading",
            ) from None

    def is_at(self, path: Path) -> bool:
        """Whether `path` is still the file that was locked."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Free the lock; the file stays, for removing it would race with the next writer."""
        # A child that was forked meanwhile shares the lock, and closing would leave it to it.
        _unlock(self._descriptor)
        os.close(self._descriptor)

    def abandon(self) -> None:
        """Let go of a lock that another process or store goes on holding."""
        os.close(self._descriptor)


if sys.platform == "win32":  # pragma: no cover

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def _lock(descriptor: int) -> None:
        # flock, not lockf: the locks of lockf do not exclude a second writer in one process,
        # and closing any descriptor of the file would drop them.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def disk_usage(directory: Path) -> DiskUsage:
    """Bytes of everything below a directory, and of the directory itself."""
    apparent = allocated = 0
    for status in _walk(directory):
        if not stat.S_ISDIR(status.st_mode):
            apparent += status.st_size
        allocated += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return DiskUsage(apparent, allocated)


def _walk(directory: Path) -> Iterator[os.stat_result]:
    yield os.lstat(directory)
    pending: list[str | Path] = [directory]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # a writer renamed it meanwhile
                    yield os.lstat(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
