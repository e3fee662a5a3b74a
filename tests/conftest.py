"""What several test modules share."""

from collections.abc import Iterator

import pytest

from tests.processes import OtherProcess

pytest.register_assert_rewrite("tests.contract")


@pytest.fixture(scope="session")
def other_process() -> Iterator[OtherProcess]:
    """A process that was started afresh, for what another process does to a store."""
    with OtherProcess() as process:
        yield process
