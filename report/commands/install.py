"""pip install for tox: says first what is missing, and, if pip fails, what to do.

It runs before anything is installed, so it imports only the standard library.
"""

import subprocess
import sys
from pathlib import Path

from report import obstacles


def main(arguments: list[str]) -> int:
    """Run pip with the arguments of this program."""
    if any(argument.startswith("asv==") for argument in arguments):  # an environment that measures
        try:
            obstacles.check_python()
            obstacles.check_checkout(Path.cwd())
        except obstacles.ObstacleError as obstacle:
            print(f"\n{obstacles.wrapped(str(obstacle))}", file=sys.stderr)
            return 1
    code = subprocess.run([sys.executable, "-I", "-m", "pip", "install", *arguments]).returncode
    if code != 0:
        print(f"\n{obstacles.wrapped(obstacles.advice(Path.cwd()))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
