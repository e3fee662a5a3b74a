"""Measure HEAD, publish the site and print the table: what `tox run -e bench` runs.

python -m report.commands.bench quick|full|large [ARGUMENT OF asv run ...]
"""

import os
import sys
from functools import partial
from pathlib import Path

from asv.commands import make_argparser
from asv.config import Config

from report import obstacles, runner, terminal
from report.measure import measure_and_publish
from report.workloads import LARGE, patterns

# The options of asv run, before those of the user. The quick run takes as many samples as a second
# allows, but no fewer than a verdict needs.
OPTIONS = {
    "quick": ["--show-stderr", "--attribute=rounds=1", "--attribute=repeat=(8,10,1)"],
    "full": ["--show-stderr"],
    "large": ["--show-stderr"],
}


def main(arguments: list[str]) -> int:
    """Run the suite; return the exit code."""
    kind, *given = arguments
    if kind == "large":
        os.environ[LARGE] = "1"
    return runner.unless_obstructed(lambda: run(kind, given))


def run(kind: str, given: list[str]) -> int:
    """Run asv, publish and print the table; return the exit code."""
    options = make_argparser()[0].parse_args(["run", *OPTIONS[kind], *given])
    options.bench = options.bench or patterns(kind)
    conf = Config.load()
    runner.remember_machine()
    code = measure_and_publish(
        conf, options, runner.SPACE[kind], partial(terminal.text, conf.results_dir)
    )
    installed = list(Path(conf.env_dir).glob("*/asv-env-info.json"))
    if code not in (0, runner.FAILED_BENCHMARK) and not installed:
        raise obstacles.ObstacleError(obstacles.advice(runner.ROOT))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
