"""How far apart are the figures of the same code? What is slower by less is not known to be.

python -m report.noise FILE OF RESULTS ...

The files are of several runs of the same code, in one environment on one machine. Printed are
the entries of `regressions_thresholds` for asv.conf.json: what `asv publish` takes for a
regression of a benchmark whose figures vary by more than asv's own threshold.
"""

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from asv.results import Results

THRESHOLD = 0.05  # of asv publish, where no entry gives another
STEP = 0.05  # to which thresholds are rounded up
FIRST = re.compile(r"""[\w.]+(?:\((?:'[^']*'|"[^"]*"|[^,)]*))?""")


def medians(path: str) -> dict[str, float]:
    """Return what was measured, by what asv calls the benchmark with its parameters."""
    results = Results.load(path)
    found = {}
    for name in results.get_all_result_keys():
        parameters = results.get_result_params(name)
        values = results.get_result_value(name, parameters)
        for key, value in zip(product(*parameters), values, strict=True):
            if value:  # None failed
                found[f"{name}({', '.join(key)})" if key else name] = value
    return {name: value for name, value in found.items() if not math.isnan(value)}  # not run


def spreads(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return by how much the largest figure exceeds the smallest, as a fraction of it."""
    found = {}
    for name in sorted(set().union(*runs)):
        values = [run[name] for run in runs if name in run]
        if len(values) > 1:
            found[name] = max(values) / min(values) - 1
    return found


def thresholds(spreads: Mapping[str, float]) -> dict[str, float]:
    """Return a threshold for each benchmark that asv's own is too small for, by a pattern for asv.

    What a benchmark measured with the same first parameter, mostly the backend, has one threshold,
    of the widest spread: there would be hundreds. asv puts "@" and the branch behind the name.
    """
    widest: dict[str, float] = {}
    for name, spread in spreads.items():
        found = FIRST.match(name)
        first = found[0] if found else name
        pattern = re.escape(first).replace("\\ ", " ") + ("[,)]" if "(" in first else "(@|$)")
        widest[pattern] = max(spread, widest.get(pattern, 0.0))
    return {
        pattern: round(math.ceil(spread / STEP - 1e-9) * STEP, 2)
        for pattern, spread in widest.items()
        if spread > THRESHOLD
    }


def entries(spreads: Mapping[str, float]) -> str:
    """Return the thresholds as asv.conf.json has them."""
    return f'"regressions_thresholds": {json.dumps(thresholds(spreads), indent=4)}'


def main(paths: Iterable[str]) -> None:
    """Print the spread of each benchmark, the widest first, and the entries."""
    found = spreads([medians(path) for path in paths])
    for name in sorted(found, key=lambda name: -found[name]):
        print(f"{found[name]:7.1%}  {name}")
    print(f"\n{entries(found)}")


if __name__ == "__main__":
    main(sys.argv[1:])
