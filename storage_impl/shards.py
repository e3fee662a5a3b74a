"""Datasets of many stores, written by many processes or machines and read like one store.

>>> import storage_impl
>>> from storage_impl import shards
>>> parts = shards.split("photos.lmdb", 8)  # or any picklable iterables of (image, label)
>>> shards.write_shards("train", parts, backend="hdf5", image_shape=(32, 32, 3))
>>> with storage_impl.open_store("train") as store:
...     images, labels = store.read_many([70_000, 3])

A dataset is complete or absent. Each shard is written under a temporary name, synced and renamed,
and the rename is synced. The index, which makes the directory a dataset, is written last. If a run
is killed, what it leaves is not a dataset, and the next run removes it. If workers of a killed run
still write, no index lists what they write. A run holds a lock, so a second one is refused at once.
"""

import json
import multiprocessing
import os
import pickle
import re
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, pairwise, tee
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from storage_impl import _creation, _inputs, _shard_index, create_store, open_store
from storage_impl._files import Directory
from storage_impl._lock import NAME as _LOCK
from storage_impl._lock import WriterLock
from storage_impl._sharded import OPEN_SHARDS, ShardedStore
from storage_impl.errors import (
    StorageError,
    StoreExistsError,
    StoreLockedError,
    StoreNotFoundError,
    write_error,
)
from storage_impl.store import ImageStore

__all__ = ["OPEN_SHARDS", "Item", "ShardedStore", "StorePart", "split", "write_shards"]

Item = tuple[NDArray[np.uint8] | bytes, int]

_ASIDE = ".making-"
_REMOVED = ".removed-"
_OURS = re.compile(r"[0-9a-f]{16}|\.removed-[0-9a-f]{16}|write\.lock|shards\.json\.making")
_READ_BYTES = 8 << 20  # of pixels at a time, from a store that is a part
_READ_IMAGES = 64  # the same, in images, if shapes differ

_Spec = dict[str, Any]


class _Written(NamedTuple):
    """The entry of a shard in the index."""

    images: int
    bytes: int
    checksum: str


def write_shards(
    path: str | os.PathLike[str],
    parts: Iterable[Iterable[Item]],
    *,
    backend: str,
    image_shape: tuple[int, int, int] | None,
    encoding: str | None = None,
    executor: Executor | None = None,
    fingerprint: str | None = None,
    progress: Callable[[int], object] | None = None,
    **options: int | bool | None,
) -> None:
    """Write a dataset with a shard for each part, several at a time.

    Once this returns, the dataset survives a power cut. Until then there is no dataset, and
    `open_store` refuses the path. If a run was killed, call this again.

    Parameters
    ----------
    path : path_like
        The directory to create. Its parent must exist, on a file system that all workers share.
    parts : iterable of iterables
        Each part can be pickled, is read in one worker, and yields (image, label) pairs. An image
        is uint8 (H, W, C), or the bytes of a file, which are stored as by
        `ImageStore.write_encoded`.
    backend : str
        As in `storage_impl.create_store`.
    image_shape : tuple of int or None
        As in `storage_impl.create_store`.
    encoding : str, optional
        As in `storage_impl.create_store`.
    executor : concurrent.futures.Executor, optional
        Runs the workers, for instance ``dask.distributed.Client(...).get_executor()``. The default
        is one process for each core of this machine.
    fingerprint : str, optional
        Names the content of the parts, for instance a version of their source. If a run was
        interrupted, the next one with the same fingerprint keeps its complete shards. Without a
        fingerprint, each run writes all shards.
    progress : callable, optional
        Called after each complete shard with the number of its images.
    **options
        As in `storage_impl.create_store`.

    Raises
    ------
    StoreExistsError
        `path` exists, and is not what an interrupted run left.
    StoreLockedError
        Another run is writing to `path`.
    StoreNotFoundError
        The parent of `path` does not exist.
    InvalidInputError, UnknownBackendError
        `create_store` or `write_many` refuses the arguments or an item of a part.
    WriteFailedError, StoreFullError
        A file could not be written.
    Exception
        Any exception of a part or of the executor passes through. Nothing is left of the run,
        except its complete shards if it has a fingerprint.
    """
    parts = list(parts)
    spec: _Spec = {"backend": backend, "image_shape": image_shape, "encoding": encoding, **options}
    name = _name_of_run(fingerprint, parts, spec)
    with _claim(_creation.absolute(path)) as directory:
        try:
            with _explained(directory.path):
                _clean(directory, {_LOCK, name})
                with suppress(FileExistsError):
                    directory.make(name)
                directory.sync()
                run = directory.subdirectory(name)
                _clean(run, {name for name in run.names() if not name.startswith(".")})
            index = _check(run, name, spec)
            written = _write_all(run.path, parts, spec, executor, progress)
            with _explained(directory.path):
                _clean(run, set(map(_shard_index.name_of, range(len(parts)))))
                run.sync()
                _clean(directory, {_LOCK, name})
                index = index._replace(
                    counts=[shard.images for shard in written],
                    bytes=[shard.bytes for shard in written],
                    checksums=[shard.checksum for shard in written],
                )
                _shard_index.write(directory, index)
        except BaseException:
            if fingerprint is None and not directory.has(_shard_index.NAME):
                _clean(directory, {_LOCK})
            raise


def _name_of_run(fingerprint: str | None, parts: Sequence[object], spec: _Spec) -> str:
    if fingerprint is None:
        return secrets.token_hex(8)
    # Include the parts. If they were split differently, the shards of an earlier run hold other
    # images.
    digest = xxhash.xxh3_64(json.dumps([fingerprint, spec]).encode())
    for part in parts:
        digest.update(pickle.dumps(part))
    return digest.hexdigest()


@contextmanager
def _claim(path: Path) -> Iterator[Directory]:
    """Create the directory, or take over what an interrupted run left, and lock it."""
    if not path.parent.is_dir():
        raise StoreNotFoundError(f"{path.parent} is not a directory; create it first")
    with _explained(path):
        with suppress(FileExistsError):
            os.mkdir(path)
        try:
            directory = Directory(path)
        except NotADirectoryError:
            raise StoreExistsError(
                f"{path} exists and is not a directory; choose another path"
            ) from None
        _check_unfinished(directory)
        lock = WriterLock(directory)
    _held.add(lock)
    try:
        _check_unfinished(directory)  # again: a run may have ended in between
        if Directory(path).identity() != directory.identity():
            raise StoreLockedError(f"another run has just removed {path}; call again")
        yield directory
    finally:
        if set(directory.names()) <= {_LOCK}:
            shutil.rmtree(path, ignore_errors=True)
        if lock in _held:
            _held.remove(lock)
            lock.release()


_held: set[WriterLock] = set()


def _abandon_locks() -> None:
    """Drop the lock in a forked worker, which may outlive a killed run."""
    while _held:
        _held.pop().abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_locks)


def _check_unfinished(directory: Directory) -> None:
    foreign = next((name for name in directory.names() if not _OURS.fullmatch(name)), None)
    if foreign is not None:
        raise StoreExistsError(
            f"{directory.path} exists and contains {foreign}; choose another path, or remove it"
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Translate errors of the system into errors of this package."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise write_error(f"{path} could not be written", error, "was not made") from error


def _clean(directory: Directory, kept: set[str]) -> None:
    for name in directory.names():
        if name not in kept:
            _remove(directory, name)


def _remove(directory: Directory, name: str) -> None:
    """Rename what is in a directory, then remove it. A worker may still be writing to it."""
    removed = name if name.startswith(_REMOVED) else _REMOVED + secrets.token_hex(8)
    with suppress(OSError):
        directory.rename(name, removed)
    with suppress(OSError):
        if stat.S_ISDIR(directory.status(removed).st_mode):
            shutil.rmtree(directory.path / removed, ignore_errors=True)
        else:
            directory.remove(removed)


def _check(run: Directory, name: str, spec: _Spec) -> _shard_index.Index:
    """Create an empty store, so that wrong arguments are refused before any work is done."""
    aside = _ASIDE + secrets.token_hex(8)
    with create_store(run.path / aside, durable=False, **spec) as store:
        kind = store.backend, store.encoding, store.image_shape
    _remove(run, aside)
    return _shard_index.Index(name, *kind, [], [], [])


def _write_all(
    run: Path,
    parts: Sequence[Iterable[Item]],
    spec: _Spec,
    executor: Executor | None,
    progress: Callable[[int], object] | None,
) -> list[_Written]:
    with ExitStack() as stack:
        if executor is None:
            executor = ProcessPoolExecutor(initializer=_end_with_parent)
            stack.callback(executor.shutdown, cancel_futures=True)
        attempt = secrets.token_hex(8)  # makes the call unique: Dask may not run the same one again
        futures = [
            executor.submit(_write_shard, run, number, part, spec, attempt)
            for number, part in enumerate(parts)
        ]
        try:
            for future in as_completed(futures):
                images = future.result().images
                if progress is not None:
                    progress(images)
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def _end_with_parent() -> None:
    """End this worker process when its parent ends, and silently on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _write_shard(
    run: Path, number: int, part: Iterable[Item], spec: _Spec, attempt: str
) -> _Written:
    """Write a shard in a worker, unless an earlier run or attempt has completed it."""
    path = run / _shard_index.name_of(number)
    if path.exists():
        with open_store(path, verify=True) as store:
            store.verify()
    else:
        aside = run / f"{_ASIDE}{secrets.token_hex(8)}"
        try:
            with create_store(aside, durable=False, **spec) as store:  # closing it syncs all
                _write_items(store, iter(part))
            with _explained(path):
                os.rename(aside, path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    with _explained(path):
        Directory(run).sync()
        with open_store(path) as store:
            return _Written(len(store), *_shard_index.measure(Directory(path)))


def _write_items(store: ImageStore, items: Iterator[Item]) -> None:
    first = next(items, None)
    if first is None:
        return
    images, labels = tee(chain([first], items))
    write: Any = store.write_encoded if isinstance(first[0], bytes) else store.write_many
    write((image for image, _ in images), (label for _, label in labels))


@dataclass(frozen=True)
class StorePart:
    """Consecutive images of a store, as a part for `write_shards`.

    Attributes
    ----------
    path : path_like
    start, stop : int
        The index of the first image, and the index after the last one.
    encoded : bool
        Whether to yield the stored bytes instead of the pixels.
    """

    path: str | os.PathLike[str]
    start: int
    stop: int
    encoded: bool = False

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Item]:
        with open_store(self.path, verify=True) as store:
            if self.encoded:
                for index in range(self.start, self.stop):
                    yield store.read_encoded(index)
                return
            step = _READ_IMAGES
            if store.image_shape is not None:
                step = max(_READ_BYTES // int(np.prod(store.image_shape)), 1)
            for start in range(self.start, self.stop, step):
                images, labels = store.read_many(range(start, min(start + step, self.stop)))
                yield from zip(images, labels.tolist(), strict=True)


def split(path: str | os.PathLike[str], count: int, *, encoded: bool = False) -> list[StorePart]:
    """Split a store into `count` parts for `write_shards`, whose sizes differ by one image at most.

    Parameters
    ----------
    path : path_like
        The store or dataset.
    count : int
        The number of parts.
    encoded : bool, optional
        Whether the parts yield the stored bytes instead of the pixels.

    Returns
    -------
    list of StorePart
        Iterables of (image, label), in the order of the store. They can be pickled.
    """
    count = _inputs.whole_number("count", count, 1)
    with open_store(path) as store:
        edges = [len(store) * i // count for i in range(count + 1)]
        return [StorePart(store.path, start, stop, encoded) for start, stop in pairwise(edges)]
