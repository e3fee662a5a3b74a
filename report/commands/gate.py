"""Measure two commits in turn and judge the second: what `tox run -e gate` runs.

python -m report.commands.gate [BASE [HEAD]] [--factor F] [ARGUMENT OF asv run ...]

The exit code is 1 if a benchmark got slower, 2 if one broke or nothing could be compared, and
otherwise 0. The results are kept apart from those of the history.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from asv.commands import make_argparser
from asv.config import Config

from report import comparison, obstacles, runner
from report.comparison import Pair
from report.measure import IN_TURNS, measure
from report.terminal import aligned, printable
from report.workloads import GATED

RESULTS = Path(".asv", "gate")
SLOWER = 1
BROKEN = 2
HEADINGS = ("before", "after", "ratio", "benchmark")
SAME = "The same"
# By the title of their table, the verdicts that it shows.
TABLES = {
    "Slower": ("slower",),
    "Broken": ("broken", "failed"),
    "Faster": ("faster",),
    "Not compared": ("mended", "alone", "unsure"),
    SAME: ("same",),
}


def main(arguments: list[str]) -> int:
    """Compare two commits; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="tox run -e gate --",
        description="Measure two commits in turn, and fail if the second is slower.",
        epilog="All other arguments go to asv run: --bench, for one.",
        allow_abbrev=False,
    )
    parser.add_argument("base", nargs="?", default="HEAD^", help="(default: %(default)s)")
    parser.add_argument("head", nargs="?", default="HEAD", help="(default: %(default)s)")
    parser.add_argument(
        "--factor",
        type=float,
        default=comparison.FACTOR,
        help="by how much a benchmark must be slower to count (default: %(default)s)",
    )
    own, given = parser.parse_known_args(arguments)
    return runner.unless_obstructed(
        lambda: compare(own.base, own.head, own.factor, given), obstructed=BROKEN
    )


def compare(base: str, head: str, factor: float, given: list[str]) -> int:
    """Measure, say how it came out where it is read, and return the exit code."""
    commits = commit_of(base), commit_of(head)
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)
    listed = RESULTS / "commits"
    listed.write_text("\n".join(commits))
    options = make_argparser()[0].parse_args(
        ["run", "--show-stderr", *IN_TURNS, *given, "--record-samples", f"HASHFILE:{listed}"]
    )
    options.bench = options.bench or [GATED]
    conf = Config.load()
    conf.results_dir = str(RESULTS)
    runner.remember_machine(options.machine)
    measure(conf, options, runner.SPACE["quick"], resumable=False)
    pairs = comparison.pairs(RESULTS, *commits)
    code, sentences = judge(pairs, factor)
    report(sentences, pairs, factor)
    return code


def commit_of(name: str) -> str:
    """Return the commit that a name is of.

    Raises
    ------
    ObstacleError
        There is none.
    """
    try:
        return runner.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except subprocess.CalledProcessError:
        raise obstacles.ObstacleError(
            f"Nothing was compared: git finds no commit {name} here. Correct the name, or get the "
            "commit with git fetch (for actions/checkout: fetch-depth: 0)."
        ) from None


def judge(pairs: Sequence[Pair], factor: float) -> tuple[int, list[str]]:
    """Return the exit code, and what came out in sentences, the verdict first.

    That the calibration is slower or faster has no part in the exit code: a sentence says so.
    """
    code = [pair for pair in pairs if not pair.of_machine]
    slower = _with(code, factor, "slower")
    broken = _with(pairs, factor, "broken", "failed")
    said = []
    if slower:
        said.append(f"{_counted(slower)} got slower by a factor of more than {factor:g}.")
    for pair in broken:
        before = "and worked before" if pair.verdict(factor) == "broken" else "too"
        said.append(f"Broken: {pair.benchmark} fails after the change, {before}.")
    if broken:
        said.append("The log says why. Their speed is not judged.")
    if not said:
        compared = _with(code, factor, "faster", "same")
        if not compared:
            return BROKEN, ["Nothing was compared: the log says why."]
        said.append(f"Nothing got slower in {_counted(compared)}.")
    for pair in _with(code, factor, "mended"):
        said.append(f"{pair.benchmark} fails before the change: it has nothing to compare.")
    for pair in _with(code, factor, "unsure"):
        said.append(f"{pair} has too few samples to be told from noise.")
    for pair in _with(pairs, factor, "slower", "faster"):
        if pair.of_machine:
            said.append(
                f"The machine changed between the two sides: {pair}. It is a fixed load, and no "
                "other difference of that size means anything."
            )
    return SLOWER if slower else BROKEN if broken else 0, said


def _with(pairs: Sequence[Pair], factor: float, *verdicts: str) -> list[Pair]:
    return [pair for pair in pairs if pair.verdict(factor) in verdicts]


def _counted(pairs: Sequence[Pair]) -> str:
    return f"{len(pairs)} benchmark{'s' if len(pairs) != 1 else ''}"


def tables(pairs: Sequence[Pair], factor: float) -> Iterator[tuple[str, list[list[str]]]]:
    """Return the tables that have rows, each with its title."""
    for title, shown in TABLES.items():
        if rows := [pair.cells() for pair in _with(pairs, factor, *shown)]:
            yield title, rows


def report(sentences: Sequence[str], pairs: Sequence[Pair], factor: float) -> None:
    """Print what came out; on GitHub, write it into the summary of the job, too."""
    lines = [*map(obstacles.wrapped, sentences)]
    for title, rows in tables(pairs, factor):
        lines += ["", f"{title}:", *aligned([HEADINGS, *rows], words=(3,))]
    print(printable("\n" + "\n".join(lines)))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as file:
            file.write(markdown(sentences, pairs, factor))


def markdown(sentences: Sequence[str], pairs: Sequence[Pair], factor: float) -> str:
    """Return what came out for the summary of a job, what is the same folded away."""
    parts = ["## Benchmarks", f"**{sentences[0]}**", *sentences[1:]]
    for title, rows in tables(pairs, factor):
        lines = [HEADINGS, ("---:", "---:", "---:", "---"), *rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        folded = f"<details><summary>{title}</summary>\n\n{table}\n\n</details>"
        parts.append(folded if title == SAME else f"### {title}\n\n{table}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
