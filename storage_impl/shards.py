"""Datasets of many stores: written by many processes or machines, and read like one store.

>>> import storage_impl
>>> from storage_impl import shards
>>> parts = shards.split("photos.lmdb", 8)  # or any picklable iterables of (image, label)
>>> shards.write_shards("train", parts, backend="hdf5", image_shape=(32, 32, 3))
>>> with storage_impl.open_store("train") as store:
...     images, labels = store.read_many([70_000, 3])

A dataset is right or absent. Each shard is written aside, under a name of its own, synced and
renamed, and the rename synced; the index, which makes the directory a dataset, comes last. What a
run that was killed leaves is no dataset, and the next run removes it. A run holds a lock: a second
one is refused at once. What workers of a killed run write yet has no index to name it.
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
_READ_BYTES = 8 << 20  # of pixels at a time, of a store that is read as a part
_READ_IMAGES = 64  # the same where shapes differ

_Spec = dict[str, Any]


class _Written(NamedTuple):
    """What the index says of a shard."""

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

    Once it returns, the dataset survives a power cut. Before that there is none: `open_store`
    refuses the path. After a run that was killed, call it again.

    Parameters
    ----------
    path : path_like
        The directory to make; its parent exists, on a file system that all workers share.
    parts : iterable of iterables
        Each is picklable, is read in one worker, and gives (image, label) pairs. An image is
        uint8 (H, W, C), or the bytes of a file, which are kept as `ImageStore.write_encoded` does.
    backend : str
        As in `storage_impl.create_store`, and so the next two.
    image_shape : tuple of int or None
        (H, W, C) in pixels; None where it differs from image to image.
    encoding : str, optional
        What is stored of an image.
    executor : concurrent.futures.Executor, optional
        Runs the workers, for instance ``dask.distributed.Client(...).get_executor()``. Without it
        a process for each core of this machine does.
    fingerprint : str, optional
        Names what the parts hold, such as a version of their source. Where a run was cut short,
        the next one with the same fingerprint keeps its complete shards. Without a fingerprint
        each run writes all of them.
    progress : callable, optional
        Called with the number of images of each shard when that is complete.
    **options
        As `storage_impl.create_store` takes them.

    Raises
    ------
    StoreExistsError
        `path` exists and is not what a run that was cut short left.
    StoreLockedError
        Another run is writing to `path`.
    StoreNotFoundError
        The parent of `path` does not exist.
    InvalidInputError, UnknownBackendError
        The arguments, or what a part gives, are not what `create_store` and `write_many` take.
    WriteFailedError, StoreFullError
        A file could not be written.
    Exception
        What a part raises, or the executor, passes through. Nothing is left of the run, except
        complete shards where it has a fingerprint.
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
    # The parts, too: cut otherwise, the shards of an earlier run hold other images.
    digest = xxhash.xxh3_64(json.dumps([fingerprint, spec]).encode())
    for part in parts:
        digest.update(pickle.dumps(part))
    return digest.hexdigest()


@contextmanager
def _claim(path: Path) -> Iterator[Directory]:
    """Make the directory, or take over what a run that was cut short left, and lock it."""
    if not path.parent.is_dir():
        raise StoreNotFoundError(f"{path.parent} is not a directory; make it first")
    with _explained(path):
        with suppress(FileExistsError):
            os.mkdir(path)
        try:
            directory = Directory(path)
        except NotADirectoryError:
            raise StoreExistsError(f"{path} exists and is no directory; choose another") from None
        _check_unfinished(directory)
        lock = WriterLock(directory)
    _held.add(lock)
    try:
        _check_unfinished(directory)  # again: a run may have ended in between
        if Directory(path).identity() != directory.identity():
            raise StoreLockedError(f"another run has just given up {path}; call again")
        yield directory
    finally:
        if set(directory.names()) <= {_LOCK}:
            shutil.rmtree(path, ignore_errors=True)
        if lock in _held:
            _held.remove(lock)
            lock.release()


_held: set[WriterLock] = set()


def _abandon_locks() -> None:
    """Let go, in a forked worker, of the lock: it would outlive a run that is killed."""
    while _held:
        _held.pop().abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_locks)


def _check_unfinished(directory: Directory) -> None:
    foreign = next((name for name in directory.names() if not _OURS.fullmatch(name)), None)
    if foreign is not None:
        raise StoreExistsError(
            f"{directory.path} exists and holds {foreign}; choose another path, or remove it"
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise what the system fails at as an error of this package."""
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
    """Remove what is in a directory, from under the hands of a worker that may yet write to it."""
    removed = name if name.startswith(_REMOVED) else _REMOVED + secrets.token_hex(8)
    with suppress(OSError):
        directory.rename(name, removed)
    with suppress(OSError):
        if stat.S_ISDIR(directory.status(removed).st_mode):
            shutil.rmtree(directory.path / removed, ignore_errors=True)
        else:
            directory.remove(removed)


def _check(run: Directory, name: str, spec: _Spec) -> _shard_index.Index:
    """Make an empty store, so that wrong arguments are refused before any work is done."""
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
        attempt = secrets.token_hex(8)  # for Dask, which may not run the same call again
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
    """End this process, a worker, with the one that started it, and silently by Ctrl-C."""
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
    """Write a shard, in a worker, unless it is there: of an earlier run, or an attempt before."""
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
    """Some images of a store, in order, as a part for `write_shards`.

    Attributes
    ----------
    path : path_like
    start, stop : int
        Indices of the first image and after the last.
    encoded : bool
        Whether to hand on the bytes that are stored, or the pixels.
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
    """Cut a store into so many parts for `write_shards`, of as many images each, or one less.

    Parameters
    ----------
    path : path_like
        The store, or dataset.
    count : int
        How many parts.
    encoded : bool, optional
        Whether the parts hand on the bytes that are stored, as they are.

    Returns
    -------
    list of StorePart
        Picklable iterables of (image, label), in the order of the store.
    """
    count = _inputs.whole_number("count", count, 1)
    with open_store(path) as store:
        edges = [len(store) * i // count for i in range(count + 1)]
        return [StorePart(store.path, start, stop, encoded) for start, stop in pairwise(edges)]
