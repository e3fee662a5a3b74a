"""Images in an LMDB environment.

On-disk format, version 1::

    store.json
    write.lock
    commit               the commit record, see `storage_impl._commit`
    data.mdb, lock.mdb   one environment, with
        main database    "storage_impl" -> version u32 | H u32 | W u32 | C u32 | count u64
        "images"         index -> header of 32 bytes, then the stored bytes of the image
        "labels"         block number -> checksum u64, then up to 509 labels i64

Keys are u64 big-endian, so that LMDB sorts them by index. Everything else is little-endian. H, W
and C are 0 if the images have different shapes. The header of an image::

    encoding u8 | channels u8 | 0 u16 | height u32 | width u32 | 0 u32 |
    label i64 | checksum u64

The encoding is that of the store: 0 raw, 1 png, 2 jpeg, 3 webp, 4 mixed. The stored bytes of a raw
image are its pixels, C-contiguous.

Labels have blocks of their own, so that they can be read without reading an image. A block fills
the 4,096 bytes of a page, except the page's header of 16. Its checksum is XXH3-64 of the labels
plus the block number, modulo 2**64.

A long call takes several transactions, and only the last one updates the count. An interrupted call
leaves images at or beyond the count. Readers ignore them, and the next writer removes them. LMDB's
own count is the valid one. The commit record follows it: if damage takes the environment back to an
older transaction, the record shows it.

Opening checks both meta pages against the length of the file, so a file that was cut short is
refused. The other pages could have pointers that lead LMDB out of its map. They are checked if the
store is opened with ``verify=True``, and by `verify`.
"""

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import ClassVar, cast

import lmdb
import numpy as np
from numpy.typing import NDArray

from storage_impl import _inputs, _records, codecs
from storage_impl._checksum import digest
from storage_impl._commit import INITIAL, CommitRecord
from storage_impl._files import Directory, sync
from storage_impl._lmdb_environment import Environment, create
from storage_impl._lmdb_sharing import OpenFile
from storage_impl._marker import FORMAT_VERSION, Marker, Options
from storage_impl._records import Places, Records, Shape
from storage_impl.backend import Backend, Wanted
from storage_impl.errors import DamagedImageError, DamagedStoreError, is_ours

_COMMIT = "commit"
_META_KEY = b"storage_impl"
_META = struct.Struct("<IIIIQ")
_HEADER = np.dtype([("fixed", "<u8", 2), ("label", "<i8"), ("checksum", "<u8")])
_FIXED = struct.Struct("<BBHIII")
_ONE_HEADER = struct.Struct("<16sqQ")
_SUM = struct.Struct("<Q")
_LABELS_PER_BLOCK = 509

_TRANSACTION_BYTES = 4 << 20  # of images per transaction: its pages stay in the cache
_TRANSACTION_IMAGES = 1 << 16
_COPY_BYTES = 128 << 10  # of records copied at once: as much as the CPU cache holds
_DELETED_AT_ONCE = 1000  # keys per transaction


class LmdbBackend(Backend):
    """An LMDB environment.

    Other Parameters
    ----------------
    readahead : bool, optional
        Whether the system may read ahead of a page that is missing in memory. The default is True.

    Notes
    -----
    Only processes of one machine may share a store, on a local file system. With ``durable=False``,
    a power cut may destroy the whole store, not only its last images, because LMDB then leaves the
    order of its writes to the system. A reader that may not write to ``lock.mdb`` takes no lock in
    it. LMDB then does not guarantee it a consistent view while a writer is active.

    LMDB reads its file through a map. If a file is cut short while it is open, or if the disk fails
    a read, the system ends the process with a signal (SIGBUS), and no error is raised.

    Readahead makes a difference if the pages are not in memory. It costs time if few images are
    read from a large store, because the pages around them are read, too. These are microseconds per
    image, for 5,000 images of 32 x 32 pixels, right after the page cache was emptied:

    =====================  ==============  =================
    read                   with readahead  without readahead
    =====================  ==============  =================
    all images, in order   3.1             51
    500 images, at random  40              52
    =====================  ==============  =================

    `LmdbColdReadahead` of benchmarks/tuning_lmdb.py measures them. The intervals, the machine and
    the versions are in docs/findings.md.
    """

    name = "lmdb"
    distribution = "lmdb"
    made = frozenset({_COMMIT, "data.mdb", "lock.mdb"})
    defaults: ClassVar[Options] = {"readahead": True}
    errors = (OSError, lmdb.Error)

    def __init__(
        self, directory: Directory, marker: Marker, *, writable: bool, verify: bool
    ) -> None:
        super().__init__(directory, marker, writable=writable, verify=verify)
        self._code = codecs.ENCODINGS.index(marker.encoding)
        self._shape: Shape = marker.image_shape or (0, 0, 0)
        self._fixed = self._fixed_header(self._shape)
        self._fixed_words = np.frombuffer(self._fixed, "<u8")
        self._row_bytes = marker.row_bytes or 0
        self._record_bytes = _HEADER.itemsize + self._row_bytes
        self._at_once = max(_COPY_BYTES // self._record_bytes, 1)
        flags = os.O_RDWR if writable else os.O_RDONLY
        self._commit = directory.open(_COMMIT, flags)
        self._record = CommitRecord(self._commit)
        self._env = Environment(
            directory,
            writable=writable,
            readahead=bool(marker.options["readahead"]),
            durable=marker.durable,
            verify=verify,
        )
        try:
            self.count = self._env.run(self._read_count)
            self._check_count()
        except BaseException:
            self._env.close()
            raise

    @classmethod
    def check_option(cls, name: str, value: object) -> bool:
        """The readahead option."""
        return _inputs.boolean(name, value)

    @classmethod
    def make(cls, directory: Directory, marker: Marker) -> None:
        """Create the commit record and the environment."""
        directory.write(_COMMIT, INITIAL, durable=False)
        meta = _META.pack(FORMAT_VERSION, *(marker.image_shape or (0, 0, 0)), 0)
        create(directory, _META_KEY, meta)

    def _check_count(self) -> None:
        path, count = self.directory.path, self.count
        if count < self._record.count:
            raise DamagedStoreError(
                f"{path}: the environment holds {count:,} images, but "
                f"{self._record.count:,} were committed"
            )
        if count * self._record_bytes > self._env.data.size():
            raise DamagedStoreError(f"{path} is too small for its {count:,} images")

    def close(self) -> None:
        """Release the environment."""
        self._env.close()

    def after_fork(self) -> None:
        """Only read from now on. That needs nothing that a writer holds."""
        self._env.writable = False

    def _read_count(self, txn: lmdb.Transaction, databases: object = None) -> int:
        meta = txn.get(_META_KEY)
        if meta is None or len(meta) != _META.size:
            raise DamagedStoreError(
                f"{self.directory.path}: the environment has no valid description of the store"
            )
        version, *shape, count = _META.unpack(meta)
        if version != FORMAT_VERSION or tuple(shape) != self._shape:
            raise DamagedStoreError(
                f"{self.directory.path}: the environment has version {version} and shape "
                f"{tuple(shape)}, but store.json says {FORMAT_VERSION} and {self._shape}"
            )
        return int(count)

    def _fixed_header(self, shape: Shape) -> bytes:
        height, width, channels = shape
        return _FIXED.pack(self._code, channels, 0, height, width, 0)

    # -- writing -----------------------------------------------------------------------------

    def append(self, batches: Iterable[Records]) -> None:
        """Write all images of `batches` in as many transactions as they need."""
        first = self.count
        waiting: Records | None = None
        for part in _records.split(batches, _TRANSACTION_BYTES, _TRANSACTION_IMAGES):
            if waiting is not None:
                self._env.run(self._put, first, waiting, False, write=True)
                first += waiting.count
            waiting = part
        if waiting is not None:
            self._env.run(self._put, first, waiting, True, write=True)
            self.count = first + waiting.count
            try:
                self._record.commit(self.count, durable=False)
            except OSError as error:  # ignored, because LMDB's own count is committed
                if not is_ours(error):
                    raise

    def _put(
        self, txn: lmdb.Transaction, databases: OpenFile, first: int, part: Records, last: bool
    ) -> None:
        """Write images. If they are the last of a call, update the count."""
        cursor = txn.cursor(db=databases.images)
        put = self._rows if isinstance(part.data, np.ndarray) else self._values
        for start, values in put(part):
            keys = _keys(np.arange(first + start, first + start + len(values)))
            records = cast("list[tuple[bytes, bytes]]", list(zip(keys, values, strict=True)))
            # Appending fills each page. Otherwise, a page with room for two images gets only one.
            _, added = cursor.putmulti(records, append=True)
            if added < len(values):  # LMDB skips keys that are not beyond the last one
                raise lmdb.KeyExistsError(
                    "the file holds images that were not committed; open the store again with "
                    "mode='a', which removes them"
                )
        self._put_labels(txn, databases, first, part.labels)
        if last:
            self._put_count(txn, first + part.count)

    def _rows(self, part: Records) -> Iterator[tuple[int, Sequence[memoryview]]]:
        """Values of raw images of one shape, a part at a time."""
        # All parts use one small buffer. It stays in the CPU cache, and LMDB copies it.
        buffer = np.empty((self._at_once, self._record_bytes), np.uint8)
        buffer[:, : _FIXED.size] = np.frombuffer(self._fixed, np.uint8)
        headers = np.ndarray(len(buffer), _HEADER, buffer, strides=self._record_bytes)
        for here in self._parts(part.count):
            size = here.stop - here.start
            headers["label"][:size] = part.labels[here]
            headers["checksum"][:size] = part.checksums[here]
            buffer[:size, _HEADER.itemsize :] = part.data[here]
            yield here.start, cast("Sequence[memoryview]", buffer[:size])

    def _values(self, part: Records) -> Iterator[tuple[int, Sequence[bytes]]]:
        """Values of all other images."""
        yield (
            0,
            [
                self._fixed_header(tuple(shape)) + struct.pack("<qQ", label, checksum) + data
                for data, shape, label, checksum in zip(
                    part.data,
                    part.shapes.tolist(),
                    part.labels.tolist(),
                    part.checksums.tolist(),
                    strict=True,
                )
            ],
        )

    def _put_count(self, txn: lmdb.Transaction, count: int) -> None:
        txn.put(_META_KEY, _META.pack(FORMAT_VERSION, *self._shape, count))

    def _put_labels(
        self, txn: lmdb.Transaction, databases: OpenFile, first: int, labels: NDArray[np.int64]
    ) -> None:
        block, kept = divmod(first, _LABELS_PER_BLOCK)
        if kept:
            before = self._label_block(txn, databases, block, True)[:kept]
            labels = np.concatenate([before, labels])
        for number, start in enumerate(range(0, len(labels), _LABELS_PER_BLOCK), block):
            data = labels[start : start + _LABELS_PER_BLOCK].astype("<i8", copy=False).tobytes()
            txn.put(_key(number), _block_sum(number, data) + data, db=databases.labels)

    def discard(self, count: int) -> None:
        """Remove everything after the first `count` images."""
        self._record.restore(count, durable=False)
        if self._env.run(self._goes_beyond, count):
            while self._env.run(self._delete, count, write=True):
                pass
        self.count = count

    def _goes_beyond(self, txn: lmdb.Transaction, databases: OpenFile, count: int) -> bool:
        return self._read_count(txn) != count or any(
            _last_key(txn, database) >= first for database, first in _beyond(databases, count)
        )

    def _delete(self, txn: lmdb.Transaction, databases: OpenFile, count: int) -> bool:
        """Remove some of what lies after `count` images. Return whether there is more."""
        if self._read_count(txn) != count:  # a commit that failed, but reached the file
            self._put_count(txn, count)
        left = False
        for database, first in _beyond(databases, count):
            cursor = txn.cursor(db=database)
            found = cursor.set_range(_key(first))
            for _ in range(_DELETED_AT_ONCE):
                found = found and cursor.delete()
            left = left or found
        return left

    def sync(self) -> None:
        """Sync what was appended."""
        self._env.sync()
        sync(self._commit.fd)

    # -- reading -----------------------------------------------------------------------------

    def read_one(self, index: int) -> tuple[NDArray[np.uint8] | bytes, Shape, int, int]:
        """Read one image."""
        return self._env.run(self._get_one, index)

    def _get_one(
        self, txn: lmdb.Transaction, databases: OpenFile, index: int
    ) -> tuple[NDArray[np.uint8] | bytes, Shape, int, int]:
        record = txn.get(index.to_bytes(8, "big"), b"", databases.images)
        if not self._row_bytes:
            records = self._parsed([record], [index])
            return (
                records.data[0],
                tuple(records.shapes[0].tolist()),
                int(records.labels[0]),
                int(records.checksums[0]),
            )
        if len(record) != self._record_bytes:
            raise self._malformed([index])
        fixed, label, stored = _ONE_HEADER.unpack_from(record)
        if fixed != self._fixed:
            raise self._malformed([index])
        image = np.ndarray(self._shape, np.uint8, record, _HEADER.itemsize)
        return image.copy(), self._shape, label, stored

    def fill(self, wanted: Wanted, records: Records, places: Places) -> None:
        """Read raw images of one shape."""
        if len(wanted) <= self._at_once:
            self._env.run(self._copy, wanted, records, places)
            return
        for part in self._parts(len(wanted)):
            self._env.run(self._copy, wanted[part], *_records.part_of(records, places, part))

    def fetch(self, wanted: Wanted) -> Records:
        """Read all other images as they are stored."""
        return self._env.run(self._fetch, wanted)

    def _fetch(self, txn: lmdb.Transaction, databases: OpenFile, wanted: Wanted) -> Records:
        return self._parsed(self._stored(txn, databases, wanted), wanted)

    def _parts(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self._at_once):
            yield slice(start, min(start + self._at_once, count))

    def _stored(
        self, txn: lmdb.Transaction, databases: OpenFile, wanted: Wanted
    ) -> list[bytes | memoryview]:
        """The values of images, valid during the transaction. A missing image is empty."""
        images = databases.images
        if not isinstance(wanted, range):
            return [txn.get(key, b"", images) for key in _keys(wanted)]
        cursor = txn.cursor(db=images)
        cursor.set_key(_key(wanted.start))
        records = list(islice(cursor.iternext(keys=False), len(wanted)))
        # Keys are unique and in order. If both ends are right, so is everything between them.
        if len(records) < len(wanted) or cursor.key() != _key(wanted[-1]):
            raise self._malformed([i for i in wanted if txn.get(_key(i), db=images) is None])
        return records

    def _copy(
        self,
        txn: lmdb.Transaction,
        databases: OpenFile,
        wanted: Wanted,
        out: Records,
        places: Places,
    ) -> None:
        """Copy records out of the map, and check their headers together."""
        records = self._stored(txn, databases, wanted)
        # Joining in C and splitting with numpy takes less time than a few Python calls per image.
        data = records[0] if len(records) == 1 else b"".join(records)
        if len(data) != len(records) * self._record_bytes:
            wrong = np.array([len(record) != self._record_bytes for record in records])
            raise self._malformed(np.asarray(wanted)[wrong])
        rows = np.frombuffer(data, np.uint8).reshape(len(records), self._record_bytes)
        headers = rows[:, : _HEADER.itemsize].copy().view(_HEADER)[:, 0]
        wrong = headers["fixed"] != self._fixed_words
        if wrong.any():
            raise self._malformed(np.asarray(wanted)[wrong.any(axis=1)])
        where = slice(None) if places is None else places
        assert isinstance(out.data, np.ndarray)
        out.data[where] = rows[:, _HEADER.itemsize :]
        out.labels[where] = headers["label"]
        out.checksums[where] = headers["checksum"]

    def _parsed(
        self, records: Sequence[bytes | memoryview], wanted: Wanted | Sequence[int]
    ) -> Records:
        """Parse and check the headers of records."""
        size = _HEADER.itemsize
        short = [i for i, record in enumerate(records) if len(record) < size]
        if short:
            raise self._malformed(np.asarray(wanted)[short])
        joined = b"".join([record[:size] for record in records])
        headers = np.frombuffer(joined, _PARSED)
        shapes = np.stack([headers["height"], headers["width"], headers["channels"]], axis=1)
        sound = (
            (headers["encoding"] == self._code)
            & (headers["zeros"] == 0)
            & (headers["more_zeros"] == 0)
            & np.isin(headers["channels"], (1, 3, 4))
            & (shapes > 0).all(axis=1)
        )
        if self.marker.image_shape is not None:
            sound &= (shapes == np.array(self._shape)).all(axis=1)
        elif self.marker.encoding == "raw":
            lengths = np.array([len(record) - size for record in records], np.uint64)
            sound &= shapes.astype(np.uint64).prod(axis=1) == lengths
        if not sound.all():
            raise self._malformed(np.asarray(wanted)[~sound])
        return Records(
            [bytes(record[size:]) for record in records],
            shapes.astype(np.uint32),
            headers["label"].astype(np.int64),
            headers["checksum"].astype(np.uint64),
        )

    def read_labels(self, wanted: Wanted, *, check: bool) -> NDArray[np.int64]:
        """Read labels from their blocks."""
        blocks, inside = np.divmod(np.asarray(wanted, np.int64), _LABELS_PER_BLOCK)
        numbers: Sequence[int]
        if isinstance(wanted, range):
            numbers = range(int(blocks[0]), int(blocks[-1]) + 1)
            rows = blocks - blocks[0]
        else:
            numbers = sorted(set(blocks.tolist()))
            rows = np.searchsorted(numbers, blocks)
        table = self._env.run(self._label_blocks, numbers, check)
        labels: NDArray[np.int64] = table[rows, inside]
        return labels

    def _label_blocks(
        self, txn: lmdb.Transaction, databases: OpenFile, numbers: Sequence[int], check: bool
    ) -> NDArray[np.int64]:
        table = np.empty((len(numbers), _LABELS_PER_BLOCK), np.int64)
        for row, number in zip(table, numbers, strict=True):
            block = self._label_block(txn, databases, number, check)
            row[: len(block)] = block
        return table

    def _label_block(
        self, txn: lmdb.Transaction, databases: OpenFile, number: int, check: bool
    ) -> NDArray[np.int64]:
        data = txn.get(_key(number), b"", databases.labels)
        first = number * _LABELS_PER_BLOCK
        stop = min(first + _LABELS_PER_BLOCK, self.count)
        whole = len(data) % 8 == 0 and stop - first < len(data) // 8 <= 1 + _LABELS_PER_BLOCK
        if not whole or (check and data[:8] != _block_sum(number, data[8:])):
            raise DamagedStoreError(
                f"{self.directory.path}: the labels of images {first} to {stop - 1} are damaged"
            )
        return np.frombuffer(data[8:], "<i8")

    def check_structure(self) -> None:
        """Check all pages of the data file."""
        self._env.check()

    def _malformed(self, indices: Iterable[int] | NDArray[np.int64]) -> DamagedImageError:
        return DamagedImageError(
            f"missing or malformed in {self.directory.path}", [int(index) for index in indices]
        )


_PARSED = np.dtype(
    [
        ("encoding", "u1"),
        ("channels", "u1"),
        ("zeros", "<u2"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("more_zeros", "<u4"),
        ("label", "<i8"),
        ("checksum", "<u8"),
    ]
)


def _beyond(databases: OpenFile, count: int) -> "list[tuple[lmdb._Database, int]]":
    """Each database, with its first key that is not committed."""
    return [(databases.images, count), (databases.labels, -(-count // _LABELS_PER_BLOCK))]


def _block_sum(number: int, labels: bytes | memoryview) -> bytes:
    return _SUM.pack((digest(labels) + number) % 2**64)


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _keys(numbers: NDArray[np.int64]) -> Iterator[bytes]:
    data = numbers.astype(">u8").tobytes()
    return (data[start : start + 8] for start in range(0, len(data), 8))


def _last_key(txn: lmdb.Transaction, database: "lmdb._Database") -> int:
    cursor = txn.cursor(db=database)
    return int.from_bytes(cursor.key(), "big") if cursor.last() else -1
