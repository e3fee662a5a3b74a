"""The benchmarks: what they are called, that each measures what it says, and what they leave."""

import json
import os
from ast import literal_eval
from collections import Counter
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import json5
import numpy as np
import pytest
from asv_runner.discovery import disc_benchmarks, get_benchmark_from_name

import storage_impl
from benchmarks import (
    common,
    concurrency,
    counting,
    datasets,
    floor,
    plain_stores,
    single_image,
    work,
)
from report import counts

pytestmark = [
    pytest.mark.unmeasured,
    # Python 3.12 and later warn of any fork, for numpy's library starts threads of its own.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TileDB is a multithreading library:UserWarning"),
]

ROOT = str(Path(common.__file__).parent)

BACKENDS = ["'png'", "'lmdb'", "'hdf5'"]
COUNTS = ["1", "10", "100", "1000", "10000", "100000"]
STORES = ([BACKENDS, COUNTS], ["backend", "count"])
ONE = ([BACKENDS], ["backend"])
FLOORS = ([COUNTS], ["count"])
ENCODINGS = ["'raw'", "'png'", "'jpeg'", "'webp'"]
PHOTOS = ["32", "256", "'64 to 512'"]
FILES = ([ENCODINGS[1:], PHOTOS], ["encoding", "size"])
ENCODED = ([BACKENDS, ENCODINGS, PHOTOS], ["backend", "encoding", "size"])
PLAIN = [*(repr(store) for store in plain_stores.STORES)]
PLAIN_COUNTS = ([PLAIN, ["1000", "10000", "100000"]], ["store", "count"])
NONE: tuple[list[list[str]], list[str]] = ([], [])
STARTS = ["'fork'", "'spawn'", "'forkserver'"]
PROCESSES = ([BACKENDS, STARTS, ["1", "2", "4"]], ["backend", "start", "processes"])
THREADS = (
    [BACKENDS, ["1", "2", "4"], ["'shared'", "'own'"]],
    ["backend", "threads", "stores"],
)
DURABLE = ([BACKENDS, ["True", "False"]], ["backend", "durable"])
SIZES = ([BACKENDS, ["24", "32", "64", "128", "256", "512"]], ["backend", "side"])
LEVELS = ([["0", "1", "6", "9"], ["32", "256"]], ["level", "side"])
LAYOUTS = (
    [["'contiguous'", "'1 a chunk'", "'16 a chunk'", "'64 a chunk'", "'16 a chunk, gzip'"]],
    ["layout"],
)
AUTO_CHUNKS = ([["'contiguous'", "'chunks=True'", "\"compression='gzip'\""]], ["layout"])
KEYS = ([["'ascending'", "'shuffled'"]], ["keys"])
PUTS = (
    [["'put'", "'put, append=True'", "'putmulti'", "'putmulti, append=True'"], ["24", "32"]],
    ["how", "side"],
)
READAHEAD = ([["True", "False"]], ["readahead"])
SYNC = (
    [
        [
            "'default'",
            "'metasync=False'",
            "'sync=False'",
            "'sync=False, then sync'",
            "'writemap=True'",
        ]
    ],
    ["options"],
)

WORK = ([BACKENDS, [repr(name) for name in counting.OPERATIONS]], ["backend", "operation"])
PLAIN_WORK = ([BACKENDS, [repr(name) for name in work.PLAIN_OPERATIONS]], WORK[1])

LOADERS = (
    [[*BACKENDS, "'files'"], ["'0'", "'2 fork'", "'2 spawn'", "'2 forkserver'"]],
    ["store", "workers"],
)

# Results are kept under these names for years: a name that changes ends its history.
EXPECTED = {
    "access_patterns.ReadBatches.time_read_10000": (
        [BACKENDS, ["'in order'", "'strided'", "'sorted'", "'shuffled'"], ["32", "256"]],
        ["backend", "order", "batch"],
    ),
    "access_patterns.ReadFolds.time_read_9000": ([BACKENDS, ["10", "1"]], ["backend", "stores"]),
    "access_patterns.ReadLabels.time_read": STORES,
    "access_patterns.Latency.track_p50": ONE,
    "access_patterns.Latency.track_p95": ONE,
    "access_patterns.Latency.track_p99": ONE,
    "access_patterns.ReadRun.time_read_1000": (
        [BACKENDS, ["'slice'", "'list'", "'one by one'"]],
        ["backend", "how"],
    ),
    "calibration.Cpu.time_work": NONE,
    "calibration.Disk.time_work": NONE,
    "cold_cache.ColdOpen.time_open": ONE,
    "cold_cache.ColdAll.time_open_read": ([BACKENDS, ["1000", "10000"]], ["backend", "count"]),
    "cold_cache.ColdOne.time_open_read": ONE,
    "concurrency.ReadBesideWriter.time_read_25000": (
        [BACKENDS, ["0", "1"]],
        ["backend", "writers"],
    ),
    "concurrency.ReadBesideWriter.track_cpu_1000": ([BACKENDS, ["0", "1"]], ["backend", "writers"]),
    "concurrency.ReadOwnStores.time_read_5000": ([BACKENDS, ["2", "4"]], ["backend", "processes"]),
    "concurrency.ReadOwnStores.track_cpu_5000": ([BACKENDS, ["2", "4"]], ["backend", "processes"]),
    "concurrency.ReadProcesses.time_read_5000": PROCESSES,
    "concurrency.ReadProcesses.track_cpu_5000": PROCESSES,
    "concurrency.ReadThreads.time_read_5000": THREADS,
    "concurrency.ReadThreads.track_cpu_5000": THREADS,
    "concurrency.StartProcess.time_start": ([BACKENDS, STARTS], ["backend", "start"]),
    "concurrency.WriteSeveral.time_write_2000": (
        [BACKENDS, ["1", "2", "4"]],
        ["backend", "writers"],
    ),
    "concurrency.WriteSeveral.track_cpu_2000": (
        [BACKENDS, ["1", "2", "4"]],
        ["backend", "writers"],
    ),
    "disk_usage.DiskUsage.track_allocated": STORES,
    "disk_usage.DiskUsage.track_apparent": STORES,
    "encoding.PillowAlone.time_decode_6mib": ([ENCODINGS, PHOTOS], ["encoding", "size"]),
    "encoding.PillowAlone.time_encode_6mib": ([ENCODINGS, PHOTOS], ["encoding", "size"]),
    "encoding.ColdEncoded.time_open_read_6mib": (
        [BACKENDS[1:], ENCODINGS, PHOTOS[1:2]],
        ["backend", "encoding", "size"],
    ),
    "encoding.EncodedRead.time_read_20": ENCODED,
    "encoding.EncodedRead.time_read_6mib": ENCODED,
    "encoding.EncodedRead.time_shuffled_6mib": ENCODED,
    "encoding.EncodedUsage.track_ratio": ENCODED,
    "encoding.EncodedWrite.time_write_6mib": ENCODED,
    "encoding.Folder.time_read_20": FILES,
    "encoding.Folder.time_read_6mib": FILES,
    "encoding.Folder.time_write_6mib": FILES,
    "encoding.Folder.track_ratio": FILES,
    "durability.CreateToClose.time_write_1000": ONE,
    "durability.WriteBatches.time_write_500": DURABLE,
    "durability.WriteBatches.time_write_500_close": DURABLE,
    "durability.OneByOne.time_write_100": DURABLE,
    "durability.OneByOne.time_write_100_close": DURABLE,
    "floor.Memory.time_copy": FLOORS,
    "floor.OneHdf5.time_read_100": NONE,
    "floor.OneLmdb.time_read_100": NONE,
    "floor.OnePng.time_read_100": NONE,
    "floor.Png.time_decode": FLOORS,
    "floor.Png.time_encode": FLOORS,
    "floor.PngFiles.time_read": FLOORS,
    "floor.PngFiles.time_write": FLOORS,
    "floor.RawFile.time_read": FLOORS,
    "floor.RawFile.time_write": FLOORS,
    "growth.Append.time_append_1000": ([BACKENDS, ["0", "10000"]], ["backend", "held"]),
    "growth.InSteps.time_write_10000": ONE,
    "growth.WriteAmplification.track_written": (
        [BACKENDS, ["'one call'", "'1,000 by 1,000'", "'one by one'"]],
        ["backend", "calls"],
    ),
    "image_size.ReadSize.time_read_6mib": SIZES,
    "image_size.SizeOnDisk.track_ratio": SIZES,
    "image_size.WriteSize.time_write_6mib": SIZES,
    "many_images.ReadMany.time_read": STORES,
    "many_images.WriteMany.time_write": STORES,
    "memory.PeakRead.peakmem_batches": ([BACKENDS, ["10000", "100000"]], ["backend", "count"]),
    "memory.PeakRead.peakmem_read_many": ([BACKENDS, ["10000", "100000"]], ["backend", "count"]),
    "memory.PeakWrite.peakmem_write_many": ([BACKENDS, ["200000"]], ["backend", "count"]),
    "plain_stores.PlainBatches.time_read_1024": (
        [PLAIN, ["'shuffled'"], ["256"]],
        ["store", "order", "batch"],
    ),
    "plain_stores.PlainOne.time_read_100": ([PLAIN], ["store"]),
    "plain_stores.PlainOpen.time_open_read": ([PLAIN, ["10000"]], ["store", "count"]),
    "plain_stores.PlainRead.time_read": PLAIN_COUNTS,
    "plain_stores.PlainSyncedWrite.time_write_1000": ([PLAIN], ["store"]),
    "plain_stores.PlainUsage.track_allocated": PLAIN_COUNTS,
    "plain_stores.PlainWrite.time_write": PLAIN_COUNTS,
    "single_image.ReadOne.time_read_100": ONE,
    "single_image.WriteOne.time_write": ONE,
    "loaders.LoaderCalls.time_epoch_10000": (
        [BACKENDS, ["'batch'", "'one by one'"]],
        ["backend", "asked"],
    ),
    "loaders.LoaderEpoch.time_epoch_10000": LOADERS,
    "loaders.LoaderStart.time_first_256": LOADERS,
    "shards.OpenIndex.time_open": ([["10", "1000", "100000"]], ["shards"]),
    "shards.ReadShards.time_read_10000": ([BACKENDS, ["1", "8"]], ["backend", "shards"]),
    "shards.WriteShards.time_write_2000": ([BACKENDS, ["1", "2"]], ["backend", "workers"]),
    "startup.ImportBackend.timeraw_import": ONE,
    "startup.ImportPackage.timeraw_import": NONE,
    "startup.OpenStore.time_open": ([BACKENDS, ["1", "1000", "10000"]], ["backend", "count"]),
    "startup.OpenStore.time_open_read": ([BACKENDS, ["1", "1000", "10000"]], ["backend", "count"]),
    "tuning_hdf5.Hdf5AutoChunks.time_read_5000": AUTO_CHUNKS,
    "tuning_hdf5.Hdf5AutoChunks.time_read_20": AUTO_CHUNKS,
    "tuning_hdf5.Hdf5AutoChunks.track_ratio": AUTO_CHUNKS,
    "tuning_hdf5.Hdf5Layout.time_read_5000": LAYOUTS,
    "tuning_hdf5.Hdf5Layout.time_read_100": LAYOUTS,
    "tuning_hdf5.Hdf5Layout.time_write_5000": LAYOUTS,
    "tuning_hdf5.Hdf5Layout.track_ratio": LAYOUTS,
    "tuning_hdf5.Hdf5Selection.time_read_256": (
        [["'contiguous'", "'16 a chunk'"], ["'list'", "'one by one'", "'everything'"]],
        ["layout", "how"],
    ),
    "tuning_lmdb.LmdbKeys.time_read_5000": KEYS,
    "tuning_lmdb.LmdbKeys.time_write_5000": KEYS,
    "tuning_lmdb.LmdbKeys.track_ratio": KEYS,
    "tuning_lmdb.LmdbMapSize.time_write_10000": (
        [["'doubled when full'", "'large from the start'"]],
        ["map"],
    ),
    "tuning_lmdb.LmdbPut.time_write_5000": PUTS,
    "tuning_lmdb.LmdbPut.track_ratio": PUTS,
    "tuning_lmdb.LmdbReadahead.time_read_5000": READAHEAD,
    "tuning_lmdb.LmdbReadahead.time_read_500": READAHEAD,
    "tuning_lmdb.LmdbColdReadahead.time_open_read_5000": READAHEAD,
    "tuning_lmdb.LmdbColdReadahead.time_open_read_500": READAHEAD,
    "tuning_lmdb.LmdbSync.time_write_1000": SYNC,
    "tuning_lmdb.LmdbSync.time_write_100": SYNC,
    "tuning_lmdb.LmdbSync.track_ratio": SYNC,
    "tuning_png.PngCodec.time_decode_768kib": LEVELS,
    "tuning_png.PngCodec.time_encode_768kib": LEVELS,
    "tuning_png.PngLevel.time_read_768kib": LEVELS,
    "tuning_png.PngLevel.time_write_768kib": LEVELS,
    "tuning_png.PngLevel.track_ratio": LEVELS,
    "work.Instructions.track_d1_misses": WORK,
    "work.Instructions.track_instructions": WORK,
    "work.Instructions.track_ll_misses": WORK,
    "work.Memory.track_peak_memory": (
        [BACKENDS, [repr(name) for name in counts.READING]],
        WORK[1],
    ),
    "work.PlainInstructions.track_d1_misses": PLAIN_WORK,
    "work.PlainInstructions.track_instructions": PLAIN_WORK,
    "work.PlainInstructions.track_ll_misses": PLAIN_WORK,
    "work.PlainSystemCalls.track_bytes_read": PLAIN_WORK,
    "work.PlainSystemCalls.track_bytes_written": PLAIN_WORK,
    "work.PlainSystemCalls.track_syncs": PLAIN_WORK,
    "work.PlainSystemCalls.track_syscalls": PLAIN_WORK,
    "work.SystemCalls.track_bytes_read": WORK,
    "work.SystemCalls.track_bytes_written": WORK,
    "work.SystemCalls.track_syncs": WORK,
    "work.SystemCalls.track_syscalls": WORK,
}
# What tests/test_work.py runs, and tests/test_loader_benchmarks.py where torch is installed.
COUNTED = {name for name in EXPECTED if name.startswith(("work.", "loaders."))}
WRITES = [name for name in EXPECTED if ".time_write" in name or ".time_append" in name]


@cache
def found() -> dict[str, Any]:
    """Return the benchmarks as asv finds them, by name."""
    return {benchmark.name: benchmark for benchmark in disc_benchmarks(ROOT)}


def smallest(name: str) -> list[tuple[Any, ...]]:
    """Return the smallest parameters of a benchmark; it is run with one image where it can be."""
    chosen: list[list[Any]] = []
    for values, parameter in zip(*EXPECTED[name], strict=True):
        accepted = [literal_eval(value) for value in values]
        if parameter == "count" and "PeakRead" not in name:  # whose stores are made before
            accepted = [1]
        chosen.append(accepted if parameter in ("backend", "store") else accepted[:1])
    return list(product(*chosen))


# These choose what they read from 1,000 images.
OF_1000 = {"OneHdf5", "OnePng", "PlainBatches", "PlainOne", "ReadOne", "ReadRun"}


@pytest.fixture
def few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give asv's working directory, where a `setup_cache` makes 1,000 images at most."""
    monkeypatch.setattr(
        datasets, "load", lambda count, size=32: _synthetic(min(count, 1_000), size)
    )
    # Nothing is measured: a disk that is busy with something else is not waited for.
    monkeypatch.setattr(os, "sync", lambda: None, raising=False)
    monkeypatch.setattr(concurrency, "CPU_SAMPLES", 1)
    monkeypatch.delenv(datasets.VARIABLE, raising=False)
    monkeypatch.delenv("ASV_ENV_DIR", raising=False)
    # For other processes, in another directory: the package may not be installed.
    monkeypatch.setenv("PYTHONPATH", str(Path(storage_impl.__file__).parent.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what the tests of a module share, as the benchmarks of a run do: images and stores."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def shared_images(
    few_images: Path,
    run_directory: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Give asv's working directory, the same for all benchmarks of a file that need as many images.

    Where a benchmark chooses some of 1,000 images they are 1,000, else 200.
    """
    file, name, _ = request.node.callspec.params["name"].split(".")
    most = 1_000 if name in OF_1000 else 200
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda count, *size: load(min(count, most), *size))
    directory = run_directory / f"{file}-{most}"
    directory.mkdir(exist_ok=True)
    monkeypatch.chdir(directory)
    return directory


_synthetic = cache(datasets.synthetic.make)


def benchmark_of(name: str, parameters: tuple[Any, ...]) -> Any:
    """Return a benchmark as asv runs it in a process of its own: one sample."""
    once = {"number": 1, "repeat": 1, "rounds": 1, "warmup_time": 0, "min_run_count": 1}
    index = "-0" if EXPECTED[name][0] else ""
    benchmark = get_benchmark_from_name(ROOT, name + index, extra_params=once)
    benchmark._current_params = parameters
    benchmark.do_setup_cache()
    return benchmark


def run(benchmark: Any) -> Any:
    """Return what asv records, with its setup and teardown around."""
    if benchmark.do_setup():
        pytest.skip("n/a here: its package is of another environment, or the system cannot do it")
    try:
        return benchmark.do_run()
    finally:
        benchmark.do_teardown()


def test_names_and_parameters() -> None:
    """The benchmarks are these and no others, with these parameters, backend first."""
    assert {name: (b.params, b.param_names) for name, b in found().items()} == EXPECTED


def test_backends_are_those_of_the_package() -> None:
    """The parameters are literal, and name every backend in the registry's order."""
    assert tuple(storage_impl.BACKENDS) == common.BACKENDS


def test_enough_samples() -> None:
    """A difference can become significant."""
    for name, benchmark in found().items():
        if benchmark.type == "time":
            assert benchmark.rounds * benchmark.repeat >= 10, name


@pytest.mark.parametrize("name", WRITES)
def test_writes_are_measured_one_by_one(name: str) -> None:
    """A sample is one write into a new store, and nothing is written before the samples."""
    benchmark = found()[name]
    assert benchmark.number == 1
    assert benchmark.warmup_time == 0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("many_images.ReadMany.time_read", ("hdf5", 100_000)),
        ("floor.RawFile.time_write", (100_000,)),
        ("image_size.WriteSize.time_write_6mib", ("hdf5", 512)),
        ("memory.PeakWrite.peakmem_write_many", ("hdf5", 200_000)),
    ],
)
def test_large_parameters_are_asked_for(
    name: str, parameters: tuple[Any, ...], few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes long is n/a, and makes nothing, unless a variable asks for it."""
    monkeypatch.delenv(common.LARGE, raising=False)
    benchmark = benchmark_of(name, parameters)
    assert benchmark.do_setup() is True
    benchmark.do_teardown()
    assert {path.name for path in few_images.iterdir()} == {"images.npy", "labels.npy"}
    monkeypatch.setenv(common.LARGE, "1")
    benchmark = benchmark_of(name, parameters)
    assert benchmark.do_setup() is False
    assert benchmark.func.__self__.repeat == common.ENOUGH
    benchmark.do_teardown()


def test_names_say_how_many_images() -> None:
    """A call that does not handle one image, or what a parameter says, has it in its name."""
    for name, benchmark in found().items():
        images = getattr(benchmark, "images", 1)
        if "count" not in benchmark.param_names and images != 1 and "Latency" not in name:
            assert str(images) in name.rpartition(".")[2], name
        if hasattr(benchmark, "bytes"):
            assert name.endswith({6 << 20: "_6mib", 3 << 18: "_768kib"}[benchmark.bytes]), name


def test_a_class_is_chosen_by_its_name() -> None:
    """What `--bench` is given as the name of a class chooses no other class, too."""
    shared = {"Disk", "Instructions", "Memory", "Png", "SystemCalls"}  # what several are about
    classes = {name.split(".")[1] for name in EXPECTED} - shared
    for name in classes:
        assert [other for other in classes if name in other] == [name]


def test_units() -> None:
    """What is tracked are bytes, seconds, or how much more is stored or written than was given."""
    names = [name for name in EXPECTED if name not in COUNTED]
    units = {b.unit for name in names if (b := found()[name]).type == "track"}
    assert units == {"bytes", "seconds", "file bytes/raw", "stored/raw", "written/given"}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [(name, p) for name in EXPECTED if name not in COUNTED for p in smallest(name)],
)
def test_runs(name: str, parameters: tuple[Any, ...], shared_images: Path) -> None:
    """Every benchmark runs with its smallest parameters, and leaves no scratch behind."""
    before = set(os.listdir())
    result = run(benchmark_of(name, parameters))
    if ".time_" in name or ".timeraw_" in name:
        assert len(result["samples"]) == 1
        assert result["samples"][0] > 0
    else:
        assert result > 0
    # What is shared by the benchmarks of a run stays: the images, and stores to read.
    kept = set(os.listdir()) - before - {"images.npy", "labels.npy"}
    assert all(
        entry.split("-")[0]
        in (*common.BACKENDS, "floor", "images", "photos", "plain", "read", "tuning")
        for entry in kept
    )


@pytest.mark.parametrize(
    "name", ["single_image.WriteOne.time_write", "many_images.WriteMany.time_write"]
)
@pytest.mark.parametrize("backend", common.BACKENDS)
def test_a_write_writes(name: str, backend: str, few_images: Path) -> None:
    """What is timed leaves all images in a store that was empty, and that syncs nothing."""
    count = 7 if "Many" in name else 1
    benchmark = benchmark_of(name, (backend, 7)[: len(EXPECTED[name][1])])
    benchmark.do_setup()
    store = benchmark.func.__self__.store
    assert len(store) == 0
    assert not store.durable
    benchmark.do_run()
    with storage_impl.open_store(store.path) as reader:
        images, labels = reader.read_many()
    expected_images, expected_labels = datasets.load(count)
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)
    benchmark.do_teardown()
    assert not store.path.exists()


@pytest.mark.parametrize("backend", common.BACKENDS)
def test_a_read_reads(backend: str, few_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed reads everything at once, or as many images as the reports divide by."""
    many = benchmark_of("many_images.ReadMany.time_read", (backend, 7))
    many.do_setup()
    one = benchmark_of("single_image.ReadOne.time_read_100", (backend,))
    one.do_setup()
    seen: list[int] = []
    store_class = storage_impl.ImageStore
    read_many, read_one = store_class.read_many, store_class.read_one

    def count_many(store: Any) -> Any:
        images, labels = read_many(store)
        seen.append(len(images))
        return images, labels

    def count_one(store: Any, index: int) -> Any:
        seen.append(1)
        return read_one(store, index)

    monkeypatch.setattr(store_class, "read_many", count_many)
    monkeypatch.setattr(store_class, "read_one", count_one)
    many.do_run()
    assert seen == [7]
    seen.clear()
    one.do_run()
    assert seen == [1] * one.images
    many.do_teardown()
    one.do_teardown()


@pytest.mark.parametrize("backend", common.BACKENDS)
def test_bytes_are_those_on_disk(backend: str, few_images: Path) -> None:
    """The bytes that are tracked are what the file system says of the same store."""
    apparent = run(benchmark_of("disk_usage.DiskUsage.track_apparent", (backend, 7)))
    allocated = run(benchmark_of("disk_usage.DiskUsage.track_allocated", (backend, 7)))
    entries = [few_images / f"{backend}-7", *(few_images / f"{backend}-7").rglob("*")]
    assert apparent == sum(entry.stat().st_size for entry in entries if entry.is_file())
    assert allocated == sum(entry.stat().st_blocks * 512 for entry in entries)


LOOKED_AT = [
    "single_image.WriteOne.time_write",
    "single_image.ReadOne.time_read_100",
    "many_images.WriteMany.time_write",
    "many_images.ReadMany.time_read",
    "disk_usage.DiskUsage.track_apparent",
    "disk_usage.DiskUsage.track_allocated",
    "access_patterns.ReadLabels.time_read",
    "startup.OpenStore.time_open",
    "durability.CreateToClose.time_write_1000",
]
FLOORS_LOOKED_AT = [
    "floor.RawFile.time_write",
    "floor.Png.time_encode",
    "floor.PngFiles.time_write",
]


@pytest.mark.parametrize("name", LOOKED_AT)
@pytest.mark.parametrize("backend", common.BACKENDS)
@pytest.mark.parametrize("which", ["images", "labels"])
def test_wrong_pixels_have_no_figure(
    name: str, backend: str, which: str, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that does not give back what was written fails before anything is timed."""
    benchmark = benchmark_of(name, (backend, 1)[: len(EXPECTED[name][1])])
    store_class = storage_impl.ImageStore
    read_many = store_class.read_many

    def wrong(store: Any) -> Any:
        images, labels = read_many(store)
        return (images ^ 1, labels) if which == "images" else (images, labels + 1)

    monkeypatch.setattr(store_class, "read_many", wrong)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()
    assert {path.name for path in few_images.iterdir()} == {"images.npy", "labels.npy"}


@pytest.mark.parametrize("name", FLOORS_LOOKED_AT)
def test_a_floor_of_wrong_pixels_has_no_figure(
    name: str, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A floor is a floor only of the same pixels."""
    benchmark = benchmark_of(name, (3,))
    decode, read = floor.decode, floor.RawFile.read
    monkeypatch.setattr(floor, "decode", lambda data: decode(data) ^ 1)
    monkeypatch.setattr(floor.RawFile, "read", lambda raw: read(raw) ^ 1)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()
    assert not [path for path in few_images.iterdir() if path.name.startswith("tmp")]


class Counted(np.ndarray[Any, Any]):
    """An array that counts what is done with the whole of it."""

    calls: Counter[str]

    def copy(self, *arguments: Any, **options: Any) -> Any:
        self.calls["copy"] += 1
        return super().copy(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "floor.RawFile.time_write": {},
        "floor.RawFile.time_read": {"read": 1},
        "floor.Memory.time_copy": {"copy": 1},
        "floor.Png.time_encode": {"encode": 3},
        "floor.Png.time_decode": {"decode": 3},
        "floor.PngFiles.time_write": {"encode": 3},
        "floor.PngFiles.time_read": {"decode": 3},
    }.items(),
)
def test_a_floor_does_all_the_work_once(
    name: str, expected: dict[str, int], few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is timed handles each image once, and nothing else."""
    benchmark = benchmark_of(name, (3,))
    benchmark.do_setup()
    calls: Counter[str] = Counter()
    for owner, function in ((floor, "encode"), (floor, "decode"), (floor.RawFile, "read")):
        original = getattr(owner, function)

        def count(*arguments: Any, of: str = function, to: Any = original) -> Any:
            calls[of] += 1
            return to(*arguments)

        monkeypatch.setattr(owner, function, count)
    instance = benchmark.func.__self__
    instance.images = instance.images.view(Counted)
    instance.images.calls = calls
    benchmark.do_run()
    monkeypatch.undo()
    assert calls == expected
    if name == "floor.RawFile.time_write":
        assert (instance.scratch / "empty").read_bytes() == instance.images.tobytes()
    if name.startswith("floor.PngFiles"):
        directory = instance.scratch if "write" in name else instance.stored
        assert len(list(directory.iterdir())) == 3
    benchmark.do_teardown()


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("floor.One")])
def test_a_floor_of_single_images_reads_as_many(name: str, few_images: Path) -> None:
    """It reads the images that `ReadOne` reads, in that order, and the pixels are theirs."""
    benchmark = benchmark_of(name, ())
    benchmark.do_setup()
    instance = benchmark.func.__self__
    read, seen = instance.read, []

    def remember(index: int) -> Any:
        seen.append(index)
        np.testing.assert_array_equal(read(index), instance.images[index])

    instance.read = remember
    benchmark.do_run()
    assert tuple(seen) == single_image.ReadOne.indices
    assert len(seen) == benchmark.images
    benchmark.do_teardown()


def test_scratch_is_removed_after_a_failure(
    few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails while it is timed leaves nothing behind."""
    benchmark = benchmark_of("many_images.WriteMany.time_write", ("png", 1))
    benchmark.do_setup()

    def fail(*_: Any) -> None:
        raise OSError("disk on fire")

    monkeypatch.setattr(storage_impl.ImageStore, "write_many", fail)
    with pytest.raises(OSError, match="disk on fire"):
        benchmark.do_run()
    benchmark.do_teardown()
    assert {path.name for path in few_images.iterdir()} == {"images.npy", "labels.npy"}


def test_floors_exist() -> None:
    """Each backend's floor is a benchmark with the same counts, images a call and warm-up."""
    benchmarks = found()
    with_floors = {name: b for name, b in benchmarks.items() if hasattr(b, "floors")}
    assert {"WriteMany", "ReadMany", "ReadOne"} <= {name.split(".")[1] for name in with_floors}
    for benchmark in with_floors.values():
        assert list(benchmark.floors) == list(common.BACKENDS)
        for name in benchmark.floors.values():
            least = benchmarks[name]
            assert least.params == benchmark.params[1:]
            assert least.warmup_time == benchmark.warmup_time
            assert getattr(least, "images", None) == getattr(benchmark, "images", None)


def test_plain_code_does_the_same_work() -> None:
    """What plain code is compared with exists, for every backend, with the same parameters."""
    benchmarks = found()
    compared = {name: b for name, b in benchmarks.items() if hasattr(b, "plain")}
    assert len(compared) == len({b.plain for b in compared.values()}) == 7
    for benchmark in compared.values():
        other = benchmarks[benchmark.plain]
        assert other.param_names == ["store", *benchmark.param_names[1:]]
        assert set(BACKENDS) <= set(other.params[0])
        for values, those in zip(other.params[1:], benchmark.params[1:], strict=True):
            assert set(values) <= set(those)
        assert hasattr(other, "images") == hasattr(benchmark, "images")
        assert other.unit == benchmark.unit
        if benchmark.type == "time":
            assert other.warmup_time == benchmark.warmup_time or benchmark.warmup_time == 0


def environment(directory: Path, monkeypatch: pytest.MonkeyPatch, **requirements: str) -> None:
    """Make an environment of asv's that names these versions, and run in it."""
    content = {"tool_name": "virtualenv", "python": "3.11", "requirements": requirements}
    (directory / "asv-env-info.json").write_text(json.dumps(content))
    monkeypatch.setenv("ASV_ENV_DIR", str(directory))


def test_versions_named_are_those_that_run(
    few_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is measured in an environment that is not what the results would call it."""
    benchmark = benchmark_of("many_images.ReadMany.time_read", ("png", 1))
    environment(tmp_path, monkeypatch, numpy=np.__version__)
    run(benchmark)
    benchmark = benchmark_of("many_images.ReadMany.time_read", ("png", 1))
    environment(tmp_path, monkeypatch, numpy="0.0.1")
    with pytest.raises(RuntimeError, match=f"name numpy 0.0.1, but {np.__version__} is installed"):
        benchmark.do_setup()


def test_configuration_pins_every_requirement() -> None:
    """asv.conf.json names one exact version of all that storage_impl imports, and no Python."""
    conf = json5.loads((Path(ROOT).parent / "asv.conf.json").read_text())
    required = conf["matrix"]["req"]
    assert {"numpy", "xxhash", "Pillow", "lmdb", "h5py", "pip+asv_runner"} == set(required)
    for versions in required.values():
        (version,) = versions
        assert all(part.isdigit() for part in version.split("."))
    assert "pythons" not in conf
