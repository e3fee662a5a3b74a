"""What do threads and processes gain when they read or write at the same time?

5,000 images are read, whoever reads them. All readers are running, have their part of the images
and have read it before. "CPU" is the time that processors were busy for the whole of it.
"""

import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from threading import Barrier
from typing import Any
from weakref import finalize

import numpy as np

import storage_impl
from benchmarks.common import BACKENDS, StoreSuite, compare, facts, version
from benchmarks.workers import Reader, Workers, Writer

IMAGES = 5_000
STARTS = ("fork", "spawn", "forkserver")
CPU_SAMPLES = 9


def parts(count: int, number: int) -> list[slice]:
    """Return `number` parts of `count` images, of equal size but for one image."""
    return [slice(count * i // number, count * (i + 1) // number) for i in range(number)]


def cpu_time(
    work: Callable[[], object],
    clock: Callable[[], float],
    between: Callable[[], object] = lambda: None,
) -> float:
    """Return the median of what a clock of CPU time says that a call takes, but for the first."""
    taken = []
    for _ in range(1 + CPU_SAMPLES):
        before = clock()
        work()
        taken.append(clock() - before)
        between()
    return median(taken[1:])


class ReadThreads(StoreSuite):
    """`read_many` of an equal part by each thread, into one array.

    The threads share one store object, or the part of each is a store of its own.
    """

    params = (BACKENDS, (1, 2, 4), ("shared", "own"))
    param_names = ("backend", "threads", "stores")
    unit = "seconds"
    warmup_time = 0.1
    count = IMAGES
    version = version(1)

    def prepare(self, backend: str, threads: int, stores: str) -> None:
        """Once, start the threads and have each open its store."""
        if not self.first:
            return
        self.pool = ThreadPoolExecutor(threads)
        finalize(self, self.pool.shutdown)
        # The pool starts a thread only while none is idle: they wait until all are there.
        barrier = Barrier(threads, timeout=60)
        list(self.pool.map(lambda _: barrier.wait(), range(threads)))
        self.parts = parts(len(self.images), threads)
        if stores == "shared":
            self.stores = [self.warm_store(backend)] * threads
            self.wanted = self.parts
        else:
            paths = [self.stored(backend, part) for part in self.parts]
            self.stores = [storage_impl.open_store(path) for path in paths]
            self.wanted = [slice(None)] * threads
        self.found = np.zeros_like(self.images)
        self.found_labels = np.zeros_like(self.labels)

    def check(self, backend: str, threads: int, stores: str) -> None:
        """Raise RuntimeError unless the threads read what is stored."""
        self.read()
        compare(self.found, self.images)
        compare(self.found_labels, self.labels)

    def read(self) -> None:
        """Have all threads read."""
        list(self.pool.map(self.read_part, self.stores, self.wanted, self.parts))

    def read_part(self, store: storage_impl.ImageStore, wanted: slice, part: slice) -> None:
        """Read what one thread reads."""
        _, self.found_labels[part] = store.read_many(wanted, out=self.found[part])

    @facts(images=IMAGES)
    def time_read_5000(self, backend: str, threads: int, stores: str) -> None:
        """Read all images."""
        self.read()

    @facts(images=IMAGES)
    def track_cpu_5000(self, backend: str, threads: int, stores: str) -> float:
        """Return the CPU time of reading all images."""
        return cpu_time(self.read, time.process_time)  # of all threads


class ProcessSuite(StoreSuite):
    """Base of the benchmarks of several processes that read: these stay for all samples."""

    unit = "seconds"
    warmup_time = 0.1
    count = IMAGES

    def start(self, method: str, shares: Iterable[tuple[storage_impl.ImageStore, slice]]) -> None:
        """Start a process for each share of the images."""
        self.readers = Workers(method, Reader, shares)

    def check(self, *_: Any) -> None:
        """Raise RuntimeError unless the processes read what is stored."""
        self.readers.call("read")
        found = self.readers.call("held")
        compare(np.concatenate([images for images, _ in found]), self.images)
        compare(np.concatenate([labels for _, labels in found]), self.labels)

    def cpu(self) -> float:
        """Return the CPU time of having all processes read."""
        return cpu_time(lambda: self.readers.call("read"), self.readers.cpu)


class ReadProcesses(ProcessSuite):
    """`read_many` of an equal part by each process, of one store that is handed to all.

    A process that is forked inherits the store, any other gets it pickled. What it costs to
    start one is not counted, see `StartProcess`.
    """

    params = (BACKENDS, STARTS, (1, 2, 4))
    param_names = ("backend", "start", "processes")
    version = version(1)

    def prepare(self, backend: str, start: str, processes: int) -> None:
        """Once, start the processes."""
        if self.first:
            with storage_impl.open_store(self.stored(backend)) as store:
                self.start(start, [(store, part) for part in parts(len(store), processes)])

    @facts(images=IMAGES)
    def time_read_5000(self, backend: str, start: str, processes: int) -> None:
        """Read all images."""
        self.readers.call("read")

    @facts(images=IMAGES)
    def track_cpu_5000(self, backend: str, start: str, processes: int) -> float:
        """Return the CPU time of reading all images, and of telling the processes to."""
        return self.cpu()


class ReadOwnStores(ProcessSuite):
    """The part of each process is a store of its own: else as `ReadProcesses`, forked."""

    params = (BACKENDS, (2, 4))
    param_names = ("backend", "processes")
    version = version(1)

    def prepare(self, backend: str, processes: int) -> None:
        """Once, start the processes."""
        if self.first:
            own = [self.stored(backend, part) for part in parts(len(self.images), processes)]
            stores = [storage_impl.open_store(path) for path in own]
            self.start("fork", [(store, slice(None)) for store in stores])

    @facts(images=IMAGES)
    def time_read_5000(self, backend: str, processes: int) -> None:
        """Read all images."""
        self.readers.call("read")

    @facts(images=IMAGES)
    def track_cpu_5000(self, backend: str, processes: int) -> float:
        """Return the CPU time of reading all images, and of telling the processes to."""
        return self.cpu()


class StartProcess(StoreSuite):
    """From a store that is open here to its first image in a process that was not there.

    One that is not forked starts Python, and imports numpy, the package and the library.
    """

    params = (BACKENDS, STARTS)
    param_names = ("backend", "start")
    count = IMAGES
    version = version(2)

    def prepare(self, backend: str, start: str) -> None:
        """Open a store."""
        self.store = self.warm_store(backend)

    def check(self, backend: str, start: str) -> None:
        """Raise RuntimeError unless a process reads the image."""
        self.start(start)
        ((images, labels),) = self.readers.call("held")
        compare(images, self.images[:1])
        compare(labels, self.labels[:1])

    def start(self, method: str) -> None:
        """Start a process, and have it read an image."""
        self.readers = Workers(method, Reader, [(self.store, slice(1))])
        self.undo.callback(self.readers.end)
        self.readers.call("read")

    @facts(images=1)
    def time_start(self, backend: str, start: str) -> None:
        """Start a process, and have it read an image."""
        self.start(start)


class ReadBesideWriter(StoreSuite):
    """`read_many` of 1,000 images, 25 times, while a process appends to the same store.

    It appends a batch of 100 after the other, without a pause, and does not sync. The reader
    goes on to see what was there when it opened the store. The CPU time is the reader's alone.
    """

    params = (BACKENDS, (0, 1))
    param_names = ("backend", "writers")
    unit = "seconds"
    count = 1_000
    version = version(2)

    times = 25  # as long as many appends, with any backend

    def prepare(self, backend: str, writers: int) -> None:
        """Copy a store, read it, and have the writer write."""
        if self.first:
            batch = self.images[:100], self.labels[:100]
            self.writers = Workers("fork", Writer, [batch] * writers)
        path = self.scratch / "store"
        shutil.copytree(self.stored(backend), path)
        self.store = storage_impl.open_store(path)
        self.undo.callback(self.store.close)
        self.found = np.zeros_like(self.images)
        self.read()
        self.check()
        self.undo.callback(self.check)  # what the timed part read
        self.writers.call("append_to", path)
        self.undo.callback(self.stop)
        self.writers.start("write_on")
        self.writers.results()  # it has begun

    def stop(self) -> None:
        """Have the writer stop, and remove what it wrote."""
        self.writers.start("discard")
        self.writers.results()
        self.writers.results()

    def read(self) -> None:
        """Read the images once."""
        _, self.found_labels = self.store.read_many(out=self.found)

    def check(self, *_: Any) -> None:
        """Raise RuntimeError unless what was read last are the images."""
        compare(self.found, self.images)
        compare(self.found_labels, self.labels)

    @facts(images=1_000 * times)
    def time_read_25000(self, backend: str, writers: int) -> None:
        """Read the images 25 times."""
        for _ in range(self.times):
            self.read()

    @facts(images=1_000)
    def track_cpu_1000(self, backend: str, writers: int) -> float:
        """Return the CPU time of reading the images once."""
        return cpu_time(self.read, time.process_time)


class WriteSeveral(StoreSuite):
    """`write_many` of an equal part of 2,000 images by each process, into a store of its own.

    The stores are empty and open, and do not sync.
    """

    params = (BACKENDS, (1, 2, 4))
    param_names = ("backend", "writers")
    unit = "seconds"
    count = 2_000
    version = version(1)

    def prepare(self, backend: str, writers: int) -> None:
        """Have each process open an empty store."""
        self.shares = parts(len(self.images), writers)
        if self.first:
            batches = [(self.images[part], self.labels[part]) for part in self.shares]
            self.writers = Workers("fork", Writer, batches)
        self.paths = self.writers.call("create", self.scratch, backend)
        self.undo.callback(self.writers.call, "discard")

    def check(self, backend: str, writers: int) -> None:
        """Raise RuntimeError unless the processes write their parts."""
        self.writers.call("write")
        for path, part in zip(self.paths, self.shares, strict=True):
            with storage_impl.open_store(path) as store:
                self.compare(store, part)

    def renew(self, backend: str, writers: int) -> None:
        """Have each process open another empty store."""
        self.teardown()
        self.begin(backend, writers)

    @facts(images=2_000)
    def time_write_2000(self, backend: str, writers: int) -> None:
        """Write all images."""
        self.writers.call("write")

    @facts(images=2_000)
    def track_cpu_2000(self, backend: str, writers: int) -> float:
        """Return the CPU time of writing all images, and of telling the processes to."""
        return cpu_time(
            lambda: self.writers.call("write"),
            self.writers.cpu,
            between=lambda: self.renew(backend, writers),
        )
