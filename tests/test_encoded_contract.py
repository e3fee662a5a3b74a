"""The contract with encoded images, in the containers that by default hold raw ones.

Of the contract those promises that an encoding has a part in: what is stored of each image then has
a length of its own, and lies elsewhere in the files.
"""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import storage_impl
from storage_impl import ImageStore, codecs
from tests import commit_record
from tests.contract import StoreContract
from tests.faults_contract import FaultContract
from tests.samples import SHAPE

h5py = pytest.importorskip("h5py")
pytest.importorskip("lmdb")

from tests import test_hdf5, test_lmdb, test_png  # noqa: E402

# How a store is made, found, named, locked and closed, and what labels are, is the same for each
# encoding.
OTHERS = """
    bad_image_shape image_shape_of_any_integers bad_durable path_exists
    no_directory_to_create_in rest_of_an_interrupted_creation creation_that_is_under_way
    two_processes_create store_made_meanwhile failed_creation_leaves_nothing names path_types
    bad_paths relative_path symbolic_link_to_a_store open_what_does_not_exist
    open_what_is_no_store damaged_marker bad_field_in_the_marker missing_field_in_the_marker
    newer_version marker_of_an_unknown_backend bad_mode bad_verify bad_labels
    bad_labels_of_a_generator bad_label lengths_differ label_dtypes labels_of_any_kind
    second_writer lock_ends_with_close lock_ends_with_the_object lock_ends_with_the_process
    lock_ends_with_a_failed_opening opening_that_cannot_clear_up bad_selection bad_index
    bad_batch_size bad_shuffle no_file_can_be_opened damaged_slot_of_the_commit_record
    damaged_commit_record what_only_looks_like_the_rest_of_a_creation repr
    something_else_in_place_of_a_file store_of_somebody_else read_labels use_after_close
    another_store_in_its_place another_store_in_its_place_after_a_fork
    copy_made_while_it_is_open_for_writing lock_of_a_writer_that_was_killed
    copy_of_different_moments_is_not_accepted directories_swapped_for_links_at_any_line
    created_twice_at_any_line read_only_file_system long_names name_that_is_no_text
    paths_that_cannot_be working_directory_that_is_gone range_beyond_all_numbers
    bad_selection_in_brackets
""".split()  # noqa: SIM905


# These compare with arrays of one shape, or expect that another shape is refused. test_encodings.py
# reads, in batches and threads too, where shapes differ.
OF_ONE_SHAPE = """
    attributes_after_close bad_images bad_out batches batches_hold_one_batch_in_memory created_store
    created_store_that_cannot_be_opened empty_store fork_of_a_fork generator_in_bounded_memory
    generator_that_yields_bad_input marker marker_of_another_shape marker_of_one_channel_more
    open_recognises_the_backend out_is_part_of_a_larger_array pickle read_into_the_callers_array
    read_many read_many_verified reader_sees_one_prefix reading_verified_finds_damage
    reading_while_another_process_writes results_are_the_callers_own round_trip sequence
    threads_read_while_one_writes
""".split()  # noqa: SIM905


class EncodedContract(StoreContract):
    """A container of files of one encoding."""

    batches_in_memory = 6
    lines_a_fork = 11
    options: list[dict[str, Any]] = [{}]
    bad_options: dict[str, tuple[dict[str, Any], str]] = {}

    @classmethod
    def create(cls, path: Any, shape: Any = SHAPE, **options: Any) -> ImageStore:
        return super().create(path, shape, encoding=cls.encoding, **options)

    def records(self, path: Path) -> tuple[list[bytes], list[int]]:
        """What is stored of the committed images, and their labels."""
        raise NotImplementedError

    def content(self, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        data, labels = self.records(path)
        images = np.empty((len(data), *self.shape_of(path)), np.uint8)
        for image, one in zip(images, data, strict=True):
            with Image.open(io.BytesIO(one), formats=[self.encoding.upper()]) as opened:
                image[...] = np.atleast_3d(np.asarray(opened))
        return images, np.array(labels, np.int64)

    def stored_bytes(self, path: Path) -> list[bytes]:
        return self.records(path)[0]

    def altered(self, path: Path, index: int) -> bytes:
        """The file of an image with one bit changed."""
        data = bytearray(self.records(path)[0][index])
        data[len(data) // 2] ^= 1
        return bytes(data)

    for _name in OTHERS:
        locals()[f"test_{_name}"] = None
    del _name


class LmdbContract(EncodedContract):
    """LMDB with files in it."""

    backend = "lmdb"
    volatile = test_lmdb.TestLmdb.volatile
    synced_elsewhere = test_lmdb.TestLmdb.synced_elsewhere
    checksums = test_lmdb.TestLmdb.checksums
    leftovers = test_lmdb.TestLmdb.leftovers
    damage_label = test_lmdb.TestLmdb.damage_label
    swap = test_lmdb.TestLmdb.swap

    def records(self, path: Path) -> tuple[list[bytes], list[int]]:
        height, width, channels = self.shape_of(path)
        code = codecs.ENCODINGS.index(self.encoding)
        data, labels = [], []
        with test_lmdb.databases(path) as (transaction, images, _):
            count = test_lmdb.META.unpack(transaction.get(b"storage_impl"))[4]
            for index in range(count):
                record = bytes(transaction.get(test_lmdb.key(index), db=images))
                header = test_lmdb.HEADER.unpack_from(record)
                assert header[:6] == (code, channels, 0, height, width, 0)
                labels.append(header[6])
                data.append(record[test_lmdb.HEADER.size :])
        return data, labels

    def damage_pixel(self, path: Path, index: int) -> None:
        test_lmdb.edit_record(path, index, test_lmdb.HEADER.size, self.altered(path, index))


class Hdf5Contract(EncodedContract):
    """HDF5 with files in it."""

    backend = "hdf5"
    checksums = test_hdf5.TestHdf5.checksums
    leftovers = test_hdf5.TestHdf5.leftovers
    damage_label = test_hdf5.TestHdf5.damage_label

    def records(self, path: Path) -> tuple[list[bytes], list[int]]:
        data: list[bytes] = []
        labels: list[int] = []
        for first, stop, file in test_hdf5.segments(path):
            with h5py.File(file, "r") as opened:
                assert set(opened) == {"labels", "checksums", "offsets", "shapes", "data"}
                offsets, stored = opened["offsets"][()], opened["data"][()].tobytes()
                assert opened["shapes"][()].tolist() == [list(self.shape_of(path))] * (stop - first)
                labels += opened["labels"][()].tolist()
                assert opened["checksums"][-1] == test_hdf5.labels_check(file)
            assert (offsets[0], offsets[-1]) == (0, len(stored))
            data += [stored[a:b] for a, b in pairwise(offsets)]
        assert len(data) == len(labels) == commit_record.count(path / "commit")
        return data, labels

    def damage_pixel(self, path: Path, index: int) -> None:
        file, row = test_hdf5.segment_of(path, index)
        with h5py.File(file, "r") as opened:
            place = opened["data"].id.get_offset() + int(opened["offsets"][row])
        data = self.altered(path, index)
        with open(file, "r+b") as raw:
            raw.seek(place)
            raw.write(data)

    def swap(self, path: Path, one: int, other: int) -> None:
        file, row = test_hdf5.segment_of(path, one)
        assert (file, other - one + row) == test_hdf5.segment_of(path, other)
        with h5py.File(file, "r+") as opened:
            offsets, stored = opened["offsets"][()], opened["data"][()]
            order = list(range(len(offsets) - 1))
            order[row], order[row + other - one] = order[row + other - one], order[row]
            parts = [stored[offsets[i] : offsets[i + 1]] for i in order]
            opened["data"][:] = np.concatenate(parts)
            opened["offsets"][1:] = np.cumsum([len(part) for part in parts])
            for name in ("labels", "checksums"):
                opened[name][: len(order)] = opened[name][()][order]
        check = test_hdf5.labels_check(file)
        with h5py.File(file, "r+") as opened:
            opened["checksums"][-1] = check


class Png(EncodedContract):
    """Of PNG files."""

    encoding = "png"
    options: list[dict[str, Any]] = [{"compress_level": level} for level in (0, 1, 9)]
    bad_options = {
        "above": ({"compress_level": 10}, r"compress_level.*0 to 9.*10"),
        "of another encoding": ({"quality": 90}, r"encoding 'png'.*quality.*compress_level"),
    }


class Jpeg(EncodedContract):
    """Of JPEG files; the sample images are such as that of quality 90 keeps."""

    encoding = "jpeg"
    options: list[dict[str, Any]] = [{"quality": 90}]
    bad_options = {
        "above": ({"quality": 101}, r"quality.*1 to 100.*101"),
        "of another encoding": ({"compress_level": 1}, r"encoding 'jpeg'.*compress_level.*quality"),
    }


class Webp(EncodedContract):
    """Of lossless WebP files."""

    encoding = "webp"
    bad_options = {"of another encoding": ({"quality": 90}, r"encoding 'webp'.*quality")}

    @pytest.mark.parametrize("shape", [[7, 5, 3], [5, 7, 1], [1 << 24, 1 << 24, 4]])
    def test_marker_of_another_shape(self, stored: Path, shape: list[int]) -> None:
        super().test_marker_of_another_shape(stored, shape)

    def test_marker_of_one_channel_more(self, stored: Path) -> None:
        """WebP leaves out the alpha channel of an opaque image: checking the shapes finds it."""
        self.edit_marker(stored, "image_shape", [5, 7, 4])
        with pytest.raises(storage_impl.DamagedStoreError):
            self.use(stored, "r")
        with pytest.raises(storage_impl.DamagedStoreError):
            with storage_impl.open_store(stored, verify=True) as store:
                store.read_one(0)


class TestLmdbPng(Png, LmdbContract):
    """LMDB keeps every promise with PNG files in it."""


class TestLmdbJpeg(Jpeg, LmdbContract, FaultContract):
    """With JPEG files."""


class TestLmdbWebp(Webp, LmdbContract):
    """With WebP files."""


class TestHdf5Png(Png, Hdf5Contract):
    """HDF5 keeps every promise with PNG files in it."""


class TestHdf5Jpeg(Jpeg, Hdf5Contract, FaultContract):
    """With JPEG files."""


class TestHdf5Webp(Webp, Hdf5Contract):
    """With WebP files."""


class AnyShape(StoreContract):
    """Of images that may differ in shape, though the sample images of one store do not."""

    for _name in (*OTHERS, *OF_ONE_SHAPE):
        locals()[f"test_{_name}"] = None
    del _name

    @classmethod
    def create(cls, path: Any, shape: Any = SHAPE, **options: Any) -> ImageStore:
        return super().create(path, None, **options)

    def shape_of(self, path: Path) -> tuple[int, int, int]:  # type: ignore[override]
        """That of the images that are there."""
        raise NotImplementedError


class TestLmdbAnyShape(AnyShape, Webp, LmdbContract, FaultContract):
    """LMDB keeps every promise with images that may differ in shape."""

    def shape_of(self, path: Path) -> tuple[int, int, int]:  # type: ignore[override]
        with test_lmdb.databases(path) as (transaction, images, _):
            record = transaction.get(test_lmdb.key(0), db=images)
        header = test_lmdb.HEADER.unpack_from(record) if record else (0, 3, 0, 5, 7)
        return header[3], header[4], header[1]


class TestHdf5AnyShape(AnyShape, Webp, Hdf5Contract, FaultContract):
    """HDF5 keeps every promise with images that may differ in shape."""

    def shape_of(self, path: Path) -> tuple[int, int, int]:  # type: ignore[override]
        for _, _, file in test_hdf5.segments(path):
            with h5py.File(file, "r") as opened:
                height, width, channels = opened["shapes"][0].tolist()
            return height, width, channels
        return SHAPE


class TestPngAnyShape(AnyShape, test_png.TestPng):
    """PNG files keep every promise with images that may differ in shape."""

    lines_a_fork = 11
    test_damaged_file = None  # type: ignore[assignment]  # another size is no damage here

    def shape_of(self, path: Path) -> tuple[int, int, int]:  # type: ignore[override]
        return SHAPE
