"""Which commit changed what: exact where the figures are, at a known rate of alarms where not."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from report.changes import changes, text
from report.results import Benchmark, Figure, Result
from report.score import HEAVY, alarms, found, series
from report.segments import FEWEST, Step, shifts, steps
from report.workloads import CPU

pytestmark = pytest.mark.unmeasured


def test_every_large_enough_difference_of_counts_is_a_change() -> None:
    """In both directions, from one commit to the next; without any other."""
    assert steps([100, 100, 102, 102, 50, 50.2], 0.01) == [Step(2, 100, 102), Step(4, 102, 50)]
    assert steps([100, 100.5, 100], 0.01) == []
    assert steps([], 0.01) == steps([7], 0.01) == []


def test_small_differences_add_up() -> None:
    """Of commits that each add less than is named, the one that passes it is, with all of it."""
    assert steps([1000, 1006, 1012, 1018], 0.01) == [Step(2, 1000, 1012)]


def test_something_out_of_nothing() -> None:
    """A first sync is a change, by an infinite factor."""
    (change,) = steps([0, 0, 3], 0.01)
    assert (change.place, change.factor) == (2, float("inf"))
    assert steps([3, 0], 0.01) == [Step(1, 3, 0)]


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


# -- over a history ----------------------------------------------------------------------------

COMMITS = [f"{number:040}" for number in range(30)]
READ = "many_images.ReadMany.time_read"
WORK = "work.Instructions.track_instructions"


def history(
    times: Sequence[float], counts: Sequence[float], **facts: Callable[[int], str]
) -> list[Result]:
    """Return results of LMDB, with facts that may differ from commit to commit."""
    known = {
        READ: {"type": "time", "unit": "seconds", "param_names": ["backend", "count"]},
        WORK: {"type": "track", "unit": "instructions", "param_names": ["backend", "operation"]},
        CPU: {"type": "time", "unit": "seconds", "param_names": []},
    }
    found = []
    for number, (seconds, count) in enumerate(zip(times, counts, strict=True)):
        of = {name: fact(number) for name, fact in facts.items()}
        cpu = Benchmark(known[CPU], {(): Figure(float(of.pop("cpu", "1")), {}, None, True)})
        measured = {
            READ: Benchmark(known[READ], {("lmdb", 1000): Figure(seconds, {}, None, True)}),
            WORK: Benchmark(known[WORK], {("lmdb", "open"): Figure(count, {}, None, False)}),
            CPU: cpu,
        }
        of_set, common = {"synthetic": measured}, {CPU: cpu}
        values = ("desk", "py3.11", COMMITS[number], number, {}, {}, of, of_set, 0, common)
        found.append(Result(*values))
    return found


def test_changes_of_a_history() -> None:
    """Each with its commit, whatever the order of the results; calibration is not of the code."""
    times = [1.0, 1.01] * 10 + [1.3, 1.31] * 5
    counts = [100.0] * 12 + [90.0] * 18
    results = history(times, counts, cpu=lambda number: str(1 + number))
    counted, timed = changes(reversed(results), COMMITS)
    assert (counted.commit, counted.previous, counted.kind) == (COMMITS[12], COMMITS[11], "counted")
    assert (counted.backend, counted.before, counted.after) == ("lmdb", 100, 90)
    assert (timed.commit, timed.kind) == (COMMITS[20], "timed")
    assert timed.factor == pytest.approx(1.3, rel=0.02)
    assert changes(results, COMMITS[21:]) == []


def test_a_machine_that_changed_is_named() -> None:
    """The calibration has a part in times alone; a library may have one in all."""
    results = history(
        [1.0, 1.01] * 10 + [1.3, 1.31] * 5,
        [100.0] * 20 + [90.0] * 10,
        cpu=lambda number: "1.0" if number < 20 else "1.3",
        kernel=lambda number: "6.1" if number < 20 else "6.2",
    )
    timed, counted = changes(results, COMMITS)
    assert timed.elsewhere == ("kernel 6.1 to 6.2", "calibration of the CPU x 1.30")
    assert counted.elsewhere == ("kernel 6.1 to 6.2",)
    lines = list(text([timed, counted], {COMMITS[20]: "Read by batches"}))
    assert lines[0] == f"{COMMITS[20][:8]} Read by batches (desk)"
    assert lines[1].startswith("  The machine changed, too, and may be the cause: calibration of")
    assert lines[3] == f"  {WORK}(lmdb, open) x 0.900 (100 to 90 instructions)"
    assert list(text([], {})) == ["No commit of this history changed a figure."]
