"""What every backend promises, as one class of tests.

A backend's test module subclasses `StoreContract`. The hooks at the top look at the
disk with the backend's own library and never through the store under test.
"""

import contextlib
import errno
import gc
import json
import os
import pickle
import re
import shutil
import tempfile
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import UnsupportedOperation
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from numpy.typing import NDArray

import storage_impl
from storage_impl import ImageStore, _commit
from tests import commit_record, processes, raising
from tests.processes import OtherProcess
from tests.samples import CHANNELS, SHAPE, Shape, images_of, labels_of

COUNT = 23
ASIDE = ".storage_impl-0123456789abcdef.making"  # where a creation makes a store

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
# Python 3.12 and later warn of any fork, for numpy's library starts threads of its own.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

READS: dict[str, Callable[[ImageStore], object]] = {
    "len": len,
    "read_one": lambda store: store.read_one(0),
    "read_many": lambda store: store.read_many(),
    "read_many of nothing": lambda store: store.read_many([]),
    "read_labels": lambda store: store.read_labels(),
    "batches": lambda store: store.batches(2),
    "verify": lambda store: store.verify(),
    "disk_usage": lambda store: store.disk_usage(),
}
WRITES: dict[str, Callable[[ImageStore], object]] = {
    "write_one": lambda store: store.write_one(images_of(1)[0], 1),
    "write_many": lambda store: store.write_many(images_of(2), [1, 2]),
    "write_many of nothing": lambda store: store.write_many([], []),
    "write_many of a generator": lambda store: store.write_many(iter(images_of(2)), [1, 2]),
}

# What selects images, for `read_many` and `read_labels` of a store of 23.
SELECTIONS: dict[str, Any] = {
    "all": None,
    "slice": slice(3, 9),
    "slice of all": slice(None),
    "slice from the end": slice(-4, None),
    "slice with a step": slice(1, 20, 5),
    "slice backwards": slice(None, None, -1),
    "slice backwards with a step": slice(20, 2, -7),
    "slice past the end": slice(20, 1000),
    "slice beyond the end": slice(100, 200),
    "slice before the start": slice(-1000, 2),
    "slice of none": slice(5, 5),
    "slice with numpy integers": slice(np.int64(2), np.uint8(7)),
    "list": [3, 1, 4, 1, 5, 9, 2, 6],
    "list of one": [22],
    "list of none": [],
    "list of numpy integers": [np.uint64(3), np.int8(1), 2],
    "tuple": (0, 22, 0),
    "range": range(2, 11),
    "range with a step": range(1, 23, 7),
    "range backwards": range(22, -1, -1),
    "range of none": range(100, 50),
    "consecutive array": np.arange(4, 17),
    "array backwards": np.arange(23)[::-1],
    "array with repeats": np.array([7, 7, 7, 0, 7]),
    "array all the same": np.zeros(40, np.int64),
    "array with a stride": np.arange(23).repeat(2)[::2],
    "array of none": np.empty(0, np.int32),
    "array of none as numpy makes it": np.array([]),
    "read-only array": np.frombuffer(np.array([5, 2], np.int64).tobytes(), np.int64),
    **{
        f"array of {dtype}": np.array([22, 0, 13], dtype)
        for dtype in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">u8")
    },
}

BAD_SELECTIONS: dict[str, tuple[Any, str]] = {
    "past the end": ([0, 23], r"23"),
    "far past the end": (np.array([2**63 + 1], np.uint64), r"9223372036854775809"),
    "beyond 64 bits": ([2**64], r"."),
    "negative": ([3, -1], r"-1"),
    "negative in an array": (np.array([3, -1]), r"-1"),
    "negative in a small array": (np.array([-1], np.int8), r"-1"),
    "range past the end": (range(20, 24), r"22"),
    "range of negatives": (range(-3, 0), r"22"),
    "floats": ([1.0, 2.0], r"integer.*float"),
    "float array": (np.array([1.0, 2.0], np.float32), r"integers.*float32"),
    "NaN": (np.array([np.nan]), r"integers.*float64"),
    "booleans": (np.ones(23, bool), r"integers.*bool"),
    "booleans in a list": ([True, False], r"integer.*(bool|True)"),
    "a boolean among integers": ([True, 2], r"integer.*(bool|True)"),
    "strings": (["1"], r"integer"),
    "None in a list": ([None], r"integer"),
    "one integer": (3, r"one-dimensional.*3"),
    "a string": ("all", r"one-dimensional.*all"),
    "two dimensions": (np.zeros((2, 2), np.int64), r"one-dimensional.*\(2, 2\)"),
    "ragged": ([[1], [2, 3]], r"integer|one-dimensional"),
    "slice of floats": (slice(0.0, 2.0), r"integers"),
    "slice with no step": (slice(0, 5, 0), r"step"),
}

BAD_INDICES: dict[str, tuple[Any, str]] = {
    "past the end": (23, r"0 to 22, got 23"),
    "far past the end": (2**70, r"0 to 22"),
    "negative": (-1, r"0 to 22, got -1"),
    "numpy negative": (np.int8(-2), r"0 to 22, got -2"),
    "boolean": (True, r"integer.*True"),
    "numpy boolean": (np.True_, r"integer.*True"),
    "float": (1.0, r"integer.*1\.0"),
    "NaN": (float("nan"), r"integer.*nan"),
    "string": ("1", r"integer.*'1'"),
    "None": (None, r"integer.*None"),
    "slice": (slice(0, 1), r"integer.*slice"),
    "list": ([1], r"integer.*\[1\]"),
    "array": (np.array([1]), r"integer.*1"),
}

# Of the images given to `write_many` with two labels; what the message must say.
BAD_IMAGES: dict[str, tuple[Any, str]] = {
    "float32": (images_of(2).astype(np.float32), r"uint8.*float32"),
    "NaN": (np.full((2, *SHAPE), np.nan), r"uint8.*float64"),
    "int8": (images_of(2).view(np.int8), r"uint8.*int8"),
    "uint16": (images_of(2).astype(np.uint16), r"uint8.*uint16"),
    "booleans": (images_of(2) > 9, r"uint8.*bool"),
    "objects": (images_of(2).astype(object), r"uint8.*object"),
    "floats of no images": (np.empty((0, *SHAPE)), r"uint8.*float64"),
    "one image": (images_of(1)[0], r"write_one"),
    "rank 2": (images_of(2)[:, :, 0, 0], r"\(N, 5, 7, 3\).*got \(2, 5\)"),
    "rank 5": (images_of(2)[np.newaxis], r"\(N, 5, 7, 3\).*got \(1, 2, 5, 7, 3\)"),
    "rank 0": (np.array(3, np.uint8), r"\(N, 5, 7, 3\)"),
    "another height": (images_of(2, (6, 7, 3)), r"\(N, 5, 7, 3\).*got \(2, 6, 7, 3\)"),
    "height and width swapped": (images_of(2, (7, 5, 3)), r"\(N, 5, 7, 3\).*got \(2, 7, 5, 3\)"),
    "channels first": (images_of(2).transpose(0, 3, 1, 2), r"\(N, 5, 7, 3\).*got \(2, 3, 5, 7\)"),
    "too many channels": (images_of(2, (5, 7, 4)), r"\(N, 5, 7, 3\).*got \(2, 5, 7, 4\)"),
    "no images of another shape": (np.empty((0, 5, 7, 4), np.uint8), r"got \(0, 5, 7, 4\)"),
    "None": (None, r"uint8.*NoneType"),
    "a number": (7, r"uint8.*int"),
    "a string": ("images", r"uint8.*str"),
    "bytes": (b"images", r"uint8.*bytes"),
    "a list of lists": (images_of(2).tolist(), r"uint8.*list"),
    "a list with None": ([images_of(1)[0], None], r"uint8.*NoneType"),
    "a list with floats": ([images_of(1)[0], np.ones(SHAPE)], r"uint8.*float64"),
    "a list with another size": (
        [images_of(1)[0], images_of(1, (5, 8, 3))[0]],
        r"\(5, 7, 3\).*got \(5, 8, 3\)",
    ),
    "a list of batches": ([images_of(2), images_of(2)], r"\(5, 7, 3\).*got \(2, 5, 7, 3\)"),
}

# Of the labels given with two images.
BAD_LABELS: dict[str, tuple[Any, str]] = {
    "floats": ([1.0, 2.0], r"integer.*float"),
    "float array": (np.array([1.0, 2.0], np.float32), r"integer.*float32"),
    "NaN": ([1, float("nan")], r"integer.*(float|nan)"),
    "booleans": ([True, False], r"integer.*(bool|True)"),
    "a boolean among integers": ([True, 2], r"integer.*(bool|True)"),
    "boolean array": (np.array([True, False]), r"integer.*bool"),
    "complex": ([1j, 2], r"integer.*(complex|1j)"),
    "strings": (["1", "2"], r"integer"),
    "a string": ("12", r"integer.*str"),
    "bytes": (b"12", r"integer.*bytes"),
    "times": (np.array([1, 2], "datetime64[s]"), r"integer.*datetime64"),
    "None": ([1, None], r"integer.*None"),
    "no labels": (None, r"integer.*NoneType|one-dimensional"),
    "a number": (7, r"integer.*int|one-dimensional"),
    "rank 0": (np.array(7), r"one-dimensional"),
    "rank 2": (np.array([[1], [2]]), r"one-dimensional.*\(2, 1\)"),
    "ragged": ([[1], [2, 3]], r"integer"),
    "above int64": ([1, 2**63], r"int64.*9223372036854775808"),
    "below int64": ([1, -(2**63) - 1], r"int64.*-9223372036854775809"),
    "far above int64": ([2**70, 1], r"int64.*1180591620717411303424"),
    "uint64 above int64": (np.array([1, 2**63], np.uint64), r"int64.*9223372036854775808"),
    "too few": ([1], r"2 images.*2 labels.*got 1"),
    "too many": ([1, 2, 3], r"2 images.*2 labels.*got 3"),
    "none": ([], r"2 images.*2 labels.*got 0"),
}

BAD_SHAPES: dict[str, Any] = {
    "two sides": (5, 7),
    "four sides": (1, 5, 7, 3),
    "no height": (0, 7, 3),
    "negative width": (5, -7, 3),
    "two channels": (5, 7, 2),
    "no channels": (5, 7, 0),
    "five channels": (5, 7, 5),
    "floats": (5.0, 7.0, 3.0),
    "boolean": (5, 7, True),
    "strings": ("5", "7", "3"),
    "string": "573",
    "number": 5,
    "too large": (2**40, 2**40, 3),
}

BAD_MARKERS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"\x89PNG\r\n",
    "no UTF-8": b'{"format": "\xff"}',
    "cut short": b'{"format": "storage_impl", "format_ver',
    "no object": b"[1, 2]",
    "deeply nested": b"[" * 4000,
    "too long": b" " * 5000,
    "another format": b'{"format": "zarr", "format_version": 1}',
    "no version": b'{"format": "storage_impl"}',
}

BAD_FIELDS: dict[str, tuple[str, Any]] = {
    "version 0": ("format_version", 0),
    "version in words": ("format_version", "1"),
    "boolean version": ("format_version", True),
    "shape of two": ("image_shape", [5, 7]),
    "shape in words": ("image_shape", "5x7x3"),
    "negative shape": ("image_shape", [5, -7, 3]),
    "durable in words": ("durable", "yes"),
    "no backend": ("backend", None),
    "backend of numbers": ("backend", [1]),
    "no encoding": ("encoding", None),
    "encoding of numbers": ("encoding", [1]),
    "options in a list": ("options", [1]),
    "unknown option": ("options", {"no_such_option": 1}),
    "unknown field": ("no_such_field", 1),
}


def cases(table: dict[str, Any]) -> pytest.MarkDecorator:
    """A decorator: one test for each row of a table, named by its key."""
    return pytest.mark.parametrize(
        "case", table.values(), ids=[key.replace(" ", "-") for key in table]
    )


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file below a directory and what is in it."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def failing(items: Any, after: int, error: BaseException) -> Iterator[Any]:
    """The first items, then an error."""
    yield from items[:after]
    raise error


def timed_out(*_: object, **__: object) -> None:
    """Raise what the handler of an alarm would raise."""
    raise TimeoutError("the alarm of the caller")


class StoreContract:
    """What may be relied on, whatever the backend."""

    backend: str
    encoding: str = "raw"
    # What `batches` takes at most: the batch, the one before it, and what they are made of.
    batches_in_memory: int = 4
    # The file whose first 64 bytes are the commit record.
    commit_file: str = "commit"
    # Options that `create_store` accepts, and some that it refuses with what it then says.
    options: list[dict[str, Any]]
    bad_options: dict[str, tuple[dict[str, Any], str]]
    # Files that change though nothing is written to the store.
    volatile: frozenset[str] = frozenset()

    # Files that the backend's library syncs, or that need no sync.
    synced_elsewhere: frozenset[str] = frozenset({"write.lock"})

    # -- hooks: the disk, seen without the store; call them when no store is open --------------

    def content(self, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The committed images (n, H, W, C) and labels (n,)."""
        raise NotImplementedError

    def checksums(self, path: Path) -> list[int]:
        """The checksums stored with the committed images."""
        raise NotImplementedError

    def leftovers(self, path: Path) -> list[str]:
        """What lies in the store beyond its committed images."""
        raise NotImplementedError

    def damage_pixel(self, path: Path, index: int) -> None:
        """Change one pixel of a stored image and nothing else."""
        raise NotImplementedError

    def damage_label(self, path: Path, index: int) -> None:
        """Change the label that is stored for an image and nothing else."""
        raise NotImplementedError

    def swap(self, path: Path, one: int, other: int) -> None:
        """Exchange all that is stored of two images."""
        raise NotImplementedError

    # -- fixtures and helpers ------------------------------------------------------------------

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Where a test makes its store."""
        return tmp_path / "store"

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A closed store of 23 images that no test changes."""
        path = tmp_path_factory.mktemp(cls.backend) / "shared"
        with cls.create(path) as store:
            store.write_many(cls.images_of(COUNT), labels_of(COUNT))
        return path

    @pytest.fixture
    def reader(self, shared: Path) -> Iterator[ImageStore]:
        """That store, opened for reading."""
        with storage_impl.open_store(shared) as store:
            yield store

    @pytest.fixture
    def stored(self, shared: Path, path: Path) -> Path:
        """A copy of that store for a test to change."""
        shutil.copytree(shared, path)
        return path

    @classmethod
    def images_of(cls, count: int, shape: Shape = SHAPE, first: int = 0) -> Any:
        """The sample images, such as the encoding gives back unchanged."""
        return images_of(count, shape, first, cls.encoding)

    @classmethod
    def create(cls, path: Any, shape: Any = SHAPE, **options: Any) -> ImageStore:
        return storage_impl.create_store(path, cls.backend, image_shape=shape, **options)

    def lasting(self, path: Path) -> dict[str, bytes]:
        """The bytes on disk that only a write may change."""
        files = snapshot(path)
        return {name: data for name, data in files.items() if name not in self.volatile}

    def check(self, path: Path, count: int, shape: tuple[int, int, int] = SHAPE) -> None:
        """The store is closed and holds the first `count` sample images and no trace of others."""
        images, labels = self.content(path)
        np.testing.assert_array_equal(images, self.images_of(count, shape))
        np.testing.assert_array_equal(labels, labels_of(count))
        assert self.leftovers(path) == []
        with storage_impl.open_store(path) as store:
            images, labels = store.read_many()
            store.verify()
        np.testing.assert_array_equal(images, self.images_of(count, shape))
        np.testing.assert_array_equal(labels, labels_of(count))

    # -- what is written is read ---------------------------------------------------------------

    @pytest.mark.parametrize(
        "shape",
        [
            (32, 32, 3),
            (1, 1, 1),
            (1, 1, 3),
            (1, 1, 4),
            (5, 7, 1),
            (7, 5, 4),
            (1, 33, 3),
            (33, 1, 4),
        ],
        ids=lambda shape: "x".join(map(str, shape)),
    )
    @pytest.mark.parametrize("count", [0, 1, 12])
    def test_round_trip(self, path: Path, shape: tuple[int, int, int], count: int) -> None:
        """Any number of images, of one, three or four channels and odd sizes, comes back."""
        if shape[2] not in CHANNELS.get(self.encoding, (1, 3, 4)):
            pytest.skip(f"{self.encoding} has no images of {shape[2]} channels")
        with self.create(path, shape, durable=False) as store:
            assert store.write_many(self.images_of(count, shape), labels_of(count)) == range(count)
            assert len(store) == count
            assert store.image_shape == shape
            images, labels = store.read_many()
            np.testing.assert_array_equal(images, self.images_of(count, shape))
            np.testing.assert_array_equal(labels, labels_of(count))
        self.check(path, count, shape)

    def test_many_images(self, path: Path) -> None:
        """Hundreds of images, in one call and in order."""
        shape = (2, 3, 3)
        with self.create(path, shape, durable=False) as store:
            assert store.write_many(self.images_of(300, shape), labels_of(300)) == range(300)
            for some in ([299, 0], [0, 299, 150], list(range(299, -1, -50))):
                images, labels = store.read_many(some)
                np.testing.assert_array_equal(images, self.images_of(300, shape)[some])
                np.testing.assert_array_equal(labels, labels_of(300)[some])
                np.testing.assert_array_equal(store.read_labels(some), labels_of(300)[some])
        self.check(path, 300, shape)

    def test_write_one_by_one(self, path: Path) -> None:
        """`write_one` returns the index of the image, a plain int, and counts from 0."""
        images, labels = self.images_of(5), labels_of(5)
        with self.create(path) as store:
            for i in range(5):
                index = store.write_one(images[i], labels[i])
                assert (type(index), index) == (int, i)
                assert len(store) == i + 1
        self.check(path, 5)

    def test_writes_of_both_kinds(self, path: Path) -> None:
        """`write_many` returns the range of new indices; the kinds of write may be mixed."""
        images, labels = self.images_of(9), labels_of(9)
        with self.create(path) as store:
            assert store.write_many(images[:3], labels[:3]) == range(3)
            assert store.write_one(images[3], labels[3]) == 3
            assert store.write_many(images[4:4], labels[4:4]) == range(4, 4)
            assert store.write_many(images[4:8], labels[4:8]) == range(4, 8)
            assert store.write_one(images[8], labels[8]) == 8
        self.check(path, 9)

    def test_empty_store(self, path: Path) -> None:
        """A store without images can be closed, opened, read whole, verified and refused."""
        self.create(path).close()
        with storage_impl.open_store(path) as store:
            assert len(store) == 0
            assert store.read_many()[0].shape == (0, *SHAPE)
            assert store.read_labels().shape == (0,)
            assert list(store.batches(4)) == []
            assert list(store.batches(4, shuffle=1)) == []
            store.verify()
            with pytest.raises(storage_impl.InvalidIndexError, match="empty"):
                store.read_one(0)
            with pytest.raises(storage_impl.InvalidIndexError, match="empty"):
                store.read_many([0])
        self.check(path, 0)

    @pytest.mark.parametrize(
        "nothing",
        [
            lambda: (np.empty((0, *SHAPE), np.uint8), np.empty(0, np.int64)),
            lambda: ([], []),
            lambda: ((), np.empty(0)),
            lambda: (iter(()), iter(())),
            lambda: (iter(()), []),
            lambda: (np.empty((0, *SHAPE), np.uint8), iter(())),
        ],
        ids=[
            "arrays",
            "lists",
            "tuple-and-array",
            "iterators",
            "iterator-and-list",
            "array-and-iterator",
        ],
    )
    def test_write_of_nothing(self, stored: Path, nothing: Callable[[], Any]) -> None:
        """Zero images are a valid write, which changes nothing."""
        before = self.lasting(stored)
        with storage_impl.open_store(stored, "a") as store:
            assert store.write_many(*nothing()) == range(COUNT, COUNT)
            assert len(store) == COUNT
        assert self.lasting(stored) == before

    def stored_bytes(self, path: Path) -> list[bytes]:
        """What is stored of each image: the pixels, unless the backend encodes them."""
        return [image.tobytes() for image in self.content(path)[0]]

    @staticmethod
    def mixed(index: int, label: int, shape: tuple[int, int, int] = SHAPE) -> int:
        """What a checksum adds to the hash of the stored bytes, so that it knows its place."""
        key = (shape[0] << 28 | shape[1] << 4 | shape[2]) * 0xD6E8FEB86659FD93
        mixed = (index * 0x9E3779B97F4A7C15 + label + key) % 2**64
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
        return mixed ^ mixed >> 31

    def test_checksums_on_disk(self, shared: Path) -> None:
        """Every image has XXH3 of what is stored, shifted by its index, label and shape."""
        expected = [
            (xxhash.xxh3_64_intdigest(data) + self.mixed(index, int(label))) % 2**64
            for index, (data, label) in enumerate(
                zip(self.stored_bytes(shared), labels_of(COUNT), strict=True)
            )
        ]
        assert self.checksums(shared) == expected

    # -- what may be given to a write ----------------------------------------------------------

    @pytest.mark.parametrize(
        "arrange",
        [
            np.asfortranarray,
            lambda images: images[::-1].copy()[::-1],
            lambda images: np.repeat(images, 2, axis=2)[:, :, ::2],
            lambda images: np.concatenate([images, images])[: len(images)],
            lambda images: np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
            lambda images: np.ascontiguousarray(images[:, ::-1, ::-1])[:, ::-1, ::-1],
            lambda images: np.frombuffer(images.tobytes(), ">u1").reshape(images.shape),
            list,
            tuple,
            iter,
            lambda images: (image for image in images),
            lambda images: map(np.asfortranarray, images),
            lambda images: dict(enumerate(images)).values(),
        ],
        ids=[
            "fortran",
            "backwards",
            "strided",
            "part",
            "channels-first",
            "mirrored",
            "read-only",
            "list",
            "tuple",
            "iterator",
            "generator",
            "fortran-images",
            "view",
        ],
    )
    def test_images_in_any_arrangement(self, path: Path, arrange: Callable[[Any], Any]) -> None:
        """The layout in memory does not matter, nor whether images come as array or iterable."""
        with self.create(path, durable=False) as store:
            assert store.write_many(arrange(self.images_of(9)), labels_of(9)) == range(9)
        self.check(path, 9)

    def test_one_array_as_every_image(self, path: Path) -> None:
        """An array that repeats one image by a stride of zero is written out in full."""
        image = self.images_of(1)[0]
        with self.create(path) as store:
            store.write_many(np.broadcast_to(image, (4, *SHAPE)), [0] * 4)
            store.write_many((image for _ in range(4)), [0] * 4)
            images, _ = store.read_many()
        np.testing.assert_array_equal(images, np.broadcast_to(image, (8, *SHAPE)))

    def test_generator_that_reuses_its_array(self, path: Path) -> None:
        """A generator may yield one array again and again, filled anew each time."""

        def refilled() -> Iterator[NDArray[np.uint8]]:
            buffer = np.empty(SHAPE, np.uint8)
            for image in self.images_of(9):
                buffer[...] = image
                yield buffer

        with self.create(path) as store:
            store.write_many(refilled(), labels_of(9))
        self.check(path, 9)

    def test_memory_map(self, path: Path, tmp_path: Path) -> None:
        """Images and labels may be mapped from files."""
        np.save(tmp_path / "images.npy", self.images_of(9))
        np.save(tmp_path / "labels.npy", labels_of(9))
        with self.create(path) as store:
            store.write_many(
                np.load(tmp_path / "images.npy", mmap_mode="r"),
                np.load(tmp_path / "labels.npy", mmap_mode="r"),
            )
        self.check(path, 9)

    @pytest.mark.parametrize("layout", ["F", "strided", "mirrored", "read-only"])
    def test_one_image_in_any_arrangement(self, path: Path, layout: str) -> None:
        """`write_one` takes any layout in memory too."""
        image = self.images_of(1)[0]
        given = {
            "F": np.asfortranarray(image),
            "strided": np.repeat(image, 2, axis=0)[::2],
            "mirrored": np.ascontiguousarray(image[::-1])[::-1],
            "read-only": np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
        }[layout]
        with self.create(path) as store:
            store.write_one(given, labels_of(1)[0])
        self.check(path, 1)

    @pytest.mark.parametrize(
        "dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">i4", ">i8", ">u8"]
    )
    def test_label_dtypes(self, path: Path, dtype: str) -> None:
        """Labels of any integer dtype keep their value, up to that dtype's limits within int64."""
        limits = np.iinfo(dtype)
        labels = np.array([limits.min, 0, 1, min(limits.max, 2**63 - 1)], dtype)
        with self.create(path) as store:
            store.write_many(self.images_of(4), labels)
            store.write_many(iter(self.images_of(4)), labels)
            store.write_many(self.images_of(4), iter(labels))
            store.write_many(self.images_of(4), list(labels))
            for image, label in zip(self.images_of(4), labels, strict=True):
                store.write_one(image, label)
            read = store.read_labels()
        assert read.dtype == np.int64
        assert read.tolist() == [int(label) for label in labels] * 5
        assert self.content(path)[1].tolist() == read.tolist()

    @pytest.mark.parametrize(
        "labels",
        [
            lambda: [5, -5, 7],
            lambda: (5, -5, 7),
            lambda: iter([5, -5, 7]),
            lambda: (label for label in (5, -5, 7)),
            lambda: np.array([5, 0, -5, 0, 7, 0])[::2],
            lambda: np.array([7, -5, 5])[::-1],
            lambda: np.array([[5, 0], [-5, 0], [7, 0]])[:, 0],
            lambda: {5: "a", -5: "b", 7: "c"}.keys(),
            lambda: [np.uint64(5), -5, np.int8(7)],
        ],
        ids=[
            "list", "tuple", "iterator", "generator", "strided", "backwards", "column", "view",
            "mixed",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("images", [np.asarray, list, iter], ids=["array", "list", "iterator"])
    def test_labels_of_any_kind(
        self, path: Path, images: Callable[[Any], Any], labels: Callable[[], Any]
    ) -> None:
        """Labels may be an array, a sequence or an iterator, whatever the images are."""
        with self.create(path, durable=False) as store:
            store.write_many(images(self.images_of(3)), labels())
            assert store.read_labels().tolist() == [5, -5, 7]

    def test_labels_as_a_range(self, path: Path) -> None:
        """A range is a sequence of labels like any other."""
        with self.create(path) as store:
            store.write_many(self.images_of(4), range(10, 2, -2))
            assert store.read_labels().tolist() == [10, 8, 6, 4]

    def test_labels_at_the_limits(self, path: Path) -> None:
        """The least and the greatest int64 are labels."""
        limits = [-(2**63), 2**63 - 1]
        with self.create(path) as store:
            store.write_many(self.images_of(2), limits)
            store.write_one(self.images_of(1)[0], limits[0])
            store.write_one(self.images_of(1)[0], limits[1])
            assert store.read_labels().tolist() == limits * 2
            assert [store.read_one(i)[1] for i in range(4)] == limits * 2
            store.verify()

    def test_input_is_left_alone(self, path: Path) -> None:
        """A write changes neither the arrays it is given nor keeps them."""
        images, labels = self.images_of(9), labels_of(9)
        with self.create(path) as store:
            store.write_many(images, labels)
            np.testing.assert_array_equal(images, self.images_of(9))
            np.testing.assert_array_equal(labels, labels_of(9))
            images[:] = 0
            labels[:] = 0
        self.check(path, 9)

    # -- reading -------------------------------------------------------------------------------

    @pytest.mark.parametrize("index", [0, 22, np.int64(3), np.uint8(5), np.array(7)])
    def test_read_one(self, reader: ImageStore, index: Any) -> None:
        """Any integer names an image; the label is a plain int."""
        image, label = reader.read_one(index)
        assert (image.shape, image.dtype, type(label)) == (SHAPE, np.uint8, int)
        np.testing.assert_array_equal(image, self.images_of(COUNT)[index])
        assert label == labels_of(COUNT)[index]

    def test_sequence(self, reader: ImageStore) -> None:
        """A store is a sequence of (image, label), whose indices count from the end below 0."""
        for index in (0, COUNT - 1, -1, -COUNT, np.int64(-1), np.int8(-2), np.array(-1)):
            image, label = reader[index]
            np.testing.assert_array_equal(image, self.images_of(COUNT)[index])
            assert (label, type(label)) == (labels_of(COUNT)[index], int)
        several: list[Any] = [slice(3, 9), slice(None, None, -7), slice(-5, None), range(2, 6), []]
        several += [(1, 2), [3, -1, 0], np.array([-2, 4]), np.array([-1, 2], np.int8)]
        for indices in several:
            wanted = indices if isinstance(indices, slice) else np.asarray(indices, np.int64)
            images, labels = reader[indices]
            np.testing.assert_array_equal(images, self.images_of(COUNT)[wanted])
            np.testing.assert_array_equal(labels, labels_of(COUNT)[wanted])
        assert [label for _, label in reader] == labels_of(COUNT).tolist()
        refused: list[Any] = [COUNT, -COUNT - 1, np.int64(-COUNT - 1), 1.5, True, "7", None]
        for index in (*refused, [COUNT], [-COUNT - 1]):
            with pytest.raises(storage_impl.InvalidIndexError):
                reader[index]

    @cases(SELECTIONS)
    def test_read_many(self, reader: ImageStore, case: Any) -> None:
        """`read_many` selects as numpy would: slices, and indices in any order with repeats."""
        wanted = self.expand(case)
        images, labels = reader.read_many(case)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        np.testing.assert_array_equal(images, self.images_of(COUNT)[wanted])
        np.testing.assert_array_equal(labels, labels_of(COUNT)[wanted])

    @cases(SELECTIONS)
    def test_read_many_verified(self, shared: Path, case: Any) -> None:
        """Reading with ``verify=True`` gives the same."""
        wanted = self.expand(case)
        with storage_impl.open_store(shared, verify=True) as store:
            images, labels = store.read_many(case)
        np.testing.assert_array_equal(images, self.images_of(COUNT)[wanted])
        np.testing.assert_array_equal(labels, labels_of(COUNT)[wanted])

    @cases(SELECTIONS)
    def test_read_labels(self, reader: ImageStore, case: Any) -> None:
        """`read_labels` selects as `read_many` does."""
        labels = reader.read_labels(case)
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, labels_of(COUNT)[self.expand(case)])

    @cases(SELECTIONS)
    def test_read_into_the_callers_array(self, reader: ImageStore, case: Any) -> None:
        """`out` is filled and returned itself."""
        wanted = self.expand(case)
        out = np.full((len(wanted), *SHAPE), 77, np.uint8)
        images, labels = reader.read_many(case, out=out)
        assert images is out
        np.testing.assert_array_equal(out, self.images_of(COUNT)[wanted])
        np.testing.assert_array_equal(labels, labels_of(COUNT)[wanted])

    @staticmethod
    def expand(selection: Any) -> NDArray[np.int64]:
        """The indices that a selection means."""
        every = np.arange(COUNT)
        if selection is None:
            return every
        if isinstance(selection, slice):
            return every[selection]
        return every[np.array(list(selection), np.int64)]

    def test_out_is_part_of_a_larger_array(self, reader: ImageStore) -> None:
        """A contiguous part of a larger array is filled and nothing beside it."""
        large = np.full((10, *SHAPE), 77, np.uint8)
        reader.read_many([4, 2], out=large[3:5])
        np.testing.assert_array_equal(large[3:5], self.images_of(COUNT)[[4, 2]])
        assert (np.delete(large, [3, 4], axis=0) == 77).all()

    @pytest.mark.parametrize(
        ("out", "message"),
        [
            (np.zeros((4, *SHAPE), np.uint8), r"\(3, 5, 7, 3\).*\(4, 5, 7, 3\)"),
            (np.zeros((3, 5, 7), np.uint8), r"\(3, 5, 7, 3\).*\(3, 5, 7\)"),
            (np.zeros((3, *SHAPE), np.int8), r"uint8.*int8"),
            (np.zeros((3, *SHAPE), np.float64), r"uint8.*float64"),
            (np.zeros((3, *SHAPE), np.uint8, order="F"), r"C-contiguous"),
            (np.zeros((6, *SHAPE), np.uint8)[::2], r"C-contiguous"),
            (np.zeros((3, *SHAPE), np.uint8)[::-1], r"C-contiguous"),
            (np.frombuffer(bytes(315), np.uint8).reshape(3, *SHAPE), r"writeable"),
            (bytearray(315), r"numpy array.*bytearray"),
            ([], r"numpy array.*list"),
        ],
        ids=[
            "length", "rank", "int8", "float", "fortran", "strided", "backwards", "read-only",
            "bytearray", "list",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("indices", [slice(3), [0, 1, 2]], ids=["slice", "list"])
    def test_bad_out(self, reader: ImageStore, indices: Any, out: Any, message: str) -> None:
        """An `out` of another kind is refused and left as it was."""
        with pytest.raises(storage_impl.InvalidInputError, match=message):
            reader.read_many(indices, out=out)
        assert not np.any(out)

    def test_results_are_the_callers_own(self, shared: Path) -> None:
        """What was read may be changed, outlives the store, and is not shared between reads."""
        expected, labels = self.images_of(COUNT), labels_of(COUNT)
        with storage_impl.open_store(shared) as store:
            read: list[tuple[Any, Any, Any]] = []
            for selection in (None, slice(2, 9), [5, 3, 3]):
                wanted = self.expand(selection)
                for _ in range(2):
                    read.append((*store.read_many(selection), wanted))
                    read.append((*next(store.batches(COUNT)), slice(None)))
            for index in (4, 4):
                image, _ = store.read_one(index)
                read.append((image[np.newaxis], store.read_labels([index]), [index]))
            arrays = [array for images, numbers, _ in read for array in (images, numbers)]
            for array in arrays:
                assert array.flags.writeable
                assert array.flags.c_contiguous
            for i, one in enumerate(arrays):
                assert not any(np.shares_memory(one, other) for other in arrays[:i])
        for images, numbers, wanted in read:
            np.testing.assert_array_equal(images, expected[wanted])
            np.testing.assert_array_equal(numbers, labels[wanted])
            images[:] = 0
            numbers[:] = 0
        self.check(shared, COUNT)

    @cases(BAD_INDICES)
    def test_bad_index(self, reader: ImageStore, case: tuple[Any, str]) -> None:
        """`read_one` refuses what is no index of the store and says which there are."""
        index, message = case
        with pytest.raises(storage_impl.InvalidIndexError, match=message) as caught:
            reader.read_one(index)
        assert isinstance(caught.value, IndexError)

    @cases(BAD_SELECTIONS)
    @pytest.mark.parametrize("method", ["read_many", "read_labels"])
    def test_bad_selection(self, reader: ImageStore, case: tuple[Any, str], method: str) -> None:
        """So do `read_many` and `read_labels`."""
        selection, message = case
        with pytest.raises(storage_impl.InvalidIndexError, match=message) as caught:
            getattr(reader, method)(selection)
        assert isinstance(caught.value, IndexError)

    def test_bad_selection_in_brackets(self, reader: ImageStore) -> None:
        """So does `store[...]`, where negative indices count from the end."""
        for name, (selection, _) in BAD_SELECTIONS.items():
            if "negative" in name or name == "one integer":
                continue
            with pytest.raises(storage_impl.InvalidIndexError):
                reader[selection]
        for endless in (range(10**12), range(-1, 10**12), range(-1, -(10**12), -1)):
            with pytest.raises(storage_impl.InvalidIndexError, match="to 22, got range"):
                reader[endless]
        assert reader[range(-3, 2)][1].tolist() == labels_of(COUNT)[[-3, -2, -1, 0, 1]].tolist()

    @pytest.mark.parametrize(
        "read",
        [
            lambda store: store.read_one(0),
            lambda store: store.read_many(),
            lambda store: next(store.batches(4)),
            lambda store: store.read_many([4, 1]),
            lambda store: store.read_labels(),
            lambda store: store.verify(),
        ],
    )
    def test_system_that_fails_a_read(
        self,
        reader: ImageStore,
        monkeypatch: pytest.MonkeyPatch,
        read: Callable[[ImageStore], object],
    ) -> None:
        """A read that the system fails is no damage, and may work the next time."""
        kind = storage_impl.BACKENDS[self.backend]
        fail = raising.failing(OSError(errno.EIO, "Input/output error"))
        for error, expected in ((fail, storage_impl.ReadFailedError), (timed_out, TimeoutError)):
            with monkeypatch.context() as patch:
                for method in ("read_one", "fill", "fetch", "read_labels"):
                    patch.setattr(kind, method, error)
                with pytest.raises(expected) as caught:
                    read(reader)
            if expected is storage_impl.ReadFailedError:
                assert caught.value.errno == errno.EIO  # type: ignore[attr-defined]
                assert isinstance(caught.value, OSError)
            else:  # what the handler of an alarm raises is not the store's to explain
                assert type(caught.value) is TimeoutError
        read(reader)

    def test_reading_writes_nothing(self, stored: Path) -> None:
        """Opening for reading, reading, verifying and closing leave the files as they were."""
        before = self.lasting(stored)
        with storage_impl.open_store(stored, verify=True) as store:
            store.read_many()
            store.read_one(3)
            store.verify()
        assert self.lasting(stored) == before

    # -- batches -------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [1, 4, 22, 23, 24, 1000, np.int64(5)])
    def test_batches(self, reader: ImageStore, size: Any) -> None:
        """Batches hold every image once, in order; only the last one may be short."""
        batches = list(reader.batches(size))
        sizes = [len(labels) for _, labels in batches]
        assert sizes == [min(size, COUNT - start) for start in range(0, COUNT, size)]
        for images, labels in batches:
            assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
            assert images.shape == (len(labels), *SHAPE)
        np.testing.assert_array_equal(
            np.concatenate([images for images, _ in batches]), self.images_of(COUNT)
        )
        np.testing.assert_array_equal(
            np.concatenate([labels for _, labels in batches]), labels_of(COUNT)
        )

    def test_shuffled_batches(self, reader: ImageStore) -> None:
        """A seed gives an order of all images, the same each time; another seed, another one."""

        def order(seed: Any) -> list[int]:
            batches = list(reader.batches(4, shuffle=seed))
            assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 4, 3]
            labels = np.concatenate([labels for _, labels in batches])
            indices = (labels + 5_000_000) // 1_000_003
            images = np.concatenate([images for images, _ in batches])
            np.testing.assert_array_equal(images, self.images_of(COUNT)[indices])
            return list(indices)

        assert sorted(order(7)) == list(range(COUNT))
        assert order(7) == order(7) == order(np.int64(7))
        assert order(7) != list(range(COUNT))
        assert len({tuple(order(seed)) for seed in (0, 7, 8, 2**70)}) == 4

    def test_batches_are_independent(self, reader: ImageStore) -> None:
        """Two iterations over one store do not disturb each other."""
        one, other = reader.batches(5), reader.batches(3, shuffle=1)
        first, _ = next(one)
        next(other)
        second, _ = next(one)
        np.testing.assert_array_equal(np.concatenate([first, second]), self.images_of(10))
        assert not np.shares_memory(first, second)

    def test_batches_while_the_store_grows(self, stored: Path) -> None:
        """An iteration covers the images that there were when it began."""
        with storage_impl.open_store(stored, "a") as store:
            labels = []
            for images, some in store.batches(10):
                labels += some.tolist()
                store.write_many(images, some)
            assert labels == labels_of(COUNT).tolist()
            assert len(store) == 2 * COUNT

    @pytest.mark.parametrize("size", [0, -1, 1.5, 2.0, True, "2", None, [2]])
    def test_bad_batch_size(self, reader: ImageStore, size: Any) -> None:
        """A batch size that is no positive integer is refused at the call."""
        with pytest.raises(
            storage_impl.InvalidInputError, match=f"batch_size.*{re.escape(repr(size))}"
        ):
            reader.batches(size)

    @pytest.mark.parametrize("seed", [-1, 1.5, True, False, "7", [7]])
    def test_bad_shuffle(self, reader: ImageStore, seed: Any) -> None:
        """So is a seed that is no integer."""
        with pytest.raises(
            storage_impl.InvalidInputError, match=f"shuffle.*{re.escape(repr(seed))}"
        ):
            reader.batches(4, shuffle=seed)

    @pytest.mark.parametrize("seed", [None, 3])
    def test_batches_hold_one_batch_in_memory(self, path: Path, seed: int | None) -> None:
        """Iterating takes the memory of a few batches, however many images there are."""
        shape = (64, 64, 3)
        batch_bytes = 8 * 64 * 64 * 3
        with self.create(path, shape, durable=False) as store:
            store.write_many(np.zeros((400, *shape), np.uint8), [0] * 400)
        with storage_impl.open_store(path) as store:
            next(store.batches(8, shuffle=seed))
            tracemalloc.start()
            try:
                for images, _ in store.batches(8, shuffle=seed):
                    assert images.nbytes == batch_bytes
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert peak < self.batches_in_memory * batch_bytes

    # -- appending -----------------------------------------------------------------------------

    def test_append_over_several_openings(self, path: Path) -> None:
        """A store grows each time it is opened for appending, and keeps its order."""
        self.create(path).close()
        written = 0
        for count in (3, 0, 1, 5):
            with storage_impl.open_store(path, "a") as store:
                assert (store.mode, len(store)) == ("a", written)
                new = store.write_many(
                    self.images_of(count, first=written), labels_of(count, written)
                )
                assert new == range(written, written + count)
                written += count
        self.check(path, written)

    def test_many_small_appends(self, path: Path) -> None:
        """Images may be added one at a time, and read between."""
        images, labels = self.images_of(60), labels_of(60)
        with self.create(path, durable=False) as store:
            for i in range(60):
                store.write_one(images[i], labels[i])
                image, label = store.read_one(i // 2)
                np.testing.assert_array_equal(image, images[i // 2])
                assert label == labels[i // 2]
            np.testing.assert_array_equal(store.read_many()[0], images)
            np.testing.assert_array_equal(store.read_labels([59, 0, 30]), labels[[59, 0, 30]])
        self.check(path, 60)

    @pytest.mark.parametrize("durable", [True, False])
    @pytest.mark.parametrize("count", [1, 40])
    def test_what_is_synced(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool, count: int
    ) -> None:
        """Files and directories are synced when a call returns or, not durable, by `close`."""
        synced: set[int] = set()
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            sync(descriptor)
            synced.add(os.fstat(descriptor).st_ino)

        monkeypatch.setattr(os, "fsync", fsync)
        with self.create(path, durable=durable) as store:
            for first in (0, count):
                store.write_many(self.images_of(count, first=first), labels_of(count, first))
                assert self.unsynced(path, synced) == set() if durable else not synced
        assert self.unsynced(path, synced) == set()

    def unsynced(self, path: Path, synced: set[int]) -> set[str]:
        """What of a store, and of the directory that it is in, is not among what was synced."""
        everything = {path.parent, path, *path.rglob("*")}
        return {
            entry.name
            for entry in everything
            if entry.stat().st_ino not in synced and entry.name not in self.synced_elsewhere
        }

    def test_options_and_durability_last(self, path: Path) -> None:
        """What a store was created with holds each time it is opened."""
        for number, options in enumerate(self.options):
            where = path.with_name(f"store{number}")
            self.create(where, durable=bool(number % 2), **options).close()
            marker = json.loads((where / "store.json").read_bytes())
            assert options.items() <= marker["options"].items()
            with storage_impl.open_store(where, "a") as store:
                assert store.durable is bool(number % 2)
                store.write_many(self.images_of(4), labels_of(4))
                store.write_one(self.images_of(5)[4], labels_of(5)[4])
            self.check(where, 5)

    def test_marker(self, path: Path) -> None:
        """`store.json` says what the store is."""
        self.create(path, (6, 4, 3)).close()
        marker = json.loads((path / "store.json").read_bytes())
        options = marker.pop("options")
        assert isinstance(options, dict)
        assert marker == {
            "format": "storage_impl",
            "format_version": 1,
            "backend": self.backend,
            "encoding": self.encoding,
            "image_shape": [6, 4, 3],
            "durable": True,
        }

    def test_disk_that_takes_a_few_bytes_at_a_time(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A system that writes less than it was given is given the rest."""
        write, pwrite = os.write, getattr(os, "pwrite", None)
        monkeypatch.setattr(os, "write", lambda file, data: write(file, bytes(data[:11])))
        if pwrite is not None:
            monkeypatch.setattr(
                os, "pwrite", lambda file, data, offset: pwrite(file, bytes(data[:11]), offset)
            )
        with self.create(path) as store:
            store.write_many(self.images_of(3), labels_of(3))
            store.write_one(self.images_of(4)[3], labels_of(4)[3])
        monkeypatch.undo()
        self.check(path, 4)

    @pytest.mark.skipif(not hasattr(os, "setuid"), reason="this system has no users")
    def test_store_of_somebody_else(self, shared: Path) -> None:
        """Who may not write to a store's files may read them, and is told when they try."""
        # The directories that pytest makes are closed to other users.
        directory = Path(tempfile.mkdtemp())
        try:
            path = shutil.copytree(shared, directory / "store")
            directory.chmod(0o755)
            for entry in (path, *path.rglob("*")):
                entry.chmod(0o555 if entry.is_dir() else 0o444)
            before = self.lasting(path)
            with OtherProcess() as other:
                assert other.call(processes.use_as_nobody, path) == [COUNT, "ReadFailedError"]
            assert self.lasting(path) == before
        finally:
            for entry in (directory / "store", *directory.rglob("*")):
                if entry.is_dir():
                    entry.chmod(0o755)
            shutil.rmtree(directory)

    def test_copy_of_a_store(self, shared: Path, path: Path) -> None:
        """A closed store is its directory: a copy is a store, and may be appended to."""
        shutil.copytree(shared, path)
        with storage_impl.open_store(path, "a") as store:
            store.write_many(self.images_of(4, first=COUNT), labels_of(4, COUNT))
        self.check(path, COUNT + 4)
        self.check(shared, COUNT)

    # -- all or nothing ------------------------------------------------------------------------

    @pytest.fixture
    def small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have an iterable handed on nine images at a time, so that few images are many chunks."""
        monkeypatch.setattr("storage_impl._batches._BATCH_BYTES", 9 * 105)

    @pytest.mark.parametrize("count", [1, 8, 9, 10, 18, 100])
    def test_generator_in_chunks(self, path: Path, small_chunks: None, count: int) -> None:
        """A generator longer than a chunk comes out in order, whatever its length."""
        with self.create(path, durable=False) as store:
            images, labels = self.images_of(count), labels_of(count)
            assert store.write_many(iter(images), iter(labels)) == range(count)
            more = self.images_of(30, first=count)
            store.write_many(iter(more), labels_of(30, count))
        self.check(path, count + 30)

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to measure by")
    def test_generator_in_bounded_memory(self, path: Path) -> None:
        """A generator of 240 MiB of images is written in less memory than that."""
        shape, count = (256, 256, 3), 1280
        self.create(path, shape, durable=False).close()
        with OtherProcess() as other:
            grown = other.call(processes.append_generated, path, count)
        assert grown < 170 << 20
        with storage_impl.open_store(path) as store:
            assert len(store) == count
            images, _ = store.read_many([0, 1, 200, count - 1])
            assert images[:, 0, 0, 0].tolist() == [2, 5, 92, 14]

    @pytest.mark.parametrize(
        "error", [RuntimeError, OSError, ValueError, KeyboardInterrupt, MemoryError]
    )
    @pytest.mark.parametrize("after", [0, 5, 40])
    def test_generator_that_raises(
        self, stored: Path, small_chunks: None, after: int, error: type[BaseException]
    ) -> None:
        """An error in the caller's generator passes through and leaves the store as it was."""
        images, labels = self.images_of(50, first=COUNT), labels_of(50, COUNT)
        raised = error("the camera fell over")
        with storage_impl.open_store(stored, "a") as store:
            with pytest.raises(error) as caught:
                store.write_many(failing(images, after, raised), labels)
            assert caught.value is raised
            assert len(store) == COUNT
            with pytest.raises(error):
                store.write_many(images, failing(labels, after, error("so did the labels")))
            assert len(store) == COUNT
            np.testing.assert_array_equal(store.read_many()[0], self.images_of(COUNT))
        self.check(stored, COUNT)
        with storage_impl.open_store(stored, "a") as store:
            with pytest.raises(error):
                store.write_many(failing(images, after, error()), labels)
            assert store.write_many(images, labels) == range(COUNT, COUNT + 50)
        self.check(stored, COUNT + 50)

    @pytest.mark.parametrize(
        ("image", "label", "message"),
        [
            (np.zeros((5, 8, 3), np.uint8), 1, r"\(5, 7, 3\).*got \(5, 8, 3\)"),
            (np.zeros(SHAPE, np.float32), 1, r"uint8.*float32"),
            (None, 1, r"uint8.*NoneType"),
            (np.zeros(SHAPE, np.uint8), 1.0, r"integer.*1\.0"),
            (np.zeros(SHAPE, np.uint8), 2**63, r"int64.*9223372036854775808"),
            (np.zeros(SHAPE, np.uint8), True, r"integer.*True"),
        ],
        ids=["size", "dtype", "no-image", "float-label", "great-label", "boolean-label"],
    )
    @pytest.mark.parametrize("after", [0, 5, 40])
    def test_generator_that_yields_bad_input(
        self, stored: Path, small_chunks: None, after: int, image: Any, label: Any, message: str
    ) -> None:
        """A bad image or label in the middle of a generator undoes the whole call."""
        images = [*self.images_of(after), image, *self.images_of(3)]
        labels = [*labels_of(after).tolist(), label, 1, 2, 3]
        with storage_impl.open_store(stored, "a") as store:
            with pytest.raises(storage_impl.InvalidInputError, match=message):
                store.write_many(iter(images), iter(labels))
            assert len(store) == COUNT
        self.check(stored, COUNT)

    @pytest.mark.parametrize(
        ("images", "labels"), [(40, 39), (39, 40), (40, 0), (0, 40), (1, 2), (27, 26), (26, 27)]
    )
    @pytest.mark.parametrize(
        "as_images", [np.asarray, list, iter], ids=["array", "list", "iterator"]
    )
    @pytest.mark.parametrize(
        "as_labels", [np.asarray, list, iter], ids=["array", "list", "iterator"]
    )
    def test_lengths_differ(
        self,
        path: Path,
        small_chunks: None,
        images: int,
        labels: int,
        as_images: Callable[[Any], Any],
        as_labels: Callable[[Any], Any],
    ) -> None:
        """More images than labels, or fewer, are refused, however each is given."""
        with self.create(path, durable=False) as store:
            with pytest.raises(storage_impl.InvalidInputError, match=f"{min(images, labels)}"):
                store.write_many(as_images(self.images_of(images)), as_labels(labels_of(labels)))
            assert len(store) == 0
        self.check(path, 0)

    def test_labels_without_end(self, stored: Path) -> None:
        """Labels that never end are refused as too many, not waited for."""

        def endless() -> Iterator[int]:
            while True:
                yield 1

        with storage_impl.open_store(stored, "a") as store:
            for images in (self.images_of(2), list(self.images_of(2)), iter(self.images_of(2))):
                with pytest.raises(storage_impl.InvalidInputError, match="2"):
                    store.write_many(images, endless())
        self.check(stored, COUNT)

    def test_generator_that_reads_the_store(self, stored: Path, small_chunks: None) -> None:
        """A generator may read the store that it is written to, and sees it as it was."""
        seen = []

        def flipped(store: ImageStore) -> Iterator[NDArray[np.uint8]]:
            for index in range(COUNT):
                seen.append(len(store))
                yield store.read_one(index)[0][::-1]
                np.testing.assert_array_equal(store.read_many([0])[0], self.images_of(1))

        with storage_impl.open_store(stored, "a") as store:
            store.write_many(flipped(store), store.read_labels())
            images, labels = store.read_many()
        assert set(seen) == {COUNT}
        np.testing.assert_array_equal(images[COUNT:], self.images_of(COUNT)[:, ::-1])
        np.testing.assert_array_equal(labels[COUNT:], labels_of(COUNT))

    @pytest.mark.parametrize("after", [0, 5, 20])
    @cases(WRITES)
    def test_generator_that_writes_the_store(
        self, stored: Path, small_chunks: None, case: Callable[[ImageStore], object], after: int
    ) -> None:
        """A generator that writes to the store it is written to is refused."""

        def meddling(store: ImageStore) -> Iterator[NDArray[np.uint8]]:
            yield from self.images_of(after)
            case(store)
            yield from self.images_of(1)

        with storage_impl.open_store(stored, "a") as store:
            with pytest.raises(storage_impl.InvalidInputError, match="must not write"):
                store.write_many(meddling(store), [1] * (after + 1))
            assert len(store) == COUNT
            store.write_many(self.images_of(2, first=COUNT), labels_of(2, COUNT))
        self.check(stored, COUNT + 2)

    @pytest.mark.parametrize("after", [0, 5, 20])
    def test_generator_that_closes_the_store(
        self, stored: Path, small_chunks: None, after: int
    ) -> None:
        """A generator that closes the store it is written to is refused; nothing is written."""

        def closing(store: ImageStore) -> Iterator[NDArray[np.uint8]]:
            yield from self.images_of(after)
            store.close()
            yield from self.images_of(20)

        with (
            storage_impl.open_store(stored, "a") as store,
            pytest.raises(storage_impl.StorageError),
        ):
            store.write_many(closing(store), [1] * (after + 20))
        self.check(stored, COUNT)

    @pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
    @pytest.mark.parametrize(
        ("number", "kind"),
        [(errno.EIO, storage_impl.WriteFailedError), (errno.ENOSPC, storage_impl.StoreFullError)],
    )
    def test_sync_that_fails(
        self,
        stored: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        kind: type[storage_impl.WriteFailedError],
        lasting: bool,
    ) -> None:
        """Whichever sync fails that Python makes, the store is as it was, and the retry works."""
        saved = snapshot(stored)
        sync = os.fsync
        for at in range(100):
            calls = iter(range(1000))

            def fsync(descriptor: int, calls: Iterator[int] = calls, at: int = at) -> None:
                call = next(calls)
                if call == at or (lasting and call > at):
                    raise OSError(number, os.strerror(number))
                sync(descriptor)

            images, labels = self.images_of(3, first=COUNT), labels_of(3, COUNT)
            with storage_impl.open_store(stored, "a") as store:
                monkeypatch.setattr(os, "fsync", raising.in_library(fsync))
                try:
                    store.write_many(images, labels)
                except storage_impl.WriteFailedError as error:
                    failed = error
                else:
                    break
                finally:
                    monkeypatch.setattr(os, "fsync", sync)
                assert type(failed) is kind
                assert failed.errno == number
                assert isinstance(failed.__cause__, OSError)
                assert len(store) == COUNT
                np.testing.assert_array_equal(store.read_many()[0], self.images_of(COUNT))
                with storage_impl.open_store(stored) as reader:
                    assert len(reader) == COUNT
                assert store.write_many(images, labels) == range(COUNT, COUNT + 3)
            self.check(stored, COUNT + 3)
            self.restore(stored, saved)
        else:
            pytest.fail("a hundred syncs for three images")
        self.check(stored, COUNT + 3)

    @pytest.mark.parametrize(
        ("failure", "where"),
        [
            (OSError(errno.EIO, "I/O error"), "discard"),
            (KeyboardInterrupt(), "discard"),
            (KeyboardInterrupt(), "_undo"),  # before it has begun
        ],
    )
    def test_undoing_that_fails(
        self,
        stored: Path,
        small_chunks: None,
        monkeypatch: pytest.MonkeyPatch,
        failure: BaseException,
        where: str,
    ) -> None:
        """When what a failed call left is not removed, it stays unseen and in nobody's way."""

        def fail(*_: object) -> None:
            raise failure

        with storage_impl.open_store(stored, "a") as store:
            with monkeypatch.context() as patch:
                owner = type(store) if where == "_undo" else storage_impl.BACKENDS[self.backend]
                patch.setattr(owner, where, fail)
                with pytest.raises((ZeroDivisionError, KeyboardInterrupt)):
                    store.write_many(failing(self.images_of(40), 30, ZeroDivisionError()), [0] * 40)
            assert len(store) == COUNT
            store.verify()
            with storage_impl.open_store(stored) as reader:
                assert len(reader) == COUNT
            new = store.write_many(self.images_of(2, first=COUNT), labels_of(2, COUNT))
            assert new == range(COUNT, COUNT + 2)
        self.check(stored, COUNT + 2)

    # -- what is refused before a byte is written ----------------------------------------------

    @cases(BAD_IMAGES)
    def test_bad_images(self, stored: Path, case: tuple[Any, str]) -> None:
        """`write_many` says what was wrong with the images and what it accepts."""
        images, message = case
        self.check_refused(stored, lambda store: store.write_many(images, [1, 2]), message)

    @cases(
        {
            key: case
            for key, case in BAD_IMAGES.items()
            if "list" not in key and "no" not in key.split() and key != "one image"
        }
    )
    def test_bad_image(self, stored: Path, case: tuple[Any, str]) -> None:
        """So does `write_one`."""
        images, _ = case
        self.check_refused(stored, lambda store: store.write_one(images, 1), "uint8|shape")

    @cases(BAD_LABELS)
    @pytest.mark.parametrize("as_images", [np.asarray, list], ids=["array", "list"])
    def test_bad_labels(
        self, stored: Path, as_images: Callable[[Any], Any], case: tuple[Any, str]
    ) -> None:
        """`write_many` says what was wrong with the labels and what it accepts."""
        labels, message = case
        images = as_images(self.images_of(2))
        self.check_refused(stored, lambda store: store.write_many(images, labels), message)

    @cases({key: case for key, case in BAD_LABELS.items() if "2 images" not in case[1]})
    def test_bad_labels_of_a_generator(self, stored: Path, case: tuple[Any, str]) -> None:
        """The same labels are refused beside a generator of images."""
        labels, _ = case
        self.check_refused(
            stored,
            lambda store: store.write_many(iter(self.images_of(2)), labels),
            "integer|int64|one-dim",
        )

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            (1.0, r"integer.*1\.0"),
            (float("nan"), r"integer.*nan"),
            (True, r"integer.*True"),
            (np.True_, r"integer.*True"),
            ("1", r"integer.*'1'"),
            (None, r"integer.*None"),
            ([1], r"integer.*\[1\]"),
            (np.array([1]), r"integer"),
            (np.float32(1), r"integer.*1\.0"),
            (2**63, r"int64.*9223372036854775808"),
            (-(2**63) - 1, r"int64.*-9223372036854775809"),
            (np.uint64(2**63), r"int64.*9223372036854775808"),
        ],
    )
    def test_bad_label(self, stored: Path, label: Any, message: str) -> None:
        """`write_one` refuses a label that is no integer or does not fit int64."""
        image = self.images_of(1)[0]
        self.check_refused(stored, lambda store: store.write_one(image, label), message)

    def check_refused(
        self, path: Path, write: Callable[[ImageStore], object], message: str
    ) -> None:
        """A write is refused with a message, changes no byte, and the next one works."""
        with storage_impl.open_store(path, "a") as store:
            before = self.lasting(path)
            with pytest.raises(storage_impl.InvalidInputError, match=message) as caught:
                write(store)
            assert isinstance(caught.value, ValueError)
            assert self.lasting(path) == before
            assert len(store) == COUNT
            store.write_one(self.images_of(1, first=COUNT)[0], labels_of(1, COUNT)[0])
        self.check(path, COUNT + 1)

    # -- creating ------------------------------------------------------------------------------

    def test_created_store(self, path: Path) -> None:
        """A new store is a directory, opened for appending, and nothing lies beside it."""
        with self.create(path) as store:
            assert (store.path, store.backend, store.mode) == (path, self.backend, "a")
            assert (store.image_shape, store.durable, store.closed) == (SHAPE, True, False)
            assert type(store) is ImageStore
            assert store.encoding == self.encoding
            assert path.is_dir()
            assert os.listdir(path.parent) == ["store"]
        assert os.listdir(path.parent) == ["store"]

    @cases(BAD_SHAPES)
    def test_bad_image_shape(self, path: Path, case: Any) -> None:
        """`image_shape` is three sides with 1, 3 or 4 channels, or nothing is made."""
        with pytest.raises(storage_impl.InvalidInputError, match="image_shape"):
            self.create(path, case)
        assert os.listdir(path.parent) == []

    @pytest.mark.parametrize(
        "shape", [[5, 7, 3], np.array([5, 7, 3]), (np.int64(5), np.uint8(7), 3)]
    )
    def test_image_shape_of_any_integers(self, path: Path, shape: Any) -> None:
        """`image_shape` may be any sequence of integers; the store's is a tuple of ints."""
        with self.create(path, shape) as store:
            assert store.image_shape == (5, 7, 3)
            assert [type(side) for side in store.image_shape] == [int, int, int]

    @pytest.mark.parametrize("durable", ["yes", 1, None])
    def test_bad_durable(self, path: Path, durable: Any) -> None:
        """`durable` is True or False."""
        with pytest.raises(storage_impl.InvalidInputError, match=f"durable.*{durable!r}"):
            self.create(path, durable=durable)
        assert os.listdir(path.parent) == []

    def test_bad_options(self, path: Path) -> None:
        """An option that the backend does not have, or not so, is named; nothing is made."""
        for options, message in self.bad_options.values():
            with pytest.raises(storage_impl.InvalidInputError, match=message):
                self.create(path, **options)
            assert os.listdir(path.parent) == []
        with pytest.raises(storage_impl.InvalidInputError, match="no_such_option") as caught:
            self.create(path, no_such_option=1)
        for name in {name for options in self.options for name in options}:
            assert name in str(caught.value)

    @pytest.mark.parametrize("what", ["store", "file", "directory", "link to nowhere"])
    def test_path_exists(self, shared: Path, path: Path, what: str) -> None:
        """`create_store` refuses a path that exists, whatever is there, and leaves it alone."""
        match what:
            case "store":
                shutil.copytree(shared, path)
            case "file":
                path.write_bytes(b"precious")
            case "directory":
                path.mkdir()
            case "link to nowhere":
                path.symlink_to("nowhere")
        before = snapshot(path.parent)
        with pytest.raises(storage_impl.StoreExistsError, match="store exists") as caught:
            self.create(path)
        assert isinstance(caught.value, FileExistsError)
        assert snapshot(path.parent) == before
        assert os.listdir(path.parent) == ["store"]

    @pytest.mark.parametrize("parent", ["missing", "file"])
    def test_no_directory_to_create_in(self, tmp_path: Path, parent: str) -> None:
        """`create_store` makes no directories above the store."""
        (tmp_path / "file").write_bytes(b"precious")
        with pytest.raises(storage_impl.StorageError, match=parent) as caught:
            self.create(tmp_path / parent / "store")
        assert isinstance(caught.value, OSError)
        assert os.listdir(tmp_path) == ["file"]

    @pytest.mark.parametrize("rest", ["nothing", "a store"])
    def test_rest_of_an_interrupted_creation(self, path: Path, rest: str) -> None:
        """What a creation left that was killed is in nobody's way, and removed."""
        left = path.with_name(ASIDE)
        if rest == "nothing":
            left.mkdir()
        else:
            self.make_rest(left)
            (left / "directory").mkdir()
            (left / "directory" / "file").write_bytes(b"rest")
        with self.create(path) as store:
            store.write_many(self.images_of(3), labels_of(3))
        assert os.listdir(path.parent) == ["store"]
        self.check(path, 3)

    def test_creation_that_is_under_way(self, path: Path) -> None:
        """What another process is making stays as it is."""
        fcntl = pytest.importorskip("fcntl")
        aside = path.with_name(ASIDE)
        aside.mkdir()
        (aside / "labels.log").write_bytes(b"theirs")
        with open(aside / "write.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.create(path).close()
            assert sorted(os.listdir(aside)) == ["labels.log", "write.lock"]
            assert (aside / "labels.log").read_bytes() == b"theirs"
        self.check(path, 0)

    def test_two_processes_create(self, tmp_path: Path, other_process: OtherProcess) -> None:
        """Of two processes that make the same store at once, one does, and the other is told."""
        paths = [tmp_path / f"store{number}" for number in range(30)]
        other_process.start(processes.create_each, paths, self.backend)
        here = processes.create_each(paths, self.backend)
        there = other_process.result()
        for number, path in enumerate(paths):
            outcomes = {here[number], there[number]}
            assert outcomes == {"created", "StoreExistsError"}
            self.check(path, 0)
        assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)

    def make_rest(self, path: Path) -> Path:
        """A whole store of another shape, as a creation has made it before it renames it."""
        with self.create(path, (9, 9, 3)) as store:
            store.write_many(self.images_of(2, (9, 9, 3)), [1, 2])
        return path

    def test_store_made_meanwhile(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever renames second is told that the store exists, and leaves nothing."""
        rename = os.rename

        def second(source: Any, target: Any) -> None:
            monkeypatch.setattr(os, "rename", rename)
            self.create(target).close()
            rename(source, target)

        monkeypatch.setattr(os, "rename", second)
        with pytest.raises(storage_impl.StoreExistsError, match="open_store opens it"):
            self.create(path)
        assert os.listdir(path.parent) == ["store"]
        self.check(path, 0)

    def test_failed_creation_leaves_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the disk fails while a store is made, no part of it stays."""
        fail = raising.failing(OSError(5, "Input/output error"))
        with monkeypatch.context() as patch:
            patch.setattr("storage_impl._marker.write", fail)
            with pytest.raises(
                storage_impl.WriteFailedError, match="store could not be created"
            ) as caught:
                self.create(path)
        assert caught.value.errno == 5
        assert isinstance(caught.value.__cause__, OSError)
        del caught
        assert os.listdir(path.parent) == []
        self.create(path).close()
        self.check(path, 0)

    def test_created_store_that_cannot_be_opened(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the disk fails as a new store is opened, nothing of it stays either."""
        fail = raising.failing(OSError(errno.EIO, "Input/output error"))
        with monkeypatch.context() as patch:
            patch.setattr(storage_impl.BACKENDS[self.backend], "__init__", fail)
            with pytest.raises(storage_impl.WriteFailedError, match="was not made"):
                self.create(path)
        assert os.listdir(path.parent) == []
        self.create(path).close()
        self.check(path, 0)

    @pytest.mark.parametrize(
        "name",
        [
            "plain",
            "with spaces",
            "Bücher und Bilder",
            "画像",
            "😀",
            "-dash",
            "dot.lmdb",
            "100%d",
            "#?&=",
        ],
    )
    def test_names(self, tmp_path: Path, name: str) -> None:
        """A store may have any name that a directory may have."""
        path = tmp_path / name
        with self.create(path) as store:
            store.write_many(self.images_of(3), labels_of(3))
        assert os.listdir(tmp_path) == [name]
        self.check(path, 3)

    @pytest.mark.parametrize("kind", [str, Path, "pathlike"])
    def test_path_types(self, path: Path, kind: Any) -> None:
        """A path may be a string, a `Path` or any other path-like object."""

        class Pathlike:
            def __fspath__(self) -> str:
                return str(path)

        given = Pathlike() if kind == "pathlike" else kind(path)
        with self.create(given) as store:
            assert isinstance(store.path, Path)
            store.write_many(self.images_of(3), labels_of(3))
        with storage_impl.open_store(given) as store:
            assert store.path == path
            assert len(store) == 3

    @pytest.mark.parametrize("given", [None, 3.5, b"store", ["store"]])
    def test_bad_paths(self, tmp_path: Path, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is no path is refused as by `open`, with a `TypeError`; nothing is made."""
        monkeypatch.chdir(tmp_path)
        with pytest.raises(TypeError):
            self.create(given)
        with pytest.raises(TypeError):
            storage_impl.open_store(given)
        assert os.listdir(tmp_path) == []

    def test_relative_path(
        self, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A store opened by a relative path goes on working after a change of directory."""
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(tmp_path)
        with (
            storage_impl.open_store("store") as reader,
            storage_impl.open_store(Path("store"), "a") as writer,
            self.create("new") as new,
        ):
            pickled = pickle.dumps(reader)
            monkeypatch.chdir(elsewhere)
            writer.write_many(self.images_of(4, first=COUNT), labels_of(4, COUNT))
            new.write_many(self.images_of(4), labels_of(4))
            np.testing.assert_array_equal(reader.read_many()[0], self.images_of(COUNT))
            assert reader.disk_usage().apparent > 0
            with pickle.loads(pickled) as again:
                np.testing.assert_array_equal(again.read_many()[0], self.images_of(COUNT))
        assert os.listdir(elsewhere) == []
        self.check(stored, COUNT + 4)
        self.check(tmp_path / "new", 4)

    def test_symbolic_link_to_a_store(self, stored: Path, tmp_path: Path) -> None:
        """A store may be opened, also for appending, by a link to its directory."""
        link = tmp_path / "link"
        link.symlink_to(stored)
        with storage_impl.open_store(link, "a") as store:
            store.write_many(self.images_of(2, first=COUNT), labels_of(2, COUNT))
            with pytest.raises(storage_impl.StoreLockedError):
                storage_impl.open_store(stored, "a")
            with storage_impl.open_store(stored) as same:
                assert len(same) == COUNT + 2
        self.check(stored, COUNT + 2)

    def test_store_is_made_again_while_it_is_open(self, stored: Path) -> None:
        """A store that was removed and made again under its name is another store."""
        with storage_impl.open_store(stored) as reader, storage_impl.open_store(stored, "a"):
            shutil.rmtree(stored)
            with self.create(stored, (2, 2, 3)) as new:
                new.write_many(self.images_of(4, (2, 2, 3)), labels_of(4))
                assert len(reader) == COUNT
                np.testing.assert_array_equal(new.read_many()[0], self.images_of(4, (2, 2, 3)))
        self.check(stored, 4, (2, 2, 3))

    # -- opening -------------------------------------------------------------------------------

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_open_recognises_the_backend(self, stored: Path, mode: str) -> None:
        """`open_store` finds out from the disk what a store is."""
        with storage_impl.open_store(stored, mode) as store:
            assert (store.backend, store.mode, store.image_shape) == (self.backend, mode, SHAPE)
            assert (store.path, store.closed, len(store)) == (stored, False, COUNT)

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_open_what_does_not_exist(self, path: Path, mode: str) -> None:
        """A path that does not exist is refused, and not made."""
        with pytest.raises(storage_impl.StoreNotFoundError, match="store does not exist") as caught:
            storage_impl.open_store(path, mode)
        assert isinstance(caught.value, FileNotFoundError)
        assert os.listdir(path.parent) == []

    @pytest.mark.parametrize("mode", ["r", "a"])
    @pytest.mark.parametrize("what", ["file", "directory", "directory of files"])
    def test_open_what_is_no_store(self, path: Path, mode: str, what: str) -> None:
        """Files and directories that are no store are refused and left as they are."""
        if what == "file":
            path.write_bytes(b"\x89PNG")
        else:
            path.mkdir()
        if what == "directory of files":
            (path / "data.mdb").write_bytes(bytes(10_000))
            (path / "00000000.png").write_bytes(b"\x89PNG")
        before = snapshot(path.parent)
        with pytest.raises(storage_impl.NotAStoreError, match="store"):
            storage_impl.open_store(path, mode)
        assert snapshot(path.parent) == before

    @pytest.mark.parametrize("mode", ["r", "a"])
    @cases(BAD_MARKERS)
    def test_damaged_marker(self, stored: Path, mode: str, case: bytes) -> None:
        """A directory whose `store.json` is something else is no store."""
        (stored / "store.json").write_bytes(case)
        with pytest.raises(storage_impl.NotAStoreError, match=r"store\.json"):
            storage_impl.open_store(stored, mode)

    @pytest.mark.parametrize("mode", ["r", "a"])
    @cases(BAD_FIELDS)
    def test_bad_field_in_the_marker(self, stored: Path, mode: str, case: tuple[str, Any]) -> None:
        """So is one whose `store.json` says what no version of this package writes."""
        self.edit_marker(stored, *case)
        with pytest.raises(storage_impl.NotAStoreError, match=case[0] + r"|store\.json"):
            storage_impl.open_store(stored, mode)

    @pytest.mark.parametrize("field", ["backend", "image_shape", "durable", "options"])
    def test_missing_field_in_the_marker(self, stored: Path, field: str) -> None:
        """Each field of `store.json` is needed."""
        marker = json.loads((stored / "store.json").read_bytes())
        del marker[field]
        (stored / "store.json").write_text(json.dumps(marker))
        with pytest.raises(storage_impl.NotAStoreError, match=rf"store\.json.*{field}"):
            storage_impl.open_store(stored)

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_newer_version(self, stored: Path, mode: str) -> None:
        """A store of a newer format is refused with its version and what to do."""
        self.edit_marker(stored, "format_version", 2)
        self.edit_marker(stored, "something_new", [1, 2])
        with pytest.raises(
            storage_impl.UnsupportedVersionError, match=r"version 2.*newer storage_impl"
        ):
            storage_impl.open_store(stored, mode)

    def test_marker_of_an_unknown_backend(self, stored: Path) -> None:
        """A store of a backend that this version does not know is refused by its name."""
        self.edit_marker(stored, "backend", "zarr")
        with pytest.raises(storage_impl.NotAStoreError, match="png, lmdb or hdf5, got 'zarr'"):
            storage_impl.open_store(stored)

    @pytest.mark.parametrize("shape", [[5, 7, 4], [7, 5, 3], [5, 7, 1], [1 << 24, 1 << 24, 4]])
    def test_marker_of_another_shape(self, stored: Path, shape: list[int]) -> None:
        """A shape in `store.json` that is not that of the images is damage, found by then."""
        self.edit_marker(stored, "image_shape", shape)
        with pytest.raises(storage_impl.DamagedStoreError):
            with storage_impl.open_store(stored) as store:
                store.read_one(0)
        with pytest.raises(storage_impl.DamagedStoreError):
            with storage_impl.open_store(stored) as store:
                store.verify()

    @staticmethod
    def shape_of(path: Path) -> tuple[int, int, int]:
        height, width, channels = json.loads((path / "store.json").read_bytes())["image_shape"]
        return height, width, channels

    @staticmethod
    def edit_marker(path: Path, field: str, value: Any) -> None:
        marker = json.loads((path / "store.json").read_bytes())
        (path / "store.json").write_text(json.dumps(marker | {field: value}))

    @pytest.mark.parametrize("mode", ["w", "x", "r+", "", "A", None, 1, True, ["r"]])
    def test_bad_mode(self, stored: Path, mode: Any) -> None:
        """A mode is "r" or "a"."""
        with pytest.raises(
            storage_impl.InvalidInputError, match=f"'r'.*'a'.*{re.escape(repr(mode))}"
        ):
            storage_impl.open_store(stored, mode)

    @pytest.mark.parametrize("verify", [1, None, "yes"])
    def test_bad_verify(self, stored: Path, verify: Any) -> None:
        """`verify` is True or False."""
        with pytest.raises(storage_impl.InvalidInputError, match=f"verify.*{verify!r}"):
            storage_impl.open_store(stored, verify=verify)

    @cases(WRITES)
    def test_write_to_a_reader(
        self, reader: ImageStore, case: Callable[[ImageStore], object]
    ) -> None:
        """A store that was opened for reading refuses writes, and says how to open it."""
        with pytest.raises(storage_impl.ReadOnlyStoreError, match="reading.*mode='a'") as caught:
            case(reader)
        assert isinstance(caught.value, UnsupportedOperation)
        assert len(reader) == COUNT

    # -- closing -------------------------------------------------------------------------------

    @pytest.mark.parametrize("mode", ["r", "a"])
    @cases(READS | WRITES)
    def test_use_after_close(
        self, stored: Path, mode: str, case: Callable[[ImageStore], object]
    ) -> None:
        """A closed store refuses every use."""
        store = storage_impl.open_store(stored, mode)
        store.close()
        before = self.lasting(stored)
        with pytest.raises(storage_impl.ClosedStoreError, match="store is closed") as caught:
            case(store)
        assert isinstance(caught.value, ValueError)
        assert self.lasting(stored) == before

    def test_close(self, stored: Path) -> None:
        """Closing twice is allowed; leaving ``with`` closes, also by an error."""
        store = storage_impl.open_store(stored)
        assert not store.closed
        store.close()
        assert store.closed
        store.close()
        store = storage_impl.open_store(stored)
        with pytest.raises(ZeroDivisionError), store:
            raise ZeroDivisionError
        assert store.closed
        with pytest.raises(storage_impl.ClosedStoreError), store:
            pass

    def test_close_that_cannot_sync(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A close that fails to sync says so, and closes and unlocks the store all the same."""
        fail = raising.failing(OSError(errno.EIO, "Input/output error"))
        store = self.create(path, durable=False)
        store.write_many(self.images_of(3), labels_of(3))
        monkeypatch.setattr(storage_impl.BACKENDS[self.backend], "sync", fail)
        with pytest.raises(storage_impl.WriteFailedError, match="synced") as caught:
            store.close()
        assert caught.value.errno == errno.EIO
        assert store.closed
        store.close()
        monkeypatch.undo()
        storage_impl.open_store(path, "a").close()
        self.check(path, 3)

    def test_close_of_a_store_that_is_gone(self, stored: Path) -> None:
        """A store whose directory was removed can be closed, and fails by errors of its own."""
        store = storage_impl.open_store(stored)
        shutil.rmtree(stored)
        with pytest.raises(storage_impl.StorageError):
            store.disk_usage()
        store.close()
        assert store.closed

    def test_close_during_batches(self, stored: Path) -> None:
        """An iteration over a store that was closed ends with an error."""
        store = storage_impl.open_store(stored)
        batches = store.batches(4)
        next(batches)
        store.close()
        with pytest.raises(storage_impl.ClosedStoreError):
            next(batches)

    def test_attributes_after_close(self, stored: Path) -> None:
        """What a store was can still be asked."""
        store = storage_impl.open_store(stored)
        store.close()
        assert (store.path, store.backend, store.mode) == (stored, self.backend, "r")
        assert (store.image_shape, store.durable) == (SHAPE, True)

    def test_files_are_closed(self, stored: Path) -> None:
        """A closed store holds no file open."""
        gc.collect()
        before = self.open_files()
        for mode in ("r", "a", "r"):
            with storage_impl.open_store(stored, mode) as store:
                store.read_many([3, 1])
                store.read_one(2)
                if mode == "a":
                    store.write_many(self.images_of(2), [1, 2])
        assert self.open_files() == before

    @staticmethod
    def open_files() -> list[str]:
        directory = Path("/proc/self/fd")
        if not directory.is_dir():
            pytest.skip("this system does not list the files of a process")
        links = (directory / name for name in os.listdir(directory))
        return sorted(os.readlink(link) for link in links if link.is_symlink())

    def test_repr(self, stored: Path) -> None:
        """A store's repr says what and where it is, open or closed."""
        with storage_impl.open_store(stored, "a") as store:
            for part in (type(store).__name__, repr(str(stored)), "(5, 7, 3)", "23 images", "'a'"):
                assert part in repr(store)
        assert "closed" in repr(store)
        assert str(stored) in repr(store)

    # -- one writer, many readers --------------------------------------------------------------

    @pytest.mark.parametrize("first", ["create", "open"])
    def test_second_writer(self, path: Path, first: str, other_process: OtherProcess) -> None:
        """A second writer is refused at once, in this process and in another."""
        store = self.create(path)
        if first == "open":
            store.close()
            store = storage_impl.open_store(path, "a")
        with store:
            with pytest.raises(storage_impl.StoreLockedError, match="open for writing") as caught:
                storage_impl.open_store(path, "a")
            assert isinstance(caught.value, BlockingIOError)
            with pytest.raises(storage_impl.StoreLockedError, match="open for writing"):
                other_process.call(processes.open_and_close, path, "a")
            assert other_process.call(processes.open_and_close, path, "r") == 0
            store.write_many(self.images_of(3), labels_of(3))
        assert other_process.call(processes.open_and_close, path, "a") == 3
        self.check(path, 3)

    def test_lock_ends_with_close(self, stored: Path, other_process: OtherProcess) -> None:
        """Once a writer is closed, the next one may come, here or elsewhere."""
        for _ in range(3):
            storage_impl.open_store(stored, "a").close()
            assert other_process.call(processes.open_and_close, stored, "a") == COUNT

    def test_lock_ends_with_the_object(self, stored: Path) -> None:
        """A writer that is dropped without `close` is in nobody's way, and lost nothing."""
        store = storage_impl.open_store(stored, "a")
        store.write_many(self.images_of(2, first=COUNT), labels_of(2, COUNT))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del store
            gc.collect()
        storage_impl.open_store(stored, "a").close()
        self.check(stored, COUNT + 2)

    def test_lock_ends_with_the_process(self, stored: Path) -> None:
        """So is one whose process was killed."""
        with OtherProcess() as other:
            assert other.call(processes.open_and_keep, stored, "a") == COUNT
            with pytest.raises(storage_impl.StoreLockedError):
                storage_impl.open_store(stored, "a")
            other.kill()
        storage_impl.open_store(stored, "a").close()
        self.check(stored, COUNT)

    def test_opening_that_cannot_clear_up(
        self, stored: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the disk fails an opening half-way, neither the lock nor a file stays held."""
        fail = raising.failing(OSError(errno.EIO, "Input/output error"))
        before = self.open_files()
        with monkeypatch.context() as patch:
            patch.setattr(storage_impl.BACKENDS[self.backend], "discard", fail)
            with pytest.raises(storage_impl.ReadFailedError) as caught:
                storage_impl.open_store(stored, "a")
        assert caught.value.errno == errno.EIO
        del caught, fail, patch  # the error's traceback holds what was open
        gc.collect()
        assert self.open_files() == before
        storage_impl.open_store(stored, "a").close()

    def test_lock_ends_with_a_failed_opening(self, stored: Path) -> None:
        """A store that cannot be opened for writing does not stay locked."""
        marker = (stored / "store.json").read_bytes()
        self.edit_marker(stored, "format_version", 2)
        with pytest.raises(storage_impl.UnsupportedVersionError):
            storage_impl.open_store(stored, "a")
        (stored / "store.json").write_bytes(marker)
        saved = snapshot(stored)
        for name, data in saved.items():
            if name != "store.json" and data:
                (stored / name).write_bytes(b"")
                try:
                    storage_impl.open_store(stored, "a").close()
                except storage_impl.DamagedStoreError:
                    gc.collect()
                self.restore(stored, saved)
                storage_impl.open_store(stored, "a").close()
                self.restore(stored, saved)
        self.check(stored, COUNT)

    @staticmethod
    def restore(path: Path, files: dict[str, bytes]) -> None:
        """Undo whatever happened to the files of a closed store."""
        shutil.rmtree(path)
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)

    def test_reader_sees_one_prefix(self, stored: Path, other_process: OtherProcess) -> None:
        """A reader sees what there was when it opened, whoever appends meanwhile."""
        with storage_impl.open_store(stored) as early:
            with storage_impl.open_store(stored, "a") as writer:
                writer.write_many(self.images_of(5, first=COUNT), labels_of(5, COUNT))
                with storage_impl.open_store(stored) as later:
                    writer.write_one(
                        self.images_of(1, first=COUNT + 5)[0], labels_of(1, COUNT + 5)[0]
                    )
                    self.check_prefix(later, COUNT + 5)
                    self.check_prefix(early, COUNT)
                    self.check_prefix(writer, COUNT + 6)
            assert other_process.call(processes.append, stored, 3, 7) == COUNT + 27
            self.check_prefix(early, COUNT)
            with storage_impl.open_store(stored) as latest:
                self.check_prefix(latest, COUNT + 27)
            self.check_prefix(early, COUNT)
        self.check(stored, COUNT + 27)

    def check_prefix(self, store: ImageStore, count: int) -> None:
        """An open store has exactly the first `count` sample images."""
        assert len(store) == count
        images, labels = store.read_many()
        np.testing.assert_array_equal(images, self.images_of(count))
        np.testing.assert_array_equal(labels, labels_of(count))
        np.testing.assert_array_equal(store.read_labels(), labels_of(count))
        np.testing.assert_array_equal(store.read_one(count - 1)[0], self.images_of(count)[-1])
        with pytest.raises(storage_impl.InvalidIndexError):
            store.read_one(count)
        with pytest.raises(storage_impl.InvalidIndexError):
            store.read_labels([count])
        store.verify()

    def test_reading_while_another_process_writes(
        self, path: Path, other_process: OtherProcess
    ) -> None:
        """Whenever a reader opens, it sees whole calls and nothing else."""
        self.create(path, durable=False).close()
        lengths = set()
        other_process.start(processes.append, path, 40, 6)
        running = True
        while running:
            running = other_process.running()
            with storage_impl.open_store(path, verify=True) as store:
                images, labels = store.read_many()
                lengths.add(len(store))
            np.testing.assert_array_equal(images, self.images_of(len(labels)))
            np.testing.assert_array_equal(labels, labels_of(len(labels)))
        assert other_process.result() == max(lengths) == 240
        assert all(length % 6 == 0 for length in lengths)
        self.check(path, 240)

    # -- threads -------------------------------------------------------------------------------

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_threads_read_one_store(self, stored: Path, mode: str) -> None:
        """Several threads may read from one store object."""
        images, labels = self.images_of(COUNT), labels_of(COUNT)

        def read(seed: int) -> int:
            rng = np.random.default_rng(seed)
            for _ in range(20):
                index = int(rng.integers(COUNT))
                image, label = store.read_one(index)
                np.testing.assert_array_equal(image, images[index])
                assert label == labels[index]
                some = rng.integers(COUNT, size=7)
                read_images, read_labels = store.read_many(some)
                np.testing.assert_array_equal(read_images, images[some])
                np.testing.assert_array_equal(read_labels, labels[some])
                np.testing.assert_array_equal(store.read_labels(), labels)
            return seed

        with storage_impl.open_store(stored, mode) as store, ThreadPoolExecutor(8) as pool:
            assert list(pool.map(read, range(8))) == list(range(8))

    def test_threads_write_one_store(self, path: Path) -> None:
        """Writes from several threads follow each other, each of them whole."""
        barrier = threading.Barrier(4)

        def write(number: int) -> list[range]:
            barrier.wait(processes.LIMIT)
            return [
                store.write_many(self.images_of(size, first=number), [number] * size)
                for size in (1, 3, 5)
            ]

        with self.create(path, durable=False) as store, ThreadPoolExecutor(4) as pool:
            written = list(pool.map(write, range(4)))
        images, labels = self.content(path)
        assert sorted(i for ranges in written for new in ranges for i in new) == list(range(36))
        for number, ranges in enumerate(written):
            for new in ranges:
                np.testing.assert_array_equal(images[new], self.images_of(len(new), first=number))
                assert set(labels[new]) == {number}
        assert self.leftovers(path) == []

    def test_threads_read_while_one_writes(self, path: Path) -> None:
        """Threads may read what is there while another one appends to the same store."""
        done = threading.Event()

        def read(_: int) -> int:
            seen = 0
            while not done.is_set() or not seen:
                count = len(store)
                images, labels = store.read_many(slice(0, count))
                np.testing.assert_array_equal(images, self.images_of(count))
                np.testing.assert_array_equal(labels, labels_of(count))
                seen += 1
            return seen

        with self.create(path, durable=False) as store, ThreadPoolExecutor(2) as pool:
            reads = pool.map(read, range(2))
            try:
                for first in range(0, 40, 4):
                    store.write_many(self.images_of(4, first=first), labels_of(4, first))
            finally:
                done.set()
            assert all(reads)
        self.check(path, 40)

    # -- processes -----------------------------------------------------------------------------

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_pickle(self, stored: Path, mode: str) -> None:
        """A pickled store comes back for reading, at the same place and with the same length."""
        with storage_impl.open_store(stored, mode) as store:
            store.read_one(3)
            pickled = pickle.dumps(store)
            assert len(pickled) < 1000
            if mode == "a":
                store.write_many(self.images_of(5, first=COUNT), labels_of(5, COUNT))
            with pickle.loads(pickled) as again:
                assert type(again) is type(store)
                assert (again.mode, again.path, again.image_shape) == ("r", stored, SHAPE)
                self.check_prefix(again, COUNT)
                with pytest.raises(storage_impl.ReadOnlyStoreError):
                    again.write_one(self.images_of(1)[0], 1)
        with pickle.loads(pickled) as after_close:
            self.check_prefix(after_close, COUNT)

    def test_pickle_keeps_verifying(self, stored: Path) -> None:
        """A pickled store that checks what it reads goes on doing so."""
        self.damage_pixel(stored, 4)
        with storage_impl.open_store(stored, verify=True) as store:
            with pickle.loads(pickle.dumps(store)) as again:
                with pytest.raises(storage_impl.DamagedImageError):
                    again.read_one(4)
                again.read_one(5)

    def test_pickle_of_a_closed_store(self, stored: Path) -> None:
        """A closed store cannot be pickled."""
        store = storage_impl.open_store(stored)
        store.close()
        with pytest.raises(storage_impl.ClosedStoreError):
            pickle.dumps(store)

    def test_unpickling_when_the_store_is_gone(self, stored: Path) -> None:
        """A pickle of a store that is gone, or was replaced by a shorter one, is refused."""
        with storage_impl.open_store(stored) as store:
            pickled = pickle.dumps(store)
        shutil.rmtree(stored)
        with pytest.raises(storage_impl.StoreNotFoundError):
            pickle.loads(pickled)
        self.create(stored).close()
        with pytest.raises(storage_impl.DamagedStoreError, match="23"):
            pickle.loads(pickled)

    @pytest.mark.parametrize("mode", ["r", "a"])
    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_store_goes_to_a_worker(
        self, stored: Path, method: str, mode: str, other_process: OtherProcess
    ) -> None:
        """A store may be handed to a worker process, as loaders of data do."""
        if method not in get_all_start_methods():
            pytest.skip(f"this system does not start processes by {method}")
        with storage_impl.open_store(stored, mode) as store:
            store.read_one(0)
            # The process that is there was spawned.
            spawned = contextlib.nullcontext(other_process)
            with spawned if method == "spawn" else OtherProcess(method) as other:
                np.testing.assert_array_equal(
                    other.call(processes.read_many, store)[0], self.images_of(COUNT)
                )
                assert other.call(processes.read_one, store, 22)[1] == labels_of(COUNT)[22]
                with pytest.raises(storage_impl.ReadOnlyStoreError):
                    other.call(processes.write_one, store, 1)
            np.testing.assert_array_equal(store.read_many()[0], self.images_of(COUNT))

    @needs_fork
    @forks
    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_store_after_fork(self, stored: Path, mode: str) -> None:
        """A store that was used before a fork works in the child and in the parent."""
        with storage_impl.open_store(stored, mode, verify=True) as store:
            store.read_one(0)
            with OtherProcess("fork", store) as child, OtherProcess("fork", store) as other:
                for process in (child, other, child):
                    images, labels = process.call(processes.read_many)
                    np.testing.assert_array_equal(images, self.images_of(COUNT))
                    np.testing.assert_array_equal(labels, labels_of(COUNT))
                    image, _ = process.call(processes.read_one, 22)
                    np.testing.assert_array_equal(image, self.images_of(COUNT)[22])
                np.testing.assert_array_equal(store.read_many()[0], self.images_of(COUNT))
                child.call(processes.close)
                np.testing.assert_array_equal(store.read_many()[0], self.images_of(COUNT))
                np.testing.assert_array_equal(
                    other.call(processes.read_many)[0], self.images_of(COUNT)
                )

    @needs_fork
    @forks
    def test_writer_after_fork(self, stored: Path) -> None:
        """After a fork the child may not write, and harms neither the writer nor its lock."""
        with storage_impl.open_store(stored, "a") as store:
            with OtherProcess("fork", store) as child:
                with pytest.raises(storage_impl.ReadOnlyStoreError, match="fork"):
                    child.call(processes.write_one, 1)
                store.write_many(self.images_of(2, first=COUNT), labels_of(2, COUNT))
                child.call(processes.close)
                with pytest.raises(storage_impl.ClosedStoreError):
                    child.call(processes.write_one, 1)
                with pytest.raises(storage_impl.StoreLockedError):
                    storage_impl.open_store(stored, "a")
            with pytest.raises(storage_impl.StoreLockedError):
                storage_impl.open_store(stored, "a")
            store.write_many(self.images_of(2, first=COUNT + 2), labels_of(2, COUNT + 2))
        self.check(stored, COUNT + 4)

    @needs_fork
    @forks
    def test_fork_with_a_closed_store(self, stored: Path) -> None:
        """Stores that were closed or could not be opened do not matter to a fork."""
        closed = [storage_impl.open_store(stored), storage_impl.open_store(stored, "a")]
        for store in closed:
            store.close()
        with storage_impl.open_store(stored, "a") as store, OtherProcess("fork", store) as child:
            with pytest.raises(storage_impl.ReadOnlyStoreError, match="fork"):
                child.call(processes.write_one, 1)
            np.testing.assert_array_equal(child.call(processes.read_many)[0], self.images_of(COUNT))
        assert len(closed) == 2
        self.check(stored, COUNT)

    @needs_fork
    @forks
    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_fork_of_a_fork(self, stored: Path, mode: str) -> None:
        """A child may fork again, and its child read, whether it used the store itself or not."""
        with storage_impl.open_store(stored, mode) as store:
            with OtherProcess("fork", store) as child:
                for _ in range(2):
                    assert child.call(processes.read_in_a_fork) == 0
                    np.testing.assert_array_equal(
                        child.call(processes.read_many)[0], self.images_of(COUNT)
                    )
            np.testing.assert_array_equal(store.read_many()[0], self.images_of(COUNT))

    @needs_fork
    @forks
    def test_store_is_removed_after_a_fork(self, stored: Path) -> None:
        """A child that finds the store gone is told so by an error of this package."""
        with storage_impl.open_store(stored) as store, OtherProcess("fork", store) as child:
            shutil.rmtree(stored)
            with pytest.raises(storage_impl.StorageError):
                child.call(processes.read_many)

    @needs_fork
    @forks
    def test_child_sees_the_prefix_of_the_fork(self, stored: Path) -> None:
        """A child sees what the store held when it was forked, whatever the parent adds."""
        with storage_impl.open_store(stored, "a") as store, OtherProcess("fork", store) as child:
            store.write_many(self.images_of(5, first=COUNT), labels_of(5, COUNT))
            images, labels = child.call(processes.read_many)
            assert len(labels) == COUNT
            np.testing.assert_array_equal(images, self.images_of(COUNT))

    @needs_fork
    @forks
    def test_generator_that_forks(self, stored: Path, small_chunks: None) -> None:
        """A generator may start processes that read the store, as a loader of data does."""

        def flipped(store: ImageStore) -> Iterator[NDArray[np.uint8]]:
            yield from self.images_of(10, first=COUNT)
            with OtherProcess("fork", store) as child:
                for index in range(20):
                    image, _ = child.call(processes.read_one, index)
                    yield image[::-1]

        with storage_impl.open_store(stored, "a") as store:
            store.read_one(0)
            store.write_many(flipped(store), range(30))
            images, labels = store.read_many()
        np.testing.assert_array_equal(images[: COUNT + 10], self.images_of(COUNT + 10))
        np.testing.assert_array_equal(images[COUNT + 10 :], self.images_of(20)[:, ::-1])
        assert labels[COUNT:].tolist() == list(range(30))

    @needs_fork
    @forks
    def test_fork_while_threads_read(self, shared: Path) -> None:
        """A fork may happen while other threads read; neither side waits for the other."""
        done = threading.Event()

        def read(_: int) -> int:
            reads = 0
            while not done.is_set():
                np.testing.assert_array_equal(
                    store.read_many([3, 1, 4])[1], labels_of(5)[[3, 1, 4]]
                )
                store.read_one(5)
                reads += 1
            return reads

        with storage_impl.open_store(shared, verify=True) as store, ThreadPoolExecutor(3) as pool:
            reads = pool.map(read, range(3))
            try:
                for _ in range(5):
                    with OtherProcess("fork", store) as child:
                        images, _ = child.call(processes.read_many)
                        np.testing.assert_array_equal(images, self.images_of(COUNT))
            finally:
                done.set()
            assert all(reads)

    @needs_fork
    @forks
    def test_fork_while_a_thread_writes(self, stored: Path, small_chunks: None) -> None:
        """A child may read while a thread of its parent is in the middle of a long write."""
        begun, forked = threading.Event(), threading.Event()

        def waiting() -> Iterator[NDArray[np.uint8]]:
            yield from self.images_of(20, first=COUNT)
            begun.set()
            assert forked.wait(processes.LIMIT)
            yield from self.images_of(20, first=COUNT + 20)

        with storage_impl.open_store(stored, "a") as store, ThreadPoolExecutor(1) as pool:
            written = pool.submit(store.write_many, waiting(), labels_of(40, COUNT))
            assert begun.wait(processes.LIMIT)
            try:
                with OtherProcess("fork", store) as child:
                    assert len(child.call(processes.read_many)[1]) == COUNT
                    assert child.call(processes.read_one, 3)[1] == labels_of(4)[3]
                    with pytest.raises(storage_impl.ReadOnlyStoreError):
                        child.call(processes.write_one, 1)
            finally:
                forked.set()
            assert written.result(processes.LIMIT) == range(COUNT, COUNT + 40)
        self.check(stored, COUNT + 40)

    @needs_fork
    @forks
    def test_child_does_not_keep_the_lock(self, stored: Path) -> None:
        """A child that lives on does not keep the next writer out once the parent has closed."""
        store = storage_impl.open_store(stored, "a")
        with OtherProcess("fork", store) as child:
            store.close()
            with storage_impl.open_store(stored, "a") as next_one:
                next_one.write_many(self.images_of(2, first=COUNT), labels_of(2, COUNT))
            assert len(child.call(processes.read_many)[1]) == COUNT
        self.check(stored, COUNT + 2)

    # -- damage --------------------------------------------------------------------------------

    def test_verify(self, reader: ImageStore) -> None:
        """A store that is sound verifies, and returns nothing."""
        assert reader.verify() is None  # type: ignore[func-returns-value]

    @pytest.mark.parametrize("damaged", [(0,), (22,), (4, 5, 17)])
    @pytest.mark.parametrize("what", ["pixel", "label"])
    def test_verify_finds_damage(self, stored: Path, what: str, damaged: tuple[int, ...]) -> None:
        """`verify` names all images that are damaged and no other."""
        for index in reversed(damaged):
            getattr(self, f"damage_{what}")(stored, index)
        with storage_impl.open_store(stored) as store:
            with pytest.raises(storage_impl.DamagedImageError) as caught:
                store.verify()
            assert caught.value.indices == damaged
            for index in damaged:
                assert re.search(rf"\b{index}\b", str(caught.value))
            store.read_one(11)  # what is sound can still be read

    @pytest.mark.parametrize("verify_bytes", [1, 4 * 105, 23 * 105])
    def test_verify_in_blocks(
        self, stored: Path, verify_bytes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Damage is named the same however many images `verify` reads at once."""
        monkeypatch.setattr("storage_impl._reading._CHECKED_BYTES", verify_bytes)
        with storage_impl.open_store(stored) as store:
            store.verify()
        self.damage_pixel(stored, 3)
        self.damage_label(stored, 8)
        with storage_impl.open_store(stored) as store:
            with pytest.raises(storage_impl.DamagedImageError) as caught:
                store.verify()
        assert caught.value.indices == (3, 8)

    def test_verify_says_how_far_it_is(self, reader: ImageStore) -> None:
        """What `verify` calls adds up to all images."""
        compared: list[int] = []
        reader.verify(progress=compared.append)
        assert sum(compared) == len(reader)

    def test_verify_finds_images_that_moved(self, stored: Path) -> None:
        """Two images that changed places are damaged, though each is sound in itself."""
        self.swap(stored, 2, 19)
        with storage_impl.open_store(stored) as store:
            with pytest.raises(storage_impl.DamagedImageError) as caught:
                store.verify()
        assert caught.value.indices == (2, 19)

    @pytest.mark.parametrize("what", ["pixel", "label"])
    def test_reading_verified_finds_damage(self, stored: Path, what: str) -> None:
        """With ``verify=True`` a damaged image is never returned, and the others are."""
        getattr(self, f"damage_{what}")(stored, 4)
        sound = [0, 3, 22, 5]
        with storage_impl.open_store(stored, verify=True) as store:
            np.testing.assert_array_equal(store.read_many(sound)[0], self.images_of(COUNT)[sound])
            np.testing.assert_array_equal(
                store.read_many(slice(5, 9))[0], self.images_of(COUNT)[5:9]
            )
            np.testing.assert_array_equal(store.read_one(3)[0], self.images_of(COUNT)[3])
            damaged: list[Callable[[], object]] = [
                lambda: store.read_one(4),
                lambda: store.read_many(),
                lambda: store.read_many([22, 4, 4, 0, 4]),
                lambda: store.read_many(slice(10, 2, -1)),
                lambda: store.read_many(range(4, 5), out=np.empty((1, *SHAPE), np.uint8)),
                lambda: list(store.batches(3)),
                lambda: list(store.batches(23, shuffle=2)),
            ]
            for read in damaged:
                with pytest.raises(storage_impl.DamagedImageError, match=r"\b4\b") as caught:
                    read()
                assert caught.value.indices == (4,)

    @pytest.mark.parametrize("mode", ["r", "a"])
    @pytest.mark.parametrize("kind", ["missing", "directory", "link", "dangling", "fifo", "device"])
    def test_something_else_in_place_of_a_file(
        self, stored: Path, tmp_path: Path, kind: str, mode: str
    ) -> None:
        """What is no regular file is never followed, waited for or written to."""
        if os.name == "nt" and kind not in ("missing", "directory"):
            pytest.skip("this system has no such files")
        saved = snapshot(stored)
        images = [name for name in saved if os.sep in name]
        for name in [name for name in saved if name not in images[1:]]:
            if name in ("write.lock", "lock.mdb") and kind == "missing":
                continue  # made anew
            self.restore(stored, saved)
            target = tmp_path / "target"
            target.write_bytes(saved[name])
            self.put_in_place(stored / name, kind, target)
            # Only a writer needs its lock.
            if mode == "r" and name == "write.lock":
                self.use(stored, mode)
                continue
            with pytest.raises(storage_impl.StorageError):
                self.use(stored, mode)
            gc.collect(1)  # what has just been made: all of it takes 30 ms
            assert target.read_bytes() == saved[name]
        self.restore(stored, saved)
        self.check(stored, COUNT)

    @staticmethod
    def put_in_place(file: Path, kind: str, target: Path) -> None:
        """Replace a file by something that is none."""
        file.unlink()
        match kind:
            case "directory":
                file.mkdir()
            case "link":
                file.symlink_to(target)
            case "dangling":
                file.symlink_to(target.with_name("nowhere"))
            case "fifo":
                os.mkfifo(file)
            case "device":
                file.symlink_to("/dev/zero")

    @staticmethod
    def use(path: Path, mode: str) -> None:
        """Open a store, read all of it, check it and, if it can be, add to it."""
        with storage_impl.open_store(path, mode) as store:
            store.read_many()
            store.read_labels()
            store.verify()
            if mode == "a":
                store.write_many(images_of(2), [1, 2])

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_no_file_can_be_opened(self, stored: Path, mode: str) -> None:
        """A process that has too many files open is told that, and not of any damage."""
        resource = pytest.importorskip("resource")
        self.use(stored, "r")  # so that all that is imported late is
        saved = snapshot(stored)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        for spare in range(20):
            held: list[int] = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
            try:
                with contextlib.suppress(OSError):
                    while True:
                        held.append(os.open(os.devnull, os.O_RDONLY))
                for _ in range(spare):
                    os.close(held.pop())
                failure = self.failure_of_use(stored, mode)
            finally:
                for descriptor in held:
                    os.close(descriptor)
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            if failure is None:
                assert spare > 0
                return
            assert isinstance(failure, storage_impl.ReadFailedError | storage_impl.WriteFailedError)
            assert failure.errno == errno.EMFILE
            self.check(stored, COUNT)
            self.restore(stored, saved)
        pytest.fail("twenty files are not enough for a store of one")

    def failure_of_use(self, path: Path, mode: str) -> Exception | None:
        """What `use` raised; nothing that it refers to is kept open."""
        try:
            self.use(path, mode)
        except Exception as error:
            return error.with_traceback(None)
        return None

    def test_writer_of_a_damaged_store(self, stored: Path) -> None:
        """Damage to one image does not stop more from being added."""
        self.damage_pixel(stored, 4)
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(self.images_of(2, first=COUNT), labels_of(2, COUNT))
            with pytest.raises(storage_impl.DamagedImageError) as caught:
                store.verify()
        assert caught.value.indices == (4,)

    @pytest.mark.parametrize("number", [0, 1])
    @pytest.mark.parametrize("offset", [0, 8, 16, 24, 31])
    def test_damaged_slot_of_the_commit_record(
        self, stored: Path, number: int, offset: int
    ) -> None:
        """Damage to one slot of the commit record loses no image, and the next writer goes on."""
        with open(stored / self.commit_file, "r+b") as file:
            file.seek(32 * number + offset)
            (byte,) = file.read(1)
            file.seek(32 * number + offset)
            file.write(bytes([byte ^ 16]))
        with storage_impl.open_store(stored) as store:
            self.check_prefix(store, COUNT)
        with storage_impl.open_store(stored, "a") as store:
            store.write_many(self.images_of(2, first=COUNT), labels_of(2, COUNT))
        self.check(stored, COUNT + 2)

    @pytest.mark.parametrize("mode", ["r", "a"])
    @pytest.mark.parametrize(
        "damage", ["zeros", "text", "cut", "empty", "count", "serial", "parity"]
    )
    def test_damaged_commit_record(self, stored: Path, mode: str, damage: str) -> None:
        """Without a slot that is whole, or with a count that cannot be, there is no store."""
        file = stored / self.commit_file
        data = file.read_bytes()
        match damage:
            case "zeros":
                file.write_bytes(bytes(64) + data[64:])
            case "text":
                file.write_bytes(b"no commit record" * 4 + data[64:])
            case "cut":
                file.write_bytes(data[:31])
            case "empty":
                file.write_bytes(b"")
            case "count":
                for number, slot in enumerate(commit_record.slots(file)):
                    commit_record.put(file, number, slot._replace(images=2**62))
            case "serial":  # the next one would not fit its place
                for number, slot in enumerate(commit_record.slots(file)):
                    commit_record.put(file, number, slot._replace(serial=2**64 - 2 + number))
            case "parity":
                first, second = commit_record.slots(file)
                commit_record.put(file, 0, second)
                commit_record.put(file, 1, first)
        with pytest.raises(storage_impl.DamagedStoreError):
            storage_impl.open_store(stored, mode)
        file.write_bytes(data)
        storage_impl.open_store(stored, "a").close()
        self.check(stored, COUNT)

    # -- bytes on disk -------------------------------------------------------------------------

    @pytest.mark.parametrize("mode", ["r", "a"])
    def test_disk_usage(self, stored: Path, mode: str) -> None:
        """Apparent bytes are the lengths of the files, allocated ones what `du` counts."""
        with storage_impl.open_store(stored, mode) as store:
            usage = store.disk_usage()
            files = [entry.lstat() for entry in stored.rglob("*") if not entry.is_dir()]
            assert usage.apparent == sum(status.st_size for status in files)
            if hasattr(os.stat_result, "st_blocks"):
                everything = [entry.lstat() for entry in (stored, *stored.rglob("*"))]
                assert usage.allocated == 512 * sum(status.st_blocks for status in everything)
            assert usage == (usage.apparent, usage.allocated)
            assert usage.apparent > self.images_of(COUNT).nbytes / 20

    def test_disk_usage_that_cannot_be_measured(
        self, stored: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that fails is named, and so is the handler of a signal, as what it is."""
        with storage_impl.open_store(stored) as store:
            fail = raising.failing(OSError(errno.EIO, "Input/output error"))
            monkeypatch.setattr("storage_impl._files.disk_usage", fail)
            with pytest.raises(storage_impl.ReadFailedError, match="cannot be measured"):
                store.disk_usage()
            monkeypatch.setattr("storage_impl._files.disk_usage", timed_out)
            with pytest.raises(TimeoutError) as caught:
                store.disk_usage()
            assert type(caught.value) is TimeoutError

    def test_disk_usage_grows(self, stored: Path) -> None:
        """Each image that is added takes its bytes."""
        noise = np.random.default_rng(1).integers(0, 256, (200, *SHAPE), np.uint8)
        with storage_impl.open_store(stored, "a") as store:
            before = store.disk_usage()
            store.write_many(noise, [0] * 200)
            after = store.disk_usage()
        assert after.apparent - before.apparent >= noise.nbytes / 2
        assert after.allocated - before.allocated >= noise.nbytes / 2

    # -- interrupts, and names that are taken --------------------------------------------------

    @pytest.mark.parametrize("when", range(3))
    def test_interrupted_commit(
        self, stored: Path, monkeypatch: pytest.MonkeyPatch, when: int
    ) -> None:
        """An interrupt during or just after the commit leaves the whole call or none of it."""
        put = _commit.CommitRecord._put
        calls = iter(range(100))

        def interrupted(record: Any, count: int, durable: bool) -> None:
            number = next(calls)
            put(record, count, durable)
            if number == when:
                raise KeyboardInterrupt

        store = storage_impl.open_store(stored, "a")
        with monkeypatch.context() as patch:
            patch.setattr(_commit.CommitRecord, "_put", interrupted)
            with contextlib.suppress(KeyboardInterrupt):
                store.write_many(self.images_of(5, first=COUNT), labels_of(5, COUNT))
        length = len(store)
        assert length in (COUNT, COUNT + 5)
        store.write_many(self.images_of(2, first=length), labels_of(2, length))
        store.close()
        self.check(stored, length + 2)

    @pytest.mark.parametrize("kind", ["link", "directory"])
    def test_what_only_looks_like_the_rest_of_a_creation(self, path: Path, kind: str) -> None:
        """What this package did not make is not cleared away, nor what a link leads to."""
        strangers = path.with_name("strangers" if kind == "link" else ASIDE)
        strangers.mkdir()
        (strangers / "holiday.jpg").write_bytes(b"pixels")
        if kind == "link":
            path.with_name(ASIDE).symlink_to(strangers)
        self.create(path).close()
        assert os.listdir(strangers) == ["holiday.jpg"]
        assert os.path.lexists(path.with_name(ASIDE))

    def test_closed_while_threads_read(self, stored: Path) -> None:
        """A thread that reads while another closes is told so, and the path opens again."""
        for _ in range(10):
            store = storage_impl.open_store(stored)
            failures: list[type[Exception]] = []  # not errors, whose traceback holds what is open
            started = threading.Event()

            def read(
                store: storage_impl.ImageStore = store,
                failures: list[type[Exception]] = failures,
                started: threading.Event = started,
            ) -> None:
                try:
                    while True:
                        store.read_many()
                        started.set()
                except storage_impl.StorageError as failure:
                    failures.append(type(failure))

            reader = threading.Thread(target=read)
            reader.start()
            started.wait()
            store.close()
            reader.join()
            assert failures == [storage_impl.ClosedStoreError]
            self.check(stored, COUNT)
