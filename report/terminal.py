"""The tables in the terminal: what an image costs, by backend and by the version of a library."""

import math
import re
import sys
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from packaging.version import Version

from report import obstacles, own_images
from report.counts import COUNTED
from report.results import (
    ENOUGH,
    Benchmark,
    Figure,
    Key,
    Result,
    cells_of,
    known_benchmarks,
    libraries,
    load,
)
from report.workloads import (
    BYTES,
    BYTES_PER_IMAGE,
    CPU,
    FIRST,
    GROUPS,
    LIBRARIES,
    PER_IMAGE,
    RATIO,
    SECONDS,
    VERSIONS,
    Group,
    Workload,
    used_in,
)

HEADINGS = (
    "operation",
    "images",
    "backend",
    "us/image",
    "quartiles",
    "x floor",
    "bytes/image",
    "on disk",
)
WORDS = (0, 2)  # columns; the others are figures

LEGEND = """\
Microseconds per image. x: the factor to the version above; * marks more than noise. A backend that
does not use the library shows the noise, and so does cpu, the factor of a fixed load in Python.
instr: thousands of instructions of plain code for 64 images, the same in every run."""
VERSION_WORDS = range(3)

# For each library, the C libraries that may come inside it.
INSIDE = {"Pillow": ("zlib-ng", "zlib"), "lmdb": ("LMDB",), "h5py": ("HDF5",)}

Measured = Mapping[str, Benchmark]


def text(results_dir: str, paths: Iterable[str]) -> str:
    """Return a table for each of these files of results, if it is of the newest commit."""
    benchmarks = known_benchmarks(results_dir)
    results = [load(path, benchmarks) for path in sorted(paths)]
    newest = max(results, key=lambda result: result.date).commit
    dataset = own_images.name()
    tables = [
        "\n".join([*head(result), "", *tables_of(result.datasets.get(dataset, {}))])
        for result in results
        if result.commit == newest
    ]
    return printable("\n\n".join(tables))


def printable(text: str) -> str:
    """Return a text in which the characters that the terminal lacks are escaped."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def head(result: Result) -> list[str]:
    """Return what the figures were measured with, a line for each kind that is known."""
    facts = result.facts
    versions = [f"Python {result.versions['python']}"]
    versions += [
        f"{name} {result.versions[name]}"
        for name in sorted(result.versions, key=str.lower)
        if name != "python"
    ]
    calibration = [
        f"{name.lower()} {figure(value * 1e3)} ms" for name, value in result.calibration.items()
    ]
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(result.date / 1000))
    lines = {
        "commit": f"{result.commit[:8]} of {date}",
        "machine": ", ".join(filter(None, (result.machine, result.hardware_line))),
        "calibration": ", ".join(calibration),
        "file system": facts.get("file system", ""),
        "page cache": facts.get("page cache", ""),
        "versions": ", ".join(versions),
        "libraries": libraries(facts),
        "images": "; ".join(sorted(result.datasets)),
    }
    return [f"{name:<11}  {line}" for name, line in lines.items() if line]


def tables_of(measured: Mapping[str, Benchmark]) -> list[str]:
    """Return the lines of the table of single operations, and of a table for each group."""
    lines = table(measured)
    for group in GROUPS:
        rows = [] if group.id == FIRST else list(_group_rows(group, measured))
        if rows:
            heading = obstacles.wrapped(f"{group.title}. {group.what}").split("\n")
            lines += [*([""] if lines else []), *heading, "", *aligned(rows, range(1))]
    if few := _few(measured):
        lines += ["", *obstacles.wrapped(few).split("\n")]
    return lines or [
        "No measured benchmark has a row here: the figures are above, and on the site."
    ]


def _few(measured: Mapping[str, Benchmark]) -> str:
    """Return what to do about times with too few samples; an empty string if there are none."""
    times = [
        found.repeat
        for benchmark in measured.values()
        if benchmark.known["type"] == "time" and "backend" in benchmark.known["param_names"]
        for found in benchmark.figures.values()
        if found.number is not None and found.repeat is not None
    ]
    few = [samples for samples in times if samples < ENOUGH]
    if not few:
        return ""
    return (
        f"{len(few)} of {len(times)} times have fewer than {ENOUGH} samples, down to {min(few)}: "
        "too few to call a backend faster. `python -m tox run -e bench-full` takes 10 of each."
    )


def table(measured: Mapping[str, Benchmark]) -> list[str]:
    """Return the lines of the table of single operations, of at most 100 characters."""
    rows: list[Sequence[str]] = [HEADINGS]
    # In reverse order: one image before many, and writing before reading.
    for name in sorted(measured, reverse=True):
        known = measured[name].known
        if known["type"] == "time" and known["param_names"] in (["backend"], ["backend", "count"]):
            of_name = list(_rows(measured, name))
            rows += [(), *of_name] if of_name else []
    return list(aligned(rows, WORDS)) if rows[1:] else []


def _rows(measured: Mapping[str, Benchmark], name: str) -> Iterator[Sequence[str]]:
    benchmark = measured[name]
    group, method = name.rsplit(".", 1)
    operation = re.sub("(?<=[a-z])(?=[A-Z])", " ", group.split(".")[-1]).lower()
    if sum(other.startswith(f"{group}.time_") for other in measured) > 1:
        operation += f": {method.removeprefix('time_').replace('_', ' ')}"
    if benchmark.known.get("images") == 1:
        operation += " (us)"  # per call, however many images are in the store
    # Sorting is stable: the backends keep their order.
    for key, found in sorted(benchmark.figures.items(), key=lambda item: item[0][1:]):
        if found.value is not None and math.isnan(found.value):  # not selected, or skipped
            continue
        parameters = benchmark.parameters(key)
        backend, count = parameters["backend"], parameters.get("count", 0)
        handled = benchmark.images(parameters)
        several = found.stats.get("repeat", 0) > 1
        quartiles = (found.stats["q_25"], found.stats["q_75"]) if several else ()
        floor = _value(measured, benchmark.known.get("floors", {}).get(backend), key[1:])
        weights = [_value(measured, weighed, key) for weighed in BYTES.values()]
        yield (
            operation,
            f"{count:,}" if count else "",
            backend,
            "failed" if found.value is None else figure(found.value / handled * 1e6),
            "-".join(figure(end / handled * 1e6) for end in quartiles),
            figure(found.value / floor) if found.value is not None and floor else "",
            *("" if weight is None else f"{weight / count:,.0f}" for weight in weights),
        )


# For each unit, its name and the factor to multiply a figure with.
UNITS = {
    PER_IMAGE: ("us/image", 1e6),
    SECONDS: ("ms", 1e3),
    BYTES_PER_IMAGE: ("bytes/image", 1.0),
    RATIO: ("ratio", 1.0),
}


def _group_rows(group: Group, measured: Mapping[str, Benchmark]) -> Iterator[list[str]]:
    """Yield the heading and the rows of a group's table, if anything was measured."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in cells_of(group, measured):
        unit, factor = UNITS[RATIO if group.over_plain else cell.workload.unit]
        value = cell.over_plain
        if value is None and cell.figure.number is not None:
            value = cell.figure.number / cell.images * factor
        row = rows.setdefault((cell.workload.title, *cell.choices, unit), {})
        row[cell.column] = "failed" if value is None else figure(value)
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    if rows:
        yield ["", *group.choices, "unit", *columns]
    for words, cells in rows.items():
        yield [*words, *(cells.get(column, "") for column in columns)]


def _value(measured: Mapping[str, Benchmark], name: str | None, key: Key) -> float | None:
    """Return what a benchmark measured, or None if there is no such figure."""
    benchmark = measured.get(name or "")
    found = benchmark.figures.get(key) if benchmark else None
    return found.number if found else None


def figure(value: float) -> str:
    """Return a number with three significant digits, or with all digits if it is large."""
    digits = 3 if value < 0.0995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f}"


def aligned(rows: Sequence[Sequence[str]], words: Container[int]) -> Iterator[str]:
    """Yield a line for each row, with aligned columns; a row without cells is an empty line.

    Parameters
    ----------
    rows : sequence of sequence of str
        The cells; all rows have the same number of cells, or none.
    words : container of int
        Which columns are aligned left; the others are figures, and are aligned right.
    """
    widths = [max(map(len, column)) for column in zip(*filter(None, rows), strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        yield "  ".join(cells).rstrip()


# -- by the version of a library ----------------------------------------------------------------


def versions_text(results: Sequence[Result], dataset: str) -> str:
    """Return a table for each library and each set of versions of the others; empty if none.

    Parameters
    ----------
    results : sequence of Result
        Of one commit and one machine.
    dataset : str
        The name of the images.
    """
    tables = []
    for library in LIBRARIES:
        alike: dict[tuple[str, ...], list[Result]] = {}
        for result in results:
            beside = [f"{name} {of}" for name, of in result.versions.items() if name != library]
            alike.setdefault(tuple(beside), []).append(result)
        for others, group in alike.items():
            group.sort(key=lambda result: Version(result.versions[library]))
            rows = list(_version_rows(library, group, dataset))
            if len(group) > 1 and rows:
                shown = ", ".join(other for other in others if other.split()[0] in LIBRARIES)
                tables.append(
                    "\n".join([f"{library}, beside {shown}", "", *aligned(rows, VERSION_WORDS)])
                )
    return "\n\n".join([LEGEND, *tables]) if tables else ""


def _version_rows(library: str, group: list[Result], dataset: str) -> Iterator[list[str]]:
    """Yield the rows of a table: a heading, then each workload with each version."""
    measured = [result.datasets.get(dataset, {}) for result in group]
    names = [workload.source.benchmark for workload in used_in(VERSIONS)]
    keys = [key for each in measured for name in names for key in _figures(each, name)]
    backends = dict.fromkeys(key[0] for key in keys)
    if not backends:
        return
    yield [
        "",
        library,
        "inside" if library in INSIDE else "",
        *(head for backend in backends for head in (backend, "x")),
        "cpu",
    ]
    for workload in used_in(VERSIONS):
        rows = list(_workload_rows(workload, library, group, measured, backends))
        yield from [[], *rows] if rows else []


def _workload_rows(
    workload: Workload,
    library: str,
    group: list[Result],
    measured: Sequence[Measured],
    backends: Iterable[str],
) -> Iterator[list[str]]:
    source = workload.source
    above: Measured = {}
    for result, here in zip(group, measured, strict=True):
        cells = []
        for backend in backends:
            key = backend, *source.parameters
            cells.append(_cost(here, source.benchmark, key))
            cells.append(_factor(here, above, source.benchmark, key))
        if any(cells):
            words = [workload.title, result.versions[library], _inside(library, result)]
            yield [*words, *cells, _factor(here, above, CPU, ())]
        above = here


def _inside(library: str, result: Result) -> str:
    """Return the C libraries that came inside, if they were recorded."""
    names = [name for name in INSIDE.get(library, ()) if name in result.facts]
    return " ".join(f"{name} {result.facts[name]}" for name in names)


def _figures(measured: Measured, name: str) -> dict[Key, Figure]:
    return measured[name].figures if name in measured else {}


def _cost(measured: Measured, name: str, key: Key) -> str:
    """Return microseconds per image, or thousands of a count; empty if it was not measured."""
    found = _figures(measured, name).get(key)
    if found is None or found.value is None:
        return "failed" if found else ""
    if math.isnan(found.value):
        return ""
    benchmark = measured[name]
    if benchmark.known.get("unit", "seconds") != "seconds":
        return figure(found.value / 1e3)
    return figure(found.value / benchmark.images(benchmark.parameters(key)) * 1e6)


def _factor(here: Measured, above: Measured, name: str, key: Key) -> str:
    new, old = (_figures(measured, name).get(key) for measured in (here, above))
    if not (new and old and new.number and old.number):
        return ""
    ratio = new.number / old.number
    more = new.differs(old) and (new.varies or abs(ratio - 1) > COUNTED)
    return figure(ratio) + ("*" if more else " ")
