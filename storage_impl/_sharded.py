"""A dataset of many stores that is read like one; `storage_impl.shards` writes it."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NoReturn, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from storage_impl import _files, _inputs, _shard_index, open_store
from storage_impl._files import Directory, DiskUsage
from storage_impl._inputs import Selection
from storage_impl._reading import Image
from storage_impl._records import to_fill
from storage_impl.errors import (
    ClosedStoreError,
    DamagedImageError,
    DamagedStoreError,
    InvalidInputError,
    ReadOnlyStoreError,
    read_error,
)
from storage_impl.store import ImageStore

OPEN_SHARDS = 32
"""How many shards of a dataset a process keeps open at most."""

_Answer = TypeVar("_Answer")
_Place = slice | NDArray[np.int64]


class ShardedStore(ImageStore):
    """A dataset of many stores, read as one. `storage_impl.open_store` opens it.

    It has the attributes and the methods of `storage_impl.ImageStore`, but is read-only. A process
    keeps at most `OPEN_SHARDS` shards open. Random reads from more shards than that open the same
    shards again and again. `batches` and `storage_impl.sampling.ResumableBatchSampler` avoid this:
    they read from a limited number of shards at a time.

    Attributes
    ----------
    shards : list of Path
        The stores, in order.
    fingerprint : str
        The fingerprint of the run that wrote them.
    """

    def __init__(self, directory: Directory, mode: str, verify: bool) -> None:
        index = _shard_index.read(directory)
        self.path = directory.path
        self._directory = directory
        self.backend, self.encoding = index.backend, index.encoding
        self.image_shape = index.image_shape
        self.fingerprint = index.fingerprint
        self.mode = "r"
        self.durable = True
        self._index = index
        self._verify_reads = verify
        self._starts = list(accumulate(index.counts, initial=0))
        self._count = self._starts.pop()
        self._first_of_next = np.array([*self._starts[1:], self._count], np.int64)
        self._closed = False
        if mode == "a":
            self._check_writable()
        # A function of the module, because a method in the cache would be a reference cycle.
        self._shard = lru_cache(OPEN_SHARDS)(partial(_open_shard, directory, index, verify))

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def shards(self) -> list[Path]:
        """The stores, in order."""
        run = self.path / self.fingerprint
        return [run / _shard_index.name_of(number) for number in range(len(self._starts))]

    def close(self) -> None:
        """Close the dataset. A read in progress in another thread still completes."""
        self._closed = True
        self._shard.cache_clear()  # each shard closes when its last user is done

    def _in_use(self) -> None:  # type: ignore[override]
        if self._closed:
            raise ClosedStoreError(f"{self.path} is closed; open_store opens it again")

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.fingerprint, self._verify_reads)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._count:,} images"
        shards = f"{len(self._starts):,} {self.backend} shards"
        return f"<ShardedStore {str(self.path)!r}: {shards}, {self.image_shape} {state}>"

    def _check_writable(self) -> NoReturn:
        self._in_use()
        raise ReadOnlyStoreError(
            f"{self.path} is a sharded dataset, which is read-only; write a new one with "
            "storage_impl.shards.write_shards"
        )

    def write_one(self, image: Any, label: Any) -> NoReturn:
        """Raise ReadOnlyStoreError. `write_many` and `write_encoded` do, too."""
        self._check_writable()

    # -- reading -----------------------------------------------------------------------------

    def read_one(self, index: SupportsIndex) -> tuple[Image, int]:
        """Read one image, like `ImageStore.read_one`."""
        number, inside = self._find(index)
        return self._ask(number, ImageStore.read_one, inside)

    def read_encoded(self, index: SupportsIndex) -> tuple[bytes, int]:
        """Read one image as it is stored, like `ImageStore.read_encoded`."""
        number, inside = self._find(index)
        return self._ask(number, ImageStore.read_encoded, inside)

    def read_many(
        self, indices: Selection = None, *, out: NDArray[np.uint8] | None = None
    ) -> tuple[Image | list[Image], NDArray[np.int64]]:
        """Read images, like `ImageStore.read_many`, with one call for each shard."""
        self._in_use()
        wanted = _inputs.selection(indices, self._count)
        if self.image_shape is None:
            if out is not None:
                raise InvalidInputError(
                    "images of different shapes do not fit into one array; call without out="
                )
            labels = np.empty(len(wanted), np.int64)
            pixels: list[Any] = [None] * len(wanted)
            for number, here, inside in self._pieces(wanted):
                found, labels[here] = self._ask(number, ImageStore.read_many, inside)
                for place, image in zip(np.arange(len(wanted))[here], found, strict=True):
                    pixels[place] = image
            return pixels, labels
        shape = (len(wanted), *self.image_shape)
        images = np.empty(shape, np.uint8) if out is None else _inputs.output(out, shape)
        records = to_fill(images)
        for number, here, inside in self._pieces(wanted):
            if isinstance(here, slice):
                self._ask(number, ImageStore._read_to, inside, records.part(here), None)
            else:
                self._ask(number, ImageStore._read_to, inside, records, here)
        return images, records.labels

    def read_labels(self, indices: Selection = None) -> NDArray[np.int64]:
        """Read labels without reading an image, like `ImageStore.read_labels`."""
        self._in_use()
        wanted = _inputs.selection(indices, self._count)
        labels = np.empty(len(wanted), np.int64)
        for number, here, inside in self._pieces(wanted):
            labels[here] = self._ask(number, ImageStore.read_labels, inside)
        return labels

    def batches(
        self, batch_size: SupportsIndex, *, shuffle: SupportsIndex | None = None
    ) -> Iterator[tuple[Image | list[Image], NDArray[np.int64]]]:
        """Read all images once, in batches, like `ImageStore.batches`.

        To shuffle, it takes up to `OPEN_SHARDS` shards at random and shuffles all their images,
        then takes the next shards.
        """
        self._in_use()
        size = _inputs.whole_number("batch_size", batch_size, 1)
        if shuffle is None:
            return (self.read_many(slice(i, i + size)) for i in range(0, self._count, size))
        return self._shuffled(size, _inputs.whole_number("shuffle", shuffle, 0))

    def _shuffled(self, size: int, seed: int) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        generator = np.random.default_rng(seed)
        numbers = np.arange(len(self._starts))
        if len(numbers) > OPEN_SHARDS:
            generator.shuffle(numbers)
        waiting = np.empty(0, np.int64)
        for first in range(0, len(numbers), OPEN_SHARDS):
            chosen = numbers[first : first + OPEN_SHARDS].tolist()
            for number in chosen:
                self._shard(number)  # opening it checks its number of images
            ranges = [np.arange(*self._span(number)) for number in chosen]
            waiting = np.append(waiting, generator.permutation(np.concatenate(ranges)))
            full = len(waiting) // size * size
            for start in range(0, full, size):
                yield self.read_many(waiting[start : start + size])
            waiting = waiting[full:]
        if len(waiting):
            yield self.read_many(waiting)

    # -- checking and measuring --------------------------------------------------------------

    def verify(self, *, progress: Callable[[int], object] | None = None) -> None:
        """Check the images of each shard, like `ImageStore.verify`, and its files' checksum."""
        self._in_use()
        damaged: list[int] = []
        failure: DamagedStoreError | None = None
        for number, path in enumerate(self.shards):
            try:
                with _open_shard(self._directory, self._index, True, number) as shard:
                    shard.verify(progress=progress)
                self._compare_files(number, path)
            except DamagedImageError as error:
                damaged += [self._starts[number] + index for index in error.indices]
            except DamagedStoreError as error:
                failure = failure or error
        if damaged:
            raise DamagedImageError(f"not what was written to {self.path}", damaged)
        if failure is not None:
            raise failure

    def _compare_files(self, number: int, path: Path) -> None:
        try:
            found = _shard_index.measure(Directory(path))
        except OSError as error:
            raise read_error(f"{path} cannot be read", error) from error
        if found != (self._index.bytes[number], self._index.checksums[number]):
            raise DamagedStoreError(f"{path} is not the shard that was written")

    def disk_usage(self) -> DiskUsage:
        """Measure the disk space of the dataset, like `ImageStore.disk_usage`."""
        self._in_use()
        try:
            return _files.disk_usage(self.path)
        except OSError as error:
            raise read_error(f"{self.path} cannot be measured", error) from error

    # -- which shard -------------------------------------------------------------------------

    def _ask(self, number: int, read: Callable[..., _Answer], *what: Any) -> _Answer:
        """Read from a shard. Errors name images by their indices in the dataset."""
        try:
            return read(self._shard(number), *what)
        except DamagedImageError as error:
            indices = [self._starts[number] + index for index in error.indices]
            raise DamagedImageError(error.args[0], indices) from error

    def _span(self, number: int) -> tuple[int, int]:
        start = self._starts[number]
        return start, start + self._index.counts[number]

    def _find(self, index: SupportsIndex) -> tuple[int, int]:
        self._in_use()
        if type(index) is not int or not 0 <= index < self._count:
            index = _inputs.index(index, self._count)
        number = bisect_right(self._starts, index) - 1
        return number, index - self._starts[number]

    def _pieces(
        self, wanted: range | NDArray[np.int64]
    ) -> Iterator[tuple[int, _Place, range | NDArray[np.int64]]]:
        """For each shard concerned: its number, places in the result, indices in the shard."""
        if isinstance(wanted, range):
            position = wanted.start
            while position < wanted.stop:
                number = bisect_right(self._starts, position) - 1
                start, end = self._span(number)
                stop = min(end, wanted.stop)
                here = slice(position - wanted.start, stop - wanted.start)
                yield number, here, range(position - start, stop - start)
                position = stop
            return
        if not len(wanted):
            return
        order = wanted.argsort()
        ascending = wanted[order]
        owners = self._first_of_next.searchsorted(ascending, side="right")
        changes = (owners[1:] != owners[:-1]).nonzero()[0] + 1
        edges = [0, *changes.tolist(), len(wanted)]
        for begin, end in pairwise(edges):
            number = int(owners[begin])
            start = self._starts[number]
            if len(edges) == 2:  # of one shard only: keep the order that was asked for
                yield number, slice(None), wanted - start
            else:
                yield number, order[begin:end], ascending[begin:end] - start


def _reopen(path: Path, fingerprint: str, verify: bool) -> ImageStore:
    store = open_store(path, verify=verify)
    if not isinstance(store, ShardedStore) or store.fingerprint != fingerprint:
        store.close()
        raise DamagedStoreError(f"{path} is not the dataset that was pickled")
    return store


def _open_shard(
    directory: Directory, index: _shard_index.Index, verify: bool, number: int
) -> ImageStore:
    try:
        run = directory.subdirectory(index.fingerprint)
        run.subdirectory(_shard_index.name_of(number))  # fails for a link
        store = open_store(run.path / _shard_index.name_of(number), verify=verify)
    except FileNotFoundError as error:
        raise DamagedStoreError(
            f"{directory.path}: shard {_shard_index.name_of(number)} is missing"
        ) from error
    except OSError as error:
        raise read_error(
            f"{directory.path}: shard {_shard_index.name_of(number)}", error
        ) from error
    kind = store.backend, store.encoding, store.image_shape, len(store), type(store)
    if kind != (index.backend, index.encoding, index.image_shape, index.counts[number], ImageStore):
        store.close()
        raise DamagedStoreError(f"{store!r} is not the shard that the index of its dataset lists")
    return store
