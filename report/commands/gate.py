"""Compare one commit with another, by counts and by times: what `tox run -e gate` runs.

python -m report.commands.gate [BASE [HEAD]]

The exit code is 1 if something does more work or takes longer, 2 if something broke or nothing
could be compared, and otherwise 0.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from report import counts, obstacles, pairs, runner
from report.counts import Counted, Version
from report.pairs import Timed
from report.terminal import aligned, printable
from report.workloads import GATE, used_in

WORSE = 1
BROKEN = 2
SPACE = 1 << 30
IMAGES = 64  # as many as `benchmarks.work` counts


class Judgement(NamedTuple):
    """The result of a comparison.

    Attributes
    ----------
    counted : list of Counted
    timed : list of Timed
    missing : list of str
        What could not be measured, and what to do about it.
    """

    counted: Sequence[Counted]
    timed: Sequence[Timed]
    missing: Sequence[str] = ()

    @property
    def more(self) -> list[Counted]:
        """What does more work."""
        return [each for each in self.counted if each.worse and each.after is not None]

    @property
    def slower(self) -> list[Timed]:
        """What takes longer."""
        return [each for each in self.timed if each.changed and each.factor > 1]

    @property
    def broken(self) -> list[str]:
        """What fails after the change, and did not before."""
        found = [
            f"{each.backend}, {each.operation}"
            for each in self.counted
            if each.after is None and each.before is not None
        ]
        return list(dict.fromkeys(found)) + [
            f"{each}: {each.failed}" for each in self.timed if each.failed.startswith("after")
        ]

    @property
    def code(self) -> int:
        """The exit code."""
        if self.broken or not (self.counted or any(each.before for each in self.timed)):
            return BROKEN
        return WORSE if self.more or self.slower else 0

    def sentences(self) -> Iterator[str]:
        """Yield the verdict, then a sentence for each detail."""
        timed = [each for each in self.timed if each.before]
        compared = f"{len(self.counted)} counts and {len(timed)} times"
        if not self.counted and not timed:
            yield "Nothing was compared."
        elif self.broken:
            yield f"Broken: {'; '.join(self.broken)}."
        elif self.more or self.slower:
            yield f"It got slower: {len(self.more)} counts and {len(self.slower)} times are worse."
        else:
            yield f"Nothing got slower, in {compared}."
        for name in self.worse:
            yield self.seen(*name)
        yield from self.missing

    @property
    def worse(self) -> list[tuple[str, str]]:
        """The backends and operations that got slower."""
        found = [(each.backend, each.operation) for each in self.more]
        return list(dict.fromkeys(found + [each.name for each in self.slower]))

    def seen(self, backend: str, operation: str) -> str:
        """Return what is worse in an operation, and whether counts or times show it."""
        name = backend, operation
        more = [each for each in self.more if (each.backend, each.operation) == name]
        slower = [each for each in self.slower if each.name == name]
        other = [each for each in self.timed if each.name == name and each.before]
        said = [each.change for each in more] + [f"time x {each.factor:.2f}" for each in slower]
        if not slower:
            alone = "only counts show it" if other else "it is not timed"
        elif not more:
            alone = "only times show it"
        else:
            alone = "counts and times show it"
        return f"{backend}, {operation}: {', '.join(said)}; {alone}."


def main(arguments: list[str]) -> int:
    """Compare two commits; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="tox run -e gate --",
        description="Count and time two commits, and fail if the second is slower.",
    )
    parser.add_argument(
        "base", nargs="?", default="HEAD^", help="commit to compare with (default: %(default)s)"
    )
    parser.add_argument(
        "head", nargs="?", default="HEAD", help="commit to judge (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    return runner.unless_obstructed(lambda: compare(given.base, given.head), obstructed=BROKEN)


def compare(base: str, head: str) -> int:
    """Measure two commits, report the result, and return the exit code."""
    python = runner.environment_python()
    with runner.scratch(SPACE) as scratch:
        sides = []
        for name, commit in (("before", base), ("after", head)):
            extract(commit, Path(scratch, name))
            sides.append(Version(name, Path(scratch, name), runner.backends(python)))
        judgement = judge(python, sides[0], sides[1], Path(scratch))
    report(judgement)
    return judgement.code


def judge(python: str, before: Version, after: Version, scratch: Path) -> Judgement:
    """Count two versions of the package, and time them."""
    missing = counts.missing(python)
    counted: list[Counted] = []
    if len(missing) < counts.PROGRAMS:
        say("counts")
        found = counts.count(python, [before, after], IMAGES)
        counted = list(counts.compare(found, before, after))
    timed = pairs.measure(
        python,
        before.packages,
        after.packages,
        timed_of(after.backends),
        scratch,
        say=say,
    )
    return Judgement(counted, timed, missing)


def timed_of(backends: Sequence[str]) -> list[pairs.Asked]:
    """Return what to time for these backends."""
    return [
        (each.source.benchmark, (backend, *each.source.parameters), (backend, each.counted))
        for each in used_in(GATE)
        for backend in backends
    ]


def extract(commit: str, directory: Path) -> None:
    """Write the package of a commit into a new directory.

    Raises
    ------
    ObstacleError
        There is no such commit.
    """
    archiving = ["git", "archive", commit, "storage_impl"]
    done = subprocess.run(archiving, cwd=runner.ROOT, capture_output=True)
    if done.returncode != 0:
        raise obstacles.ObstacleError(
            f"Nothing was compared: git has no storage_impl of {commit} here. Correct the name, or "
            "fetch the commit with git fetch (for actions/checkout: fetch-depth: 0)."
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")


def say(line: str) -> None:
    """Say what is being done."""
    print(line, flush=True)


def tables(judgement: Judgement) -> Iterator[tuple[str, list[Sequence[str]]]]:
    """Yield the two tables, each with its title."""
    changed = [each for each in judgement.counted if each.changed]
    same = len(judgement.counted) - len(changed)
    rows: list[Sequence[str]] = [("before", "after", "change", "counter", "operation")]
    rows += [each.cells() for each in changed]
    yield f"Counts that changed ({same} did not)", rows
    rows = [("before", "after", "factor", "noise", "operation", "verdict")]
    rows += [each.cells() for each in judgement.timed]
    yield "Times", rows


def report(judgement: Judgement) -> None:
    """Print the result; on GitHub, also write it into the summary of the job."""
    sentences = list(judgement.sentences())
    lines = list(map(obstacles.wrapped, sentences))
    for title, rows in tables(judgement):
        lines += ["", f"{title}:", *(aligned(rows, words=(3, 4, 5)) if rows[1:] else ["none"])]
    print(printable("\n" + "\n".join(lines)))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as file:
            file.write(markdown(sentences, judgement))


def markdown(sentences: Sequence[str], judgement: Judgement) -> str:
    """Return the result as Markdown, for the summary of a job."""
    parts = ["## Benchmarks", f"**{sentences[0]}**", *sentences[1:]]
    for title, (head, *rows) in tables(judgement):
        lines = [head, ["---"] * len(head), *rows]
        parts.append(f"### {title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
