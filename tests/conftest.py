"""What several test modules share."""

import gc
import os
import signal
from collections.abc import Generator, Iterator
from importlib.util import find_spec

import pytest

from tests.faults import tally
from tests.processes import OtherProcess

try:
    import coverage
except ImportError:  # as with the oldest libraries
    coverage = None

pytest.register_assert_rewrite("tests.contract", "tests.faults_contract")

# A shell starts a job in the background with SIGINT ignored, and so would be what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Of large libraries, which have an environment of their own: `tox run -e loaders`.
_NEEDED = {
    "test_dask.py": "distributed",
    "test_loader_benchmarks.py": "torch",
    "test_recipes.py": "tensorflow",
    "test_torch.py": "torch",
}
collect_ignore = [name for name, library in _NEEDED.items() if not find_spec(library)]


@pytest.fixture(scope="session")
def other_process() -> Iterator[OtherProcess]:
    """A process that was started afresh, for what another process does to a store."""
    with OtherProcess() as process:
        yield process


def pytest_collection_finish() -> None:
    """Take the modules and the tests out of what is searched for garbage: they stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no coverage in a test marked so, with its fixtures and the Pythons that it starts.

    For tests of what is not the package, which take twice as long with it.
    """
    if not item.get_closest_marker("unmeasured"):
        return (yield)
    inherited = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    measuring = coverage.Coverage.current() if coverage else None
    if measuring:
        measuring.stop()
    try:
        return (yield)
    finally:
        if measuring:
            measuring.start()
        if inherited is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = inherited


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the fault tests, which may have run in other processes."""
    tally.write_table(terminalreporter)
