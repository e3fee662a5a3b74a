"""Does the suite find what is slower, and nothing else? What `tox run -e selftest` runs.

python -m report.commands.selftest [--runs N]

In a clone that is removed at the end, `asv continuous` compares two commits of the same code,
and then that code with a commit in which the reading of one backend does 30% more work. The
first must name no benchmark, the second some of that backend's reads and no other.
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

from report import obstacles, runner
from report.continuous import COMPARED, Row, rows
from report.workloads import GATED

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
    """What one `asv continuous` named, and measured.

    Attributes
    ----------
    changed : list of Row
        Its table.
    before, after : dict
        The figures of both commits.
    """

    changed: list[Row]
    before: dict[str, float]
    after: dict[str, float]

    @property
    def named(self) -> list[Row]:
        """What it says of the code."""
        return [row for row in self.changed if not row.of_machine]

    @property
    def machine(self) -> list[Row]:
        """What it says of the machine, which counts for nothing else."""
        return [row for row in self.changed if row.of_machine]


def is_read(benchmark: str) -> bool:
    """Whether the planted commit does more work in this benchmark."""
    return f"'{BACKEND}'" in benchmark and ".Read" in benchmark


def is_planted(row: Row) -> bool:
    """Whether this is what was planted: a slower read of that backend."""
    return row.change == "+" and is_read(row.benchmark)


def table(output: str) -> list[Row]:
    """Return the table in what `asv continuous` prints; it is of what changed alone.

    Raises
    ------
    obstacles.ObstacleError
        asv came to no verdict.
    """
    if "BENCHMARKS HAVE CHANGED" not in output and "BENCHMARKS NOT SIGNIFICANTLY" not in output:
        end = "\n".join(output.splitlines()[-40:])
        raise obstacles.ObstacleError(
            "asv came to no verdict; it printed\n" + textwrap.indent(end, "    ")
        )
    return list(rows(output))


def main(arguments: list[str]) -> int:
    """Run the test; return 1 where one of its runs came out wrong."""
    parser = argparse.ArgumentParser(
        prog="tox run -e selftest --",
        description="Compare the same code, and a slower one: does asv name what is slower alone?",
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
        """Compare a commit with the code as it is."""
        from report import noise

        print(f"{kind}, run {number}: ", end="", flush=True)
        start = time.monotonic()
        asv = [sys.executable, "-m", "asv", "continuous", self.base, commit, "--show-stderr"]
        done = subprocess.run(
            [*asv, *COMPARED, "--bench", GATED],
            cwd=self.path,
            env=os.environ | {"TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        changed = table(done.stdout)
        figures = [noise.medians(str(self.result_file(of))) for of in (self.base, commit)]
        run = Run(changed, *figures)
        print(f"{verdict(run)} ({time.monotonic() - start:.0f} s)", flush=True)
        return run

    def result_file(self, commit: str) -> Path:
        """Return the file of results of a commit."""
        (path,) = self.path.glob(f".asv/results/*/{commit[:8]}-*.json")
        return path

    def head(self) -> list[str]:
        """Return what it was measured with."""
        from asv.benchmarks import Benchmarks
        from asv.config import Config

        from report import results, terminal

        path = self.result_file(self.base)
        conf = Config()
        conf.results_dir = str(path.parent.parent)
        return terminal.head(results.load(path, Benchmarks.load(conf)))


def quiet(run: Run) -> bool:
    """Whether nothing was named but the machine."""
    return not run.named


def found_alone(run: Run) -> bool:
    """Whether what was planted was named, and nothing else but the machine."""
    return bool(run.named) and all(map(is_planted, run.named))


def verdict(run: Run) -> str:
    """Return what was named, in a line."""
    slower = [float(row.ratio) for row in run.named if is_planted(row)]
    other = [str(row) for row in run.named if not is_planted(row)]
    said = []
    if slower:
        many = f"{len(slower)} reads of {BACKEND}" if len(slower) > 1 else f"1 read of {BACKEND}"
        said.append(f"{many}, x {min(slower):.2f} to {max(slower):.2f}")
    machine = [f"the machine changed: {row}" for row in run.machine]
    return "; ".join([*(said + other or ["nothing"]), *machine])


def report(same: Sequence[Run], planted: Sequence[Run]) -> list[str]:
    """Return the table of the runs, and how far apart the figures of the same code are."""
    from report import noise

    sides = [side for run in same for side in (run.before, run.after)]
    apart = noise.spreads(sides)
    within = [noise.spreads([run.before, run.after]) for run in same]
    pairs = {name: max(run.get(name, 0.0) for run in within) for name in apart}
    lines = [f"asv continuous {' '.join(COMPARED)}"]
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
        f"{len(sides)};",
        "and in how many runs the planted work was found.",
        "",
        " a run     all  found   benchmark",
    ]
    for name in sorted(apart):
        found = count(any(row.benchmark == name for row in run.named) for run in planted)
        of_read = found if is_read(name) else ""
        lines.append(f"{pairs[name]:6.1%}  {apart[name]:6.1%}  {of_read:6}  {name}")
    return [*lines, "", "For asv.conf.json:", "", noise.entries(apart)]


def count(outcomes: Iterable[bool]) -> str:
    """Return how many are true, of how many."""
    listed = list(outcomes)
    return f"{sum(listed)} of {len(listed)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
