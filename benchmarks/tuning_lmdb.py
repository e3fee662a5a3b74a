"""What do LMDB's options, and the ways to write it, cost and gain?

The options that `storage_impl` has are measured through it. Advice for which it has no option is
measured on the library alone, whether `storage_impl` follows it or not. The library then stores
only the pixels.
"""

import os
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import lmdb
import numpy as np
from numpy.typing import NDArray

import storage_impl
from benchmarks.cold_cache import ColdSuite
from benchmarks.common import StoreSuite, Suite, compare, facts, kept, scattered, sync, version

COUNT = 5_000


class LmdbReadahead(StoreSuite):
    """Reads of 5,000 images with and without readahead, from a store that was read before."""

    params = ((True, False),)
    param_names = ("readahead",)
    warmup_time = 0.1
    count = COUNT
    version = version(1)

    def prepare(self, readahead: bool) -> None:
        """Open a store."""
        self.indices = scattered(500, len(self.images))
        self.store = self.warm_store("lmdb", readahead=readahead)

    def check(self, readahead: bool) -> None:
        """Raise RuntimeError unless the single images are right."""
        found = [self.store.read_one(index)[0] for index in self.indices]
        compare(found, self.images[self.indices])

    @facts(images=COUNT)
    def time_read_5000(self, readahead: bool) -> None:
        """Read all images, in order."""
        self.store.read_many()

    @facts(images=500)
    def time_read_500(self, readahead: bool) -> None:
        """Read 500 scattered images, one by one."""
        for index in self.indices:
            self.store.read_one(index)


class LmdbColdReadahead(ColdSuite):
    """`LmdbReadahead` with nothing in the page cache; the time includes opening the store."""

    params = ((True, False),)
    param_names = ("readahead",)
    count = COUNT
    version = version(1)

    def prepare(self, readahead: bool) -> None:
        """Empty the page cache."""
        self.indices = scattered(500, len(self.images))
        self.path = self.stored("lmdb", readahead=readahead)
        self.empty_cache(self.path)

    def check(self, readahead: bool) -> None:
        """Raise RuntimeError unless everything and the single images are right."""
        with storage_impl.open_store(self.path) as store:
            self.compare(store)
            found = [store.read_one(index)[0] for index in self.indices]
        compare(found, self.images[self.indices])

    @facts(images=COUNT, cache="cold")
    def time_open_read_5000(self, readahead: bool) -> None:
        """Open the store and read all images, in order."""
        with storage_impl.open_store(self.path) as store:
            store.read_many()

    @facts(images=500, cache="cold")
    def time_open_read_500(self, readahead: bool) -> None:
        """Open the store and read 500 scattered images, one by one."""
        with storage_impl.open_store(self.path) as store:
            for index in self.indices:
                store.read_one(index)


class LmdbSuite(Suite):
    """Base of the benchmarks that write with lmdb alone, each sample into a new environment."""

    count = COUNT

    def open_environment(self, **options: Any) -> lmdb.Environment:
        """Return an empty environment, open for this sample."""
        options.setdefault("map_size", 1 << 26)  # 64 MiB
        environment = lmdb.open(str(self.scratch / "environment"), **options)
        self.undo.callback(environment.close)
        return environment

    def compare(self, environment: lmdb.Environment, numbers: NDArray[np.int64]) -> None:
        """Close the environment; raise RuntimeError unless each image's key is its number."""
        path = environment.path()
        environment.close()
        with closing(lmdb.open(path, readonly=True)) as reader, reader.begin() as transaction:
            compare(transaction.stat()["entries"], len(numbers))
            found = [transaction.get(key(number), b"") for number in numbers.tolist()]
        stored = np.frombuffer(b"".join(found), np.uint8).reshape(-1, *self.images.shape[1:])
        compare(stored, self.images[: len(numbers)])


def data_ratio(environment: lmdb.Environment, images: NDArray[np.uint8]) -> float:
    """Return the length of the data file divided by the bytes of the pixels."""
    return os.path.getsize(os.path.join(environment.path(), "data.mdb")) / images.nbytes


def key(number: int) -> bytes:
    """Return the key of a number: LMDB sorts these keys in the order of the numbers."""
    return number.to_bytes(8, "big")


class LmdbSync(LmdbSuite):
    """Writes with lmdb alone, and with options that sync less or write through LMDB's map."""

    params = (
        ("default", "metasync=False", "sync=False", "sync=False, then sync", "writemap=True"),
    )
    param_names = ("options",)
    unit = "file bytes/raw"
    count = 1_000
    version = version(1)

    options: ClassVar[dict[str, dict[str, bool]]] = {
        "default": {},
        "metasync=False": {"metasync": False},
        "sync=False": {"sync": False},
        "sync=False, then sync": {"sync": False},
        "writemap=True": {"writemap": True},
    }

    def prepare(self, options: str) -> None:
        """Open an empty environment, after earlier writes are on the disk."""
        self.environment = self.open_environment(**self.options[options])
        if self.first:
            self.records = [(key(i), image.tobytes()) for i, image in enumerate(self.images)]
        sync()

    def check(self, options: str) -> None:
        """Raise RuntimeError unless the environment holds what was written."""
        for write, count in ((self.time_write_1000, 1_000), (self.time_write_100, 100)):
            write(options)
            self.compare(self.environment, np.arange(min(count, len(self.images))))
            self.teardown()
            self.begin(options)

    @facts(images=1_000)
    def time_write_1000(self, options: str) -> None:
        """Write 1,000 images in one transaction."""
        with self.environment.begin(write=True) as transaction:
            transaction.cursor().putmulti(self.records)
        if options.endswith("then sync"):
            self.environment.sync(True)

    @facts(images=100)
    def time_write_100(self, options: str) -> None:
        """Write 100 images, each in its own transaction."""
        for number, image in self.records[:100]:
            with self.environment.begin(write=True) as transaction:
                transaction.put(number, image)
        if options.endswith("then sync"):
            self.environment.sync(True)

    def track_ratio(self, options: str) -> float:
        """Return the length of the data file divided by the bytes of the pixels.

        With writemap=True the file is as long as the map, here 64 MiB, while LMDB has it open.
        """
        self.time_write_1000(options)
        return data_ratio(self.environment, self.images)


class LmdbPut(LmdbSuite):
    """5,000 images in one transaction of lmdb alone, not synced.

    Images of 24 pixels a side lie in the pages of the tree, at most two in a page. Images of 32
    pixels a side have pages of their own.
    """

    params = (("put", "put, append=True", "putmulti", "putmulti, append=True"), (24, 32))
    param_names = ("how", "side")
    unit = "file bytes/raw"
    version = version(2)

    def prepare(self, how: str, side: int) -> None:
        """Open an empty environment."""
        self.environment = self.open_environment(sync=False)
        if self.first:
            self.records = [(key(i), image.tobytes()) for i, image in enumerate(self.images)]

    def check(self, how: str, side: int) -> None:
        """Raise RuntimeError unless the environment holds what was written."""
        self.time_write_5000(how, side)
        self.compare(self.environment, np.arange(len(self.images)))

    @facts(images=COUNT)
    def time_write_5000(self, how: str, side: int) -> None:
        """Write all images."""
        append = how.endswith("append=True")
        with self.environment.begin(write=True) as transaction:
            if how.startswith("putmulti"):
                transaction.cursor().putmulti(self.records, append=append)
            else:
                for number, image in self.records:
                    transaction.put(number, image, append=append)

    def track_ratio(self, how: str, side: int) -> float:
        """Return the length of the data file divided by the bytes of the pixels."""
        self.time_write_5000(how, side)
        return data_ratio(self.environment, self.images)


class LmdbKeys(LmdbSuite):
    """5,000 images with lmdb alone: keys are ascending, or in random order like hashes."""

    params = (("ascending", "shuffled"),)
    param_names = ("keys",)
    unit = "file bytes/raw"
    version = version(1)

    def prepare(self, keys: str) -> None:
        """Open an empty environment, and one that was read before."""
        self.environment = self.open_environment(sync=False)
        if self.first:
            count = len(self.images)
            numbers = scattered(count, count) if keys == "shuffled" else list(range(count))
            self.numbers = np.array(numbers)
            self.records = [
                (key(number), image.tobytes())
                for number, image in zip(numbers, self.images, strict=True)
            ]
            self.path = kept(f"tuning-{count}-{keys}.lmdb", self.make)
            self.transaction = lmdb.open(str(self.path), readonly=True, lock=False).begin(
                buffers=True
            )
            self.time_read_5000(keys)

    def check(self, keys: str) -> None:
        """Raise RuntimeError unless the first read and what was written are right."""
        compare(self.found, self.images)
        self.time_write_5000(keys)
        self.compare(self.environment, self.numbers)

    def make(self, path: Path) -> None:
        """Write the environment to read."""
        with closing(lmdb.open(str(path), map_size=1 << 26)) as environment:
            self.write(environment)

    def write(self, environment: lmdb.Environment) -> None:
        """Put the images in their order."""
        with environment.begin(write=True) as transaction:
            for number, image in self.records:
                transaction.put(number, image)

    @facts(images=COUNT)
    def time_write_5000(self, keys: str) -> None:
        """Write all images in their order, in one transaction; not synced."""
        self.write(self.environment)

    @facts(images=COUNT)
    def time_read_5000(self, keys: str) -> None:
        """Read all images in their order."""
        self.found = np.empty_like(self.images)
        get, shape = self.transaction.get, self.images.shape[1:]
        for index, (number, _) in enumerate(self.records):
            self.found[index] = np.ndarray(shape, np.uint8, get(number))

    def track_ratio(self, keys: str) -> float:
        """Return the length of the data file divided by the bytes of the pixels."""
        return (self.path / "data.mdb").stat().st_size / self.images.nbytes


class LmdbMapSize(LmdbSuite):
    """10,000 images in ten transactions of lmdb alone, not synced: does a small map cost time?"""

    params = (("doubled when full", "large from the start"),)
    param_names = ("map",)
    count = 10_000
    version = version(1)

    first_map = 16 << 20  # bytes; the map has to be doubled twice

    def prepare(self, start: str) -> None:
        """Open an empty environment."""
        size = 1 << 30 if start == "large from the start" else self.first_map
        self.environment = self.open_environment(sync=False, map_size=size)
        if self.first:
            records = [(key(i), image.tobytes()) for i, image in enumerate(self.images)]
            step = len(records) // 10
            self.parts = [records[start : start + step] for start in range(0, len(records), step)]

    def check(self, start: str) -> None:
        """Raise RuntimeError unless the environment holds what was written."""
        self.time_write_10000(start)
        self.compare(self.environment, np.arange(len(self.images)))

    @facts(images=10_000)
    def time_write_10000(self, start: str) -> None:
        """Write all images; when the map is full, double it and repeat the transaction."""
        for part in self.parts:
            while True:
                try:
                    with self.environment.begin(write=True) as transaction:
                        transaction.cursor().putmulti(part)
                    break
                except lmdb.MapFullError:
                    self.environment.set_mapsize(2 * self.environment.info()["map_size"])
