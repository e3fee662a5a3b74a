"""Processes that read and write for a benchmark.

They are apart from the benchmarks and import little, because each process that is not forked
imports this module.
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

LIMIT = 10.0  # seconds that a process has to end before it is killed


class Workers:
    """Processes that each make an object, and call its methods on request.

    They end when `end` is called, when this object is no longer used, and when the process that
    started them ends, for whatever reason.

    Parameters
    ----------
    method : str
        How they are started: "fork", "spawn" or "forkserver".
    kind : type of Worker
        The class of the objects, from this module.
    arguments : iterable of tuple
        For each process, the arguments of its object. A forked process inherits them, any other
        gets them pickled.

    Raises
    ------
    NotImplementedError
        This system does not start processes in that way: asv shows "n/a".
    """

    def __init__(
        self, method: str, kind: type["Worker"], arguments: Iterable[tuple[Any, ...]]
    ) -> None:
        if method not in multiprocessing.get_all_start_methods():
            raise NotImplementedError(f"this system does not start processes by {method}")
        self._connections: list[Connection] = []
        processes: list[BaseProcess] = []
        self.end = weakref.finalize(self, _end, os.getpid(), self._connections, processes)
        context: Any = multiprocessing.get_context(method)
        try:
            with without_asv():
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
                    raise RuntimeError(f"a process imported another package of this name: {place}")
        except BaseException:
            self.end()
            raise

    def start(self, name: str, *arguments: Any) -> None:
        """Tell every process to call a method of its object."""
        for connection in self._connections:
            connection.send((name, arguments))

    def results(self) -> list[Any]:
        """Wait for every process, and return the results; raise what one of them raised."""
        found = [connection.recv() for connection in self._connections]
        for value in found:
            if isinstance(value, BaseException):
                raise value
        return found

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """Let every process call a method of its object, and return the results in order."""
        self.start(name, *arguments)
        return self.results()

    def cpu(self) -> float:
        """Return the seconds of CPU time that this process and all of these have used."""
        return time.process_time() + float(sum(self.call("cpu")))


@contextmanager
def without_asv() -> Iterator[None]:
    """Let new processes find this module, without importing the program that is running."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    # asv imports the benchmarks in its own way, which new processes do not inherit. This path is
    # the last, so that they import the package from where it is installed.
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    try:
        yield
    finally:
        sys.path.pop()
        sys.modules["__main__"] = main


def _serve(
    theirs: Connection, ours: Connection, kind: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    ours.close()  # a fork that kept this end open would not notice that its parent has ended
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
    if os.getpid() != owner:  # in a fork: the processes belong to its parent
        return
    for connection in connections:
        with suppress(OSError):  # the process has ended
            connection.send(None)
        connection.close()
    for process in processes:
        process.join(LIMIT)
        process.kill()
        process.join()
        process.close()


class Worker:
    """Base of the objects that the processes make."""

    def cpu(self) -> float:
        """Return the seconds of CPU time that this process has used, user and system."""
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
        """Read the images into the same array as before."""
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
        """Make an empty store that does not sync, and return its path."""
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
        """Answer at once, write the images until the next request, and return how many times."""
        self.connection.send(None)
        calls = 0
        while True:
            self.write()
            calls += 1
            if self.connection.poll():
                return calls

    def discard(self) -> None:
        """Remove the store, then close it: closing finds nothing left to sync."""
        shutil.rmtree(self.store.path)
        with suppress(storage_impl.WriteFailedError):
            self.store.close()


class ImageFiles:
    """A dataset for torch that reads a folder of PNG files one by one, as in a tutorial.

    Parameters
    ----------
    path : Path
        The folder that `write` made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = sorted(path.iterdir())

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the names: a process that dies before it has read 64 KiB of them blocks its parent.
        return ImageFiles, (self.path,)

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
