"""What each workload cost over the commits, and which commits changed it, for the page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from report.changes import Change, changes
from report.page.figures import calibration, chosen, cost, rounded
from report.results import Benchmark, Result
from report.workloads import FIRST, INSTRUCTIONS, OF_ONE_IMAGE, PLAIN, Source, Workload, used_in

# How many of the newest commits are searched for changes: the work grows with the square.
LATEST = 200

TIMES, COUNTS = "times", "counts"


def sources(workload: Workload) -> dict[str, Source]:
    """Return the sources of a workload's figures: the one of the table, and the counted one."""
    found = {TIMES: workload.source}
    if workload.counted:
        found[COUNTS] = Source(INSTRUCTIONS, where={"operation": workload.counted})
    return found


def plain_of(workload: Workload, measured: Mapping[str, Benchmark]) -> Source | None:
    """Return the source of a workload's figures of plain code, if there is one."""
    ours = measured.get(workload.source.benchmark)
    name = ours.known.get("plain") if ours and workload in used_in(PLAIN) else None
    return Source(name, where=workload.source.where) if name else None


def part(result: Result) -> Result:
    """Return only what is shown over time: the results of all commits are in memory at once."""
    wanted: dict[str, list[Mapping[str, Any]]] = {}
    for workload in used_in(FIRST):
        for source in sources(workload).values():
            wanted.setdefault(source.benchmark, []).append(source.where)
        for measured in result.datasets.values():
            if plain := plain_of(workload, measured):
                wanted.setdefault(plain.benchmark, []).append(plain.where)
    datasets = {
        name: {
            benchmark: Benchmark(
                measured.known,
                {
                    key: figure
                    for key, figure in measured.figures.items()
                    if any(
                        where.items() <= measured.parameters(key).items()
                        for where in wanted[benchmark]
                    )
                },
            )
            for benchmark, measured in dataset.items()
            if benchmark in wanted
        }
        for name, dataset in result.datasets.items()
    }
    return result._replace(datasets=datasets)


def changed(results: Iterable[Result], revisions: Mapping[str, int]) -> list[Change]:
    """Return the changes in the newest commits, the newest first.

    Parameters
    ----------
    results : iterable of Result
    revisions : dict of str to int
        The place of each commit in the history.
    """
    order = sorted(revisions, key=lambda commit: revisions[commit])
    return changes(results, order[-LATEST:])[::-1]


def over_time(
    results: Sequence[Result], found: Iterable[Change], place: Mapping[str, int]
) -> dict[str, Any]:
    """Return the history of one environment of a machine, by dataset.

    Parameters
    ----------
    results : sequence of Result
    found : iterable of Change
        Of all environments.
    place : dict of str to int
        The number that the page gives each commit.
    """
    results = sorted(results, key=lambda result: place[result.commit])
    content: dict[str, Any] = {}
    for dataset in dict.fromkeys(name for result in results for name in result.datasets):
        among = [result for result in results if dataset in result.datasets]
        content[dataset] = {
            "lines": {
                workload.id: lines_of(workload, dataset, among, place)
                for workload in used_in(FIRST)
            },
            "calibration": [
                [place[result.commit], loads["CPU"]]
                for result in among
                if "CPU" in (loads := calibration(result))
            ],
            "changes": [
                [
                    *(workload, kind, change.backend, place[change.commit]),
                    factor(change),
                    "; ".join(change.elsewhere),
                ]
                for change in found
                if (change.machine, change.environment, change.dataset)
                == (results[0].machine, results[0].environment, dataset)
                for workload, kind in shown_as(change)
            ],
        }
    return content


def lines_of(
    workload: Workload, dataset: str, results: Sequence[Result], place: Mapping[str, int]
) -> dict[str, dict[str, list[list[Any]]]]:
    """Return the figures of a workload, and those of plain code for the stores with a backend."""
    found = {
        kind: lines(workload, source, dataset, results, place)
        for kind, source in sources(workload).items()
    }
    plain = (plain_of(workload, result.datasets[dataset]) for result in reversed(results))
    if source := next(filter(None, plain), None):
        points = lines(workload, source, dataset, results, place)
        found[PLAIN] = {name: points[name] for name in found[TIMES] if name in points}
    return found


def lines(
    workload: Workload,
    source: Source,
    dataset: str,
    results: Iterable[Result],
    place: Mapping[str, int],
) -> dict[str, list[list[Any]]]:
    """Return the figures of each backend: the place of the commit, and the cost."""
    each = workload.unit in OF_ONE_IMAGE and source.benchmark != INSTRUCTIONS
    found: dict[str, list[list[Any]]] = {}
    for result in results:
        for parameters, images, figure in chosen(source, result.datasets[dataset]):
            if figure.number is not None:
                points = found.setdefault(str(next(iter(parameters.values()))), [])
                points.append([place[result.commit], *cost(figure, images if each else 1)])
    return found


def shown_as(change: Change) -> Iterator[tuple[str, str]]:
    """Yield the workloads of the page that a change affects, and whether in times or counts."""
    for workload in used_in(FIRST):
        for kind, source in sources(workload).items():
            if source.benchmark == change.benchmark and (
                source.where.items() <= change.parameters.items()
            ):
                yield workload.id, kind


def as_json(change: Change) -> dict[str, Any]:
    """Return a change as `changes.json` has it."""
    parameters = dict(change.parameters)
    return {**change._asdict(), "parameters": parameters, "factor": factor(change)}


def factor(change: Change) -> float | None:
    """Return the factor of a change; None if the figure was 0 before."""
    return rounded(change.factor) if change.before else None
