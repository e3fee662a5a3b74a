"""The interface of a store, and all that the backends share.

A backend is a subclass of `ImageStore` that implements the methods at the end of
the class, those with a leading underscore. It is handed checked arguments and
never sees a closed store, a forked handle or a selection it has to interpret.
"""

import errno
import os
import shutil
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from storage_impl import _inputs, _marker
from storage_impl._checksum import checksum, checksums
from storage_impl._files import (
    DiskUsage,
    WriterLock,
    check_directory,
    disk_usage,
    sync_directory,
    sync_file,
)
from storage_impl._inputs import Chunk, Images, Labels, Selection
from storage_impl._marker import Marker, Options
from storage_impl._source import Source
from storage_impl.errors import (
    ClosedStoreError,
    DamagedImageError,
    DamagedStoreError,
    InvalidInputError,
    NotAStoreError,
    ReadOnlyStoreError,
    StorageError,
    StoreExistsError,
    StoreNotFoundError,
    read_error,
    write_error,
)

Sums = NDArray[np.uint64]

_LOCK = "write.lock"
_CHUNK_BYTES = 32 << 20  # gathered from an iterable before it is handed to the backend
_INDICES_AT_ONCE = 4096  # what a backend derives from them takes memory beside the result
_VERIFY_BYTES = 1 << 20  # read, then checked while it is still in the processor's cache


class ImageStore(ABC):  # numpydoc ignore=PR01
    """Labelled images of one shape, in order, that are read by index.

    Made by `storage_impl.create_store` and `storage_impl.open_store`. A store is a
    context manager. It may be read from several threads; writes from several threads
    of one store follow each other. After a fork the child may read and not write. A
    pickled store comes back opened for reading, with the length it had.

    Attributes
    ----------
    backend : str
        The backend's name in `storage_impl.BACKENDS`.
    path : Path
        The store's directory, absolute.
    image_shape : tuple of int
        (H, W, C) of each image, in pixels and channels.
    mode : str
        "r" for reading; "a" for reading and appending.
    durable : bool
        Whether what a write returned from survives a power cut. When False it
        survives the end of the process, and `close` syncs.
    closed : bool
        Whether `close` was called.
    """

    backend: ClassVar[str]
    # The backend's options and their defaults; `_check_option` says what each accepts.
    _defaults: ClassVar[Options] = {}
    # What the backend's library raises for reasons outside this package.
    _errors: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    def __init__(
        self, path: Path, marker: Marker, mode: str, verify: bool, lock: WriterLock | None
    ) -> None:
        self.path = path
        self.image_shape = marker.image_shape
        self.durable = marker.durable
        self.mode = mode
        self.closed = True  # until it is open, so that `__del__` leaves a failed opening alone
        self._options = marker.options
        self._image_bytes = int(np.prod(marker.image_shape, dtype=object))
        self._verify_reads = verify
        self._lock = lock
        self._guard = threading.RLock()
        self._writing = False
        self._leftovers = False  # of a call that did not end well: in the way of the next write
        # False makes the next call open the handles of this process: see `_prepare`.
        self._ready = False
        self._count = self._open()
        self._ready = True
        self.closed = False
        _stores.add(self)

    # -- making and opening ------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: Path, image_shape: object, durable: bool, options: dict[str, Any]
    ) -> Self:
        """Make an empty store; `storage_impl.create_store` says how."""
        marker = Marker(
            cls.backend,
            _inputs.image_shape(image_shape),
            _inputs.boolean("durable", durable),
            cls._check_options(options),
        )
        if os.path.lexists(path):
            raise StoreExistsError(
                f"{path} exists; open_store(..., mode='a') appends to a store, "
                "or choose another path"
            )
        if not path.parent.is_dir():
            raise StoreNotFoundError(f"{path.parent} is not a directory; make it first")
        # Built aside and renamed: a creation that was cut short leaves one directory that the
        # next one clears, and never half a store.
        made = aside = path.with_name(f".{path.name}.creating")
        lock = None
        try:
            _check_aside(aside)
            lock = _lock_aside(aside, path)
            if marker.durable:
                # The lock file is the sign of a directory that may be cleared: it must survive a
                # power cut that anything else in there survives.
                sync_directory(aside)
            for leftover in aside.iterdir():
                if leftover.name != _LOCK:
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            cls._make(aside, marker)
            _marker.write(aside, marker)
            if marker.durable:
                sync_directory(aside)
            if os.name == "nt":  # which renames no directory that holds an open file
                lock.release()
                lock = None
            aside.rename(path)
            made = path
            if lock is None:
                lock = WriterLock(path / _LOCK)
            if marker.durable:
                sync_directory(path.parent)
            return cls(path, marker, "a", False, lock)
        except BaseException as error:
            if lock is not None:  # so nobody else can have written to it
                shutil.rmtree(made, ignore_errors=True)
                lock.release()
            if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise _made_meanwhile(path) from None
            if cls._is_foreign(error):
                raise write_error(f"{path} could not be created", error, "was not made") from error
            raise

    @classmethod
    def open(cls, path: Path, marker: Marker, mode: str, verify: bool) -> Self:
        """Open an existing store; `storage_impl.open_store` says how."""
        try:
            marker = marker._replace(options=cls._check_options(marker.options))
        except InvalidInputError as error:
            raise NotAStoreError(f"{path} is not a store: {_marker.NAME}: {error}") from error
        lock = None
        try:
            if mode == "a":
                lock = WriterLock(path / _LOCK)
            store = cls(path, marker, mode, verify, lock)
            if mode == "a":
                lock = None  # the store's own from here on
                try:
                    store._discard(store._count)
                except BaseException:
                    store.close()
                    raise
            return store
        except BaseException as error:
            if lock is not None:
                lock.release()
            if cls._is_foreign(error):
                raise read_error(f"{path} cannot be opened", error) from error
            raise

    @classmethod
    def _reopen(cls, path: Path, count: int, verify: bool) -> Self:
        store = cls.open(path, _marker.read(path), "r", verify)
        if store._count < count:
            store.close()
            raise DamagedStoreError(f"{path} held {count:,} images when it was pickled, now fewer")
        store._count = count
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._reopen, (self.path, len(self), self._verify_reads)

    def close(self) -> None:
        """Free what the store holds; a writer that is not durable syncs first.

        Raises
        ------
        WriteFailedError
            The sync failed. The store is closed all the same.
        """
        with self._guard:
            if self.closed:
                return
            if self._writing:
                raise InvalidInputError(
                    "the iterable given to write_many closes the store that it is written to"
                )
            _stores.discard(self)
            ready, lock = self._ready, self._lock
            try:
                if self._ready and self._lock is not None and not self.durable:
                    self._sync()
                    sync_file(self.path / _marker.NAME)
                    sync_directory(self.path)
                    sync_directory(self.path.parent)
            except self._errors as error:
                state = "holds all images, which may not survive a power cut"
                raise write_error(f"{self.path} could not be synced", error, state) from error
            finally:
                self.closed = True
                self._ready = False
                self._lock = None
                try:
                    if ready:
                        self._close()
                finally:
                    if lock is not None:
                        lock.release()

    def __enter__(self) -> Self:
        self._prepare()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            self._writing = False  # where an interrupt left it
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self._count:,} images, mode {self.mode!r}"
        return f"<{type(self).__name__} {str(self.path)!r}: {self.image_shape} {state}>"

    def __len__(self) -> int:
        self._prepare()
        return self._count

    # -- writing -----------------------------------------------------------------------------

    def write_one(self, image: NDArray[np.uint8], label: SupportsIndex) -> int:
        """Append one image.

        Parameters
        ----------
        image : ndarray
            uint8 of shape `image_shape`.
        label : int
            Any integer that fits int64.

        Returns
        -------
        int
            The index of the image.

        Raises
        ------
        InvalidInputError
            The image or the label is not of that kind; nothing was written.
        ReadOnlyStoreError, ClosedStoreError
            The store cannot be written to.
        WriteFailedError, StoreFullError
            Nothing was written, the store is as it was.
        """
        checked = _inputs.one_image(image, self.image_shape)
        number = _inputs.one_label(label)
        return self._write(iter([Chunk(checked[np.newaxis], np.array([number], np.int64))])).start

    def write_many(self, images: Images, labels: Labels) -> range:
        """Append images, all or none of them.

        Parameters
        ----------
        images : ndarray or iterable of ndarray
            (N, H, W, C) uint8, or an iterable of (H, W, C) uint8. Of an iterable at
            most 64 MiB are held in memory at once.
        labels : array_like or iterable of int
            As many integers that fit int64.

        Returns
        -------
        range
            The indices of the images.

        Raises
        ------
        InvalidInputError
            An image or a label is not of that kind, or there are more of one than of
            the other. Arrays and sequences are checked before a byte is written.
        ReadOnlyStoreError, ClosedStoreError
            The store cannot be written to.
        WriteFailedError, StoreFullError
            Nothing was written, the store is as it was.

        Notes
        -----
        An error that the iterable itself raises passes through, and leaves the store
        as it was.

        A disk that goes on failing while a failed call is taken back can leave that
        call visible to readers that open the store then. It is not counted here, and
        the next write removes it.
        """
        self._check_writable()
        return self._write(_inputs.chunks(images, labels, self.image_shape, _CHUNK_BYTES))

    def _write(self, chunks: Iterator[Chunk]) -> range:
        with self._guard:
            self._check_writable()
            if self._writing:
                raise InvalidInputError(
                    "the iterable given to write_many writes to the store that it is written to"
                )
            start = self._count
            source = Source(chunks, start)
            try:
                self._writing = True
                if self._leftovers:
                    self._undo(start)
                self._leftovers = True
                self._append(source)
                self._count = source.stop
                self._leftovers = False
            except BaseException as error:
                self._leftovers = True
                self._count = start
                with suppress(Exception):  # this error is the one to report
                    self._undo(start)
                if error is not source.error and self._is_foreign(error):
                    state = "is as it was before the call"
                    raise write_error(f"writing to {self.path} failed", error, state) from error
                raise
            finally:
                self._writing = False
            return range(start, source.stop)

    def _undo(self, count: int) -> None:
        self._discard(count)
        self._leftovers = False

    def _check_writable(self) -> None:
        self._prepare()
        if self.mode != "a":
            raise ReadOnlyStoreError(
                f"{self.path} is open for reading; open_store(..., mode='a') appends"
            )
        if self._lock is None:
            raise ReadOnlyStoreError(
                f"{self.path} was opened for writing before this process was forked; "
                "only the process that opened it may write"
            )

    # -- reading -----------------------------------------------------------------------------

    def read_one(self, index: SupportsIndex) -> tuple[NDArray[np.uint8], int]:
        """Read one image.

        Parameters
        ----------
        index : int
            0 to ``len(store) - 1``.

        Returns
        -------
        image : ndarray
            uint8 of shape `image_shape`, the caller's own.
        label : int
            As it was written.

        Raises
        ------
        InvalidIndexError
            The store has no such image.
        DamagedImageError, DamagedStoreError
            The image cannot be read or, opened with ``verify=True``, is not what was written.
        ReadFailedError
            The system failed the read.
        """
        if not self._ready:
            self._prepare()
        if type(index) is not int or not 0 <= index < self._count:
            index = _inputs.index(index, self._count)
        try:
            image, label, stored = self._read_one(index)
        except self._errors as error:
            raise self._read_failure(error) from error
        if self._verify_reads and checksum(index, image, label) != stored:
            raise DamagedImageError(f"checksum mismatch in {self.path}", [index])
        return image, label

    def read_many(
        self, indices: Selection = None, *, out: NDArray[np.uint8] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Read images.

        Parameters
        ----------
        indices : None, slice or array_like of int, optional
            All, in order; a slice, as Python slices a sequence; or (n,) indices in any
            order, repeats allowed, each 0 to ``len(store) - 1``.
        out : ndarray, optional
            Where to put the images: uint8 (n, H, W, C), C-contiguous.

        Returns
        -------
        images : ndarray
            uint8 (n, H, W, C): `out` where it was given, else the caller's own.
        labels : ndarray
            int64 (n,).

        Raises
        ------
        InvalidIndexError, InvalidInputError
            `indices` or `out` is not of that kind.
        DamagedImageError, DamagedStoreError
            An image cannot be read or, opened with ``verify=True``, is not what was written.
        ReadFailedError
            The system failed the read.
        """
        if not self._ready:
            self._prepare()
        wanted = _inputs.selection(indices, self._count)
        shape = (len(wanted), *self.image_shape)
        images = np.empty(shape, np.uint8) if out is None else _inputs.output(out, shape)
        labels = np.empty(len(wanted), np.int64)
        if not self._verify_reads:
            self._read(wanted, images, labels, None)
            return images, labels
        step = max(_VERIFY_BYTES // self._image_bytes, 1)
        for start in range(0, len(wanted), step):
            part = slice(start, start + step)
            damaged = self._read_checked(wanted[part], images[part], labels[part])
            if len(damaged):
                raise DamagedImageError(f"checksum mismatch in {self.path}", damaged)
        return images, labels

    def read_labels(self, indices: Selection = None) -> NDArray[np.int64]:
        """Read labels without touching an image.

        Parameters
        ----------
        indices : None, slice or array_like of int, optional
            As in `read_many`.

        Returns
        -------
        ndarray
            int64 (n,).

        Raises
        ------
        InvalidIndexError
            The store has no such image.
        DamagedStoreError
            The labels cannot be read or are not what was written.
        ReadFailedError
            The system failed the read.
        """
        if not self._ready:
            self._prepare()
        wanted = _inputs.selection(indices, self._count)
        labels = np.empty(len(wanted), np.int64)
        if len(wanted):
            try:
                self._read_labels(wanted, labels, check=True)
            except self._errors as error:
                raise self._read_failure(error) from error
        return labels

    def batches(
        self, batch_size: SupportsIndex, *, shuffle: SupportsIndex | None = None
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Read everything once, a batch at a time.

        Parameters
        ----------
        batch_size : int
            Images in a batch; the last one may have fewer.
        shuffle : int, optional
            A seed: the images come in the order that it gives. Without it, in order.

        Returns
        -------
        iterator of (images, labels)
            uint8 (n, H, W, C) and int64 (n,), new arrays each time. In memory are one
            batch and, when shuffled, 8 bytes for each image of the store.

        Raises
        ------
        InvalidInputError
            `batch_size` is not at least 1, or `shuffle` is no integer of at least 0.

        Notes
        -----
        The order that a seed gives may change with the version of numpy.
        """
        self._prepare()
        size = _inputs.whole_number("batch_size", batch_size, 1)
        order: range | NDArray[np.int64] = range(self._count)
        if shuffle is not None:
            seed = _inputs.whole_number("shuffle", shuffle, 0)
            order = np.random.default_rng(seed).permutation(self._count)
        return (self.read_many(order[i : i + size]) for i in range(0, len(order), size))

    # -- checking and measuring --------------------------------------------------------------

    def verify(self) -> None:
        """Read every image and label and compare them with what was written.

        Raises
        ------
        DamagedImageError
            Its `indices` are all the images that cannot be read or differ.
        DamagedStoreError
            The structure of the store is damaged.
        ReadFailedError
            The system failed a read.
        """
        self._prepare()
        try:
            self._check_structure()
        except self._errors as error:
            raise self._read_failure(error) from error
        step = max(_VERIFY_BYTES // self._image_bytes, 1)
        images = np.empty((min(step, self._count), *self.image_shape), np.uint8)
        damaged: list[int] = []
        failure: DamagedStoreError | None = None
        for start in range(0, self._count, step):
            block = range(start, min(start + step, self._count))
            try:
                found = self._compare(block, images[: len(block)])
            except DamagedStoreError as error:
                found = [i for i in block if self._is_damaged(i, images[:1])]
                failure = failure or error  # raised where no single image is damaged
            damaged += found
            try:
                self.read_labels(block)
            except DamagedStoreError as error:
                failure = failure or error
        if damaged:
            raise DamagedImageError(f"not what was written to {self.path}", damaged)
        if failure is not None:
            raise failure

    def disk_usage(self) -> DiskUsage:
        """Bytes that the store takes.

        Returns
        -------
        DiskUsage
            `apparent`, the lengths of the files, and `allocated`, the blocks of files
            and directories, both in bytes.

        Raises
        ------
        ReadFailedError
            The system failed to list the directory.
        """
        self._prepare()
        try:
            return disk_usage(self.path)
        except OSError as error:
            raise read_error(f"{self.path} cannot be measured", error) from error

    def _is_damaged(self, index: int, image: NDArray[np.uint8]) -> bool:
        try:
            return bool(self._compare(range(index, index + 1), image))
        except DamagedStoreError:
            return True

    def _compare(self, block: range, images: NDArray[np.uint8]) -> list[int]:
        labels = np.empty(len(block), np.int64)
        damaged = self._read_checked(block, images, labels)
        listed = np.empty(len(block), np.int64)
        try:
            self._read_labels(block, listed, check=False)
        except self._errors as error:
            raise self._read_failure(error) from error
        return sorted({*damaged, *(block.start + np.flatnonzero(labels != listed)).tolist()})

    def _read_checked(
        self,
        wanted: range | NDArray[np.int64],
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
    ) -> list[int]:
        """Read images and return the indices of those whose checksum differs."""
        stored = np.empty(len(wanted), np.uint64)
        self._read(wanted, images, labels, stored)
        indices = np.asarray(wanted, np.int64)
        return indices[checksums(indices, images, labels) != stored].tolist()  # type: ignore[no-any-return]

    def _read(
        self,
        wanted: range | NDArray[np.int64],
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        if not len(wanted):
            return
        try:
            if isinstance(wanted, range):
                self._read_range(wanted.start, images, labels, sums)
                return
            for start in range(0, len(wanted), _INDICES_AT_ONCE):
                part = slice(start, start + _INDICES_AT_ONCE)
                part_sums = None if sums is None else sums[part]
                self._read_indices(wanted[part], images[part], labels[part], part_sums)
        except self._errors as error:
            raise self._read_failure(error) from error

    def _read_failure(self, error: Exception) -> StorageError:
        if isinstance(error, StorageError):
            return error
        if self.closed:
            return ClosedStoreError(f"{self.path} was closed while it was read")
        return read_error(f"reading from {self.path} failed", error)

    @classmethod
    def _is_foreign(cls, error: BaseException) -> bool:
        """Whether an error is the library's or the system's, and not yet one of `errors`."""
        return isinstance(error, cls._errors) and not isinstance(error, StorageError)

    # -- handles -----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Open the handles of this process, unless they are open."""
        if self._ready:
            return  # without the guard, which a writer holds for as long as it writes
        with self._guard:
            if self.closed:
                raise ClosedStoreError(f"{self.path} is closed; open_store opens it again")
            if not self._ready:
                try:
                    self._open()
                except self._errors as error:
                    raise self._read_failure(error) from error
                self._ready = True

    def _after_fork(self) -> None:
        """Forget in the child what belongs to the parent."""
        self._writing = False
        self._guard = threading.RLock()  # another thread of the parent may have held it
        if self._ready:
            self._ready = False
            self._forget()
        if self._lock is not None:
            self._lock.abandon()
            self._lock = None

    # -- what a backend implements -----------------------------------------------------------

    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> Options:
        """The options with their defaults, or `InvalidInputError`."""
        for name in options:
            if name not in cls._defaults:
                accepted = ", ".join(cls._defaults)
                raise InvalidInputError(
                    f"the {cls.backend} backend has no option {name!r}; it accepts {accepted}"
                )
        merged = cls._defaults | options
        return {name: cls._check_option(name, value) for name, value in merged.items()}

    @classmethod
    @abstractmethod
    def _check_option(cls, name: str, value: object) -> int | bool | None:
        """One option, or `InvalidInputError`."""

    @classmethod
    @abstractmethod
    def _make(cls, directory: Path, marker: Marker) -> None:
        """Make the files of an empty store in a directory, synced if durable."""

    @abstractmethod
    def _open(self) -> int:
        """Open the handles of this process, check them, return the committed count."""

    @abstractmethod
    def _close(self) -> None:
        """Close the handles of this process."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop the handles of the parent process without touching what they refer to."""

    @abstractmethod
    def _append(self, source: Source) -> None:
        """Write all of `source`, then commit it as one: synced if durable."""

    @abstractmethod
    def _discard(self, count: int) -> None:
        """Remove what an interrupted `_append` left beyond the first `count` images."""

    @abstractmethod
    def _sync(self) -> None:
        """Bring to the disk all that this store wrote."""

    @abstractmethod
    def _read_one(self, index: int) -> tuple[NDArray[np.uint8], int, int]:
        """Image, label and stored checksum."""

    @abstractmethod
    def _read_range(
        self,
        start: int,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        """Fill the arrays from consecutive images; `sums` only where it is wanted."""

    @abstractmethod
    def _read_indices(
        self,
        indices: NDArray[np.int64],
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        sums: Sums | None,
    ) -> None:
        """Fill the arrays from the images named."""

    @abstractmethod
    def _read_labels(
        self, wanted: range | NDArray[np.int64], labels: NDArray[np.int64], *, check: bool
    ) -> None:
        """Fill the array without touching an image; `DamagedStoreError` if one fails its check."""

    def _check_structure(self) -> None:  # noqa: B027
        """Check what is too dear at each opening; called by `verify`."""


def _check_aside(aside: Path) -> None:
    """Make the directory that a store is made in, unless an earlier attempt left it."""
    aside.mkdir(exist_ok=True)
    check_directory(aside)  # of a link, the target would be cleared
    content = os.listdir(aside)
    if content and _LOCK not in content:
        raise StoreExistsError(f"{aside} is in the way and was not made by this package; move it")


def _lock_aside(aside: Path, path: Path) -> WriterLock:
    """Lock a store that is being made, unless another process has just made it."""
    try:
        lock = WriterLock(aside / _LOCK)
    except FileNotFoundError:
        lock = None
    if lock is None or not lock.is_at(aside / _LOCK):
        if lock is not None:
            lock.abandon()
        raise _made_meanwhile(path)
    return lock


def _made_meanwhile(path: Path) -> StoreExistsError:
    return StoreExistsError(f"another process has just made {path}; open_store opens it")


_stores: "weakref.WeakSet[ImageStore]" = weakref.WeakSet()


def _forget_all() -> None:
    for store in list(_stores):
        store._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
