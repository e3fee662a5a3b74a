"""Open, write and sync the files of a store, and refuse everything except regular files.

A store may come from somebody the user does not trust. A FIFO would hang the process that opens it,
and a symbolic link would lead elsewhere. So only regular files are opened, and never by a path: a
`Directory` is opened once, and its files are opened through its descriptor. An open store thus
keeps its directory when that is renamed, and follows no link that is put in its place.

A descriptor is closed when its last user drops it. If one thread closes the store while another one
reads, the files stay open until the read is done. So no thread reads from a descriptor number that
the system has meanwhile given to another file.
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

# Absent on Windows, which has no FIFOs, and where few users may create links.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_REGULAR_ONLY = _NOFOLLOW | getattr(os, "O_NONBLOCK", 0)
_ALWAYS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_AT = os.open in os.supports_dir_fd


class DiskUsage(NamedTuple):
    """The disk space that a store takes, in bytes.

    Attributes
    ----------
    apparent : int
        The sum of the lengths of its files.
    allocated : int
        The blocks that the file system allocated to its files and directories, as `du` counts them.
        The same as `apparent` on systems that do not report blocks (Windows).
    """

    apparent: int
    allocated: int


class File:
    """A descriptor that is closed when nobody uses it any more.

    It is for files that stay open. A file that is open only for a moment is closed explicitly,
    because Python ignores what a signal handler raises while an object is finalized.

    Attributes
    ----------
    fd : int
    opened : os.stat_result
        Its status when it was opened.
    """

    __slots__ = ("_place", "fd", "opened")
    opened: os.stat_result

    def __init__(self, opened: tuple[int, os.stat_result], directory: Path, name: str) -> None:
        self.fd, self.opened = opened
        self._place = directory, name

    @property
    def path(self) -> Path:
        """The path, for messages. It is built on demand, because that takes as long as opening."""
        directory, name = self._place
        return directory / name

    def __del__(self, close=os.close) -> None:  # type: ignore[no-untyped-def]
        # OSError: a network file system may fail here, but the data was synced before.
        # AttributeError: the file could not be opened, so there is no descriptor.
        try:  # noqa: SIM105 - `suppress` takes as long as closing
            close(self.fd)
        except (OSError, AttributeError):
            pass

    def size(self) -> int:
        """The length of the file in bytes."""
        return os.fstat(self.fd).st_size


class Directory(File):
    """An open directory. Names are looked up in it, even after it was moved.

    Parameters
    ----------
    path : Path
    parent : Directory, optional
        The directory that contains it under the last name of `path`, which must not be a link.
        Without a parent, `path` is opened.

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
        """Device and inode, which identify the directory."""
        status = os.fstat(self.fd) if _AT else os.stat(self.path)
        return status.st_dev, status.st_ino

    def open(self, name: str, flags: int = os.O_RDONLY) -> File:
        """Open a regular file of this directory.

        Raises
        ------
        OSError
            As `os.open`; also for a symbolic link, a directory, a FIFO, a socket or a device, with
            ``errno.ELOOP`` or ``errno.EINVAL``.
        """
        return File(self._open(name, flags), self.path, name)

    def _open(self, name: str, flags: int) -> tuple[int, os.stat_result]:
        fd = os.open(self._name(name), flags | _REGULAR_ONLY | _ALWAYS, 0o666, dir_fd=self._fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(self.path / name))
        return fd, status

    def subdirectory(self, name: str) -> "Directory":
        """Open a directory in this one. It must not be a link."""
        return Directory(self.path / name, self)

    def status(self, name: str) -> os.stat_result:
        """The status of the entry of that name. A link is not followed."""
        return os.stat(self._name(name), dir_fd=self._fd, follow_symlinks=False)

    def regular(self, name: str) -> os.stat_result:
        """The status of a regular file that a library will open by name; OSError for others."""
        status = self.status(name)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(self.path / name))
        return status

    def has(self, name: str) -> bool:
        """Whether there is an entry of that name."""
        try:
            self.status(name)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        """The names of the entries, in no particular order."""
        return os.listdir(self.fd if _AT else self.path)

    def read(self, name: str, limit: int) -> bytes:
        """Read a whole regular file; ``errno.EFBIG`` if it is longer than `limit` bytes."""
        fd, status = self._open(name, os.O_RDONLY)
        try:
            size = status.st_size
            if size > limit:
                raise OSError(errno.EFBIG, f"{size:,} bytes, but at most {limit:,} are accepted")
            return pread(fd, size, 0)  # not at a position that a forked child shares
        finally:
            os.close(fd)

    def write(self, name: str, data: bytes | memoryview, *, durable: bool) -> None:
        """Write a new file. A leftover of the same name is replaced."""
        with self.new(name) as fd:
            write_all(fd, data)
            if durable:
                sync(fd)

    @contextmanager
    def new(self, name: str) -> Iterator[int]:
        """Open a new file for writing. A leftover of the same name is replaced."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            fd, _ = self._open(name, flags)
        except FileExistsError:
            self.remove(name)
            fd, _ = self._open(name, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def make(self, name: str) -> None:
        """Create a directory."""
        os.mkdir(self._name(name), dir_fd=self._fd)

    def rename(self, old: str, new: str) -> None:
        """Rename a file. An existing file of the new name is replaced."""
        os.replace(self._name(old), self._name(new), src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove a file."""
        os.unlink(self._name(name), dir_fd=self._fd)

    def remove_directory(self, name: str) -> None:
        """Remove an empty directory."""
        os.rmdir(self._name(name), dir_fd=self._fd)

    def sync_name(self, name: str) -> None:
        """Sync a file to the disk."""
        # Windows syncs only files that are open for writing. Elsewhere, only the owner may be
        # permitted to open the file for writing.
        fd, _ = self._open(name, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            sync(fd)
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Sync the names in the directory to the disk, if the system can."""
        if os.name != "nt":
            os.fsync(self.fd)

    def sync_all(self) -> None:
        """Sync its files and their names to the disk, all at once. There are few."""
        names = [name for name in self.names() if stat.S_ISREG(self.status(name).st_mode)]
        each(_call, [(self.sync,), *((self.sync_name, name) for name in names)])


def check_directory(path: str | Path) -> None:
    """Raise OSError unless `path` is a directory and not a link to one."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, with several calls if the system writes only a part."""
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
    _position = threading.Lock()  # guards the file's position, which all threads share

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
        """Read into one buffer from `offset` on, up to the end of the file."""
        view = memoryview(buffers[0]).cast("B")
        data = pread(fd, len(view), offset)
        view[: len(data)] = data
        return len(data)


def sync(fd: int) -> None:
    """Sync a file to the disk itself, not only to the disk's own cache."""
    if sys.platform == "darwin":  # pragma: no cover
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_together(fd: int, directory: Directory) -> None:
    """Sync a file and the names in its directory at once, because flushing a disk is slow."""
    each(_call, [(sync, fd), (directory.sync,)])


def _call(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)


def begin_writing(fd: int, offset: int, length: int) -> None:
    """Ask the system to start writing a part of a file to the disk, if it can."""
    if hasattr(os, "posix_fadvise"):
        # The system cannot drop pages that are not on the disk yet. It starts writing them, and
        # keeps them.
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def disk_usage(directory: Path) -> DiskUsage:
    """The disk space of a directory and everything below it."""
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
                with suppress(FileNotFoundError):  # a writer has just renamed it
                    yield os.lstat(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
