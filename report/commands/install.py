"""pip install, and a sentence that says what to do when it fails: tox installs with this."""

import subprocess
import sys
from pathlib import Path

from report import obstacles


def main() -> int:
    """Run pip with the arguments of this program."""
    code = subprocess.run([sys.executable, "-I", "-m", "pip", "install", *sys.argv[1:]]).returncode
    if code != 0:
        print(f"\n{obstacles.wrapped(obstacles.advice(Path.cwd()))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
