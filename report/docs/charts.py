"""Draw the pictures of docs/ from the results that are kept in docs/results.

The same results give the same files, byte for byte.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from itertools import chain, product
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from scour import scour

from report.docs.tables import BACKENDS, Kept, Quantity, Run, quotient
from report.terminal import figure
from report.workloads import LIBRARIES

CHARTS = Path(__file__).resolve().parents[2] / "docs" / "charts"

# As on the site's page: distinct also to readers who cannot tell red from green. The shapes are
# distinct without any colour.
PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00")
COLOURS = dict(zip(BACKENDS, PALETTE, strict=False)) | {"floor": "#6f6f6f"}
SHAPES = dict(zip(BACKENDS, "osDvP", strict=False)) | {"floor": "x"}
OPERATIONS = {"write": "#a04a78", "read": "#0072b2", "one": "#8b6bb8"}
NAMES = {**{name: name.upper() for name in BACKENDS}, "png": "PNG files", "floor": "floor"}
RAW = 32 * 32 * 3  # bytes of an image

STYLE = {
    "svg.hashsalt": "storage_impl",
    "svg.fonttype": "none",  # text as text
    "font.sans-serif": ["DejaVu Sans"],
    "figure.facecolor": "white",  # opaque: a page may be dark
    "font.size": 9,
    "axes.grid": True,
    "axes.grid.axis": "both",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "errorbar.capsize": 2,
}

# Leaves out what nobody sees, which halves the size.
SHORT = scour.sanitizeOptions()
SHORT.digits = 3
SHORT.indent_type = "none"
SHORT.newlines = False
SHORT.remove_metadata = SHORT.strip_comments = SHORT.strip_ids = SHORT.shorten_ids = True

# What scour leaves: further digits of positions, and rotations by an angle of 0.
LEFT = re.compile(r'(?<= [xy]=")(-?\d+\.\d)\d+(?=")| transform="rotate\(-0 [^"]*\)"')

Point = tuple[Any, Quantity | None]  # where on the x axis, and what was measured there
Row = tuple[str, str, tuple[Any, ...]]  # a label, a benchmark, its further parameters


def line(
    axes: Axes, kind: str, points: Iterable[Point], style: str = "-", colour: str | None = None
) -> None:
    """Draw the figures of a backend or a floor, with their intervals."""
    known = [(place, found) for place, found in points if found is not None]
    if not known:
        return
    ends = [found.interval or (found.value, found.value) for _, found in known]
    axes.errorbar(
        [place for place, _ in known],
        [found.value for _, found in known],
        yerr=[
            [found.value - low for (_, found), (low, _) in zip(known, ends, strict=True)],
            [high - found.value for (_, found), (_, high) in zip(known, ends, strict=True)],
        ],
        color=colour or COLOURS[kind],
        marker=SHAPES[kind],
        linestyle=style,
    )


def dots(axes: Axes, rows: Sequence[Row], run: Run, unit: str) -> None:
    """Draw a row for each benchmark, with a dot for each backend."""
    for place, (_, name, rest) in enumerate(rows):
        for number, backend in enumerate(BACKENDS):
            shift = 0.22 * (number - (len(BACKENDS) - 1) / 2)
            found = run.quantity(name, (backend, *rest), unit)
            dot(axes, found, place + shift, COLOURS[backend], SHAPES[backend])
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    logarithmic(axes, "x")
    axes.set_xlabel(unit)


def dot(axes: Axes, found: Quantity | None, place: float, colour: str, shape: str) -> None:
    """Draw one figure with its interval, at a place on the y axis."""
    if found is not None:
        low, high = found.interval or (found.value, found.value)
        ends = [[found.value - low], [high - found.value]]
        axes.errorbar([found.value], [place], xerr=ends, color=colour, marker=shape)


def logarithmic(axes: Axes, *which: str) -> None:
    """Make axes logarithmic, with enough plain numbers; call this when everything is drawn."""
    for name in which:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        low, high = getattr(axes, f"get_{name}lim")()
        if high / low < 30:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.set_minor_locator(NullLocator())


def ticks(axes: Axes, places: Sequence[float], labels: Sequence[object]) -> None:
    """Label these places on the x axis, and no others."""
    axes.set_xticks(
        places, [f"{label:,}" if isinstance(label, int) else str(label) for label in labels]
    )
    axes.set_xticks([], minor=True)


def legend(picture: Picture, kinds: Iterable[str], **styles: str) -> None:
    """Explain the colours, and the styles of lines by what they mean."""
    handles = [
        Line2D([], [], color=COLOURS[kind], marker=SHAPES[kind], label=NAMES[kind])
        for kind in kinds
    ]
    handles += [
        Line2D([], [], color="#333333", linestyle=style, label=meaning.replace("_", " "))
        for meaning, style in styles.items()
    ]
    picture.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def panels(count: int, height: float = 3.2, **given: Any) -> tuple[Picture, list[Axes]]:
    """Return a picture of some panels side by side."""
    picture = Picture(figsize=(9, height), layout="constrained")
    found = picture.subplots(1, count, squeeze=False, **given)
    return picture, list(found[0])


# What an image costs in six workloads: the answer at a glance.
OVERVIEW: tuple[tuple[str, str, tuple[Any, ...], str], ...] = (
    ("Read all in order", "many_images.ReadMany.time_read", (10_000,), "us/image"),
    (
        "Read shuffled batches of 256",
        "access_patterns.ReadBatches.time_read_10000",
        ("shuffled", 256),
        "us/image",
    ),
    ("Read one at random", "access_patterns.Latency.track_p50", (), "us"),
    ("Write all in one call", "many_images.WriteMany.time_write", (10_000,), "us/image"),
    ("Write one at a time, synced", "durability.OneByOne.time_write_100", (True,), "us/image"),
    ("Disk space", "disk_usage.DiskUsage.track_allocated", (10_000,), "bytes/image"),
)


def overview(kept: Kept) -> Picture:
    """Draw six workloads by backend, each relative to its best, with the figures beside."""
    picture = Picture(figsize=(4.2, 5.2), layout="constrained")  # 400 pixels wide
    axes = picture.subplots()
    place = 0.0
    for title, name, rest, unit in OVERVIEW:
        found = {
            backend: kept.default.quantity(name, (backend, *rest), unit) for backend in BACKENDS
        }
        known = [each.value for each in found.values() if each is not None]
        axes.text(0.9, place, f"{title} ({unit})", weight="bold", va="center")
        for backend, each in found.items():
            place += 1
            if each is None:
                continue
            times = each.value / min(known)
            axes.barh(place, times - 0.9, left=0.9, color=COLOURS[backend], height=0.75)
            axes.text(times * 1.08, place, f"{NAMES[backend]}  {figure(each.value)}", va="center")
        place += 1.4
    axes.set_ylim(place - 0.8, -0.8)
    axes.set_yticks([])
    logarithmic(axes, "x")
    axes.set_xlim(0.9, 2_500)
    axes.set_xlabel("times the best backend (log scale)")
    return picture


def count(kept: Kept) -> Picture:
    """Draw what an image costs by how many are written or read at once."""
    run = kept.default
    picture, both = panels(2, sharey=True)
    counts = (1, 10, 100, 1_000, 10_000, 100_000)
    floors = (("floor.PngFiles", ":"), ("floor.RawFile", "--"))
    for axes, verb, name in zip(
        both, ("write", "read"), ("many_images.WriteMany", "many_images.ReadMany"), strict=True
    ):
        for floor, style in floors:
            points = [(n, run.quantity(f"{floor}.time_{verb}", (n,), "us/image")) for n in counts]
            line(axes, "floor", points, style)
        for backend in BACKENDS:
            method = f"{name}.time_{verb}"
            line(
                axes, backend, [(n, run.quantity(method, (backend, n), "us/image")) for n in counts]
            )
        logarithmic(axes, "x", "y")
        ticks(axes, counts, counts)
        axes.set_xlabel("images in one call")
        axes.set_title(f"{verb} many")
    both[0].set_ylabel("us/image")
    legend(picture, BACKENDS, PNG_files_without_a_store=":", one_raw_file="--")
    return picture


def disk(kept: Kept) -> Picture:
    """Draw the disk space of an image by the number of images in the store."""
    picture, (axes,) = panels(1)
    counts = (1, 10, 100, 1_000, 10_000, 100_000)
    for backend, (kind, style) in product(BACKENDS, (("allocated", "-"), ("apparent", ":"))):
        name = f"disk_usage.DiskUsage.track_{kind}"
        points = [(n, kept.default.quantity(name, (backend, n), "bytes/image")) for n in counts]
        line(axes, backend, points, style)
    axes.axhline(RAW, color=COLOURS["floor"], linestyle="--")
    logarithmic(axes, "x", "y")
    ticks(axes, counts, counts)
    axes.set_xlabel("images in the store")
    axes.set_ylabel("bytes/image")
    styles = {"on_the_disk": "-", "files'_lengths": ":", "its_pixels": "--"}
    legend(picture, BACKENDS, **styles)
    return picture


def access_patterns(kept: Kept) -> Picture:
    """Draw what an image costs by the order of access."""
    picture, (orders, runs) = panels(2, 4.2)
    batches = "access_patterns.ReadBatches.time_read_10000"
    names = ("in order", "strided", "sorted", "shuffled")
    rows: list[Row] = [
        (f"{name}, {size}", batches, (name, size)) for size in (256, 32) for name in names
    ]
    dots(orders, rows, kept.default, "us/image")
    orders.set_title("10,000 images in batches of 256 and 32")
    rows = [
        ("1,000 as a slice", "access_patterns.ReadRun.time_read_1000", ("slice",)),
        ("1,000 as a list", "access_patterns.ReadRun.time_read_1000", ("list",)),
        ("1,000 one by one", "access_patterns.ReadRun.time_read_1000", ("one by one",)),
        ("k-fold, 10 stores", "access_patterns.ReadFolds.time_read_9000", (10,)),
        ("k-fold, one store", "access_patterns.ReadFolds.time_read_9000", (1,)),
        ("labels only", "access_patterns.ReadLabels.time_read", (10_000,)),
        ("one at random, 50%", "access_patterns.Latency.track_p50", ()),
        ("one at random, 95%", "access_patterns.Latency.track_p95", ()),
        ("one at random, 99%", "access_patterns.Latency.track_p99", ()),
    ]
    dots(runs, rows, kept.default, "us/image")
    runs.set_title("other patterns; single reads by percentile")
    legend(picture, BACKENDS)
    return picture


def cold_cache(kept: Kept) -> Picture:
    """Draw what reading costs with the page cache empty and with it warm."""
    picture, (many, one) = panels(2)
    rows: list[Row] = [
        ("1,000 images, cold", "cold_cache.ColdAll.time_open_read", (1_000,)),
        ("1,000 images, warm", "many_images.ReadMany.time_read", (1_000,)),
        ("10,000 images, cold", "cold_cache.ColdAll.time_open_read", (10_000,)),
        ("10,000 images, warm", "many_images.ReadMany.time_read", (10_000,)),
    ]
    dots(many, rows, kept.default, "us/image")
    many.set_title("read many")
    rows = [
        ("one image, cold", "cold_cache.ColdOne.time_open_read", ()),
        ("one image, warm", "single_image.ReadOne.time_read_100", ()),
        ("open 10,000, cold", "cold_cache.ColdOpen.time_open", ()),
        ("open 10,000, warm", "startup.OpenStore.time_open", (10_000,)),
    ]
    dots(one, rows, kept.default, "us/image")
    one.set_title("read one, and open")
    one.set_xlabel("us")
    legend(picture, BACKENDS)
    return picture


def concurrency(kept: Kept) -> Picture:
    """Draw what an image costs by the number of readers."""
    picture, four = panels(4, sharey=True)
    numbers = (1, 2, 4)
    readers = ("concurrency.ReadThreads", "concurrency.ReadProcesses")
    for axes, title, name, before, after in zip(
        four,
        ("threads, one store", "threads, a store each", "processes, fork", "processes, spawn"),
        (readers[0], readers[0], readers[1], readers[1]),
        ((), (), ("fork",), ("spawn",)),
        (("shared",), ("own",), (), ()),
        strict=True,
    ):
        for backend, (method, style) in product(BACKENDS, (("time_read", "-"), ("track_cpu", ":"))):
            found = (
                kept.default.quantity(
                    f"{name}.{method}", (backend, *before, number, *after), "us/image"
                )
                for number in numbers
            )
            line(axes, backend, zip(numbers, found, strict=True), style)
        logarithmic(axes, "y")
        ticks(axes, numbers, numbers)
        axes.set_title(title)
    four[0].set_ylabel("us/image")
    legend(picture, BACKENDS, time="-", time_of_the_processors=":")
    return picture


def durability(kept: Kept) -> Picture:
    """Draw what it costs that an image survives a power cut."""
    picture, (axes,) = panels(1, 2.8)
    rows: list[Row] = [
        ("one by one, synced", "durability.OneByOne.time_write_100", (True,)),
        ("one by one, not synced", "durability.OneByOne.time_write_100", (False,)),
        ("batches of 100, synced", "durability.WriteBatches.time_write_500", (True,)),
        ("batches of 100, not synced", "durability.WriteBatches.time_write_500", (False,)),
    ]
    dots(axes, rows, kept.default, "us/image")
    legend(picture, BACKENDS)
    return picture


def image_size(kept: Kept) -> Picture:
    """Draw time and bytes by the side of an image."""
    picture, three = panels(3)
    sides = (24, 32, 64, 128, 256, 512)
    for axes, name, unit, title in zip(
        three,
        ("WriteSize.time_write", "ReadSize.time_read", "SizeOnDisk.track_ratio"),
        ("ms/MB", "ms/MB", "ratio"),
        ("write", "read", "bytes on the disk / pixels"),
        strict=True,
    ):
        for backend in BACKENDS:
            found = (kept.default.quantity(f"image_size.{name}", (backend, n), unit) for n in sides)
            line(axes, backend, zip(sides, found, strict=True))
        logarithmic(axes, "x", *("y" if unit != "ratio" else ""))
        ticks(axes, sides, sides)
        axes.set_xlabel("pixels a side")
        axes.set_title(title)
    three[0].set_ylabel("ms / MB of pixels")
    three[2].set_ylim(bottom=0)
    legend(picture, BACKENDS)
    return picture


def growth(kept: Kept) -> Picture:
    """Draw what it costs to append, and what is written for it."""
    picture, (time, written) = panels(2, 2.8)
    rows: list[Row] = [
        ("1,000 to none", "growth.Append.time_append_1000", (0,)),
        ("1,000 to 10,000", "growth.Append.time_append_1000", (10_000,)),
        ("ten times 1,000", "growth.InSteps.time_write_10000", ()),
    ]
    dots(time, rows, kept.default, "us/image")
    time.set_title("append")
    ways = ("one call", "1,000 by 1,000", "one by one")
    rows = [(way, "growth.WriteAmplification.track_written", (way,)) for way in ways]
    dots(written, rows, kept.default, "ratio")
    written.set_xlabel("bytes written / bytes given")
    written.set_title("write amplification")
    legend(picture, BACKENDS)
    return picture


def tuning(kept: Kept) -> Picture:
    """Draw PNG's compression levels, and the layouts of HDF5."""
    picture, (time, size, layouts) = panels(3, 3.4)
    run = kept.default
    levels = (0, 1, 6, 9)
    for (way, colour), (side, style) in product(
        (("write", OPERATIONS["write"]), ("read", OPERATIONS["read"])), ((32, "-"), (256, ":"))
    ):
        name = f"tuning_png.PngLevel.time_{way}_768kib"
        found = (run.quantity(name, (level, side), "ms/MB") for level in levels)
        line(time, "png", zip(levels, found, strict=True), style, colour=colour)
    for side, style in ((32, "-"), (256, ":")):
        name = "tuning_png.PngLevel.track_ratio"
        found = (run.quantity(name, (level, side), "ratio") for level in levels)
        line(size, "png", zip(levels, found, strict=True), style)
    for axes, title in ((time, "PNG: ms / MB of pixels"), (size, "PNG: bytes / pixels")):
        ticks(axes, levels, levels)
        axes.set_xlabel("compression level")
        axes.set_title(title)
    logarithmic(time, "y")
    size.set_ylim(bottom=0)
    names = ("contiguous", "1 a chunk", "16 a chunk", "64 a chunk", "16 a chunk, gzip")
    methods = {"write": "time_write_5000", "read": "time_read_5000", "one": "time_read_100"}
    for way, method in methods.items():
        for place, layout in enumerate(names):
            found_one = run.quantity(f"tuning_hdf5.Hdf5Layout.{method}", (layout,), "us/image")
            dot(layouts, found_one, place, OPERATIONS[way], SHAPES["hdf5"])
    layouts.set_yticks(range(len(names)), names)
    layouts.invert_yaxis()
    logarithmic(layouts, "x")
    layouts.set_xlabel("us/image")
    layouts.set_title("HDF5: layouts")
    handles = [
        Line2D([], [], color=OPERATIONS["write"], label="write"),
        Line2D([], [], color=OPERATIONS["read"], label="read all"),
        Line2D([], [], color=OPERATIONS["one"], label="read one"),
        Line2D([], [], color="#333333", linestyle="-", label="32 x 32"),
        Line2D([], [], color="#333333", linestyle=":", label="256 x 256"),
    ]
    picture.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    return picture


def versions(kept: Kept) -> Picture:
    """Draw how the versions of a library change what an image costs, if they do."""
    workloads = (
        ("write 1,000", "many_images.WriteMany.time_write", (1_000,)),
        ("read 10,000", "many_images.ReadMany.time_read", (10_000,)),
        ("read one", "single_image.ReadOne.time_read_100", ()),
    )
    drawn: list[tuple[str, str, dict[str, list[Quantity | None]]]] = []
    for library, (title, name, rest) in product(LIBRARIES, workloads):
        runs = kept.sweep(library)
        changes: dict[str, list[Quantity | None]] = {}
        for backend in BACKENDS:
            usual, *found = (
                run.quantity(name, (backend, *rest), "us/image")
                for run in (runs[kept.default.versions[library]], *runs.values())
            )
            changes[backend] = [each and usual and quotient(each, usual) for each in found]
        intervals = [each.interval for each in chain(*changes.values()) if each is not None]
        if any(ends is not None and not ends[0] <= 1 <= ends[1] for ends in intervals):
            drawn.append((library, title, changes))
    height = max(-(-len(drawn) // 3), 1)
    picture = Picture(figsize=(9, 2.6 * height + 0.4), layout="constrained")
    panels = picture.subplots(height, 3, sharey=True, squeeze=False)
    for axes in panels.flat[len(drawn) :]:
        axes.set_axis_off()
    for axes, (library, title, changes) in zip(panels.flat, drawn, strict=False):
        for backend, found in changes.items():
            line(axes, backend, enumerate(found))
        names = [version.removesuffix(".0") for version in kept.sweep(library)]
        ticks(axes, range(len(names)), names)
        axes.tick_params(axis="x", labelrotation=30)
        axes.set_title(f"{library}: {title}")
    for row in panels:
        row[0].set_ylabel("times the default")
    panels[0][0].set_ylim(bottom=0)
    legend(picture, BACKENDS)
    return picture


CHARTED: tuple[Callable[[Kept], Picture], ...] = (
    overview,
    count,
    disk,
    access_patterns,
    concurrency,
    cold_cache,
    durability,
    image_size,
    growth,
    tuning,
    versions,
)


def main() -> None:
    """Draw all pictures."""
    CHARTS.mkdir(exist_ok=True)
    kept = Kept()
    with mpl.rc_context(STYLE):
        for draw in CHARTED:
            drawn = StringIO()
            draw(kept).savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
            path = CHARTS / f"{draw.__name__}.svg"
            short = LEFT.sub(r"\1", scour.scourString(drawn.getvalue(), SHORT))
            path.write_text(short, encoding="utf-8")
            print(path.name)
