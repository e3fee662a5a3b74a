"""The table in the terminal: what an image costs, by operation, count and backend."""

import math
import os
import re
import sys
import time
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from asv.benchmarks import Benchmarks
from asv.config import Config
from asv.machine import Machine
from asv.results import Results, iter_results_paths

from report.facts import facts_of, libraries

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
LEFT = (0, 2)  # columns of words; the others are figures

Key = tuple[Any, ...]


class Cell(NamedTuple):
    """What one benchmark measured with one set of parameters.

    Attributes
    ----------
    value : float or None
        The median of the samples in the benchmark's unit, or None if it failed.
    quartiles : tuple of float or None
        Between which the middle half of the samples lies; None of a single sample.
    """

    value: float | None
    quartiles: tuple[float, float] | None


class Measured:
    """The results of one commit in one environment.

    A class for 100,000 images counts as the class without "Large" in its name.

    Attributes
    ----------
    benchmarks : dict
        By name, what asv knows of the benchmark.
    cells : dict
        By name and parameters, what was measured.
    """

    def __init__(self, results: Any, benchmarks: Any) -> None:
        self.benchmarks: dict[str, dict[str, Any]] = {}
        self.cells: dict[str, dict[Key, Cell]] = {}
        for name in sorted(results.get_result_keys(benchmarks)):
            base = name.replace("Large.", ".")
            self.benchmarks.setdefault(base, benchmarks[name])
            self.cells.setdefault(base, {}).update(_cells(results, name, benchmarks[name]))

    def value(self, name: str | None, key: Key) -> float | None:
        """Return what a benchmark measured, or None if there is no such figure."""
        cell = self.cells.get(name or "", {}).get(key)
        return cell and cell.value


def _cells(results: Any, name: str, benchmark: dict[str, Any]) -> Iterator[tuple[Key, Cell]]:
    parameters = benchmark["params"]
    values = results.get_result_value(name, parameters)
    stats = results.get_result_stats(name, parameters)
    for key, value, stat in zip(product(*parameters), values, stats, strict=True):
        if value is not None and math.isnan(value):  # not selected, or skipped
            continue
        several = stat and stat.get("repeat", 0) > 1  # {} where only this one failed
        quartiles = (stat["q_25"], stat["q_75"]) if several else None
        yield tuple(map(literal_eval, key)), Cell(value, quartiles)


def result_files(results_dir: str) -> dict[str, int]:
    """Return the files of results, each with the time at which it was written."""
    paths = (os.path.join(root, name) for root, name, _ in iter_results_paths(results_dir))
    return {path: os.stat(path).st_mtime_ns for path in paths}


def text(conf: Config, paths: Iterable[str]) -> str:
    """Return a table for each of these files of results that is of the newest commit."""
    benchmarks = Benchmarks.load(conf)
    loaded = [(Results.load(path), facts_of(path)) for path in sorted(paths)]
    newest = max(loaded, key=lambda pair: pair[0].date)[0].commit_hash
    tables = []
    for results, recorded in loaded:
        if results.commit_hash == newest:
            measured = Measured(results, benchmarks)
            lines = [*head(results, recorded, measured), "", *table(measured)]
            tables.append("\n".join(lines))
    encoding = sys.stdout.encoding or "ascii"
    return "\n\n".join(tables).encode(encoding, "backslashreplace").decode(encoding)


def head(results: Any, recorded: Mapping[str, str], measured: Measured) -> list[str]:
    """Return what the figures were measured with, a line for each kind that is known."""
    params = dict(results.params)
    machine = {field: str(params.pop(field, "")) for field, _ in Machine.fields}
    if machine["ram"].isdigit():
        machine["ram"] = f"{int(machine['ram']) / 2**30:.0f} GiB"
    versions = [f"Python {params.pop('python')}"]
    versions += [f"{name} {params[name]}" for name in sorted(params, key=str.lower)]
    # The benchmarks without images of their own have a bare number for a version.
    datasets = {version.partition(", ")[2] for version in results.benchmark_version.values()}
    calibration = [
        f"{name.lower()} {figure(value * 1e3)} ms"
        for name in ("Cpu", "Disk")
        if (value := measured.value(f"calibration.{name}.time_work", ()))
    ]
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(results.date / 1000))
    facts = [machine[name] for name in ("machine", "cpu", "os")]
    facts[2:2] = [f"{machine['num_cpu']} cores", machine["ram"]]
    lines = {
        "commit": f"{results.commit_hash[:8]} of {date}",
        "machine": ", ".join(fact for fact in facts if fact),
        "calibration": ", ".join(calibration),
        "file system": recorded.get("file system", ""),
        "page cache": recorded.get("page cache", ""),
        "versions": ", ".join(versions),
        "libraries": libraries(recorded),
        "images": "; ".join(sorted(datasets - {""})),
    }
    return [f"{name:<11}  {line}" for name, line in lines.items() if line]


def table(measured: Measured) -> list[str]:
    """Return the lines of the table, of at most 100 characters."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    # Backwards: one image before many, and writing before reading.
    for name in sorted(measured.cells, reverse=True):
        benchmark = measured.benchmarks[name]
        if (
            measured.cells[name]
            and benchmark["type"] == "time"
            and benchmark["param_names"] in (["backend"], ["backend", "count"])
        ):
            lines.append(("",) * len(HEADINGS))
            lines += _lines(measured, name, benchmark)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [_aligned(line, widths) for line in lines]


def _lines(measured: Measured, name: str, benchmark: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    group, method = name.rsplit(".", 1)
    operation = re.sub("(?<=[a-z])(?=[A-Z])", " ", group.split(".")[-1]).lower()
    if sum(other.startswith(f"{group}.time_") for other in measured.cells) > 1:
        operation += f": {method.removeprefix('time_').replace('_', ' ')}"
    cells = measured.cells[name]
    for key in sorted(cells, key=lambda key: key[1:]):  # stable: the backends keep their order
        value, quartiles = cells[key]
        backend: str = key[0]
        images: int = key[1] if len(key) == 2 else 1
        handled: int = benchmark.get("images", images)
        floor = measured.value(benchmark.get("floors", {}).get(backend), key[1:])
        weights = (
            measured.value(f"disk_usage.DiskUsage.track_{kind}", key)
            for kind in ("apparent", "allocated")
        )
        yield (
            operation,
            f"{images:,}",
            backend,
            "failed" if value is None else figure(value / handled * 1e6),
            "-".join(figure(end / handled * 1e6) for end in quartiles or ()),
            figure(value / floor) if value is not None and floor else "",
            *("" if weight is None else f"{weight / images:,.0f}" for weight in weights),
        )


def figure(value: float) -> str:
    """Return a number with three digits that count, and all of a large one's."""
    digits = 3 if value < 0.0995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f}"


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    padded = (
        cell.ljust(width) if column in LEFT else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    )
    return "  ".join(padded).rstrip()
