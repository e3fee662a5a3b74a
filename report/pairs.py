"""Time two versions of the code alternately: which times differ by more than their own noise?

Each version runs in its own process. The two processes take turns every few milliseconds, so what
slows down the machine slows down both. Each round has new processes and new stores. It takes the
fastest call of each side, because the machine can only add to its time. The factors of the rounds
show how noisy they are.
"""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from report import runner

# The benchmark, its parameters, and its name: the backend and the operation.
Asked = tuple[str, tuple[Any, ...], tuple[str, str]]

ROUNDS = 8
SECONDS = 0.6
TURNS = 6  # at least
LEAST = 0.08  # the smallest change that is reported
ERRORS = 5  # how many standard errors a change must exceed


class Timed(NamedTuple):
    """A benchmark, with its times on both sides.

    Attributes
    ----------
    benchmark : str
    parameters : tuple
    name : (str, str)
        The backend and the operation.
    before, after : list of float
        The seconds of the fastest call in each round.
    failed : str
        Which side has no times, and why; empty if both have.
    """

    benchmark: str
    parameters: tuple[Any, ...]
    name: tuple[str, str]
    before: list[float]
    after: list[float]
    failed: str = ""

    @property
    def logarithms(self) -> list[float]:
        """The logarithm of the factor of each round."""
        return [log(b / a) for a, b in zip(self.before, self.after, strict=True)]

    @property
    def factor(self) -> float:
        """The median of the rounds' factors."""
        return exp(median(self.logarithms))

    @property
    def noise(self) -> float:
        """The spread of the rounds' factors, as a fraction: a robust standard deviation."""
        middle = median(self.logarithms)
        return 1.4826 * median(abs(each - middle) for each in self.logarithms)

    @property
    def changed(self) -> bool:
        """Whether the factor is large enough, and at most one round differs in direction."""
        found = self.logarithms
        if not found:
            return False
        middle = median(found)
        error = 1.2533 * self.noise / len(found) ** 0.5  # the standard error of a median
        agreeing = sum(each * middle > 0 for each in found)
        return abs(middle) > max(log(1 + LEAST), ERRORS * error) and agreeing >= len(found) - 1

    def cells(self) -> list[str]:
        """Return a row: before, after, factor, noise, name and verdict."""
        if not self.before:
            return ["n/a", "n/a", "", "", ", ".join(self.name), self.failed]
        faster = "faster" if self.factor < 1 else "slower"
        figures = [f"{min(side) * 1000:.3g} ms" for side in (self.before, self.after)]
        verdict = faster if self.changed else ""
        name = ", ".join(self.name)
        return [*figures, f"{self.factor:.3f}", f"{self.noise:.1%}", name, verdict]

    def __str__(self) -> str:
        return f"{self.benchmark}({', '.join(map(repr, self.parameters))})"


class Side:
    """A process that measures one version."""

    def __init__(self, python: str, packages: Path, scratch: Path) -> None:
        script = str(runner.ROOT / "benchmarks" / "paired.py")
        self._process = subprocess.Popen(
            [python, "-P", script, str(packages), str(runner.ROOT)],
            cwd=scratch,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, asked: dict[str, Any] | None = None) -> float:
        """Ask the process to make caches, to prepare a benchmark, or to time the prepared one.

        Raises
        ------
        RuntimeError
            The process could not do it.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"failed": "the process ended"}
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return float(answer.get("seconds", 0.0))

    def close(self) -> None:
        """End the process."""
        with self._process:  # closes both pipes, and waits
            pass


def measure(
    python: str,
    before: Path,
    after: Path,
    benchmarks: Sequence[Asked],
    scratch: Path,
    *,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    say: Callable[[str], None] = lambda line: None,
) -> list[Timed]:
    """Time benchmarks of two versions.

    Parameters
    ----------
    python : str
        An interpreter with the libraries.
    before, after : Path
        The directories that `storage_impl` is imported from.
    benchmarks : sequence of Asked
    scratch : Path
        A directory on the disk to measure.
    rounds : int, optional
    seconds : float, optional
        How long the turns of a benchmark last in a round.
    say : callable, optional
        Called with a line about each round.
    """
    found = {each: Timed(*each, [], []) for each in benchmarks}
    caches = Path(tempfile.mkdtemp(dir=scratch))
    side = Side(python, before, caches)
    try:
        side.ask({"caches": sorted({name for name, *_ in benchmarks})})
    except RuntimeError as error:
        return [each._replace(failed=f"before the change: {error}") for each in found.values()]
    finally:
        side.close()
    for number in range(1, rounds + 1):
        say(f"times, round {number} of {rounds}")
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            places = [Path(directory, name) for name in ("before", "after")]
            for place in places:
                shutil.copytree(caches, place)
            sides = [
                Side(python, packages, place)
                for packages, place in zip((before, after), places, strict=True)
            ]
            order = (0, 1) if number % 2 else (1, 0)
            for each in benchmarks:
                if not found[each].failed:
                    found[each] = _round(found[each], sides, order, seconds)
            for side in sides:
                side.close()
    return list(found.values())


def _round(timed: Timed, sides: Sequence[Side], order: Iterable[int], seconds: float) -> Timed:
    best = [float("inf")] * 2
    for index in order:
        try:
            sides[index].ask({"name": timed.benchmark, "parameters": timed.parameters})
        except RuntimeError as error:
            return timed._replace(failed=f"{('before', 'after')[index]} the change: {error}")
    turns, start = 0, time.monotonic()
    while turns < TURNS or time.monotonic() < start + seconds:
        for index in order:
            best[index] = min(best[index], sides[index].ask())
        turns += 1
    return timed._replace(before=[*timed.before, best[0]], after=[*timed.after, best[1]])
