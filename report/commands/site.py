"""Publish the site from the kept results: what `tox run -e site` runs.

python -m report.commands.site [--offline]
"""

import argparse
import sys
from pathlib import Path

from asv.config import Config

from report import obstacles, runner
from report.page import offline


def main(arguments: list[str]) -> int:
    """Publish; return the exit code."""
    parser = argparse.ArgumentParser(prog="tox run -e site --", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--offline",
        action="store_true",
        help="put the scripts of asv's pages into the site, so that it needs no network",
    )
    options = parser.parse_args(arguments)
    return runner.unless_obstructed(lambda: publish(options.offline))


def publish(without_network: bool) -> int:
    """Make the site and say where it is; return the exit code."""
    conf = Config.load()
    if not Path(conf.results_dir, "benchmarks.json").exists():
        raise obstacles.ObstacleError(
            f"There are no results in {conf.results_dir}: python -m tox run -e bench makes some."
        )
    if without_network:  # before the site is touched
        scripts = offline.install(Path(".asv/npm"))
    if failure := runner.publish(conf):
        return failure
    if without_network:
        offline.localise(Path(conf.html_dir), scripts)
    runner.say_site(conf)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
