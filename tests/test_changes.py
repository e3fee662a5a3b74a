"""Which commit changed what: exact where the figures are, at a known rate of alarms where not."""

import numpy as np
import pytest

from report.changes import FEWEST, Step, shifts, steps
from report.score import HEAVY, alarms, found, series


def test_every_large_enough_difference_of_counts_is_a_change() -> None:
    """In both directions, from one commit to the next; without any other."""
    assert steps([100, 100, 102, 102, 50, 50.2]) == [Step(2, 100, 102), Step(4, 102, 50)]
    assert steps([100, 100.5, 100]) == []
    assert steps([]) == steps([7]) == []


def test_small_differences_add_up() -> None:
    """Of commits that each add less than is named, the one that passes it is, with all of it."""
    assert steps([1000, 1006, 1012, 1018]) == [Step(2, 1000, 1012)]


def test_something_out_of_nothing() -> None:
    """A first sync is a change, by an infinite factor."""
    (change,) = steps([0, 0, 3])
    assert (change.place, change.factor) == (2, float("inf"))
    assert steps([3, 0]) == [Step(1, 3, 0)]


@pytest.mark.parametrize("factor", [1.3, 1 / 1.3])
def test_both_directions(factor: float) -> None:
    """A step is found at its commit, with the levels on both sides."""
    figures = series(np.random.default_rng(2), 30, 0.02)
    figures[20:] *= factor
    (change,) = shifts(list(figures))
    assert change.place == 20
    assert change.factor == pytest.approx(factor, rel=0.03)


def test_a_step_and_back() -> None:
    """A regression that was mended is two changes."""
    figures = series(np.random.default_rng(3), 60, 0.02)
    figures[30:40] *= 1.2
    assert [change.place for change in shifts(list(figures))] == [30, 40]


def test_small_changes_are_not_named() -> None:
    """However clear they are: the least change is of the levels, not of the test."""
    figures = [1.0, 1.001] * 10 + [1.03, 1.031] * 10
    assert shifts(figures) == []
    assert [change.place for change in shifts(figures, least=0.02)] == [20]


def test_too_short_to_tell() -> None:
    """Fewer commits than two sides need have no change."""
    assert shifts([1.0] * FEWEST + [2.0] * (FEWEST - 1)) == []


def test_the_same_figures_have_the_same_changes() -> None:
    """The permutations are drawn from a seed."""
    figures = list(series(np.random.default_rng(4), 50, 0.05))
    assert shifts(figures) == shifts(figures)


def test_score() -> None:
    """A short form of `python -m report.score`, whose full form docs/noise.md has."""
    assert found(1.2, 3, 40) >= 0.95
    assert found(1.1, 10, 40) >= 0.75
    assert alarms(HEAVY["Gaussian"], 60) <= 0.05
    assert alarms(HEAVY["Student's t, 3 degrees of freedom"], 60) <= 0.05
