"""A browser, and sites of made-up results to open in it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from report import obstacles
from report.page import offline
from tests import stored_results
from tests.browser.visit import MissingError, Visits, chromium
from tests.stored_results import Stored

AXE = offline.Package(
    "axe-core@4.14.1",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """A browser for all tests here; it ends before the tests that fork begin."""
    try:
        with chromium() as started:
            yield started
    except MissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def visits(browser: Any) -> Iterator[Visits]:
    """The pages of a test, in which nothing may go wrong."""
    pages = Visits(browser)
    yield pages
    pages.close()
    assert pages.problems == []


@pytest.fixture(scope="package")
def archives() -> dict[offline.Package, bytes]:
    """Return what the npm registry has for the site and for the tests."""
    packages = {AXE, *(script.package for script in offline.SCRIPTS)}
    try:
        return offline.fetch(packages, stored_results.ROOT / ".asv" / "npm")
    except obstacles.ObstacleError as obstacle:
        pytest.skip(f"needs the npm registry: {' '.join(str(obstacle).split())}")


@pytest.fixture(scope="package")
def axe(archives: dict[offline.Package, bytes]) -> str:
    """Return the script of axe-core."""
    return offline.content(archives[AXE], "axe.min.js").decode()


@pytest.fixture(scope="package")
def publish(
    tmp_path_factory: pytest.TempPathFactory, archives: dict[offline.Package, bytes]
) -> Callable[..., Stored]:
    """Make up results as `stored_results.store` does, and the site of them, off the network."""

    def make(**what: Any) -> Stored:
        stored = stored_results.store(tmp_path_factory.mktemp("site") / "stored", **what)
        stored.publish()
        offline.localise(stored.html, archives)
        return stored

    return make


@pytest.fixture(scope="package")
def stored(publish: Callable[..., Stored]) -> Stored:
    """A history with several commits, library versions and machines, one with a hostile name."""
    return publish(
        commits=8,
        environments=stored_results.ENVIRONMENTS[:4],
        machines=("desk", stored_results.HOSTILE),
        datasets=("photos", "synthetic"),
    )
