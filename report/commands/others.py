"""Measure plain code for further stores: what `tox run -e others` runs.

python -m report.commands.others [ARGUMENT OF asv run ...]

Their packages are in a further environment beside the default one. Its results are part of the same
site.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from asv import environment
from asv.commands import make_argparser
from asv.config import Config
from asv.util import ProcessError, load_json

from report import obstacles, runner
from report.measure import measure_and_publish
from report.workloads import STORES, patterns

PACKAGES = Path("benchmarks", "others.json")
SPACE = 2 << 30  # bytes; the packages take about 400 MB


def main(given: list[str]) -> int:
    """Measure; return the exit code."""
    return runner.unless_obstructed(lambda: run(given, PACKAGES, patterns(STORES)))


def run(given: list[str], listed: Path, benchmarks: Iterable[str]) -> int:
    """Make the environment, measure in it and publish; return the exit code."""
    options = make_argparser()[0].parse_args(["run", "--show-stderr", *given])
    options.bench = options.bench or list(benchmarks)
    conf = Config.load()
    packages = with_wheels(load_json(listed, js_comments=True), listed)
    conf.matrix["req"] |= {name: [version] for name, version in packages.items()}
    runner.remember_machine(options.machine)
    for each in environment.get_environments(conf, options.env_spec):
        try:
            each.create()
        except ProcessError as error:
            raise obstacles.ObstacleError(obstacles.advice(runner.ROOT)) from error
    return measure_and_publish(conf, options, SPACE)


# This installs nothing: pip only says whether it could.
WOULD_INSTALL = (
    *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps"),
    *("--ignore-installed", "--only-binary", ":all:"),
)


def with_wheels(packages: dict[str, str], listed: Path) -> dict[str, str]:
    """Return the packages that have a wheel for this Python and platform, and name the others.

    Raises
    ------
    ObstacleError
        None has one.
    """
    found = {}
    for name, version in packages.items():
        pip = subprocess.run([*WOULD_INSTALL, f"{name}=={version}"], capture_output=True, text=True)
        if pip.returncode == 0:
            found[name] = version
        else:
            print(
                f"{name} {version} has no wheel here: benchmarks that need it are n/a.", flush=True
            )
    if not found:
        raise obstacles.ObstacleError(
            f"pip found none of {', '.join(packages)}, so nothing was measured: check the "
            f"network, and the versions in {listed}."
        )
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
