"""The contract, and what is special to HDF5."""

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash
from numpy.typing import NDArray

import storage_impl
from storage_impl._hdf5_files import SegmentFiles
from storage_impl._hdf5_layout import Layout
from tests import commit_record
from tests.contract import COUNT
from tests.faults_contract import FaultContract
from tests.samples import SHAPE, images_of, labels_of


def segments(path: Path) -> list[tuple[int, int, Path]]:
    """First index, index after the last one, and file of each segment that is committed."""
    found = []
    reached, count = 0, commit_record.count(path / "commit")
    while reached < count:
        (file,) = (path / "segments").glob(f"{reached:08d}-*.h5")
        stop = int(file.stem.partition("-")[2])
        assert reached < stop <= count
        assert file.name == f"{reached:08d}-{stop:08d}.h5"
        found.append((reached, stop, file))
        reached = stop
    return found


def segment_of(path: Path, index: int) -> tuple[Path, int]:
    """The file that holds an image, and its row there."""
    for first, stop, file in segments(path):
        if first <= index < stop:
            return file, index - first
    raise IndexError(index)


def place_of(path: Path, index: int, name: str) -> tuple[Path, int, int]:
    """File, offset and length of an image's row in a dataset."""
    file, row = segment_of(path, index)
    with h5py.File(file, "r") as opened:
        dataset = opened[name]
        return file, dataset.id.get_offset() + row * dataset[row].nbytes, dataset[row].nbytes


def row_of(path: Path, index: int, name: str) -> bytes:
    """The bytes of an image's row in a dataset, where they lie in the file."""
    file, offset, length = place_of(path, index, name)
    return file.read_bytes()[offset : offset + length]


def put_row(path: Path, index: int, name: str, data: bytes) -> None:
    """Overwrite them, past HDF5."""
    file, offset, _ = place_of(path, index, name)
    with open(file, "r+b") as raw:
        raw.seek(offset)
        raw.write(data)


def labels_check(file: Path) -> int:
    """The checksum that follows those of the images: of all labels."""
    first = int(file.name.partition("-")[0])
    with h5py.File(file, "r") as opened:
        return (int(xxhash.xxh3_64_intdigest(opened["labels"][()].tobytes())) + first) % 2**64


class TestHdf5(FaultContract):
    """HDF5 keeps every promise."""

    backend = "hdf5"
    options: list[dict[str, Any]] = [
        {"chunk_images": 1},
        {"chunk_images": 3},
        {"chunk_images": 1000},
        {"chunk_images": 3, "gzip_level": 1},
        {"chunk_images": 1000, "gzip_level": 9},
        {"chunk_images": None, "gzip_level": None},
    ]
    bad_options = {
        "chunk of none": ({"chunk_images": 0}, r"chunk_images.*integer.*0"),
        "negative chunk": ({"chunk_images": -5}, r"chunk_images.*integer.*-5"),
        "float chunk": ({"chunk_images": 1.5}, r"chunk_images.*1\.5"),
        "boolean chunk": ({"chunk_images": True}, r"chunk_images.*True"),
        "level above": ({"chunk_images": 1, "gzip_level": 10}, r"gzip_level.*1 to 9.*10"),
        "level below": ({"chunk_images": 1, "gzip_level": 0}, r"gzip_level.*1 to 9.*0"),
        "boolean level": ({"chunk_images": 1, "gzip_level": True}, r"gzip_level.*True"),
        "level without chunks": ({"gzip_level": 5}, r"gzip_level needs chunk_images"),
        "of another backend": ({"readahead": True}, r"hdf5.*readahead.*chunk_images.*gzip_level"),
    }

    def content(self, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        images = [np.empty((0, *self.shape_of(path)), np.uint8)]
        labels = [np.empty(0, np.int64)]
        for first, stop, file in segments(path):
            with h5py.File(file, "r") as opened:
                assert set(opened) == {"images", "labels", "checksums"}
                assert opened["images"].dtype == np.uint8
                assert opened["labels"].dtype == np.dtype("<i8")
                assert opened["checksums"].dtype == np.dtype("<u8")
                images.append(opened["images"][()])
                labels.append(opened["labels"][()])
                assert len(images[-1]) == len(labels[-1]) == stop - first
                assert len(opened["checksums"]) == stop - first + 1
                assert opened["checksums"][-1] == labels_check(file)
        return np.concatenate(images), np.concatenate(labels)

    def checksums(self, path: Path) -> list[int]:
        found: list[int] = []
        for _, _, file in segments(path):
            with h5py.File(file, "r") as opened:
                found += opened["checksums"][:-1].tolist()
        return found

    def leftovers(self, path: Path) -> list[str]:
        expected = {path / name for name in ("store.json", "write.lock", "commit", "segments")}
        expected |= {file for _, _, file in segments(path)}
        extra = sorted(
            str(entry.relative_to(path)) for entry in path.rglob("*") if entry not in expected
        )
        if (path / "commit").stat().st_size != commit_record.SIZE:
            extra.append("bytes after the commit record")
        return extra

    def damage_pixel(self, path: Path, index: int) -> None:
        row = row_of(path, index, "images")
        put_row(path, index, "images", bytes([row[0] ^ 1]))

    def damage_label(self, path: Path, index: int) -> None:
        row = row_of(path, index, "labels")
        put_row(path, index, "labels", bytes([row[0] ^ 1]))

    def swap(self, path: Path, one: int, other: int) -> None:
        for name in ("images", "labels", "checksums"):
            row = row_of(path, one, name)
            put_row(path, one, name, row_of(path, other, name))
            put_row(path, other, name, row)
        file, _ = segment_of(path, one)
        check = labels_check(file)
        with h5py.File(file, "r+") as opened:
            opened["checksums"][-1] = check

    # -- special to HDF5 -----------------------------------------------------------------------

    def test_segments_are_never_changed(self, path: Path) -> None:
        """Each call is a file of its own, and a later one touches no earlier file."""
        seen: dict[Path, bytes] = {}
        written = 0
        with self.create(path) as store:
            for count in (3, 1, 4):
                store.write_many(images_of(count, first=written), labels_of(count, written))
                written += count
                for file, data in seen.items():
                    assert file.read_bytes() == data
                seen = {file: file.read_bytes() for file in (path / "segments").iterdir()}
        assert sorted(file.name for file in seen) == [
            "00000000-00000003.h5",
            "00000003-00000004.h5",
            "00000004-00000008.h5",
        ]

    def test_reads_across_segments(self, path: Path) -> None:
        """A read may begin and end in any segment, and indices come from all of them."""
        written = 0
        with self.create(path, durable=False) as store:
            for count in (1, 2, 5, 1, 9, 5):
                store.write_many(images_of(count, first=written), labels_of(count, written))
                written += count
        assert written == COUNT
        with storage_impl.open_store(path, verify=True) as store:
            for start in range(COUNT):
                for stop in range(start, COUNT + 1, 4):
                    images, labels = store.read_many(slice(start, stop))
                    np.testing.assert_array_equal(images, images_of(COUNT)[start:stop])
                    np.testing.assert_array_equal(labels, labels_of(COUNT)[start:stop])
                    np.testing.assert_array_equal(
                        store.read_labels(slice(start, stop)), labels_of(COUNT)[start:stop]
                    )
            rng = np.random.default_rng(3)
            for size in (1, 5, 60):
                some = rng.integers(COUNT, size=size)
                np.testing.assert_array_equal(store.read_many(some)[0], images_of(COUNT)[some])
                np.testing.assert_array_equal(store.read_many(some)[1], labels_of(COUNT)[some])
                np.testing.assert_array_equal(store.read_labels(some), labels_of(COUNT)[some])

    def test_images_are_contiguous(self, shared: Path) -> None:
        """Unless told otherwise images lie one after another, uncompressed and unfiltered."""
        for _, _, file in segments(shared):
            with h5py.File(file, "r") as opened:
                for name in ("images", "labels", "checksums"):
                    assert opened[name].chunks is None
                    assert opened[name].compression is None
                    assert opened[name].id.get_offset() is not None

    def test_chunks_and_gzip(self, path: Path) -> None:
        """`chunk_images` and `gzip_level` are what HDF5 says of the images."""
        with self.create(path, chunk_images=4, gzip_level=5) as store:
            store.write_many(images_of(9), labels_of(9))
            store.write_many(images_of(2), labels_of(2))
        for first, stop, file in segments(path):
            with h5py.File(file, "r") as opened:
                assert opened["images"].chunks == (min(4, stop - first), *SHAPE)
                assert opened["images"].compression == "gzip"
                assert opened["images"].compression_opts == 5

    @pytest.mark.parametrize(
        "options", [{}, {"chunk_images": 2}, {"chunk_images": 5, "gzip_level": 1}]
    )
    def test_long_call_fills_several_segments(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        """A call too long for one segment makes several, all of them or none."""
        monkeypatch.setattr("storage_impl.hdf5._SEGMENT_BYTES", 7 * 105)
        monkeypatch.setattr("storage_impl.hdf5._CHUNKED_BYTES", 7 * 105)
        monkeypatch.setattr("storage_impl._batches._BATCH_BYTES", 9 * 105)
        with self.create(path, **options) as store:
            store.write_many(images_of(20), labels_of(20))
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_many(iter([*images_of(25), None]), [0] * 26)
            assert len(store) == 20
            store.write_many(iter(images_of(20, first=20)), labels_of(20, 20))
            np.testing.assert_array_equal(store.read_many()[0], images_of(40))
        assert all(stop - first <= 7 for first, stop, _ in segments(path))
        self.check(path, 40)

    def test_rest_of_an_interrupted_call(self, stored: Path) -> None:
        """Files beyond the commit record are ignored, and the next writer removes them."""
        file, _ = segment_of(stored, 0)
        shutil.copy(file, stored / "segments" / f"{COUNT:08d}-{2 * COUNT:08d}.h5")
        (stored / "segments" / f"{COUNT:08d}-{COUNT + 3:08d}.h5").write_bytes(b"half a file")
        with storage_impl.open_store(stored) as store:
            assert len(store) == COUNT
            store.verify()
        storage_impl.open_store(stored, "a").close()
        self.check(stored, COUNT)
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(5, first=COUNT), labels_of(5, COUNT))
        self.check(stored, COUNT + 5)

    @pytest.mark.parametrize("options", [{}, {"chunk_images": 4}])
    def test_closed_when_a_read_has_begun(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        """A read that another thread's closing overtakes ends well, and leaves no file open."""
        with self.create(path, **options) as store:
            store.write_many(images_of(COUNT), labels_of(COUNT))
        store = storage_impl.open_store(path)
        open_one = SegmentFiles._open

        def overtaken(files: Any, number: int) -> Any:
            store.close()
            return open_one(files, number)

        monkeypatch.setattr(SegmentFiles, "_open", overtaken)
        np.testing.assert_array_equal(store.read_one(4)[0], images_of(COUNT)[4])
        for file in path.glob("segments/*.h5"):
            h5py.File(file, "r+").close()  # which HDF5 refuses where it is open for reading

    def test_files_of_others_are_left_alone(self, stored: Path) -> None:
        """A writer removes what its own kind left and nothing else."""
        (stored / "segments" / "notes.txt").write_bytes(b"precious")
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(2, first=COUNT), labels_of(2, COUNT))
        assert (stored / "segments" / "notes.txt").read_bytes() == b"precious"

    @pytest.mark.parametrize("level", [None, 6])
    def test_damaged_chunk(self, path: Path, level: int | None) -> None:
        """Damage inside a chunk is found, compressed or not; the other chunks are sound."""
        with self.create(path, chunk_images=5, gzip_level=level) as store:
            store.write_many(images_of(COUNT), labels_of(COUNT))
        file, _ = segment_of(path, 0)
        with h5py.File(file, "r") as opened:
            chunk = opened["images"].id.get_chunk_info(1)
            assert chunk.chunk_offset[0] == 5
        with open(file, "r+b") as raw:
            raw.seek(chunk.byte_offset + chunk.size // 2)
            raw.write(b"\xa5\x5a\xa5")
        with storage_impl.open_store(path, verify=True) as store:
            with pytest.raises(storage_impl.DamagedImageError) as caught:
                store.verify()
            assert set(caught.value.indices) <= set(range(5, 10))
            with pytest.raises(storage_impl.DamagedImageError):
                store.read_many(slice(5, 10))
            np.testing.assert_array_equal(store.read_many(slice(0, 5))[0], images_of(5))
            np.testing.assert_array_equal(store.read_one(22)[0], images_of(COUNT)[22])

    def test_torn_commit(self, stored: Path) -> None:
        """A commit that was cut short leaves the one before it standing, and its call unseen."""
        commit = stored / "commit"
        before = max(commit_record.slots(commit), key=lambda slot: slot.serial)
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(5, first=COUNT), labels_of(5, COUNT))
        commit_record.put(commit, before.serial % 2, before)
        with open(commit, "r+b") as file:
            file.seek(32 * ((before.serial + 1) % 2))
            file.write(b"\xff" * 9)
        with storage_impl.open_store(stored) as store:
            self.check_prefix(store, COUNT)
        storage_impl.open_store(stored, "a").close()
        self.check(stored, COUNT)

    @pytest.mark.parametrize("mode", ["r", "a"])
    @pytest.mark.parametrize("missing", ["commit", "segments", "segment", "first segment"])
    def test_missing_part(self, path: Path, mode: str, missing: str) -> None:
        """A store that lost its commit record or a segment is damaged."""
        with self.create(path) as store:
            store.write_many(images_of(5), labels_of(5))
            store.write_many(images_of(5, first=5), labels_of(5, 5))
        match missing:
            case "commit":
                (path / "commit").unlink()
            case "segments":
                shutil.rmtree(path / "segments")
            case _:
                segment_of(path, 9 if missing == "segment" else 0)[0].unlink()
        with pytest.raises(storage_impl.DamagedStoreError):
            with storage_impl.open_store(path, mode) as store:
                store.verify()

    # -- the format ----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("shape", "length", "digest"),
        [
            (SHAPE, 1944, 0x6ACA34F7E4D3884E),
            (None, 2488, 0x807F4BD050F8924D),
        ],
    )
    def test_header(self, shape: tuple[int, int, int] | None, length: int, digest: int) -> None:
        """Every version of HDF5 makes the same header, byte for byte."""
        layout = Layout(shape)
        header = layout.header(layout.rows(23, 1234))
        assert len(header) == layout.header_bytes == length
        assert xxhash.xxh3_64_intdigest(header) == digest

    @pytest.mark.parametrize("differing", [False, True], ids=["one shape", "shapes differ"])
    def test_large_segment_begins_at_a_page(self, path: Path, differing: bool) -> None:
        """Large data begin at a multiple of 4,096 in the file, and h5py finds them there."""
        images = images_of(700)
        with self.create(path, None if differing else SHAPE, durable=False) as store:
            store.write_many(images, labels_of(700))
        with storage_impl.open_store(path, verify=True) as store:
            for one, other in zip(store.read_many()[0], images, strict=True):
                np.testing.assert_array_equal(one, other)
        ((_, _, file),) = segments(path)
        with h5py.File(file, "r") as opened:
            dataset = opened["data" if differing else "images"]
            assert dataset.id.get_offset() % 4096 == 0
            assert dataset[()].tobytes() == images.tobytes()

    @pytest.mark.parametrize("differing", [False, True], ids=["one shape", "shapes differ"])
    @pytest.mark.parametrize("encoding", ["raw", "png"])
    def test_segment_of_encoded_or_differing_images(
        self, path: Path, encoding: str, differing: bool
    ) -> None:
        """h5py alone finds the bytes of each image, its shape, label and checksum."""
        if encoding == "raw" and not differing:
            pytest.skip("is the layout that all other tests look at")
        shape = None if differing else SHAPE
        images = [
            images_of(1, (5 + i % 3, 7, 3), i)[0] if differing else images_of(1, SHAPE, i)[0]
            for i in range(9)
        ]
        with self.create(path, shape, encoding=encoding) as store:
            store.write_many(images[:4], labels_of(4))
            store.write_many(iter(images[4:]), labels_of(5, 4))
        with storage_impl.open_store(path, verify=True) as store:
            for one, other in zip(store.read_many([8, 3, 3, 0])[0], (8, 3, 3, 0), strict=True):
                np.testing.assert_array_equal(one, images[other])
            for index, image in enumerate(images):
                np.testing.assert_array_equal(store.read_one(index)[0], image)
        for first, stop, file in segments(path):
            with h5py.File(file, "r") as opened:
                assert set(opened) == {"labels", "checksums", "offsets", "shapes", "data"}
                np.testing.assert_array_equal(opened["labels"], labels_of(stop - first, first))
                offsets, data = opened["offsets"][()], opened["data"][()].tobytes()
                assert opened["data"].id.get_offset() + len(data) == file.stat().st_size
                for i, index in enumerate(range(first, stop)):
                    stored = data[offsets[i] : offsets[i + 1]]
                    assert tuple(opened["shapes"][i]) == images[index].shape
                    if encoding == "raw":
                        assert stored == images[index].tobytes()
                    else:
                        assert stored.startswith(b"\x89PNG")

    @pytest.mark.parametrize("options", [{"image_shape": None}, {"encoding": "png"}])
    def test_chunks_of_raw_images_alone(self, path: Path, options: dict[str, Any]) -> None:
        """Chunks and compression are for raw images of one shape, and for no others."""
        arguments: dict[str, Any] = {"image_shape": SHAPE, "chunk_images": 2} | options
        with pytest.raises(storage_impl.InvalidInputError, match="chunk_images.*raw.*one shape"):
            storage_impl.create_store(path, "hdf5", **arguments)
        assert not path.exists()

    @pytest.mark.parametrize("differing", [False, True], ids=["one shape", "shapes differ"])
    def test_segment_of_another_program(self, path: Path, differing: bool) -> None:
        """A segment that HDF5 wrote again is read, but not where nothing is to be trusted."""
        with self.create(path, None if differing else SHAPE) as store:
            store.write_many(images_of(COUNT), labels_of(COUNT))
        file, _ = segment_of(path, 0)
        with h5py.File(file, "r") as opened:
            content = {name: opened[name][()] for name in opened}
        with h5py.File(file, "w", libver="latest") as opened:
            for name, data in reversed(content.items()):
                opened[name] = data
        with storage_impl.open_store(path) as store:
            np.testing.assert_array_equal(store.read_many()[0], images_of(COUNT))
            np.testing.assert_array_equal(store.read_one(7)[0], images_of(COUNT)[7])
            store.verify()
        with storage_impl.open_store(path, verify=True) as store:
            with pytest.raises(storage_impl.DamagedStoreError, match="without verify=True"):
                store.read_one(7)

    @pytest.mark.parametrize("place", [0, 5, COUNT])
    @pytest.mark.parametrize("value", [0, 3, 2**63, 2**64 - 1])
    def test_damaged_offsets(self, path: Path, place: int, value: int) -> None:
        """Offsets that do not ascend, or lead beyond the data, are damage and never followed."""
        with self.create(path, None) as store:
            store.write_many(images_of(COUNT), labels_of(COUNT))
        if (place, value) == (0, 0):
            pytest.skip("is the right value")
        file, offset, _ = place_of(path, 0, "offsets")
        with open(file, "r+b") as raw:
            raw.seek(offset + 8 * place)
            raw.write(value.to_bytes(8, "little"))
        for verify in (False, True):
            with storage_impl.open_store(path, verify=verify) as store:
                with pytest.raises(storage_impl.DamagedStoreError):
                    store.read_many()

    # -- bad moments ---------------------------------------------------------------------------

    @pytest.mark.parametrize("options", [{"chunk_images": 4}, {"chunk_images": 4, "gzip_level": 1}])
    @pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, RecursionError])
    def test_write_of_chunks_interrupted_at_any_line(
        self, path: Path, options: dict[str, Any], error: type[BaseException], small_chunks: None
    ) -> None:
        """What a handler raises comes out as it is, and the store holds whole calls."""
        with self.create(path, **options) as store:
            store.write_many(images_of(COUNT), labels_of(COUNT))
        self.test_write_interrupted_at_any_line(path, error, small_chunks)

    @pytest.mark.parametrize(
        "read",
        [
            lambda store: store.read_many(),
            lambda store: store.read_many([3, COUNT - 1, 5]),
            lambda store: store.read_one(COUNT - 1),
        ],
        ids=["all", "some", "one"],
    )
    def test_truncated_while_it_is_open(
        self, stored: Path, read: Callable[[storage_impl.ImageStore], object]
    ) -> None:
        """A file that another process cuts off is damage, and no signal."""
        with storage_impl.open_store(stored) as store:
            store.read_many()
            file, offset, length = place_of(stored, COUNT - 1, "images")
            os.truncate(file, offset + length // 2)
            with pytest.raises(storage_impl.DamagedStoreError, match="ends|cut off"):
                read(store)
            np.testing.assert_array_equal(store.read_many(slice(9))[0], images_of(9))

    @pytest.mark.parametrize("options", [{}, {"chunk_images": 2}])
    def test_more_segments_than_files_may_be_open(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        """Few files are open at once, however many segments there are and in whatever order."""
        monkeypatch.setattr("storage_impl._hdf5_files._files_at_once", lambda: 8)
        monkeypatch.setattr("storage_impl._hdf5_files._OPEN_CHUNKED", 4)
        with self.create(path, durable=False, **options) as store:
            for index in range(40):
                store.write_many(images_of(2, first=2 * index), labels_of(2, 2 * index))
        order = np.random.default_rng(1).permutation(80)
        with storage_impl.open_store(path, verify=True) as store:
            for wanted in (order, np.arange(80), np.repeat(order, 2)):
                images, labels = store.read_many(wanted)
                np.testing.assert_array_equal(images, images_of(80)[wanted])
                np.testing.assert_array_equal(labels, labels_of(80)[wanted])
                assert len(self.open_segments(path)) <= 8
            for index in order:
                np.testing.assert_array_equal(store.read_one(index)[0], images_of(80)[index])
                assert len(self.open_segments(path)) <= 8

    @staticmethod
    def open_segments(path: Path) -> list[str]:
        """The segments that this process has open."""
        if not os.path.isdir("/proc/self/fd"):
            pytest.skip("this system does not list open files")
        found = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
        names = [os.readlink(link) for link in found if link.is_symlink()]
        return [name for name in names if name.startswith(str(path / "segments") + "/")]

    def test_segment_replaced_while_the_store_is_open(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A segment that was let go is opened again only if it is the one that was checked."""
        monkeypatch.setattr("storage_impl._hdf5_files._files_at_once", lambda: 1)
        with self.create(path) as store:
            for index in range(3):
                store.write_one(images_of(1, first=index)[0], index)
        with storage_impl.open_store(path) as store:
            store.read_many()
            file, _ = segment_of(path, 0)
            shutil.copy(file, path / "other")
            (path / "other").rename(file)
            with pytest.raises(storage_impl.DamagedStoreError, match="replaced"):
                store.read_one(0)
            np.testing.assert_array_equal(store.read_one(2)[0], images_of(3)[2])

    def test_chunks_that_may_grow(self, path: Path) -> None:
        """A dataset whose maximal shape is larger than its shape is refused: HDF5 may crash."""
        with self.create(path, chunk_images=5) as store:
            store.write_many(images_of(COUNT), labels_of(COUNT))
        file, _ = segment_of(path, 0)
        with h5py.File(file, "r+") as opened:
            images = opened["images"][()]
            del opened["images"]
            opened.create_dataset(
                "images", data=images, chunks=(5, *SHAPE), maxshape=(2**40, *SHAPE)
            )
        with storage_impl.open_store(path, verify=True) as store:
            with pytest.raises(storage_impl.DamagedStoreError, match="may grow"):
                store.read_many()

    def test_memory_of_a_read(self, path: Path) -> None:
        """Reading at random takes little memory beside the result, however much is read."""
        images = np.arange(200_000, dtype=np.uint32).view(np.uint8).reshape(-1, 1, 2, 1)
        with self.create(path, (1, 2, 1), durable=False) as store:
            store.write_many(images, np.arange(len(images)))
        wanted = np.random.default_rng(2).permutation(len(images))
        out = np.empty(images.shape, np.uint8)
        with storage_impl.open_store(path) as store:
            tracemalloc.start()
            try:
                labels = store.read_many(wanted, out=out)[1]
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        np.testing.assert_array_equal(out, images[wanted])
        known = 16 * len(images)  # labels and checksums, which stay
        assert peak < labels.nbytes + 8 * len(images) + known + (8 << 20)

    @pytest.mark.parametrize(
        "replacement",
        [
            "empty",
            "text",
            "cut",
            "no images",
            "no labels",
            "no checksums",
            "group",
            "float images",
            "wide labels",
            "short labels",
            "another shape",
            "more images",
            "soft link",
            "external link",
            "virtual",
            "external storage",
            "unknown filter",
        ],
    )
    def test_replaced_segment(self, stored: Path, tmp_path: Path, replacement: str) -> None:
        """A segment that is not what this package writes is refused; no other file is read."""
        file, _ = segment_of(stored, 0)
        secret = tmp_path / "secret.h5"
        shutil.copy(file, secret)
        match replacement:
            case "empty":
                file.write_bytes(b"")
            case "text":
                file.write_bytes(b"no HDF5 file")
            case "cut":
                os.truncate(file, file.stat().st_size // 2)
            case _:
                with h5py.File(file, "r+") as opened:
                    self.replace_in(opened, replacement, secret)
        with pytest.raises(storage_impl.DamagedStoreError):
            with storage_impl.open_store(stored) as store:
                store.read_many()
        with pytest.raises(storage_impl.DamagedStoreError):
            with storage_impl.open_store(stored) as store:
                store.read_one(0)
        with pytest.raises(storage_impl.DamagedStoreError):
            with storage_impl.open_store(stored) as store:
                store.verify()

    @staticmethod
    def replace_in(file: Any, replacement: str, secret: Path) -> None:
        """Put something else in place of a dataset."""
        name = {"no labels": "labels", "wide labels": "labels", "short labels": "labels"}.get(
            replacement, "checksums" if replacement == "no checksums" else "images"
        )
        data = file[name][()]
        del file[name]
        match replacement:
            case "group":
                file.create_group("images")
            case "float images":
                file["images"] = data.astype(np.float32)
            case "wide labels":
                file["labels"] = data.astype(np.float64)
            case "short labels":
                file["labels"] = data[:-1]
            case "another shape":
                file["images"] = data.reshape(COUNT, 7, 5, 3)
            case "more images":
                file["images"] = np.concatenate([data, data])
            case "soft link":
                file["elsewhere"] = data
                file["images"] = h5py.SoftLink("/elsewhere")
            case "external link":
                file["images"] = h5py.ExternalLink(str(secret), "/images")
            case "virtual":
                layout = h5py.VirtualLayout(data.shape, np.uint8)
                layout[:] = h5py.VirtualSource(str(secret), "images", data.shape)
                file.create_virtual_dataset("images", layout)
            case "external storage":
                file.create_dataset(
                    "images", data.shape, np.uint8, external=[(str(secret), 0, data.nbytes)]
                )
            case "unknown filter":
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_chunk((5, *SHAPE))
                plist.set_filter(32_000, h5py.h5z.FLAG_OPTIONAL, ())
                h5py.h5d.create(
                    file.id,
                    b"images",
                    h5py.h5t.NATIVE_UINT8,
                    h5py.h5s.create_simple(data.shape),
                    plist,
                )
