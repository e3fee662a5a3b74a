"""Where a series of figures changes: exactly for counts, and by a statistical test for times.

Counts are the same from run to run, so every difference that is large enough is a change (`steps`).
Times are noisy, so a change is where a permutation test finds that the figures after it differ from
those before it (`shifts`).
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from math import sqrt
from operator import itemgetter
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TIMED = 0.05  # the smallest change that is reported, as a fraction

FEWEST = 3  # the fewest commits between two changes of times
# The rates of false alarms: the part of the histories without a change in which a test finds one by
# chance, whatever the noise. One test is for changes that stay, one for changes that are reverted.
STAYS = 0.0125
TAKEN_BACK = 0.0025
PERMUTATIONS = 999
AT_ONCE = 111  # permutations; most series need no more


class Step(NamedTuple):
    """A change in a series.

    Attributes
    ----------
    place : int
        The place of the first figure after it.
    before, after : float
        The level on both sides.
    """

    place: int
    before: float
    after: float

    @property
    def factor(self) -> float:
        """The factor between the levels; infinite if the level was 0 before."""
        return self.after / self.before if self.before else float("inf")


def steps(figures: Sequence[float], least: float) -> list[Step]:
    """Return the changes of figures that do not vary from run to run.

    A figure is compared with the one after the last change, so that small differences are reported
    once they add up.

    Parameters
    ----------
    figures : sequence of float
        The oldest first.
    least : float
        The smallest change to report, as a fraction.
    """
    found: list[Step] = []
    level = figures[0] if figures else 0.0
    for index, (before, figure) in enumerate(pairwise(figures), 1):
        if abs(figure - level) > least * level:
            # If the neighbours differ enough, the small differences before are of other commits.
            alone = abs(figure - before) > least * before
            found.append(Step(index, before if alone else level, figure))
            level = figure
    return found


def shifts(figures: Sequence[float], least: float = TIMED) -> list[Step]:
    """Return the changes of noisy figures, by divisive segmentation with a permutation test.

    The series is split where the means of the logarithms on both sides differ most, for their
    lengths. If that split does not stand, the series is split around the stretch whose mean differs
    most from that of the rest. A split stands if few permutations of the series have one as clear,
    so the rate of false alarms depends on no distribution. The parts are then split in the same
    way. At the end, splits between levels that differ by too little are removed, the smallest
    first.

    See James and Matteson, "ecp: an R package for nonparametric multiple change point analysis of
    multivariate data" (2014), for the division, and Olshen et al., "Circular binary segmentation
    for the analysis of array-based DNA copy number data" (2004), for the stretches.

    Parameters
    ----------
    figures : sequence of float
        The oldest first, all above 0.
    least : float, optional
        The smallest change of the median to report, as a fraction.
    """
    logarithms = np.log(np.asarray(figures, np.float64))
    random = np.random.default_rng(0)  # a fixed seed: the same figures have the same changes
    ends = {0, len(figures)}
    parts = [(0, len(figures))]
    while parts:
        start, stop = parts.pop()
        places = [start + place for place in _split(logarithms[start:stop], random)]
        if places:
            ends.update(places)
            parts += pairwise([start, *places, stop])
    kept = sorted(ends)
    while len(kept) > 2:
        levels = [median(figures[start:stop]) for start, stop in pairwise(kept)]
        found = [Step(i, *both) for i, both in zip(kept[1:], pairwise(levels), strict=False)]
        smallest = min(found, key=lambda step: abs(np.log(step.factor)))
        if abs(np.log(smallest.factor)) >= np.log1p(least):
            return found
        kept.remove(smallest.place)
    return []


def _split(figures: NDArray[np.float64], random: np.random.Generator) -> tuple[int, ...]:
    """Return the place of the clearest change and, if it is reverted, of its end; or nothing.

    There is nothing if chance finds a change as clear: if too many permutations have one. The mean
    of a stretch is compared with that of the rest, by the sums up to each figure. Both the stretch
    and the rest have at least `FEWEST` figures.
    """
    count = len(figures)
    if count < 2 * FEWEST:
        return ()
    centred = figures - figures.mean()
    for inside, chance in ((False, STAYS), (True, TAKEN_BACK)):
        most, first, last = max(
            (
                (clear.max(), first := starts[clear.argmax()], first + length)
                for length, starts, clear in _clearness(centred[np.newaxis], inside)
            ),
            key=itemgetter(0),
        )
        left = int(chance * (PERMUTATIONS + 1)) - 1
        for _ in range(0, PERMUTATIONS, AT_ONCE):
            permuted = random.permuted(np.tile(centred, (AT_ONCE, 1)), axis=1)
            of_each = (clear.max(axis=0) for _, _, clear in _clearness(permuted, inside))
            left -= int(np.count_nonzero(reduce(np.maximum, of_each) >= most - 1e-12))
            if left < 0:
                break
        else:
            return tuple(end for end in (first, last) if 0 < end < count)
    return ()


def _clearness(
    series: NDArray[np.float64], inside: bool
) -> Iterator[tuple[int, range, NDArray[np.float64]]]:
    """Yield each length of a stretch, where stretches begin, and how clear each is in each series.

    The stretches are those inside the series, or those at its ends. By length, the sums to compare
    lie side by side, and the processor's cache holds them.
    """
    count = series.shape[1]
    sums = np.zeros((count + 1, len(series)))
    np.cumsum(series.T, axis=0, out=sums[1:])
    for length in range(FEWEST, count - FEWEST + 1):
        rest = count - length
        starts = range(1, rest) if inside else range(0, rest + 1, rest)
        of = slice(starts.start, starts.stop, starts.step)
        clear = sums[length:][of] - sums[:-length][of]
        yield length, starts, np.abs(clear, out=clear) / sqrt(length * rest)
