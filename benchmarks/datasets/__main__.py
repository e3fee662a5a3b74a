"""Describe the dataset: python -m benchmarks.datasets [NUMBER OF IMAGES TO READ]."""

import sys

from benchmarks.datasets import survey


def main(arguments: list[str]) -> int:
    """Print the survey; return 1 if the benchmarks cannot use the dataset."""
    try:
        found = survey(*map(int, arguments))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(found.text)
    return 0 if found.usable else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
