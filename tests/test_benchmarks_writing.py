"""The benchmarks of cold reads, durable writes, sizes, growth and options: that each does its work.

`tests/test_benchmarks.py` has the rules for all benchmarks, and runs these, too.
"""

import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import h5py
import numpy as np
import pytest

import storage_impl
from benchmarks import (
    common,
    datasets,
    floor,
    growth,
    image_size,
    page_cache,
    tuning_lmdb,
    tuning_png,
)
from tests import test_benchmarks
from tests.test_benchmarks import benchmark_of, run

pytestmark = pytest.mark.unmeasured

few_images = test_benchmarks.few_images  # the directory, with 1,000 images at most


@pytest.fixture
def all_images(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory, with as many images as the benchmarks ask for."""
    monkeypatch.setattr(datasets, "load", _synthetic)
    return few_images


@pytest.fixture
def ten_images(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory, with no more images than it takes to be wrong."""
    monkeypatch.setattr(datasets, "load", lambda count, size=32: _synthetic(min(count, 10), size))
    return few_images


_synthetic = cache(datasets.synthetic.make)


@pytest.fixture
def started(few_images: Path) -> Iterator[Callable[..., SimpleNamespace]]:
    """Set benchmarks up, and tear them down after the test."""
    teardowns = []

    def start(name: str, *parameters: Any) -> SimpleNamespace:
        benchmark = benchmark_of(name, parameters)
        skipped = benchmark.do_setup()
        teardowns.append(benchmark.do_teardown)
        instance = benchmark.func.__self__
        return SimpleNamespace(benchmark=benchmark, instance=instance, skipped=skipped)

    yield start
    for teardown in teardowns:
        teardown()


def left(directory: Path) -> set[str]:
    """Return what is in the directory beside the images that are made once for all."""
    made = {path.name for path in directory.iterdir() if path.name.startswith("images-")}
    return {path.name for path in directory.iterdir()} - {"images.npy", "labels.npy"} - made


def options_of(store: storage_impl.ImageStore) -> Any:
    """Return the options that a store was made with."""
    return json.loads((store.path / "store.json").read_text())["options"]


def recorded(
    store_class: type[storage_impl.ImageStore], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, Any]]:
    """Return the calls that the stores of a class will get: the name, and images or an index."""
    calls: list[tuple[str, Any]] = []
    for method in ("write_one", "write_many", "read_one", "read_many", "close"):
        original = getattr(store_class, method)

        def call(store: Any, *arguments: Any, of: str = method, to: Any = original) -> Any:
            calls.append((of, arguments[0] if arguments else None))
            return to(store, *arguments)

        monkeypatch.setattr(store_class, method, call)
    return calls


# --- All of them ---

# By the backend that is used: what stores through storage_impl, with small parameters.
STORES = {
    **{
        (name, backend, *more): backend
        for backend in common.BACKENDS
        for name, *more in (
            ("cold_cache.ColdOpen.time_open",),
            ("cold_cache.ColdAll.time_open_read", 1),
            ("cold_cache.ColdOne.time_open_read",),
            ("durability.WriteBatches.time_write_500", True),
            ("durability.WriteBatches.time_write_500_close", False),
            ("durability.OneByOne.time_write_100", True),
            ("durability.OneByOne.time_write_100_close", False),
            ("growth.Append.time_append_1000", 0),
            ("growth.Append.time_append_1000", 10_000),
            ("growth.InSteps.time_write_10000",),
            ("growth.WriteAmplification.track_written", "one call"),
            ("growth.WriteAmplification.track_written", "one by one"),
            ("image_size.ReadSize.time_read_6mib", 64),
            ("image_size.SizeOnDisk.track_ratio", 64),
            ("image_size.WriteSize.time_write_6mib", 64),
        )
    },
    ("tuning_hdf5.Hdf5Layout.time_read_5000", "contiguous"): "hdf5",
    ("tuning_lmdb.LmdbReadahead.time_read_5000", True): "lmdb",
    ("tuning_lmdb.LmdbColdReadahead.time_open_read_5000", True): "lmdb",
    ("tuning_png.PngLevel.time_read_768kib", 1, 32): "png",
}


@pytest.mark.parametrize("case", STORES)
@pytest.mark.parametrize("wrong", ["images", "labels", "nothing"])
def test_wrong_pixels_have_no_figure(
    case: tuple[Any, ...], wrong: str, ten_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that does not give back what was written fails before anything is timed."""
    name, *parameters = case
    benchmark = benchmark_of(name, tuple(parameters))
    store_class = storage_impl.ImageStore
    read_many = store_class.read_many

    def read(store: Any) -> Any:
        images, labels = read_many(store)
        return (images ^ 1, labels) if wrong == "images" else (images, labels + 1)

    if wrong == "nothing":
        monkeypatch.setattr(store_class, "write_many", lambda *_: range(0))
        monkeypatch.setattr(store_class, "write_one", lambda *_: 0)
    else:
        monkeypatch.setattr(store_class, "read_many", read)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()
    assert left(ten_images) == set()


@pytest.mark.parametrize(
    "case",
    [
        *(("many_images.ReadMany.time_read", backend, 10) for backend in common.BACKENDS),
        ("image_size.ReadSize.time_read_6mib", "hdf5", 64),
        ("tuning_lmdb.LmdbReadahead.time_read_5000", True),
        ("tuning_png.PngLevel.time_read_768kib", 1, 32),
    ],
)
def test_every_process_looks_at_what_it_reads(
    case: tuple[Any, ...], ten_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that a process before has made and looked at is looked at again."""
    name, *parameters = case
    run(benchmark_of(name, tuple(parameters)))
    read_many = storage_impl.ImageStore.read_many

    def wrong(store: storage_impl.ImageStore) -> Any:
        images, labels = read_many(store)
        return images ^ 1, labels

    monkeypatch.setattr(storage_impl.ImageStore, "read_many", wrong)
    benchmark = benchmark_of(name, tuple(parameters))
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()


@pytest.mark.parametrize(
    ("backend", "case"),
    [
        *((backend, ("cold_cache.ColdOne.time_open_read", backend)) for backend in common.BACKENDS),
        ("hdf5", ("tuning_hdf5.Hdf5Layout.time_read_100", "contiguous")),
        ("lmdb", ("tuning_lmdb.LmdbReadahead.time_read_500", True)),
        ("lmdb", ("tuning_lmdb.LmdbColdReadahead.time_open_read_500", True)),
    ],
)
def test_wrong_single_images_have_no_figure(
    backend: str, case: tuple[Any, ...], ten_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where images are read one by one, these are looked at, too."""
    name, *parameters = case
    benchmark = benchmark_of(name, tuple(parameters))
    store_class = storage_impl.ImageStore
    read_one = store_class.read_one

    def read(store: Any, index: int) -> Any:
        image, label = read_one(store, index)
        return image ^ 1, label

    monkeypatch.setattr(store_class, "read_one", read)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        needs_cold(benchmark.do_setup())
    benchmark.do_teardown()


LIBRARIES = {
    ("tuning_hdf5.Hdf5AutoChunks.time_read_5000", "chunks=True"): (h5py.Dataset, "__getitem__"),
    ("tuning_hdf5.Hdf5Selection.time_read_256", "contiguous", "list"): (
        h5py.Dataset,
        "__getitem__",
    ),
    ("tuning_lmdb.LmdbKeys.time_write_5000", "shuffled"): (np, "frombuffer"),
    ("tuning_lmdb.LmdbMapSize.time_write_10000", "doubled when full"): (np, "frombuffer"),
    ("tuning_lmdb.LmdbPut.time_write_5000", "putmulti", 32): (np, "frombuffer"),
    ("tuning_lmdb.LmdbSync.time_write_100", "default"): (np, "frombuffer"),
    ("tuning_png.PngCodec.time_encode_768kib", 1, 32): (floor, "decode"),
}


@pytest.mark.parametrize("case", LIBRARIES)
def test_a_library_alone_has_no_figure_for_wrong_pixels(
    case: tuple[Any, ...], ten_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured on a library alone is looked at in the same way."""
    name, *parameters = case
    benchmark = benchmark_of(name, tuple(parameters))
    owner, function = LIBRARIES[case]
    original = getattr(owner, function)
    monkeypatch.setattr(owner, function, lambda *arguments: original(*arguments) ^ 1)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()
    assert all(name.startswith("tuning-") for name in left(ten_images))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("tuning_lmdb.LmdbKeys.time_write_5000", ("ascending",)),
        ("tuning_lmdb.LmdbMapSize.time_write_10000", ("large from the start",)),
        ("tuning_lmdb.LmdbPut.time_write_5000", ("put", 32)),
        ("tuning_lmdb.LmdbSync.time_write_1000", ("sync=False",)),
        ("tuning_lmdb.LmdbSync.time_write_100", ("sync=False",)),
    ],
)
def test_writing_nothing_has_no_figure(
    name: str, parameters: tuple[Any, ...], ten_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timed call that leaves an empty environment fails."""
    benchmark = benchmark_of(name, parameters)
    monkeypatch.setattr(type(benchmark.func.__self__), benchmark.func.__name__, lambda *_: None)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()


# --- The page cache ---

COLD = [
    *(
        (name, backend, *more)
        for backend in common.BACKENDS
        for name, *more in (
            ("cold_cache.ColdOpen.time_open",),
            ("cold_cache.ColdAll.time_open_read", 100),
            ("cold_cache.ColdOne.time_open_read",),
        )
    ),
    *(
        (f"tuning_lmdb.LmdbColdReadahead.{method}", readahead)
        for method in ("time_open_read_5000", "time_open_read_500")
        for readahead in (True, False)
    ),
]


def needs_cold(skipped: bool) -> None:
    """Skip a test where the system cannot empty the page cache."""
    if skipped:
        pytest.skip("needs a system and a file system whose pages can be dropped")


def resident(directory: Path) -> int:
    """Return how many pages of the files of a directory are in memory."""
    return sum(page_cache.resident(path) for path in directory.rglob("*") if path.is_file())


def test_resident_counts_pages(tmp_path: Path) -> None:
    """Pages that were just written or read are counted, those dropped and not read are not."""
    path = tmp_path / "file"
    content = os.urandom(10 * 4096 * 16 + 1)
    pages = -(-len(content) // os.sysconf("SC_PAGE_SIZE"))
    path.write_bytes(content)
    (tmp_path / "empty").touch()
    try:
        assert page_cache.resident(path) == pages
        page_cache.empty(tmp_path)  # also what was not on the disk yet
    except NotImplementedError as error:
        pytest.skip(f"{error}")
    assert page_cache.resident(path) == 0
    with open(path, "rb", buffering=0) as file:
        assert file.read(1) == content[:1]
    assert page_cache.resident(path) > 0
    assert path.read_bytes() == content
    assert page_cache.resident(path) == pages


@pytest.mark.parametrize("case", COLD)
def test_nothing_is_in_the_cache_before_each_sample(
    case: tuple[Any, ...], started: Callable[..., SimpleNamespace]
) -> None:
    """No page of the store is in memory before the timed call, and some are after it."""
    cold = started(*case)
    needs_cold(cold.skipped)
    for _ in range(3):
        assert resident(cold.instance.path) == 0
        cold.benchmark.func(*case[1:])
        assert resident(cold.instance.path) > 0
        cold.benchmark.do_teardown()
        cold.benchmark.do_setup()


@pytest.mark.parametrize("case", COLD)
def test_a_cache_that_is_not_emptied_has_no_figure(
    case: tuple[Any, ...], ten_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where emptying does nothing the benchmark is n/a, and leaves no scratch behind."""
    name, *parameters = case
    benchmark = benchmark_of(name, tuple(parameters))
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: None, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    assert benchmark.do_setup()  # asv records n/a for it
    benchmark.do_teardown()
    (stored,) = left(ten_images)
    assert stored.split("-")[0] in common.BACKENDS


@pytest.mark.parametrize("missing", ["posix_fadvise", "mincore"])
def test_a_system_that_cannot_has_no_figure(
    missing: str, ten_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the means to empty the page cache, or to look at it, the benchmark is n/a."""
    if missing == "posix_fadvise":
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
    else:
        monkeypatch.setattr(page_cache.ctypes, "CDLL", lambda _: SimpleNamespace())
    assert benchmark_of("cold_cache.ColdOpen.time_open", ("hdf5",)).do_setup()


def test_a_file_system_that_mincore_fails_on_has_no_figure(
    ten_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing mincore is not taken for pages that are gone."""
    failing = SimpleNamespace(mincore=lambda *_: -1)
    monkeypatch.setattr(page_cache.ctypes, "CDLL", lambda _: failing)
    assert benchmark_of("cold_cache.ColdOpen.time_open", ("hdf5",)).do_setup()


def test_a_later_sample_is_never_warm(
    started: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that cannot be emptied any more fails: asv would time the sample all the same."""
    cold = started("cold_cache.ColdAll.time_open_read", "hdf5", 100)
    needs_cold(cold.skipped)
    cold.benchmark.func("hdf5", 100)
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: None)
    cold.benchmark.do_teardown()
    with pytest.raises(RuntimeError, match="was emptied before"):
        cold.benchmark.do_setup()


def test_an_open_environment_keeps_its_pages(
    started: Callable[..., SimpleNamespace], few_images: Path
) -> None:
    """Emptying is refused while a store maps the file, and nothing is said to be cold."""
    cold = started("cold_cache.ColdAll.time_open_read", "lmdb", 100)
    needs_cold(cold.skipped)
    with storage_impl.open_store(cold.instance.path) as store:
        store.read_many()
        with pytest.raises(NotImplementedError, match=r"\.mdb stay in memory"):
            page_cache.empty(cold.instance.path)
    page_cache.empty(cold.instance.path)


@pytest.mark.parametrize("backend", common.BACKENDS)
def test_a_cold_read_reads(
    backend: str, started: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is timed opens one store, reads what its name says and closes it."""
    many = started("cold_cache.ColdAll.time_open_read", backend, 7)
    needs_cold(many.skipped)
    one = started("cold_cache.ColdOne.time_open_read", backend)
    opening = started("cold_cache.ColdOpen.time_open", backend)
    calls = recorded(storage_impl.ImageStore, monkeypatch)
    many.benchmark.func(backend, 7)
    assert calls == [("read_many", None), ("close", None)]
    calls.clear()
    one.benchmark.func(backend)
    assert calls == [("read_one", one.instance.index), ("close", None)]
    calls.clear()
    opening.benchmark.func(backend)
    assert calls == [("close", None)]


def test_cold_figures_say_so() -> None:
    """Reports can tell which figures are cold, and no other figure says it."""
    cold = {name for name, b in test_benchmarks.found().items() if hasattr(b, "cache")}
    assert cold == {case[0] for case in COLD} | {"encoding.ColdEncoded.time_open_read_6mib"}
    assert {test_benchmarks.found()[name].cache for name in cold} == {"cold"}


# --- Durable writes ---


@pytest.mark.parametrize("backend", common.BACKENDS)
@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("durability.OneByOne.time_write_100", ["write_one"] * 100),
        ("durability.OneByOne.time_write_100_close", ["write_one"] * 100 + ["close"]),
        ("durability.WriteBatches.time_write_500", ["write_many"] * 5),
        ("durability.WriteBatches.time_write_500_close", ["write_many"] * 5 + ["close"]),
    ],
)
def test_durable_writes(
    name: str,
    expected: list[str],
    durable: bool,
    backend: str,
    started: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is timed writes all images into an empty store that is, or is not, durable."""
    durability = started(name, backend, durable)
    store = durability.instance.store
    assert (len(store), store.durable) == (0, durable)
    calls = recorded(storage_impl.ImageStore, monkeypatch)
    durability.benchmark.func(backend, durable)
    assert [method for method, _ in calls] == expected
    assert {len(images) for method, images in calls if method == "write_many"} <= {100}
    with storage_impl.open_store(store.path) as reader:
        images, labels = reader.read_many()
    expected_images, expected_labels = datasets.load(durability.benchmark.images)
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)


# --- Sizes ---


@pytest.mark.parametrize("side", image_size.SIDES)
def test_all_sizes_have_the_same_bytes(
    side: int,
    all_images: Path,
    started: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many images as make 6 MiB, 8 or more, are written: times of all sizes compare."""
    monkeypatch.setenv(common.LARGE, "1")
    write = started("image_size.WriteSize.time_write_6mib", "hdf5", side)
    images = write.instance.images
    assert images.shape == (len(images), side, side, 3)
    assert len(images) >= 8
    assert images.nbytes == pytest.approx(write.benchmark.bytes, rel=0.001)
    write.benchmark.func("hdf5", side)
    with storage_impl.open_store(write.instance.store.path) as store:
        np.testing.assert_array_equal(store.read_many()[0], images)


@pytest.mark.parametrize("backend", common.BACKENDS)
def test_a_size_is_read_whole(
    backend: str, started: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is timed reads all images of its size, also where there are as many of another."""
    seen: list[tuple[int, ...]] = []
    sizes = {
        side: started("image_size.ReadSize.time_read_6mib", backend, side) for side in (24, 32)
    }
    store_class = storage_impl.ImageStore
    read_many = store_class.read_many

    def remember(store: Any) -> Any:
        images, labels = read_many(store)
        seen.append(images.shape)
        return images, labels

    monkeypatch.setattr(store_class, "read_many", remember)
    for side, read in sizes.items():
        read.benchmark.func(backend, side)
    assert seen == [(1_000, 24, 24, 3), (1_000, 32, 32, 3)]


@pytest.mark.parametrize("backend", common.BACKENDS)
def test_ratio_is_of_what_is_on_disk(backend: str, few_images: Path) -> None:
    """The bytes that are compared to the pixels' are those that the file system gave."""
    ratio = run(benchmark_of("image_size.SizeOnDisk.track_ratio", (backend, 64)))
    (store,) = (few_images / name for name in left(few_images))
    allocated = sum(entry.stat().st_blocks * 512 for entry in (store, *store.rglob("*")))
    assert ratio == allocated / (512 * 64 * 64 * 3)


# --- Growth ---


@pytest.mark.parametrize("backend", common.BACKENDS)
@pytest.mark.parametrize("held", [0, 10_000])
def test_append_appends(
    held: int, backend: str, started: Callable[..., SimpleNamespace], few_images: Path
) -> None:
    """What is timed adds to what is there, which is the same in each sample."""
    append = started("growth.Append.time_append_1000", backend, held)
    images, labels = datasets.load(1_000)
    before = 1_000 if held else 0  # as many as there are images here
    for _ in range(2):
        store = append.instance.store
        assert (len(store), store.durable) == (before, False)
        append.benchmark.func(backend, held)
        with storage_impl.open_store(store.path, verify=True) as reader:
            found, found_labels = reader.read_many()
        np.testing.assert_array_equal(found, np.concatenate([images[:before], images]))
        np.testing.assert_array_equal(found_labels, np.concatenate([labels[:before], labels]))
        append.benchmark.do_teardown()
        append.benchmark.do_setup()


@pytest.mark.parametrize("backend", common.BACKENDS)
def test_steps_are_ten(
    backend: str, started: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is timed writes all images in ten equal calls."""
    steps = started("growth.InSteps.time_write_10000", backend)
    assert len(steps.instance.store) == 0
    calls = recorded(storage_impl.ImageStore, monkeypatch)
    steps.benchmark.func(backend)
    assert [(method, len(images)) for method, images in calls] == [("write_many", 100)] * 10
    with storage_impl.open_store(steps.instance.store.path) as reader:
        np.testing.assert_array_equal(reader.read_many()[0], datasets.load(1_000)[0])


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ("one call", [("write_many", 3_000)]),
        ("1,000 by 1,000", [("write_many", 1_000)] * 3),
        ("one by one", [("write_one", 32)] * 200),
    ],
)
def test_amplification_counts_from_the_first_write_to_the_close(
    calls: str,
    expected: list[tuple[str, int]],
    all_images: Path,
    started: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The counter is read around the writes and the close of a durable store, and nothing else."""
    store_class = storage_impl.ImageStore
    done = recorded(store_class, monkeypatch)
    at: list[int] = []
    counters = iter((1_000_000, 7_000_000))

    def read_counter() -> int:
        at.append(len(done))
        return next(counters)

    monkeypatch.setattr(growth, "bytes_sent", read_counter)
    durable: list[bool] = []
    write = store_class._write
    monkeypatch.setattr(
        store_class,
        "_write",
        lambda store, records: (durable.append(store.durable), write(store, records))[1],
    )
    amplification = started("growth.WriteAmplification.track_written", "hdf5", calls)
    counted = done[slice(*at)]
    assert [(method, len(images)) for method, images in counted[:-1]] == expected
    assert counted[-1] == ("close", None)
    assert all(durable)
    given = (200 if calls == "one by one" else 3_000) * (32 * 32 * 3 + 8)
    assert amplification.benchmark.func("hdf5", calls) == 6_000_000 / given


def test_amplification_is_of_the_bytes_that_the_system_counted(few_images: Path) -> None:
    """A raw file is written about once; single images to LMDB are written several times."""
    raw = benchmark_of("growth.WriteAmplification.track_written", ("hdf5", "one call"))
    if raw.do_setup():
        pytest.skip("needs a system and a file system that count what is written")
    assert 1.0 < raw.do_run() < 1.2
    raw.do_teardown()
    assert run(benchmark_of("growth.WriteAmplification.track_written", ("lmdb", "one by one"))) > 3


def test_counter_is_the_write_bytes(tmp_path: Path) -> None:
    """Of the counters of a process it is the bytes that went to storage."""
    path = tmp_path / "io"
    path.write_text("rchar: 1\nwchar: 2\nread_bytes: 3\nwrite_bytes: 4096\ncancelled: 5\n")
    assert growth.bytes_sent(path) == 4096


@pytest.mark.parametrize("counter", ["missing", "still"])
def test_no_counter_is_no_figure(
    counter: str, ten_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system or the file system counts nothing, the benchmark is n/a."""
    if counter == "missing":
        sent = growth.bytes_sent
        monkeypatch.setattr(growth, "bytes_sent", lambda: sent(ten_images / "io"))
    else:
        monkeypatch.setattr(growth, "bytes_sent", lambda: 5)
    benchmark = benchmark_of("growth.WriteAmplification.track_written", ("hdf5", "one call"))
    assert benchmark.do_setup()
    benchmark.do_teardown()
    assert left(ten_images) == set()


# --- Options ---


def test_scattered_indices_are_in_no_order() -> None:
    """Half of them are followed by a higher one, they differ, and they are spread over all images.

    Read in steps they would be as good as in order, for chunks and for readahead.
    """
    indices = common.scattered(500, 5_000)
    assert indices == common.scattered(500, 5_000)
    assert len(set(indices)) == 500
    assert 200 < sum(first < second for first, second in pairwise(indices)) < 300
    assert len({index // 50 for index in indices[:100]}) > 55  # of 100 parts of equal length
    assert len({index // 50 for index in indices}) > 95


def test_levels_are_those_of_the_files(started: Callable[..., SimpleNamespace]) -> None:
    """Each level is measured on files of that level, and on all images."""
    ratios = []
    for level in (0, 1, 6, 9):
        png = started("tuning_png.PngLevel.time_write_768kib", level, 32)
        instance = png.instance
        assert options_of(instance.store) == options_of(instance.empty) == {"compress_level": level}
        assert (len(instance.store), len(instance.empty)) == (256, 0)
        png.benchmark.func(level, 32)
        assert len(instance.empty) == 256
        files = [path.stat().st_size for path in instance.empty.path.rglob("*.png")]
        ratios.append(instance.track_ratio(level, 32))
        assert ratios[-1] == sum(files) / (256 * 32 * 32 * 3)
    assert ratios[0] > 1 > ratios[1] > ratios[2] >= ratios[3]


@pytest.mark.parametrize("side", [32, 256])
def test_codec_handles_every_image(side: int, started: Callable[..., SimpleNamespace]) -> None:
    """What is timed encodes, or decodes, all images anew, at the level that is named."""
    sizes = []
    for level in (0, 1, 6, 9):
        codec = started("tuning_png.PngCodec.time_encode_768kib", level, side).instance
        codec.encoded = codec.decoded = []
        codec.time_encode_768kib(level, side)
        codec.time_decode_768kib(level, side)
        assert codec.images.nbytes == tuning_png.BYTES
        np.testing.assert_array_equal(np.stack(codec.decoded), codec.images)
        sizes.append(sum(map(len, codec.encoded)))
    assert sizes[0] > sizes[1] > sizes[2] >= sizes[3]


@pytest.mark.parametrize(
    ("layout", "chunk", "level"),
    [
        ("contiguous", None, None),
        ("1 a chunk", 1, None),
        ("16 a chunk", 16, None),
        ("64 a chunk", 64, None),
        ("16 a chunk, gzip", 16, 6),
    ],
)
def test_layouts_are_those_of_the_files(
    layout: str,
    chunk: int | None,
    level: int | None,
    started: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each layout is measured on files of that layout, and on all images."""
    hdf5 = started("tuning_hdf5.Hdf5Layout.time_write_5000", layout)
    instance = hdf5.instance
    hdf5.benchmark.func(layout)
    for store in (instance.store, instance.empty):
        assert len(store) == 1_000
        (segment,) = store.path.rglob("*.h5")
        with h5py.File(segment, locking=False) as file:  # as the store has it open
            images = file["images"]
            assert images.chunks == (None if chunk is None else (chunk, 32, 32, 3))
            assert (images.compression, images.compression_opts) == (
                "gzip" if level else None,
                level,
            )
    assert instance.track_ratio(layout) == instance.store.disk_usage().apparent / 3_072_000
    calls = recorded(storage_impl.ImageStore, monkeypatch)
    instance.time_read_5000(layout)
    assert calls == [("read_many", None)]
    calls.clear()
    instance.time_read_100(layout)
    assert len({index for method, index in calls if method == "read_one"}) == len(calls) == 100


@pytest.mark.parametrize(
    ("layout", "compression"),
    [("contiguous", None), ("chunks=True", None), ("compression='gzip'", "gzip")],
)
def test_h5py_chooses_chunks(
    layout: str, compression: str | None, started: Callable[..., SimpleNamespace]
) -> None:
    """The chunks are h5py's own, and cut through the images; without an option there are none."""
    instance = started("tuning_hdf5.Hdf5AutoChunks.time_read_5000", layout).instance
    stored = instance.images_stored
    assert stored.shape == (1_000, 32, 32, 3)
    assert stored.compression == compression
    if layout == "contiguous":
        assert stored.chunks is None
    else:
        assert stored.chunks[1:] != (32, 32, 3)
    assert len(set(instance.indices)) == 20
    size = Path(stored.file.filename).stat().st_size
    assert instance.track_ratio(layout) == size / instance.images.nbytes
    assert 0.5 < instance.track_ratio(layout) < 1.5  # chunks at the edges are filled up


def test_no_sample_finds_chunks_of_another_in_a_store(
    started: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 keeps chunks that it has read: each sample has a store of which no image was read."""
    hdf5 = started("tuning_hdf5.Hdf5Layout.time_read_100", "16 a chunk, gzip")
    first = hdf5.instance.store
    hdf5.benchmark.func("16 a chunk, gzip")
    calls = recorded(storage_impl.ImageStore, monkeypatch)
    hdf5.benchmark.do_teardown()
    hdf5.benchmark.do_setup()
    assert first.closed
    assert not hdf5.instance.store.closed
    assert {method for method, _ in calls} == {"close"}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("tuning_hdf5.Hdf5AutoChunks.time_read_20", ("compression='gzip'",)),
        ("tuning_hdf5.Hdf5Selection.time_read_256", ("16 a chunk", "one by one")),
    ],
)
def test_no_sample_finds_chunks_of_another_in_a_file(
    name: str,
    parameters: tuple[str, ...],
    started: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HDF5 keeps chunks that it has read: each sample opens the file, and has read none of it."""
    hdf5 = started(name, *parameters)
    first = hdf5.instance.images_stored
    hdf5.benchmark.func(*parameters)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", MagicMock(side_effect=AssertionError))
    hdf5.benchmark.do_teardown()
    hdf5.benchmark.do_setup()
    assert not first  # its file is closed
    assert hdf5.instance.images_stored


class CountedDataset:
    """A dataset that remembers what it was asked for."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.asked: list[Any] = []

    def __getitem__(self, selection: Any) -> Any:
        self.asked.append(selection)
        return self.dataset[selection]


@pytest.mark.parametrize("layout", ["contiguous", "16 a chunk"])
@pytest.mark.parametrize("how", ["list", "one by one", "everything"])
def test_selections_give_the_same_images(
    layout: str, how: str, started: Callable[..., SimpleNamespace]
) -> None:
    """Each way reads the same 256 images, as its name says."""
    selection = started("tuning_hdf5.Hdf5Selection.time_read_256", layout, how)
    instance = selection.instance
    indices = instance.indices
    assert indices == sorted(set(indices))
    assert len(indices) == 256
    chunks = instance.images_stored.chunks
    assert chunks == (None if layout == "contiguous" else (16, 32, 32, 3))
    counted = instance.images_stored = CountedDataset(instance.images_stored)
    selection.benchmark.func(layout, how)
    expected = {"list": [indices], "one by one": indices, "everything": [slice(None)]}
    assert counted.asked == expected[how]
    np.testing.assert_array_equal(instance.found, instance.images[indices])


@pytest.mark.parametrize("readahead", [True, False])
@pytest.mark.parametrize("cache", ["", "open_"])
def test_readahead_is_that_of_the_store(
    cache: str,
    readahead: bool,
    started: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store that is read was made with or without readahead, and all of it is read."""
    read, read_one = f"time_{cache}read_5000", f"time_{cache}read_500"
    kind = "Cold" if cache else ""
    lmdb = started(f"tuning_lmdb.Lmdb{kind}Readahead.{read}", readahead)
    needs_cold(lmdb.skipped)
    path = lmdb.instance.path if cache else lmdb.instance.store.path
    with storage_impl.open_store(path) as store:
        assert (options_of(store), len(store)) == ({"readahead": readahead}, 1_000)
    calls = recorded(storage_impl.ImageStore, monkeypatch)
    getattr(lmdb.instance, read)(readahead)
    getattr(lmdb.instance, read_one)(readahead)
    reads = [call for call in calls if call[0] != "close"]
    assert reads[0] == ("read_many", None)
    assert len({index for _, index in reads[1:]}) == len(reads[1:]) == 500


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ("default", {}),
        ("metasync=False", {"metasync": False}),
        ("sync=False", {"sync": False}),
        ("sync=False, then sync", {"sync": False}),
        ("writemap=True", {"writemap": True}),
    ],
)
@pytest.mark.parametrize(
    ("method", "transactions"), [("time_write_1000", 1), ("time_write_100", 100)]
)
def test_sync_is_as_named(
    method: str,
    transactions: int,
    options: str,
    flags: dict[str, bool],
    started: Callable[..., SimpleNamespace],
) -> None:
    """The environment has the option and no other, and the images go into so many transactions."""
    sync = started(f"tuning_lmdb.LmdbSync.{method}", options)
    environment = sync.instance.environment
    actual = environment.flags()
    chosen = {"sync": True, "metasync": True, "writemap": False} | flags
    assert {name: actual[name] for name in chosen} == chosen
    before = environment.info()["last_txnid"]
    sync.benchmark.func(options)
    assert environment.info()["last_txnid"] - before == transactions
    assert environment.stat()["entries"] == sync.benchmark.images


@pytest.mark.parametrize(
    ("options", "least", "most"), [("default", 1.3, 1.5), ("writemap=True", 21, 23)]
)
def test_sync_weighs_the_file(options: str, least: float, most: float, few_images: Path) -> None:
    """What is weighed is a file that holds 1,000 images; a map that is written to is all of it."""
    ratio = run(benchmark_of("tuning_lmdb.LmdbSync.track_ratio", (options,)))
    assert least < ratio < most


@pytest.mark.parametrize("options", ["sync=False", "sync=False, then sync"])
@pytest.mark.parametrize("method", ["time_write_1000", "time_write_100"])
def test_a_sync_at_the_end_is_timed(
    method: str, options: str, started: Callable[..., SimpleNamespace]
) -> None:
    """Where a sync at the end is counted, it is in the timed call, once and for all."""
    sync = started(f"tuning_lmdb.LmdbSync.{method}", options)
    sync.instance.environment = MagicMock()
    sync.benchmark.func(options)
    forced = [call.args for call in sync.instance.environment.sync.call_args_list]
    assert forced == ([(True,)] if options.endswith("then sync") else [])


@pytest.mark.parametrize("how", ["put", "put, append=True", "putmulti", "putmulti, append=True"])
def test_puts_are_as_named(how: str, started: Callable[..., SimpleNamespace]) -> None:
    """All images are put in one transaction, in the way that is named."""
    put = started("tuning_lmdb.LmdbPut.time_write_5000", how, 32)
    assert not put.instance.environment.flags()["sync"]
    environment = put.instance.environment = MagicMock()
    put.benchmark.func(how, 32)
    environment.begin.assert_called_once_with(write=True)
    transaction = environment.begin.return_value.__enter__.return_value
    single = [call.args for call in transaction.put.call_args_list]
    calls = transaction.put.call_args_list
    if how.startswith("putmulti"):
        calls = transaction.cursor.return_value.putmulti.call_args_list
        assert [call.args for call in calls] == [(put.instance.records,)]
        assert single == []
    else:
        assert single == put.instance.records
    assert {call.kwargs["append"] for call in calls} == {"append" in how}


def test_put_bytes_are_those_on_disk(started: Callable[..., SimpleNamespace]) -> None:
    """The ratio is the length of the data file over the bytes of the pixels that are in it."""
    how = "putmulti, append=True"
    put = started("tuning_lmdb.LmdbPut.time_write_5000", how, 24).instance
    ratio = put.track_ratio(how, 24)
    data = put.scratch / "environment" / "data.mdb"
    assert put.images.shape[1:] == (24, 24, 3)
    assert ratio == data.stat().st_size / put.images.nbytes > 1


@pytest.mark.parametrize("keys", ["ascending", "shuffled"])
def test_keys_are_as_named(keys: str, started: Callable[..., SimpleNamespace]) -> None:
    """The images are put and read in their order, whose keys ascend or are in none."""
    lmdb = started("tuning_lmdb.LmdbKeys.time_write_5000", keys).instance
    numbers = lmdb.numbers.tolist()
    assert sorted(numbers) == list(range(1_000))
    ascending = sum(first < second for first, second in pairwise(numbers))
    assert ascending == 999 if keys == "ascending" else 400 < ascending < 600
    lmdb.time_write_5000(keys)
    assert lmdb.environment.stat()["entries"] == 1_000
    del lmdb.found
    lmdb.time_read_5000(keys)
    np.testing.assert_array_equal(lmdb.found, lmdb.images)
    assert lmdb.track_ratio(keys) == (lmdb.path / "data.mdb").stat().st_size / lmdb.images.nbytes


@pytest.mark.parametrize(
    ("start", "before", "after"),
    [("doubled when full", 1 << 20, 4 << 20), ("large from the start", 1 << 30, 1 << 30)],
)
def test_a_map_is_doubled(
    start: str,
    before: int,
    after: int,
    started: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The map that starts small is doubled until all images are in it; the other never is."""
    monkeypatch.setattr(tuning_lmdb.LmdbMapSize, "first_map", 1 << 20)  # for a tenth of the images
    lmdb = started("tuning_lmdb.LmdbMapSize.time_write_10000", start)
    environment = lmdb.instance.environment
    assert environment.info()["map_size"] == before
    lmdb.benchmark.func(start)
    assert environment.info()["map_size"] == after
    assert environment.stat()["entries"] == 1_000
    assert environment.info()["last_txnid"] == 10


def test_a_map_is_doubled_in_the_run(all_images: Path) -> None:
    """With all images the small map is full: the cost is measured."""
    benchmark = benchmark_of("tuning_lmdb.LmdbMapSize.time_write_10000", ("doubled when full",))
    benchmark.do_setup()
    environment = benchmark.func.__self__.environment
    assert environment.info()["map_size"] == tuning_lmdb.LmdbMapSize.first_map
    benchmark.do_run()
    assert environment.info()["map_size"] == 4 * tuning_lmdb.LmdbMapSize.first_map
    benchmark.do_teardown()
