"""Store labelled images on disk and read them fast: as PNG files, in LMDB or in HDF5.

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
    """The backends by name. Looking one up imports its module and its library."""

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
    """Import `shards` or `torch` on first use, because most programs need neither."""
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
    """Create an empty store and open it for writing.

    Parameters
    ----------
    path : path_like
        The directory to create. Its parent must exist.
    backend : str
        A name in `BACKENDS`.
    image_shape : tuple of int or None
        (H, W, C) of each image: height and width in pixels, and 1, 3 or 4 channels. None if the
        images have different shapes.
    encoding : {"raw", "png", "jpeg", "webp", "mixed"}, optional
        How each image is stored: see `storage_impl.codecs`. The default is "raw", the pixels
        themselves. The png backend supports only "png", its default. "jpeg" is lossy: the pixels
        that are read differ from those that were written.
    durable : bool, optional
        If True, the data survives a power cut once the write returns. If False, it survives the end
        of the process, and `ImageStore.close` syncs what this object wrote. The store keeps this
        setting and the options, and later openings use them.
    **options
        Options of the encoding (see `storage_impl.codecs`) and of the backend (see
        `storage_impl.lmdb.LmdbBackend` and `storage_impl.hdf5.Hdf5Backend`).

    Returns
    -------
    ImageStore
        The store, in mode "a".

    Raises
    ------
    UnknownBackendError
        No backend has that name.
    InvalidInputError
        `image_shape`, `encoding`, `durable` or an option is not valid.
    StoreExistsError
        `path` exists.
    StoreNotFoundError
        The parent of `path` does not exist.
    WriteFailedError
        The store could not be created. Nothing is left of it.
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
    """Open a store of any backend.

    Parameters
    ----------
    path : path_like
        The directory of a store, or of a dataset that `storage_impl.shards.write_shards` wrote.
    mode : {"r", "a"}, optional
        "r" for reading, "a" for reading and appending.
    verify : bool, optional
        If True, the structure of the files is checked before it is used, and each image is compared
        with its checksum when it is read. If False, a damaged file can crash the library that reads
        it, and with it the process. Use True for files from somebody you do not trust.

    Returns
    -------
    ImageStore
        The store, with the images that are committed now. A reader does not see images that are
        appended later.

    Raises
    ------
    StoreNotFoundError
        `path` does not exist.
    NotAStoreError
        `path` is not a store.
    DamagedStoreError
        The store is damaged. Opening does not check all of it: `ImageStore.verify` does. The
        docstrings of `storage_impl.lmdb` and `storage_impl.hdf5` say what opening checks.
    UnsupportedVersionError
        The store was written by a newer version of this package.
    StoreLockedError
        `mode` is "a" and another writer has the store open.
    InvalidInputError
        `mode` or `verify` is not valid.
    ReadFailedError
        The operating system failed to read a file.
    """
    if mode not in ("r", "a"):
        raise InvalidInputError(f"mode must be 'r' or 'a', got {mode!r}")
    if not isinstance(verify, bool):
        raise InvalidInputError(f"verify must be True or False, got {verify!r}")
    directory = _creation.open_directory(_creation.absolute(path))
    if directory.has("shards.json"):
        from storage_impl._sharded import ShardedStore  # here, as it imports this module

        return ShardedStore(directory, mode, verify)
    marker = _marker.read(directory)
    if marker.backend not in BACKENDS:
        raise NotAStoreError(
            f"{directory.path} is not a store: the backend in store.json must be "
            f"{_inputs.one_of(BACKENDS)}, got {marker.backend!r}"
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
