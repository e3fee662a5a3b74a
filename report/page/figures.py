"""The figures of the page: what each workload costs, the points of the charts, and what changed.

The data of the page is in lists, which take little space. A cost is a list of a value, the ends of
its interval and the number of samples, or of only the word "failed" or "not run".
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from packaging.version import InvalidVersion, Version

from report.page.charts import SECTIONS, Chart
from report.results import BUNDLED, ENOUGH, Benchmark, Figure, Result, cells_of
from report.workloads import (
    FIRST,
    GROUPS,
    OF_ONE_IMAGE,
    Group,
    Source,
    Workload,
    used_in,
)

FACTOR = 1.1  # the smallest factor that asv compare calls a change
FACTS = (*BUNDLED, "file system", "page cache", "kernel")  # in this order

Measured = Mapping[str, Benchmark]


def page_of(result: Result) -> dict[str, Any]:
    """Return what the page shows of a file of results."""
    return {
        "facts": {name: result.facts[name] for name in FACTS if name in result.facts},
        "calibration": calibration(result),
        "outdated": result.outdated,
        "datasets": {
            dataset: {
                "verdict": {
                    workload.id: verdict(workload, measured) for workload in used_in(FIRST)
                },
                "tables": {
                    group.id: rows(group, measured) for group in GROUPS if group.id != FIRST
                },
                "charts": {
                    chart.id: list(points(chart, measured))
                    for section in SECTIONS
                    for chart in section.charts
                },
            }
            for dataset, measured in result.datasets.items()
        },
    }


def calibration(result: Result) -> dict[str, float]:
    """Return how many seconds the fixed loads took, as the page shows them."""
    return {name: rounded(value) for name, value in result.calibration.items()}


def points(chart: Chart, measured: Measured) -> Iterator[list[Any]]:
    """Yield the points of a chart: panel, line, backend, x, and the cost."""
    each = chart.unit in OF_ONE_IMAGE
    for source in chart.sources:
        for parameters, images, figure in chosen(source, measured):
            line, x = source.line if chart.x else "", said(parameters.get(chart.x, source.line))
            if chart.against:
                size = against(*chart.against, parameters, measured)
                if size is None:
                    continue
                line, x = str(parameters.get(chart.x, "")), size
            yield [
                said(parameters.get(chart.panel, "")),
                line,
                str(parameters["backend"]),
                x,
                *cost(figure, images if each else 1),
            ]


def against(
    source: Source, unit: str, parameters: Mapping[str, Any], measured: Measured
) -> float | None:
    """Return what another benchmark measured with these parameters."""
    benchmark = measured.get(source.benchmark)
    if benchmark is None:
        return None
    known = {**parameters, **source.where}
    key = tuple(known.get(name) for name in benchmark.known["param_names"])
    value = benchmark.figures[key].number if key in benchmark.figures else None
    if value is None:
        return None
    images = benchmark.images(benchmark.parameters(key)) if unit in OF_ONE_IMAGE else 1
    return rounded(value / images)


def rows(group: Group, measured: Measured) -> list[list[Any]]:
    """Return the cells of a group: workload, column, what is chosen, and the cell."""
    found: list[list[Any]] = []
    costs: dict[tuple[Any, ...], dict[str, tuple[float, Figure]]] = {}
    for cell in cells_of(group, measured):
        shown: dict[str, Any] = {"cost": cost(cell.figure, cell.images)}
        if cell.over_plain is not None:
            shown = {"cost": [rounded(cell.over_plain), None, None, None]}
        elif cell.figure.number is not None and cell.column not in columns_beside(cell.workload):
            row = costs.setdefault((cell.workload.id, *cell.choices), {})
            row[cell.column] = cell.figure.number / cell.images, cell.figure
        found.append([cell.workload.id, cell.column, list(cell.choices), shown])
    words = {row: judged(by_column) for row, by_column in costs.items()}
    for workload, column, choices, shown in found:
        if word := words.get((workload, *choices), {}).get(column):
            shown["verdict"] = word
    return found


def columns_beside(workload: Workload) -> set[str]:
    """Return the columns that are not stores: they are shown, but not ranked."""
    return {source.line for source in workload.beside}


def chosen(source: Source, measured: Measured) -> Iterator[tuple[dict[str, Any], int, Figure]]:
    """Yield the figures of a source, each with its parameters and its number of images."""
    benchmark = measured.get(source.benchmark)
    if benchmark is None:
        return
    if benchmark.known["param_names"][:1] not in (["backend"], ["store"]):
        return
    for key, figure in benchmark.figures.items():
        parameters = benchmark.parameters(key)
        if source.where.items() <= parameters.items():
            yield parameters, benchmark.images(parameters), figure


def said(value: Any) -> str | int | float:
    """Return a parameter as the page shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, int | float) and math.isfinite(value) else str(value)


def cost(figure: Figure, images: int) -> list[Any]:
    """Return value, low, high and number of samples; only a word if there is no value."""
    if figure.value is None:
        return ["failed"]
    if math.isnan(figure.value):
        return ["not run"]
    value, interval = rounded(figure.value / images), figure.interval
    if interval is None:
        return [value, None, None, figure.repeat]
    return [value, rounded(interval[0] / images), rounded(interval[1] / images), figure.repeat]


def rounded(value: float) -> float:
    """Return a number with six digits: more than the precision of any figure."""
    return float(f"{value:.6g}")


def verdict(workload: Workload, measured: Measured) -> dict[str, dict[str, Any]]:
    """Return for each backend what a workload costs, and how it compares with the best."""
    cells: dict[str, dict[str, Any]] = {}
    found: dict[str, tuple[float, Figure]] = {}
    for parameters, images, figure in chosen(workload.source, measured):
        backend = str(parameters["backend"])
        cells[backend] = {"cost": cost(figure, images)}
        if (value := figure.number) is not None:
            found[backend] = value / images, figure
            floor = floor_of(workload, backend, parameters, images, measured)
            if floor:
                cells[backend]["floor"] = rounded(found[backend][0] / floor)
    for backend, word in judged(found).items():
        cells[backend]["verdict"] = word
    return cells


def judged(found: Mapping[str, tuple[float, Figure]]) -> dict[str, str]:
    """Return for each backend how its cost compares with the lowest.

    Parameters
    ----------
    found : dict
        For each backend, the cost of an image and the figure that it is taken from.

    Returns
    -------
    dict of str to str
        "best" differs from all others, and "worse" differs from the lowest. "close" does not differ
        from the lowest, and "few" has too few samples to tell. "same" is counted and equal. "only"
        is the only one that was measured.
    """
    if not found:
        return {}
    lowest = min(found, key=lambda backend: found[backend][0])
    if len(found) == 1:
        return {lowest: "only"}
    words = {
        backend: compared(figure, found[lowest][1], cost / (found[lowest][0] or math.nan))
        for backend, (cost, figure) in found.items()
        if backend != lowest
    }
    alike = [word for word in ("few", "close", "same") if word in words.values()]
    return {backend: words.get(backend, alike[0] if alike else "best") for backend in found}


def compared(figure: Figure, lowest: Figure, factor: float) -> str:
    """Return how a figure compares with the lowest; it is `factor` times as large."""
    differs = figure.differs(lowest)
    if not figure.varies:
        return "worse" if differs else "same"
    if differs and not factor < FACTOR:  # two runs of the same code can differ by up to that
        return "worse"
    enough = min(figure.repeat or 0, lowest.repeat or 0) >= ENOUGH
    return "close" if enough else "few"


def floor_of(
    workload: Workload,
    backend: str,
    parameters: Mapping[str, Any],
    images: int,
    measured: Measured,
) -> float | None:
    """Return the floor of the cost of an image, if it was measured."""
    source = workload.floors or workload.source
    benchmark = measured.get(source.benchmark)
    floor = measured.get(benchmark.known.get("floors", {}).get(backend, "") if benchmark else "")
    if floor is None:
        return None
    known = {**parameters, "count": images, **source.where}
    key = tuple(known.get(name) for name in floor.known["param_names"])
    value = floor.figures[key].number if key in floor.figures else None
    return value / floor.images(floor.parameters(key)) if value else None


def versions_of(results: list[Result]) -> dict[str, Any]:
    """Return what the environments of one machine and commit measured, by library.

    For each dataset and library there are groups of environments that differ only in that library,
    the largest first. A group has, for each workload and backend, a point for each version: the
    change and the cost. The change is a factor and the place of the version that it is relative to,
    which is the last one before with a figure. It is None if nothing changed.
    """
    content: dict[str, Any] = {}
    for dataset in sorted({name for result in results for name in result.datasets}):
        among = [result for result in results if dataset in result.datasets]
        libraries = sorted({name for result in among for name in result.versions}, key=str.lower)
        by_library = {library: list(groups(library, among, dataset)) for library in libraries}
        content[dataset] = {library: found for library, found in by_library.items() if found}
    return content


def groups(library: str, results: list[Result], dataset: str) -> Iterator[dict[str, Any]]:
    """Yield the groups of results that differ only in the version of this library."""
    alike: dict[tuple[tuple[str, str], ...], dict[str, Result]] = {}
    for result in results:
        others = tuple(sorted(item for item in result.versions.items() if item[0] != library))
        alike.setdefault(others, {})[result.versions.get(library, "")] = result
    for same, by_version in sorted(alike.items(), key=lambda item: -len(item[1])):
        if len(by_version) > 1:
            versions = sorted(by_version, key=release)
            measured = [by_version[version].datasets[dataset] for version in versions]
            yield {
                "others": dict(same),
                "environments": [by_version[version].environment for version in versions],
                "versions": versions,
                "calibration": [calibration(by_version[version]) for version in versions],
                "lines": {workload.id: lines(workload, measured) for workload in used_in(FIRST)},
            }


def release(version: str) -> tuple[bool, Any]:
    """Return a key to sort versions; text that is not a version comes last."""
    try:
        return False, Version(version)
    except InvalidVersion:
        return True, version


def lines(workload: Workload, measured: Sequence[Measured]) -> dict[str, list[list[Any] | None]]:
    """Return for each backend a point for each of several measurements, with the change."""
    found = [
        {
            str(parameters["backend"]): (images, figure)
            for parameters, images, figure in chosen(workload.source, benchmarks)
        }
        for benchmarks in measured
    ]
    content: dict[str, list[list[Any] | None]] = {}
    for backend in dict.fromkeys(backend for by_backend in found for backend in by_backend):
        content[backend] = list(line(by_backend.get(backend) for by_backend in found))
    return content


def line(cells: Iterable[tuple[int, Figure] | None]) -> Iterator[list[Any] | None]:
    """Yield the points of a backend, each compared with the last one before with a figure."""
    last: tuple[int, Figure] | None = None
    for place, cell in enumerate(cells):
        if cell is None:
            yield None
            continue
        images, figure = cell
        factor = change(last[1], figure) if last else None
        yield [[factor, last[0]] if last and factor else None, *cost(figure, images)]
        if figure.number is not None:
            last = place, figure


def change(before: Figure, after: Figure) -> float | None:
    """Return by which factor a cost changed; None if it did not, or cannot be known."""
    old, new = before.number, after.number
    if not old or not new:
        return None
    factor = new / old
    if not 1 / FACTOR <= factor <= FACTOR and after.differs(before):
        return rounded(factor)
    return None
