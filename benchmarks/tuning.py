"""What do the options of the backends and of their libraries cost and give?

The options that `storage_impl` has are measured through it. Advice that it follows without an
option, or does not follow, is measured on the library alone: what is stored is then the pixels
and nothing else.
"""

import os
import random
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import h5py
import lmdb
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import storage_impl
from benchmarks import floor  # not its classes: asv would take them for some of these
from benchmarks.common import StoreSuite, Suite, compare, facts, version
from benchmarks.page_cache import ColdSuite

COUNT = 5_000


def scattered(number: int, count: int) -> list[int]:
    """Return `number` different indices of `count` images, in no order."""
    draw = random.Random(7).random  # alike in all versions of Python and of numpy
    return sorted(range(count), key=lambda _: draw())[:number]


# -- PNG -------------------------------------------------------------------------------------

PNG_LEVELS = (0, 1, 6, 9)
PNG_SIDES = (32, 256)
PNG_BYTES = 3 << 18  # 256 images of 32 pixels a side, 4 of 256


class PngLevel(StoreSuite):
    """Stores of PNG files by compression level, in images of 32 and of 256 pixels a side."""

    params = (PNG_LEVELS, PNG_SIDES)
    param_names = ("level", "side")
    unit = "file bytes/raw"
    version = version(1)

    def setup(self, level: int, side: int) -> None:
        """Open a store and an empty one; once in a process, write and look at what is there."""
        self.open_both(level, side)
        if self.first:
            self.time_write(level, side)
            self.compare(self.empty)
            self.teardown()
            self.open_both(level, side)

    def open_both(self, level: int, side: int) -> None:
        """Start a sample with a store that was read before, and an empty one."""
        self.begin(PNG_BYTES // (side * side * 3), side)
        self.store = self.warm_store("png", compress_level=level)
        self.empty = self.new_store("png", compress_level=level)

    @facts(bytes=PNG_BYTES)
    def time_write(self, level: int, side: int) -> None:
        """Write all images; not synced."""
        self.empty.write_many(self.images, self.labels)

    @facts(bytes=PNG_BYTES)
    def time_read(self, level: int, side: int) -> None:
        """Read all images."""
        self.store.read_many()

    def track_ratio(self, level: int, side: int) -> float:
        """Return the lengths of the PNG files over the bytes of the pixels."""
        files = self.store.path.rglob("*.png")
        return sum(path.stat().st_size for path in files) / self.images.nbytes


class PngCodec(Suite):
    """What `PngLevel` does, without a file: Pillow from memory to memory."""

    params = (PNG_LEVELS, PNG_SIDES)
    param_names = ("level", "side")
    version = version(2)

    def setup(self, level: int, side: int) -> None:
        """Encode what is to be decoded."""
        self.begin(PNG_BYTES // (side * side * 3), side)
        if self.first:
            self.time_encode(level, side)
            self.time_decode(level, side)
            compare(np.stack(self.decoded), self.images)

    @facts(bytes=PNG_BYTES)
    def time_encode(self, level: int, side: int) -> None:
        """Encode each image."""
        self.encoded = []
        for image in self.images:
            buffer = BytesIO()
            Image.fromarray(image).save(buffer, "PNG", compress_level=level)
            self.encoded.append(buffer.getvalue())

    @facts(bytes=PNG_BYTES)
    def time_decode(self, level: int, side: int) -> None:
        """Decode each image."""
        self.decoded = [floor.decode(data) for data in self.encoded]


# -- HDF5 ------------------------------------------------------------------------------------

HDF5_LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "1 a chunk": {"chunk_images": 1},
    "16 a chunk": {"chunk_images": 16},
    "64 a chunk": {"chunk_images": 64},
    "16 a chunk, gzip": {"chunk_images": 16, "gzip_level": 6},
}


class Hdf5Layout(StoreSuite):
    """HDF5 stores of 5,000 images, contiguous (the default) or in chunks of whole images.

    Each sample opens the store anew, for HDF5 keeps chunks that it has read, already expanded.
    """

    params = (("contiguous", "1 a chunk", "16 a chunk", "64 a chunk", "16 a chunk, gzip"),)
    param_names = ("layout",)
    unit = "file bytes/raw"
    version = version(1)

    def setup(self, layout: str) -> None:
        """Open a store and an empty one; once in a process, write and look at what is there."""
        self.open_both(layout)
        if self.first:
            self.time_write(layout)
            self.compare(self.empty)
            self.compare(self.store)
            found = [self.store.read_one(index)[0] for index in self.indices]
            compare(found, self.images[self.indices])
            self.teardown()
            self.open_both(layout)

    def open_both(self, layout: str) -> None:
        """Start a sample with a store of which the labels were read, and an empty one."""
        self.begin(COUNT)
        self.store = storage_impl.open_store(self.stored("hdf5", **HDF5_LAYOUTS[layout]))
        self.undo.callback(self.store.close)
        self.store.read_labels()  # opens the file
        self.empty = self.new_store("hdf5", **HDF5_LAYOUTS[layout])
        self.indices = scattered(100, len(self.images))

    @facts(images=COUNT)
    def time_write(self, layout: str) -> None:
        """Write all images; not synced."""
        self.empty.write_many(self.images, self.labels)

    @facts(images=COUNT)
    def time_read(self, layout: str) -> None:
        """Read all images, in order."""
        self.store.read_many()

    @facts(images=100)
    def time_read_one(self, layout: str) -> None:
        """Read 100 images here and there, one by one."""
        for index in self.indices:
            self.store.read_one(index)

    def track_ratio(self, layout: str) -> float:
        """Return the lengths of the files over the bytes of the pixels."""
        return self.store.disk_usage().apparent / self.images.nbytes


class LibrarySuite(Suite):
    """Base of what is measured on a library alone."""

    def kept(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return what `make` writes to a path; the first benchmark to ask for it makes it."""
        path = Path.cwd() / f"tuning-{len(self.images)}-{name}"
        if not path.exists():
            aside = self.scratch / "aside"
            make(aside)
            os.rename(aside, path)
        return path

    def dataset(self, name: str, **options: Any) -> Any:
        """Return h5py's dataset of all images, made with these options, open for this sample.

        It is opened anew, for HDF5 keeps chunks that it has read.
        """

        def make(path: Path) -> None:
            with h5py.File(path, "w") as file:
                file.create_dataset("images", data=self.images, **options)

        path = self.kept(f"{name}.h5", make)
        if self.first:
            with h5py.File(path) as file:
                compare(file["images"][:], self.images)
        opened = h5py.File(path)
        self.undo.callback(opened.close)
        return opened["images"]


class Hdf5AutoChunks(LibrarySuite):
    """5,000 images by h5py alone: contiguous, and in the chunks that h5py itself chooses.

    It does where it is given ``chunks=True``, compression or ``maxshape``, and cuts each
    image into pieces that it puts together with those of many others.
    """

    params = (("contiguous", "chunks=True", "compression='gzip'"),)
    param_names = ("layout",)
    warmup_time = 0.1
    unit = "file bytes/raw"
    version = version(1)

    options: ClassVar[dict[str, dict[str, Any]]] = {
        "contiguous": {},
        "chunks=True": {"chunks": True},
        "compression='gzip'": {"compression": "gzip"},
    }

    def setup(self, layout: str) -> None:
        """Open the dataset; once in a process, look at the images that are read."""
        self.open_layout(layout)
        if self.first:
            found = [self.images_stored[index] for index in self.indices]
            compare(found, self.images[self.indices])
            self.teardown()
            self.open_layout(layout)

    def open_layout(self, layout: str) -> None:
        """Start a sample with the dataset of a layout."""
        self.begin(COUNT)
        name = next(iter(self.options[layout]), layout)
        self.images_stored = self.dataset(name, **self.options[layout])
        self.indices = scattered(20, len(self.images))

    @facts(images=COUNT)
    def time_read(self, layout: str) -> None:
        """Read all images, in order."""
        self.images_stored[:]

    @facts(images=20)
    def time_read_one(self, layout: str) -> None:
        """Read 20 images here and there, one by one."""
        for index in self.indices:
            self.images_stored[index]

    def track_ratio(self, layout: str) -> float:
        """Return the length of the file over the bytes of the pixels."""
        return os.path.getsize(self.images_stored.file.filename) / self.images.nbytes


class Hdf5Selection(LibrarySuite):
    """256 images here and there of 5,000, sorted, by h5py alone."""

    params = (("contiguous", "16 a chunk"), ("list", "one by one", "everything"))
    param_names = ("layout", "how")
    warmup_time = 0.1
    version = version(1)

    def setup(self, layout: str, how: str) -> None:
        """Open the dataset; once in a process, look at what is read."""
        self.open_layout(layout)
        if self.first:
            self.time_read(layout, how)
            compare(self.found, self.images[self.indices])
            self.teardown()
            self.open_layout(layout)

    def open_layout(self, layout: str) -> None:
        """Start a sample with the dataset of a layout."""
        self.begin(COUNT)
        chunks = None if layout == "contiguous" else (16, *self.images.shape[1:])
        self.images_stored = self.dataset(layout, chunks=chunks)
        self.indices = sorted(scattered(256, len(self.images)))

    @facts(images=256)
    def time_read(self, layout: str, how: str) -> None:
        """Index with a list, read one by one, or read all 5,000 and choose in memory."""
        stored = self.images_stored
        if how == "list":
            self.found = stored[self.indices]
        elif how == "one by one":
            self.found = np.stack([stored[index] for index in self.indices])
        else:
            self.found = stored[:][self.indices]


# -- LMDB ------------------------------------------------------------------------------------


class LmdbReadahead(StoreSuite):
    """LMDB stores of 5,000 images with and without readahead, from a store read before."""

    params = ((True, False),)
    param_names = ("readahead",)
    warmup_time = 0.1
    version = version(1)

    def setup(self, readahead: bool) -> None:
        """Open a store; once in a process, look at what is read."""
        self.begin(COUNT)
        self.indices = scattered(500, len(self.images))
        self.store = self.warm_store("lmdb", readahead=readahead)
        if self.first:
            found = [self.store.read_one(index)[0] for index in self.indices]
            compare(found, self.images[self.indices])

    @facts(images=COUNT)
    def time_read(self, readahead: bool) -> None:
        """Read all images, in order."""
        self.store.read_many()

    @facts(images=500)
    def time_read_one(self, readahead: bool) -> None:
        """Read 500 images here and there, one by one."""
        for index in self.indices:
            self.store.read_one(index)


class LmdbReadaheadCold(ColdSuite):
    """`LmdbReadahead` with nothing in the page cache; opening the store is counted."""

    params = ((True, False),)
    param_names = ("readahead",)
    version = version(1)

    def setup(self, readahead: bool) -> None:
        """Empty the page cache; once in a process, read everything before."""
        self.begin(COUNT)
        self.indices = scattered(500, len(self.images))
        self.path = self.stored("lmdb", readahead=readahead)
        if self.first:
            with storage_impl.open_store(self.path) as store:
                self.compare(store)
                found = [store.read_one(index)[0] for index in self.indices]
            compare(found, self.images[self.indices])
        self.empty_cache(self.path)

    @facts(images=COUNT, cache="cold")
    def time_read(self, readahead: bool) -> None:
        """Open the store and read all images, in order."""
        with storage_impl.open_store(self.path) as store:
            store.read_many()

    @facts(images=500, cache="cold")
    def time_read_one(self, readahead: bool) -> None:
        """Open the store and read 500 images here and there, one by one."""
        with storage_impl.open_store(self.path) as store:
            for index in self.indices:
                store.read_one(index)


class LmdbSuite(LibrarySuite):
    """Base of the benchmarks that write with lmdb alone, each sample into a new environment."""

    def open_environment(self, **options: Any) -> lmdb.Environment:
        """Return an empty environment, open for this sample."""
        options.setdefault("map_size", 1 << 26)  # 64 MiB
        environment = lmdb.open(str(self.scratch / "environment"), **options)
        self.undo.callback(environment.close)
        return environment

    def check(self, environment: lmdb.Environment, numbers: NDArray[np.int64]) -> None:
        """Raise RuntimeError unless each image has its number for a key; closes the environment."""
        path = environment.path()
        environment.close()
        with closing(lmdb.open(path, readonly=True)) as reader, reader.begin() as transaction:
            compare(transaction.stat()["entries"], len(numbers))
            found = [transaction.get(key(number), b"") for number in numbers.tolist()]
        stored = np.frombuffer(b"".join(found), np.uint8).reshape(-1, *self.images.shape[1:])
        compare(stored, self.images[: len(numbers)])


def data_ratio(environment: lmdb.Environment, images: NDArray[np.uint8]) -> float:
    """Return the length of the data file over the bytes of the pixels."""
    return os.path.getsize(os.path.join(environment.path(), "data.mdb")) / images.nbytes


def key(number: int) -> bytes:
    """Return the key of a number: in LMDB's order, they are in that of the numbers."""
    return number.to_bytes(8, "big")


class LmdbSync(LmdbSuite):
    """What writes by lmdb alone save where LMDB syncs less, or writes through its map."""

    params = (
        ("default", "metasync=False", "sync=False", "sync=False, then sync", "writemap=True"),
    )
    param_names = ("options",)
    unit = "file bytes/raw"
    version = version(1)

    options: ClassVar[dict[str, dict[str, bool]]] = {
        "default": {},
        "metasync=False": {"metasync": False},
        "sync=False": {"sync": False},
        "sync=False, then sync": {"sync": False},
        "writemap=True": {"writemap": True},
    }

    def setup(self, options: str) -> None:
        """Open an empty environment; once in a process, write and look at what is there."""
        self.open_empty(options)
        if self.first:
            for write, count in ((self.time_write, 1_000), (self.time_write_one, 100)):
                write(options)
                self.check(self.environment, np.arange(min(count, len(self.images))))
                self.teardown()
                self.open_empty(options)

    def open_empty(self, options: str) -> None:
        """Start a sample with an empty environment, and nothing else that waits for the disk."""
        self.begin(1_000)
        self.environment = self.open_environment(**self.options[options])
        if self.first:
            self.records = [(key(i), image.tobytes()) for i, image in enumerate(self.images)]
        if hasattr(os, "sync"):
            os.sync()

    @facts(images=1_000)
    def time_write(self, options: str) -> None:
        """Write 1,000 images in one transaction."""
        with self.environment.begin(write=True) as transaction:
            transaction.cursor().putmulti(self.records)
        if options.endswith("then sync"):
            self.environment.sync(True)

    @facts(images=100)
    def time_write_one(self, options: str) -> None:
        """Write 100 images in a transaction each."""
        for number, image in self.records[:100]:
            with self.environment.begin(write=True) as transaction:
                transaction.put(number, image)
        if options.endswith("then sync"):
            self.environment.sync(True)

    def track_ratio(self, options: str) -> float:
        """Return the length of the data file over the bytes of the pixels.

        Written through the map it is as long as the map, here 64 MiB, where LMDB is open.
        """
        self.time_write(options)
        return data_ratio(self.environment, self.images)


class LmdbPut(LmdbSuite):
    """5,000 images in one transaction of lmdb alone, not synced.

    Those of 24 pixels a side lie in the pages of the tree, two in a page at most; those of 32 have
    pages of their own.
    """

    params = (("put", "put, append=True", "putmulti", "putmulti, append=True"), (24, 32))
    param_names = ("how", "side")
    unit = "file bytes/raw"
    version = version(2)

    def setup(self, how: str, side: int) -> None:
        """Open an empty environment; once in a process, write and look at what is there."""
        self.open_empty(side)
        if self.first:
            self.time_write(how, side)
            self.check(self.environment, np.arange(len(self.images)))
            self.teardown()
            self.open_empty(side)

    def open_empty(self, side: int) -> None:
        """Start a sample with an empty environment."""
        self.begin(COUNT, side)
        self.environment = self.open_environment(sync=False)
        if self.first:
            self.records = [(key(i), image.tobytes()) for i, image in enumerate(self.images)]

    @facts(images=COUNT)
    def time_write(self, how: str, side: int) -> None:
        """Write all images."""
        append = how.endswith("append=True")
        with self.environment.begin(write=True) as transaction:
            if how.startswith("putmulti"):
                transaction.cursor().putmulti(self.records, append=append)
            else:
                for number, image in self.records:
                    transaction.put(number, image, append=append)

    def track_ratio(self, how: str, side: int) -> float:
        """Return the length of the data file over the bytes of the pixels."""
        self.time_write(how, side)
        return data_ratio(self.environment, self.images)


class LmdbKeys(LmdbSuite):
    """5,000 images by lmdb alone, their keys ascending or in no order, as names or hashes are."""

    params = (("ascending", "shuffled"),)
    param_names = ("keys",)
    unit = "file bytes/raw"
    version = version(1)

    def setup(self, keys: str) -> None:
        """Open two environments, one empty; once in a process, look at what is written."""
        self.open_both(keys)
        if self.first:
            self.time_write(keys)
            self.check(self.environment, self.numbers)
            self.teardown()
            self.open_both(keys)

    def open_both(self, keys: str) -> None:
        """Start a sample with an empty environment, and one that was read before."""
        self.begin(COUNT)
        self.environment = self.open_environment(sync=False)
        if self.first:
            count = len(self.images)
            numbers = scattered(count, count) if keys == "shuffled" else list(range(count))
            self.numbers = np.array(numbers)
            self.records = [
                (key(number), image.tobytes())
                for number, image in zip(numbers, self.images, strict=True)
            ]
            self.path = self.kept(f"{keys}.lmdb", self.make)
            self.transaction = lmdb.open(str(self.path), readonly=True, lock=False).begin(
                buffers=True
            )
            self.time_read(keys)
            compare(self.found, self.images)

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
    def time_write(self, keys: str) -> None:
        """Write all images in their order, in one transaction; not synced."""
        self.write(self.environment)

    @facts(images=COUNT)
    def time_read(self, keys: str) -> None:
        """Read all images in their order."""
        self.found = np.empty_like(self.images)
        get, shape = self.transaction.get, self.images.shape[1:]
        for index, (number, _) in enumerate(self.records):
            self.found[index] = np.ndarray(shape, np.uint8, get(number))

    def track_ratio(self, keys: str) -> float:
        """Return the length of the data file over the bytes of the pixels."""
        return (self.path / "data.mdb").stat().st_size / self.images.nbytes


class LmdbMapSize(LmdbSuite):
    """10,000 images in ten transactions of lmdb alone, not synced: is a small map a cost?"""

    params = (("doubled when full", "large from the start"),)
    param_names = ("map",)
    version = version(1)

    first_map = 16 << 20  # bytes, as `storage_impl` begins

    def setup(self, start: str) -> None:
        """Open an empty environment; once in a process, write and look at what is there."""
        self.open_empty(start)
        if self.first:
            self.time_write(start)
            self.check(self.environment, np.arange(len(self.images)))
            self.teardown()
            self.open_empty(start)

    def open_empty(self, start: str) -> None:
        """Start a sample with an empty environment."""
        self.begin(10_000)
        size = 1 << 30 if start == "large from the start" else self.first_map
        self.environment = self.open_environment(sync=False, map_size=size)
        if self.first:
            records = [(key(i), image.tobytes()) for i, image in enumerate(self.images)]
            step = len(records) // 10
            self.parts = [records[start : start + step] for start in range(0, len(records), step)]

    @facts(images=10_000)
    def time_write(self, start: str) -> None:
        """Write all images, and a transaction again in a map of twice the size when it is full."""
        for part in self.parts:
            while True:
                try:
                    with self.environment.begin(write=True) as transaction:
                        transaction.cursor().putmulti(part)
                    break
                except lmdb.MapFullError:
                    self.environment.set_mapsize(2 * self.environment.info()["map_size"])
