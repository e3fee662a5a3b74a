"""A process that times benchmarks on request: `report.pairs` alternates between two of them.

The arguments are the directory of the package to measure and the directory of the benchmarks. Each
request is a line of JSON on stdin, and each answer a line of JSON on stdout. The benchmarks are
those that asv runs: `setup_cache`, `setup` and `teardown` mean what they mean to asv.
"""

import importlib
import json
import sys
import time
from typing import Any


def suite_of(name: str) -> Any:
    """Return the suite of a benchmark."""
    module, kind, _ = name.split(".")
    return getattr(importlib.import_module(f"benchmarks.{module}"), kind)()


def make_caches(names: list[str]) -> None:
    """Run each `setup_cache` of these benchmarks once, in the current directory."""
    made = set()
    for name in names:
        suite = suite_of(name)
        if suite.setup_cache.__qualname__ not in made:
            suite.setup_cache()
            made.add(suite.setup_cache.__qualname__)


class Timer:
    """One benchmark with its parameters."""

    def __init__(self, name: str, parameters: list[Any]) -> None:
        self._suite = suite_of(name)
        self._parameters = parameters
        self._method = getattr(self._suite, name.rpartition(".")[2])
        self.sample()  # the first call only warms up

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
    """Answer requests until the input ends.

    A request asks for the caches of some benchmarks, or for a benchmark to be prepared. The request
    null asks to time the prepared benchmark once.
    """
    sys.path.insert(0, packages)
    sys.path.append(benchmarks)
    answers, sys.stdout = sys.stdout, sys.stderr
    timer = None
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if asked is None:
                assert timer is not None
                answer = {"seconds": timer.sample()}
            elif "caches" in asked:
                make_caches(asked["caches"])
            else:
                timer = Timer(asked["name"], asked["parameters"])
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
