"""How much faster do several processes read one store?"""

import multiprocessing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import storage_impl
from benchmarks.common import BACKENDS, COUNTS, StoreSuite, compare, facts, version

# Of a process that reads: its store, and where it puts the images.
_store: storage_impl.ImageStore
_buffer: NDArray[np.uint8]


def start(path: Path, images: int) -> None:
    """Prepare a process that reads at most `images` at once."""
    global _store, _buffer
    _store = storage_impl.open_store(path)
    _buffer = np.empty((images, *_store.image_shape), np.uint8)


def read(start: int, stop: int) -> int:
    """Read consecutive images, and return the sum of their labels."""
    _, labels = _store.read_many(slice(start, stop), out=_buffer[: stop - start])
    return int(labels.sum())


class ReadManyProcesses(StoreSuite):
    """`read_many` of 10,000 images by processes that are running, an equal part by each."""

    params = (BACKENDS, (1, 2))
    param_names = ("backend", "processes")
    warmup_time = 0.1
    version = version(1)

    def setup(self, backend: str, processes: int) -> None:
        """Start the processes; asv gives each sample new ones."""
        if "fork" not in multiprocessing.get_all_start_methods():
            raise NotImplementedError("needs processes that are forked")
        self.begin(COUNTS[-1])
        count = len(self.images)
        part = -(-count // processes)
        self.parts = [(i, min(i + part, count)) for i in range(0, count, part)]
        context = multiprocessing.get_context("fork")
        self.pool = context.Pool(processes, start, (self.stored(backend), part))
        self.undo.callback(self.pool.join)
        self.undo.callback(self.pool.terminate)
        found = self.pool.starmap(read, self.parts, chunksize=1)  # also the first touch of memory
        compare(np.sum(found), self.labels.sum())

    @facts(images=COUNTS[-1])
    def time_read(self, backend: str, processes: int) -> None:
        """Read all images."""
        self.pool.starmap(read, self.parts, chunksize=1)
