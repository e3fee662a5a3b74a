"""The contract, and what is special to PNG files."""

import contextlib
import io
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from numpy.typing import NDArray
from PIL import Image

import storage_impl
from tests import commit_record
from tests.contract import COUNT
from tests.faults_contract import FaultContract
from tests.samples import SHAPE, images_of, labels_of

RECORD = struct.Struct("<qQQ")


def image_file(path: Path, index: int) -> Path:
    return path / "images" / f"{index // 10_000:04d}" / f"{index:08d}.png"


def records_of(path: Path) -> list[tuple[int, int, int]]:
    """Label, checksum and check of every record in the log."""
    log = (path / "labels.log").read_bytes()
    assert (len(log) - commit_record.SIZE) % RECORD.size == 0
    return list(RECORD.iter_unpack(log[commit_record.SIZE :]))


def edit_log(path: Path, index: int, offset: int, data: bytes) -> None:
    with open(path / "labels.log", "r+b") as file:
        file.seek(commit_record.SIZE + index * RECORD.size + offset)
        file.write(data)


class TestPng(FaultContract):
    """PNG files keep every promise."""

    backend = "png"
    encoding = "png"
    commit_file = "labels.log"
    options: list[dict[str, Any]] = [{"compress_level": level} for level in (0, 1, 9)]
    bad_options = {
        "above": ({"compress_level": 10}, r"compress_level.*0 to 9.*10"),
        "below": ({"compress_level": -1}, r"compress_level.*0 to 9.*-1"),
        "float": ({"compress_level": 6.0}, r"compress_level.*0 to 9.*6\.0"),
        "boolean": ({"compress_level": True}, r"compress_level.*0 to 9.*True"),
        "None": ({"compress_level": None}, r"compress_level.*0 to 9.*None"),
        "of another backend": ({"gzip_level": 1}, r"png.*gzip_level.*compress_level"),
    }

    def content(self, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        count = commit_record.count(path / "labels.log")
        pixels = []
        for index in range(count):
            with Image.open(image_file(path, index), formats=["PNG"]) as image:
                assert image.mode in ("L", "RGB", "RGBA")
                pixels.append(np.atleast_3d(np.asarray(image)))
        records = records_of(path)[:count]
        for index, record in enumerate(records):
            start = RECORD.pack(*record)[:16]
            assert record[2] == (xxhash.xxh3_64_intdigest(start) + index) % 2**64
        labels = [label for label, _, _ in records]
        images = np.stack(pixels) if pixels else np.empty((0, *self.shape_of(path)), np.uint8)
        return images, np.array(labels, np.int64)

    def checksums(self, path: Path) -> list[int]:
        count = commit_record.count(path / "labels.log")
        return [checksum for _, checksum, _ in records_of(path)[:count]]

    def stored_bytes(self, path: Path) -> list[bytes]:
        return [image_file(path, index).read_bytes() for index in range(COUNT)]

    def leftovers(self, path: Path) -> list[str]:
        count = commit_record.count(path / "labels.log")
        expected = {"store.json", "write.lock", "labels.log"}
        expected |= {str(image_file(path, index).relative_to(path)) for index in range(count)}
        found = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()}
        extra = [f"record {i}" for i in range(count, len(records_of(path)))]
        directories = [
            str(entry.relative_to(path)) for entry in path.glob("images/*") if not os.listdir(entry)
        ]
        return sorted(found - expected) + extra + directories

    def damage_pixel(self, path: Path, index: int) -> None:
        with Image.open(image_file(path, index)) as image:
            pixels = np.array(image)
        pixels[0, 0] ^= 1
        Image.fromarray(pixels).save(image_file(path, index))

    def damage_label(self, path: Path, index: int) -> None:
        label = records_of(path)[index][0]
        edit_log(path, index, 0, struct.pack("<q", label ^ 1))

    def swap(self, path: Path, one: int, other: int) -> None:
        records = records_of(path)
        edit_log(path, one, 0, RECORD.pack(*records[other]))
        edit_log(path, other, 0, RECORD.pack(*records[one]))
        aside = path / "aside"
        image_file(path, one).rename(aside)
        image_file(path, other).rename(image_file(path, one))
        aside.rename(image_file(path, other))

    # -- special to PNG ------------------------------------------------------------------------

    @pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
    def test_files_are_plain(self, path: Path, channels: int, mode: str) -> None:
        """A file holds IHDR, IDAT and IEND, of 8 bits, not interlaced, and nothing else."""
        shape = (5, 7, channels)
        with self.create(path, shape) as store:
            store.write_many(images_of(2, shape), [1, 2])
        data = image_file(path, 1).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        chunks, offset = [], 8
        while offset < len(data):
            length, name = struct.unpack_from(">I4s", data, offset)
            chunks.append(name)
            offset += 12 + length
        assert chunks[0] == b"IHDR"
        assert set(chunks[1:-1]) == {b"IDAT"}
        assert chunks[-1] == b"IEND"
        colour = {"L": 0, "RGB": 2, "RGBA": 6}[mode]
        assert struct.unpack_from(">IIBBBBB", data, 16) == (7, 5, 8, colour, 0, 0, 0)

    def test_compress_level(self, path: Path) -> None:
        """A lower compress_level makes larger files of the same pixels."""
        shape = (64, 64, 3)
        smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] // 3, shape)
        sizes = []
        for level in (0, 1, 9):
            where = path.with_name(f"level{level}")
            with self.create(where, shape, compress_level=level) as store:
                store.write_one(smooth, 1)
                np.testing.assert_array_equal(store.read_one(0)[0], smooth)
            sizes.append(image_file(where, 0).stat().st_size)
        assert sizes[0] > sizes[1] >= sizes[2]

    def test_more_images_than_a_directory_holds(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Images fill one directory after another; an interrupted call leaves no empty one."""
        monkeypatch.setattr("storage_impl.png._PER_DIRECTORY", 10)
        monkeypatch.setattr("storage_impl._batches._BATCH_BYTES", 4 * 105)
        with self.create(path) as store:
            store.write_many(images_of(10), labels_of(10))
            assert sorted(os.listdir(path / "images")) == ["0000"]
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_many([*images_of(25), None], [0] * 26)  # type: ignore[list-item]
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_many(iter([*images_of(25), None]), [0] * 26)
            assert sorted(os.listdir(path / "images")) == ["0000"]
            store.write_many(images_of(25, first=10), labels_of(25, 10))
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_many(iter([*images_of(25), None]), [0] * 26)
            directories = {
                name: sorted(os.listdir(path / "images" / name))
                for name in os.listdir(path / "images")
            }
            assert directories == {
                f"{number:04d}": [
                    f"{i:08d}.png" for i in range(number * 10, min(number * 10 + 10, 35))
                ]
                for number in range(4)
            }
            np.testing.assert_array_equal(store.read_many()[0], images_of(35))
            np.testing.assert_array_equal(
                store.read_many([34, 9, 10])[0], images_of(35)[[34, 9, 10]]
            )

    @pytest.mark.parametrize("rest", ["files", "records", "both"])
    def test_rest_of_an_interrupted_call(self, stored: Path, rest: str) -> None:
        """Files and records beyond the count are ignored, and the next writer removes them."""
        if rest != "records":
            for index in (COUNT, COUNT + 1, COUNT + 7):
                image_file(stored, index).write_bytes(b"half a file")
            beyond = image_file(stored, 10_000)
            beyond.parent.mkdir()
            beyond.write_bytes(b"\x89PNG")
        if rest != "files":
            with open(stored / "labels.log", "ab") as file:
                file.write(bytes(24 * 3 + 5))
        with storage_impl.open_store(stored) as store:
            assert len(store) == COUNT
            store.verify()
        storage_impl.open_store(stored, "a").close()
        self.check(stored, COUNT)
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(5, first=COUNT), labels_of(5, COUNT))
        self.check(stored, COUNT + 5)

    def test_files_of_others_are_left_alone(self, stored: Path) -> None:
        """A writer removes what its own kind left and nothing else."""
        (stored / "images" / "README.txt").write_bytes(b"precious")
        (stored / "images" / "0000" / "notes.txt").write_bytes(b"precious")
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(2, first=COUNT), labels_of(2, COUNT))
        assert (stored / "images" / "README.txt").read_bytes() == b"precious"
        assert (stored / "images" / "0000" / "notes.txt").read_bytes() == b"precious"

    @pytest.mark.parametrize(
        "replacement",
        [
            "missing",
            "empty",
            "cut",
            "directory",
            "jpeg",
            "other-size",
            "other-mode",
            "16-bit",
            "interlaced-header",
            "text",
            "huge-header",
        ],
    )
    def test_damaged_file(self, stored: Path, replacement: str) -> None:
        """A file that is no PNG of the store's shape is a damaged image, verified or not."""
        file = image_file(stored, 4)
        data = file.read_bytes()
        file.unlink()
        match replacement:
            case "missing":
                pass
            case "directory":
                file.mkdir()
            case _:
                file.write_bytes(self.replaced(replacement, data))
        with storage_impl.open_store(stored) as store:
            for read in (
                lambda: store.read_one(4),
                lambda: store.read_many(),
                lambda: store.read_many([7, 4]),
                lambda: list(store.batches(5)),
                lambda: store.verify(),
            ):
                with pytest.raises(storage_impl.DamagedImageError, match=r"\b4\b") as caught:
                    read()
                assert caught.value.indices == (4,)
            np.testing.assert_array_equal(store.read_one(5)[0], images_of(6)[5])
            np.testing.assert_array_equal(store.read_labels(), labels_of(COUNT))

    @pytest.mark.parametrize("replacement", ["palette", "long"])
    def test_another_file(self, stored: Path, replacement: str) -> None:
        """A file that is a PNG of the store's shape, and not what was written, fails its check."""
        file = image_file(stored, 4)
        file.write_bytes(self.replaced(replacement, file.read_bytes()))
        with storage_impl.open_store(stored, verify=True) as store:
            for read in (lambda: store.read_one(4), store.read_many, store.verify):
                with pytest.raises(storage_impl.DamagedImageError) as caught:
                    read()
                assert caught.value.indices == (4,)

    @staticmethod
    def replaced(replacement: str, data: bytes) -> bytes:
        """The bytes of something else than the store's image, under its name."""
        rgb = images_of(1)[0]
        buffer = io.BytesIO()
        match replacement:
            case "empty":
                return b""
            case "cut":
                return data[: len(data) // 2]
            case "text":
                return b"no image at all"
            case "long":
                return data + bytes(1 << 20)
            case "huge-header":
                return data[:16] + struct.pack(">II", 1 << 30, 1 << 30) + data[24:]
            case "interlaced-header":
                return data[:28] + b"\1" + data[29:]
            case "jpeg":
                Image.fromarray(rgb).save(buffer, "JPEG")
            case "other-size":
                Image.fromarray(images_of(1, (7, 5, 3))[0]).save(buffer, "PNG")
            case "other-mode":
                Image.fromarray(rgb).convert("L").save(buffer, "PNG")
            case "palette":
                Image.fromarray(rgb).convert("P").save(buffer, "PNG")
            case "16-bit":
                Image.fromarray(np.ones((5, 7), np.uint16)).save(buffer, "PNG")
        return buffer.getvalue()

    def test_every_flipped_bit_is_found(self, path: Path) -> None:
        """Whatever bit of an image file flips, verified reading never returns other pixels."""
        with self.create(path, (2, 3, 3)) as store:
            store.write_one(images_of(1, (2, 3, 3))[0], 1)
        file = image_file(path, 0)
        data = file.read_bytes()
        with storage_impl.open_store(path, verify=True) as store:
            for bit in range(8 * len(data)):
                damaged = bytearray(data)
                damaged[bit // 8] ^= 1 << bit % 8
                file.write_bytes(damaged)
                with contextlib.suppress(storage_impl.DamagedImageError):
                    image, label = store.read_one(0)
                    np.testing.assert_array_equal(image, images_of(1, (2, 3, 3))[0])
                    assert label == 1

    @pytest.mark.parametrize("offset", [0, 8, 16])
    def test_damaged_record(self, stored: Path, offset: int) -> None:
        """A bit that flips anywhere in an image's record is found as damage to that image."""
        record = RECORD.pack(*records_of(stored)[6])
        edit_log(stored, 6, offset, bytes([record[offset] ^ 4]))
        with storage_impl.open_store(stored) as store:
            with pytest.raises(storage_impl.DamagedImageError) as caught:
                store.verify()
        assert caught.value.indices == (6,)

    def test_damaged_label_verified(self, stored: Path) -> None:
        """With ``verify=True`` `read_labels` returns no damaged label."""
        self.damage_label(stored, 6)
        with storage_impl.open_store(stored, verify=True) as store:
            for selection in (None, [6], [1, 6, 6], slice(5, 7)):
                with pytest.raises(storage_impl.DamagedImageError) as caught:
                    store.read_labels(selection)
                assert caught.value.indices == (6,)
            assert store.read_labels([7, 5]).tolist() == labels_of(8)[[7, 5]].tolist()

    @pytest.mark.parametrize("mode", ["r", "a"])
    @pytest.mark.parametrize("length", [0, 31, 63, 64, 64 + 24 * COUNT - 1])
    def test_log_cut_short(self, stored: Path, mode: str, length: int) -> None:
        """A log that ends before the committed images is damage to the store."""
        os.truncate(stored / "labels.log", length)
        with pytest.raises(storage_impl.DamagedStoreError, match="labels.log|commit record"):
            storage_impl.open_store(stored, mode)

    def test_log_cut_short_while_open(self, stored: Path) -> None:
        """A log that is cut short later is damage, too."""
        with storage_impl.open_store(stored) as store:
            os.truncate(stored / "labels.log", 64 + 24 * 5)
            assert store.read_labels(slice(5)).tolist() == labels_of(5).tolist()
            for read in (store.read_labels, store.read_many, store.verify):
                with pytest.raises(storage_impl.DamagedStoreError):
                    read()

    def test_file_too_short_for_its_image(self, path: Path) -> None:
        """A file that cannot hold so many pixels is refused before memory is asked for them."""
        shape = (2000, 2000, 3)
        with self.create(path, shape) as store:
            store.write_many(np.zeros((2, *shape), np.uint8), [1, 2])
        data = image_file(path, 1).read_bytes()
        image_file(path, 1).write_bytes(data[:200])
        with storage_impl.open_store(path) as store:
            with pytest.raises(storage_impl.DamagedImageError, match="short") as caught:
                store.read_one(1)
            assert caught.value.indices == (1,)

    def test_file_in_the_way(self, stored: Path) -> None:
        """A file that somebody put where the next image goes is replaced."""
        with storage_impl.open_store(stored, "a") as store:
            image_file(stored, COUNT).write_bytes(b"in the way")
            store.write_many(images_of(2, first=COUNT), labels_of(2, COUNT))
        self.check(stored, COUNT + 2)

    def test_torn_commit(self, stored: Path) -> None:
        """A commit that was cut short leaves the one before it standing, and its call unseen."""
        log = stored / "labels.log"
        before = max(commit_record.slots(log), key=lambda slot: slot.serial)
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(images_of(5, first=COUNT), labels_of(5, COUNT))
        commit_record.put(log, before.serial % 2, before)
        with open(log, "r+b") as file:
            file.seek(32 * ((before.serial + 1) % 2))
            file.write(b"\xff" * 9)
        with storage_impl.open_store(stored) as store:
            self.check_prefix(store, COUNT)
        storage_impl.open_store(stored, "a").close()
        self.check(stored, COUNT)

    @pytest.mark.parametrize("missing", ["labels.log", "images"])
    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_missing_part(self, stored: Path, mode: str, missing: str) -> None:
        """A store that lost its log or its images is damaged."""
        part = stored / missing
        shutil.rmtree(part) if part.is_dir() else part.unlink()
        with pytest.raises(storage_impl.DamagedStoreError):
            with storage_impl.open_store(stored, mode) as store:
                store.verify()

    def test_shape_and_pillow_agree(self, path: Path) -> None:
        """Any viewer shows the image as it was written: rows are rows."""
        image = np.zeros(SHAPE, np.uint8)
        image[0, :, 0] = 255
        with self.create(path) as store:
            store.write_one(image, 1)
        with Image.open(image_file(path, 0)) as shown:
            assert shown.size == (7, 5)
            assert shown.getpixel((6, 0)) == (255, 0, 0)
            assert shown.getpixel((0, 4)) == (0, 0, 0)
