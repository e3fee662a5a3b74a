"""Processes that read and write for a benchmark.

Apart from the benchmarks, and with few imports: a process that is started afresh imports this
module.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import storage_impl

LIMIT = 10.0  # seconds for a process to end in


class Workers:
    """Processes of which each makes an object, and calls its methods when all are told to.

    They end with `end`, when this object is no longer used, and when the process that started
    them ends, in whatever way.

    Parameters
    ----------
    method : str
        How they are started: "fork", "spawn" or "forkserver".
    kind : type of Worker
        The class of the objects, of this module.
    arguments : iterable of tuple
        What each process makes its object of; inherited by a fork, else pickled.

    Raises
    ------
    NotImplementedError
        This system does not start processes in that way: asv shows "n/a".
    """

    def __init__(
        self, method: str, kind: type["Worker"], arguments: Iterable[tuple[Any, ...]]
    ) -> None:
        if method not in multiprocessing.get_all_start_methods():
            raise NotImplementedError(f"processes are not started by {method} here")
        self._connections: list[Connection] = []
        processes: list[BaseProcess] = []
        self.end = weakref.finalize(self, _end, os.getpid(), self._connections, processes)
        context: Any = multiprocessing.get_context(method)
        try:
            with _without_asv():
                for own in arguments:
                    ours, theirs = context.Pipe()
                    self._connections.append(ours)
                    process = context.Process(
                        target=_serve, args=(theirs, ours, kind, own), daemon=True
                    )
                    process.start()
                    processes.append(process)
                    theirs.close()
            for place in self.results():
                if place != storage_impl.__file__:
                    raise RuntimeError(f"a process has imported another package: {place}")
        except BaseException:
            self.end()
            raise

    def start(self, name: str, *arguments: Any) -> None:
        """Have every process call a method of its object."""
        for connection in self._connections:
            connection.send((name, arguments))

    def results(self) -> list[Any]:
        """Wait for every process, and return what the methods did; what one raised is raised."""
        found = [connection.recv() for connection in self._connections]
        for value in found:
            if isinstance(value, BaseException):
                raise value
        return found

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """Have every process call a method of its object, and return the results in order."""
        self.start(name, *arguments)
        return self.results()

    def cpu(self) -> float:
        """Return the seconds of processor that this process and all of these have used."""
        return time.process_time() + float(sum(self.call("cpu")))


@contextmanager
def _without_asv() -> Iterator[None]:
    """Have what is started afresh find this module, and not import the program that is running."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    # asv imports the benchmarks in a way of its own, which is not inherited. Last, so that the
    # package comes from where it is installed.
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    try:
        yield
    finally:
        sys.path.pop()
        sys.modules["__main__"] = main


def _serve(
    theirs: Connection, ours: Connection, kind: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    ours.close()  # or a fork would hold the end whose closing tells that its parent has ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent
    answer: Any
    try:
        made = kind(theirs, *arguments)
        answer = storage_impl.__file__
    except Exception as error:
        answer = error
    with suppress(EOFError, BrokenPipeError):
        theirs.send(answer)
        while (task := theirs.recv()) is not None:
            name, arguments = task
            try:
                answer = getattr(made, name)(*arguments)
            except Exception as error:
                answer = error
            theirs.send(answer)


def _end(owner: int, connections: list[Connection], processes: list[BaseProcess]) -> None:
    if os.getpid() != owner:  # a fork, whose parent they belong to
        return
    for connection in connections:
        with suppress(OSError):  # of a process that has ended
            connection.send(None)
        connection.close()
    for process in processes:
        process.join(LIMIT)
        process.kill()
        process.join()
        process.close()


class Worker:
    """Base of what the processes make."""

    def cpu(self) -> float:
        """Return the seconds of processor that this process has used, those of the system too."""
        return time.process_time()


class Reader(Worker):
    """Reads a part of a store again and again.

    Parameters
    ----------
    connection : Connection
        To the parent.
    store : ImageStore
        The parent's, inherited or pickled.
    part : slice
        Which images.
    """

    def __init__(self, connection: Connection, store: storage_impl.ImageStore, part: slice) -> None:
        self.store = store
        self.part = part
        count = len(range(len(store))[part])
        assert store.image_shape is not None
        self.images = np.zeros((count, *store.image_shape), np.uint8)

    def read(self) -> None:
        """Read the images to where the last ones were."""
        _, self.labels = self.store.read_many(self.part, out=self.images)

    def held(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return what was read last."""
        return self.images, self.labels


class Writer(Worker):
    """Writes the same images again and again.

    Parameters
    ----------
    connection : Connection
        To the parent.
    images, labels : ndarray
        What it writes.
    """

    def __init__(
        self, connection: Connection, images: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> None:
        self.connection = connection
        self.images = images
        self.labels = labels

    def create(self, directory: Path, backend: str) -> Path:
        """Make an empty store that does not sync, and return where."""
        path = directory / f"{os.getpid()}"
        shape = self.images.shape[1:]
        self.store = storage_impl.create_store(path, backend, image_shape=shape, durable=False)
        return path

    def append_to(self, path: Path) -> None:
        """Open a store, and append to it once."""
        self.store = storage_impl.open_store(path, "a")
        self.write()

    def write(self) -> None:
        """Write the images in one call."""
        self.store.write_many(self.images, self.labels)

    def write_on(self) -> int:
        """Answer at once, write the images until told something else, and return how often."""
        self.connection.send(None)
        calls = 0
        while True:
            self.write()
            calls += 1
            if self.connection.poll():
                return calls

    def discard(self) -> None:
        """Remove the store and close it, so that closing finds nothing that it had to sync."""
        shutil.rmtree(self.store.path)
        with suppress(storage_impl.WriteFailedError):
            self.store.close()


class ImageFiles:
    """A folder of PNG files as torch asks for one by one: what a tutorial would write.

    Parameters
    ----------
    path : Path
        What `write` made.
    """

    def __init__(self, path: Path) -> None:
        self.files = sorted(path.iterdir())

    @staticmethod
    def write(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """Write each image to a file named by its index and label."""
        from PIL import Image

        path.mkdir()
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            Image.fromarray(image).save(path / f"{index:08d}_{label}.png")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch
        from PIL import Image

        file = self.files[index]
        with Image.open(file) as image:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels, int(file.stem.partition("_")[2])
