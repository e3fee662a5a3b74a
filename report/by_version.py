"""The tables in the terminal that put the versions of a library side by side."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from packaging.version import Version

from report.results import Benchmark, Figure, Key, Result
from report.summary import aligned, figure
from report.versions import LIBRARIES

LEGEND = """\
Microseconds an image, and x the factor to the version above it; * is more than noise. What a
library has no part in shows the noise, and so does cpu, the factor of a fixed load of Python."""
CPU = "calibration.Cpu.time_work"
WORDS = range(3)  # columns; the others are figures

# By library, the C libraries that may come inside it.
INSIDE = {"Pillow": ("zlib-ng", "zlib"), "lmdb": ("LMDB",), "h5py": ("HDF5",)}


class Operation(NamedTuple):
    """What a line is of: a benchmark, and its parameters behind the backend."""

    title: str
    benchmark: str
    parameters: tuple[Any, ...] = ()


OPERATIONS = (
    Operation("write one", "single_image.WriteOne.time_write"),
    Operation("read one", "single_image.ReadOne.time_read"),
    Operation("write 1,000", "many_images.WriteMany.time_write", (1_000,)),
    Operation("read 10,000", "many_images.ReadMany.time_read", (10_000,)),
    Operation("shuffled", "access_patterns.ReadBatches.time_read", ("shuffled", 256)),
)

Measured = dict[str, Benchmark]


def text(results: Sequence[Result], dataset: str) -> str:
    """Return a table for each library and what its versions were measured beside; "" of none.

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
            rows = list(_rows(library, group, dataset))
            if len(group) > 1 and rows:
                shown = ", ".join(other for other in others if other.split()[0] in LIBRARIES)
                tables.append("\n".join([f"{library}, beside {shown}", "", *aligned(rows, WORDS)]))
    return "\n\n".join([LEGEND, *tables]) if tables else ""


def _rows(library: str, group: list[Result], dataset: str) -> Iterator[list[str]]:
    """The lines of a table: a heading, then each operation with each version."""
    measured = [result.datasets.get(dataset, {}) for result in group]
    keys = [key for each in measured for of in OPERATIONS for key in _figures(each, of.benchmark)]
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
    for operation in OPERATIONS:
        rows = list(_rows_of(operation, library, group, measured, backends))
        yield from [[], *rows] if rows else []


def _rows_of(
    operation: Operation,
    library: str,
    group: list[Result],
    measured: list[Measured],
    backends: Iterable[str],
) -> Iterator[list[str]]:
    above: Measured = {}
    for result, here in zip(group, measured, strict=True):
        cells = []
        for backend in backends:
            key = backend, *operation.parameters
            cells.append(_cost(here, operation.benchmark, key))
            cells.append(_factor(here, above, operation.benchmark, key))
        if any(cells):
            words = [operation.title, result.versions[library], _inside(library, result)]
            yield [*words, *cells, _factor(here, above, CPU, ())]
        above = here


def _inside(library: str, result: Result) -> str:
    """The C library that came inside, where that was recorded."""
    names = [name for name in INSIDE.get(library, ()) if name in result.facts]
    return " ".join(f"{name} {result.facts[name]}" for name in names)


def _figures(measured: Measured, name: str) -> dict[Key, Figure]:
    return measured[name].figures if name in measured else {}


def _cost(measured: Measured, name: str, key: Key) -> str:
    """Microseconds an image; nothing where it was not measured."""
    found = _figures(measured, name).get(key)
    if found is None or found.value is None:
        return "failed" if found else ""
    if math.isnan(found.value):
        return ""
    benchmark = measured[name]
    return figure(found.value / benchmark.images(benchmark.parameters(key)) * 1e6)


def _factor(here: Measured, above: Measured, name: str, key: Key) -> str:
    new, old = (_figures(measured, name).get(key) for measured in (here, above))
    if not (new and old and new.value and old.value) or math.isnan(new.value / old.value):
        return ""
    return figure(new.value / old.value) + ("*" if new.differs(old) else " ")
