"""What does an image cost in each order in which training reads, and what do labels alone cost?"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import storage_impl
from benchmarks.common import BACKENDS, MADE, StoreSuite, compare, facts, kept, version

FOLDS = 10
HELD_OUT = 3  # neither the first nor the last: in one store, the other folds are in two pieces
RUN = 1_000


class ReadBatches(StoreSuite):
    """Each of 10,000 images once, in batches, from a store that was read before.

    - in order: consecutive slices.
    - strided: slices with a step, each starting one image after the previous one.
    - sorted: images chosen at random, each batch sorted before it is read.
    - shuffled: `batches` with a seed.
    """

    params = (BACKENDS, ("in order", "strided", "sorted", "shuffled"), (32, 256))
    param_names = ("backend", "order", "batch")
    version = version(1)

    def prepare(self, backend: str, order: str, batch: int) -> None:
        """Open a store."""
        self.store = self.warm_store(backend)
        if self.first:
            self.selections = selections(len(self.images), order, batch)

    def check(self, backend: str, order: str, batch: int) -> None:
        """Raise RuntimeError unless the batches hold every image once, with its label."""
        found = list(self.read(order, batch))
        compare(len(found), -(-len(self.images) // batch))
        images = np.concatenate([images for images, _ in found])
        labels = np.concatenate([labels for _, labels in found])
        if order == "shuffled":  # the store chooses the permutation
            compare(pairs(images, labels), pairs(self.images, self.labels))
            compare(np.array_equal(images, self.images), False)
        else:
            wanted = np.concatenate([np.arange(len(self.images))[part] for part in self.selections])
            compare(np.sort(wanted), np.arange(len(self.images)))
            compare(images, self.images[wanted])
            compare(labels, self.labels[wanted])

    def read(self, order: str, batch: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Return an iterator of the batches, which reads each batch when it is taken."""
        if order == "shuffled":
            return self.store.batches(batch, shuffle=7)
        return map(self.store.read_many, self.selections)

    @facts(images=MADE, plain="plain_stores.PlainBatches.time_read_1024")
    def time_read_10000(self, backend: str, order: str, batch: int) -> None:
        """Read all batches."""
        for _ in self.read(order, batch):
            pass


def selections(count: int, order: str, batch: int) -> list[slice] | list[NDArray[np.int64]]:
    """Return the selection of each batch in a store of `count` images."""
    if order == "in order":
        return [slice(start, start + batch) for start in range(0, count, batch)]
    if order == "strided":
        step = -(-count // batch)
        return [slice(start, None, step) for start in range(step)]
    shuffled = np.random.default_rng(7).permutation(count)
    return [np.sort(shuffled[start : start + batch]) for start in range(0, count, batch)]


def pairs(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[int]:
    """Return a hash of each image with its label, sorted: their order does not matter."""
    found = zip(images, labels.tolist(), strict=True)
    return sorted(hash((image.tobytes(), label)) for image, label in found)


class ReadRun(StoreSuite):
    """1,000 consecutive images from the middle of 10,000, from a store that was read before.

    - slice: one `read_many` of a slice.
    - list: one `read_many` of a list of indices.
    - one by one: `read_one` for each.
    """

    params = (BACKENDS, ("slice", "list", "one by one"))
    param_names = ("backend", "how")
    warmup_time = 0.1
    version = version(1)

    def prepare(self, backend: str, how: str) -> None:
        """Open a store."""
        self.store = self.warm_store(backend)
        start = (len(self.images) - RUN) // 2
        self.run = slice(start, start + RUN)
        self.indices = list(range(start, start + RUN))

    def check(self, backend: str, how: str) -> None:
        """Raise RuntimeError unless those images are read."""
        images, labels = self.read(how)
        compare(images, self.images[self.run])
        compare(labels, self.labels[self.run])

    def read(self, how: str) -> tuple[object, object]:
        """Return the images and their labels."""
        if how == "slice":
            return self.store.read_many(self.run)
        if how == "list":
            return self.store.read_many(self.indices)
        read_one = self.store.read_one
        images, labels = zip(*[read_one(index) for index in self.indices], strict=True)
        return images, labels

    @facts(images=RUN)
    def time_read_1000(self, backend: str, how: str) -> None:
        """Read the images, and hold all of them at the end."""
        self.read(how)


class ReadFolds(StoreSuite):
    """An epoch of k-fold training: nine of ten folds of 1,000 images are read, one by one.

    The folds are ten stores, or parts of one store. All were read before.
    """

    params = (BACKENDS, (10, 1))
    param_names = ("backend", "stores")
    version = version(1)

    def prepare(self, backend: str, stores: int) -> None:
        """Open the stores."""
        if self.first:
            size = len(self.images) // FOLDS
            folds = [slice(i * size, (i + 1) * size) for i in range(FOLDS)]
            if stores == 1:
                opened = [self.warm_store(backend)] * FOLDS
                self.folds = list(zip(opened, folds, strict=True))
            else:
                paths = [self.stored(backend, fold) for fold in folds]
                opened = [storage_impl.open_store(path) for path in paths]
                self.folds = [(store, slice(None)) for store in opened]
            del self.folds[HELD_OUT]

    def check(self, backend: str, stores: int) -> None:
        """Raise RuntimeError unless the folds hold all images except those held out."""
        size = len(self.images) // FOLDS
        trained = np.delete(
            np.arange(len(self.images)), slice(HELD_OUT * size, HELD_OUT * size + size)
        )
        found = [store.read_many(fold) for store, fold in self.folds]
        compare(np.concatenate([images for images, _ in found]), self.images[trained])
        compare(np.concatenate([labels for _, labels in found]), self.labels[trained])

    @facts(images=MADE // FOLDS * (FOLDS - 1))
    def time_read_9000(self, backend: str, stores: int) -> None:
        """Read nine folds."""
        for store, fold in self.folds:
            store.read_many(fold)


class ReadLabels(StoreSuite):
    """`read_labels` of a store that was just opened; no image is read.

    The store's pages are in memory. Its labels have not been read since it was opened, because
    some backends keep them.
    """

    version = version(1)

    def prepare(self, backend: str, count: int) -> None:
        """Open a store of `count` images."""
        self.store = storage_impl.open_store(self.stored(backend))
        self.undo.callback(self.store.close)

    def check(self, backend: str, count: int) -> None:
        """Raise RuntimeError unless the labels are right."""
        compare(self.store.read_labels(), self.labels)

    def time_read(self, backend: str, count: int) -> None:
        """Read `count` labels."""
        self.store.read_labels()


class Latency(StoreSuite):
    """How long each `read_one` takes: 10,000 images in random order, three times.

    The store was read before. Each figure includes one reading of the clock, about 0.05 us.
    """

    params = (BACKENDS,)
    param_names = ("backend",)
    unit = "seconds"
    version = version(1)

    def prepare(self, backend: str) -> None:
        """Read the images, unless that was done: p50, p95 and p99 are of the same calls."""

        def make(path: Path) -> None:
            store = self.warm_store(backend)
            indices = np.random.default_rng(7).permutation(len(self.images)).tolist()
            images, labels = zip(*map(store.read_one, indices), strict=True)
            compare(images, self.images[indices])
            compare(labels, self.labels[indices])
            with open(path, "xb") as file:
                np.save(file, self.latencies(store, indices * 3))

        self.path = kept(f"{backend}-latencies.npy", make)

    def latencies(self, store: storage_impl.ImageStore, indices: list[int]) -> list[int]:
        """Return how many nanoseconds each call takes."""
        read_one, clock = store.read_one, time.perf_counter_ns
        taken = []
        for index in indices:
            start = clock()
            read_one(index)
            taken.append(clock() - start)
        return taken

    def percentile(self, rank: int) -> float:
        """Return a percentile of the calls, in seconds: `rank` percent take no longer."""
        return float(np.percentile(np.load(self.path), rank)) / 1e9

    @facts(images=1)
    def track_p50(self, backend: str) -> float:
        """Return the median."""
        return self.percentile(50)

    @facts(images=1)
    def track_p95(self, backend: str) -> float:
        """Return the 95th percentile: 1 of 20 calls takes longer."""
        return self.percentile(95)

    @facts(images=1)
    def track_p99(self, backend: str) -> float:
        """Return the 99th percentile: 1 of 100 calls takes longer."""
        return self.percentile(99)
