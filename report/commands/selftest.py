"""Does the suite find what is slower, and nothing else? What `tox run -e selftest` runs.

python -m report.commands.selftest [--runs N]

In a clone that is removed at the end, the gate compares two commits of the same code, and then that
code with a commit in which the reading of one backend does 30% more work. The first must name no
benchmark, the second some of that backend's reads and no other.
"""

import argparse
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from report import obstacles, runner, terminal
from report.commands.gate import RESULTS
from report.comparison import FACTOR, Pair, pairs, spread
from report.measure import IN_TURNS
from report.results import known_benchmarks, read_all

RUNS = 5
BACKEND = "lmdb"
PLANT = """

# What the selftest looks for: 30% of the images are read a second time.


def _read_more(self, wanted, images, labels, sums):
    ImageStore._read(self, wanted, images, labels, sums)
    again = round(0.3 * len(wanted))
    images, labels = np.empty_like(images[:again]), np.empty_like(labels[:again])
    sums = None if sums is None else np.empty_like(sums[:again])
    ImageStore._read(self, wanted[:again], images, labels, sums)


def _read_one_more(self, index, _read_one=LmdbStore._read_one):
    if index % 10 < 3:
        _read_one(self, index)
    return _read_one(self, index)


LmdbStore._read, LmdbStore._read_one = _read_more, _read_one_more
"""


class Run(NamedTuple):
    """What one run of the gate measured."""

    pairs: list[Pair]

    @property
    def named(self) -> list[Pair]:
        """What differs in the code."""
        return [pair for pair in self._differing() if not pair.of_machine]

    @property
    def machine(self) -> list[Pair]:
        """What differs in the machine, which counts for nothing else."""
        return [pair for pair in self._differing() if pair.of_machine]

    def _differing(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.verdict() != "same"]


def is_read(benchmark: str) -> bool:
    """Whether the planted commit does more work in this benchmark."""
    return f"'{BACKEND}'" in benchmark and ".Read" in benchmark


def is_planted(pair: Pair) -> bool:
    """Whether this is what was planted: a slower read of that backend."""
    return pair.verdict() == "slower" and is_read(pair.benchmark)


def main(arguments: list[str]) -> int:
    """Run the test; return 1 where one of its runs came out wrong."""
    parser = argparse.ArgumentParser(
        prog="tox run -e selftest --",
        description="Does the gate name nothing in the same code, and what is slower alone?",
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="of each kind (%(default)s)")
    runs: int = parser.parse_args(arguments).runs
    return runner.unless_obstructed(lambda: selftest(runs))


def selftest(runs: int) -> int:
    """Run everything; return the exit code."""
    runner.remember_machine()
    with runner.scratch(2 << 30) as scratch:
        clone = Clone(Path(scratch))
        same = [clone.compare("same code", clone.same, run) for run in range(1, runs + 1)]
        planted = [clone.compare("planted", clone.planted, run) for run in range(1, runs + 1)]
        lines = [*clone.head(), "", *report(same, planted)]
    text = "\n".join(lines)
    print(f"\n{text}")
    kept = runner.ROOT / ".asv" / "selftest.txt"
    kept.write_text(f"{text}\n")
    print(f"\nThe same is in {kept}")
    return 0 if all(map(quiet, same)) and all(map(found_alone, planted)) else 1


class Clone:
    """A clone of the repository, with a commit of the same code and one with a slower read."""

    def __init__(self, scratch: Path) -> None:
        self.path = scratch / "clone"
        self.temporary = scratch / "tmp"
        self.temporary.mkdir()
        runner.git("clone", "--quiet", str(runner.ROOT), str(self.path))
        self.base = self.git("rev-parse", "HEAD")
        self.same = self.commit("The same code")
        self.git("reset", "--quiet", "--hard", self.base)
        with open(self.path / "storage_impl" / f"{BACKEND}.py", "a") as module:
            module.write(PLANT)
        self.planted = self.commit("A slower read")

    def commit(self, message: str) -> str:
        """Commit what is there, changed or not; return the commit."""
        who = ["-c", "user.name=selftest", "-c", "user.email=selftest@localhost"]
        options = ["--quiet", "--all", "--allow-empty", "--no-verify", "--no-gpg-sign"]
        self.git(*who, "commit", *options, "--message", message)
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        """Return what git prints in the clone."""
        return runner.git(*arguments, directory=self.path)

    def compare(self, kind: str, commit: str, number: int) -> Run:
        """Compare a commit with the code as it is.

        Raises
        ------
        ObstacleError
            The gate compared nothing.
        """
        print(f"{kind}, run {number}: ", end="", flush=True)
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "report.commands.gate", self.base, commit],
            cwd=self.path,
            env=os.environ | {"TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        run = Run(pairs(self.path / RESULTS, self.base, commit))
        if not run.pairs:
            end = "\n".join(done.stdout.splitlines()[-40:])
            raise obstacles.ObstacleError(
                "The gate compared nothing; it printed\n" + textwrap.indent(end, "    ")
            )
        print(f"{verdict(run)} ({time.monotonic() - start:.0f} s)", flush=True)
        return run

    def head(self) -> list[str]:
        """Return what it was measured with."""
        directory = self.path / RESULTS
        found = read_all(str(directory), known_benchmarks(directory))
        return terminal.head(next(result for result in found if result.commit == self.base))


def quiet(run: Run) -> bool:
    """Whether nothing was named but the machine."""
    return not run.named


def found_alone(run: Run) -> bool:
    """Whether what was planted was named, and nothing else but the machine."""
    return bool(run.named) and all(map(is_planted, run.named))


def verdict(run: Run) -> str:
    """Return what was named, in a line."""
    slower = [pair.ratio for pair in run.named if is_planted(pair) and pair.ratio]
    other = [str(pair) for pair in run.named if not is_planted(pair)]
    said = []
    if slower:
        many = f"{len(slower)} reads of {BACKEND}" if len(slower) > 1 else f"1 read of {BACKEND}"
        said.append(f"{many}, x {min(slower):.2f} to {max(slower):.2f}")
    machine = [f"the machine changed: {pair}" for pair in run.machine]
    return "; ".join([*(said + other or ["nothing"]), *machine])


def report(same: Sequence[Run], planted: Sequence[Run]) -> list[str]:
    """Return the table of the runs, and how far apart the figures of the same code are."""
    measured: dict[str, list[list[float]]] = {}
    for run in same:
        for pair in run.pairs:
            if pair.ratio and pair.before and pair.after:
                sides = [pair.before.number or 0.0, pair.after.number or 0.0]
                measured.setdefault(pair.benchmark, []).append(sides)
    lines = [f"factor {FACTOR}, {' '.join(IN_TURNS)}"]
    for kind, runs in ("same code", same), ("planted", planted):
        for number, run in enumerate(runs, 1):
            line = f"  {kind:9} {number}  {verdict(run)}"
            lines += textwrap.wrap(line, 100, subsequent_indent=" " * 15, break_on_hyphens=False)
    lines += [
        "",
        f"same code: nothing was named in {count(map(quiet, same))}",
        f"a read of {BACKEND} with 30% more work: found, and nothing else named, in "
        f"{count(map(found_alone, planted))}",
        "",
        "How far apart the figures of the same code are: the two sides of a run at most, and all "
        f"{2 * len(same)};",
        "and in how many runs the planted work was found.",
        "",
        " a run     all  found   benchmark",
    ]
    for name in sorted(measured):
        found = count(any(pair.benchmark == name for pair in run.named) for run in planted)
        of_read = found if is_read(name) else ""
        within = max(map(spread, measured[name]))
        apart = spread([side for run in measured[name] for side in run])
        lines.append(f"{within:6.1%}  {apart:6.1%}  {of_read:6}  {name}")
    return lines


def count(outcomes: Iterable[bool]) -> str:
    """Return how many are true, of how many."""
    listed = list(outcomes)
    return f"{sum(listed)} of {len(listed)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
