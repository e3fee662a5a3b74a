"""In one run: what does storage_impl cost compared with plain code, and a backend with another?

python -m benchmarks.cost [--images N] [--samples N]

Each row divides the time of one way by that of another. The two are measured alternately in this
process, so what slows down the machine slows down both. What they read is checked first. The figure
is the median of the samples' ratios. Beside it are the middle half of the ratios, in brackets, and
the ratio of the CPU time that this process used. A figure beyond its bound is marked "missed". The
command `tox run -e cost` runs this script with the libraries of asv.conf.json.
`STORAGE_IMPL_DATASET` chooses other images.
"""

import argparse
import gc
import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import storage_impl
from benchmarks import datasets, page_cache
from benchmarks.common import compare, scattered, sync
from benchmarks.plain import hdf5, lmdb, png
from benchmarks.workers import Workers, Writer

IMAGES = 10_000
SAMPLES = 11
LEAST = 0.01  # seconds in a sample, unless each call has to be prepared
ENCODED_BYTES = 6 << 20  # of pixels, for each size
WIDTH = 62


class Side(NamedTuple):
    """One of the two ways of a row.

    Attributes
    ----------
    call : callable
        What is timed.
    around : callable, optional
        Returns a context manager that makes a sample ready, and cleans up after it.
    """

    call: Callable[[], object]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


class Row(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    what : str
    asked : float
        The bound of the figure.
    over : Side
    under : Side, optional
        The side whose time divides that of `over`; without it the figure is in milliseconds.
    least : bool, optional
        Whether the bound is a minimum, and not a maximum.
    share : int, optional
        How many images the milliseconds of a call are divided by.
    """

    what: str
    asked: float
    over: Side
    under: Side | None = None
    least: bool = False
    share: int = 1


class Times(NamedTuple):
    """The times of a call, in seconds."""

    wall: float
    cpu: float


def sample(side: Side, calls: int) -> Times:
    """Time some calls, and return the time of one."""
    with side.around():
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            side.call()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Times(wall / calls, cpu / calls)


def measure(row: Row, samples: int) -> list[list[Times]]:
    """Return the samples of each side, without the first sample of each."""
    sides = [side for side in (row.over, row.under) if side]
    anew = any(side.around is not nullcontext for side in sides)
    calls = [
        1 if anew else max(1, round(LEAST / max(sample(side, 1).wall, 1e-9))) for side in sides
    ]
    found: list[list[Times]] = [[] for _ in sides]
    gc.collect()
    for number in range(samples + 1):
        for index in range(len(sides)) if number % 2 else reversed(range(len(sides))):
            found[index].append(sample(sides[index], calls[index]))
    return [each[1:] for each in found]


def figures(row: Row, measured: list[list[Times]]) -> tuple[list[float], list[float]]:
    """Return the figure of each sample: by the wall clock, and by CPU time."""
    if row.under is None:
        return tuple([t[i] * 1e3 / row.share for t in measured[0]] for i in (0, 1))  # type: ignore[return-value]
    pairs = list(zip(*measured, strict=True))
    return tuple([over[i] / max(under[i], 1e-9) for over, under in pairs] for i in (0, 1))  # type: ignore[return-value]


def line(row: Row, wall: Sequence[float], cpu: Sequence[float]) -> str:
    """Return a line of the table."""
    unit = "x" if row.under else "ms"
    middle = median(wall)
    low, _, high = quantiles(wall, n=4) if len(wall) > 1 else [middle] * 3
    missed = middle < row.asked if row.least else middle > row.asked
    return (
        f"{row.what:<{WIDTH}} {middle:8.3g} {unit:<2} {f'({low:.3g} to {high:.3g})':<18} "
        f"{median(cpu):8.3g}  {'>=' if row.least else '<='} {row.asked:<6g}"
        f"{'missed' if missed else ''}"
    ).rstrip()


class Costs:
    """The rows, and the stores that they need in a directory.

    Parameters
    ----------
    scratch : Path
        A directory on the disk to measure.
    count : int
        How many images.
    """

    def __init__(self, scratch: Path, count: int) -> None:
        self.scratch = scratch
        self.images, self.labels = datasets.load(count)
        self.new = scratch / "new" / "store"
        self.new.parent.mkdir()
        self.some = scattered(min(1_000, count), count)

    def rows(self) -> Iterator[Row]:
        """Yield the rows; what a row needs stays until the next row is asked for."""
        self.ours = {name: self.write(name) for name in ("png", "lmdb", "hdf5")}
        self.plain = {}
        for name, module in (("png", png), ("lmdb", lmdb), ("hdf5", hdf5)):
            self.plain[name] = self.scratch / f"plain-{name}"
            module.write_all(self.plain[name], self.images, self.labels, sync=False)
        sync()
        yield from self.opening()
        yield from self.beside_writer()
        yield from self.shuffled()
        yield from self.segments()
        yield from self.one_by_one()
        yield from self.written()
        yield from self.read_all()
        yield from self.two_cores()

    def write(self, backend: str, calls: int = 1, **options: Any) -> Path:
        """Return a store of all images, written in some calls of equal size."""
        path = self.scratch / f"{backend}-{calls}"
        with self.create(path, backend, durable=False, **options) as store:
            for part in np.array_split(np.arange(len(self.images)), calls):
                store.write_many(self.images[part], self.labels[part])
        self.check(path)
        return path

    def create(self, path: Path, backend: str, **options: Any) -> storage_impl.ImageStore:
        """Return an empty store."""
        return storage_impl.create_store(
            path, backend, image_shape=self.images.shape[1:], **options
        )

    def check(self, path: Path) -> None:
        """Raise RuntimeError unless a store holds the images."""
        with storage_impl.open_store(path) as store:
            self.compare(store.read_many())

    def compare(self, found: Any) -> None:
        """Raise RuntimeError unless these are the images and their labels."""
        for one, other in zip(found, (self.images, self.labels), strict=True):
            compare(one, other)

    def opening(self) -> Iterator[Row]:
        """Open LMDB, read one image and close it, compared with the library alone."""
        index = self.some[0]
        key = f"{index:08}".encode()

        def ours() -> Any:
            with storage_impl.open_store(self.ours["lmdb"]) as store:
                return store.read_one(index)

        def plain() -> Any:
            with lmdb.opened(self.plain["lmdb"]) as transaction:
                return transaction.get(key)

        for image, label in (ours(), pickle.loads(plain())):
            compare(image, self.images[index])
            compare(label, self.labels[index])
        what = "LMDB: open, read one, close, over lmdb.open and get"
        yield Row(what, 3, Side(ours), Side(plain))

        def cold(path: Path) -> Callable[[], AbstractContextManager[None]]:
            @contextmanager
            def emptied() -> Iterator[None]:
                page_cache.empty(path)
                yield

            return emptied

        try:
            page_cache.empty(self.ours["lmdb"])
        except NotImplementedError as error:
            print(f"the same, page cache empty: not measured, {error}")
            return
        sides = Side(ours, cold(self.ours["lmdb"])), Side(plain, cold(self.plain["lmdb"]))
        yield Row("the same, page cache empty", 1.2, *sides)

    def beside_writer(self) -> Iterator[Row]:
        """Open LMDB while another process appends without a pause, compared with no writer."""
        path = self.scratch / "appended"
        shutil.copytree(self.ours["lmdb"], path)
        writers = Workers("fork", Writer, [(self.images[:10], self.labels[:10])])

        @contextmanager
        def busy() -> Iterator[None]:
            writers.start("write_on")
            writers.results()  # waits until it has begun
            yield
            writers.start("cpu")  # any request ends `write_on`
            writers.results()
            writers.results()

        def read() -> Any:
            for _ in range(10):
                with storage_impl.open_store(path) as store:
                    pass
            return store

        writers.call("append_to", path)
        try:
            yield Row(
                "LMDB: open beside a busy writer, over alone", 1.3, Side(read, busy), Side(read)
            )
        finally:
            writers.call("discard")
            writers.end()

    def shuffled(self) -> Iterator[Row]:
        """Read shuffled batches and single images from HDF5, compared with LMDB."""
        with (
            storage_impl.open_store(self.ours["hdf5"]) as one,
            storage_impl.open_store(self.ours["lmdb"]) as other,
        ):
            for store in (one, other):
                self.compare_batches(store)
            sides = Side(lambda: batches(one)), Side(lambda: batches(other))
            yield Row("shuffled batches of 256, HDF5 over LMDB", 1.2, *sides)
            sides = Side(lambda: self.read_some(one)), Side(lambda: self.read_some(other))
            yield Row("one image at random, HDF5 over LMDB", 1.3, *sides)

    def compare_batches(self, store: storage_impl.ImageStore) -> None:
        """Raise RuntimeError unless batches and single images are right."""
        order = np.random.default_rng(7).permutation(len(self.images))[:256]
        images, labels = store.read_many(order)
        compare(images, self.images[order])
        compare(labels, self.labels[order])
        compare(sum(len(labels) for _, labels in store.batches(256, shuffle=7)), len(self.images))
        for index in self.some:
            compare(store.read_one(index)[0], self.images[index])

    def read_some(self, store: storage_impl.ImageStore) -> None:
        """Read scattered images, one by one."""
        for index in self.some:
            store.read_one(index)

    def segments(self) -> Iterator[Row]:
        """Read HDF5 that was written in many calls, compared with one call."""
        for calls in (64, 1_000):
            path = self.write("hdf5", min(calls, len(self.images)))
            with (
                storage_impl.open_store(path) as many,
                storage_impl.open_store(self.ours["hdf5"]) as one,
            ):
                self.compare_batches(many)
                self.compare_batches(one)
                ends = f"HDF5, {calls:,} segments over one"
                sides = Side(lambda: self.read_some(many)), Side(lambda: self.read_some(one))
                yield Row(f"one image at random, {ends}", 1.5, *sides)
                sides = Side(lambda: batches(many)), Side(lambda: batches(one))
                yield Row(f"shuffled batches of 256, {ends}", 1.5, *sides)
            shutil.rmtree(path)

    def one_by_one(self) -> Iterator[Row]:
        """Read HDF5 that was written image by image."""
        path = self.scratch / "one-by-one"
        with self.create(path, "hdf5", durable=False) as store:
            for image, label in zip(self.images, self.labels, strict=True):
                store.write_one(image, label)
        self.check(path)
        count = len(self.images)

        def read() -> Any:
            with storage_impl.open_store(path) as store:
                return store.read_many()

        what = f"HDF5, {count:,} calls of write_one"
        yield Row(f"{what}: open", 100, Side(lambda: storage_impl.open_store(path).close()))
        yield Row(f"{what}: open and read all, per image", 0.3, Side(read), share=count)
        shutil.rmtree(path)

    def written(self) -> Iterator[Row]:
        """Create, write and close a store, with its files and their names synced."""

        @contextmanager
        def fresh() -> Iterator[None]:
            shutil.rmtree(self.new, ignore_errors=True)
            sync()
            yield

        def ours(backend: str) -> None:
            with self.create(self.new, backend) as store:
                store.write_many(self.images, self.labels)

        def plain(module: ModuleType) -> None:
            module.write_all(self.new, self.images, self.labels, sync=True)
            sync_directory(self.new.parent)

        for backend, module in (("hdf5", hdf5), ("lmdb", lmdb)):
            with fresh():
                ours(backend)
                self.check(self.new)
            with fresh():
                plain(module)
                with module.opened(self.new) as opened:
                    self.compare(module.read_all(opened))
            of_ours = Side(lambda: ours(backend), fresh)  # noqa: B023
            of_plain = Side(lambda: plain(module), fresh)  # noqa: B023
            if backend == "hdf5":
                what = "HDF5, written and synced, over plain h5py and fsync"
                yield Row(what, 1.0, of_ours, of_plain)
            else:
                what = "LMDB, written and synced, plain pickled objects over ours"
                yield Row(what, 2.5, of_plain, of_ours, least=True)

    def read_all(self) -> Iterator[Row]:
        """Open a store, read everything and close it: plain code compared with ours."""
        for backend, module, asked in (("lmdb", lmdb, 5), ("png", png, 1.3), ("hdf5", hdf5, 2)):

            def ours(path: Path = self.ours[backend]) -> Any:
                with storage_impl.open_store(path) as store:
                    return store.read_many()

            def plain(path: Path = self.plain[backend], module: ModuleType = module) -> Any:
                with module.opened(path) as opened:
                    return module.read_all(opened)

            self.compare(ours())
            self.compare(plain())
            what = f"{backend}: open and read all, plain code over ours"
            yield Row(what, asked, Side(plain), Side(ours), least=True)

    def two_cores(self) -> Iterator[Row]:
        """Read encoded images on one core, compared with two; the process may use no others."""
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if len(allowed) < 2:
            print("one core over two: not measured, needs two cores and sched_setaffinity")
            return
        turns = cycle(allowed[:2])

        @contextmanager
        def only(*cores: int) -> Iterator[None]:
            os.sched_setaffinity(0, cores)
            try:
                yield
            finally:
                os.sched_setaffinity(0, allowed)

        for side in (32, 64, 256):
            number = max(2, ENCODED_BYTES // (side * side * 3) * len(self.images) // IMAGES)
            images, labels = datasets.load(number, side)
            for backend, encoding in (("png", "png"), ("lmdb", "jpeg"), ("lmdb", "webp")):
                path = self.scratch / f"{encoding}-{side}"
                with storage_impl.create_store(
                    path, backend, image_shape=images.shape[1:], encoding=encoding, durable=False
                ) as store:
                    store.write_many(images, labels)
                with storage_impl.open_store(path) as store:
                    with only(allowed[0]):
                        one = store.read_many()[0]
                    with only(*allowed[:2]):
                        compare(store.read_many()[0], one)
                    if encoding != "jpeg":  # JPEG is lossy
                        compare(one, images)
                    yield Row(
                        f"{encoding} of {side} px: read_many on one core over two",
                        1.6 if side > 32 else 1.0,
                        Side(store.read_many, lambda: only(next(turns))),
                        Side(store.read_many, lambda: only(*allowed[:2])),
                        least=True,
                    )


def batches(store: storage_impl.ImageStore) -> None:
    """Read all images in shuffled batches."""
    for _ in store.batches(256, shuffle=7):
        pass


def sync_directory(path: Path) -> None:
    """Sync the names in a directory, as creating a store does."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all rows, and print each when it is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument(
        "--images", type=int, default=IMAGES, help="images in a store (default: %(default)s)"
    )
    parser.add_argument(
        "--samples", type=int, default=SAMPLES, help="samples of each side (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    start = time.monotonic()
    print(datasets.survey().text)
    print(f"{given.images:,} images, {given.samples} samples of each side, alternately\n")
    print(f"{'':<{WIDTH}} {'figure':>8}    {'middle half':<18} {'CPU':>8}  bound")
    with tempfile.TemporaryDirectory(prefix="cost-") as directory:
        for row in Costs(Path(directory), given.images).rows():
            print(line(row, *figures(row, measure(row, given.samples))), flush=True)
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
