"""The table in the terminal: what an image costs, by operation, count and backend."""

import math
import os
import re
import sys
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from asv.benchmarks import Benchmarks
from asv.config import Config
from asv.results import iter_results_paths

from report.facts import libraries
from report.results import Benchmark, Key, Result, dataset_of, load

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


def result_files(results_dir: str) -> dict[str, int]:
    """Return the files of results, each with the time at which it was written."""
    paths = (os.path.join(root, name) for root, name, _ in iter_results_paths(results_dir))
    return {path: os.stat(path).st_mtime_ns for path in paths}


def text(conf: Config, paths: Iterable[str]) -> str:
    """Return a table for each of these files of results that is of the newest commit."""
    benchmarks = Benchmarks.load(conf)
    results = [load(path, benchmarks) for path in sorted(paths)]
    newest = max(results, key=lambda result: result.date).commit
    dataset = dataset_of(benchmarks)
    tables = [
        "\n".join([*head(result), "", *table(result.datasets.get(dataset, {}))])
        for result in results
        if result.commit == newest
    ]
    encoding = sys.stdout.encoding or "ascii"
    return "\n\n".join(tables).encode(encoding, "backslashreplace").decode(encoding)


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
        f"{name.lower()} {figure(value * 1e3)} ms"
        for name in ("Cpu", "Disk")
        if (value := _value(result.common, f"calibration.{name}.time_work", ()))
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


def table(measured: Mapping[str, Benchmark]) -> list[str]:
    """Return the lines of the table, of at most 100 characters."""
    rows: list[Sequence[str]] = [HEADINGS]
    # Backwards: one image before many, and writing before reading.
    for name in sorted(measured, reverse=True):
        known = measured[name].known
        if known["type"] == "time" and known["param_names"] in (["backend"], ["backend", "count"]):
            of_name = list(_rows(measured, name))
            rows += [(), *of_name] if of_name else []
    if len(rows) == 1:
        return ["Nothing that was measured has a row here: its figures are above, and on the site."]
    return list(aligned(rows, WORDS))


def _rows(measured: Mapping[str, Benchmark], name: str) -> Iterator[Sequence[str]]:
    benchmark = measured[name]
    group, method = name.rsplit(".", 1)
    operation = re.sub("(?<=[a-z])(?=[A-Z])", " ", group.split(".")[-1]).lower()
    if sum(other.startswith(f"{group}.time_") for other in measured) > 1:
        operation += f": {method.removeprefix('time_').replace('_', ' ')}"
    if benchmark.known.get("images") == 1:
        operation += " (us)"  # what opening costs, however many images are in the store
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
        weights = (
            _value(measured, f"disk_usage.DiskUsage.track_{kind}", key)
            for kind in ("apparent", "allocated")
        )
        yield (
            operation,
            f"{count:,}" if count else "",
            backend,
            "failed" if found.value is None else figure(found.value / handled * 1e6),
            "-".join(figure(end / handled * 1e6) for end in quartiles),
            figure(found.value / floor) if found.value is not None and floor else "",
            *("" if weight is None else f"{weight / count:,.0f}" for weight in weights),
        )


def _value(measured: Mapping[str, Benchmark], name: str | None, key: Key) -> float | None:
    """Return what a benchmark measured, or None if there is no such figure."""
    benchmark = measured.get(name or "")
    found = benchmark.figures.get(key) if benchmark else None
    return None if found is None or found.value is None or math.isnan(found.value) else found.value


def figure(value: float) -> str:
    """Return a number with three digits that count, and all of a large one's."""
    digits = 3 if value < 0.0995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f}"


def aligned(rows: Sequence[Sequence[str]], words: Container[int]) -> Iterator[str]:
    """Return lines with their columns below each other, an empty one for a row without cells.

    Parameters
    ----------
    rows : sequence of sequence of str
        The cells; all rows have as many, or none.
    words : container of int
        Which columns begin below each other; the others are figures, and end so.
    """
    widths = [max(map(len, column)) for column in zip(*filter(None, rows), strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        yield "  ".join(cells).rstrip()
