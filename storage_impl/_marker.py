"""`store.json`: the properties of a store. It is written once, when the store is created.

::

    {"format": "storage_impl", "format_version": 1, "backend": "lmdb", "encoding": "raw",
     "image_shape": [32, 32, 3], "durable": true, "options": {"readahead": true}}

`image_shape` is null if the images have different shapes.
"""

import json
from typing import NamedTuple

from storage_impl import _inputs
from storage_impl._files import Directory
from storage_impl._records import Shape
from storage_impl.errors import (
    InvalidInputError,
    NotAStoreError,
    UnsupportedVersionError,
    read_error,
)

NAME = "store.json"
FORMAT = "storage_impl"
FORMAT_VERSION = 1

OptionValue = int | bool | None
Options = dict[str, OptionValue]

_LIMIT = 4096  # bytes, 10 times the longest that `write` makes


class Marker(NamedTuple):
    """The content of `store.json`.

    Attributes
    ----------
    backend : str
        The backend's name in `storage_impl.BACKENDS`.
    encoding : str
        How each image is stored: a name in `storage_impl.codecs.ENCODINGS`.
    image_shape : tuple of int or None
        (H, W, C) of each image. None if the images have different shapes.
    durable : bool
        Whether each write is synced before it returns.
    options : dict
        The options of the backend and of the encoding, by name.
    """

    backend: str
    encoding: str
    image_shape: Shape | None
    durable: bool
    options: Options

    @property
    def row_bytes(self) -> int | None:
        """Bytes of each image if all are raw and of one shape, else None."""
        if self.encoding != "raw" or self.image_shape is None:
            return None
        height, width, channels = self.image_shape
        return height * width * channels


def write(directory: Directory, marker: Marker) -> None:
    """Write `store.json` into a directory that has none. It is not synced."""
    text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION} | marker._asdict())
    directory.write(NAME, (text + "\n").encode(), durable=False)


def read(directory: Directory) -> Marker:
    """Read `store.json`. `_creation.marker_of` checks the encoding, shape and options in it.

    Raises
    ------
    NotAStoreError
        `store.json` is missing, or is not what `write` makes.
    UnsupportedVersionError
        The store was written by a newer version.
    ReadFailedError
        The operating system failed to read the file.
    """
    path = directory.path
    try:
        text = directory.read(NAME, _LIMIT)
    except FileNotFoundError:
        raise NotAStoreError(f"{path} is not a store: it has no {NAME}") from None
    except OSError as error:
        failure = read_error(f"{path / NAME} cannot be read", error)
        raise (failure if isinstance(failure, OSError) else NotAStoreError(str(failure))) from error
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise NotAStoreError(f"{path} is not a store: {NAME} does not name the format")
        version = _inputs.whole_number("format_version", content.pop("format_version", None), 1)
        if version > FORMAT_VERSION:
            raise UnsupportedVersionError(
                f"{path} has format version {version}, this storage_impl reads up to version "
                f"{FORMAT_VERSION}; install a newer storage_impl"
            )
        marker = Marker(**content)
        if not isinstance(marker.backend, str) or not isinstance(marker.options, dict):
            raise InvalidInputError("backend must be a string and options an object")
        if marker.encoding is None:  # only `create_store` has a default
            raise InvalidInputError("encoding must be a string")
        return marker
    except (NotAStoreError, UnsupportedVersionError):
        raise
    except (InvalidInputError, ValueError, TypeError, RecursionError) as error:
        raise NotAStoreError(f"{path} is not a store: {NAME} is damaged: {error}") from error
