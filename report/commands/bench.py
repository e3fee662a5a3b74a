"""Measure HEAD, publish the site and print the table: what `tox run -e bench` runs.

python -m report.commands.bench quick|full|large [ARGUMENT OF asv run ...]
"""

import sys
from pathlib import Path

from report import obstacles, runner
from report.workloads import RUN

# A few samples, as many as a second allows.
QUICK = ["--attribute", "rounds=1", "--attribute", "repeat=(3,10,1)"]


def main(arguments: list[str]) -> int:
    """Run the suite; return the exit code."""
    kind, *given = arguments
    return runner.unless_obstructed(lambda: measure(kind, given))


def measure(kind: str, given: list[str]) -> int:
    """Run asv, publish and print the table; return the exit code."""
    # Imported after the checks: asv itself needs a Python that it supports.
    from asv.config import Config

    from report import results, terminal

    conf = Config.load()
    before = results.result_files(conf.results_dir)
    runner.remember_machine()
    code = runner.asv_measuring(runner.SPACE[kind], *run_arguments(kind, given))
    if code not in (0, runner.FAILED_BENCHMARK):
        if not list(Path(conf.env_dir).glob("*/asv-env-info.json")):
            raise obstacles.ObstacleError(obstacles.advice(runner.ROOT))
        return code
    changed = results.result_files(conf.results_dir).items() - before.items()
    if not changed:
        print("\nNo results were saved: there is nothing to publish.")
        return code
    if failure := runner.publish(conf):
        return failure
    print()
    print(terminal.text(conf, {path for path, _ in changed}))
    runner.say_where(conf, code)
    return code


def run_arguments(kind: str, given: list[str]) -> list[str]:
    """Return the arguments of asv; the user's come last, so that they win."""
    from asv.commands import make_argparser

    parser, _ = make_argparser()
    options = parser.parse_args(["run", *given])
    arguments = ["run", "--show-stderr"]
    if kind == "quick":
        arguments += QUICK
    if not options.bench:
        arguments += ["--bench", RUN[kind]]
    return arguments + given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
