"""Measure two commits in turn and judge the second: what `tox run -e gate` runs.

python -m report.commands.gate BASE HEAD [ARGUMENT OF asv continuous ...]

The exit code is 1 if a benchmark got slower, 2 if one broke or nothing could be measured, and
otherwise 0. The results are kept apart from those of the history.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from report import runner
from report.continuous import COMPARED, Row, rows
from report.workloads import GATED

SLOWER = 1
BROKEN = 2


def main(arguments: list[str]) -> int:
    """Compare two commits; return the exit code."""
    return runner.unless_obstructed(lambda: compare(arguments), obstructed=BROKEN)


def compare(given: list[str]) -> int:
    """Measure, say how it came out where it is read, and return the exit code."""
    # Imported after the checks: asv itself needs a Python that it supports.
    from asv.commands import make_argparser

    given = [*COMPARED, *given]  # what is given wins
    options = make_argparser()[0].parse_args(["continuous", *given])
    configuration = write_configuration()
    runner.remember_machine(options.machine)
    arguments = ["--config", str(configuration), "--show-stderr", *given]
    if not options.bench:
        arguments += ["--bench", GATED]
    code = runner.asv_measuring(runner.SPACE["quick"], "continuous", *arguments)
    base = options.base or f"{options.branch}^"
    comparison = ""
    if code in (0, 1, runner.FAILED_BENCHMARK):  # or it was interrupted
        comparison = tables(configuration, base, options)
    verdict, sentence = judge(list(rows(comparison)), options.factor)
    report(f"{sentence}\n\n{folded(comparison)}")
    return verdict


def write_configuration() -> Path:
    """Return a configuration like the suite's, with results of its own that are new."""
    from asv.util import load_json

    settings: dict[str, Any] = load_json(str(runner.ROOT / "asv.conf.json"), js_comments=True)
    directory = runner.ROOT / ".asv" / "gate"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    settings["repo"] = str(runner.ROOT)
    for name in ("benchmark_dir", "env_dir"):
        settings[name] = str(runner.ROOT / settings[name])
    settings["results_dir"] = str(directory / ".asv" / "results")
    configuration = directory / "asv.conf.json"
    configuration.write_text(json.dumps(settings))
    return configuration


def tables(configuration: Path, base: str, options: Any) -> str:
    """Return asv's comparison of what was measured; nothing if there are no results."""
    arguments = ["--config", str(configuration), "--split", "--factor", str(options.factor)]
    if options.machine:
        arguments += ["--machine", options.machine]
    done = subprocess.run(
        [sys.executable, "-m", "asv", "compare", *arguments, base, options.branch],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    return measured(done.stdout) if done.returncode == 0 else ""


def measured(comparison: str) -> str:
    """Return asv's tables without the parameters that were not chosen: it lists them all."""
    lines = comparison.splitlines()
    return "\n".join(
        line for line in lines if not any(row.before == row.after == "n/a" for row in rows(line))
    )


def judge(compared: list[Row], factor: float) -> tuple[int, str]:
    """Return the exit code, and what came out in Markdown.

    That the calibration is slower or quicker has no part in the exit code: the sentence says so.
    """
    if not compared:
        return BROKEN, "**Nothing was compared:** asv says in the log why."
    machine = [row for row in compared if row.of_machine and row.change in ("+", "-")]
    broken = [row for row in compared if row.after == "failed"]
    compared = [row for row in compared if not row.of_machine]
    slower = [row for row in compared if row.change == "+"]
    said = []
    if slower:
        said.append(f"**{_counted(slower)} got slower** by a factor of more than {factor:g}.")
    for row in broken:
        before = "too" if row.before == "failed" else "and worked before"
        said.append(f"**Broken:** `{row.benchmark}` fails after the change, {before}.")
    if broken:
        said.append("The log says why. Their speed is not judged.")
    for row in compared:
        if row.before == "failed" and row.after != "failed":
            said.append(f"`{row.benchmark}` fails before the change: it has nothing to compare.")
    if not slower and not broken:
        said.insert(0, f"**Nothing got slower** in {_counted(compared)}.")
    for row in machine:
        said.append(
            f"**The machine changed** between the two sides: {row}. It is a fixed load, and no "
            "other difference of that size means anything."
        )
    return SLOWER if slower else BROKEN if broken else 0, "\n\n".join(said)


def _counted(compared: list[Row]) -> str:
    return f"{len(compared)} benchmark{'s' if len(compared) != 1 else ''}"


def folded(comparison: str) -> str:
    """Return asv's tables with those that show no change folded away."""
    parts = []
    for part in re.split("(?m)^(?=Benchmarks that)", comparison.strip()):
        title, _, table = part.partition("\n")
        if "stayed the same" in title:
            part = f"<details><summary>{title}</summary>\n\n{table.strip()}\n\n</details>\n"
        parts.append(part.strip())
    return "\n\n".join(parts)


def report(text: str) -> None:
    """Write into the summary of the job, if this is one on GitHub, and print it otherwise."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(f"## Benchmarks\n\n{text}\n")
        text = text.partition("\n\n")[0]
    encoding = sys.stdout.encoding or "ascii"
    print(f"\n{text}".encode(encoding, "backslashreplace").decode(encoding))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
