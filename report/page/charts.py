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
    """A chart with a line for each backend.

    Attributes
    ----------
    id, title, caption : str
    x : str
        The parameter along the x axis; if it is empty, the sources are.
    label : str
        What the x axis is called.
    y : str
        What the y axis is called.
    unit : str
    sources : tuple of Source
    panel : str
        The parameter that has a panel for each of its values.
    against : tuple of Source and str, or None
        A source of figures for the x axis, in place of a parameter, and its unit. The figures are
        measured with the same parameters. The name of each point is its parameter `x`.
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
                "One call for each image, to or from an open store.",
                *("", "", "time per image", PER_IMAGE),
                (
                    Source("single_image.WriteOne.time_write", "write"),
                    Source(READ_ONE, "read"),
                ),
            ),
            Chart(
                "disk",
                "Disk space",
                "The disk space of a store that one call wrote. Allocated is what du counts; "
                "apparent is the sum of the files' lengths.",
                *("count", "images", "bytes per image", BYTES_PER_IMAGE),
                (
                    Source(BYTES["allocated"], "allocated"),
                    Source(BYTES["apparent"], "apparent"),
                ),
            ),
            Chart(
                "space",
                "Time to read against disk space",
                "One call reads 10,000 images. The nearer a point is to the lower left corner, the "
                "better.",
                *("", "bytes per image", "time per image", PER_IMAGE),
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
                "One call reads 6 MiB of pixels, from a store that was read before.",
                *("encoding", "encoding", "time", SECONDS),
                (Source("encoding.EncodedRead.time_read_6mib"),),
                panel="size",
            ),
            Chart(
                "encoding-write",
                "Time to write, by encoding",
                "One call encodes 6 MiB of pixels and writes them; nothing is synced.",
                *("encoding", "encoding", "time", SECONDS),
                (Source("encoding.EncodedWrite.time_write_6mib"),),
                panel="size",
            ),
            Chart(
                "encoding-space",
                "Time to read against disk space, by encoding",
                "One call reads 6 MiB of pixels. The disk space is relative to the pixels. The "
                "nearer a point is to the lower left corner, the better.",
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
                "One call writes 6 MiB of pixels: fewer images, if they are larger.",
                *("side", "pixels a side", "time", SECONDS),
                (Source("image_size.WriteSize.time_write_6mib"),),
            ),
            Chart(
                "size-read",
                "Time to read, by size",
                "One call reads 6 MiB of pixels: fewer images, if they are larger.",
                *("side", "pixels a side", "time", SECONDS),
                (Source("image_size.ReadSize.time_read_6mib"),),
            ),
            Chart(
                "size-disk",
                "Disk space, by size",
                "The disk space of the store divided by the bytes of its pixels: 1 is raw.",
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
                "Each of 10,000 images once. Strided: every nth image. Sorted: chosen at random, "
                "then sorted within each batch.",
                *("order", "order", "time per image", PER_IMAGE),
                (Source(READ_BATCHES),),
                panel="batch",
            ),
            Chart(
                "run",
                "Consecutive images",
                "1,000 images from the middle of 10,000: read with a slice, with a list of "
                "indices, or with a call for each.",
                *("how", "read with", "time per image", PER_IMAGE),
                (Source("access_patterns.ReadRun.time_read_1000"),),
            ),
            Chart(
                "folds",
                "Folds",
                "An epoch of 9 of 10 folds of 1,000 images. The folds are in one store or in ten.",
                *("stores", "stores", "time per image", PER_IMAGE),
                (Source("access_patterns.ReadFolds.time_read_9000"),),
            ),
            Chart(
                "latency",
                "Latency of single reads",
                "A call reads one of 10,000 images at random: 50%, 95% and 99% of the calls take "
                "no longer.",
                *("", "of the calls", "time per image", PER_IMAGE),
                (
                    Source("access_patterns.Latency.track_p50", "50%"),
                    Source("access_patterns.Latency.track_p95", "95%"),
                    Source("access_patterns.Latency.track_p99", "99%"),
                ),
            ),
            Chart(
                "labels",
                "Labels alone",
                "One call reads all labels, and no image.",
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
                "Threads share the same images, and read from one store object or from their own.",
                *("threads", "threads", "time per image", PER_IMAGE),
                (Source("concurrency.ReadThreads.time_read_5000"),),
                panel="stores",
            ),
            Chart(
                "processes",
                "Processes",
                "Processes share the same images. Python starts the processes in three ways.",
                *("processes", "processes", "time per image", PER_IMAGE),
                (Source(READ_PROCESSES),),
                panel="start",
            ),
            Chart(
                "cpu",
                "CPU time of the processes",
                "The CPU time of all processes together, user and system, for the same images.",
                *("processes", "processes", "CPU time per image", PER_IMAGE),
                (Source("concurrency.ReadProcesses.track_cpu_5000"),),
                panel="start",
            ),
            Chart(
                "own-stores",
                "One store for all, or a store for each",
                "Forked processes share the same images.",
                *("processes", "processes", "time per image", PER_IMAGE),
                (
                    Source(READ_PROCESSES, "one store", {"start": "fork"}),
                    Source("concurrency.ReadOwnStores.time_read_5000", "a store each"),
                ),
            ),
            Chart(
                "starting",
                "Starting a process",
                "A new process starts, and reads the first image of an open store.",
                *("start", "start", "time", SECONDS),
                (Source("concurrency.StartProcess.time_start"),),
            ),
            Chart(
                "beside",
                "Beside a writer",
                "Reads while another process appends to the same store, or while none does.",
                *("writers", "writers", "time per image", PER_IMAGE),
                (Source("concurrency.ReadBesideWriter.time_read_25000"),),
            ),
            Chart(
                "writers",
                "Several writers",
                "Processes share the same images, and each writes its part into its own store.",
                *("writers", "writers", "time per image", PER_IMAGE),
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
                "Cold: the store is opened and read by one call, with nothing of it in the page "
                "cache. Warm: it is open and was read before.",
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
                "Cold: the store is opened and one image read, with nothing of it in the page "
                "cache. Warm: it is open and was read before.",
                *("", "page cache", "time per image", PER_IMAGE),
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
                "One call for each image. Durable images are on the disk when the call returns, "
                "others when the store is closed.",
                *("durable", "durable", "time per image", PER_IMAGE),
                (
                    Source("durability.OneByOne.time_write_100", "calls alone"),
                    Source("durability.OneByOne.time_write_100_close", "and close"),
                ),
            ),
            Chart(
                "durable-batches",
                "In batches of 100",
                "The same, with one call for every 100 images.",
                *("durable", "durable", "time per image", PER_IMAGE),
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
                "One call adds 1,000 images to a store that is empty or holds 10,000.",
                *("held", "images held", "time per image", PER_IMAGE),
                (Source("growth.Append.time_append_1000"),),
            ),
            Chart(
                "amplification",
                "Bytes written",
                "Bytes sent to the disk divided by bytes given, by how many images a call writes.",
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
