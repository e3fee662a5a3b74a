"""The error tree: each error is the package's and the built-in that fits."""

import errno
import io
import pickle

import pytest

import storage_impl
from storage_impl import StorageError

BUILT_IN = {
    "InvalidInputError": ValueError,
    "InvalidIndexError": IndexError,
    "UnknownBackendError": ValueError,
    "StoreExistsError": FileExistsError,
    "StoreNotFoundError": FileNotFoundError,
    "StoreLockedError": BlockingIOError,
    "ReadOnlyStoreError": io.UnsupportedOperation,
    "ClosedStoreError": ValueError,
    "WriteFailedError": OSError,
    "StoreFullError": OSError,
    "ReadFailedError": OSError,
    "DamagedStoreError": ValueError,
    "NotAStoreError": ValueError,
    "UnsupportedVersionError": ValueError,
    "DamagedImageError": ValueError,
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_tree(name: str) -> None:
    """Each error can be caught as a `StorageError` and as its built-in."""
    error = getattr(storage_impl, name)
    assert issubclass(error, StorageError)
    assert issubclass(error, BUILT_IN[name])


def test_branches() -> None:
    """The errors that are kinds of others are caught with them."""
    assert issubclass(storage_impl.InvalidIndexError, storage_impl.InvalidInputError)
    assert issubclass(storage_impl.StoreFullError, storage_impl.WriteFailedError)
    for name in ("NotAStoreError", "UnsupportedVersionError", "DamagedImageError"):
        assert issubclass(getattr(storage_impl, name), storage_impl.DamagedStoreError)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "DamagedImageError"])
def test_pickle(name: str) -> None:
    """An error that a worker raises reaches the parent with its message."""
    error = getattr(storage_impl, name)("what went wrong")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == "what went wrong"


@pytest.mark.parametrize(
    "name", ["WriteFailedError", "StoreFullError", "ReadFailedError", "StoreLockedError"]
)
def test_pickle_keeps_errno(name: str) -> None:
    """The number of an error of the system is kept."""
    error = getattr(storage_impl, name)(errno.EIO, "what went wrong")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.errno == errno.EIO
    assert "what went wrong" in str(again)


def test_damaged_image() -> None:
    """A `DamagedImageError` names its images in order, each once, and survives pickling."""
    error = storage_impl.DamagedImageError("checksum mismatch", [7, 3, 7])
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert one.indices == (3, 7)
        assert "images 3, 7" in str(one)
        assert "checksum mismatch" in str(one)


def test_many_damaged_images() -> None:
    """The message stays short however many images are damaged; `indices` has them all."""
    error = storage_impl.DamagedImageError("checksum mismatch", range(5000))
    assert error.indices == tuple(range(5000))
    assert len(str(error)) < 200
    assert "4,990 more" in str(error)
