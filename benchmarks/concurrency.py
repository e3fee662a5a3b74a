"""What do threads and processes gain when they read or write at the same time?

Unless a benchmark says otherwise, the readers read 5,000 images together, however many readers
there are. Each reader is running, knows its part of the images and has read it before. "CPU" is the
processor time of all of them together.
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
    """Return `number` parts of `count` images, whose sizes differ by at most one."""
    return [slice(count * i // number, count * (i + 1) // number) for i in range(number)]


def cpu_time(
    work: Callable[[], object],
    clock: Callable[[], float],
    between: Callable[[], object] = lambda: None,
) -> float:
    """Return the median CPU time of a call, by this clock and without the first call."""
    taken = []
    for _ in range(1 + CPU_SAMPLES):
        before = clock()
        work()
        taken.append(clock() - before)
        between()
    return median(taken[1:])


class ReadThreads(StoreSuite):
    """Each thread reads an equal part with `read_many`, into one array.

    The threads share one store object, or each has a store of its own with its part.
    """

    params = (BACKENDS, (1, 2, 4), ("shared", "own"))
    param_names = ("backend", "threads", "stores")
    unit = "seconds"
    warmup_time = 0.1
    count = IMAGES
    version = version(1)

    def prepare(self, backend: str, threads: int, stores: str) -> None:
        """Start the threads and open their stores, once in a process."""
        if not self.first:
            return
        self.pool = ThreadPoolExecutor(threads)
        finalize(self, self.pool.shutdown)
        # The pool starts a thread only if none is idle: each waits until all are running.
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
        """Read the part of one thread."""
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
    """Base of the benchmarks in which processes read; all samples use the same processes."""

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
    """Each process reads an equal part of one store with `read_many`.

    A forked process inherits the store, any other gets it pickled. The cost of starting a process
    is not included: see `StartProcess`.
    """

    params = (BACKENDS, STARTS, (1, 2, 4))
    param_names = ("backend", "start", "processes")
    version = version(1)

    def prepare(self, backend: str, start: str, processes: int) -> None:
        """Start the processes, once in a process."""
        if self.first:
            with storage_impl.open_store(self.stored(backend)) as store:
                self.start(start, [(store, part) for part in parts(len(store), processes)])

    @facts(images=IMAGES)
    def time_read_5000(self, backend: str, start: str, processes: int) -> None:
        """Read all images."""
        self.readers.call("read")

    @facts(images=IMAGES)
    def track_cpu_5000(self, backend: str, start: str, processes: int) -> float:
        """Return the CPU time of reading all images, and of telling the processes to read."""
        return self.cpu()


class ReadOwnStores(ProcessSuite):
    """`ReadProcesses` with fork, where each process has a store of its own with its part."""

    params = (BACKENDS, (2, 4))
    param_names = ("backend", "processes")
    version = version(1)

    def prepare(self, backend: str, processes: int) -> None:
        """Start the processes, once in a process."""
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
        """Return the CPU time of reading all images, and of telling the processes to read."""
        return self.cpu()


class StartProcess(StoreSuite):
    """Start a process, which then reads the first image of a store that is open here.

    A process that is not forked starts Python, and imports numpy, the package and the library.
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

    That process appends batches of 100 without a pause, and does not sync. The reader sees the
    images that were there when it opened the store. The CPU time is only the reader's.
    """

    params = (BACKENDS, (0, 1))
    param_names = ("backend", "writers")
    unit = "seconds"
    count = 1_000
    version = version(2)

    times = 25  # long enough for many appends, with any backend

    def prepare(self, backend: str, writers: int) -> None:
        """Copy a store, read it, and start the writer."""
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
        self.undo.callback(self.check)  # checks what the timed part read
        self.writers.call("append_to", path)
        self.undo.callback(self.stop)
        self.writers.start("write_on")
        self.writers.results()  # waits until it has begun

    def stop(self) -> None:
        """Stop the writer, and remove what it wrote."""
        self.writers.start("discard")
        self.writers.results()
        self.writers.results()

    def read(self) -> None:
        """Read the images once."""
        _, self.found_labels = self.store.read_many(out=self.found)

    def check(self, *_: Any) -> None:
        """Raise RuntimeError unless the last read returned the images."""
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
    """Each process writes an equal part of 2,000 images with `write_many`, into its own store.

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
        """Return the CPU time of writing all images, and of telling the processes to write."""
        return cpu_time(
            lambda: self.writers.call("write"),
            self.writers.cpu,
            between=lambda: self.renew(backend, writers),
        )
