"""The writer's lock. Its file also shows if a store was copied while a writer had it open."""

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
_NOTE = 64  # bytes, longer than a note


class WriterLock:
    """The lock of a store: only one store object, in one process, may write.

    The system frees the lock when the process ends, for whatever reason. While the lock is held,
    its file has the inode of its directory. If the file has another inode, the store was copied
    while a writer had it open, for instance with `cp` during a write: see `copied`.

    Parameters
    ----------
    directory : Directory
        The directory of the store. The lock file is created if it is missing.

    Raises
    ------
    StoreLockedError
        Another writer holds the lock.
    NotAStoreError
        The lock file is not a regular file.
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
                "close it there first, or open it for reading",
            ) from None

    def note(self, directory: Directory) -> None:
        """Write the inode of the directory into the lock file, if the disk accepts it."""
        with suppress(OSError):
            pwrite(self._file.fd, _note_of(directory), 0)

    def release(self) -> None:
        """Free the lock. The file stays: removing it would race with the next writer."""
        try:
            with suppress(OSError):  # a note that stays is harmless, as it fits this directory
                os.ftruncate(self._file.fd, 0)
        finally:
            # A forked child shares the lock, and would keep it if this process only closed the
            # file.
            _unlock(self._file.fd)
            del self._file

    def abandon(self) -> None:
        """Drop the lock in a forked child. The parent still holds it."""
        del self._file


def copied(directory: Directory) -> bool:
    """Whether the store was copied from another directory while a writer had it open there."""
    try:
        if not directory.status(NAME).st_size:
            return False  # as a rule
        file = directory.open(NAME)
        noted = pread(file.fd, _NOTE, 0)
    except OSError:
        return False  # the next writer reports what is wrong with the file
    # A kill or a power cut may leave a part of a note, which means nothing.
    return _FORM.fullmatch(noted) is not None and noted != _note_of(directory)


def _note_of(directory: Directory) -> bytes:
    return b"writing to directory %020d\n" % directory.identity()[1]


if sys.platform == "win32":  # pragma: no cover
    _BEYOND = 1 << 20  # Windows blocks reads of locked bytes, so lock one after the note

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def _lock(descriptor: int) -> None:
        # flock, because lockf does not exclude a second writer in the same process, and closing any
        # descriptor of the file would drop its lock.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
