"""`store.json`: what a store is, written once when it is made.

::

    {"format": "storage_impl", "format_version": 1, "backend": "lmdb",
     "image_shape": [32, 32, 3], "durable": true, "options": {"readahead": true}}
"""

import json
from pathlib import Path
from typing import NamedTuple

from storage_impl import _inputs
from storage_impl._files import read_regular, write_new
from storage_impl.errors import (
    InvalidInputError,
    NotAStoreError,
    StoreNotFoundError,
    UnsupportedVersionError,
    read_error,
)

NAME = "store.json"
FORMAT = "storage_impl"
FORMAT_VERSION = 1

Options = dict[str, int | bool | None]

_LIMIT = 4096  # bytes; the longest that `write` makes is a tenth of it


class Marker(NamedTuple):
    """What `store.json` says.

    Attributes
    ----------
    backend : str
        The backend's name in `storage_impl.BACKENDS`.
    image_shape : tuple of int
        (H, W, C) of each image.
    durable : bool
        Whether each write is synced before it returns.
    options : dict
        The backend's options, by name.
    """

    backend: str
    image_shape: tuple[int, int, int]
    durable: bool
    options: Options


def write(directory: Path, marker: Marker) -> None:
    """Write `store.json` into a directory that has none."""
    text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION} | marker._asdict())
    write_new(directory / NAME, (text + "\n").encode(), durable=marker.durable)


def read(directory: Path) -> Marker:
    """Read and check `store.json`.

    Raises
    ------
    StoreNotFoundError
        `directory` does not exist.
    NotAStoreError
        It is no directory, or its `store.json` is missing or not what `write` makes.
    UnsupportedVersionError
        It was written by a newer version.
    ReadFailedError
        The system failed the read.
    """
    try:
        text = read_regular(directory / NAME, _LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        if not directory.exists():
            raise StoreNotFoundError(
                f"{directory} does not exist; create_store makes a new store"
            ) from None
        raise NotAStoreError(f"{directory} is not a store: it holds no {NAME}") from None
    except OSError as error:
        failure = read_error(f"{directory / NAME} cannot be read", error)
        raise (failure if isinstance(failure, OSError) else NotAStoreError(str(failure))) from error
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise NotAStoreError(f"{directory} is not a store: {NAME} does not name its format")
        version = _inputs.whole_number("format_version", content.pop("format_version", None), 1)
        if version > FORMAT_VERSION:
            raise UnsupportedVersionError(
                f"{directory} is in format version {version}, this storage_impl reads up to "
                f"{FORMAT_VERSION}; install a newer storage_impl"
            )
        marker = Marker(**content)
        if not isinstance(marker.backend, str) or not isinstance(marker.options, dict):
            raise InvalidInputError("backend must be a string and options an object")
        shape = _inputs.image_shape(marker.image_shape)
        return marker._replace(
            image_shape=shape, durable=_inputs.boolean("durable", marker.durable)
        )
    except (NotAStoreError, UnsupportedVersionError):
        raise
    except (InvalidInputError, ValueError, TypeError, RecursionError) as error:
        raise NotAStoreError(f"{directory} is not a store: {NAME} is damaged: {error}") from error
