"""asv's own pages, in the site that needs no network."""

import json

import pytest

from tests.browser.visit import Visits
from tests.stored_results import HOSTILE, NOT_COMPARED, Stored

pytestmark = pytest.mark.unmeasured


def test_grid(visits: Visits, stored: Stored) -> None:
    """The first page shows every benchmark."""
    page = visits.open(stored.html, "index.html", served=True)
    page.wait_for_selector("#summarygrid-display .benchmark-container canvas.flot-base")
    known = json.loads((stored.html / "index.json").read_text())["benchmarks"]
    assert page.locator("#summarygrid-display .benchmark-container").count() == len(known)


def test_list(visits: Visits, stored: Stored) -> None:
    """The list has rows of each benchmark that has results, and of no other."""
    page = visits.open(stored.html, "index.html#/summarylist", served=True)
    page.wait_for_selector("#summarylist-body tbody tr")
    text = page.inner_text("#summarylist-body")
    for name in json.loads((stored.html / "index.json").read_text())["benchmarks"]:
        assert (name in text) is not name.startswith(NOT_COMPARED)


def test_graph(visits: Visits, stored: Stored) -> None:
    """A benchmark has its graph, and a machine's name is shown as text."""
    address = "index.html#many_images.ReadMany.time_read"
    page = visits.open(stored.html, address, served=True)
    page.wait_for_selector("#main-graph canvas.flot-base")
    assert page.inner_text("#title").startswith("many_images.ReadMany.time_read")
    assert HOSTILE in page.inner_text("#graphdisplay-navigation")


def test_regressions(visits: Visits, stored: Stored) -> None:
    """What became slower is listed."""
    page = visits.open(stored.html, "index.html#/regressions", served=True)
    page.wait_for_selector("#regressions-body tbody tr")
    assert "many_images.WriteMany.time_write" in page.inner_text("#regressions-body")


def test_error(visits: Visits, stored: Stored) -> None:
    """The page that says that asv's could not load opens, too."""
    visits.open(stored.html, "error.html", served=True)
