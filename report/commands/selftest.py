"""Does the gate report every planted slowdown, and nothing else? `tox run -e selftest`.

python -m report.commands.selftest [counts] [times] [--runs N]

As the gate compares two commits, the self-test compares the package of HEAD with copies of it. One
copy is the same, one has functions that nothing calls, and one has 30% slower reads, for the times.
For the counts there is a copy for each plant of `report.plants`. A plant is in all backends; each
backend is counted in its own process, which imports only that backend.
"""

import argparse
import platform
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from report import counts, pairs, runner
from report.commands.gate import extract, timed_of
from report.counts import Counted, Version
from report.pairs import Timed
from report.plants import LOOP, PLANTS, SLOWER, Plant, add_unused, plant

RUNS = 10
PARTS = {"counts", "times"}
IMAGES = 16  # a quarter of what the gate counts, because each run counts 9 versions
ROUNDS = 6
SECONDS = 0.4
SPACE = 1 << 30
TURNS = 10_000  # turns of a loop that is counted, to find the instructions of one turn
WANTED = 0.02  # the part of an operation's instructions that a loop adds


class Outcome(NamedTuple):
    """What one run says about one version of the code and one backend.

    Attributes
    ----------
    kind : str
        What was done to the code.
    backend : str
    found : bool
        Whether the plant was reported; true if nothing was planted.
    other : list of str
        What else was reported.
    named : list of str
        What was reported about the plant.
    """

    kind: str
    backend: str
    found: bool
    other: list[str]
    named: list[str]


def main(arguments: list[str]) -> int:
    """Run the self-test; return 1 if one of its runs came out wrong."""
    parser = argparse.ArgumentParser(
        prog="tox run -e selftest --",
        description="Check that the gate reports every planted slowdown, and nothing else.",
    )
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="runs of each part (default: %(default)s)"
    )
    parser.add_argument("parts", nargs="*", help="counts or times (default: both)")
    given = parser.parse_args(arguments)
    if not set(given.parts) <= PARTS:
        parser.error(f"unknown part {' '.join(given.parts)!r}; choose {' or '.join(sorted(PARTS))}")
    parts = set(given.parts) or PARTS
    return runner.unless_obstructed(lambda: selftest(given.runs, parts))


def selftest(runs: int, parts: Collection[str]) -> int:
    """Run what is asked for; return the exit code."""
    python = runner.environment_python()
    backends = runner.backends(python)
    start = time.monotonic()
    with runner.scratch(SPACE) as scratch:
        versions = Versions(python, backends, Path(scratch))
        counted: list[Outcome] = []
        timed: list[Outcome] = []
        measured: list[Timed] = []
        if "counts" in parts and not counts.missing(python):
            versions.plant()
            for run in range(1, runs + 1):
                say(f"counts, run {run} of {runs}", start)
                counted += versions.count()
        for run in range(1, runs + 1) if "times" in parts else ():
            say(f"times, run {run} of {runs}", start)
            same, outcomes = versions.time()
            measured += same
            timed += outcomes
    lines = [*head(), *counts.missing(python)]
    if counted:
        lines += ["", *summary("counts", counted), "", *differences(versions.unchanged)]
    if timed:
        lines += ["", *summary("times", timed), "", *spread(measured)]
    text = "\n".join(lines)
    print(f"\n{text}")
    kept = runner.ROOT / ".asv" / "selftest.txt"
    kept.write_text(f"{text}\n", encoding="utf-8")
    say(f"This output is also in {kept}", start)
    every = (*counted, *timed)
    wrong = [each for each in every if not each.found or each.other]
    return 1 if wrong or not every else 0


def say(line: str, start: float) -> None:
    """Say what is being done, and after how long."""
    print(f"{(time.monotonic() - start) / 60:5.1f} min  {line}", flush=True)


def head() -> list[str]:
    """Return the lines that say what was tested and where."""
    commit = runner.git("show", "--no-patch", "--format=%h of %cI", "HEAD")
    machine = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return [f"commit   {commit}", f"machine  {machine}", f"Python   {platform.python_version()}"]


class Versions:
    """The package of HEAD, and the copies of it.

    Parameters
    ----------
    python : str
        An interpreter with the libraries.
    backends : sequence of str
    scratch : Path
    """

    def __init__(self, python: str, backends: Sequence[str], scratch: Path) -> None:
        self.python = python
        self.backends = backends
        self.scratch = scratch
        self.base = Version("before", scratch / "before", backends)
        extract("HEAD", self.base.packages)
        self.same = self._version("the same code")
        shutil.copytree(self.base.packages, self.same.packages)
        self.unused = self._version("functions that nothing calls")
        add_unused(self.base.packages, self.unused.packages)
        self.slower = self._version("30% slower reading")
        for backend in backends:
            for each in SLOWER:
                plant(self.base.packages, self.slower.packages, backend, each)
        self.planted: list[tuple[Plant, Version]] = []
        # The counts of versions that do the same work, by version.
        self.unchanged: dict[str, list[Counted]] = {self.same.name: [], self.unused.name: []}

    def _version(self, title: str) -> Version:
        return Version(title, self.scratch / title.replace(" ", "-"), self.backends)

    def plant(self) -> None:
        """Make a version for each plant; count first how many turns its loop needs."""
        probes = {
            method: self._version(f"probe {method}") for method in ("read_many", "write_many")
        }
        for method, probe in probes.items():
            for backend in self.backends:
                loop = Plant("", method, LOOP)
                plant(self.base.packages, probe.packages, backend, loop, TURNS)
        found = counts.count(self.python, [self.base, *probes.values()], IMAGES)
        for each in PLANTS:
            version = self._version(each.title)
            probe, operation = probes[each.method], each.operations[0]
            for backend in self.backends:
                before = counts.instructions(found, self.base, backend, operation)
                turn = (counts.instructions(found, probe, backend, operation) - before) / TURNS
                loops = round(WANTED * before / turn)
                plant(self.base.packages, version.packages, backend, each, loops)
            self.planted.append((each, version))

    def count(self) -> Iterator[Outcome]:
        """Count all versions once."""
        versions = [self.same, self.unused, *(version for _, version in self.planted)]
        found = counts.count(self.python, [self.base, *versions], IMAGES)
        for version in versions:
            allowed = next((each.operations for each, of in self.planted if of == version), ())
            compared = list(counts.compare(found, self.base, version))
            if version.name in self.unchanged:
                self.unchanged[version.name] += compared
            changed = [each for each in compared if each.changed]
            for backend in self.backends:
                yield outcome(version.name, backend, allowed, changed)

    def time(self) -> tuple[list[Timed], list[Outcome]]:
        """Time the same code and the slower one; return the times of the same code, too."""
        outcomes = []
        of_same: list[Timed] = []
        for version in (self.same, self.slower):
            timed = pairs.measure(
                self.python,
                self.base.packages,
                version.packages,
                timed_of(self.backends),
                self.scratch,
                rounds=ROUNDS,
                seconds=SECONDS,
            )
            of_same = of_same or timed
            reads = {each.name for each in timed if each.name[1].startswith("read")}
            wanted = reads if version is self.slower else set()
            for backend in self.backends:
                of = [each for each in timed if each.name[0] == backend]
                named = {each.name for each in of if each.changed}
                told = {each.name: f"{each.name[1]} x {each.factor:.2f}" for each in of}
                outcomes.append(
                    Outcome(
                        version.name,
                        backend,
                        {each for each in wanted if each[0] == backend} <= named,
                        [told[each] for each in named - wanted],
                        [told[each] for each in named & wanted],
                    )
                )
        return of_same, outcomes


def outcome(kind: str, backend: str, allowed: Sequence[str], changed: Iterable[Counted]) -> Outcome:
    """Return what the counts say about a version and a backend."""
    of = [each for each in changed if each.backend == backend]
    named = [each for each in of if each.operation in allowed and each.factor > 1]
    other = [each for each in of if each not in named]
    return Outcome(
        kind,
        backend,
        bool(named) or not allowed,
        [f"{each.operation}: {each.change}" for each in other],
        [f"{each.operation}: {each.change}" for each in named],
    )


def summary(title: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield a heading, and a line for each kind and backend."""
    kinds: dict[tuple[str, str], list[Outcome]] = {}
    for each in outcomes:
        kinds.setdefault((each.kind, each.backend), []).append(each)
    yield f"{title:<32}  backend  found  nothing else"
    for (kind, backend), runs in kinds.items():
        right = sum(each.found for each in runs)
        alone = sum(not each.other for each in runs)
        quiet = not any(each.named for each in runs)
        found = "" if quiet and right == len(runs) else f"{right} of {len(runs)}"
        line = f"  {kind:<30}  {backend:<7}  {found:<8}  {alone} of {len(runs)}"
        first = next((each.named for each in runs if each.named), [])
        yield f"{line}  {'; '.join(first)}".rstrip()
        for other in dict.fromkeys(name for each in runs for name in each.other):
            yield f"      also reported: {other}"


def differences(unchanged: Mapping[str, Sequence[Counted]]) -> Iterator[str]:
    """Yield lines that say how far apart the counts of code that does the same work are."""
    yield "Counts of code that does the same work: the largest difference in all runs."
    yield ""
    yield f"  {'':<26}" + "".join(f"  {name:>29}" for name in unchanged)
    for counter, (title, _) in counts.COUNTERS.items():
        cells = []
        for of in unchanged.values():
            factors = [abs(each.factor - 1) for each in of if each.counter == counter]
            cells.append(f"{max(factors):.2%}" if factors else "n/a")
        yield f"  {title:<26}" + "".join(f"  {cell:>29}" for cell in cells)


def spread(timed: Sequence[Timed]) -> Iterator[str]:
    """Yield lines that say how far apart the times of the same code are."""
    yield "Times of the same code: the largest difference in a run, and the usual noise of a round."
    yield ""
    names = dict.fromkeys(each.name for each in timed)
    for name in names:
        of = [each for each in timed if each.name == name and each.before]
        if of:
            most = max(max(each.factor, 1 / each.factor) for each in of) - 1
            noise = sorted(each.noise for each in of)[len(of) // 2]
            yield f"  {most:6.1%}  {noise:6.1%}  {', '.join(name)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
