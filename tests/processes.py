"""Other processes, and what the tests have done there.

Apart from the tests, so that a process started afresh imports little.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

import storage_impl
from storage_impl import ImageStore
from tests.samples import SHAPE, images_of, labels_of

LIMIT = 60.0  # seconds; reached only where something hangs


class OtherProcess:
    """A process that calls functions for its parent, one after the other.

    Parameters
    ----------
    method : str
        How it is started: "spawn", "fork" or "forkserver".
    *inherited
        First arguments of every call: pickled, or inherited by a fork.
    """

    def __init__(self, method: str = "spawn", *inherited: Any) -> None:
        context: Any = multiprocessing.get_context(method)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, inherited), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.is_alive():
            self._connection.send(None)
            self._process.join(LIMIT)
        alive = self._process.is_alive()
        self._process.kill()
        self._process.join()
        self._process.close()
        self._connection.close()
        assert not alive, "the process did not end by itself"

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Begin a call; `result` waits for it."""
        self._connection.send((function, arguments))

    def result(self) -> Any:
        """What the call returned; what it raised is raised here."""
        assert self._connection.poll(LIMIT), "the process gave no answer"
        value = self._connection.recv()
        if isinstance(value, BaseException):
            raise value
        return value

    def running(self) -> bool:
        """Whether the call that was started has not ended yet."""
        return not self._connection.poll()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have `function` called there."""
        self.start(function, *arguments)
        return self.result()

    def kill(self) -> None:
        """End the process as a power cut would, with nothing cleaned up."""
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, inherited: tuple[Any, ...]) -> None:
    while (task := connection.recv()) is not None:
        function, arguments = task
        try:
            answer = function(*inherited, *arguments)
        except Exception as error:
            answer = error
        connection.send(answer)


_kept: list[ImageStore] = []


def open_and_keep(path: Path, mode: str) -> int:
    """Open a store, leave it open as long as the process lives, and return its length."""
    _kept.append(storage_impl.open_store(path, mode))
    return len(_kept[-1])


def open_and_close(path: Path, mode: str) -> int:
    """Open a store, close it, and return its length."""
    with storage_impl.open_store(path, mode) as store:
        return len(store)


def use_as_nobody(path: Path) -> list[int | str]:
    """Open a store as a user without rights: its length, and the error of opening it to append."""
    with storage_impl.open_store(path) as store:  # while what it imports can be read
        store.read_one(0)
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    with storage_impl.open_store(path, verify=True) as store:
        images, _ = store.read_many()
        store.verify()
    try:
        storage_impl.open_store(path, "a").close()
    except storage_impl.StorageError as error:
        return [len(images), type(error).__name__]
    return [len(images)]


def create_each(paths: list[Path], backend: str) -> list[str]:
    """Make a store at each path; "created", or the name of the error."""
    outcomes = []
    for path in paths:
        try:
            storage_impl.create_store(path, backend, image_shape=SHAPE, durable=False).close()
        except storage_impl.StorageError as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("created")
    return outcomes


def append(path: Path, calls: int, per_call: int) -> int:
    """Append sample images in so many calls, and return the length."""
    with storage_impl.open_store(path, "a") as store:
        for _ in range(calls):
            first = len(store)
            images = images_of(per_call, store.image_shape, first, store.encoding)
            store.write_many(images, labels_of(per_call, first))
        return len(store)


def append_in_little_space(path: Path, per_call: int, spare: int) -> list[str]:
    """Append until the address space of the process is full; the errors of that call and the next.

    The process may take `spare` bytes more than it has.
    """
    import resource

    storage_impl.open_store(path).close()  # with all that it imports
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + spare, taken + spare))
    store = storage_impl.open_store(path, "a")
    images = np.zeros((per_call, *store.image_shape), np.uint8)
    errors: list[str] = []
    while len(errors) < 2:
        try:
            store.write_many(images, range(len(store), len(store) + per_call))
        except storage_impl.StorageError as error:
            errors.append(type(error).__name__)
    _kept.append(store)
    return errors


def append_generated(path: Path, count: int) -> int:
    """Append so many images from a generator, and return by how many bytes memory grew."""
    memory = []

    def generated(shape: tuple[int, int, int]) -> Iterator[NDArray[np.uint8]]:
        for number in range(count):
            image = np.full(shape, number % 85 * 3 + 2, np.uint8)  # which JPEG keeps
            memory.append(_anonymous_memory())
            yield image

    with storage_impl.open_store(path, "a") as store:
        store.write_many(generated(store.image_shape), iter(range(count)))
    return max(memory) - memory[0]


def _anonymous_memory() -> int:
    """Bytes of memory of this process that are no file's: a mapped file is not counted."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not tell")


def read_one(store: ImageStore, index: int) -> tuple[Any, int]:
    """`ImageStore.read_one`, of a store that was inherited."""
    return store.read_one(index)


def read_many(store: ImageStore) -> tuple[Any, Any]:
    """`ImageStore.read_many`, of a store that was inherited."""
    return store.read_many()


def write_one(store: ImageStore, label: int) -> int:
    """`ImageStore.write_one`, of a store that was inherited."""
    return store.write_one(images_of(1, store.image_shape, 0, store.encoding)[0], label)


def close(store: ImageStore) -> int:
    """`ImageStore.close`, of a store that was inherited; returns the process's id."""
    store.close()
    return os.getpid()


def read_in_a_fork(store: ImageStore) -> int:
    """Read all in a fork of this process; 0 when that works and its other files stay open."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    child = os.fork()
    if child == 0:
        try:
            os.fstat(descriptor)
            images, labels = store.read_many()
            expected = images_of(len(store), store.image_shape, 0, store.encoding)
            sound = np.array_equal(images, expected)
            os._exit(0 if sound and np.array_equal(labels, labels_of(len(store))) else 1)
        except BaseException:
            os._exit(2)
    os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def append_zeros(path: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Append black images in one call."""
    with storage_impl.open_store(path, "a") as store:
        store.write_many(np.zeros((count, *shape), np.uint8), range(count))
