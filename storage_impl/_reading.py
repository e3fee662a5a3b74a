"""The reading methods of a store, which `storage_impl.store.ImageStore` inherits.

They check arguments, decode, and compare checksums. Only the `storage_impl.backend.Backend` knows
what is in the files.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from storage_impl import _creation, _files, _inputs, codecs
from storage_impl._checksum import checksum, checksums, shape_key
from storage_impl._files import Directory, DiskUsage
from storage_impl._inputs import Selection
from storage_impl._marker import Marker
from storage_impl._records import Places, Records, Shape, part_of, to_fill
from storage_impl.backend import Backend, Wanted
from storage_impl.errors import (
    ClosedStoreError,
    DamagedImageError,
    DamagedStoreError,
    InvalidInputError,
    StoreNotFoundError,
    read_error,
)

Image = NDArray[np.uint8]
# (n, H, W, C), or a list of n arrays if the shapes differ. Because of Any, a caller who knows which
# of the two it is needs no cast.
ManyImages = Image | Any

_CHECKED_BYTES = 1 << 20  # read at once, and checked while still in the CPU cache
_STORED_BYTES = 8 << 20  # of pixels that are decoded at once, with their stored bytes in memory
_STORED_IMAGES = 64  # the same, in images, if shapes differ


class Reader:  # numpydoc ignore=PR01
    """The methods of a store that read."""

    # None until the store is open, so that `__del__` does nothing after a failed opening.
    _backend: Backend | None = None
    _count: int

    def __init__(
        self, kind: type[Backend], directory: Directory, marker: Marker, verify: bool
    ) -> None:
        self.backend = kind.name
        self.path = directory.path
        self.image_shape = marker.image_shape
        self.encoding = marker.encoding
        self._kind = kind
        self._row_bytes = marker.row_bytes
        self._shape_key = None if marker.image_shape is None else shape_key(marker.image_shape)
        self._verify_reads = verify

    @property
    def closed(self) -> bool:  # numpydoc ignore=RT01
        """Whether `close` was called."""
        return self._backend is None

    def _in_use(self) -> Backend:
        backend = self._backend
        if backend is None:
            raise ClosedStoreError(f"{self.path} is closed; open_store opens it again")
        return backend

    def __len__(self) -> int:
        self._in_use()
        return self._count

    def read_one(self, index: SupportsIndex) -> tuple[NDArray[np.uint8], int]:
        """Read one image.

        Parameters
        ----------
        index : int
            From 0 to ``len(store) - 1``.

        Returns
        -------
        image : ndarray
            uint8 (H, W, C), a new array.
        label : int
            Its label.

        Raises
        ------
        InvalidIndexError
            The store has no image with that index.
        DamagedImageError, DamagedStoreError
            The image cannot be read or, in a store opened with ``verify=True``, is not what was
            written.
        ReadFailedError
            The operating system failed to read a file.
        """
        backend = self._in_use()
        if type(index) is not int or not 0 <= index < self._count:
            index = _inputs.index(index, self._count)
        try:
            data, shape, label, stored = backend.read_one(index)
        except self._kind.errors as error:
            raise self._read_failure(error) from error
        if self._verify_reads:
            self._check_one(index, data, shape, label, stored)
        if self._row_bytes is not None:
            return data, label  # type: ignore[return-value]
        try:
            image = codecs.decode(data, self.encoding, self.image_shape or shape)  # type: ignore[arg-type]
        except codecs.DecodeError as error:
            reason = f"cannot be decoded in {self.path}: {error}"
            raise DamagedImageError(reason, [index]) from error
        return image.copy(), label

    def read_encoded(self, index: SupportsIndex) -> tuple[bytes, int]:
        """Read one image as it is stored: the bytes of a PNG, JPEG or WebP file.

        Parameters
        ----------
        index : int
            From 0 to ``len(store) - 1``.

        Returns
        -------
        data : bytes
            What `write_encoded` was given, or what `write_one` or `write_many` encoded.
        label : int
            Its label.

        Raises
        ------
        InvalidInputError
            The store holds raw pixels.
        InvalidIndexError
            The store has no image with that index.
        DamagedImageError, DamagedStoreError
            The image cannot be read or, in a store opened with ``verify=True``, is not what was
            written.
        ReadFailedError
            The operating system failed to read a file.
        """
        backend = self._in_use()
        if self.encoding == "raw":
            raise InvalidInputError(f"{self.path} holds raw pixels; read_one reads them")
        index = _inputs.index(index, self._count)
        try:
            data, shape, label, stored = backend.read_one(index)
        except self._kind.errors as error:
            raise self._read_failure(error) from error
        if self._verify_reads:
            self._check_one(index, data, shape, label, stored)
        return data, label  # type: ignore[return-value]

    def _check_one(
        self, index: int, data: Image | bytes, shape: Shape, label: int, stored: int
    ) -> None:
        key = self._shape_key if self._shape_key is not None else shape_key(shape)
        of_another = self.image_shape not in (None, shape)
        if of_another or checksum(index, data, label, key) != stored:  # type: ignore[arg-type]
            raise DamagedImageError(f"checksum mismatch in {self.path}", [index])

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> tuple[Image, int]: ...

    @overload
    def __getitem__(
        self, index: slice | Sequence[int] | NDArray[np.integer[Any]]
    ) -> tuple[ManyImages, NDArray[np.int64]]: ...

    def __getitem__(self, index: Any) -> Any:
        """Read one image and its label or, for a slice or several indices, like `read_many`.

        An index below 0 counts from the end, as in Python.
        """
        self._in_use()
        if isinstance(index, slice):
            return self.read_many(index)
        if isinstance(index, np.ndarray) and not index.ndim:
            index = index.item()
        if isinstance(index, Sequence | np.ndarray) and not isinstance(index, str | bytes):
            return self.read_many(_inputs.from_the_end(index, self._count))
        if isinstance(index, int | np.integer) and -self._count <= index < 0:
            index = int(index) + self._count
        return self.read_one(index)

    def read_many(
        self, indices: Selection = None, *, out: NDArray[np.uint8] | None = None
    ) -> tuple[ManyImages, NDArray[np.int64]]:
        """Read images.

        Parameters
        ----------
        indices : None, slice or array_like of int, optional
            None reads all images, in order. A slice works as in Python. Otherwise (n,) indices,
            each from 0 to ``len(store) - 1``, in any order and with repeats.
        out : ndarray, optional
            An array for the images: uint8 (n, H, W, C), C-contiguous. Not accepted if the images
            have different shapes.

        Returns
        -------
        images : ndarray or list of ndarray
            uint8 (n, H, W, C): `out` if it was given, otherwise a new array. If the images have
            different shapes, a list of n arrays (H, W, C), up to 64 of which share a block of
            memory.
        labels : ndarray
            int64 (n,).

        Raises
        ------
        InvalidIndexError, InvalidInputError
            `indices` or `out` is not valid.
        DamagedImageError, DamagedStoreError
            An image cannot be read or, in a store opened with ``verify=True``, is not what was
            written.
        ReadFailedError
            The operating system failed to read a file.
        """
        backend = self._in_use()
        wanted = _inputs.selection(indices, self._count)
        if self.image_shape is None:
            if out is not None:
                raise InvalidInputError(
                    "images of different shapes do not fit into one array; call without out="
                )
            return self._read_list(backend, wanted)
        shape = (len(wanted), *self.image_shape)
        images = np.empty(shape, np.uint8) if out is None else _inputs.output(out, shape)
        records = to_fill(images)
        self._read_to(wanted, records, None)
        return images, records.labels

    def _read_to(self, wanted: Wanted, records: Records, places: Places) -> None:
        """Fill in the pixels and labels of images of one shape. The images exist."""
        backend = self._in_use()
        if self._row_bytes is None:
            for part in self._parts(len(wanted), _STORED_BYTES):
                found = self._checked(backend, wanted[part])
                here, there = part_of(records, places, part)
                for_each = slice(None) if there is None else there
                here.labels[for_each] = found.labels
                rows = range(found.count) if there is None else there.tolist()
                self._decoded(wanted[part], found, [here.data[row] for row in rows])
            return
        # With `verify`, they are read in parts that stay in the CPU cache.
        at_most = _CHECKED_BYTES if self._verify_reads else max(len(wanted) * self._row_bytes, 1)
        for part in self._parts(len(wanted), at_most):
            self._checked(backend, wanted[part], *part_of(records, places, part))

    def _read_list(self, backend: Backend, wanted: Wanted) -> tuple[list[Image], NDArray[np.int64]]:
        images: list[Image] = []
        labels = np.empty(len(wanted), np.int64)
        for part in self._parts(len(wanted), _STORED_BYTES):
            records = self._checked(backend, wanted[part])
            labels[part] = records.labels
            images += _copies(self._decoded(wanted[part], records))
        return images, labels

    def read_labels(self, indices: Selection = None) -> NDArray[np.int64]:
        """Read labels without reading an image.

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
            The store has no image with such an index.
        DamagedStoreError
            The labels cannot be read, or are not what was written.
        ReadFailedError
            The operating system failed to read a file.
        """
        backend = self._in_use()
        wanted = _inputs.selection(indices, self._count)
        if not len(wanted):
            return np.empty(0, np.int64)
        try:
            return backend.read_labels(wanted, check=True)
        except self._kind.errors as error:
            raise self._read_failure(error) from error

    def batches(
        self, batch_size: SupportsIndex, *, shuffle: SupportsIndex | None = None
    ) -> Iterator[tuple[ManyImages, NDArray[np.int64]]]:
        """Read all images once, in batches.

        Parameters
        ----------
        batch_size : int
            Images per batch. The last batch may have fewer.
        shuffle : int, optional
            A seed for a random order. Without it, the images come in the order of the store.

        Returns
        -------
        iterator of (images, labels)
            Each batch as `read_many` returns it, in new arrays. Memory holds one batch and, if
            shuffled, 8 bytes for each image of the store.

        Raises
        ------
        InvalidInputError
            `batch_size` is not an integer of at least 1, or `shuffle` not one of at least 0.

        Notes
        -----
        The order that a seed gives may change with the version of numpy.
        """
        self._in_use()
        size = _inputs.whole_number("batch_size", batch_size, 1)
        order: range | NDArray[np.int64] = range(self._count)
        if shuffle is not None:
            seed = _inputs.whole_number("shuffle", shuffle, 0)
            order = np.random.default_rng(seed).permutation(self._count)
        return (self.read_many(order[i : i + size]) for i in range(0, len(order), size))

    # -- checking and measuring --------------------------------------------------------------

    def verify(self, *, progress: Callable[[int], object] | None = None) -> None:
        """Read every image and label, and compare them with what was written.

        Parameters
        ----------
        progress : callable, optional
            Called after each part of the images with the number of images in that part.

        Raises
        ------
        DamagedImageError
            Images cannot be read, or differ. `indices` lists all of them.
        DamagedStoreError
            The structure of the store is damaged.
        ReadFailedError
            The operating system failed to read a file.
        """
        backend = self._in_use()
        try:
            backend.check_structure()
        except self._kind.errors as error:
            raise self._read_failure(error) from error
        damaged: list[int] = []
        failure: DamagedStoreError | None = None
        for part in self._parts(self._count, _CHECKED_BYTES):
            block = range(part.start, part.stop)
            try:
                found = self._compare(backend, block)
            except DamagedStoreError as error:
                found = [i for i in block if self._is_damaged(backend, i)]
                failure = failure or error  # raised if no single image is damaged
            damaged += found
            try:
                self.read_labels(block)
            except DamagedStoreError as error:
                failure = failure or error
            if progress is not None:
                progress(len(block))
        if damaged:
            raise DamagedImageError(f"not what was written to {self.path}", damaged)
        if failure is not None:
            raise failure

    def _is_damaged(self, backend: Backend, index: int) -> bool:
        try:
            return bool(self._compare(backend, range(index, index + 1)))
        except DamagedStoreError:
            return True

    def _compare(self, backend: Backend, block: range) -> list[int]:
        """The images of a block that differ from what was written."""
        try:
            records = self._stored(backend, block)
            listed = backend.read_labels(block, check=False)
        except self._kind.errors as error:
            raise self._read_failure(error) from error
        wrong = self._differ(block, records) | (records.labels != listed)
        return (block.start + np.flatnonzero(wrong)).tolist()

    def disk_usage(self) -> DiskUsage:
        """Measure the disk space that the store takes.

        Returns
        -------
        DiskUsage
            `apparent`, the lengths of the files, and `allocated`, the blocks of files and
            directories, both in bytes.

        Raises
        ------
        StoreNotFoundError
            The store's directory was moved since it was opened.
        ReadFailedError
            The operating system failed to list the directory.
        """
        backend = self._in_use()
        try:
            if Directory(self.path).identity() == backend.directory.identity():
                return _files.disk_usage(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if not self._is_foreign(error):
                raise
            raise read_error(f"{self.path} cannot be measured", error) from error
        raise StoreNotFoundError(
            f"{self.path} was moved since this store was opened; open it at its new path"
        )

    # -- what the methods above share --------------------------------------------------------

    def _parts(self, count: int, at_most: int) -> Iterator[slice]:
        """Slices of `count` images, each of at most `at_most` bytes of pixels."""
        if self.image_shape is None:
            step = _STORED_IMAGES
        else:
            height, width, channels = self.image_shape
            step = max(at_most // (height * width * channels), 1)
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def _stored(self, backend: Backend, wanted: Wanted) -> Records:
        """Read images as they are stored."""
        if self._row_bytes is None:
            return backend.fetch(wanted)
        assert self.image_shape is not None
        records = to_fill(np.empty((len(wanted), *self.image_shape), np.uint8))
        backend.fill(wanted, records, None)
        return records

    def _checked(
        self,
        backend: Backend,
        wanted: Wanted,
        records: Records | None = None,
        places: Places = None,
    ) -> Records:
        """Fetch or fill records, translate errors and, with `verify`, compare checksums."""
        try:
            if records is None:
                records = backend.fetch(wanted)
            else:
                backend.fill(wanted, records, places)
        except self._kind.errors as error:
            raise self._read_failure(error) from error
        if self._verify_reads:
            wrong = self._differ(wanted, records if places is None else records.at(places))
            if wrong.any():
                damaged = np.asarray(wanted)[wrong].tolist()
                raise DamagedImageError(f"checksum mismatch in {self.path}", damaged)
        return records

    def _differ(self, wanted: Wanted, records: Records) -> NDArray[np.bool_]:
        found = checksums(np.asarray(wanted, np.int64), records)
        wrong: NDArray[np.bool_] = found != records.checksums
        if self.image_shape is not None and self._row_bytes is None:
            wrong |= (records.shapes != np.array(self.image_shape, np.uint32)).any(axis=1)
        return wrong

    def _decoded(
        self, wanted: Wanted, records: Records, rows: list[Any] | None = None
    ) -> list[Image]:
        """Decode stored images, to `rows` if given. The arrays may be read-only."""
        shapes: list[Shape] = list(map(tuple, records.shapes.tolist()))
        if self.image_shape is not None:  # whatever each record says
            shapes = [self.image_shape] * len(shapes)
        found = codecs.decode_all(records.data, self.encoding, shapes, rows)
        failed = [i for i, image in enumerate(found) if isinstance(image, codecs.DecodeError)]
        if failed:
            reason = f"cannot be decoded in {self.path}: {found[failed[0]]}"
            raise DamagedImageError(reason, np.asarray(wanted)[failed].tolist())
        return found  # type: ignore[return-value]

    def _read_failure(self, error: Exception) -> Exception:
        if not self._is_foreign(error):
            return error
        return read_error(f"reading from {self.path} failed", error)

    def _is_foreign(self, error: BaseException) -> bool:
        return _creation.is_foreign(error, self._kind)


def _copies(images: list[Image]) -> Iterator[Image]:
    """Copy arrays into one block: the system would take many small ones back after each call."""
    block = np.empty(sum(image.size for image in images), np.uint8)
    start = 0
    for image in images:
        own = block[start : start + image.size].reshape(image.shape)
        own[...] = image
        start += image.size
        yield own
