"""Files as a store needs them: regular or refused, synced, opened from their directory.

Names below a store may come from a stranger. A FIFO would hang the process that opens it, and a
symbolic link would lead it elsewhere, so nothing is opened but regular files, and nothing by a
path: a `Directory` is opened once and everything in it from its descriptor. A store that is open
stays with its directory when that is renamed, and no link that is put in its way is followed.

A descriptor is closed when nobody uses it any more. A thread that reads while another closes the
store keeps its files open until it has read, and never reads from a number that meanwhile stands
for another file.
"""

import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from storage_impl._threads import each

if sys.platform != "win32":
    import fcntl

# Absent on Windows: it has no FIFOs, and few may make links there.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_REGULAR_ONLY = _NOFOLLOW | getattr(os, "O_NONBLOCK", 0)
_ALWAYS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_AT = os.open in os.supports_dir_fd


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


class File:
    """A descriptor that is closed when nobody uses it any more.

    For what stays open: Python ignores what a signal's handler raises while an object is finalized,
    so a file that is open for a moment is closed in the ordinary way.

    Attributes
    ----------
    fd : int
    """

    __slots__ = ("_place", "fd")

    def __init__(self, fd: int, directory: Path, name: str) -> None:
        self.fd = fd
        self._place = directory, name

    @property
    def path(self) -> Path:
        """Where it was opened, for messages: made when asked for, it takes as long as opening."""
        directory, name = self._place
        return directory / name

    def __del__(self, close=os.close) -> None:  # type: ignore[no-untyped-def]
        # A network's file system may fail here; what was written was synced before. Of an opening
        # that failed there is no descriptor.
        with suppress(OSError, AttributeError):
            close(self.fd)

    def size(self) -> int:
        """The length of the file in bytes."""
        return os.fstat(self.fd).st_size


class Directory(File):
    """A directory that is open: names in it are looked up there, wherever it is moved.

    Parameters
    ----------
    path : Path
    parent : Directory, optional
        The directory that it is in, where its name must be no link; else `path` says where it is.

    Raises
    ------
    OSError
        There is no directory of that name.
    """

    __slots__ = ("path",)
    path: Path

    def __init__(self, path: Path, parent: "Directory | None" = None) -> None:
        if not _AT:  # pragma: no cover
            check_directory(path)
            self.fd, self.path = -1, path
            return
        flags = os.O_RDONLY | _DIRECTORY | _ALWAYS
        if parent is None:
            self.fd = os.open(path, flags)
        else:
            self.fd = os.open(path.name, flags | _NOFOLLOW, dir_fd=parent.fd)
        self.path = path

    @property
    def _fd(self) -> int | None:
        return self.fd if _AT else None

    def _name(self, name: str) -> str:
        return name if _AT else str(self.path / name)

    def identity(self) -> tuple[int, int]:
        """What tells this directory from all others: device and inode."""
        status = os.fstat(self.fd) if _AT else os.stat(self.path)
        return status.st_dev, status.st_ino

    def open(self, name: str, flags: int = os.O_RDONLY) -> File:
        """Open a file of this directory, which must be a regular one.

        Raises
        ------
        OSError
            As `os.open`, and with ``errno.ELOOP`` or ``errno.EINVAL`` for a symbolic link,
            a directory, a FIFO, a socket or a device.
        """
        return File(self._open(name, flags), self.path, name)

    def _open(self, name: str, flags: int) -> int:
        fd = os.open(self._name(name), flags | _REGULAR_ONLY | _ALWAYS, 0o666, dir_fd=self._fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(self.path / name))
        return fd

    def subdirectory(self, name: str) -> "Directory":
        """Open a directory of this one, and no link to one."""
        return Directory(self.path / name, self)

    def status(self, name: str) -> os.stat_result:
        """The status of what has that name, of a link its own."""
        return os.stat(self._name(name), dir_fd=self._fd, follow_symlinks=False)

    def regular(self, name: str) -> os.stat_result:
        """The status of a file that a library is about to open by its name; OSError if no file."""
        status = self.status(name)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(self.path / name))
        return status

    def has(self, name: str) -> bool:
        """Whether there is anything of that name."""
        try:
            self.status(name)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        """The names in it, in no order."""
        return os.listdir(self.fd if _AT else self.path)

    def read(self, name: str, limit: int) -> bytes:
        """The whole content of a regular file of at most `limit` bytes, else ``errno.EFBIG``."""
        fd = self._open(name, os.O_RDONLY)
        try:
            size = os.fstat(fd).st_size
            if size > limit:
                raise OSError(errno.EFBIG, f"{size:,} bytes, at most {limit:,} are possible")
            return os.read(fd, size)
        finally:
            os.close(fd)

    def write(self, name: str, data: bytes | memoryview, *, durable: bool) -> None:
        """Write a file that did not exist; a leftover of the same name is replaced."""
        with self.new(name) as fd:
            write_all(fd, data)
            if durable:
                sync(fd)

    @contextmanager
    def new(self, name: str) -> Iterator[int]:
        """Open a file that did not exist, for writing; a leftover of the same name is replaced."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            fd = self._open(name, flags)
        except FileExistsError:
            self.remove(name)
            fd = self._open(name, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def make(self, name: str) -> None:
        """Make a directory."""
        os.mkdir(self._name(name), dir_fd=self._fd)

    def rename(self, old: str, new: str) -> None:
        """Rename a file, over another where there is one."""
        os.replace(self._name(old), self._name(new), src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove a file."""
        os.unlink(self._name(name), dir_fd=self._fd)

    def remove_directory(self, name: str) -> None:
        """Remove an empty directory."""
        os.rmdir(self._name(name), dir_fd=self._fd)

    def sync_name(self, name: str) -> None:
        """Bring a file's content to the disk."""
        # Windows syncs only what is open for writing; elsewhere the owner alone may have the right.
        fd = self._open(name, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            sync(fd)
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Bring the names in it to the disk, where the system can."""
        if os.name != "nt":
            os.fsync(self.fd)

    def sync_all(self) -> None:
        """Bring its files and their names to the disk, all at once; it has few."""
        names = [name for name in self.names() if stat.S_ISREG(self.status(name).st_mode)]
        each(_call, [(self.sync,), *((self.sync_name, name) for name in names)])


def check_directory(path: str | Path) -> None:
    """Raise OSError unless `path` is a directory, and no link to one."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however often the system takes only a part."""
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


if hasattr(os, "pread"):
    pread = os.pread

    def pwrite(fd: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        while data:
            written = os.pwrite(fd, data, offset)
            data = data[written:]
            offset += written

else:  # pragma: no cover
    _position = threading.Lock()  # which all threads share

    def pread(fd: int, length: int, offset: int) -> bytes:
        """Read up to `length` bytes at `offset`."""
        with _position:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, length)

    def pwrite(fd: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        with _position:
            os.lseek(fd, offset, os.SEEK_SET)
            write_all(fd, data)


if hasattr(os, "preadv"):
    preadv = os.preadv
else:  # pragma: no cover - Windows

    def preadv(fd: int, buffers: Any, offset: int) -> int:  # type: ignore[misc]
        """Read into one buffer at `offset`, as many bytes as there are."""
        view = memoryview(buffers[0]).cast("B")
        data = pread(fd, len(view), offset)
        view[: len(data)] = data
        return len(data)


def sync(fd: int) -> None:
    """Bring a file's content to the disk, and not only to the disk's own cache."""
    if sys.platform == "darwin":  # pragma: no cover
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_together(fd: int, directory: Directory) -> None:
    """Bring a file and the names in its directory to the disk, at once: a disk's cache is slow."""
    each(_call, [(sync, fd), (directory.sync,)])


def _call(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)


def begin_writing(fd: int, offset: int, length: int) -> None:
    """Have the system begin to write a part of a file to the disk, where it can be asked to."""
    if hasattr(os, "posix_fadvise"):
        # What is not written yet cannot be dropped: it is written, and stays meanwhile.
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


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
