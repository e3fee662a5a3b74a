"""Measure torch's DataLoader: what `tox run -e loaders-bench` runs.

python -m report.commands.loaders [ARGUMENT OF asv run ...]

torch is in a further environment beside the default one. Its results are part of the same site.
"""

import sys
from pathlib import Path

from report import runner
from report.commands.others import run
from report.workloads import LOADERS, patterns

PACKAGES = Path("benchmarks", "loaders.json")


def main(given: list[str]) -> int:
    """Measure; return the exit code."""
    return runner.unless_obstructed(lambda: run(given, PACKAGES, patterns(LOADERS)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
