"""A process that times benchmarks on request: `report.pairs` alternates between two of them.

The arguments are the directory of the package to measure, and that of the benchmarks; what is
asked is a line of JSON, and so is the answer. The benchmarks are those of asv, with its meaning of
`setup_cache`, `setup` and `teardown`.
"""

import importlib
import json
import sys
import time
from typing import Any


class Timer:
    """One benchmark with its parameters."""

    def __init__(self, name: str, parameters: list[Any], cached: set[str]) -> None:
        module, kind, method = name.split(".")
        self._suite: Any = getattr(importlib.import_module(f"benchmarks.{module}"), kind)()
        self._parameters = parameters
        made = self._suite.setup_cache.__qualname__
        if made not in cached:
            self._suite.setup_cache()
            cached.add(made)
        self._method = getattr(self._suite, method)
        self.sample()  # nothing is warm before

    def sample(self) -> float:
        """Return how many seconds one call takes."""
        self._suite.setup(*self._parameters)
        try:
            start = time.perf_counter()
            self._method(*self._parameters)
            return time.perf_counter() - start
        finally:
            self._suite.teardown(*self._parameters)


def main(packages: str, benchmarks: str) -> None:
    """Answer until there is nothing more to answer."""
    sys.path.insert(0, packages)
    sys.path.append(benchmarks)
    answers, sys.stdout = sys.stdout, sys.stderr
    cached: set[str] = set()
    timer = None
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any]
        try:
            if asked:
                name, parameters = asked
                timer = Timer(name, parameters, cached)
                answer = {}
            else:
                assert timer is not None
                answer = {"seconds": timer.sample()}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
