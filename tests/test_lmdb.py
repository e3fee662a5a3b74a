"""The contract, and what is special to LMDB."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import xxhash
from numpy.typing import NDArray

import storage_impl
from tests import commit_record, processes
from tests.contract import COUNT
from tests.faults_contract import FaultContract
from tests.processes import OtherProcess
from tests.samples import SHAPE, images_of, labels_of

HEADER = struct.Struct("<BBHIIIqQ")
META = struct.Struct("<IIIIQ")
PER_BLOCK = 509


def key(number: int) -> bytes:
    return struct.pack(">Q", number)


@contextmanager
def databases(path: Path, write: bool = False) -> Iterator[tuple[Any, Any, Any]]:
    """A transaction and the databases of images and of labels."""
    with (
        lmdb.open(
            os.fsencode(path), create=False, readonly=not write, max_dbs=2, map_size=1 << 28
        ) as env,
        env.begin(write=write) as transaction,
    ):
        images, labels = (
            env.open_db(name, transaction, create=False) for name in (b"images", b"labels")
        )
        yield transaction, images, labels


def edit_record(path: Path, index: int, offset: int, data: bytes) -> None:
    """Overwrite some bytes of an image's header and pixels."""
    with databases(path, write=True) as (transaction, images, _):
        record = bytearray(transaction.get(key(index), db=images))
        record[offset : offset + len(data)] = data
        transaction.put(key(index), bytes(record), db=images)


def block_check(number: int, labels: bytes) -> int:
    """The checksum of a block of labels."""
    return (int(xxhash.xxh3_64_intdigest(labels)) + number) % 2**64


def edit_label_block(path: Path, index: int, label: int, *, checked: bool) -> None:
    """Change a label in the block that lists it, and its checksum too if told."""
    with databases(path, write=True) as (transaction, _, labels):
        block = bytearray(transaction.get(key(index // PER_BLOCK), db=labels))
        struct.pack_into("<q", block, 8 + index % PER_BLOCK * 8, label)
        if checked:
            struct.pack_into("<Q", block, 0, block_check(index // PER_BLOCK, block[8:]))
        transaction.put(key(index // PER_BLOCK), bytes(block), db=labels)


def edit_meta(path: Path, *fields: int) -> None:
    with databases(path, write=True) as (transaction, _, _):
        transaction.put(b"storage_impl", META.pack(*fields))


class TestLmdb(FaultContract):
    """LMDB keeps every promise."""

    backend = "lmdb"
    options: list[dict[str, Any]] = [{"readahead": False}, {"readahead": True}]
    bad_options = {
        "number": ({"readahead": 1}, r"readahead.*True or False.*1"),
        "string": ({"readahead": "no"}, r"readahead.*True or False.*'no'"),
        "None": ({"readahead": None}, r"readahead.*True or False.*None"),
        "of another backend": ({"compress_level": 1}, r"lmdb.*compress_level.*readahead"),
    }
    volatile = frozenset({"lock.mdb"})  # where readers leave their marks
    # The commit record follows what LMDB has synced.
    synced_elsewhere = frozenset({"write.lock", "lock.mdb", "data.mdb", "commit"})

    def content(self, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        shape = self.shape_of(path)
        with databases(path) as (transaction, images, labels):
            version, *kept, count = META.unpack(transaction.get(b"storage_impl"))
            assert (version, tuple(kept)) == (1, shape)
            assert commit_record.count(path / "commit") == count
            pixels = np.empty((count, *shape), np.uint8)
            numbers = np.empty(count, np.int64)
            listed = []
            for index in range(count):
                record = transaction.get(key(index), db=images)
                header = HEADER.unpack_from(record)
                assert header[:6] == (0, shape[2], 0, shape[0], shape[1], 0)
                numbers[index] = header[6]
                pixels[index] = np.frombuffer(record[HEADER.size :], np.uint8).reshape(shape)
            for number in range(-(-count // PER_BLOCK)):
                block = transaction.get(key(number), db=labels)
                assert struct.unpack_from("<Q", block) == (block_check(number, block[8:]),)
                listed += np.frombuffer(block[8:], "<i8").tolist()
        assert listed[:count] == numbers.tolist()
        return pixels, numbers

    def checksums(self, path: Path) -> list[int]:
        with databases(path) as (transaction, images, _):
            return [HEADER.unpack_from(record)[7] for _, record in transaction.cursor(db=images)]

    def leftovers(self, path: Path) -> list[str]:
        with databases(path) as (transaction, images, labels):
            count = META.unpack(transaction.get(b"storage_impl"))[4]
            blocks = -(-count // PER_BLOCK)
            expected = {b"storage_impl", b"images", b"labels"}
            extra = [f"key {name!r}" for name, _ in transaction.cursor() if name not in expected]
            extra += [f"image {k!r}" for k, _ in transaction.cursor(db=images) if k >= key(count)]
            extra += [f"labels {k!r}" for k, _ in transaction.cursor(db=labels) if k >= key(blocks)]
        files = {file.name for file in path.iterdir()}
        return extra + sorted(
            files - {"store.json", "write.lock", "commit", "data.mdb", "lock.mdb"}
        )

    def damage_pixel(self, path: Path, index: int) -> None:
        with databases(path) as (transaction, images, _):
            pixel = transaction.get(key(index), db=images)[HEADER.size + 7]
        edit_record(path, index, HEADER.size + 7, bytes([pixel ^ 1]))

    def damage_label(self, path: Path, index: int) -> None:
        with databases(path) as (transaction, images, _):
            label = HEADER.unpack_from(transaction.get(key(index), db=images))[6]
        edit_record(path, index, 16, struct.pack("<q", label ^ 1))

    def swap(self, path: Path, one: int, other: int) -> None:
        with databases(path, write=True) as (transaction, images, _):
            records = [transaction.get(key(index), db=images) for index in (one, other)]
            transaction.put(key(one), records[1], db=images)
            transaction.put(key(other), records[0], db=images)
        first, second = (HEADER.unpack_from(record)[6] for record in records)
        edit_label_block(path, one, second, checked=True)
        edit_label_block(path, other, first, checked=True)

    # -- special to LMDB -----------------------------------------------------------------------

    def test_labels_in_blocks(self, path: Path) -> None:
        """Labels come out right wherever a call begins and ends in a block of them."""
        shape = (1, 2, 1)
        written = 0
        with self.create(path, shape, durable=False) as store:
            for count in (500, 8, 1, 1, 508, 509, 20, 1200):
                store.write_many(images_of(count, shape, written), labels_of(count, written))
                written += count
                np.testing.assert_array_equal(store.read_labels(), labels_of(written))
            some = [508, 509, 510, 1017, 1018, 0, written - 1, 508]
            np.testing.assert_array_equal(store.read_labels(some), labels_of(written)[some])
            np.testing.assert_array_equal(
                store.read_labels(slice(2000, 400, -101)), labels_of(written)[2000:400:-101]
            )
        self.check(path, written, shape)

    def test_long_failing_call_leaves_no_labels(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A long call that fails after several transactions leaves neither images nor labels."""
        monkeypatch.setattr("storage_impl._batches._BATCH_BYTES", 2000)
        monkeypatch.setattr("storage_impl.lmdb._TRANSACTION_BYTES", 5000)
        shape = (2, 3, 1)
        with self.create(path, shape, durable=False) as store:
            store.write_many(images_of(100, shape), labels_of(100))
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_many(iter([*images_of(2000, shape), None]), iter(range(5000)))
            assert len(store) == 100
            np.testing.assert_array_equal(store.read_labels(), labels_of(100))
        self.check(path, 100, shape)
        with storage_impl.open_store(path, "a") as store:
            store.write_many(images_of(2000, shape, 100), labels_of(2000, 100))
        self.check(path, 2100, shape)

    def test_rest_of_an_interrupted_call(self, stored: Path) -> None:
        """Images and labels beyond the count are ignored, and the next writer removes them."""
        with databases(stored, write=True) as (transaction, images, labels):
            for index in (COUNT, COUNT + 1, 5000):
                transaction.put(key(index), b"half an image", db=images)
            transaction.put(key(1), bytes(16), db=labels)
        with storage_impl.open_store(stored) as store:
            assert len(store) == COUNT
            store.verify()
        storage_impl.open_store(stored, "a").close()
        self.check(stored, COUNT)
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(5, first=COUNT), labels_of(5, COUNT))
        self.check(stored, COUNT + 5)

    def test_image_in_the_way(self, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An image that is there already is not taken for the one of a call, which fails."""
        with databases(stored, write=True) as (transaction, images, _):
            transaction.put(key(COUNT + 1), b"of a writer that took no lock", db=images)
        with monkeypatch.context() as patch:
            patch.setattr(storage_impl.BACKENDS["lmdb"], "discard", lambda *_: None)
            with storage_impl.open_store(stored, "a") as store:
                with pytest.raises(storage_impl.WriteFailedError, match="as it was"):
                    store.write_many(images_of(5, first=COUNT), labels_of(5, COUNT))
                with pytest.raises(storage_impl.WriteFailedError, match="as it was"):
                    store.write_one(images_of(1, first=COUNT)[0], 1)
                self.check_prefix(store, COUNT)
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(5, first=COUNT), labels_of(5, COUNT))
        self.check(stored, COUNT + 5)

    @pytest.mark.parametrize("per_call", [1000, 100, 1])
    def test_small_images_share_pages(self, path: Path, per_call: int) -> None:
        """1,000 images of 24 pixels a side take less than 1.3 times their pixels.

        However many of them a call writes. That is two to a page of 4 KiB, which is all
        that it has room for.
        """
        shape = (24, 24, 3)
        images, labels = images_of(1000, shape), labels_of(1000)
        with self.create(path, shape, durable=False) as store:
            for start in range(0, 1000, per_call):
                store.write_many(images[start : start + per_call], labels[start : start + per_call])
        # Of the file: its length may be that of the map, depending on the system.
        with lmdb.open(str(path), create=False, readonly=True, max_dbs=2) as env:
            used = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        assert used < 1.3 * images.nbytes

    def test_map_grows(self, path: Path, other_process: OtherProcess) -> None:
        """A store outgrows its map unnoticed, also by readers and by other processes."""
        shape = (256, 256, 3)
        self.create(path, shape, durable=False).close()
        assert other_process.call(processes.append, path, 1, 2) == 2
        with storage_impl.open_store(path) as early:
            np.testing.assert_array_equal(early.read_many()[0], images_of(2, shape))
            # 18 MiB, then 18 MiB more: beyond the map's first size, and beyond its double.
            assert other_process.call(processes.append, path, 3, 32) == 98
            np.testing.assert_array_equal(early.read_many()[0], images_of(2, shape))
            with storage_impl.open_store(path) as later:
                assert len(later) == 98
                np.testing.assert_array_equal(later.read_many([97])[0], images_of(1, shape, 97))
            with storage_impl.open_store(path, "a") as store:
                store.write_many((image for image in images_of(96, shape, 98)), labels_of(96, 98))
                np.testing.assert_array_equal(store.read_one(193)[0], images_of(1, shape, 193)[0])
            np.testing.assert_array_equal(early.read_many()[0], images_of(2, shape))
        with storage_impl.open_store(path, verify=True) as store:
            np.testing.assert_array_equal(store.read_labels(), labels_of(194))
            for start in range(0, 194, 64):
                images, _ = store.read_many(slice(start, start + 64))
                np.testing.assert_array_equal(images, images_of(len(images), shape, start))

    @pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to measure by")
    def test_verify_after_another_process_grew_the_file(self, path: Path) -> None:
        """A reader whose map has become too small finds no damage in that."""
        shape = (64, 64, 3)
        self.create(path, shape, durable=False).close()
        with storage_impl.open_store(path) as reader, OtherProcess() as other:
            other.call(processes.append_zeros, path, 3000, shape)
            reader.verify()
            with storage_impl.open_store(path, verify=True) as grown:
                assert len(grown) == 3000

    def test_map_that_cannot_grow(self, path: Path) -> None:
        """Where the map finds no more address space the call is undone, and the store sound."""
        shape, per_call = (64, 64, 3), 80
        self.create(path, shape, durable=False).close()
        with OtherProcess() as other:
            errors = other.call(processes.append_in_little_space, path, per_call, 60 << 20)
            assert errors == ["StoreFullError", "StoreFullError"]
            with storage_impl.open_store(path) as store:
                written = len(store)
                assert written >= per_call
                assert written % per_call == 0
                assert store.read_labels().tolist() == list(range(written))
            other.kill()
        with storage_impl.open_store(path, "a") as store:
            assert len(store) == written
            store.write_many(np.zeros((per_call, *shape), np.uint8), range(per_call))
            store.verify()

    def test_many_store_objects(self, stored: Path) -> None:
        """One path may be open many times in a process; each is closed on its own."""
        stores = [storage_impl.open_store(stored) for _ in range(20)]
        writer = storage_impl.open_store(stored, "a")
        writer.write_one(images_of(1, first=COUNT)[0], labels_of(1, COUNT)[0])
        for number, store in enumerate(stores):
            np.testing.assert_array_equal(store.read_many()[0], images_of(COUNT))
            store.close()
            if number == 10:
                writer.close()
        self.check(stored, COUNT + 1)

    def test_lock_file_missing(self, stored: Path) -> None:
        """A store that was copied without LMDB's lock file works."""
        (stored / "lock.mdb").unlink()
        self.check(stored, COUNT)

    @pytest.mark.parametrize(
        ("offset", "data"),
        [(0, b"\1"), (1, b"\4"), (2, b"\1"), (4, b"\7"), (8, b"\5"), (12, b"\1")],
        ids=["encoding", "channels", "zero", "height", "width", "second-zero"],
    )
    def test_damaged_header(self, stored: Path, offset: int, data: bytes) -> None:
        """A header that is not that of the store's images is damage, verified or not."""
        edit_record(stored, 4, offset, data)
        self.check_image_4_is_damaged(stored)

    @pytest.mark.parametrize("length", [None, 0, 31, 32, 136, 138])
    def test_damaged_record(self, stored: Path, length: int | None) -> None:
        """So is a record that is missing or of another length."""
        with databases(stored, write=True) as (transaction, images, _):
            record = transaction.pop(key(4), db=images)
            if length is not None:
                transaction.put(key(4), (record + b"\0")[:length], db=images)
        self.check_image_4_is_damaged(stored)

    @staticmethod
    def check_image_4_is_damaged(path: Path) -> None:
        with storage_impl.open_store(path) as store:
            for read in (
                lambda: store.read_one(4),
                lambda: store.read_many([7, 4]),
                lambda: store.verify(),
            ):
                with pytest.raises(storage_impl.DamagedImageError, match=r"\b4\b") as caught:
                    read()
                assert caught.value.indices == (4,)
            for read in (lambda: store.read_many(), lambda: list(store.batches(5))):
                with pytest.raises(storage_impl.DamagedImageError) as caught:
                    read()
                assert 4 in caught.value.indices
            np.testing.assert_array_equal(store.read_many([3, 5])[0], images_of(COUNT)[[3, 5]])
            np.testing.assert_array_equal(store.read_labels(), labels_of(COUNT))

    @pytest.mark.parametrize("checked", [False, True])
    def test_damaged_label_block(self, stored: Path, checked: bool) -> None:
        """A label that is listed other than in its image's header is damage to that image."""
        edit_label_block(stored, 6, 99, checked=checked)
        with storage_impl.open_store(stored) as store:
            with pytest.raises(storage_impl.DamagedImageError) as caught:
                store.verify()
            assert caught.value.indices == (6,)
            if not checked:
                with pytest.raises(storage_impl.DamagedStoreError, match="labels"):
                    store.read_labels()

    @pytest.mark.parametrize("length", [None, 0, 7, 8, 8 + 8 * 10, 8 + 8 * 22 + 3])
    def test_label_block_cut_short(self, stored: Path, length: int | None) -> None:
        """A block of labels that is missing or too short is damage, and appending is refused."""
        with databases(stored, write=True) as (transaction, _, labels):
            block = transaction.pop(key(0), db=labels)
            if length is not None:
                rest = block[8:length]
                checked = struct.pack("<Q", block_check(0, rest)) + rest
                transaction.put(key(0), checked[:length], db=labels)
        with storage_impl.open_store(stored) as store:
            with pytest.raises(storage_impl.DamagedStoreError, match="labels"):
                store.read_labels()
            with pytest.raises(storage_impl.DamagedStoreError, match="labels"):
                store.read_labels([22, 3])
            with pytest.raises(storage_impl.DamagedStoreError):
                store.verify()
        with pytest.raises(storage_impl.DamagedStoreError):
            with storage_impl.open_store(stored, "a") as store:
                store.write_many(images_of(2), [1, 2])

    @pytest.mark.parametrize("mode", ["r", "a"])
    @pytest.mark.parametrize(
        "fields",
        [
            (2, *SHAPE, COUNT),
            (1, 5, 7, 4, COUNT),
            (1, *SHAPE, COUNT + 10**6),
            (1, *SHAPE, 2**64 - 1),
        ],
        ids=["version", "shape", "count", "greatest-count"],
    )
    def test_damaged_meta(self, stored: Path, mode: str, fields: tuple[int, ...]) -> None:
        """A version, shape or count that cannot be is found when the store is opened."""
        edit_meta(stored, *fields)
        with pytest.raises(storage_impl.DamagedStoreError):
            storage_impl.open_store(stored, mode)

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_environment_of_the_past(self, stored: Path, mode: str) -> None:
        """An environment that went back behind what was committed is damaged."""
        past = (stored / "data.mdb").read_bytes()
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(5, first=COUNT), labels_of(5, COUNT))
        (stored / "data.mdb").write_bytes(past)
        with pytest.raises(storage_impl.DamagedStoreError, match="28"):
            storage_impl.open_store(stored, mode)

    def test_commit_record_of_the_past(self, stored: Path) -> None:
        """The environment decides what is committed; a record that is behind is caught up."""
        past = (stored / "commit").read_bytes()
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(5, first=COUNT), labels_of(5, COUNT))
        (stored / "commit").write_bytes(past)
        with storage_impl.open_store(stored) as store:
            self.check_prefix(store, COUNT + 5)
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(5, first=COUNT + 5), labels_of(5, COUNT + 5))
        self.check(stored, COUNT + 10)

    def test_count_beyond_the_images(self, stored: Path) -> None:
        """A count a little too high makes the images that are not there damaged."""
        edit_meta(stored, 1, *SHAPE, COUNT + 2)
        with storage_impl.open_store(stored) as store:
            with pytest.raises(storage_impl.DamagedStoreError):
                store.verify()
            with pytest.raises(storage_impl.DamagedImageError):
                store.read_one(COUNT)

    @pytest.mark.parametrize("what", ["missing", "short"])
    def test_no_meta(self, stored: Path, what: str) -> None:
        """An environment that does not say what it holds is no store."""
        with databases(stored, write=True) as (transaction, _, _):
            meta = transaction.pop(b"storage_impl")
            if what == "short":
                transaction.put(b"storage_impl", meta[:-1])
        with pytest.raises(storage_impl.DamagedStoreError):
            storage_impl.open_store(stored)

    @pytest.mark.parametrize("mode", ["r", "a"])
    @pytest.mark.parametrize("name", [b"images", b"labels"])
    def test_missing_database(self, stored: Path, mode: str, name: bytes) -> None:
        """Neither is one that lacks a database."""
        with lmdb.open(str(stored), max_dbs=2) as env:
            database = env.open_db(name, create=False)
            with env.begin(write=True) as transaction:
                transaction.drop(database)
        with pytest.raises(storage_impl.DamagedStoreError):
            storage_impl.open_store(stored, mode)

    @pytest.mark.parametrize("mode", ["r", "a"])
    @pytest.mark.parametrize("size", [0, 100, 4096, 8191, 8192, 20_000])
    def test_data_file_cut_short(self, stored: Path, mode: str, size: int) -> None:
        """A data file that was cut short is found before it is mapped."""
        data = (stored / "data.mdb").read_bytes()
        (stored / "data.mdb").write_bytes(data[:size])
        with pytest.raises(storage_impl.DamagedStoreError):
            storage_impl.open_store(stored, mode)
        (stored / "data.mdb").unlink()
        with pytest.raises(storage_impl.DamagedStoreError):
            storage_impl.open_store(stored, mode)
        assert not (stored / "data.mdb").exists()
