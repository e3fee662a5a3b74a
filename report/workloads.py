"""What the page compares: the workloads of the verdict, and the charts, each from its benchmarks.

Here are names and words alone: no other module of the report names a benchmark.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

PER_IMAGE = "seconds an image"
SECONDS = "seconds"
BYTES_PER_IMAGE = "bytes an image"
RATIO = "ratio"


class Source(NamedTuple):
    """A benchmark that a chart or a workload takes its figures from.

    Attributes
    ----------
    benchmark : str
    line : str
        What tells its figures from those of the other sources of the chart.
    where : dict
        The parameters to take, where it is not all.
    """

    benchmark: str
    line: str = ""
    where: Mapping[str, Any] = {}


class Workload(NamedTuple):
    """A row of the verdict.

    Attributes
    ----------
    id, title, what : str
        What the row is called, and what was measured in one sentence.
    source : Source
    unit : str
    floors : Source or None
        Whose floors count, where the benchmark has none of its own.
    """

    id: str
    title: str
    what: str
    source: Source
    unit: str = PER_IMAGE
    floors: Source | None = None


class Chart(NamedTuple):
    """A chart, a line for each backend.

    Attributes
    ----------
    id, title, caption : str
    x : str
        The parameter along the x axis; the sources, if it is empty.
    label : str
        What the x axis is called.
    y : str
        What the y axis is called.
    unit : str
    sources : tuple of Source
    panel : str
        The parameter with a panel of its own for each value.
    """

    id: str
    title: str
    caption: str
    x: str
    label: str
    y: str
    unit: str
    sources: tuple[Source, ...]
    panel: str = ""


class Section(NamedTuple):
    """Charts that answer one question."""

    id: str
    title: str
    charts: tuple[Chart, ...]


# How fast the machine itself was, whatever was installed.
CPU = "calibration.Cpu.time_work"
CALIBRATION = {"CPU": CPU, "disk": "calibration.Disk.time_work"}

# What a store weighs: the sum of its files' lengths, and what du counts.
BYTES = {
    "apparent": "disk_usage.DiskUsage.track_apparent",
    "allocated": "disk_usage.DiskUsage.track_allocated",
}

_MANY = {"count": 10_000}
_WRITE_MANY = "many_images.WriteMany.time_write"
_READ_MANY = "many_images.ReadMany.time_read"
_READ_BATCHES = "access_patterns.ReadBatches.time_read_10000"
_READ_THREADS = "concurrency.ReadThreads"
_READ_PROCESSES = "concurrency.ReadProcesses"

WORKLOADS = (
    Workload(
        "write",
        "Write once",
        "10,000 images by one call into an empty store, not synced",
        Source(_WRITE_MANY, where=_MANY),
    ),
    Workload(
        "read",
        "Read all",
        "10,000 images in order by one call, from a store that was read before",
        Source(_READ_MANY, where=_MANY),
    ),
    Workload(
        "shuffled",
        "Shuffled training",
        "every one of 10,000 images once, in shuffled batches of 256",
        Source(_READ_BATCHES, where={"order": "shuffled", "batch": 256}),
        floors=Source(_READ_MANY, where=_MANY),
    ),
    Workload(
        "random",
        "Random access",
        "single images at random, one call for each, from a store of 1,000",
        Source("single_image.ReadOne.time_read_100"),
    ),
    Workload(
        "labels",
        "Labels only",
        "the labels of 10,000 images by one call",
        Source("access_patterns.ReadLabels.time_read", where=_MANY),
    ),
    Workload(
        "append",
        "Append",
        "1,000 images by one call to a store that holds 10,000",
        Source("growth.Append.time_append_1000", where={"held": 10_000}),
        floors=Source(_WRITE_MANY, where={"count": 1_000}),
    ),
    Workload(
        "processes",
        "Many processes",
        "5,000 images by four processes that are running, each an equal part",
        Source(f"{_READ_PROCESSES}.time_read_5000", where={"start": "spawn", "processes": 4}),
        floors=Source(_READ_MANY, where=_MANY),
    ),
    Workload(
        "disk",
        "Disk space",
        "what a store of 10,000 images takes on the disk, as du counts it",
        Source(BYTES["allocated"], where=_MANY),
        BYTES_PER_IMAGE,
    ),
)

SECTIONS = (
    Section(
        "count",
        "Number of images",
        (
            Chart(
                "store",
                "Time to write",
                "One call writes all images into an empty store; nothing is synced.",
                *("count", "images", "time", SECONDS),
                (Source(_WRITE_MANY),),
            ),
            Chart(
                "read",
                "Time to read",
                "One call reads all images in order, from a store that was read before.",
                *("count", "images", "time", SECONDS),
                (Source(_READ_MANY),),
            ),
            Chart(
                "single",
                "One image",
                "A call for each image, to or from a store that is open.",
                *("", "", "time an image", PER_IMAGE),
                (
                    Source("single_image.WriteOne.time_write", "write"),
                    Source("single_image.ReadOne.time_read_100", "read"),
                ),
            ),
            Chart(
                "disk",
                "Disk space",
                "Of a store that one call wrote: allocated is what du counts, and apparent is "
                "the sum of the files' lengths.",
                *("count", "images", "bytes an image", BYTES_PER_IMAGE),
                (
                    Source(BYTES["allocated"], "allocated"),
                    Source(BYTES["apparent"], "apparent"),
                ),
            ),
        ),
    ),
    Section(
        "size",
        "Image size",
        (
            Chart(
                "size-write",
                "Time to write, by size",
                "6 MiB of pixels by one call, whatever their size: the larger, the fewer images.",
                *("side", "pixels a side", "time", SECONDS),
                (Source("image_size.WriteSize.time_write_6mib"),),
            ),
            Chart(
                "size-read",
                "Time to read, by size",
                "6 MiB of pixels by one call, whatever their size: the larger, the fewer images.",
                *("side", "pixels a side", "time", SECONDS),
                (Source("image_size.ReadSize.time_read_6mib"),),
            ),
            Chart(
                "size-disk",
                "Disk space, by size",
                "What the store takes on the disk over the bytes of its pixels: 1 is raw.",
                *("side", "pixels a side", "stored / raw", RATIO),
                (Source("image_size.SizeOnDisk.track_ratio"),),
            ),
        ),
    ),
    Section(
        "access",
        "Access order",
        (
            Chart(
                "batches",
                "Batches",
                "Every one of 10,000 images once: neighbours, every nth, indices at random that "
                "are sorted within a batch, or shuffled.",
                *("order", "order", "time an image", PER_IMAGE),
                (Source(_READ_BATCHES),),
                panel="batch",
            ),
            Chart(
                "run",
                "A run of neighbours",
                "1,000 images from the middle of 10,000: by a slice, by a list of their "
                "indices, or by a call for each.",
                *("how", "asked for by", "time an image", PER_IMAGE),
                (Source("access_patterns.ReadRun.time_read_1000"),),
            ),
            Chart(
                "folds",
                "Folds",
                "An epoch of 9 of 10 folds of 1,000 images, that are one store or ten.",
                *("stores", "stores", "time an image", PER_IMAGE),
                (Source("access_patterns.ReadFolds.time_read_9000"),),
            ),
            Chart(
                "latency",
                "Latency of single reads",
                "One image at random in 10,000: what half of the calls, 95% and 99% stay under.",
                *("", "of the calls", "time an image", PER_IMAGE),
                (
                    Source("access_patterns.Latency.track_p50", "50%"),
                    Source("access_patterns.Latency.track_p95", "95%"),
                    Source("access_patterns.Latency.track_p99", "99%"),
                ),
            ),
            Chart(
                "labels",
                "Labels alone",
                "One call reads all labels, and touches no image.",
                *("count", "images", "time", SECONDS),
                (Source("access_patterns.ReadLabels.time_read"),),
            ),
        ),
    ),
    Section(
        "concurrency",
        "Concurrency",
        (
            Chart(
                "threads",
                "Threads",
                "The same images read by more threads, from one store object or one for each.",
                *("threads", "threads", "time an image", PER_IMAGE),
                (Source(f"{_READ_THREADS}.time_read_5000"),),
                panel="stores",
            ),
            Chart(
                "processes",
                "Processes",
                "The same images read by more processes, by how Python starts them.",
                *("processes", "processes", "time an image", PER_IMAGE),
                (Source(f"{_READ_PROCESSES}.time_read_5000"),),
                panel="start",
            ),
            Chart(
                "cpu",
                "CPU time of the processes",
                "What all of them took together, user and system, for the same images.",
                *("processes", "processes", "CPU time an image", PER_IMAGE),
                (Source(f"{_READ_PROCESSES}.track_cpu_5000"),),
                panel="start",
            ),
            Chart(
                "own-stores",
                "One store for all, or a store for each",
                "The same images read by processes that were forked.",
                *("processes", "processes", "time an image", PER_IMAGE),
                (
                    Source(f"{_READ_PROCESSES}.time_read_5000", "one store", {"start": "fork"}),
                    Source("concurrency.ReadOwnStores.time_read_5000", "a store each"),
                ),
            ),
            Chart(
                "starting",
                "Starting a process",
                "From a store that is open to its first image in a process that was not there.",
                *("start", "start", "time", SECONDS),
                (Source("concurrency.StartProcess.time_start"),),
            ),
            Chart(
                "beside",
                "Beside a writer",
                "Reading while no other process, or one, appends to the same store.",
                *("writers", "writers", "time an image", PER_IMAGE),
                (Source("concurrency.ReadBesideWriter.time_read_25000"),),
            ),
            Chart(
                "writers",
                "Several writers",
                "The same images written by more processes, each into a store of its own.",
                *("writers", "writers", "time an image", PER_IMAGE),
                (Source("concurrency.WriteSeveral.time_write_2000"),),
            ),
        ),
    ),
    Section(
        "cold",
        "Cold cache",
        (
            Chart(
                "cold-many",
                "Read all",
                "Cold, a store is opened and read by one call, with nothing of it in the page "
                "cache. Warm, it is open and was read before.",
                *("count", "images", "time", SECONDS),
                (
                    Source("cold_cache.ColdAll.time_open_read", "cold"),
                    Source(_READ_MANY, "warm", {"count": 1_000}),
                    Source(_READ_MANY, "warm", {"count": 10_000}),
                ),
            ),
            Chart(
                "cold-one",
                "Read one",
                "Cold, the store is opened for it, with nothing of it in the page cache. Warm, it "
                "is open and was read before.",
                *("", "page cache", "time an image", PER_IMAGE),
                (
                    Source("cold_cache.ColdOne.time_open_read", "cold"),
                    Source("single_image.ReadOne.time_read_100", "warm"),
                ),
            ),
            Chart(
                "cold-open",
                "Open",
                "A store of 10,000 images is opened and closed.",
                *("", "page cache", "time", SECONDS),
                (
                    Source("cold_cache.ColdOpen.time_open", "cold"),
                    Source("startup.OpenStore.time_open", "warm", _MANY),
                ),
            ),
        ),
    ),
    Section(
        "durability",
        "Durability",
        (
            Chart(
                "durable-one",
                "Image by image",
                "A call for each image. What is durable is on the disk when the call returns; "
                "what is not is there when the store is closed.",
                *("durable", "durable", "time an image", PER_IMAGE),
                (
                    Source("durability.OneByOne.time_write_100", "calls alone"),
                    Source("durability.OneByOne.time_write_100_close", "and close"),
                ),
            ),
            Chart(
                "durable-batches",
                "In batches of 100",
                "The same with a call for each 100 images.",
                *("durable", "durable", "time an image", PER_IMAGE),
                (
                    Source("durability.WriteBatches.time_write_500", "calls alone"),
                    Source("durability.WriteBatches.time_write_500_close", "and close"),
                ),
            ),
        ),
    ),
    Section(
        "growth",
        "Growth",
        (
            Chart(
                "append",
                "Append",
                "1,000 images added to a store that holds some.",
                *("held", "images held", "time an image", PER_IMAGE),
                (Source("growth.Append.time_append_1000"),),
            ),
            Chart(
                "amplification",
                "Bytes written",
                "What went to the disk over what was given to write, by how it was given.",
                *("calls", "written by", "written / given", RATIO),
                (Source("growth.WriteAmplification.track_written"),),
            ),
        ),
    ),
)


def names() -> set[str]:
    """Return the benchmarks that the page shows, without those of its floors."""
    charts = (chart for section in SECTIONS for chart in section.charts)
    sources = [source for chart in charts for source in chart.sources]
    sources += [source for row in WORKLOADS for source in (row.source, row.floors) if source]
    return {*CALIBRATION.values(), *(source.benchmark for source in sources)}


# -- which benchmarks a command runs ------------------------------------------------------------

# Parameters that are measured only where this variable is set: 100,000 images, the largest sizes.
LARGE = "STORAGE_IMPL_LARGE"
_LARGE = r"[( ](100000|200000|512)\)"

# The quick run has what the table shows.
RUN = {
    "quick": rf"^(?!.*{_LARGE})(calibration|disk_usage|many_images|single_image|startup\.OpenStore"
    r"|access_patterns\.(ReadLabels|ReadBatches.*shuffled', 256)|floor\.(?!Memory|Png\.))",
    "full": rf"^(?!loaders\.)(?!.*{_LARGE})",
    "large": rf"{_LARGE}|^calibration\.",
}

# What `tox run -e others` measures: plain code for all stores, those of further packages too.
OTHERS = (r"^calibration\.", rf"^(?!.*{_LARGE})plain_stores\.")

# What `tox run -e loaders-bench` measures.
LOADERS = (r"^calibration\.", r"^loaders\.")

# What `tox run -e versions` varies.
LIBRARIES = ("numpy", "Pillow", "lmdb", "h5py")

# What a library can change, in about two minutes an environment.
SWEPT = (
    r"^calibration\.",
    r"^work\.",
    r"^many_images\.WriteMany\.time_write\('\w+', 1000\)",
    r"^many_images\.WriteMany\.time_write\('(lmdb|hdf5)', 10000\)",  # PNG: 3 seconds a sample
    r"^many_images\.ReadMany\.time_read\('\w+', 10{3,4}\)",
    r"^single_image\.",
    r"^access_patterns\.ReadBatches\.time_read_10000\('\w+', 'shuffled', 256\)",
    r"^access_patterns\.ReadLabels\.time_read\('\w+', 10000\)",
    r"^startup\.OpenStore\.time_open\('\w+', 10000\)",
    r"^disk_usage\.DiskUsage\.\w+\('\w+', 10000\)",
    r"^floor\.Png\.\w+\(1000\)",
)


class Operation(NamedTuple):
    """What a line is of: a benchmark, and its parameters behind the backend."""

    title: str
    benchmark: str
    parameters: tuple[Any, ...] = ()


OPERATIONS = (
    Operation("write one", "single_image.WriteOne.time_write"),
    Operation("read one", "single_image.ReadOne.time_read_100"),
    Operation("write 1,000", "many_images.WriteMany.time_write", (1_000,)),
    Operation("read 10,000", "many_images.ReadMany.time_read", (10_000,)),
    Operation("shuffled", "access_patterns.ReadBatches.time_read_10000", ("shuffled", 256)),
    Operation("write instr", "work.PlainInstructions.track_instructions", ("write many",)),
    Operation("read instr", "work.PlainInstructions.track_instructions", ("read all",)),
)

# What the gate times, called as the operation of `work` that does the same: half a minute a round.
GATED = (
    Operation("write many", "many_images.WriteMany.time_write", (100,)),
    Operation("read all", "many_images.ReadMany.time_read", (1_000,)),
    Operation("read one", "single_image.ReadOne.time_read_100"),
)
