"""What several test modules share."""

import signal
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.faults import tally
from tests.processes import OtherProcess

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


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no coverage in the Pythons that a test starts, which takes each 0.1 s and more.

    For tests of what is not the package.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the fault tests, which may have run in other processes."""
    tally.write_table(terminalreporter)
