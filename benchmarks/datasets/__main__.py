"""Say what there is to measure on: python -m benchmarks.datasets [HOW MANY IMAGES TO READ]."""

import sys

from benchmarks.datasets import survey


def main(arguments: list[str]) -> int:
    """Print the survey; return 1 where the benchmarks cannot use it."""
    try:
        found = survey(*map(int, arguments))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(found.text)
    return 0 if found.usable else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
