"""Datasets of many stores: read like one store, and right or absent whatever happens to a run."""

import errno
import json
import multiprocessing
import os
import pickle
import re
import select
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import storage_impl
from storage_impl import ImageStore, _shard_index, shards
from storage_impl._files import Directory
from tests.contract import BAD_INDICES, BAD_SELECTIONS, SELECTIONS, forks, needs_fork
from tests.parts import SIZES, Part, parts_of, write_in_processes
from tests.processes import LIMIT, OtherProcess
from tests.samples import SHAPE, images_of, labels_of

BACKENDS = list(storage_impl.BACKENDS)
COUNT = sum(SIZES)


def write(path: Path, backend: str = "hdf5", **options: Any) -> None:
    """Write the sample dataset in threads, which start at once."""
    options = {"parts": parts_of(), "image_shape": SHAPE} | options
    with ThreadPoolExecutor(2) as executor:
        shards.write_shards(path, backend=backend, **{"executor": executor} | options)


def check(path: Path, count: int = COUNT) -> None:
    """The dataset is there, whole, and nothing is beside it."""
    with storage_impl.open_store(path, verify=True) as store:
        assert isinstance(store, shards.ShardedStore)
        assert len(store) == count
        images, labels = store.read_many()
        assert np.array_equal(images, images_of(count))
        assert np.array_equal(labels, labels_of(count))
        compared: list[int] = []
        store.verify(progress=compared.append)
        assert sum(compared) == count
        assert sorted(os.listdir(path)) == sorted([store.fingerprint, "shards.json", "write.lock"])
        assert sorted((path / store.fingerprint).iterdir()) == store.shards
    assert [each for each in path.parent.iterdir() if each.name.startswith(".")] == []


def check_absent(path: Path) -> None:
    """There is no dataset, and what there may be is refused."""
    with pytest.raises((storage_impl.StoreNotFoundError, storage_impl.NotAStoreError)):
        storage_impl.open_store(path)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset of each backend, to be read."""
    directory = tmp_path_factory.mktemp("datasets")
    for backend in BACKENDS:
        write(directory / backend, backend)
    return {backend: directory / backend for backend in BACKENDS}


@pytest.fixture(params=BACKENDS)
def dataset(request: pytest.FixtureRequest, paths: dict[str, Path]) -> Iterator[ImageStore]:
    """A dataset that is open for reading."""
    with storage_impl.open_store(paths[request.param]) as store:
        yield store


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_of_differing_sizes(tmp_path: Path, backend: str) -> None:
    """A dataset whose shapes differ reads like one store whose shapes differ."""
    sizes = [(2 + index % 3, 3 + index % 2, 3) for index in range(11)]
    images = [images_of(1, size, index)[0] for index, size in enumerate(sizes)]
    labels = labels_of(len(images))
    items = list(zip(images, labels.tolist(), strict=True))
    path = tmp_path / "dataset"
    parts = [items[:4], items[4:5], items[5:]]
    write(path, backend, parts=parts, image_shape=None, encoding="png")
    with storage_impl.open_store(path, verify=True) as store:
        assert store.image_shape is None
        for selection in (None, [10, 0, 4, 4], slice(3, 7)):
            wanted = np.arange(11)[slice(None) if selection is None else selection]
            found, found_labels = store.read_many(selection)
            assert np.array_equal(found_labels, labels[wanted])
            assert all(map(np.array_equal, found, [images[index] for index in wanted]))
            assert len(found) == len(wanted)
        with pytest.raises(storage_impl.InvalidInputError, match="out="):
            store.read_many(out=np.empty((11, 2, 3, 3), np.uint8))
        data, label = store.read_encoded(5)
        assert data.startswith(b"\x89PNG")
        assert label == labels[5]
        assert sum(len(batch) for batch, _ in store.batches(4, shuffle=3)) == 11
        store.verify()


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
def test_selections(dataset: ImageStore, selection: Any) -> None:
    """What selects images of a store selects those of a dataset."""
    every = np.arange(COUNT)
    if selection is None or isinstance(selection, slice):
        wanted = every[selection or slice(None)]
    else:
        wanted = every[np.asarray(selection).astype(np.int64)]
    images, labels = dataset.read_many(selection)
    assert np.array_equal(images, images_of(COUNT)[wanted])
    assert np.array_equal(labels, labels_of(COUNT)[wanted])
    assert np.array_equal(dataset.read_labels(selection), labels)
    out = np.empty((len(wanted), *SHAPE), np.uint8)
    assert dataset.read_many(selection, out=out)[0] is out
    assert np.array_equal(out, images)


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("png", {}),
        ("lmdb", {}),
        ("lmdb", {"encoding": "png"}),
        ("hdf5", {}),
        ("hdf5", {"chunk_images": 3}),
        ("hdf5", {"encoding": "webp"}),
    ],
)
def test_at_random(tmp_path: Path, backend: str, options: dict[str, Any], verify: bool) -> None:
    """Images of several shards, some next to each other, go to their places in one array."""
    write(tmp_path / "train", backend, **options)
    generator = np.random.default_rng(5)
    with storage_impl.open_store(tmp_path / "train", verify=verify) as store:
        for _ in range(50):
            wanted = generator.integers(0, COUNT, 30)
            wanted[4:9] = np.arange(3, 8)  # of two shards
            images, labels = store.read_many(wanted)
            assert np.array_equal(images, images_of(COUNT)[wanted])
            assert np.array_equal(labels, labels_of(COUNT)[wanted])


@pytest.mark.parametrize(("selection", "message"), BAD_SELECTIONS.values(), ids=BAD_SELECTIONS)
def test_bad_selections(dataset: ImageStore, selection: Any, message: str) -> None:
    """And what selects none of a store is refused alike."""
    with pytest.raises(storage_impl.InvalidIndexError, match=message):
        dataset.read_many(selection)
    with pytest.raises(storage_impl.InvalidIndexError, match=message):
        dataset.read_labels(selection)


@pytest.mark.parametrize(("index", "message"), BAD_INDICES.values(), ids=BAD_INDICES)
def test_bad_indices(dataset: ImageStore, index: Any, message: str) -> None:
    """An index that a store does not have."""
    with pytest.raises(storage_impl.InvalidIndexError, match=message):
        dataset.read_one(index)


def test_each_image(dataset: ImageStore) -> None:
    """One at a time, by any integer, and as a sequence."""
    for index in range(COUNT):
        image, label = dataset.read_one(np.int64(index))
        assert np.array_equal(image, images_of(1, first=index)[0])
        assert label == labels_of(1, index)[0]
    for last in (-1, np.int64(-1)):
        assert np.array_equal(dataset[last][0], images_of(1, first=COUNT - 1)[0])
    assert np.array_equal(dataset[4:9][1], labels_of(5, 4))
    assert dataset[[-1, 0]][1].tolist() == labels_of(COUNT)[[-1, 0]].tolist()
    with pytest.raises(IndexError):
        dataset[COUNT]


def test_attributes(dataset: ImageStore, paths: dict[str, Path]) -> None:
    """A dataset says what it is."""
    assert isinstance(dataset, ImageStore)
    assert len(dataset) == COUNT
    assert dataset.path == paths[dataset.backend]
    assert dataset.image_shape == SHAPE
    assert dataset.encoding == ("png" if dataset.backend == "png" else "raw")
    assert (dataset.mode, dataset.durable, dataset.closed) == ("r", True, False)
    assert f"5 {dataset.backend} shards" in repr(dataset)
    assert "23 images" in repr(dataset)


def test_disk_usage(dataset: ImageStore) -> None:
    """All files count."""
    usage = dataset.disk_usage()
    files = [each for each in dataset.path.rglob("*") if each.is_file()]
    assert usage.apparent == sum(each.stat().st_size for each in files)
    assert usage.allocated >= usage.apparent


@pytest.mark.parametrize("size", [1, 4, 23, 100])
def test_batches(dataset: ImageStore, size: int) -> None:
    """Everything once, in order or shuffled."""
    in_order = list(dataset.batches(size))
    assert np.array_equal(np.concatenate([images for images, _ in in_order]), images_of(COUNT))
    assert [len(labels) for _, labels in in_order[:-1]] == [size] * (len(in_order) - 1)
    shuffled = list(dataset.batches(size, shuffle=7))
    labels = np.concatenate([labels for _, labels in shuffled])
    assert sorted(labels) == sorted(labels_of(COUNT))
    assert labels.tolist() != labels_of(COUNT).tolist()
    again = np.concatenate([labels for _, labels in dataset.batches(size, shuffle=7)])
    assert np.array_equal(labels, again)
    with pytest.raises(storage_impl.InvalidInputError):
        dataset.batches(0)
    with pytest.raises(storage_impl.InvalidInputError):
        dataset.batches(1, shuffle=-1)


def test_nothing_is_appended(dataset: ImageStore) -> None:
    """A dataset is written once."""
    for call in (
        lambda: dataset.write_one(images_of(1)[0], 1),
        lambda: dataset.write_many(images_of(2), [1, 2]),
        lambda: dataset.write_encoded(b"", 1),
        lambda: storage_impl.open_store(dataset.path, "a"),
    ):
        with pytest.raises(storage_impl.ReadOnlyStoreError, match="write_shards"):
            call()
    check(dataset.path)


def test_closed(paths: dict[str, Path]) -> None:
    """After closing, everything is refused, and closing again is not."""
    store = storage_impl.open_store(paths["hdf5"])
    store.read_one(0)
    store.close()
    store.close()
    assert store.closed
    assert "closed" in repr(store)
    calls: list[Callable[[], object]] = [
        lambda: len(store),
        lambda: store.read_one(0),
        lambda: store.read_many([]),
        lambda: store.read_labels(),
        lambda: store.batches(2),
        lambda: store[0],
        lambda: store.write_one(images_of(1)[0], 1),
        store.verify,
        store.disk_usage,
        store.__enter__,
    ]
    for call in calls:
        with pytest.raises(storage_impl.ClosedStoreError):
            call()


def test_pickled(dataset: ImageStore, other_process: OtherProcess) -> None:
    """A dataset goes to another process, which reads it."""
    dataset.read_one(3)
    images, labels = other_process.call(read_all, dataset)
    assert np.array_equal(images, images_of(COUNT))
    assert np.array_equal(labels, labels_of(COUNT))


def read_all(store: ImageStore) -> Any:
    """`read_many`, in another process."""
    return store.read_many()


def test_pickled_and_replaced(tmp_path: Path) -> None:
    """Another dataset in its place is not taken for it."""
    write(tmp_path / "train")
    with storage_impl.open_store(tmp_path / "train") as store:
        pickled = pickle.dumps(store)
    shutil.rmtree(tmp_path / "train")
    write(tmp_path / "train")
    with pytest.raises(storage_impl.DamagedStoreError, match="not the dataset that was pickled"):
        pickle.loads(pickled)


@needs_fork
@forks
def test_forked(dataset: ImageStore) -> None:
    """A child reads what its parent has open."""
    dataset.read_many()
    with OtherProcess("fork", dataset) as child:
        images, _ = child.call(read_all)
    assert np.array_equal(images, images_of(COUNT))
    assert np.array_equal(dataset.read_many()[0], images_of(COUNT))


def test_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Threads read while others push the shards that they read out of what may be open."""
    monkeypatch.setattr("storage_impl._sharded.OPEN_SHARDS", 2)
    write(tmp_path / "train", parts=parts_of((3,) * 20))
    with storage_impl.open_store(tmp_path / "train") as store, ThreadPoolExecutor(4) as threads:
        orders = [np.random.default_rng(seed).permutation(60) for seed in range(10)]
        for order, (images, _) in zip(orders, threads.map(store.read_many, orders), strict=True):
            assert np.array_equal(images, images_of(60)[order])


@pytest.mark.parametrize("backend", BACKENDS)
def test_open_shards_are_bounded(tmp_path: Path, backend: str) -> None:
    """However many shards are read, few are open, and after closing none is."""
    shown = Path("/proc/self/fd")
    if not shown.exists():
        pytest.skip("this system does not tell which files are open")
    write(tmp_path / "train", backend, parts=parts_of((1,) * 70))

    def open_now() -> set[str]:
        """The shards with an open file."""
        targets = [os.path.realpath(each) for each in shown.iterdir()]
        run = str(tmp_path / "train" / store.fingerprint) + "/"
        return {each[len(run) :].split("/")[0] for each in targets if each.startswith(run)}

    with storage_impl.open_store(tmp_path / "train") as store:
        assert isinstance(store, shards.ShardedStore)
        assert open_now() == set()
        for _ in range(2):
            for index in range(70):
                store.read_one(index)
            assert len(open_now()) == shards.OPEN_SHARDS
        assert len(store.read_many()[0]) == 70
        assert len(open_now()) == shards.OPEN_SHARDS
    assert open_now() == set()


def test_shuffled_among_the_open_shards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of more shards than may be open, some are shuffled together, then the next."""
    monkeypatch.setattr("storage_impl._sharded.OPEN_SHARDS", 3)
    write(tmp_path / "train", parts=parts_of((5,) * 10))
    with storage_impl.open_store(tmp_path / "train") as store:
        batches = [labels for _, labels in store.batches(4, shuffle=1)]
    assert [len(each) for each in batches] == [4] * 12 + [2]
    order = (np.concatenate(batches) + 5_000_000) // 1_000_003
    assert sorted(order) == list(range(50))
    touched = [set((order[i : i + 15] // 5).tolist()) for i in range(0, 50, 15)]
    assert [len(each) for each in touched] == [3, 3, 3, 1]
    assert touched != [{0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {9}]


def test_empty(tmp_path: Path) -> None:
    """No parts, or parts of nothing, are a dataset of no images."""
    for name, parts in {"no parts": [], "empty parts": parts_of((0, 0))}.items():
        write(tmp_path / name, parts=parts)
        check(tmp_path / name, 0)
        with storage_impl.open_store(tmp_path / name) as store:
            assert list(store.batches(3, shuffle=1)) == []


# -- writing -------------------------------------------------------------------------------------


def test_processes(tmp_path: Path) -> None:
    """Without an executor, processes of this machine write the shards."""
    write(tmp_path / "train", executor=None)
    check(tmp_path / "train")


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_start_methods(tmp_path: Path, method: str) -> None:
    """A pool of one's own, however it starts its processes."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        write(tmp_path / "train", executor=executor)
    check(tmp_path / "train")


def test_index(tmp_path: Path) -> None:
    """The index names what there is, for any tool that reads JSON."""
    write(tmp_path / "train", "png", compress_level=1)
    index = json.loads((tmp_path / "train" / "shards.json").read_text())
    assert index["format"] == "storage_impl.shards"
    assert index["format_version"] == 1
    assert (index["backend"], index["encoding"]) == ("png", "png")
    assert index["image_shape"] == list(SHAPE)
    assert index["counts"] == list(SIZES)
    for number, size in enumerate(index["bytes"]):
        shard = tmp_path / "train" / index["fingerprint"] / f"{number:05d}"
        files = [each for each in shard.rglob("*") if each.is_file() and "lock" not in each.name]
        assert size == sum(each.stat().st_size for each in files)
    assert len({*index["checksums"]}) == len(SIZES)


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "backend": ({"backend": "zarr"}, storage_impl.UnknownBackendError),
    "shape": ({"image_shape": (5, 7)}, storage_impl.InvalidInputError),
    "encoding": ({"encoding": "gif"}, storage_impl.InvalidInputError),
    "option": ({"chunks": 7}, storage_impl.InvalidInputError),
}


@pytest.mark.parametrize(("options", "error"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments(tmp_path: Path, options: dict[str, Any], error: type[Exception]) -> None:
    """What `create_store` refuses is refused before a part is read, and leaves nothing."""
    parts = parts_of(fail=0)  # which raises a KeyError
    with pytest.raises(error):
        write(tmp_path / "train", **{"parts": parts} | options)
    assert os.listdir(tmp_path) == []


def test_no_parent(tmp_path: Path) -> None:
    """The directory to write in has to be there."""
    with pytest.raises(storage_impl.StoreNotFoundError, match="create it first"):
        write(tmp_path / "missing" / "train")


def test_what_is_there_stays(tmp_path: Path) -> None:
    """Nothing that a run did not leave is touched: a dataset, a store, a folder or a file."""
    write(tmp_path / "dataset")
    storage_impl.create_store(tmp_path / "store", "png", image_shape=SHAPE).close()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    before = sorted(tmp_path.rglob("*"))
    for name in ("dataset", "store", "folder", "file"):
        with pytest.raises(storage_impl.StoreExistsError, match="exists"):
            write(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
    check(tmp_path / "dataset")


def test_a_part_fails(tmp_path: Path) -> None:
    """What a part raises passes through, and nothing is left."""
    with pytest.raises(KeyError, match="15"):
        write(tmp_path / "train", parts=parts_of(fail=15))
    assert os.listdir(tmp_path) == []
    write(tmp_path / "train")
    check(tmp_path / "train")


def test_a_part_gives_wrong_images(tmp_path: Path) -> None:
    """What a store refuses is refused."""
    with pytest.raises(storage_impl.InvalidInputError, match=r"got \(5, 8, 3\)"):
        write(tmp_path / "train", parts=[[(images_of(1, (5, 8, 3))[0], 1)]])
    assert os.listdir(tmp_path) == []


def test_a_failure_ends_the_run(tmp_path: Path) -> None:
    """No part is begun after one has failed."""
    begun = []

    class Counted(Part):
        def __iter__(self) -> Iterator[shards.Item]:
            begun.append(self.first)
            return super().__iter__()

    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyError):
        write(
            tmp_path / "train",
            parts=[Counted(10 * number, 10, fail=12) for number in range(50)],
            executor=executor,
        )
    assert len(begun) < 50


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system names its cause, and nothing is left."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(storage_impl.StoreFullError, match="No space left"):
            write(tmp_path / "train")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_converted(tmp_path: Path, paths: dict[str, Path], backend: str) -> None:
    """A dataset is cut anew into shards of another backend."""
    source = paths["hdf5" if backend != "hdf5" else "lmdb"]
    parts = shards.split(source, 3)
    assert [len(part) for part in parts] == [7, 8, 8]
    write(tmp_path / "train", backend, parts=parts)
    check(tmp_path / "train")


# -- killed, and at the same time ----------------------------------------------------------------


class Paused:
    """Parts of which one waits at its third image, in a run of another process."""

    def __init__(self, directory: Path) -> None:
        names = {"reached": str(directory / "reached"), "go_on": str(directory / "go on")}
        for name in names.values():
            os.mkfifo(name)
        # Open at both ends, so that neither side waits for the other to open its end.
        self._reached, self._go_on = (os.open(name, os.O_RDWR) for name in names.values())
        self.parts = parts_of(pause=14, **names)

    def wait(self) -> int:
        """Until the image is reached; returns the process that did."""
        assert select.select([self._reached], [], [], LIMIT)[0], "the image was not reached"
        return int(os.read(self._reached, 20))

    def resume(self) -> None:
        """Let the part go on."""
        os.write(self._go_on, b".")

    def close(self) -> None:
        """Close the FIFOs."""
        os.close(self._reached)
        os.close(self._go_on)


@pytest.fixture
def paused(tmp_path: Path) -> Iterator[Paused]:
    """A run that the test holds in the middle of a shard."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no FIFOs")
    (tmp_path / "control").mkdir()
    held = Paused(tmp_path / "control")
    yield held
    held.close()


@contextmanager
def run_of(
    path: Path, parts: list[Part], fingerprint: str | None = None
) -> Iterator[multiprocessing.process.BaseProcess]:
    """A process that writes a dataset; it is killed at the end, where it has not ended."""
    fork: Any = multiprocessing.get_context("fork")
    process = fork.Process(target=write_in_processes, args=(path, parts, fingerprint))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def die_at(first: int) -> Part:
    """A part whose worker is killed by the system at its third image."""
    return Part(first, 5, die=first + 2)


@needs_fork
@forks
def test_worker_killed(tmp_path: Path) -> None:
    """The pool breaks, nothing is left, and running again finishes."""
    with pytest.raises(BrokenProcessPool):
        write(tmp_path / "train", parts=[Part(0, 5), die_at(5), Part(10, 13)], executor=None)
    assert os.listdir(tmp_path) == []
    write(tmp_path / "train", executor=None)
    check(tmp_path / "train")


@needs_fork
@forks
@pytest.mark.parametrize("fingerprint", [None, "photos of May"])
def test_coordinator_killed(tmp_path: Path, paused: Paused, fingerprint: str | None) -> None:
    """No dataset is there; the next run removes what is left, and takes none of its images."""
    path = tmp_path / "data" / "train"
    path.parent.mkdir()
    with_other_labels = [Part(100, 8), *paused.parts[1:]]
    with run_of(path, with_other_labels, fingerprint):
        paused.wait()
    check_absent(path)
    assert len(os.listdir(path)) == 2
    write(path, fingerprint=fingerprint)
    check(path)


@forks
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system has no pidfd_open")
def test_workers_end_with_the_coordinator(tmp_path: Path, paused: Paused) -> None:
    """No worker of a killed run goes on."""
    with run_of(tmp_path / "train", paused.parts):
        worker = os.pidfd_open(paused.wait())
    assert select.select([worker], [], [], LIMIT)[0], "the worker goes on"
    os.close(worker)


def test_taken_up(tmp_path: Path) -> None:
    """With the same fingerprint and parts, complete shards stay as they are."""
    path = tmp_path / "train"
    unready = tmp_path / "unready"
    unready.touch()
    parts = parts_of(unready=str(unready))
    with ThreadPoolExecutor(1) as executor, pytest.raises(FileExistsError):
        write(path, parts=parts, executor=executor, fingerprint="May")
    check_absent(path)
    (run,) = (each for each in path.iterdir() if each.is_dir())
    kept = {each.name: each.stat().st_ino for each in run.iterdir()}
    assert sorted(kept) == ["00000", "00001", "00002", "00003"]
    unready.unlink()
    write(path, parts=parts, fingerprint="May")
    check(path)
    assert {name: (run / name).stat().st_ino for name in kept} == kept


def test_not_taken_up(tmp_path: Path) -> None:
    """Of another fingerprint, other parts or another format, nothing is kept."""
    path = tmp_path / "train"
    unready = tmp_path / "unready"
    others: dict[str, dict[str, Any]] = {
        "fingerprint": {"fingerprint": "June"},
        "parts": {"parts": parts_of((8, 15))},
        "format": {"backend": "lmdb"},
        "none": {"fingerprint": None},
    }
    for changes in others.values():
        unready.touch()
        parts = parts_of(unready=str(unready))
        with ThreadPoolExecutor(1) as executor, pytest.raises(FileExistsError):
            write(path, parts=parts, executor=executor, fingerprint="May")
        runs = {each.name for each in path.iterdir()} - {"write.lock"}
        unready.unlink()
        write(path, **{"fingerprint": "May"} | changes)
        check(path)
        assert not runs & set(os.listdir(path))
        shutil.rmtree(path)


@needs_fork
@forks
def test_two_at_once(tmp_path: Path, paused: Paused) -> None:
    """The second run is refused at once, and the first finishes."""
    path = tmp_path / "data" / "train"
    path.parent.mkdir()
    with run_of(path, paused.parts) as process:
        paused.wait()
        with pytest.raises(storage_impl.StoreLockedError):
            write(path)
        check_absent(path)
        paused.resume()
        process.join(LIMIT)
        assert process.exitcode == 0
    check(path)


def test_many_at_once(tmp_path: Path) -> None:
    """Of runs that begin at the same moment one succeeds, and the others are told why not."""

    def attempt(_: int) -> str:
        try:
            write(tmp_path / "train")
        except (storage_impl.StoreLockedError, storage_impl.StoreExistsError) as error:
            return type(error).__name__
        return "written"

    with ThreadPoolExecutor(8) as executor:
        outcomes = list(executor.map(attempt, range(8)))
    assert outcomes.count("written") == 1
    check(tmp_path / "train")


# -- damaged -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_images(tmp_path: Path, backend: str) -> None:
    """Damage in two shards is reported by the dataset's own indices."""
    write(tmp_path / "train", backend)
    with storage_impl.open_store(tmp_path / "train") as store:
        paths = [store.shards[0], store.shards[4]]
    for path in paths:  # one byte of the second image, wherever it is
        pixels = images_of(COUNT)[[1, 14]]
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            data = bytearray(file.read_bytes())
            for image in pixels:
                at = data.find(image.tobytes())
                if at >= 0:
                    data[at + 5] ^= 1
                    file.write_bytes(data)
            if backend == "png" and file.name.endswith("1.png"):
                data[-20] ^= 1
                file.write_bytes(data)
    with storage_impl.open_store(tmp_path / "train", verify=True) as store:
        for call in (store.verify, store.read_many, lambda: store.read_many([3, 14, 1])):
            with pytest.raises(storage_impl.DamagedImageError) as caught:
                call()
            assert set(caught.value.indices) <= {1, 14}
        with pytest.raises(storage_impl.DamagedImageError) as caught:
            store.verify()
        assert caught.value.indices == (1, 14)
        with pytest.raises(storage_impl.DamagedImageError) as caught:
            store.read_one(14)
        assert caught.value.indices == (14,)


def test_shards_swapped(tmp_path: Path) -> None:
    """A shard that is whole, and not the one that was written, is found by `verify`."""
    write(tmp_path / "train", parts=parts_of((5, 5)))
    with storage_impl.open_store(tmp_path / "train") as store:
        first, second = store.shards
        first.rename(first.with_name("swap"))
        second.rename(first)
        first.with_name("swap").rename(second)
        with pytest.raises(storage_impl.DamagedStoreError, match="00000 is not the shard"):
            store.verify()


def test_shard_missing(tmp_path: Path) -> None:
    """A shard that is gone costs its own images alone."""
    write(tmp_path / "train")
    with storage_impl.open_store(tmp_path / "train") as store:
        shutil.rmtree(store.shards[2])
        assert store.read_one(3)[1] == labels_of(1, 3)[0]
        for call in (lambda: store.read_one(6), store.read_many, store.verify):
            with pytest.raises(storage_impl.DamagedStoreError, match="shard 00002 is missing"):
                call()


def other_count(store: shards.ShardedStore) -> None:
    with storage_impl.open_store(store.shards[0], "a") as shard:
        shard.write_one(images_of(1)[0], 1)


def link(store: shards.ShardedStore) -> None:
    store.shards[0].rename(store.path.parent / "elsewhere")
    store.shards[0].symlink_to(store.path.parent / "elsewhere")


def link_to_itself(store: shards.ShardedStore) -> None:
    shutil.rmtree(store.shards[0])
    store.shards[0].symlink_to(store.path)


def nested(store: shards.ShardedStore) -> None:
    shutil.rmtree(store.shards[0])
    write(store.shards[0], parts=parts_of((5,)))


@pytest.mark.parametrize("change", [other_count, link, link_to_itself, nested])
def test_shard_replaced(tmp_path: Path, change: Callable[[Any], None]) -> None:
    """What is not a store with as many images, in its place, is not read."""
    write(tmp_path / "train")
    with storage_impl.open_store(tmp_path / "train") as store:
        change(store)
        with pytest.raises(storage_impl.DamagedStoreError):
            store.read_one(0)
        with pytest.raises(storage_impl.DamagedStoreError):
            store.verify()


def replaced(**values: Any) -> Callable[[bytes], bytes]:
    """A change of the index that has a checksum, as a stranger may make it."""

    def change(data: bytes) -> bytes:
        import xxhash

        content = json.loads(data)
        del content["checksum"]
        text = json.dumps({**content, **values})[:-1]
        return f'{text}, "checksum": "{xxhash.xxh3_64_hexdigest(text.encode())}"}}\n'.encode()

    return change


BAD_INDEX: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[:-5],
    "a digit changed": lambda data: data.replace(b"[5, 0, 7", b"[6, 0, 7"),
    "no JSON": lambda data: b"\x00" * len(data),
    "a list": lambda data: b"[]",
    "another format": replaced(format="zarr"),
    "no version": replaced(format_version=None),
    "a path as fingerprint": replaced(fingerprint="../../../../etc"),
    "no fingerprint": replaced(fingerprint=7),
    "negative counts": replaced(counts=[-5, 0, 7, 1, 10]),
    "fractions": replaced(counts=[5.5, 0, 7, 1, 10]),
    "booleans": replaced(counts=[True, 0, 7, 1, 10]),
    "huge counts": replaced(counts=[2**80, 0, 7, 1, 10]),
    "counts of text": replaced(counts="57190"),
    "fewer counts": replaced(counts=[5]),
    "a shape of two": replaced(image_shape=[5, 7]),
    "unknown member": replaced(more=1),
    "nested deeply": lambda data: b"[" * 100_000,
}


@pytest.mark.parametrize("change", BAD_INDEX.values(), ids=BAD_INDEX)
def test_bad_index(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    """An index that is damaged, or a stranger's, makes no dataset."""
    write(tmp_path / "train", parts=parts_of())
    index = tmp_path / "train" / "shards.json"
    index.write_bytes(change(index.read_bytes()))
    with pytest.raises(storage_impl.NotAStoreError, match="shards.json"):
        storage_impl.open_store(tmp_path / "train")


def test_newer_index(tmp_path: Path) -> None:
    """An index of a newer version says so."""
    write(tmp_path / "train")
    index = tmp_path / "train" / "shards.json"
    index.write_bytes(replaced(format_version=2)(index.read_bytes()))
    with pytest.raises(storage_impl.UnsupportedVersionError, match="install a newer"):
        storage_impl.open_store(tmp_path / "train")


def test_index_of_more_than_there_is(tmp_path: Path) -> None:
    """A count that a shard does not have is found before memory is taken for it."""
    write(tmp_path / "train")
    index = tmp_path / "train" / "shards.json"
    index.write_bytes(replaced(counts=[10**11, 0, 7, 1, 10])(index.read_bytes()))
    with storage_impl.open_store(tmp_path / "train") as store:
        with pytest.raises(storage_impl.DamagedStoreError):
            next(store.batches(8, shuffle=1))
        with pytest.raises(storage_impl.DamagedStoreError):
            next(store.batches(8))


# -- docs/scale.md -------------------------------------------------------------------------------

SCALE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")


def test_simulation(capsys: pytest.CaptureFixture[str]) -> None:
    """The arithmetic on the page runs as it stands, and adds up."""
    (code,) = re.findall(r"```python simulation\n(.*?)```", SCALE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    shown = capsys.readouterr().out
    assert "17.1 TB in 4,275 shards" in shown
    assert names["per_shard"] * names["shards"] >= names["images"]
    least = names["images"] / names["workers"] / names["rate"]
    assert max(names["busy"]) >= least


def test_index_takes_what_the_page_says(tmp_path: Path) -> None:
    """The length of the index to the byte, and the memory of an open dataset to about a quarter."""
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", SCALE, re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        number, size, memory = (int(each.replace(",", "")) for each in row)
        path = tmp_path / str(number)
        path.mkdir()
        checksums = [f"{i:016x}" for i in range(number)]
        counts, lengths = [1_000] * number, [3_100_000] * number
        kind = "0" * 16, "hdf5", "raw", (32, 32, 3)
        index = _shard_index.Index(*kind, counts, lengths, checksums)
        _shard_index.write(Directory(path), index)
        assert (path / "shards.json").stat().st_size == size
        storage_impl.open_store(path).close()  # what is imported for it is not counted
        tracemalloc.start()
        store = storage_impl.open_store(path)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        store.close()
        assert held == pytest.approx(memory, rel=0.25)


def test_files_of_a_store_as_the_page_says(tmp_path: Path) -> None:
    """A store has a few files, and those that the page counts."""
    for backend, writes, expected in (("png", 1, 7 + 3), ("lmdb", 1, 5), ("hdf5", 7, 7 + 3)):
        with storage_impl.create_store(tmp_path / backend, backend, image_shape=SHAPE) as store:
            for images in np.split(images_of(7), writes):
                store.write_many(images, labels_of(len(images)))
        assert sum(each.is_file() for each in (tmp_path / backend).rglob("*")) == expected


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_copied_with_fsspec(
    tmp_path: Path, paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """A dataset that is copied from elsewhere is compared with its index."""
    fsspec = pytest.importorskip("fsspec", reason="comes with `tox run -e loaders`")
    monkeypatch.chdir(tmp_path)
    remote = "/train" if protocol == "memory" else str(tmp_path / "remote" / "train")
    elsewhere = fsspec.filesystem(protocol)
    elsewhere.put(str(paths["hdf5"]), remote, recursive=True)
    elsewhere.get(remote, "cache/train", recursive=True)
    with storage_impl.open_store("cache/train") as store:
        store.verify()
        assert len(store) == COUNT
        shutil.rmtree(store.shards[1])
        with pytest.raises(storage_impl.DamagedStoreError):
            store.verify()
