"""A browser, and sites of made-up results to open in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from report import obstacles
from report.page import offline
from tests import stored_results
from tests.browser.visit import MissingError, Visits, chromium
from tests.stored_results import Stored

CACHE = stored_results.ROOT / ".asv" / "npm"


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """A browser for all tests here; it ends before the tests that fork begin."""
    try:
        with chromium() as started:
            yield started
    except MissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="package")
def tabs(browser: Any) -> Visits:
    """The tabs of the browser, for one test after the other."""
    return Visits(browser)


@pytest.fixture
def visits(tabs: Visits) -> Iterator[Visits]:
    """The pages of a test, in which nothing may go wrong."""
    tabs.problems.clear()
    yield tabs
    tabs.close()
    assert tabs.problems == []


def installed(pins: Path) -> Path:
    """Return where npm has installed what is pinned in a directory."""
    try:
        return offline.install(CACHE, pins)
    except obstacles.ObstacleError as obstacle:
        pytest.skip(f"needs the npm registry: {' '.join(str(obstacle).split())}")


@pytest.fixture(scope="package")
def scripts() -> Path:
    """Return where the scripts of asv's pages are."""
    return installed(Path(offline.__file__).parent)


@pytest.fixture(scope="package")
def axe() -> str:
    """Return the script of axe-core."""
    modules = installed(Path(__file__).parent)
    return (modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="package")
def publish(tmp_path_factory: pytest.TempPathFactory, scripts: Path) -> Callable[..., Stored]:
    """Make up results as `stored_results.store` does, and the site of them, off the network."""

    def make(**what: Any) -> Stored:
        stored = stored_results.store(tmp_path_factory.mktemp("site") / "stored", **what)
        stored.publish()
        offline.localise(stored.html, scripts)
        return stored

    return make


@pytest.fixture(scope="package")
def stored(publish: Callable[..., Stored]) -> Stored:
    """A history with several commits, library versions and machines, one with a hostile name."""
    return publish(
        commits=6,
        environments=stored_results.ENVIRONMENTS[:4],
        machines=(stored_results.HOSTILE, "desk"),
        datasets=("photos", "synthetic"),
        without=stored_results.NOT_COMPARED,
    )
