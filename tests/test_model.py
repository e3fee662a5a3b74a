"""Every backend against a model: a plain array, whatever is done and in whichever order."""

import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

import storage_impl
from storage_impl import ImageStore

SETTINGS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    stateful_step_count=30,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)

SHAPES = [(1, 1, 1), (2, 3, 3), (3, 2, 4), (5, 4, 1)]
INT64 = st.integers(-(2**63), 2**63 - 1)
SEEDS = st.integers(0, 2**32 - 1)


def pixels(seed: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


class StoreMachine(RuleBasedStateMachine):
    """A store, opened and closed at will, beside two arrays that say what it holds."""

    backend: ClassVar[str]
    directory: Path
    store: ImageStore
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @initialize(shape=st.sampled_from(SHAPES), durable=st.booleans())
    def create(self, shape: tuple[int, int, int], durable: bool) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.store = storage_impl.create_store(
            self.directory / "store", self.backend, image_shape=shape, durable=durable
        )
        self.images = np.empty((0, *shape), np.uint8)
        self.labels = np.empty(0, np.int64)
        # Readers that were opened earlier, with the length that they had then.
        self.readers: list[tuple[ImageStore, int]] = []

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.store.close()
            for reader, _ in self.readers:
                reader.close()
            shutil.rmtree(self.directory)

    @property
    def writable(self) -> bool:
        return self.store.mode == "a"

    def add(self, images: NDArray[np.uint8], labels: list[int]) -> None:
        self.images = np.concatenate([self.images, images])
        self.labels = np.concatenate([self.labels, np.array(labels, np.int64)])

    # -- writing -------------------------------------------------------------------------------

    @precondition(lambda self: self.writable)
    @rule(seed=SEEDS, label=INT64)
    def write_one(self, seed: int, label: int) -> None:
        image = pixels(seed, self.store.image_shape)
        assert self.store.write_one(image, label) == len(self.labels)
        self.add(image[np.newaxis], [label])

    @precondition(lambda self: self.writable)
    @rule(
        seed=SEEDS,
        labels=st.lists(INT64, max_size=6),
        kind=st.sampled_from([np.asarray, list, iter]),
    )
    def write_many(self, seed: int, labels: list[int], kind: Any) -> None:
        images = pixels(seed, (len(labels), *self.store.image_shape))
        first = len(self.labels)
        assert self.store.write_many(kind(images), iter(labels)) == range(
            first, first + len(labels)
        )
        self.add(images, labels)

    @precondition(lambda self: self.writable)
    @rule(good=st.integers(0, 5), bad=st.sampled_from(["image", "label", "missing", "error"]))
    def write_in_vain(self, good: int, bad: str) -> None:
        images: list[Any] = [pixels(i, self.store.image_shape) for i in range(good + 1)]
        labels: list[Any] = list(range(good + 1))
        match bad:
            case "image":
                images[good] = images[good].astype(np.float32)
            case "label":
                labels[good] = 0.5
            case "missing":
                del labels[good]
        given = iter(images)
        if bad == "error":
            given = (image if i < good else 1 // 0 for i, image in enumerate(images))
        with pytest.raises((storage_impl.InvalidInputError, ZeroDivisionError)):
            self.store.write_many(given, iter(labels))

    @precondition(lambda self: not self.writable)
    @rule()
    def write_to_a_reader(self) -> None:
        with pytest.raises(storage_impl.ReadOnlyStoreError):
            self.store.write_one(pixels(0, self.store.image_shape), 0)

    # -- opening and closing -------------------------------------------------------------------

    @rule(mode=st.sampled_from(["r", "a"]), verify=st.booleans())
    def reopen(self, mode: str, verify: bool) -> None:
        self.store.close()
        self.store = storage_impl.open_store(self.store.path, mode, verify=verify)
        assert self.store.mode == mode

    @rule()
    def unpickle(self) -> None:
        pickled = pickle.dumps(self.store)
        self.store.close()
        self.store = pickle.loads(pickled)
        assert self.store.mode == "r"

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def open_reader(self) -> None:
        self.readers.append((storage_impl.open_store(self.store.path), len(self.labels)))

    @precondition(lambda self: self.readers)
    @rule()
    def close_reader(self) -> None:
        reader, _ = self.readers.pop(0)
        reader.close()

    # -- reading -------------------------------------------------------------------------------

    @rule(data=st.data())
    def read_one(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(-2, len(self.labels) + 1))
        if 0 <= index < len(self.labels):
            image, label = self.store.read_one(index)
            np.testing.assert_array_equal(image, self.images[index])
            assert label == self.labels[index]
        else:
            with pytest.raises(storage_impl.InvalidIndexError):
                self.store.read_one(index)

    @rule(data=st.data(), into=st.booleans())
    def read_many(self, data: st.DataObject, into: bool) -> None:
        count = len(self.labels)
        some = st.lists(st.integers(0, max(count - 1, 0)), max_size=8 if count else 0)
        wanted = data.draw(st.one_of(st.none(), st.slices(count), some))
        picked = slice(None) if wanted is None else wanted
        if isinstance(picked, list):
            picked = np.array(picked, np.intp)
        out = np.empty_like(self.images[picked]) if into else None
        images, labels = self.store.read_many(wanted, out=out)
        np.testing.assert_array_equal(images, self.images[picked])
        np.testing.assert_array_equal(labels, self.labels[picked])
        np.testing.assert_array_equal(self.store.read_labels(wanted), self.labels[picked])

    @rule(size=st.integers(1, 9), shuffle=st.none() | st.integers(0, 3))
    def batches(self, size: int, shuffle: int | None) -> None:
        batches = list(self.store.batches(size, shuffle=shuffle))
        assert sum(len(labels) for _, labels in batches) == len(self.labels)
        if batches and shuffle is None:
            np.testing.assert_array_equal(np.concatenate([b for b, _ in batches]), self.images)
        elif batches:
            found = sorted(image.tobytes() for images, _ in batches for image in images)
            assert found == sorted(image.tobytes() for image in self.images)

    @rule()
    def verify(self) -> None:
        self.store.verify()

    @invariant()
    def lengths(self) -> None:
        if hasattr(self, "store"):
            assert len(self.store) == len(self.labels)
            for reader, count in self.readers:
                assert len(reader) == count
                np.testing.assert_array_equal(reader.read_labels(), self.labels[:count])

    @rule()
    def earlier_readers(self) -> None:
        for reader, count in self.readers:
            np.testing.assert_array_equal(reader.read_many()[0], self.images[:count])


def machine(name: str) -> type[StoreMachine]:
    """The state machine of one backend."""
    return type(f"{name.capitalize()}Machine", (StoreMachine,), {"backend": name})


@pytest.mark.parametrize("name", storage_impl.BACKENDS)
def test_model(name: str) -> None:
    """Create, append, read, reopen, verify, pickle in any order: the model and the store agree."""
    case = machine(name).TestCase
    case.settings = SETTINGS
    case().runTest()
