"""What does a dataset of many stores cost compared with one, and what do more workers gain?"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import storage_impl
from benchmarks.common import BACKENDS, MADE, StoreSuite, Suite, compare, facts, kept, version
from storage_impl import _shard_index, shards
from storage_impl._files import Directory

SHARDS = 8
WRITTEN = 2_000  # few, because each PNG file is synced
BATCH = 256


class ArrayPart:
    """Images that a worker reads from the file that all benchmarks share."""

    def __init__(self, start: int, stop: int) -> None:
        self.directory = Path.cwd()
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[shards.Item]:
        images = np.load(self.directory / "images.npy", mmap_mode="r")
        labels = np.load(self.directory / "labels.npy")
        for index in range(self.start, self.stop):
            yield np.array(images[index]), int(labels[index])


def parts(count: int) -> list[ArrayPart]:
    """Return `count` images in as many parts as there are shards."""
    edges = [count * number // SHARDS for number in range(SHARDS + 1)]
    return [ArrayPart(start, stop) for start, stop in pairwise(edges)]


class WriteShards(StoreSuite):
    """`write_shards` of 2,000 images to 8 shards, by running processes, synced."""

    params = (BACKENDS, (1, 2))
    param_names = ("backend", "workers")
    count = WRITTEN
    version = version(1)

    def prepare(self, backend: str, workers: int) -> None:
        """Start the workers, and have each import what it needs."""
        self.path = self.scratch / "dataset"
        self.pool = ProcessPoolExecutor(workers)
        self.undo.callback(self.pool.shutdown)
        for future in [self.pool.submit(len, self.images.shape) for _ in range(workers)]:
            future.result()

    def check(self, backend: str, workers: int) -> None:
        """Raise RuntimeError unless the dataset holds the images."""
        self.time_write_2000(backend, workers)
        with storage_impl.open_store(self.path) as store:
            images, labels = store.read_many()
        compare(images, self.images)
        compare(labels, self.labels)

    @facts(images=WRITTEN)
    def time_write_2000(self, backend: str, workers: int) -> None:
        """Write all shards, and the index."""
        shards.write_shards(
            self.path,
            parts(len(self.images)),
            backend=backend,
            image_shape=self.images.shape[1:],
            executor=self.pool,
        )


class ReadShards(StoreSuite):
    """Each of 10,000 images once, in shuffled batches of 256, from one store or 8 shards."""

    params = (BACKENDS, (1, SHARDS))
    param_names = ("backend", "shards")
    version = version(1)

    def prepare(self, backend: str, number: int) -> None:
        """Open the store or the dataset, which was read before."""
        if self.first:
            path = self.stored(backend)
            if number > 1:
                path = self.sharded(backend, path)
            self.store = storage_impl.open_store(path)
            order = np.random.default_rng(7).permutation(len(self.images))
            self.batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]

    def sharded(self, backend: str, source: Path) -> Path:
        """Return a dataset of the images of a store."""

        def make(path: Path) -> None:
            shape: Any = self.images.shape[1:]
            shards.write_shards(
                path, shards.split(source, SHARDS), backend=backend, image_shape=shape
            )

        return kept(f"{source.name}-shards={SHARDS}", make)

    def check(self, backend: str, number: int) -> None:
        """Raise RuntimeError unless the batches hold the images that were asked for."""
        for batch in self.batches:
            images, labels = self.store.read_many(batch)
            compare(images, self.images[batch])
            compare(labels, self.labels[batch])

    @facts(images=MADE)
    def time_read_10000(self, backend: str, number: int) -> None:
        """Read all batches."""
        for batch in self.batches:
            self.store.read_many(batch)


class OpenIndex(Suite):
    """`open_store` of a dataset, by its number of shards: reads the index, and no shard."""

    params = ((10, 1_000, 100_000),)
    param_names = ("shards",)
    warmup_time = 0.1
    count = 1
    version = version(1)

    def prepare(self, number: int) -> None:
        """Make an index of `number` shards of 1,000 images each, without the shards."""

        def make(path: Path) -> None:
            path.mkdir()
            index = _shard_index.Index(
                fingerprint="0" * 16,
                backend="hdf5",
                encoding="raw",
                image_shape=(32, 32, 3),
                counts=[1_000] * number,
                bytes=[3_100_000] * number,
                checksums=[f"{i:016x}" for i in range(number)],
            )
            _shard_index.write(Directory(path), index)

        self.path = kept(f"read-index-{number}", make)

    def check(self, number: int) -> None:
        """Raise RuntimeError unless the images of all shards are counted."""
        with storage_impl.open_store(self.path) as store:
            compare(len(store), 1_000 * number)

    def time_open(self, number: int) -> None:
        """Open the dataset and close it."""
        storage_impl.open_store(self.path).close()
