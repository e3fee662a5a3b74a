"""Every backend with every encoding, and with images of differing sizes."""

import contextlib
import shutil
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import storage_impl
from storage_impl import ImageStore, codecs
from tests import image_files
from tests.contract import SELECTIONS, failing, snapshot
from tests.image_files import file_of, photo
from tests.samples import labels_of

Pixels = NDArray[np.uint8]
COUNT = 23
SHAPES = [(5, 7, 3), (64, 9, 3), (1, 1, 3), (16, 16, 1), (9, 33, 4), (40, 70, 3)]
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}


class Kind(NamedTuple):
    """A backend with an encoding, of one shape or of any."""

    backend: str
    encoding: str
    shape: tuple[int, int, int] | None

    def create(self, path: Path, **options: Any) -> ImageStore:
        return storage_impl.create_store(
            path, self.backend, image_shape=self.shape, encoding=self.encoding, **options
        )

    def images(self, count: int, first: int = 0) -> list[Pixels]:
        """Images that the store may hold."""
        shapes = SHAPES if self.shape is None else [self.shape]
        if self.encoding in ("jpeg", "webp"):
            shapes = [(*shape[:2], 3) for shape in shapes]
        return [photo(*shapes[i % len(shapes)], seed=i) for i in range(first, first + count)]

    def files(self, count: int, first: int = 0) -> list[bytes]:
        """The same as files, made by Pillow and not by the package."""
        found = []
        for i, image in enumerate(self.images(count, first), first):
            formats = ["PNG", "JPEG", "WEBP"] if self.encoding == "mixed" else [self.encoding]
            if self.encoding == "mixed" and image.shape[2] != 3:
                formats = ["PNG"]
            found.append(file_of(image, formats[i % len(formats)].upper()))
        return found

    def write(self, store: ImageStore, count: int, first: int = 0) -> None:
        labels = labels_of(count, first)
        if self.encoding == "mixed":
            store.write_encoded(self.files(count, first), labels)
        else:
            store.write_many(self.images(count, first), labels)

    def expected(self, count: int, first: int = 0) -> list[Pixels]:
        """What is read of them."""
        if self.encoding not in ("jpeg", "mixed"):
            return self.images(count, first)
        if self.encoding == "mixed":
            files = self.files(count, first)
        else:
            files = [
                codecs.encode(image, "jpeg", {"quality": 90}) for image in self.images(count, first)
            ]
        return [
            codecs.decode(data, "mixed", codecs.header_of(data, "mixed").shape) for data in files
        ]


KINDS = [
    Kind("png", "png", None),
    *(
        Kind(backend, encoding, shape)
        for backend in ("lmdb", "hdf5")
        for encoding in codecs.ENCODINGS
        for shape in (None, (16, 24, 3))
        if (encoding, shape) != ("raw", (16, 24, 3))
    ),
]


@pytest.fixture(
    params=KINDS, ids=lambda kind: f"{kind.backend}-{kind.encoding}-{kind.shape or 'any'}"
)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of store that the contract of raw images of one shape does not cover."""
    found: Kind = request.param
    return found


@pytest.fixture
def encoded(kind: Kind) -> Kind:
    """Those that take files."""
    if kind.encoding == "raw":
        pytest.skip("holds no files")
    return kind


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def stored(kind: Kind, path: Path) -> Path:
    """A closed store of 23 images from three calls."""
    with kind.create(path, durable=False) as store:
        for first, stop in ((0, 9), (9, 10), (10, COUNT)):
            kind.write(store, stop - first, first)
    return path


def same(found: Any, expected: list[Pixels]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)


def check(path: Path, kind: Kind, count: int) -> None:
    """The store holds the first `count` sample images."""
    with storage_impl.open_store(path, verify=True) as store:
        assert len(store) == count
        images, labels = store.read_many()
        same(images, kind.expected(count))
        np.testing.assert_array_equal(labels, labels_of(count))
        np.testing.assert_array_equal(store.read_labels(), labels_of(count))
        store.verify()


# -- what is written is read ----------------------------------------------------------------------


def test_attributes(kind: Kind, stored: Path) -> None:
    """An opened store says its encoding and its shape."""
    with storage_impl.open_store(stored) as store:
        assert (store.backend, store.encoding, store.image_shape) == kind


def test_reads(kind: Kind, stored: Path) -> None:
    """Every way of reading gives every image in its own shape."""
    expected = kind.expected(COUNT)
    for verify in (False, True):
        with storage_impl.open_store(stored, verify=verify) as store:
            assert isinstance(store.read_many()[0], list) == (kind.shape is None)
            for index, image in enumerate(expected):
                found, label = store.read_one(index)
                np.testing.assert_array_equal(found, image)
                assert label == labels_of(COUNT)[index]
                assert found.flags.writeable
            for name, some in SELECTIONS.items():
                picked = range(COUNT)[some] if isinstance(some, slice) else some
                indices = list(range(COUNT)) if picked is None else np.asarray(picked, int).tolist()
                images, labels = store.read_many(some)
                same(images, [expected[i] for i in indices])
                assert labels.tolist() == labels_of(COUNT)[indices].tolist(), name
                assert all(image.flags.writeable for image in images)
            batches = list(store.batches(7))
            same([image for images, _ in batches for image in images], expected)
            assert [len(labels) for _, labels in batches] == [7, 7, 7, 2]
            shuffled = list(store.batches(4, shuffle=3))
            order = [labels_of(COUNT).tolist().index(i) for _, ls in shuffled for i in ls.tolist()]
            assert sorted(order) == list(range(COUNT)) != order
            same(
                [image for images, _ in shuffled for image in images], [expected[i] for i in order]
            )


def test_out(kind: Kind, stored: Path) -> None:
    """Images of one shape are read into the caller's array; of differing ones it is refused."""
    with storage_impl.open_store(stored) as store:
        out = np.zeros((COUNT, *(kind.shape or (5, 7, 3))), np.uint8)
        if kind.shape is None:
            with pytest.raises(
                storage_impl.InvalidInputError, match="different shapes.*without out="
            ):
                store.read_many(out=out)
        else:
            assert store.read_many(out=out)[0] is out
            same(out, kind.expected(COUNT))


def test_empty(kind: Kind, path: Path) -> None:
    """A store of nothing, and calls of nothing."""
    with kind.create(path) as store:
        if kind.encoding != "mixed":
            assert store.write_many([], []) == range(0)
        if kind.encoding != "raw":
            assert store.write_encoded([], []) == range(0)
        images, labels = store.read_many()
        assert (len(images), len(labels), list(store.batches(5))) == (0, 0, [])
        store.verify()
    check(path, kind, 0)


@pytest.mark.parametrize("given", [list, iter, tuple])
def test_iterables(kind: Kind, path: Path, given: Callable[[Any], Any]) -> None:
    """Sequences and iterators, of images or of files."""
    with kind.create(path, durable=False) as store:
        if kind.encoding == "mixed":
            assert store.write_encoded(
                given(kind.files(12)), given(labels_of(12).tolist())
            ) == range(12)
        else:
            assert store.write_many(given(kind.images(12)), given(labels_of(12).tolist())) == range(
                12
            )
    check(path, kind, 12)


def test_write_one(kind: Kind, path: Path) -> None:
    """One by one; a store of "mixed" says what it takes instead."""
    with kind.create(path, durable=False) as store:
        for index, image in enumerate(kind.images(7)):
            if kind.encoding == "mixed":
                with pytest.raises(storage_impl.InvalidInputError, match="use write_encoded"):
                    store.write_one(image, 1)
                with pytest.raises(storage_impl.InvalidInputError, match="use write_encoded"):
                    store.write_many([image], [1])
                data, label = kind.files(1, index)[0], int(labels_of(1, index)[0])
                assert store.write_encoded(data, label) == range(index, index + 1)
            else:
                assert store.write_one(image, labels_of(1, index)[0]) == index
    check(path, kind, 7)


def test_in_batches(kind: Kind, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is more than one batch; what fails in a later batch leaves nothing."""
    monkeypatch.setattr("storage_impl._batches._BATCH_BYTES", 3000)
    with kind.create(path, durable=False) as store:
        kind.write(store, 9)
        before = snapshot(path)
        if kind.encoding == "mixed":
            given, write = kind.files(14, 9), store.write_encoded
        else:
            given, write = kind.images(14, 9), store.write_many  # type: ignore[assignment]
        with pytest.raises(OSError, match="of the caller"):
            write(failing(given, 12, OSError("of the caller")), iter(range(99)))
        with pytest.raises(storage_impl.InvalidInputError, match="more images"):
            write(iter(given), iter(range(13)))
        with pytest.raises(storage_impl.InvalidInputError, match="more labels"):
            write(iter(given), iter(range(15)))
        with pytest.raises(storage_impl.InvalidInputError):
            write(iter([*given, None]), iter(range(15)))
        assert len(store) == 9
        if kind.backend != "lmdb":  # which keeps its free pages
            assert {name: data for name, data in snapshot(path).items() if "log" not in name} == {
                name: data for name, data in before.items() if "log" not in name
            }
        write(iter(given), iter(labels_of(14, 9).tolist()))
    check(path, kind, COUNT)


def test_bad_images(kind: Kind, path: Path) -> None:
    """What is no image of the store is refused before a byte is written."""
    if kind.encoding == "mixed":
        pytest.skip("takes files alone")
    fine = kind.images(1)[0]
    bad: list[Any] = [fine.astype(np.float32), fine[:, :, 0], fine[:, :, :2], fine[:0]]
    bad += [None, b"abc", fine.tolist()]
    if kind.shape is not None:
        bad.append(fine[1:])
    with kind.create(path) as store:
        before = snapshot(path)
        for image in bad:
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_one(image, 1)
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_many([fine, image], [1, 2])
        assert snapshot(path) == before


# -- files ----------------------------------------------------------------------------------------


def test_files_are_kept_as_they_are(encoded: Kind, path: Path) -> None:
    """Nothing is encoded again: `read_encoded` gives the very bytes, and reading their pixels."""
    files = encoded.files(COUNT)
    with encoded.create(path, durable=False) as store:
        assert store.write_encoded(files[0], 7) == range(1)
        assert store.write_encoded(bytearray(files[1]), np.int64(8)) == range(1, 2)
        assert store.write_encoded(memoryview(files[2]), 9) == range(2, 3)
        assert store.write_encoded(files[3:], range(20)) == range(3, COUNT)
        assert store.write_encoded(iter(files), iter(range(COUNT))) == range(COUNT, 2 * COUNT)
    with storage_impl.open_store(path, verify=True) as store:
        for index, data in enumerate(files + files):
            assert store.read_encoded(index)[0] == data
            assert type(store.read_encoded(index)[0]) is bytes
        assert [store.read_encoded(i)[1] for i in (0, 1, 2, 3)] == [7, 8, 9, 0]
        shapes = [codecs.header_of(data, "mixed").shape for data in files]
        pixels = [
            codecs.decode(data, "mixed", shape) for data, shape in zip(files, shapes, strict=True)
        ]
        same(store.read_many()[0], pixels + pixels)
        store.verify()
        for bad in (-1, 2 * COUNT, 1.5, None):
            with pytest.raises(storage_impl.InvalidIndexError):
                store.read_encoded(bad)  # type: ignore[arg-type]


def test_every_kind_of_file(path: Path) -> None:
    """What is accepted is stored and read; what is refused says why, and nothing is written."""
    accepted, refused = image_files.accepted(), image_files.refused()
    files = [data for data, _ in accepted.values()]
    for backend in ("lmdb", "hdf5"):
        where = path.with_name(backend)
        with storage_impl.create_store(where, backend, image_shape=None, encoding="mixed") as store:
            store.write_encoded(files, range(len(files)))
            before = snapshot(where)
            for data, message in refused.values():
                for given in ([files[0], data], [data]):
                    with pytest.raises(storage_impl.InvalidInputError, match=message):
                        store.write_encoded(given, range(len(given)))
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_encoded([files[0], "text"], [1, 2])  # type: ignore[list-item]
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_encoded("text", [1, 2])  # type: ignore[arg-type]
            assert snapshot(where) == before
        with storage_impl.open_store(where, verify=True) as store:
            same(store.read_many()[0], [pixels for _, pixels in accepted.values()])
            assert [store.read_encoded(i)[0] for i in range(len(files))] == files


def test_another_format_or_shape(encoded: Kind, path: Path) -> None:
    """A file of another format, or another shape than the store's, is refused by its header."""
    image = photo(*(encoded.shape or (16, 24, 3)))
    with encoded.create(path) as store:
        before = snapshot(path)
        for name, kind in FORMATS.items():
            if encoded.encoding not in (name, "mixed"):
                with pytest.raises(
                    storage_impl.InvalidInputError, match=f"is a {name} file.*mixed"
                ):
                    store.write_encoded(file_of(image, kind), 1)
            elif encoded.shape is not None:
                with pytest.raises(
                    storage_impl.InvalidInputError, match=r"\(24, 16, 3\).*\(16, 24, 3\)"
                ):
                    store.write_encoded(file_of(image.swapaxes(0, 1).copy(), kind), 1)
        assert snapshot(path) == before


def test_nothing_of_what_is_refused_is_written(encoded: Kind, path: Path) -> None:
    """Bombs, broken headers and other formats are refused by every store that takes files."""
    fine = encoded.files(1)[0]
    with encoded.create(path) as store:
        before = snapshot(path)
        for data, _ in image_files.refused().values():
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_encoded(data, 1)
            with pytest.raises(storage_impl.InvalidInputError):
                store.write_encoded([fine, data], [1, 2])
        assert snapshot(path) == before


def test_raw_takes_no_files(path: Path) -> None:
    """A store of raw pixels says so."""
    with storage_impl.create_store(path, "lmdb", image_shape=None) as store:
        store.write_one(photo(3, 3), 1)
        with pytest.raises(storage_impl.InvalidInputError, match="raw pixels.*encoding='png'"):
            store.write_encoded(file_of(photo(3, 3), "PNG"), 1)
        with pytest.raises(storage_impl.InvalidInputError, match="raw pixels; read_one"):
            store.read_encoded(0)


@pytest.mark.parametrize("name", sorted(image_files.damaged()))
def test_files_that_were_broken_before(name: str, path: Path) -> None:
    """They are kept as they came, found sound by `verify`, and damaged when decoded."""
    data, fine = image_files.damaged()[name], file_of(photo(19, 23), "PNG")
    with storage_impl.create_store(path, "lmdb", image_shape=None, encoding="mixed") as store:
        store.write_encoded([fine, data, fine], [1, 2, 3])
    with storage_impl.open_store(path, verify=True) as store:
        store.verify()
        assert store.read_encoded(1) == (data, 2)
        for read in (lambda: store.read_one(1), store.read_many, lambda: list(store.batches(2))):
            with pytest.raises(storage_impl.DamagedImageError, match="cannot be decoded") as caught:
                read()
            assert caught.value.indices == (1,)
        np.testing.assert_array_equal(store.read_many([2, 0])[0][0], photo(19, 23))


# -- damage ---------------------------------------------------------------------------------------


def places(path: Path, what: bytes) -> Iterator[tuple[Path, int]]:
    """Where bytes lie in the files of a store."""
    for file in sorted(path.rglob("*")):
        if file.is_file():
            data = file.read_bytes()
            position = data.find(what)
            while position >= 0:
                yield file, position
                position = data.find(what, position + 1)


def test_every_flipped_bit_of_a_file(encoded: Kind, path: Path) -> None:
    """`verify` finds each, and verified reading returns no other image."""
    data = encoded.files(1)[0]
    with encoded.create(path, durable=False) as store:
        store.write_encoded([data, *encoded.files(2, 1)], [1, 2, 3])
    ((file, position),) = places(path, data)
    whole = file.read_bytes()
    for bit in range(0, 8 * len(data), max(8 * len(data) // 60, 1) | 1):
        changed = bytearray(whole)
        changed[position + bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        with storage_impl.open_store(path) as store:
            with pytest.raises(storage_impl.DamagedImageError) as caught:
                store.verify()
            assert caught.value.indices == (0,)
            with contextlib.suppress(storage_impl.DamagedImageError):
                assert store.read_one(0)[0].dtype == np.uint8
        with storage_impl.open_store(path, verify=True) as store:
            for read in (store.read_one, store.read_encoded, lambda i: store.read_many([i, 1])):
                with pytest.raises(storage_impl.DamagedImageError) as caught:
                    read(0)
                assert caught.value.indices == (0,)


def test_labels_and_shapes_are_checked(kind: Kind, path: Path) -> None:
    """A changed label or a changed shape is found, where each of them lies on the disk."""
    label = 0x1234_5678_1357_9BDF
    with kind.create(path, durable=False) as store:
        given = kind.images(3)
        if kind.encoding == "mixed":
            store.write_encoded(kind.files(3), [1, label, 3])
        else:
            store.write_many(given, [1, label, 3])
    found = list(places(path, label.to_bytes(8, "little")))
    assert found
    height, width, channels = kind.expected(3)[1].shape
    if kind.backend == "lmdb":
        header = bytes([codecs.ENCODINGS.index(kind.encoding), channels, 0, 0])
        where = header + height.to_bytes(4, "little") + width.to_bytes(4, "little")
        found += [(file, position + 1) for file, position in places(path, where)]
    if kind.backend == "hdf5":
        row = np.array([height, width, channels], "<u4").tobytes()
        found += [(file, position) for file, position in places(path, row)]
        found += [(file, position + 8) for file, position in places(path, row)]
    assert len(found) > (kind.backend != "png")
    for file, position in found:
        whole = file.read_bytes()
        changed = bytearray(whole)
        changed[position] ^= 1
        file.write_bytes(changed)
        with storage_impl.open_store(path) as store:
            with pytest.raises(storage_impl.DamagedStoreError):
                store.verify()
        file.write_bytes(whole)
    with storage_impl.open_store(path) as store:
        store.verify()


# -- in use ---------------------------------------------------------------------------------------


def test_append_and_reopen(kind: Kind, stored: Path) -> None:
    """A store grows; a copy of it, and one that comes back from a pickle, hold the same."""
    import pickle

    with storage_impl.open_store(stored, "a") as store:
        kind.write(store, 5, COUNT)
        again = pickle.loads(pickle.dumps(store))
        with again:
            same(again.read_many()[0], kind.expected(COUNT + 5))
    shutil.copytree(stored, stored.with_name("copy"))
    check(stored.with_name("copy"), kind, COUNT + 5)


def test_threads(kind: Kind, stored: Path) -> None:
    """Threads read one store, while decoding has threads of its own."""
    expected = kind.expected(COUNT)
    failures: list[BaseException] = []

    def read(number: int) -> None:
        try:
            for _ in range(3):
                same(store.read_many()[0], expected)
                same([store.read_one(number)[0]], [expected[number]])
        except BaseException as error:
            failures.append(error)

    with storage_impl.open_store(stored) as store:
        threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_memory_of_batches(path: Path) -> None:
    """Batches of encoded images take the memory of one batch, however many there are."""
    with storage_impl.create_store(
        path, "lmdb", image_shape=None, encoding="png", durable=False
    ) as store:
        image = np.zeros((200, 200, 3), np.uint8)
        store.write_many((image for _ in range(300)), range(300))
        list(islice(store.batches(10), 1))
        tracemalloc.start()
        try:
            count = sum(len(labels) for _, labels in store.batches(10))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert count == 300
    assert peak < 60 * image.nbytes
