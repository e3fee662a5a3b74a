"""Create a store, or open the directory of an existing one.

A store is created in a hidden directory with a unique name, which is then renamed. A creation that
is cut short never leaves half a store. It leaves a hidden directory, which the next creation
removes. If several processes create the same store at once, one succeeds and the others get
StoreExistsError.
"""

import errno
import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from storage_impl import _inputs, _lock, _marker, codecs
from storage_impl._files import Directory
from storage_impl._lock import WriterLock
from storage_impl._marker import Marker, Options
from storage_impl.backend import Backend
from storage_impl.errors import (
    DamagedStoreError,
    InvalidInputError,
    NotAStoreError,
    StorageError,
    StoreExistsError,
    StoreLockedError,
    StoreNotFoundError,
    is_ours,
    read_error,
    write_error,
)

_ASIDE = ".storage_impl-"  # short, because a name has at most 255 bytes
_MAKING = ".making"
_ASIDE_NAME = re.compile(r"\.storage_impl-[0-9a-f]{16}\.making")


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path, which stays valid when the working directory changes."""
    try:
        text = os.fspath(path)
        if "\0" in text:
            raise InvalidInputError(f"a path must not contain a NUL character, got {path!r}")
        return Path(os.path.abspath(text))
    except FileNotFoundError as error:
        raise StoreNotFoundError(
            f"{path} is a relative path, and the working directory is gone; use an absolute path"
        ) from error


def check_options(kind: type[Backend], encoding: str, options: dict[str, Any]) -> Options:
    """The options of a backend and of an encoding, with their defaults.

    Raises
    ------
    InvalidInputError
        An option does not exist, or its value is not accepted.
    """
    of_encoding = codecs.OPTIONS.get(encoding, {})
    accepted = of_encoding | kind.defaults
    for name in options:
        if name not in accepted:
            raise InvalidInputError(
                f"{kind.name} with encoding {encoding!r} has no option {name!r}; "
                f"it accepts {_inputs.one_of(accepted) if accepted else 'none'}"
            )
    merged = accepted | options
    return {
        name: _inputs.whole_number(name, value, *codecs.LIMITS[name])
        if name in of_encoding
        else kind.check_option(name, value)
        for name, value in merged.items()
    }


def marker_of(
    kind: type[Backend],
    *,
    image_shape: object,
    encoding: object,
    durable: object,
    options: dict[str, Any],
) -> Marker:
    """Check the properties of a store and return them as its marker."""
    encoding = kind.encodings[0] if encoding is None else encoding
    encoding = _inputs.choice("encoding", encoding, codecs.ENCODINGS)
    if encoding not in kind.encodings:
        raise InvalidInputError(
            f"the encoding of the {kind.name} backend must be {_inputs.one_of(kind.encodings)}, "
            f"got {encoding!r}"
        )
    shape = _inputs.image_shape(image_shape)
    if shape is not None:
        codecs.check_shape(encoding, shape)
    marker = Marker(
        kind.name,
        encoding,
        shape,
        _inputs.boolean("durable", durable),
        check_options(kind, encoding, options),
    )
    kind.check_marker(marker)
    return marker


def create(kind: type[Backend], path: Path, marker: Marker) -> tuple[Directory, WriterLock]:
    """Create an empty store and return its directory, locked for writing."""
    if os.path.lexists(path):
        raise StoreExistsError(
            f"{path} exists; choose another path, or append with open_store(..., mode='a')"
        )
    if not path.parent.is_dir():
        raise StoreNotFoundError(f"{path.parent} is not a directory; create it first")
    made: Path | None = None
    lock: WriterLock | None = None
    try:
        parent = Directory(path.parent)
        _remove_leftovers(parent, kind)
        directory, lock = _make_aside(parent)
        made = directory.path
        kind.make(directory, marker)
        _marker.write(directory, marker)
        if marker.durable:
            directory.sync_all()
        if os.name == "nt":  # pragma: no cover - it cannot rename a directory with an open file
            lock.release()
            lock = None
        os.rename(made, path)
        made = directory.path = path
        if lock is None:  # pragma: no cover
            lock = WriterLock(directory)
        lock.note(directory)
        if marker.durable:
            parent.sync()
        return directory, lock
    except BaseException as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        if lock is not None:
            lock.release()
        if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise StoreExistsError(
                f"another process has just created {path}; open_store opens it"
            ) from None
        if is_foreign(error, kind):
            raise write_error(f"{path} could not be created", error, "was not made") from error
        raise


def _make_aside(parent: Directory) -> tuple[Directory, WriterLock]:
    """Create and lock the hidden directory in which a store is created."""
    while True:
        name = f"{_ASIDE}{secrets.token_hex(8)}{_MAKING}"
        parent.make(name)
        # Until it is locked, another creation may remove it as a leftover.
        with suppress(FileNotFoundError, StoreLockedError):
            directory = parent.subdirectory(name)
            lock = WriterLock(directory)
            if parent.has(name):
                return directory, lock


def _remove_leftovers(parent: Directory, kind: type[Backend]) -> None:
    """Remove what interrupted creations left in a directory."""
    # After a power cut, any of the files may exist, with or without the lock file.
    made = kind.made | {_marker.NAME}
    for name in parent.names():
        if not _ASIDE_NAME.fullmatch(name):
            continue
        with suppress(OSError, StorageError):  # not permitted, or its creation is in progress
            leftover = parent.subdirectory(name)
            names = leftover.names()
            if not (_lock.NAME in names or made.issuperset(names)):
                continue  # this package did not make it
            lock = WriterLock(leftover)
            shutil.rmtree(leftover.path, ignore_errors=True)
            lock.release()


def open_directory(path: Path) -> Directory:
    """Open the directory of a store."""
    try:
        return Directory(path)
    except FileNotFoundError:
        raise StoreNotFoundError(f"{path} does not exist; create_store makes a new store") from None
    except NotADirectoryError:
        if not os.path.lexists(path):
            raise StoreNotFoundError(f"{path} does not exist") from None
        raise NotAStoreError(f"{path} is not a store: it is not a directory") from None
    except OSError as error:
        failure = read_error(f"{path} cannot be opened", error)
        if isinstance(failure, DamagedStoreError):
            failure = NotAStoreError(str(failure))
        raise failure from error


def check_not_copied(directory: Directory) -> None:
    """Raise DamagedStoreError for a copy that was made while a writer had the store open."""
    if _lock.copied(directory):
        raise DamagedStoreError(
            f"{directory.path} was copied while a writer had it open, so its files may not match "
            "each other; copy it again while no writer has it open or, if the original is lost, "
            "use open_store(..., mode='a', verify=True), which checks the whole copy"
        )


def is_foreign(error: BaseException, kind: type[Backend]) -> bool:
    """Whether a library or the system raised an error, and it is not yet a StorageError."""
    return isinstance(error, kind.errors) and not isinstance(error, StorageError) and is_ours(error)
