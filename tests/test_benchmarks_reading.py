"""Benchmarks of access patterns, concurrency, memory and starting: what the timed part does."""

import gc
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, cycle, product
from pathlib import Path
from typing import Any

import asv
import numpy as np
import pytest

import storage_impl
from benchmarks import common, concurrency, datasets, workers
from benchmarks.workers import Reader, Workers, Writer
from storage_impl import ImageStore
from tests import test_benchmarks
from tests.samples import images_of, labels_of
from tests.test_benchmarks import benchmark_of, run

pytestmark = [
    pytest.mark.unmeasured,
    # Python 3.12 and later warn of any fork, for numpy's library starts threads of its own.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

SHAPE = (4, 4, 3)
LIMIT = 60  # seconds; reached only where something hangs
STARTS = multiprocessing.get_all_start_methods()

READS = [
    "access_patterns.ReadBatches.time_read_10000",
    "access_patterns.ReadFolds.time_read_9000",
    "access_patterns.Latency.track_p50",
    "access_patterns.ReadRun.time_read_1000",
    "concurrency.ReadBesideWriter.time_read_25000",
    "concurrency.ReadOwnStores.time_read_5000",
    "concurrency.ReadProcesses.time_read_5000",
    "concurrency.ReadThreads.time_read_5000",
    "concurrency.StartProcess.time_start",
    "memory.PeakRead.peakmem_batches",
    "memory.PeakRead.peakmem_read_many",
]

few_images = test_benchmarks.few_images
run_directory, shared_images = test_benchmarks.run_directory, test_benchmarks.shared_images

needs_fork = pytest.mark.skipif("fork" not in STARTS, reason="needs processes that are forked")


def small(count: int) -> tuple[Any, Any]:
    """Return images that are small, each unlike the others."""
    return images_of(count, SHAPE), labels_of(count)


@pytest.fixture
def small_images(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give asv's working directory, where a `setup_cache` makes 200 small images at most."""
    monkeypatch.setattr(datasets, "load", lambda count: small(min(count, 200)))
    return few_images


@pytest.fixture
def all_images(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give asv's working directory, where a `setup_cache` makes 10,000 small images."""
    monkeypatch.setattr(datasets, "load", small)
    return few_images


class Calls:
    """What is read of stores, in this process and in its forks."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.clear()
        read_one, read_many = ImageStore.read_one, ImageStore.read_many

        def noted_one(store: ImageStore, index: Any) -> Any:
            self.note(store, [index])
            return read_one(store, index)

        def noted_many(store: ImageStore, indices: Any = None, **options: Any) -> Any:
            wanted = slice(None) if indices is None else indices
            self.note(store, np.arange(len(store))[wanted].tolist())
            return read_many(store, indices, **options)

        monkeypatch.setattr(ImageStore, "read_one", noted_one)
        monkeypatch.setattr(ImageStore, "read_many", noted_many)

    def note(self, store: ImageStore, indices: list[int]) -> None:
        line = json.dumps([os.getpid(), store.path.name, indices]) + "\n"
        with open(self.path, "ab", buffering=0) as file:
            file.write(line.encode())

    def clear(self) -> None:
        self.path.write_bytes(b"")

    def __iter__(self) -> Iterator[tuple[int, str, list[int]]]:
        return map(json.loads, self.path.read_text().splitlines())

    def indices(self) -> list[list[int]]:
        """Return what each call read."""
        return [indices for _, _, indices in self]


@pytest.fixture
def calls(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Give what is read of stores from here on."""
    return Calls(tmp_path_factory.mktemp("calls") / "calls", monkeypatch)


def combinations(
    *names: str, backends: tuple[str, ...] = common.BACKENDS
) -> list[tuple[str, tuple[Any, ...]]]:
    """Return each benchmark with all its parameters, the backends taking turns."""
    found = []
    turns = cycle(backends)
    for name in names:
        values = [map(test_benchmarks.literal_eval, v) for v in test_benchmarks.EXPECTED[name][0]]
        found += [(name, (next(turns), *others)) for others in product(*values[1:])]
    return found


def fits(parameters: tuple[Any, ...]) -> bool:
    """Whether the system has the start method that these parameters name, if they do."""
    return not any(p in concurrency.STARTS and p not in STARTS for p in parameters)


def whole(benchmark: Any) -> None:
    """Run a benchmark, and undo what its setup did even if that fails."""
    try:
        benchmark.do_setup()
        benchmark.do_run()
    finally:
        benchmark.do_teardown()


@pytest.mark.parametrize(
    ("name", "parameters"),
    combinations(
        *[name for name in READS if "memory" not in name],
        "concurrency.ReadBesideWriter.track_cpu_1000",
        "concurrency.ReadOwnStores.track_cpu_5000",
        "concurrency.ReadProcesses.track_cpu_5000",
        "concurrency.ReadThreads.track_cpu_5000",
        "concurrency.WriteSeveral.time_write_2000",
        "concurrency.WriteSeveral.track_cpu_2000",
    ),
)
def test_runs_with_all_parameters(
    name: str, parameters: tuple[Any, ...], all_images: Path, shared_images: Path
) -> None:
    """Every benchmark runs with each of its parameters, where the system has that start method."""
    benchmark = benchmark_of(name, parameters)
    skipped = benchmark.do_setup()
    assert skipped == any(
        start in concurrency.STARTS and start not in STARTS for start in parameters
    )
    if not skipped:
        result = benchmark.do_run()
        assert (result["samples"][0] if isinstance(result, dict) else result) > 0
    benchmark.do_teardown()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *combinations(
            "access_patterns.ReadBatches.time_read_10000",
            "access_patterns.ReadFolds.time_read_9000",
            "access_patterns.ReadRun.time_read_1000",
            "concurrency.ReadThreads.time_read_5000",
            backends=("lmdb", "hdf5"),  # 10,000 files take their time
        ),
        *(("concurrency.ReadProcesses.time_read_5000", ("hdf5", "fork", n)) for n in (1, 2, 4)),
        *(("concurrency.ReadOwnStores.time_read_5000", ("lmdb", n)) for n in (2, 4)),
        *(("concurrency.ReadBesideWriter.time_read_25000", ("lmdb", n)) for n in (0, 1)),
        ("concurrency.StartProcess.time_start", ("lmdb", "fork")),
    ],
)
@needs_fork
def test_as_many_images_are_read_as_the_reports_divide_by(
    name: str, parameters: tuple[Any, ...], all_images: Path, calls: Calls
) -> None:
    """What is timed reads that many images: each once, or in each of 25 turns."""
    benchmark = benchmark_of(name, parameters)
    benchmark.do_setup()
    calls.clear()
    benchmark.do_run()
    read = [(path, index) for _, path, indices in calls for index in indices]
    assert len(read) == benchmark.images
    assert len(set(read)) == benchmark.images / (25 if "BesideWriter" in name else 1)
    benchmark.do_teardown()


@pytest.mark.parametrize("batch", [32, 256])
def test_batches_come_in_the_order_that_is_named(
    batch: int, all_images: Path, calls: Calls
) -> None:
    """In order, with a step, sorted within a batch, or not at all; no batch is too large."""
    steps = {}
    for order in ("in order", "strided", "sorted", "shuffled"):
        benchmark = benchmark_of(
            "access_patterns.ReadBatches.time_read_10000", ("lmdb", order, batch)
        )
        benchmark.do_setup()
        calls.clear()
        benchmark.do_run()
        benchmark.do_teardown()
        batches = calls.indices()
        assert len(batches) == -(-10_000 // batch)
        assert max(map(len, batches)) <= batch
        steps[order] = np.concatenate([np.diff(indices) for indices in batches])
    assert set(steps["in order"]) == {1}
    assert set(steps["strided"]) == {-(-10_000 // batch)}
    assert steps["sorted"].min() > 0
    assert len(set(steps["sorted"])) > 100
    assert steps["shuffled"].min() < 0 < steps["shuffled"].max()


def test_a_run_is_read_in_the_way_that_is_named(all_images: Path, calls: Calls) -> None:
    """The same neighbours in one call or in 1,000, which hold all images at the end."""
    wanted = list(range(4_500, 5_500))
    found = {}
    for how in ("slice", "list", "one by one"):
        benchmark = benchmark_of("access_patterns.ReadRun.time_read_1000", ("hdf5", how))
        benchmark.do_setup()
        calls.clear()
        benchmark.do_run()
        benchmark.do_teardown()
        found[how] = calls.indices()
    assert found == {
        "slice": [wanted],
        "list": [wanted],
        "one by one": [[index] for index in wanted],
    }


def test_an_epoch_reads_all_folds_but_one(all_images: Path, calls: Calls) -> None:
    """Nine folds, from nine stores of 1,000 or from one of 10,000; the fourth is held out."""
    for stores in (10, 1):
        benchmark = benchmark_of("access_patterns.ReadFolds.time_read_9000", ("lmdb", stores))
        benchmark.do_setup()
        calls.clear()
        benchmark.do_run()
        benchmark.do_teardown()
        folds = [range(i, i + 1_000) for i in range(0, 10_000, 1_000) if i != 3_000]
        paths = {path for _, path, _ in calls}
        if stores == 1:
            assert calls.indices() == [list(fold) for fold in folds]
            assert len(paths) == 1
        else:
            assert calls.indices() == [list(range(1_000))] * 9
            assert len(paths) == 9


def test_percentiles_are_of_single_calls(
    all_images: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 10,000 images is read thrice by itself, in random order, between looks at a clock."""
    times = iter([moment for n in range(30_000) for moment in (n * 10**6, n * 10**6 + n)])
    found = {}
    for rank in (50, 95, 99):
        benchmark = benchmark_of(f"access_patterns.Latency.track_p{rank}", ("hdf5",))
        with monkeypatch.context() as clock:
            clock.setattr(time, "perf_counter_ns", lambda: next(times))
            found[rank] = run(benchmark)
    assert next(times, None) is None
    expected = {rank: np.percentile(np.arange(30_000), rank) / 1e9 for rank in found}
    assert found == pytest.approx(expected)
    singles = [index for indices in calls.indices() if len(indices) == 1 for index in indices]
    looked_at, timed = singles[:10_000], singles[10_000:]
    assert sorted(looked_at) == list(range(10_000)) != looked_at
    assert timed == looked_at * 3  # and never for another percentile


@pytest.mark.parametrize(("kind", "expected"), [("shared", 1), ("own", 4)])
def test_threads_share_a_store_or_have_their_own(
    kind: str, expected: int, small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads read at once, each its part: of one store, or a store; and end in the end."""
    before = set(threading.enumerate())
    benchmark = benchmark_of("concurrency.ReadThreads.time_read_5000", ("lmdb", 4, kind))
    benchmark.do_setup()
    barrier = threading.Barrier(4)
    threads, stores = set(), set()
    read_many = ImageStore.read_many

    def noted(store: ImageStore, *arguments: Any, **options: Any) -> Any:
        barrier.wait(LIMIT)  # passed only when four are here at once
        threads.add(threading.get_ident())
        stores.add((id(store), store.path))
        return read_many(store, *arguments, **options)

    monkeypatch.setattr(ImageStore, "read_many", noted)
    benchmark.do_run()
    assert len(threads) == 4
    assert len(stores) == expected
    benchmark.do_teardown()
    del benchmark
    gc.collect()
    assert set(threading.enumerate()) <= before


def test_processes_read_at_the_same_time(
    small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process reads its part, and none waits for another to end."""
    if "fork" not in STARTS:
        pytest.skip("needs processes that are forked")
    barrier = multiprocessing.get_context("fork").Barrier(4)
    read = Reader.read

    def together(reader: Reader) -> None:
        barrier.wait(LIMIT)  # passed only when four are here at once
        read(reader)

    monkeypatch.setattr(Reader, "read", together)
    for name, parameters in (
        ("concurrency.ReadProcesses.time_read_5000", ("png", "fork", 4)),
        ("concurrency.ReadOwnStores.time_read_5000", ("png", 4)),
    ):
        run(benchmark_of(name, parameters))


@pytest.mark.parametrize(
    ("name", "images", "parameters"),
    [
        ("ReadThreads", 5_000, ("hdf5", 4, "shared")),
        pytest.param("ReadProcesses", 5_000, ("hdf5", "fork", 4), marks=needs_fork),
        pytest.param("ReadOwnStores", 5_000, ("hdf5", 4), marks=needs_fork),
        pytest.param("WriteSeveral", 2_000, ("hdf5", 4), marks=needs_fork),
    ],
)
def test_cpu_time_is_of_all(
    name: str,
    images: int,
    parameters: tuple[Any, ...],
    small_images: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What each of four that read or write makes a processor do counts, whatever the clock says."""
    for method in ("read_many", "write_many"):
        original = getattr(ImageStore, method)

        def busy(*arguments: Any, original: Any = original, **options: Any) -> Any:
            end = time.thread_time() + 0.05
            while time.thread_time() < end:
                pass
            return original(*arguments, **options)

        monkeypatch.setattr(ImageStore, method, busy)
    assert run(benchmark_of(f"concurrency.{name}.track_cpu_{images}", parameters)) >= 4 * 0.05


@needs_fork
@pytest.mark.parametrize("backend", common.BACKENDS)
def test_the_writer_writes_while_the_reader_reads(backend: str, small_images: Path) -> None:
    """With a writer the store grows under the reader, who sees what there was; else it does not."""
    for writers in (0, 1):
        benchmark = benchmark_of("concurrency.ReadBesideWriter.time_read_25000", (backend, writers))
        benchmark.do_setup()
        instance = benchmark.func.__self__
        benchmark.do_run()
        with storage_impl.open_store(instance.store.path) as store:
            assert (len(store) > 200) == bool(writers)
        assert len(instance.store) == 200
        if writers:
            instance.writers.start("write_on")  # which ends the first, and begins
            assert instance.writers.results() >= [1]
            assert instance.writers.results() == [None]
        benchmark.do_teardown()
        assert not instance.store.path.exists()


@needs_fork
@pytest.mark.parametrize("backend", common.BACKENDS)
@pytest.mark.parametrize("writers", [1, 2, 4])
def test_several_write_their_parts(backend: str, writers: int, all_images: Path) -> None:
    """Each process writes its part of 2,000 images into an empty store of its own, unsynced."""
    benchmark = benchmark_of("concurrency.WriteSeveral.time_write_2000", (backend, writers))
    benchmark.do_setup()
    scratch = benchmark.func.__self__.scratch
    found = []
    for expected in (0, 2_000):
        found = []
        for path in scratch.iterdir():
            with storage_impl.open_store(path) as store:
                assert not store.durable
                found.append(store.read_many()[1])
        assert len(found) == writers
        assert sum(map(len, found)) == expected
        if not expected:
            benchmark.do_run()
    assert {len(labels) for labels in found} == {2_000 // writers}
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.sort(labels_of(2_000)))
    assert benchmark.images == 2_000
    benchmark.do_teardown()
    assert not scratch.exists()


@needs_fork
def test_several_that_write_wrong_pixels_have_no_figure(
    small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the processes wrote is read back before anything is timed."""
    write_many = ImageStore.write_many
    monkeypatch.setattr(
        ImageStore,
        "write_many",
        lambda store, images, labels: write_many(store, images ^ 1, labels),
    )
    benchmark = benchmark_of("concurrency.WriteSeveral.time_write_2000", ("hdf5", 2))
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()
    assert {path.name for path in small_images.iterdir()} == {"images.npy", "labels.npy"}


@pytest.mark.parametrize(
    ("name", "backend", "which"),
    [
        (name, backend, which)
        for turn, name in enumerate(READS)
        for which, backend in zip(
            ("images", "labels", "nothing"), np.roll(common.BACKENDS, turn).tolist(), strict=True
        )
    ],
)
def test_a_wrong_store_has_no_figure(
    name: str, backend: str, which: str, small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that holds other images, other labels or nothing fails, and leaves no scratch."""
    stored = common.StoreSuite.stored
    planted: set[Path] = set()

    def plant(suite: Any, backend: str, part: slice = slice(None)) -> Path:
        path = Path(stored(suite, backend, part))
        if path not in planted:
            images, labels = suite.images[part], suite.labels[part]
            if which == "images":
                images = images[::-1]
            elif which == "labels":
                labels = labels + 1
            else:
                images, labels = images[:0], labels[:0]
            shutil.rmtree(path)
            with storage_impl.create_store(path, backend, image_shape=SHAPE) as store:
                store.write_many(images, labels)
            planted.add(path)
        return path

    monkeypatch.setattr(common.StoreSuite, "stored", plant)
    ((_, parameters),) = [c for c in combinations(name) if fits(c[1])][:1]
    benchmark = benchmark_of(name, (backend, *parameters[1:]))
    with pytest.raises((RuntimeError, ValueError)):
        whole(benchmark)
    assert planted
    kept = {path.name for path in small_images.iterdir()} - {"images.npy", "labels.npy"}
    assert all(entry.startswith((*common.BACKENDS, "read")) for entry in kept)


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("backend", common.BACKENDS)
@needs_fork
def test_a_backend_that_reads_nothing_has_no_figure(
    name: str, backend: str, small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that leaves the caller's memory as it was fails, whatever is there from before."""
    ((_, parameters),) = combinations(name)[:1]
    parameters = (backend, *parameters[1:])
    run(benchmark_of(name, parameters))  # which makes the store
    (small_images / f"{backend}-latencies.npy").unlink(missing_ok=True)
    benchmark = benchmark_of(name, parameters)

    def nothing(store: ImageStore, indices: Any = None, *, out: Any = None) -> Any:
        count = len(np.arange(len(store))[slice(None) if indices is None else indices])
        return np.zeros((count, *SHAPE), np.uint8) if out is None else out, np.zeros(count, int)

    monkeypatch.setattr(ImageStore, "read_many", nothing)
    monkeypatch.setattr(ImageStore, "read_one", lambda *_: (np.zeros(SHAPE, np.uint8), 0))
    monkeypatch.setattr(ImageStore, "batches", lambda store, *_, **__: iter([nothing(store)]))
    with pytest.raises(RuntimeError, match="differs from what was written"):
        whole(benchmark)


@pytest.mark.parametrize(
    "name", ["memory.PeakRead.peakmem_batches", "memory.PeakRead.peakmem_read_many"]
)
def test_memory_is_that_of_reading(
    name: str, few_images: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is read, at once or 256 by 256, by a process that has no images of its own."""
    monkeypatch.setattr(datasets, "load", lambda count: small(min(count, 1_000)))
    for backend in common.BACKENDS:
        benchmark = benchmark_of(name, (backend, 10_000))
        calls.clear()
        benchmark.do_setup()
        assert len(benchmark.func.__self__.images) == 1
        assert calls.indices() == []
        benchmark.do_run()
        assert list(chain(*calls.indices())) == list(range(1_000))
        sizes = {len(indices) for indices in calls.indices()}
        assert sizes == ({1_000} if "read_many" in name else {256, 1_000 % 256})
        benchmark.do_teardown()


@pytest.mark.parametrize("which", ["images", "fewer"])
def test_memory_is_that_of_writing(
    which: str, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a generator gave is read back before its figure counts."""
    name, parameters = "memory.PeakWrite.peakmem_write_many", ("hdf5", 50)
    whole(benchmark_of(name, parameters))
    write_many = ImageStore.write_many

    def wrong(store: ImageStore, images: Any, labels: Any) -> Any:
        if which == "fewer":
            return write_many(store, list(images)[1:], list(labels)[1:])
        return write_many(store, np.stack(list(images)) ^ 1, list(labels))

    monkeypatch.setattr(ImageStore, "write_many", wrong)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        whole(benchmark_of(name, parameters))


@pytest.mark.parametrize(
    ("name", "expected"),
    {"storage_impl": set(), "png": {"PIL"}, "lmdb": {"lmdb"}, "hdf5": {"h5py"}}.items(),
)
def test_what_is_imported(name: str, expected: set[str], few_images: Path) -> None:
    """An import is timed in a Python that has nothing of it yet, and brings its library alone."""
    if name == "storage_impl":
        statement = benchmark_of("startup.ImportPackage.timeraw_import", ()).func()
    else:
        statement = benchmark_of("startup.ImportBackend.timeraw_import", (name,)).func(name)
    code = (
        "import sys, timeit\n"
        "before = set(sys.modules)\n"
        f"timeit.timeit({statement!r}, number=1)\n"
        "wanted = {'storage_impl', 'numpy', 'PIL', 'lmdb', 'h5py'}\n"
        "assert not wanted & before\n"
        "print(*wanted & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"storage_impl", "numpy"} | expected


# -- processes -------------------------------------------------------------------------------


@pytest.fixture
def children() -> Callable[[], set[Any]]:
    """Give the processes that were started since, and have not ended."""
    before = set(multiprocessing.active_children())
    return lambda: set(multiprocessing.active_children()) - before


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    """Give a store of 10 small images."""
    path = tmp_path / "store"
    with storage_impl.create_store(path, "hdf5", image_shape=SHAPE, durable=False) as store:
        store.write_many(*small(10))
        yield store


@pytest.mark.parametrize("method", STARTS)
def test_workers_end_when_nobody_uses_them(
    method: str, store: ImageStore, children: Callable[[], set[Any]]
) -> None:
    """Processes of each start method read their parts, and are gone with what started them."""
    started = Workers(method, Reader, [(store, slice(0, 5)), (store, slice(5, 10))])
    started.call("read")
    images, labels = zip(*started.call("held"), strict=True)
    np.testing.assert_array_equal(np.concatenate(images), images_of(10, SHAPE))
    np.testing.assert_array_equal(np.concatenate(labels), labels_of(10))
    assert len(children()) == 2
    del started
    gc.collect()
    assert children() == set()


@pytest.mark.parametrize("method", STARTS)
def test_workers_fail_for_all_to_see(
    method: str, store: ImageStore, children: Callable[[], set[Any]]
) -> None:
    """What goes wrong in a process is raised here, and leaves none behind when it is the start."""
    started = Workers(method, Writer, [small(2)])
    with pytest.raises(storage_impl.StoreLockedError):
        started.call("append_to", store.path)
    with pytest.raises(AttributeError, match="discard_all"):
        started.call("discard_all")
    started.end()
    with pytest.raises(TypeError, match="unexpected|takes"):
        Workers(method, Reader, [(store, slice(0, 5)), (store, slice(5), "too many")])
    assert children() == set()


def test_workers_of_another_package_are_refused(
    store: ImageStore, children: Callable[[], set[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that would measure another copy of the package than this one measure nothing."""
    monkeypatch.setattr(workers.storage_impl, "__file__", "/another/storage_impl/__init__.py")
    with pytest.raises(RuntimeError, match="another package"):
        Workers("spawn", Reader, [(store, slice(5))])
    assert children() == set()


@pytest.mark.parametrize("name", ["ReadProcesses.time_read_5000", "StartProcess.time_start"])
def test_a_start_method_that_is_missing_is_not_measured(
    name: str, small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system cannot start processes in that way, the benchmark is n/a and no failure."""
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["other"])
    parameters = ("hdf5", "spawn", 2) if "Processes" in name else ("hdf5", "spawn")
    benchmark = benchmark_of(f"concurrency.{name}", parameters)
    assert benchmark.do_setup() is True
    benchmark.do_teardown()


KILLED = """
import os, signal, sys
from pathlib import Path
import storage_impl
from benchmarks.workers import Reader, Workers, Writer
method, path = sys.argv[1:]
with storage_impl.open_store(path) as store:
    readers = Workers(method, Reader, [(store, slice(5)), (store, slice(5, 10))])
    writer = Workers(method, Writer, [(*store.read_many(),)])
writer.call("create", Path(path).parent, "hdf5")
writer.start("write_on")
print("started", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("method", STARTS)
@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_workers_end_with_a_process_that_is_killed(
    method: str, store: ImageStore, tmp_path: Path
) -> None:
    """No process outlives the one that measures, not even one that is in the midst of writing.

    And none runs the program of its parent, which would be part of what starting costs.
    """
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(Path(workers.__file__).parent.parent)}
    # The output ends when the last process that has inherited it ends.
    done = subprocess.run(
        [sys.executable, script, method, store.path],
        stdout=subprocess.PIPE,
        env=environment,
        timeout=LIMIT,
    )
    assert done.stdout == b"started\n"
    assert done.returncode == -9


@pytest.mark.parametrize("method", STARTS)
def test_workers_start_where_asv_runs_benchmarks(
    method: str, small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that asv starts has this package's directory nowhere, and yet starts others."""
    benchmark_of("concurrency.StartProcess.time_start", ("hdf5", method))  # makes the images
    (small_images / "cache.pickle").write_bytes(pickle.dumps(None))
    library = small_images / "library"
    library.mkdir()
    (library / "storage_impl").symlink_to(Path(storage_impl.__file__).parent)
    index = 6 + concurrency.STARTS.index(method)  # of HDF5, the third backend
    once = {"number": 1, "repeat": 1, "rounds": 1, "warmup_time": 0}
    name = f"concurrency.StartProcess.time_start-{index}"
    subprocess.run(
        [
            *(sys.executable, Path(asv.__file__).parent / "benchmark.py", "run"),
            *(test_benchmarks.ROOT, name, json.dumps(once), "None", "result.json"),
        ],
        env=os.environ | {"ASV_PYTHONPATH": str(library)},
        check=True,
        timeout=LIMIT,
    )
    assert json.loads((small_images / "result.json").read_text())["samples"][0] > 0
