"""What the fault tests count, and the table of it at the end of a run.

`STORAGE_IMPL_FAULTS=full` chooses the full form; `STORAGE_IMPL_FAULTS_SEED` another seed.
"""

import os
import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from itertools import chain

import pytest

FULL = os.environ.get("STORAGE_IMPL_FAULTS") == "full"
SEED = int(os.environ.get("STORAGE_IMPL_FAULTS_SEED", "1"))
KEY = "faults"


class Tally:
    """One row of the table: what was tried on a backend, and what it did not survive."""

    def __init__(self, row: str, backend: str) -> None:
        self.row = row
        self.backend = backend
        self.tried = 0
        self.failures: list[str] = []

    def add(self, failure: str | None, tried: int = 1) -> None:
        """Count a trial; `failure` tells what went wrong in it, if anything did.

        The test ends at the twentieth.
        """
        self.tried += tried
        if failure is not None:
            self.failures.append(failure)
            if len(self.failures) == 20:
                self.check()

    def check(self, at_least: int = 1) -> None:
        """Fail the test if a trial failed, or if there were too few."""
        shown = "\n\n".join(self.failures[:5])
        assert not self.failures, f"{len(self.failures)} of {self.tried} failed:\n{shown}"
        assert self.tried >= at_least, f"only {self.tried} trials"

    def report(self, item: pytest.Item) -> None:
        """Send the row along with the report of a test, which may be of another process."""
        item.user_properties.append((KEY, (self.row, self.backend, self.tried, len(self.failures))))


def write_table(terminal: pytest.TerminalReporter) -> None:
    """Print what all tests of a run have counted, if any of them did."""
    tried: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    for report in chain(*terminal.stats.values()):
        # The fixture sends its row when it ends.
        if isinstance(report, pytest.TestReport) and report.when == "teardown":
            for key, kept in report.user_properties:
                if key == KEY:
                    row, backend, trials, failures = kept
                    tried[row, backend] += trials
                    failed[row, backend] += failures
    if not tried:
        return
    terminal.section("faults: survived / tried")
    names = list(dict.fromkeys(backend for _, backend in tried))
    terminal.write_line(f"{'':14}" + "".join(f"{name:>24}" for name in names))
    for row in dict.fromkeys(row for row, _ in tried):
        cells = [f"{tried[row, n] - failed[row, n]:,} / {tried[row, n]:,}" for n in names]
        terminal.write_line(f"{row:14}" + "".join(f"{cell:>24}" for cell in cells))
    found = [f"Python {platform.python_version()}"]
    for library in ("numpy", "Pillow", "lmdb", "h5py", "xxhash"):
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            continue
    form = "full" if FULL else "short"
    terminal.write_line(f"{form} form, seed {SEED}; {', '.join(found)}")
