"""The program that is counted: it runs each operation of a store once, between two marks.

`benchmarks.counting` runs it under valgrind, under strace or alone, in a directory with
`tasks.json`, the images and the labels. It imports the libraries once and forks for each task, so
that all tasks begin with the same memory. It imports nothing else of the project before the fork,
because each task names the directory of its own packages.
"""

import ctypes
import gc
import importlib
import json
import mmap
import os
import shutil
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py  # noqa: F401, here and below: imported before the fork, for all tasks
import lmdb
import numpy as np
import PIL.Image
import PIL.PngImagePlugin  # noqa: F401
import xxhash  # noqa: F401

BATCH = 32  # images of a shuffled batch
LONGEST_MAP = 16 << 30  # bytes
EVERY = "every operation"
# Seconds. An operation that takes longer under valgrind encodes or decodes, and the layout hardly
# changes its counts.
LONG = 0.3
CALLS = 8  # of an operation that handles one image, or none

Call = Callable[..., Any]

# Valgrind treats these instructions as a request; without valgrind they do nothing.
_REQUEST = bytes.fromhex("4889f8 4889f2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")
_CALLGRIND = 0x43540000  # "CT", the prefix of callgrind's requests
_ZERO, _DUMP, _START, _STOP = 1, 3, 4, 5


def open_with_shorter_map(*given: Any, **named: Any) -> Any:
    """Open an LMDB environment with a map that fits into valgrind's address space."""
    named["map_size"] = min(named.get("map_size", 10 << 20), LONGEST_MAP)
    return lmdb.Environment(*given, **named)


class Callgrind:
    """Counts instructions and cache misses."""

    warmups = 3  # until the interpreter has specialized the code that it runs often

    def __init__(self) -> None:
        protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=protection)
        self._page.write(_REQUEST)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
        self._call = kind(address)
        self._other = bytearray(4 << 20)
        self._arguments = (ctypes.c_uint64 * 6)()
        self._address = ctypes.addressof(self._arguments)

    def _request(self, number: int, pointer: int = 0) -> None:
        self._arguments[0], self._arguments[1] = _CALLGRIND + number, pointer
        self._call(self._address, 0)

    def begin(self) -> None:
        """Start counting: valgrind translates the program again, so this takes a second."""
        self._request(_START)

    def count(self, name: str, call: Call) -> None:
        """Call, and write the counts to a file that contains this name."""
        named = ctypes.create_string_buffer(name.encode())
        address = ctypes.addressof(named)
        self._other[:] = bytes(len(self._other))  # fills the simulated caches with other data
        self._request(_ZERO)
        call()
        self._request(_DUMP, address)

    def end(self) -> None:
        """Stop counting."""
        self._request(_STOP)


class Strace:
    """Marks where the system calls of an operation begin and end."""

    warmups = 1

    def begin(self) -> None:
        """Do nothing."""

    def count(self, name: str, call: Call) -> None:
        """Call between two marks."""
        os.access(f"/@{name}", 0)
        call()
        os.access("/@", 0)

    def end(self) -> None:
        """Do nothing."""


class Memory:
    """Measures the peak of the memory that Python and numpy hold for an operation."""

    warmups = 1

    def begin(self) -> None:
        """Start tracing what is allocated."""
        tracemalloc.start()

    def count(self, name: str, call: Call) -> None:
        """Call, and write the bytes to a file of this name."""
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        call()
        _, peak = tracemalloc.get_traced_memory()
        path = Path("../memory", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(peak - before))

    def end(self) -> None:
        """Stop tracing."""
        tracemalloc.stop()


Counter = Callgrind | Strace | Memory
COUNTERS: dict[str, type[Counter]] = {
    "valgrind": Callgrind,
    "strace": Strace,
    "tracemalloc": Memory,
}


def operations(
    store: Any, backend: str, images: Any, labels: Any, warmups: int
) -> Iterator[tuple[str, Callable[[], tuple[Call, Call]]]]:
    """Yield each operation's name, and a function that prepares it.

    Parameters
    ----------
    store : module
        `storage_impl`, or a module with the same `create_store` and `open_store`.
    backend : str
    images, labels : ndarray
    warmups : int
        How many times to read before the read is counted, from a store that did the same before.

    Yields
    ------
    name : str
    prepare : callable
        Returns the call to count, and a call that closes and checks afterwards.
    """
    numbers = iter(range(1_000_000))
    shape = images.shape[1:]
    count, half = len(images), len(images) // 2
    some = np.random.default_rng(7).permutation(count)[:CALLS].tolist()

    def new(filled: int) -> Path:
        path = Path(f"store-{next(numbers):06}").absolute()
        with store.create_store(path, backend, image_shape=shape) as made:
            if filled:
                made.write_many(images[:filled], labels[:filled])
        return path

    def check(path: Path, images: Any = images, labels: Any = labels) -> None:
        with store.open_store(path) as opened:
            found, named = opened.read_many()
        if not (np.array_equal(found, images) and np.array_equal(named, labels)):
            raise RuntimeError("what was read differs from what was written")

    def write_many() -> tuple[Call, Call]:
        path = new(0)
        opened = store.open_store(path, mode="a")

        def end() -> None:
            opened.close()
            check(path)
            shutil.rmtree(path)

        return lambda: opened.write_many(images, labels), end

    def write_one() -> tuple[Call, Call]:
        path = new(0)
        opened = store.open_store(path, mode="a")

        def call() -> None:
            for image, label in zip(images[:CALLS], labels[:CALLS].tolist(), strict=True):
                opened.write_one(image, label)

        def end() -> None:
            opened.close()
            check(path, images[:CALLS], labels[:CALLS])
            shutil.rmtree(path)

        return call, end

    def append() -> tuple[Call, Call]:
        path = new(half)

        def call() -> None:
            with store.open_store(path, mode="a") as opened:
                opened.write_many(images[half:], labels[half:])

        def end() -> None:
            check(path)
            shutil.rmtree(path)

        return call, end

    full = new(count)
    check(full)

    def reading(read: Call, again: bool = True) -> Callable[[], tuple[Call, Call]]:
        """Prepare a read: from a store that did the same before, or was just opened."""

        def prepare() -> tuple[Call, Call]:
            opened = store.open_store(full)
            for _ in range(warmups if again else 0):
                read(opened)
            return lambda: read(opened), opened.close

        return prepare

    def read_ones(opened: Any) -> None:
        for index in some:
            opened.read_one(index)

    def batches(opened: Any) -> None:
        for _ in opened.batches(BATCH, shuffle=7):
            pass

    def opening(path: Callable[[], Path]) -> Callable[[], tuple[Call, Call]]:
        def prepare() -> tuple[Call, Call]:
            opened = path()

            def call() -> None:
                for _ in range(CALLS):
                    store.open_store(opened).close()

            return call, lambda: None

        return prepare

    def labels_alone() -> tuple[Call, Call]:
        stores = [store.open_store(full) for _ in range(CALLS)]

        def call() -> None:
            for opened in stores:
                opened.read_labels()

        def end() -> None:
            for opened in stores:
                opened.close()

        return call, end

    yield "write many", write_many
    yield "write one", write_one
    yield "append", append
    yield "read all", reading(lambda opened: opened.read_many())
    yield "read one", reading(read_ones)
    yield "shuffled batches", reading(batches)
    yield "labels", labels_alone
    yield "open", opening(lambda: full)
    yield "verify", reading(lambda opened: opened.verify(), again=False)
    yield "open alone", opening(lambda: new(count))


def plain_operations(
    store: Any, backend: str, images: Any, labels: Any, warmups: int
) -> Iterator[tuple[str, Callable[[], tuple[Call, Call]]]]:
    """Yield the operations of a module of `benchmarks.plain`, as `operations` does."""
    numbers = iter(range(1_000_000))
    shuffled = np.random.default_rng(7).permutation(len(images))
    parts = [shuffled[start : start + BATCH].tolist() for start in range(0, len(images), BATCH)]

    def new() -> Path:
        return Path(f"store-{next(numbers):06}").absolute()

    def writing() -> tuple[Call, Call]:
        path = new()
        return lambda: store.write_all(path, images, labels, True), lambda: None

    def reading(read: Call) -> Callable[[], tuple[Call, Call]]:
        path = new()  # LMDB itself opens no store twice in a process
        store.write_all(path, images, labels, False)

        def prepare() -> tuple[Call, Call]:
            stack = ExitStack()
            opened = stack.enter_context(store.opened(path))
            found, named = store.read_all(opened)
            if not (np.array_equal(found, images) and np.array_equal(named, labels)):
                raise RuntimeError("what was read differs from what was written")
            for _ in range(warmups):
                read(opened)
            return lambda: read(opened), stack.close

        return prepare

    def opening() -> tuple[Call, Call]:
        path = new()
        store.write_all(path, images, labels, False)

        def call() -> None:
            for _ in range(CALLS):
                with store.opened(path):
                    pass

        return call, lambda: None

    yield "write many", writing
    yield "read all", reading(store.read_all)
    yield (
        "read one",
        reading(lambda opened: [store.read_one(opened, i) for i in shuffled[:CALLS].tolist()]),
    )
    yield "shuffled batches", reading(lambda opened: [store.read_batch(opened, p) for p in parts])
    yield "open", opening


def run(task: dict[str, Any], counter: Counter) -> None:
    """Count the operations of a task."""
    moved = [bytes(size) for size in range(16, 512, 16) for _ in range(89 * task["layout"])]
    failures = Path("failed", task["name"]).absolute()
    sys.path.insert(0, task["packages"])
    images, labels = np.load("images.npy"), np.load("labels.npy")
    stores = Path(f"stores-{task['name']}")
    stores.mkdir()
    os.chdir(stores)
    store: Any = importlib.import_module(task["module"])
    prepared = []
    listed = operations if hasattr(store, "create_store") else plain_operations
    for name, prepare in listed(store, task["backend"], images, labels, counter.warmups**2):
        with failing(failures / name):
            start = time.process_time()
            for _ in range(counter.warmups):  # work that is done once in a process is not counted
                call, end = prepare()
                call()
                end()
                if task["layout"] and time.process_time() > start + LONG:
                    break
            else:
                prepared.append((name, *prepare()))
    gc.collect()
    counter.begin()
    for name, call, _ in prepared:
        with failing(failures / name):
            counter.count(f"{task['name']}/{name}", call)
    counter.end()
    for name, _, end in prepared:
        with failing(failures / name):
            end()
    del moved


@contextmanager
def failing(path: Path) -> Iterator[None]:
    """Write to a file why an operation failed, and go on with the others."""
    try:
        yield
    except Exception as error:
        path.write_text(f"{type(error).__name__}: {error}")


def main(program: str, processes: int) -> None:
    """Count all tasks, each in a fork."""
    counter = COUNTERS[program]()
    tasks = json.loads(Path("tasks.json").read_text())
    if program != "valgrind":  # the other programs count the same in every layout
        tasks = [task for task in tasks if not task["layout"]]
    lmdb.open = open_with_shorter_map  # type: ignore[assignment]
    sys.setswitchinterval(100)  # seconds, so that threads switch only where they wait
    gc.collect()
    gc.freeze()
    gc.disable()
    for number, task in enumerate(tasks):
        if number >= processes:
            os.wait()
        Path("failed", task["name"]).mkdir(parents=True)
        if os.fork() == 0:
            with failing(Path("failed", task["name"], EVERY).absolute()):
                run(task, counter)
            os._exit(0)  # skips what Python does at its end, which would double the time
    while True:
        try:
            os.wait()
        except ChildProcessError:
            os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
