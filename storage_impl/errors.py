"""What can go wrong, as one tree.

Every error of this package is a `StorageError`. Each is the built-in exception
that fits as well, so code that knows nothing of this package catches it too::

    StorageError
    |-- InvalidInputError (ValueError)         images, labels, options: nothing was written
    |   `-- InvalidIndexError (IndexError)     an index the store does not have
    |-- UnknownBackendError (ValueError)
    |-- StoreExistsError (FileExistsError)
    |-- StoreNotFoundError (FileNotFoundError)
    |-- StoreLockedError (BlockingIOError)     another writer has the store open
    |-- ReadOnlyStoreError (io.UnsupportedOperation)
    |-- ClosedStoreError (ValueError)
    |-- WriteFailedError (OSError)             the store is as it was before the call
    |   `-- StoreFullError                     no space left on the disk, in the quota or the map
    |-- ReadFailedError (OSError)              the system failed a read; says nothing of the data
    `-- DamagedStoreError (ValueError)         what is on disk is not what was written
        |-- NotAStoreError
        |-- UnsupportedVersionError            written by a newer storage_impl
        `-- DamagedImageError                  `indices` names the images
"""

import errno
import io
import os
from collections.abc import Sequence


class StorageError(Exception):
    """Base class of all errors of this package."""


class InvalidInputError(StorageError, ValueError):
    """An argument was refused before a byte was written."""


class InvalidIndexError(InvalidInputError, IndexError):
    """An index was out of range, negative, boolean or not an integer."""


class UnknownBackendError(StorageError, ValueError):
    """No backend has that name."""


class StoreExistsError(StorageError, FileExistsError):
    """`create_store` was given a path that exists."""


class StoreNotFoundError(StorageError, FileNotFoundError):
    """`open_store` was given a path that does not exist."""


class StoreLockedError(StorageError, BlockingIOError):
    """Another writer has the store open."""


class ReadOnlyStoreError(StorageError, io.UnsupportedOperation):
    """A write to a store that this process may only read."""


class ClosedStoreError(StorageError, ValueError):
    """A store was used after `close`."""


class WriteFailedError(StorageError, OSError):
    """A write failed; the store holds what it held before the call."""


class StoreFullError(WriteFailedError):
    """A write found no space: the disk, the quota or the address space is full."""


class ReadFailedError(StorageError, OSError):
    """The operating system failed a read; the data may be sound."""


class DamagedStoreError(StorageError, ValueError):
    """What is on disk is not what this package wrote."""


class NotAStoreError(DamagedStoreError):
    """The path holds something else than a store."""


class UnsupportedVersionError(DamagedStoreError):
    """The store was written in a newer format than this version reads."""


class DamagedImageError(DamagedStoreError):
    """Images that are not what was written, or cannot be decoded.

    Parameters
    ----------
    message : str
        What is wrong, without the indices.
    indices : sequence of int
        The images concerned.

    Attributes
    ----------
    indices : tuple of int
        The images concerned, ascending.
    """

    def __init__(self, message: str, indices: Sequence[int]) -> None:
        # Both arguments reach Exception, so that the error survives pickling.
        super().__init__(message, tuple(indices))
        self.indices = tuple(sorted(set(indices)))

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.indices[:10]))
        if len(self.indices) > 10:
            shown += f", and {len(self.indices) - 10:,} more"
        noun = "image" if len(self.indices) == 1 else "images"
        return f"{noun} {shown}: {self.args[0]}"


# Errors of the system that are about this machine or this moment, not about the store.
_NOT_DAMAGE = frozenset(
    {
        errno.EACCES,
        errno.EAGAIN,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EPERM,
        errno.ESTALE,
    }
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def _number(cause: BaseException) -> int | None:
    """The system's number of an error, also where a library kept its text alone."""
    number: int | None = getattr(cause, "errno", None)
    if number is None:
        text = str(cause)
        number = next((n for n in errno.errorcode if text.endswith(os.strerror(n))), None)
    return number


def write_error(what: str, cause: BaseException, state: str) -> WriteFailedError:
    """The error to raise when writing failed with `cause`, and left the store in `state`."""
    number = _number(cause)
    kind = StoreFullError if number in _FULL else WriteFailedError
    hint = "; free some space and call again" if kind is StoreFullError else ""
    message = f"{what}: {cause}; the store {state}{hint}"
    return kind(number, message) if number is not None else kind(message)


def read_error(what: str, cause: BaseException, index: int | None = None) -> StorageError:
    """The error to raise when reading, maybe of the image `index`, failed with `cause`."""
    number = _number(cause)
    if number in _FULL:  # some libraries make files of their own when they open one
        return StoreFullError(number, f"{what}: {cause}; free some space and call again")
    if number in _NOT_DAMAGE:
        return ReadFailedError(number, f"{what}: {cause}")
    if index is not None:
        return DamagedImageError(f"{what}: {cause}", [index])
    return DamagedStoreError(f"{what}: {cause}")
