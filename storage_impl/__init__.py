"""Labelled images on disk, read fast: as PNG files, in LMDB and in HDF5.

>>> import storage_impl
>>> with storage_impl.create_store("train.lmdb", "lmdb", image_shape=(32, 32, 3)) as store:
...     store.write_many(images, labels)
>>> with storage_impl.open_store("train.lmdb") as store:
...     image, label = store.read_one(17)
"""

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

from storage_impl import _marker
from storage_impl._files import DiskUsage
from storage_impl.base import ImageStore
from storage_impl.errors import (
    ClosedStoreError,
    DamagedImageError,
    DamagedStoreError,
    InvalidIndexError,
    InvalidInputError,
    NotAStoreError,
    ReadFailedError,
    ReadOnlyStoreError,
    StorageError,
    StoreExistsError,
    StoreFullError,
    StoreLockedError,
    StoreNotFoundError,
    UnknownBackendError,
    UnsupportedVersionError,
    WriteFailedError,
)

__version__ = "0.1.0"

__all__ = [
    "BACKENDS",
    "ClosedStoreError",
    "DamagedImageError",
    "DamagedStoreError",
    "DiskUsage",
    "ImageStore",
    "InvalidIndexError",
    "InvalidInputError",
    "NotAStoreError",
    "ReadFailedError",
    "ReadOnlyStoreError",
    "StorageError",
    "StoreExistsError",
    "StoreFullError",
    "StoreLockedError",
    "StoreNotFoundError",
    "UnknownBackendError",
    "UnsupportedVersionError",
    "WriteFailedError",
    "create_store",
    "open_store",
]


_REGISTRY = {
    "png": "storage_impl.png.PngStore",
    "lmdb": "storage_impl.lmdb.LmdbStore",
    "hdf5": "storage_impl.hdf5.Hdf5Store",
}


class _Backends(Mapping[str, type[ImageStore]]):
    """The backends by name; a class and its library are imported when it is looked up."""

    def __getitem__(self, name: str) -> type[ImageStore]:
        module, _, attribute = _REGISTRY[name].rpartition(".")
        backend: type[ImageStore] = getattr(import_module(module), attribute)
        return backend

    def __contains__(self, name: object) -> bool:
        return name in _REGISTRY

    def __iter__(self) -> Iterator[str]:
        return iter(_REGISTRY)

    def __len__(self) -> int:
        return len(_REGISTRY)

    def __repr__(self) -> str:
        return f"<backends: {', '.join(_REGISTRY)}>"


BACKENDS: Mapping[str, type[ImageStore]] = _Backends()
"""The backends by name: "png", "lmdb" and "hdf5"."""


def create_store(
    path: str | os.PathLike[str],
    backend: str,
    *,
    image_shape: tuple[int, int, int],
    durable: bool = True,
    **options: int | bool | None,
) -> ImageStore:
    """Make an empty store and open it for writing.

    Parameters
    ----------
    path : path_like
        The directory to make; its parent exists.
    backend : str
        A name in `BACKENDS`.
    image_shape : tuple of int
        (H, W, C) of each image, in pixels; C is 1, 3 or 4.
    durable : bool, optional
        Whether what a write returned from survives a power cut. When False it survives
        the end of the process, and `ImageStore.close` syncs what this object wrote. It is
        kept with the store, and so are the options: they hold for every later opening.
    **options
        Options of the backend: see `storage_impl.png.PngStore`,
        `storage_impl.lmdb.LmdbStore` and `storage_impl.hdf5.Hdf5Store`.

    Returns
    -------
    ImageStore
        The store, in mode "a".

    Raises
    ------
    UnknownBackendError
        No backend has that name.
    InvalidInputError
        `image_shape`, `durable` or an option is not of that kind.
    StoreExistsError
        `path` exists.
    StoreNotFoundError
        The parent of `path` does not exist.
    StoreLockedError
        Another process is making the same store at this moment.
    WriteFailedError
        The store could not be made; nothing is left of it.
    """
    if backend not in BACKENDS:
        raise UnknownBackendError(
            f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}"
        )
    return BACKENDS[backend].create(Path(os.path.abspath(path)), image_shape, durable, options)


def open_store(
    path: str | os.PathLike[str], mode: str = "r", *, verify: bool = False
) -> ImageStore:
    """Open a store, whichever its backend.

    Parameters
    ----------
    path : path_like
        The directory of the store.
    mode : {"r", "a"}, optional
        "r" for reading, "a" for reading and appending.
    verify : bool, optional
        Whether to check each image against its checksum as it is read.

    Returns
    -------
    ImageStore
        The store, with the images that are committed at this moment: a reader does not
        see what is appended later.

    Raises
    ------
    StoreNotFoundError
        `path` does not exist.
    NotAStoreError
        `path` is no store.
    DamagedStoreError
        The store is damaged; which checks are left to `ImageStore.verify` is in the
        module of each backend.
    UnsupportedVersionError
        The store was written by a newer version of this package.
    StoreLockedError
        `mode` is "a" and another writer has the store open.
    InvalidInputError
        `mode` or `verify` is not of that kind.
    ReadFailedError
        The system failed a read.
    """
    if mode not in ("r", "a"):
        raise InvalidInputError(f"mode must be 'r' or 'a', got {mode!r}")
    if not isinstance(verify, bool):
        raise InvalidInputError(f"verify must be True or False, got {verify!r}")
    directory = Path(os.path.abspath(path))
    marker = _marker.read(directory)
    if marker.backend not in BACKENDS:
        raise NotAStoreError(
            f"{directory} names the backend {marker.backend!r}; there are {', '.join(BACKENDS)}"
        )
    return BACKENDS[marker.backend].open(directory, marker, mode, verify)
