"""The lock that a writer holds, and by which a copy of a store in use is known."""

import errno
import os
import re
import sys
from contextlib import suppress

from storage_impl._files import Directory, pread, pwrite
from storage_impl.errors import NotAStoreError, StoreLockedError

if sys.platform == "win32":  # pragma: no cover
    import msvcrt
else:
    import fcntl

NAME = "write.lock"
_FORM = re.compile(rb"writing to directory \d{20}\n")
_NOTE = 64  # bytes, more than a note has


class WriterLock:
    """The lock of a store: one process may write, and there one store object.

    The system frees it when the process ends, however it ends. While it is held the file names
    the directory it is in: one that names another was copied while a writer had the store open
    (see `copied`), for instance by `cp` in the midst of a write.

    Parameters
    ----------
    directory : Directory
        The lock file in it is made when missing.

    Raises
    ------
    StoreLockedError
        Another writer holds it.
    NotAStoreError
        Something else than a regular file has its name.
    """

    def __init__(self, directory: Directory) -> None:
        try:
            self._file = directory.open(NAME, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO):
                path = directory.path / NAME
                raise NotAStoreError(f"{path}: the lock file is not a regular file") from error
            raise
        try:
            _lock(self._file.fd)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise  # a file system without locks
            raise StoreLockedError(
                error.errno,
                f"{directory.path} is open for writing in another store object or process; "
                "close that one first, or open for reading",
            ) from None

    def note(self, directory: Directory) -> None:
        """Write down which directory is being written to, where the disk takes it."""
        with suppress(OSError):
            pwrite(self._file.fd, _note_of(directory), 0)

    def release(self) -> None:
        """Free the lock; the file stays, for removing it would race with the next writer."""
        try:
            with suppress(OSError):  # the note names this directory, and harms nobody in it
                os.ftruncate(self._file.fd, 0)
        finally:
            # A child that was forked meanwhile shares the lock: closing would leave it to it.
            _unlock(self._file.fd)
            del self._file

    def abandon(self) -> None:
        """Let go, in a forked child, of a lock that the parent goes on holding."""
        del self._file


def copied(directory: Directory) -> bool:
    """Whether the store was copied from another directory while a writer had that open."""
    try:
        file = directory.open(NAME)
        noted = pread(file.fd, _NOTE, 0)
    except OSError:
        return False  # what is wrong with it is for the next writer to say
    # A note that was cut short, by a kill or by a power cut, says nothing.
    return _FORM.fullmatch(noted) is not None and noted != _note_of(directory)


def _note_of(directory: Directory) -> bytes:
    return b"writing to directory %020d\n" % directory.identity()[1]


if sys.platform == "win32":  # pragma: no cover
    _BEYOND = 1 << 20  # Windows lets nobody read what is locked

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def _lock(descriptor: int) -> None:
        # flock, not lockf: the locks of lockf do not exclude a second writer in one process,
        # and closing any descriptor of the file would drop them.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
