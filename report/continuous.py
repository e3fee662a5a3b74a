"""How two versions are compared, and the tables that `asv continuous` answers with."""

from collections.abc import Iterator
from typing import NamedTuple

# By how much a commit must be slower before it is named, beside asv's own test of significance:
# above what the same code differs by, and well below a third.
FACTOR = 1.15
# What the machine does meanwhile happens to both, and the samples of one process share that
# process's luck: several processes, in turns.
IN_TURNS = ("--interleave-rounds", "--attribute=rounds=4", "--attribute=repeat=3")
COMPARED = (*IN_TURNS, f"--factor={FACTOR}")


class Row(NamedTuple):
    """A line of a table.

    Attributes
    ----------
    change : str
        "+" slower, "-" faster, "!" broke, "*" mended, "x" not comparable, or nothing.
    before, after, ratio : str
        The figures as asv writes them; "failed" and "n/a" among them.
    benchmark : str
        Its name and parameters.
    """

    change: str
    before: str
    after: str
    ratio: str
    benchmark: str

    @property
    def of_machine(self) -> bool:
        """Whether it is of the calibration: a change is one of the machine, and not of the code."""
        return self.benchmark.startswith("calibration.")

    def __str__(self) -> str:
        return f"{self.benchmark} x {self.ratio} ({self.before}, then {self.after})"


def rows(output: str) -> Iterator[Row]:
    """Return the lines of asv's tables, without their heads; no other line begins as they do."""
    for line in output.splitlines():
        if line.startswith("|") and not line.startswith(("|-", "| Change")):
            cells = line.removeprefix("|").removesuffix("|").split("|", 4)
            yield Row(*map(str.strip, cells))
