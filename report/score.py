"""How many changes in noisy histories are found, and how many are false alarms?

`python -m report.score` prints both. The noise is 5%, and changes of at least 5% are reported. A
history with a step has 40 commits before it. The step is found if a change in its direction is
reported within two commits of it. A history without a step has 60 commits, and any change that is
reported in it is a false alarm.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from report.segments import shifts

NOISE = 0.05
NEAR = 2
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]

# The standard deviation is 1, except that of the last, which is infinite.
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
    """Return the part of the histories in which a step is found, `after` commits later."""
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
    """Return the part of the histories without a step in which a change is found."""
    random = np.random.default_rng(1)
    return sum(bool(shifts(list(series(random, 60, NOISE, draw)))) for _ in range(runs)) / runs


def main(runs: int = 1000) -> None:
    """Print both tables."""
    print(f"{runs} histories each. Found after 3, 5, 10 and 20 more commits:")
    for factor in (1.1, 1.2, 1.3):
        parts = [f"{found(factor, after, runs):6.1%}" for after in (3, 5, 10, 20)]
        print(f"  {factor - 1:+.0%}  {'  '.join(parts)}", flush=True)
    print("Without a step, false alarms:")
    for name, draw in HEAVY.items():
        print(f"  {alarms(draw, runs):6.1%}  {name}", flush=True)


if __name__ == "__main__":
    main()
