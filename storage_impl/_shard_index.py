"""`shards.json`: the index of a dataset, which lists its stores.

On disk, version 1::

    train/
        shards.json               the index, written last: it makes the directory a dataset
        write.lock
        5a0c31f2d49be687/         the fingerprint of the run that wrote the shards
            00000/  00001/  ...   one store each

The index is a JSON object. For all shards together it has "format", "format_version",
"fingerprint", "backend", "encoding" and "image_shape". Three lists have an entry for each shard:
"counts" (images), "bytes" (the lengths of its files) and "checksums" (XXH3-64 of the names and
contents of its files, except those with "lock" in their name). Last comes "checksum", XXH3-64 of
the object without it.
"""

import json
import re
import stat
from typing import Any, NamedTuple

import xxhash

from storage_impl import _inputs
from storage_impl._files import Directory, pread
from storage_impl._records import Shape
from storage_impl.errors import (
    InvalidInputError,
    NotAStoreError,
    UnsupportedVersionError,
    read_error,
)

NAME = "shards.json"

_FORMAT = "storage_impl.shards"
_FORMAT_VERSION = 1
_LIMIT = 1 << 30  # bytes
_LAST = b', "checksum": "'
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_READ_BYTES = 1 << 20


class Index(NamedTuple):
    """The content of `shards.json`: see the module's docstring."""

    fingerprint: str
    backend: str
    encoding: str
    image_shape: Shape | None
    counts: list[int]
    bytes: list[int]
    checksums: list[str]


def name_of(number: int) -> str:
    """The name of a shard's directory."""
    return f"{number:05d}"


def write(directory: Directory, index: Index) -> None:
    """Write and sync `shards.json`, which makes the directory a dataset."""
    content = {"format": _FORMAT, "format_version": _FORMAT_VERSION} | index._asdict()
    text = json.dumps(content)[:-1].encode()
    aside = NAME + ".making"
    checksum = xxhash.xxh3_64_hexdigest(text).encode()
    directory.write(aside, text + _LAST + checksum + b'"}\n', durable=True)
    directory.rename(aside, NAME)
    directory.sync()
    Directory(directory.path.parent).sync()


def read(directory: Directory) -> Index:
    path = directory.path / NAME
    try:
        data = directory.read(NAME, _LIMIT)
    except OSError as error:
        failure = read_error(f"{path} cannot be read", error)
        raise (failure if isinstance(failure, OSError) else NotAStoreError(str(failure))) from error
    try:
        text, _, checksum = data.rpartition(_LAST)
        if checksum != xxhash.xxh3_64_hexdigest(text).encode() + b'"}\n':
            raise InvalidInputError("its checksum does not match")
        content = json.loads(text + b"}")
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise InvalidInputError("it does not name the format")
        version = _inputs.whole_number("format_version", content.pop("format_version", None), 1)
        if version > _FORMAT_VERSION:
            raise UnsupportedVersionError(
                f"{directory.path} has format version {version}, this storage_impl reads up to "
                f"version {_FORMAT_VERSION}; install a newer storage_impl"
            )
        index = Index(**content)._replace(image_shape=_inputs.image_shape(content["image_shape"]))
        counts = index.counts
        if not _FINGERPRINT.fullmatch(index.fingerprint):
            raise InvalidInputError("its fingerprint is not valid")
        if not len(counts) == len(index.bytes) == len(index.checksums):
            raise InvalidInputError("its lists differ in length")
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) >> 62:
            raise InvalidInputError("its counts are not valid")
    except UnsupportedVersionError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NotAStoreError(f"{directory.path} is not a dataset: {NAME}: {error}") from error
    return index


def measure(directory: Directory) -> tuple[int, str]:
    """The lengths of the files of a shard, and the checksum of their names and contents."""
    digest = xxhash.xxh3_64()
    return _measure(directory, "", digest), digest.hexdigest()


def _measure(directory: Directory, prefix: str, digest: Any) -> int:
    size = 0
    for name in sorted(directory.names()):
        if stat.S_ISDIR(directory.status(name).st_mode):
            size += _measure(directory.subdirectory(name), f"{prefix}{name}/", digest)
        elif "lock" not in name:  # LMDB's lock file changes with each reader
            file = directory.open(name)
            digest.update(f"{prefix}{name}\0{file.size()}\0".encode())
            position = 0
            while block := pread(file.fd, _READ_BYTES, position):
                digest.update(block)
                position += len(block)
            size += position
    return size
