"""Which commits changed which figures, in a history of results.

If the machine changed with a commit, the change says so, because the machine may be the cause. This
prints the changes:

python -m report.changes [DIRECTORY OF RESULTS]
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import log
from typing import Any, NamedTuple

from report import runner
from report.counts import COUNTED, MISSED
from report.results import BUNDLED, Key, Result, known_benchmarks, read_all
from report.segments import shifts, steps
from report.workloads import CALIBRATION

# By how much the calibration may differ between two commits before the machine counts as changed.
MACHINE = 0.1
# The machine counts as changed if one of these facts changes.
FACTS = ("CPU", "kernel", "Python", "file system", *BUNDLED, "valgrind")


class Change(NamedTuple):
    """A figure that a commit changed.

    Attributes
    ----------
    machine, environment, dataset : str
    commit : str
        The first commit after the change.
    date : int
        The date of the commit, in milliseconds since 1970.
    previous : str
        The last commit before it that was measured.
    benchmark : str
    parameters : dict
    unit : str
    before, after : float
    factor : float
        Infinite if the figure was 0 before.
    kind : str
        "counted" or "timed".
    elsewhere : tuple of str
        What else changed with the commit, and may be the cause: the machine or a library.
    """

    machine: str
    environment: str
    dataset: str
    commit: str
    date: int
    previous: str
    benchmark: str
    parameters: Mapping[str, Any]
    unit: str
    before: float
    after: float
    factor: float
    kind: str
    elsewhere: tuple[str, ...]

    @property
    def backend(self) -> str:
        """The backend; empty if the benchmark has none."""
        return str(self.parameters.get("backend", ""))

    def __str__(self) -> str:
        named = ", ".join(map(str, self.parameters.values()))
        figures = f"{self.before:.4g} to {self.after:.4g} {self.unit}"
        return f"{self.benchmark}({named}) x {self.factor:.3f} ({figures})"


def changes(results: Iterable[Result], order: Sequence[str]) -> list[Change]:
    """Return the changes in a history, within each machine and environment, the oldest first.

    Parameters
    ----------
    results : iterable of Result
    order : sequence of str
        The commits of the history, the oldest first. Results of other commits are left out.
    """
    place = {commit: number for number, commit in enumerate(order)}
    histories: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.commit in place:
            histories.setdefault((result.machine, result.environment), []).append(result)
    found = []
    for history in histories.values():
        history.sort(key=lambda result: place[result.commit])
        found += list(_of_history(history))
    return sorted(found, key=lambda change: (place[change.commit], str(change)))


def _of_history(history: Sequence[Result]) -> Iterator[Change]:
    """Yield the changes in the results of one environment."""
    series: dict[tuple[str, str, Key], list[Result]] = {}
    for result in history:
        for dataset, measured in result.datasets.items():
            for name, benchmark in measured.items():
                for key, figure in benchmark.figures.items():
                    if figure.number is not None and name not in CALIBRATION.values():
                        series.setdefault((dataset, name, key), []).append(result)
    for (dataset, name, key), measured_in in series.items():
        of = [result.datasets[dataset][name] for result in measured_in]
        figures = [benchmark.figures[key] for benchmark in of]
        values = [float(figure.number or 0) for figure in figures]
        unit = str(of[-1].known["unit"])
        timed = figures[-1].varies
        if timed:
            found = shifts(values) if min(values) > 0 else []
        else:
            found = steps(values, MISSED if unit == "misses" else COUNTED)
        for step in found:
            before, after = measured_in[step.place - 1], measured_in[step.place]
            yield Change(
                after.machine,
                after.environment,
                dataset,
                after.commit,
                after.date,
                before.commit,
                name,
                of[step.place].parameters(key),
                unit,
                step.before,
                step.after,
                step.factor,
                "timed" if timed else "counted",
                tuple(_elsewhere(before, after, timed)),
            )


def _elsewhere(before: Result, after: Result, timed: bool) -> Iterator[str]:
    """Yield what else changed with a commit; the calibration matters only to times."""
    for name in FACTS:
        old, new = before.facts.get(name), after.facts.get(name)
        if old and new and old != new:
            yield f"{name} {old} to {new}"
    for name, old_time in before.calibration.items() if timed else ():
        new_time = after.calibration.get(name, old_time)
        if abs(log(new_time / old_time)) > log(1 + MACHINE):
            yield f"calibration of the {name} x {new_time / old_time:.2f}"


def listed(results_dir: str) -> Iterator[str]:
    """Yield the changes in a directory of results as lines of text, by commit."""
    log = runner.git("log", "--topo-order", "--reverse", "--format=%H %s", "HEAD").splitlines()
    title = dict(line.split(" ", 1) for line in log)
    found = changes(read_all(results_dir, known_benchmarks(results_dir)), list(title))
    return text(found, title)


def text(found: Sequence[Change], title: Mapping[str, str]) -> Iterator[str]:
    """Yield the changes as lines of text, by commit.

    Parameters
    ----------
    found : sequence of Change
    title : dict of str to str
        For each commit, the first line of its message.
    """
    if not found:
        yield "No commit of this history changed a figure."
    commits = dict.fromkeys((change.commit, change.machine) for change in found)
    for commit, machine in commits:
        of = [each for each in found if (each.commit, each.machine) == (commit, machine)]
        yield f"{commit[:8]} {title.get(commit, '')} ({machine})"
        elsewhere = sorted({note for change in of for note in change.elsewhere})
        if elsewhere:
            yield f"  The machine changed, too, and may be the cause: {'; '.join(elsewhere)}."
        for change in of:
            yield f"  {change}"


if __name__ == "__main__":
    for line in listed((sys.argv[1:] or [".asv/results"])[0]):
        print(line)
