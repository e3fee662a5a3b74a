"""The errors of this package, as one tree.

Every error is a `StorageError`. Each is also the built-in exception that fits, so code that does
not know this package catches it, too::

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
    |-- ReadFailedError (OSError)              the system failed to read; the data may be intact
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
    """A write was attempted on a store that this process may only read."""


class ClosedStoreError(StorageError, ValueError):
    """A store was used after `close`."""


class WriteFailedError(StorageError, OSError):
    """A write failed. The store holds what it held before the call."""


class StoreFullError(WriteFailedError):
    """There is no space for a write on the disk, in the quota or in the address space."""


class ReadFailedError(StorageError, OSError):
    """The operating system failed to read. The data may be intact."""


class DamagedStoreError(StorageError, ValueError):
    """What is on disk is not what this package wrote."""


class NotAStoreError(DamagedStoreError):
    """The path is something other than a store."""


class UnsupportedVersionError(DamagedStoreError):
    """The store was written in a newer format than this version reads."""


class DamagedImageError(DamagedStoreError):
    """Images are not what was written, or cannot be decoded.

    Parameters
    ----------
    message : str
        What is wrong, without the indices.
    indices : sequence of int
        The damaged images.

    Attributes
    ----------
    indices : tuple of int
        The damaged images, ascending.
    """

    def __init__(self, message: str, indices: Sequence[int]) -> None:
        # Exception gets both arguments, so that the error can be pickled.
        super().__init__(message, tuple(indices))
        self.indices = tuple(sorted(set(indices)))

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.indices[:10]))
        if len(self.indices) > 10:
            shown += f", and {len(self.indices) - 10:,} more"
        noun = "image" if len(self.indices) == 1 else "images"
        return f"{noun} {shown}: {self.args[0]}"


# System errors that mean that a store is not what was written. All others concern this machine or
# this moment.
_DAMAGE = frozenset(
    {
        None,
        errno.EFBIG,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.ENXIO,
    }
)
_LIBRARIES = frozenset({"storage_impl", "h5py", "lmdb", "numpy", "PIL", "simplejpeg", "xxhash"})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def _number(cause: BaseException) -> int | None:
    """The errno of an error, even if a library kept only its text."""
    number: int | None = getattr(cause, "errno", None)
    if number is None:
        text = str(cause)
        number = next((n for n in errno.errorcode if text.endswith(os.strerror(n))), None)
    return number


def is_ours(error: BaseException) -> bool:
    """Whether this package, or a library that it calls, raised an error.

    A signal handler can run during any call, and can raise anything, for instance TimeoutError,
    which is an OSError. This package must not catch or translate such an error.
    """
    traceback = error.__traceback__
    if traceback is None:
        return True
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = str(traceback.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _LIBRARIES


def write_error(what: str, cause: BaseException, state: str) -> WriteFailedError:
    """The error to raise if writing failed with `cause` and left the store in `state`."""
    number = _number(cause)
    kind = StoreFullError if number in _FULL else WriteFailedError
    hint = "; free some space and call again" if kind is StoreFullError else ""
    message = f"{what}: {cause}; the store {state}{hint}"
    return kind(number, message) if number is not None else kind(message)


def read_error(what: str, cause: BaseException, index: int | None = None) -> StorageError:
    """The error to raise if reading failed with `cause`; `index` is the image, if it is known."""
    number = _number(cause)
    if number in _FULL:  # some libraries create files when they open one
        return StoreFullError(number, f"{what}: {cause}; free some space and call again")
    if number not in _DAMAGE:
        return ReadFailedError(number, f"{what}: {cause}")
    if index is not None:
        return DamagedImageError(f"{what}: {cause}", [index])
    return DamagedStoreError(f"{what}: {cause}")
