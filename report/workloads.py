"""The table of workloads: it says where each is shown, and which commands measure it.

The page and the terminal show workloads. The gate, the sweep over versions and the quick run
measure them. `used_in(GATE)` returns the rows of the gate, and `patterns(QUICK)` what asv is told
to run for the quick run. To show or measure a benchmark somewhere, add the place to its row. The
charts of the page are in `page.charts`.

`GROUPS` are the tables of the page; the first one is that of the first screen. `used_in(group.id)`
returns the rows of a table. The first parameter of a benchmark is the column: a backend, or the
store of plain code and loaders. `Source.where` fixes the other parameters, except those in
`Group.choices`. The reader chooses the values of these, and `known["params"]` lists them. A source
in `Workload.beside` has no first parameter: its column is its `line`. In a group with `over_plain`,
a cell is the cost divided by that of plain code: see `report.results.over_plain`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

PER_IMAGE = "seconds per image"
SECONDS = "seconds"
BYTES_PER_IMAGE = "bytes per image"
RATIO = "ratio"
COUNT = "count"
OF_ONE_IMAGE = (PER_IMAGE, BYTES_PER_IMAGE)  # a figure is divided by the number of images

# Where a workload is used: tables of the page, and commands.
FIRST, PLAIN, ENCODINGS, SHARDS = "first", "plain", "encodings", "shards"
LOADERS, STORES = "loaders", "stores"
QUICK = "quick"
SWEEP = "sweep"  # `tox run -e versions` measures it with each version
VERSIONS = "versions"  # the terminal has a line for each of these versions
GATE = "gate"

# What `tox run -e versions` varies.
LIBRARIES = ("numpy", "Pillow", "lmdb", "h5py")


class Source(NamedTuple):
    """A benchmark that a chart or a workload takes its figures from.

    Attributes
    ----------
    benchmark : str
    line : str
        The name of its figures among those of the other sources of the chart or row.
    where : dict
        The parameters to take, if not all. A workload's own source has all parameters after the
        first, in the benchmark's order, except the choices of its group.
    """

    benchmark: str
    line: str = ""
    where: Mapping[str, Any] = {}

    @property
    def parameters(self) -> tuple[Any, ...]:
        """The parameters after the first."""
        return tuple(self.where.values())


class Workload(NamedTuple):
    """A workload: a row of each table that shows it.

    Attributes
    ----------
    id, title : str
        What the row is called.
    source : Source
    used : tuple of str
        Where it is used: FIRST, QUICK and so on.
    unit : str
    what : str
        What is measured in one sentence; empty if the title says it.
    floors : Source or None
        The source whose floors apply, if the benchmark has none of its own.
    beside : tuple of Source
        Further columns, each with the name in the source's `line`.
    slow : tuple of str
        Backends that the sweep does not measure with it, because a sample takes seconds.
    counted : str
        The operation of `benchmarks.work` that does the same.
    """

    id: str
    title: str
    source: Source
    used: tuple[str, ...]
    unit: str = PER_IMAGE
    what: str = ""
    floors: Source | None = None
    beside: tuple[Source, ...] = ()
    slow: tuple[str, ...] = ()
    counted: str = ""


class Group(NamedTuple):
    """A table of the page: its rows are the workloads that are used in its `id`.

    Attributes
    ----------
    id, title, what : str
        What the table is called, and what it shows in one sentence.
    choices : tuple of str
        Parameters that the reader chooses; a benchmark may lack some of them.
    over_plain : bool
        Whether its cells are ratios of storage_impl's cost to that of plain code.
    """

    id: str
    title: str
    what: str
    choices: tuple[str, ...] = ()
    over_plain: bool = False


GROUPS = (
    Group(FIRST, "Workloads", "The cost of each workload in storage_impl's stores."),
    Group(
        PLAIN,
        "storage_impl relative to plain code",
        "What the promises cost: the cost of storage_impl divided by the cost of a tutorial's code "
        "with the same library. Both sync, or neither does.",
        over_plain=True,
    ),
    Group(
        ENCODINGS,
        "Encodings",
        "6 MiB of pixels, by encoding and size. Images of your own keep their sizes in the place "
        "of 64 to 512. The column files is a folder of image files, read with Pillow.",
        choices=("encoding", "size"),
    ),
    Group(SHARDS, "Shards", "A dataset of 8 stores, compared with one store."),
    Group(
        LOADERS,
        "Loaders",
        "torch's DataLoader with batches of 256. The column files is a folder of PNG files, read "
        "with Pillow.",
        choices=("workers",),
    ),
    Group(
        STORES,
        "Plain code and further stores",
        "A tutorial's code with each library, without checksums and commits.",
    ),
)

# How fast the machine itself was, whatever was installed.
CPU = "calibration.Cpu.time_work"
CALIBRATION = {"CPU": CPU, "disk": "calibration.Disk.time_work"}

# The disk space of a store: the sum of its files' lengths, and what du counts.
BYTES = {
    "apparent": "disk_usage.DiskUsage.track_apparent",
    "allocated": "disk_usage.DiskUsage.track_allocated",
}

MANY = {"count": 10_000}
WRITE_MANY = "many_images.WriteMany.time_write"
READ_MANY = "many_images.ReadMany.time_read"
READ_ONE = "single_image.ReadOne.time_read_100"
READ_BATCHES = "access_patterns.ReadBatches.time_read_10000"
READ_PROCESSES = "concurrency.ReadProcesses.time_read_5000"
_SHUFFLED = {"order": "shuffled", "batch": 256}
_READ_SHARDS = "shards.ReadShards.time_read_10000"
_WRITE_SHARDS = "shards.WriteShards.time_write_2000"
_WORK = "work.PlainInstructions.track_instructions"
# `Workload.counted` names an operation of this benchmark.
INSTRUCTIONS = "work.Instructions.track_instructions"

WORKLOADS = (
    Workload(
        *("write", "Write once", Source(WRITE_MANY, where=MANY), (FIRST, PLAIN, QUICK, SWEEP)),
        what="one call writes 10,000 images into an empty store, not synced",
        slow=("png",),
        counted="write many",
    ),
    Workload(
        *("read", "Read all", Source(READ_MANY, where=MANY)),
        (FIRST, PLAIN, QUICK, SWEEP, VERSIONS),
        what="one call reads 10,000 images in order, from a store that was read before",
        counted="read all",
    ),
    Workload(
        *("shuffled", "Shuffled", Source(READ_BATCHES, where=_SHUFFLED)),
        (FIRST, PLAIN, QUICK, SWEEP, VERSIONS),
        what="each of 10,000 images once, in shuffled batches of 256",
        floors=Source(READ_MANY, where=MANY),
        counted="shuffled batches",
    ),
    Workload(
        *("random", "Random access", Source(READ_ONE)),
        (FIRST, PLAIN, QUICK, SWEEP, VERSIONS, GATE),
        what="single images at random, one call for each, from a store of 1,000",
        counted="read one",
    ),
    Workload(
        *("labels", "Labels only", Source("access_patterns.ReadLabels.time_read", where=MANY)),
        (FIRST, QUICK, SWEEP),
        what="one call reads the labels of 10,000 images",
        counted="labels",
    ),
    Workload(
        *("append", "Append", Source("growth.Append.time_append_1000", where={"held": 10_000})),
        (FIRST,),
        what="one call adds 1,000 images to a store that holds 10,000",
        floors=Source(WRITE_MANY, where={"count": 1_000}),
        counted="append",
    ),
    Workload(
        "processes",
        "Many processes",
        Source(READ_PROCESSES, where={"start": "spawn", "processes": 4}),
        (FIRST,),
        what="four running processes read 5,000 images, each an equal part",
        floors=Source(READ_MANY, where=MANY),
    ),
    Workload(
        *("disk", "Disk space", Source(BYTES["allocated"], where=MANY)),
        (FIRST, PLAIN, QUICK, SWEEP),
        BYTES_PER_IMAGE,
        what="the disk space of a store of 10,000 images, as du counts it",
    ),
    Workload(
        "synced",
        "Write, synced",
        Source("durability.CreateToClose.time_write_1000"),
        (PLAIN,),
        what="make a store of 1,000 images, sync it and close it",
    ),
    Workload(
        *("open", "Open, read one", Source("startup.OpenStore.time_open_read", where=MANY)),
        (PLAIN, QUICK, SWEEP),
        SECONDS,
        what="open a store of 10,000 images, read one image, and close the store",
    ),
    # Workloads that only commands measure, and only tables of the terminal show.
    Workload(
        *("write-one", "Write one", Source("single_image.WriteOne.time_write")),
        (QUICK, SWEEP, VERSIONS),
    ),
    Workload(
        *("write-100", "Write 100", Source(WRITE_MANY, where={"count": 100}), (GATE,)),
        counted="write many",
    ),
    Workload(
        *("write-1000", "Write 1,000", Source(WRITE_MANY, where={"count": 1_000})),
        (SWEEP, VERSIONS),
    ),
    Workload(
        *("read-1000", "Read 1,000", Source(READ_MANY, where={"count": 1_000}), (SWEEP, GATE)),
        counted="read all",
    ),
    *(
        Workload(
            *(id, title, Source(_WORK, where={"operation": operation}), (SWEEP, VERSIONS), COUNT),
            what="instructions of plain code for 64 images",
        )
        for id, title, operation in (
            ("write-work", "Write instr", "write many"),
            ("read-work", "Read instr", "read all"),
        )
    ),
    # By encoding and size.
    Workload(
        *("encoded-write", "Write", Source("encoding.EncodedWrite.time_write_6mib")),
        *((ENCODINGS,), SECONDS, "one call encodes all images and writes them, not synced"),
        beside=(
            Source("encoding.Folder.time_write_6mib", "files"),
            Source("encoding.PillowAlone.time_encode_6mib", "encoding alone"),
        ),
    ),
    Workload(
        *("encoded-read", "Read all", Source("encoding.EncodedRead.time_read_6mib")),
        *((ENCODINGS,), SECONDS, "one call reads all images, from a store that was read before"),
        beside=(
            Source("encoding.Folder.time_read_6mib", "files"),
            Source("encoding.PillowAlone.time_decode_6mib", "decoding alone"),
        ),
    ),
    Workload(
        *("encoded-cold", "Read all, cold", Source("encoding.ColdEncoded.time_open_read_6mib")),
        *((ENCODINGS,), SECONDS, "only at 256: open and read all, nothing of it in the page cache"),
    ),
    Workload(
        *("encoded-shuffled", "Shuffled", Source("encoding.EncodedRead.time_shuffled_6mib")),
        *((ENCODINGS,), SECONDS, "in shuffled batches: of 256 at 32 pixels, else of 8"),
    ),
    Workload(
        *("encoded-one", "Random access", Source("encoding.EncodedRead.time_read_20")),
        *((ENCODINGS,), SECONDS, "single images at random, one call for each"),
        beside=(Source("encoding.Folder.time_read_20", "files"),),
    ),
    Workload(
        *("encoded-disk", "Disk space", Source("encoding.EncodedUsage.track_ratio")),
        *((ENCODINGS,), RATIO, "bytes on the disk, relative to the pixels"),
        beside=(Source("encoding.Folder.track_ratio", "files"),),
    ),
    *(
        Workload(
            *(f"shards-read-{count}", title, Source(_READ_SHARDS, where={"shards": count})),
            (SHARDS,),
            what="each of 10,000 images once, in shuffled batches of 256",
        )
        for count, title in ((1, "Shuffled, one store"), (8, "Shuffled, 8 shards"))
    ),
    *(
        Workload(
            *(f"shards-write-{count}", title, Source(_WRITE_SHARDS, where={"workers": count})),
            (SHARDS,),
            what="2,000 images to 8 shards, synced",
        )
        for count, title in ((1, "Write, 1 worker"), (2, "Write, 2 workers"))
    ),
    Workload("epoch", "An epoch", Source("loaders.LoaderEpoch.time_epoch_10000"), (LOADERS,)),
    Workload(
        *("first-batch", "The first batch", Source("loaders.LoaderStart.time_first_256")),
        *((LOADERS,), SECONDS, "from a dataset to its first batch, with the start of workers"),
    ),
    Workload(
        "one-by-one",
        "Image by image",
        Source("loaders.LoaderCalls.time_epoch_10000", where={"asked": "one by one"}),
        (LOADERS,),
        what="an epoch without workers, one call for each image",
    ),
    *(
        Workload(f"plain-{id}", title, Source(f"plain_stores.{name}", where=where), (STORES,), unit)
        for id, title, name, where, unit in (
            ("write", "Write once", "PlainWrite.time_write", MANY, PER_IMAGE),
            ("synced", "Write, synced", "PlainSyncedWrite.time_write_1000", {}, PER_IMAGE),
            ("read", "Read all", "PlainRead.time_read", MANY, PER_IMAGE),
            ("shuffled", "Shuffled", "PlainBatches.time_read_1024", _SHUFFLED, PER_IMAGE),
            ("random", "Random access", "PlainOne.time_read_100", {}, PER_IMAGE),
            ("open", "Open, read one", "PlainOpen.time_open_read", MANY, SECONDS),
            ("disk", "Disk space", "PlainUsage.track_allocated", MANY, BYTES_PER_IMAGE),
        )
    ),
)


def used_in(where: str) -> tuple[Workload, ...]:
    """Return the workloads that are used in a place, such as FIRST or QUICK."""
    return tuple(workload for workload in WORKLOADS if where in workload.used)


# -- which benchmarks a command runs ------------------------------------------------------------

# This variable has to be set to measure large parameters: 100,000 images, and the largest sizes.
LARGE = "STORAGE_IMPL_LARGE"
_LARGE = r"[( ](100000|200000|512)\)"

# What a command needs to measure besides its workloads.
_FURTHER = {
    QUICK: (
        # Not with 10,000 files, which took one of the four minutes that the run has.
        rf"^floor\.(?!Memory|Png\.|PngFiles\.\w+\(10000)(?!.*{_LARGE})",
        # Not the stores that storage_impl lacks.
        r"^plain_stores\.Plain(Read|One|Batches|Open)\."
        r"\w+\('(?!hdf5_growing|sqlite|npy|leveldb|feather|tiledb|zarr)(?!.* (1000|100000)\))",
    ),
    SWEEP: (r"^work\.", r"^floor\.Png\.\w+\(1000\)"),
}


def patterns(where: str) -> list[str]:
    """Return the patterns that `asv run --bench` gets for a run.

    Parameters
    ----------
    where : str
        QUICK, SWEEP, STORES or LOADERS; "full" for everything that needs no further packages;
        "large" for what is measured only on request.
    """
    if where == "large":
        return [rf"{_LARGE}|^calibration\."]
    if where == "full":
        (loaders,) = _modules(LOADERS)
        return [rf"^(?!{loaders}\.)(?!.*{_LARGE})"]
    if where in (STORES, LOADERS):
        measured = [rf"^(?!.*{_LARGE}){module}\." for module in _modules(where)]
    else:
        measured = [_pattern(workload, where) for workload in used_in(where)]
    return list(dict.fromkeys([r"^calibration\.", *measured, *_FURTHER.get(where, ())]))


def _modules(where: str) -> list[str]:
    names = (workload.source.benchmark.split(".")[0] for workload in used_in(where))
    return list(dict.fromkeys(names))


def _pattern(workload: Workload, where: str) -> str:
    """Return a pattern for the benchmarks of a workload's class; the quick run has every count."""
    group, parameters = workload.source.benchmark.rpartition(".")[0], workload.source.parameters
    if where == QUICK and list(workload.source.where) == ["count"]:
        return rf"^(?!.*{_LARGE}){re.escape(group)}\."
    but = "".join(rf"(?!'{backend}')" for backend in workload.slow)
    rest = "".join(f", {re.escape(repr(parameter))}" for parameter in parameters)
    return rf"^{re.escape(group)}\.\w+\({but}'\w+'{rest}\)"
