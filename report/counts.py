"""Count the work of several versions of the code, and compare it."""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from report import runner
from report.obstacles import ObstacleError

# The least change that is named, as a fraction. Code that is never called moves what lies where:
# docs/noise.md says how much that changes each count.
COUNTED = 0.01
MISSED = 0.2
TOUCHED = 0.1

# The name of each counter, and the smallest difference that is reported, as a fraction.
COUNTERS = {
    "instructions": ("instructions", COUNTED),
    "d1_misses": ("misses of the first cache", MISSED),
    "ll_misses": ("lines of memory touched", TOUCHED),
    "syscalls": ("system calls", COUNTED),
    "bytes_read": ("bytes read", COUNTED),
    "bytes_written": ("bytes written", COUNTED),
    "syncs": ("syncs", COUNTED),
    "peak_memory": ("memory held", COUNTED),
}

PROGRAMS = 3  # that count: valgrind, strace and tracemalloc
# The operations that only read images.
READING = ("read all", "read one", "shuffled batches", "verify")

Found = Mapping[str, Mapping[str, Mapping[str, int] | str]]  # by task, operation and counter


class Version(NamedTuple):
    """A version of the package to count.

    Attributes
    ----------
    name : str
    packages : Path
        The directory that it is imported from.
    backends : sequence of str
    """

    name: str
    packages: Path
    backends: Sequence[str]


class Counted(NamedTuple):
    """What one counter found for an operation, before and after a change.

    Attributes
    ----------
    backend, operation, counter : str
    before, after : int or None
        None if it failed.
    """

    backend: str
    operation: str
    counter: str
    before: int | None
    after: int | None

    @property
    def factor(self) -> float:
        """The factor between the counts; infinite if only the count before is 0."""
        if self.before == self.after:
            return 1.0
        return (self.after or 0) / self.before if self.before else float("inf")

    @property
    def changed(self) -> bool:
        """Whether the counts differ by more than those of code that does the same work."""
        if self.before is None or self.after is None:
            return self.before != self.after
        return abs(self.after - self.before) > COUNTERS[self.counter][1] * self.before

    @property
    def worse(self) -> bool:
        """Whether the change is for the worse."""
        return self.changed and self.factor > 1

    @property
    def change(self) -> str:
        """The counter, and by how much it changed."""
        if self.before is None or self.after is None:
            return "failed"
        more = self.factor - 1
        amount = f"{more:+.1%}" if abs(more) < 1 else f"x {self.factor:.2f}"
        return f"{COUNTERS[self.counter][0]} {amount}"

    def cells(self) -> list[str]:
        """Return a row: before, after, change, counter and name."""
        figures = ["failed" if n is None else f"{n:,}" for n in (self.before, self.after)]
        name = f"{self.backend}, {self.operation}"
        return [*figures, f"{self.factor - 1:+.1%}", COUNTERS[self.counter][0], name]


def count(
    python: str, versions: Iterable[Version], images: int, processes: int | None = None
) -> Found:
    """Count versions of the code with `benchmarks.counting`; `python` has the libraries."""
    tasks = [
        (f"{version.name}/{backend}", str(version.packages), "storage_impl", backend)
        for version in versions
        for backend in version.backends
    ]
    asked = {"tasks": tasks, "images": images, "processes": processes or os.cpu_count() or 1}
    done = subprocess.run(
        [python, "-m", "benchmarks.counting"],
        cwd=runner.ROOT,
        input=json.dumps(asked),
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        raise ObstacleError("Nothing could be counted: the output above says why.")
    found: Found = json.loads(done.stdout)
    return found


def compare(found: Found, before: Version, after: Version) -> Iterator[Counted]:
    """Return every count of both versions."""
    for backend in after.backends:
        old, new = (found[f"{version.name}/{backend}"] for version in (before, after))
        for operation, counts in new.items():
            was = old[operation]
            for counter in COUNTERS:
                if counter == "peak_memory" and operation not in READING:
                    continue  # threads write, and the memory that they hold at once varies
                pair = [
                    None if isinstance(side, str) else side.get(counter) for side in (was, counts)
                ]
                if pair != [None, None] or isinstance(counts, str):
                    yield Counted(backend, operation, counter, *pair)


def instructions(found: Found, version: Version, backend: str, operation: str) -> int:
    """Return the instructions of an operation.

    Raises
    ------
    ObstacleError
        The operation failed.
    """
    counted = found[f"{version.name}/{backend}"][operation]
    if isinstance(counted, str):
        raise ObstacleError(f"{backend}, {operation} of {version.name} failed: {counted}")
    return counted["instructions"]


def missing(python: str) -> list[str]:
    """Return, for each program that counts and is missing, what to do about it."""
    code = "from benchmarks.counting import *; print(*map(missing, COMMANDS), sep='\\n')"
    done = subprocess.run(
        [python, "-c", code], cwd=runner.ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return [f"Not counted: {line}." for line in done.stdout.splitlines() if line]
