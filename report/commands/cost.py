"""Compare the costs of storage_impl and plain code: what `tox run -e cost` runs.

python -m report.commands.cost [ARGUMENT OF benchmarks.cost ...]

`benchmarks.cost` runs in the environment of asv.conf.json, and imports the package of the checkout.
"""

import subprocess
import sys

from report import runner


def main(given: list[str]) -> int:
    """Run the script; return its exit code."""

    def run() -> int:
        command = [runner.environment_python(), "-m", "benchmarks.cost", *given]
        return subprocess.run(command, cwd=runner.ROOT).returncode

    return runner.unless_obstructed(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
