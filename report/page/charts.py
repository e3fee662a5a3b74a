"""The charts of compare.html, each with the benchmarks that it takes its figures from."""

from typing import NamedTuple

from report.workloads import (
    BYTES,
    BYTES_PER_IMAGE,
    CALIBRATION,
    MANY,
    PER_IMAGE,
    RATIO,
    READ_BATCHES,
    READ_MANY,
    READ_ONE,
    READ_PROCESSES,
    SECONDS,
    WORKLOADS,
    WRITE_MANY,
    Source,
)


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
    against : tuple of Source and str, or None
        What is along the x axis instead, measured with the same parameters, and its unit; each
        point is named by its parameter `x`.
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
    against: tuple[Source, str] | None = None


class Section(NamedTuple):
    """Charts that answer one question."""

    id: str
    title: str
    charts: tuple[Chart, ...]


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
                (Source(WRITE_MANY),),
            ),
            Chart(
                "read",
                "Time to read",
                "One call reads all images in order, from a store that was read before.",
                *("count", "images", "time", SECONDS),
                (Source(READ_MANY),),
            ),
            Chart(
                "single",
                "One image",
                "A call for each image, to or from a store that is open.",
                *("", "", "time an image", PER_IMAGE),
                (
                    Source("single_image.WriteOne.time_write", "write"),
                    Source(READ_ONE, "read"),
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
            Chart(
                "space",
                "Time to read against disk space",
                "10,000 images read by one call, and what the store takes on the disk: the "
                "nearer to the lower left corner, the better.",
                *("", "bytes an image", "time an image", PER_IMAGE),
                (Source(READ_MANY, where=MANY),),
                against=(Source(BYTES["allocated"], where=MANY), BYTES_PER_IMAGE),
            ),
        ),
    ),
    Section(
        "encodings",
        "Encodings",
        (
            Chart(
                "encoding-read",
                "Time to read, by encoding",
                "6 MiB of pixels by one call, from a store that was read before.",
                *("encoding", "encoding", "time", SECONDS),
                (Source("encoding.EncodedRead.time_read_6mib"),),
                panel="size",
            ),
            Chart(
                "encoding-write",
                "Time to write, by encoding",
                "6 MiB of pixels by one call, which encodes them; nothing is synced.",
                *("encoding", "encoding", "time", SECONDS),
                (Source("encoding.EncodedWrite.time_write_6mib"),),
                panel="size",
            ),
            Chart(
                "encoding-space",
                "Time to read against disk space, by encoding",
                "6 MiB of pixels by one call, and what the store takes over the bytes of the "
                "pixels: the nearer to the lower left corner, the better.",
                *("encoding", "stored / raw", "time", SECONDS),
                (Source("encoding.EncodedRead.time_read_6mib"),),
                panel="size",
                against=(Source("encoding.EncodedUsage.track_ratio"), RATIO),
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
                (Source(READ_BATCHES),),
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
                (Source("concurrency.ReadThreads.time_read_5000"),),
                panel="stores",
            ),
            Chart(
                "processes",
                "Processes",
                "The same images read by more processes, by how Python starts them.",
                *("processes", "processes", "time an image", PER_IMAGE),
                (Source(READ_PROCESSES),),
                panel="start",
            ),
            Chart(
                "cpu",
                "CPU time of the processes",
                "What all of them took together, user and system, for the same images.",
                *("processes", "processes", "CPU time an image", PER_IMAGE),
                (Source("concurrency.ReadProcesses.track_cpu_5000"),),
                panel="start",
            ),
            Chart(
                "own-stores",
                "One store for all, or a store for each",
                "The same images read by processes that were forked.",
                *("processes", "processes", "time an image", PER_IMAGE),
                (
                    Source(READ_PROCESSES, "one store", {"start": "fork"}),
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
                    Source(READ_MANY, "warm", {"count": 1_000}),
                    Source(READ_MANY, "warm", {"count": 10_000}),
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
                    Source(READ_ONE, "warm"),
                ),
            ),
            Chart(
                "cold-open",
                "Open",
                "A store of 10,000 images is opened and closed.",
                *("", "page cache", "time", SECONDS),
                (
                    Source("cold_cache.ColdOpen.time_open", "cold"),
                    Source("startup.OpenStore.time_open", "warm", MANY),
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
    """Return the benchmarks that the page shows, without those of its floors and plain code."""
    charts = (chart for section in SECTIONS for chart in section.charts)
    sources = []
    for chart in charts:
        sources += [*chart.sources, *(chart.against or ())[:1]]
    for row in WORKLOADS:
        sources += [row.source, *row.beside, *filter(None, [row.floors])]
    return {*CALIBRATION.values(), *(source.benchmark for source in sources)}
