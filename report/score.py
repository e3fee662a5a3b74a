"""How many changes in noisy histories are found, and how many are false: `python -m report.score`.

There are 40 commits before a step, noise of 5%, the least change that is
named 5%. A step is found where one in its direction is named within two commits of it. Without a
step a history has 60 commits, and any change is a false alarm.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from report.segments import shifts

NOISE = 0.05
NEAR = 2
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]

# All have a standard deviation of 1, but for the last, of which it is infinite.
HEAVY: dict[str, Draw] = {
    "Gaussian": lambda random, count: random.standard_normal(count),
    "Student's t, 3 degrees of freedom": lambda r, count: r.standard_t(3, count) / 3**0.5,
    "one of ten with 5 times the noise": lambda random, count: (
        random.standard_normal(count) * np.where(random.random(count) < 0.1, 5, 1) / 3.4**0.5
    ),
    "Student's t, 2 degrees of freedom": lambda random, count: random.standard_t(2, count),
}


def series(
    random: np.random.Generator, count: int, noise: float, draw: Draw = HEAVY["Gaussian"]
) -> NDArray[np.float64]:
    """Return a history without a step, around 1."""
    return np.exp(noise * draw(random, count))


def found(factor: float, after: int, runs: int) -> float:
    """Return in which part of the histories a step is found after some commits."""
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(runs):
        figures = series(random, 40 + after, NOISE)
        figures[40:] *= factor
        hits += any(
            abs(change.place - 40) <= NEAR and change.factor > 1 for change in shifts(list(figures))
        )
    return hits / runs


def alarms(draw: Draw, runs: int) -> float:
    """Return which part of the histories without a step has one."""
    random = np.random.default_rng(1)
    return sum(bool(shifts(list(series(random, 60, NOISE, draw)))) for _ in range(runs)) / runs


def main(runs: int = 1000) -> None:
    """Print both tables."""
    print(f"{runs} histories each. Found after 3, 5, 10 and 20 more commits:")
    for factor in (1.1, 1.2, 1.3):
        parts = [f"{found(factor, after, runs):6.1%}" for after in (3, 5, 10, 20)]
        print(f"  {factor - 1:+.0%}  {'  '.join(parts)}", flush=True)
    print("Without a step, with an alarm:")
    for name, draw in HEAVY.items():
        print(f"  {alarms(draw, runs):6.1%}  {name}", flush=True)


if __name__ == "__main__":
    main()
