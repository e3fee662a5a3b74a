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
from types import ModuleType

from storage_impl import _creation, _inputs, _marker
from storage_impl._files import DiskUsage
from storage_impl.backend import Backend
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
from storage_impl.store import ImageStore

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
    "png": "storage_impl.png.PngBackend",
    "lmdb": "storage_impl.lmdb.LmdbBackend",
    "hdf5": "storage_impl.hdf5.Hdf5Backend",
}


class _Backends(Mapping[str, type[Backend]]):
    """The backends by name; a class and its library are imported when it is looked up."""

    def __getitem__(self, name: str) -> type[Backend]:
        module, _, attribute = _REGISTRY[name].rpartition(".")
        backend: type[Backend] = getattr(import_module(module), attribute)
        return backend

    def __contains__(self, name: object) -> bool:
        return name in _REGISTRY

    def __iter__(self) -> Iterator[str]:
        return iter(_REGISTRY)

    def __len__(self) -> int:
        return len(_REGISTRY)

    def __repr__(self) -> str:
        return f"<backends: {', '.join(_REGISTRY)}>"


BACKENDS: Mapping[str, type[Backend]] = _Backends()
"""The backends by name: "png", "lmdb" and "hdf5"."""


def __getattr__(name: str) -> ModuleType:
    """Import what not everybody needs when it is first used, as ``storage_impl.shards``."""
    if name in ("shards", "torch"):
        return import_module(f"storage_impl.{name}")
    raise AttributeError(f"module 'storage_impl' has no attribute {name!r}")


def create_store(
    path: str | os.PathLike[str],
    backend: str,
    *,
    image_shape: tuple[int, int, int] | None,
    encoding: str | None = None,
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
    image_shape : tuple of int or None
        (H, W, C) of each image, in pixels; C is 1, 3 or 4. None where it differs from image to
        image.
    encoding : {"raw", "png", "jpeg", "webp", "mixed"}, optional
        What is stored of each image, see `storage_impl.codecs`. By default "raw", the pixels; the
        png backend holds "png" and nothing else. "jpeg" is lossy: pixels come back changed.
    durable : bool, optional
        Whether what a write returned from survives a power cut. When False it survives
        the end of the process, and `ImageStore.close` syncs what this object wrote. It is
        kept with the store, and so are the options: they hold for every later opening.
    **options
        Options of the encoding: see `storage_impl.codecs`; and of the backend: see
        `storage_impl.lmdb.LmdbBackend` and `storage_impl.hdf5.Hdf5Backend`.

    Returns
    -------
    ImageStore
        The store, in mode "a".

    Raises
    ------
    UnknownBackendError
        No backend has that name.
    InvalidInputError
        `image_shape`, `encoding`, `durable` or an option is not of that kind.
    StoreExistsError
        `path` exists.
    StoreNotFoundError
        The parent of `path` does not exist.
    WriteFailedError
        The store could not be made; nothing is left of it.
    """
    if backend not in BACKENDS:
        raise UnknownBackendError(f"unknown backend {backend!r}; choose {_inputs.one_of(BACKENDS)}")
    kind = BACKENDS[backend]
    marker = _creation.marker_of(
        kind, image_shape=image_shape, encoding=encoding, durable=durable, options=options
    )
    return ImageStore.create(kind, _creation.absolute(path), marker)


def open_store(
    path: str | os.PathLike[str], mode: str = "r", *, verify: bool = False
) -> ImageStore:
    """Open a store, whichever its backend.

    Parameters
    ----------
    path : path_like
        The directory of the store, or of a dataset of `storage_impl.shards.write_shards`.
    mode : {"r", "a"}, optional
        "r" for reading, "a" for reading and appending.
    verify : bool, optional
        Whether to check the structure of the files before they are used, and each image against
        its checksum as it is read. Without it a damaged file can end the process with a signal in
        the library that reads it: open with it what comes from a stranger.

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
    directory = _creation.open_directory(_creation.absolute(path))
    if directory.has("shards.json"):
        from storage_impl._sharded import ShardedStore  # which opens its shards with this function

        return ShardedStore(directory, mode, verify)
    marker = _marker.read(directory)
    if marker.backend not in BACKENDS:
        raise NotAStoreError(
            f"{directory.path} names the backend {marker.backend!r}; "
            f"this version has {_inputs.one_of(BACKENDS)}"
        )
    kind = BACKENDS[marker.backend]
    try:
        marker = _creation.marker_of(
            kind,
            image_shape=marker.image_shape,
            encoding=marker.encoding,
            durable=marker.durable,
            options=marker.options,
        )
    except InvalidInputError as error:
        raise NotAStoreError(f"{directory.path} is not a store: {_marker.NAME}: {error}") from error
    return ImageStore.open(kind, directory, marker, mode, verify)
