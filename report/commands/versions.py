"""Measure HEAD with several versions of each library: what `tox run -e versions` runs.

python -m report.commands.versions [ARGUMENT OF asv run ...]
"""

import sys
from collections.abc import Container
from pathlib import Path
from typing import Any

from asv import environment
from asv.commands import make_argparser
from asv.config import Config
from asv.util import ProcessError, load_json

from report import obstacles, own_images, results, runner, terminal
from report.measure import IN_TURNS, measure_and_publish
from report.workloads import LIBRARIES, SWEEP, patterns

VERSIONS = Path("benchmarks", "versions.json")
SPACE = 4 << 30  # bytes; an environment takes about 150 MB


def main(given: list[str]) -> int:
    """Run the sweep; return the exit code."""
    return runner.unless_obstructed(lambda: sweep(given))


def sweep(given: list[str]) -> int:
    """Make the environments, measure in them, publish and print the tables; return the code."""
    parser, _ = make_argparser()
    options = parser.parse_args(["run", "--show-stderr", *IN_TURNS, *given])
    options.bench = options.bench or patterns(SWEEP)
    if options.dry_run:  # it keeps no round that the next round could continue
        options.interleave_rounds = False
    conf = Config.load()
    conf.include = environments(conf, load_json(VERSIONS, js_comments=True))
    chosen = list(environment.get_environments(conf, options.env_spec))
    machine = runner.remember_machine(options.machine)
    create(chosen)

    def text(_: set[str]) -> str:
        return tables_of(conf.results_dir, machine, {environment.name for environment in chosen})

    return measure_and_publish(conf, options, SPACE, text)


def tables_of(results_dir: str, machine: str, environments: Container[str]) -> str:
    """Return the tables of the newest commit that was measured in these environments."""
    found = [
        result
        for result in results.read_all(results_dir, results.known_benchmarks(results_dir))
        if result.machine == machine and result.environment in environments
    ]
    newest = max(found, key=lambda result: result.date).commit
    dataset = own_images.name()
    tables = terminal.versions_text([each for each in found if each.commit == newest], dataset)
    nothing = "Nothing to compare: no two environments differ in only one library."
    return f"commit {newest[:8]}, images {dataset!a}\n\n{tables or nothing}"


def environments(conf: Any, listed: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return the environments of the sweep beside the default one, as asv's `include` has them.

    Parameters
    ----------
    conf : Config
        The configuration of asv; the first version of each library is the default.
    listed : list of dict of str to str
        For each environment, the versions that are not the default, by library.

    Raises
    ------
    ObstacleError
        A library is listed that cannot be varied.
    """
    default = {name: versions[0] for name, versions in conf.matrix["req"].items()}
    for other in listed:
        if not other or not other.keys() <= set(LIBRARIES):
            raise obstacles.ObstacleError(
                f"{VERSIONS} has the line {other}, but only these libraries can be varied: "
                f"{', '.join(LIBRARIES)}. Correct the line."
            )
    return [{"python": conf.pythons[0], "req": {**default, **other}} for other in listed]


def create(environments: list[Any]) -> None:
    """Make the environments that do not exist yet, all of them before anything is measured.

    Raises
    ------
    ObstacleError
        An environment cannot be made.
    """
    for number, each in enumerate(environments, 1):
        named = ", ".join(f"{name} {each.requirements[name]}" for name in LIBRARIES)
        print(f"Environment {number} of {len(environments)}: {named}", flush=True)
        try:
            each.create()
        except ProcessError as error:
            raise obstacles.ObstacleError(
                f"asv could not make an environment with {named}, so nothing was measured. If pip "
                "found all of these versions except one, that one has no wheel for this Python and "
                f"platform: remove it from {VERSIONS}. {obstacles.advice(runner.ROOT)}"
            ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
