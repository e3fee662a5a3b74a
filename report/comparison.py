"""Two commits compared: what is slower or faster by more than noise, and what broke."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from asv.util import human_value

from report.results import Figure, Result, known_benchmarks, read_all
from report.workloads import CALIBRATION

# By how much a commit must be slower before it is named, beside asv's test of significance: above
# what the same code differs by, and well below a third.
FACTOR = 1.15


class Pair(NamedTuple):
    """A benchmark with its parameters, measured twice.

    Attributes
    ----------
    benchmark : str
        As asv writes it: the name, and the parameters in parentheses.
    unit : str
    before, after : Figure or None
        None where it was not measured, or does not apply.
    """

    benchmark: str
    unit: str
    before: Figure | None = None
    after: Figure | None = None

    @property
    def of_machine(self) -> bool:
        """Whether it is of the calibration: a change is one of the machine, and not of the code."""
        return self.benchmark in CALIBRATION.values()

    @property
    def ratio(self) -> float | None:
        """The second figure over the first; None unless both are numbers."""
        if self.before and self.after and self.before.number and self.after.number:
            return self.after.number / self.before.number
        return None

    def verdict(self, factor: float = FACTOR) -> str:
        """Return what came of the benchmark.

        Parameters
        ----------
        factor : float
            From which on a difference counts.

        Returns
        -------
        str
            "slower", "faster" or "same"; "unsure" where the samples are too few to tell; "broken",
            "mended", or "failed" of both; or "alone" of what has only one figure.
        """
        if self.after and self.after.failed:
            return "failed" if self.before and self.before.failed else "broken"
        if self.before and self.before.failed:
            return "mended"
        if self.ratio is None or not self.before or not self.after:
            return "alone"
        differs = self.after.differs(self.before)
        if differs is False or 1 / factor <= self.ratio <= factor:
            return "same"
        if differs is None and (self.after.repeat or 1) > 1:
            return "unsure"
        return "slower" if self.ratio > 1 else "faster"

    def cells(self) -> list[str]:
        """Return both figures, the ratio and the name, for a table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return [self._written(self.before), self._written(self.after), ratio, self.benchmark]

    def _written(self, figure: Figure | None) -> str:
        if figure is None or figure.number is None:
            return "failed" if figure and figure.failed else "n/a"
        return str(human_value(figure.number, self.unit))

    def __str__(self) -> str:
        before, after, ratio, benchmark = self.cells()
        return f"{benchmark} x {ratio} ({before}, then {after})"


def pairs(results_dir: str | Path, before: str, after: str) -> list[Pair]:
    """Return what was measured of one of two commits or both, by environment and name.

    Parameters
    ----------
    results_dir : str or Path
        asv's directory of results.
    before, after : str
        The commits.
    """
    if not Path(results_dir, "benchmarks.json").exists():
        return []
    found: dict[tuple[str, str], Pair] = {}
    for result in read_all(str(results_dir), known_benchmarks(results_dir)):
        for name, unit, figure in _figures(result):
            place = result.environment, name
            pair = found.get(place, Pair(name, unit))
            if result.commit == before:
                found[place] = pair._replace(before=figure)
            elif result.commit == after:
                found[place] = pair._replace(after=figure)
    return [found[place] for place in sorted(found)]


def _figures(result: Result) -> Iterator[tuple[str, str, Figure]]:
    """Return what was measured, with its name as asv writes it and its unit."""
    for measured in (result.common, *result.datasets.values()):
        for name, benchmark in measured.items():
            for key, figure in benchmark.figures.items():
                if figure.failed or figure.number is not None:
                    full = f"{name}({', '.join(map(repr, key))})" if key else name
                    yield full, benchmark.known["unit"], figure


def spread(figures: Collection[float]) -> float:
    """Return by how much the largest figure exceeds the smallest, as a fraction of it."""
    return max(figures) / min(figures) - 1
