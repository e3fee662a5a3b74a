"""A store as its user sees it, with writes that are all or nothing.

`ImageStore` is the same for all backends. It opens and closes stores, checks and encodes what is
written, and commits or undoes each write. It inherits reading from `storage_impl._reading`. Only
the `storage_impl.backend.Backend` knows what is in the files.
"""

import os
import shutil
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from storage_impl import _batches, _creation, _marker, codecs
from storage_impl._batches import Batches, Encoded
from storage_impl._files import Directory
from storage_impl._inputs import Images, Labels
from storage_impl._lock import WriterLock
from storage_impl._marker import Marker
from storage_impl._reading import Reader
from storage_impl._records import Records
from storage_impl.backend import Backend
from storage_impl.errors import (
    DamagedStoreError,
    InvalidInputError,
    ReadOnlyStoreError,
    read_error,
    write_error,
)


class ImageStore(Reader):  # numpydoc ignore=PR01
    """Labelled images in order, which are read by index.

    `storage_impl.create_store` and `storage_impl.open_store` return stores. A store is a context
    manager and a sequence: ``store[17]`` is an image and its label, ``store[10:20]`` is images and
    their labels. Several threads may read a store at the same time. If several threads write, the
    writes take place one after another. After a fork, the child may read but not write. Unpickling
    a store opens it for reading, with the length that it had.

    Attributes
    ----------
    backend : str
        The backend's name in `storage_impl.BACKENDS`.
    path : Path
        The store's directory, absolute.
    image_shape : tuple of int or None
        (H, W, C) of each image: height and width in pixels, and channels. None if the images have
        different shapes.
    encoding : str
        How each image is stored: see `storage_impl.codecs`.
    mode : str
        "r" for reading, "a" for reading and appending.
    durable : bool
        If True, the data survives a power cut once a write returns. If False, it survives the end
        of the process, and `close` syncs it.
    closed : bool
        Whether `close` was called.
    """

    def __init__(
        self, kind: type[Backend], directory: Directory, marker: Marker, verify: bool
    ) -> None:
        super().__init__(kind, directory, marker, verify)
        self.durable = marker.durable
        self._marker = marker
        self._lock: WriterLock | None = None
        self.mode = "r"
        self._guard = threading.RLock()
        self._writing = False
        self._leftovers = False  # of a failed call; the next write removes them first

    # -- making and opening ------------------------------------------------------------------

    @classmethod
    def create(cls, kind: type[Backend], path: Path, marker: Marker) -> Self:
        """Create an empty store: see `storage_impl.create_store`."""
        directory, lock = _creation.create(kind, path, marker)
        store = cls(kind, directory, marker, False)
        try:
            store._open(directory, lock)
        except BaseException as error:
            shutil.rmtree(path, ignore_errors=True)
            lock.release()
            if store._is_foreign(error):
                raise write_error(f"{path} could not be created", error, "was not made") from error
            raise
        return store

    @classmethod
    def open(
        cls, kind: type[Backend], directory: Directory, marker: Marker, mode: str, verify: bool
    ) -> Self:
        """Open an existing store: see `storage_impl.open_store`."""
        store = cls(kind, directory, marker, verify)
        lock = None
        try:
            if not verify:
                _creation.check_not_copied(directory)
            if mode == "a":
                lock = WriterLock(directory)
            store._open(directory, lock)
            if lock is not None:
                if verify:
                    store.verify()
                lock.note(directory)
                store._undo(store._count)
            return store
        except BaseException as error:
            backend, store._backend = store._backend, None
            if backend is not None:
                backend.close()
            if lock is not None:
                lock.release()
            if store._is_foreign(error):
                raise read_error(f"{store.path} cannot be opened", error) from error
            raise

    def _open(self, directory: Directory, lock: WriterLock | None) -> None:
        backend = self._kind(
            directory, self._marker, writable=lock is not None, verify=self._verify_reads
        )
        if self.encoding != "raw":
            codecs.load()
        self._count = backend.count
        self._lock = lock
        self.mode = "r" if lock is None else "a"
        self._backend = backend
        _stores.add(self)

    @classmethod
    def _reopen(cls, path: Path, count: int, verify: bool) -> "ImageStore":
        from storage_impl import open_store

        store = open_store(path, verify=verify)
        if store._count < count:
            store.close()
            raise DamagedStoreError(f"{path} held {count:,} images when pickled, now holds fewer")
        store._count = count
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._reopen, (self.path, len(self), self._verify_reads)

    def close(self) -> None:
        """Close the store. With ``durable=False``, a writer syncs first.

        A read in progress in another thread ends as if the store were open.

        Raises
        ------
        WriteFailedError
            The sync failed. The store is closed anyway.
        """
        with self._guard:
            backend, lock = self._backend, self._lock
            if backend is None:
                return
            if self._writing:
                raise InvalidInputError("the iterable given to write_many must not close the store")
            _stores.discard(self)
            self._backend = self._lock = None
            try:
                if lock is not None and not self.durable:
                    backend.sync()
                    backend.directory.sync_name(_marker.NAME)
                    backend.directory.sync()
                    Directory(self.path.parent).sync()
            except self._kind.errors as error:
                if not self._is_foreign(error):
                    raise
                state = "holds all images, but they may not survive a power cut"
                raise write_error(f"{self.path} could not be synced", error, state) from error
            finally:
                try:
                    backend.close()
                finally:
                    if lock is not None:
                        lock.release()

    def __enter__(self) -> Self:
        self._in_use()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._backend is not None:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self._count:,} images, mode {self.mode!r}"
        return f"<ImageStore {self.backend} {str(self.path)!r}: {self.image_shape} {state}>"

    # -- writing -----------------------------------------------------------------------------

    def write_one(self, image: NDArray[np.uint8], label: SupportsIndex) -> int:
        """Append one image.

        Parameters
        ----------
        image : ndarray
            uint8 (H, W, C), of `image_shape` unless that is None.
        label : int
            Any integer that fits int64.

        Returns
        -------
        int
            The index of the image.

        Raises
        ------
        InvalidInputError
            The image or the label is not valid. Nothing was written.
        ReadOnlyStoreError, ClosedStoreError
            The store cannot be written to.
        WriteFailedError, StoreFullError
            The write failed. The store is as it was before the call.
        """
        return self._write(_batches.one(image, label, self._marker)).start

    def write_many(self, images: Images, labels: Labels) -> range:
        """Append images, all or none of them.

        Parameters
        ----------
        images : ndarray or iterable of ndarray
            (N, H, W, C) uint8, or an iterable of (H, W, C) uint8. At most 64 MiB of an iterable are
            held in memory at once, but at least one image.
        labels : array_like or iterable of int
            One integer per image, each of which fits int64.

        Returns
        -------
        range
            The indices of the images.

        Raises
        ------
        InvalidInputError
            An image or a label is not valid, or there are more of one than of the other. Arrays and
            sequences are checked before a byte is written.
        ReadOnlyStoreError, ClosedStoreError
            The store cannot be written to.
        WriteFailedError, StoreFullError
            The write failed. The store is as it was before the call.

        Notes
        -----
        If the iterable itself raises an exception, it passes through, and the store is as it was
        before the call.

        A failed call is undone. If the disk fails during that, too, readers that open the store
        afterwards may see the images of the call. This object does not count them, and the next
        write removes them.
        """
        self._check_writable()
        return self._write(_batches.of_images(images, labels, self._marker))

    def write_encoded(self, data: Encoded | Iterable[Encoded], labels: Any) -> range:
        """Append encoded images unchanged, all or none of them.

        `read_encoded` returns the same bytes.

        Parameters
        ----------
        data : bytes or iterable of bytes
            One or several files in the store's encoding. If that is "mixed", in any encoding. About
            32 MiB of an iterable are held in memory at once.
        labels : int, array_like or iterable of int
            One label for one file, otherwise one integer per file.

        Returns
        -------
        range
            The indices of the images.

        Raises
        ------
        InvalidInputError
            A label is not valid, or a file is refused because of its header: it has another
            encoding or shape than the store accepts, has 16 bits per channel, is an animation, or
            is one of the other cases in `storage_impl.codecs`. Sequences are checked before a byte
            is written.
        ReadOnlyStoreError, ClosedStoreError
            The store cannot be written to.
        WriteFailedError, StoreFullError
            The write failed. The store is as it was before the call.
        """
        self._check_writable()
        return self._write(_batches.of_encoded(data, labels, self._marker))

    def _write(self, records: Iterator[Records]) -> range:
        with self._guard:
            backend = self._check_writable()
            if self._writing:
                raise InvalidInputError(
                    "the iterable given to write_many must not write to the same store"
                )
            try:
                self._writing = True  # before the count is taken, which a handler's write changes
                return self._append(backend, records)
            finally:
                self._writing = False  # again, because an interrupt may have prevented it

    def _append(self, backend: Backend, records: Iterator[Records]) -> range:
        start = self._count
        batches = Batches(records, start)
        try:
            if self._leftovers:
                self._undo(start)
            self._leftovers = True
            backend.append(batches)
            self._count = batches.stop
            self._leftovers = False
            return range(start, batches.stop)
        except BaseException as error:
            if batches.forked():
                raise  # the parent commits or undoes what was begun
            self._leftovers = True
            self._count = start
            with suppress(Exception):  # the first error is the one to report
                self._undo(start)
            if error is not batches.error and self._is_foreign(error):
                state = "is as it was before the call"
                raise write_error(f"writing to {self.path} failed", error, state) from error
            raise
        finally:
            self._writing = False
            batches.error = None  # its traceback refers to this frame, and so to the store

    def _undo(self, count: int) -> None:
        self._in_use().discard(count)
        self._leftovers = False

    def _check_writable(self) -> Backend:
        backend = self._in_use()
        if self.mode != "a":
            raise ReadOnlyStoreError(
                f"{self.path} is open for reading only; use open_store(..., mode='a') to append"
            )
        if self._lock is None:
            raise ReadOnlyStoreError(
                f"{self.path} was opened for writing before this process was forked; "
                "only the process that opened it may write"
            )
        return backend

    def _after_fork(self) -> None:
        """Drop, in the child, what belongs to the parent."""
        self._writing = False
        self._guard = threading.RLock()  # another thread of the parent may have held it
        if self._lock is not None:
            self._lock.abandon()
            self._lock = None
        if self._backend is not None:
            self._backend.after_fork()


_stores: "weakref.WeakSet[ImageStore]" = weakref.WeakSet()


def _forget_all() -> None:
    for store in list(_stores):
        store._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
