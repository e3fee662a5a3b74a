"""The page that compares backends: its figures, its choices, its charts and their tables."""

import csv
import io
import json
import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.visit import Visits
from tests.stored_results import HOSTILE, Stored

if TYPE_CHECKING:
    from playwright.sync_api import Download, Page

BACKENDS = ("png", "lmdb", "hdf5")
READY = "html[data-state=ready]"
VERSIONS_READY = "#versions[data-state=ready]"

# By row of the verdict: the benchmark, its parameters but for the backend, and what the floor of
# an image is taken from.
WRITE, READ = "many_images.WriteMany.time_write", "many_images.ReadMany.time_read"
MANY = {"count": "10000"}
ROWS: dict[str, tuple[str, dict[str, str], tuple[str, dict[str, str]] | None]] = {
    "write": (WRITE, MANY, (WRITE, MANY)),
    "read": (READ, MANY, (READ, MANY)),
    "shuffled": (
        "access_patterns.ReadBatches.time_read",
        {"order": "'shuffled'", "batch": "256"},
        (READ, MANY),
    ),
    "random": ("single_image.ReadOne.time_read", {}, ("single_image.ReadOne.time_read", {})),
    "labels": ("access_patterns.ReadLabels.time_read", MANY, None),
    "append": ("growth.Append.time_append", {"held": "10000"}, (WRITE, {"count": "1000"})),
    "processes": (
        "concurrency.ReadProcesses.time_read",
        {"start": "'spawn'", "processes": "2"},
        (READ, MANY),
    ),
    "disk": ("disk_usage.DiskUsage.track_allocated", MANY, None),
}


class File:
    """A file of results, read as JSON."""

    def __init__(self, stored: Stored, machine: str, environment: str, commit: str) -> None:
        self.known = json.loads((stored.results / "benchmarks.json").read_text())
        for path in stored.results.glob(f"*/{commit[:8]}-*.json"):
            content = json.loads(path.read_text())
            if (content["params"]["machine"], content["env_name"]) == (machine, environment):
                self.columns = content["result_columns"]
                self.rows = content["results"]

    def value(self, name: str, parameters: dict[str, str]) -> float | None:
        """Return a figure; None if there is none."""
        row = dict(zip(self.columns, self.rows.get(name, ()), strict=False))
        if not row or row["result"] is None:
            return None
        place = list(product(*row["params"])).index(
            tuple(parameters[parameter] for parameter in self.known[name]["param_names"])
        )
        value: float | None = row["result"][place]
        return None if value is None or math.isnan(value) else value

    def cost(self, row: str, backend: str) -> float | None:
        """Return the cost of an image in a row of the verdict."""
        name, parameters, _ = ROWS[row]
        if name not in self.known:
            return None
        value = self.value(name, {"backend": f"'{backend}'", **parameters})
        images = parameters.get("count") or self.known[name].get("images", 1)
        return None if value is None else value / int(images)

    def floor(self, row: str, backend: str) -> float | None:
        """Return the least that an image could cost."""
        source = ROWS[row][2]
        if source is None:
            return None
        name, parameters = source
        floor = self.known[name]["floors"][backend]
        value = self.value(floor, parameters)
        images = parameters.get("count") or self.known[floor].get("images", 1)
        return None if value is None else value / int(images)


def open_page(visits: Visits, stored: Stored, choices: str = "", **options: Any) -> "Page":
    """Open the page as a file, and wait until it is drawn."""
    page = visits.open(stored.html, f"compare.html#{choices}", **options)
    page.wait_for_selector(READY)
    return page


def chosen(page: "Page") -> dict[str, str]:
    """Return the choices in the page's address."""
    found = parse_qs(urlsplit(page.url).fragment, strict_parsing=True)
    return {name: value for name, (value,) in found.items()}


def options(page: "Page", control: str) -> list[str]:
    """Return what a control offers."""
    values: list[str] = page.eval_on_selector_all(
        f"#{control} option", "options => options.map(option => option.value)"
    )
    return values


def verdict(page: "Page") -> dict[tuple[str, str], dict[str, str]]:
    """Return what the cells of the verdict say, by row and backend."""
    cells: list[dict[str, str]] = page.eval_on_selector_all(
        "#verdict-table td[data-backend]",
        "cells => cells.map(cell => ({...cell.dataset, ...cell.closest('tr').dataset}))",
    )
    return {(cell["workload"], cell["backend"]): cell for cell in cells}


def picture(page: "Page", chart: str = "store") -> bytes:
    """Return what a chart looks like."""
    return page.locator(f"#chart-{chart} .plot").screenshot()


def downloaded(download: "Download") -> str:
    """Return the text of a download."""
    return Path(download.path()).read_text(encoding="utf-8")


def fetch(page: "Page", within: str, kind: str) -> str:
    """Click on a link to download, and return the text that comes."""
    with page.expect_download() as download:
        page.locator(f"{within} a.download[data-format={kind}]").click()
    return downloaded(download.value)


# -- the verdict -------------------------------------------------------------------------------


def test_verdict(visits: Visits, stored: Stored) -> None:
    """The figures are those of the chosen file of results, and the multiples of its floors."""
    page = open_page(visits, stored)
    choice = {name: page.input_value(f"#{name}") for name in ("machine", "environment", "commit")}
    assert choice["commit"] == stored.commits[-1]
    file = File(stored, **choice)
    cells = verdict(page)
    assert set(cells) == set(product(ROWS, BACKENDS))
    for (row, backend), cell in cells.items():
        cost, floor = file.cost(row, backend), file.floor(row, backend)
        if cost is None:
            assert "value" not in cell
            continue
        assert cell["state"] == "measured"
        assert float(cell["value"]) == pytest.approx(cost, rel=1e-4)
        if floor is not None:
            assert float(cell["floor"]) == pytest.approx(cost / floor, rel=1e-4)


def test_best(visits: Visits, stored: Stored) -> None:
    """In each row the smallest figure is the best."""
    cells = verdict(open_page(visits, stored))
    for row in ROWS:
        costs = {b: float(cells[row, b]["value"]) for b in BACKENDS if "value" in cells[row, b]}
        best = [b for b in BACKENDS if cells[row, b]["verdict"] == "best"]
        assert best == ([min(costs, key=lambda b: costs[b])] if costs else [])
    assert cells["read", "hdf5"]["verdict"] == "best"
    assert cells["read", "png"]["verdict"] == "worse"


# -- choices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["machine", "environment", "commit", "dataset"])
def test_choice(visits: Visits, stored: Stored, control: str) -> None:
    """A choice changes figures, picture and address, and the address restores the choice."""
    page = open_page(visits, stored)
    before, drawn = verdict(page), picture(page)
    current = page.input_value(f"#{control}")
    other = next(value for value in options(page, control) if value != current)
    page.select_option(f"#{control}", other)
    page.wait_for_function(f"location.hash.includes('{control}=')")
    page.wait_for_selector(READY)
    assert chosen(page)[control] == other
    assert verdict(page) != before
    assert picture(page) != drawn
    again = visits.open(stored.html, f"compare.html#{urlsplit(page.url).fragment}")
    again.wait_for_selector(READY)
    assert again.input_value(f"#{control}") == other
    assert verdict(again) == verdict(page)
    assert picture(again) == picture(page)


def test_scale(visits: Visits, stored: Stored) -> None:
    """Linear or logarithmic is a choice as the others are, for all charts at once."""
    page = open_page(visits, stored)
    drawn = picture(page)
    pressed = page.locator("#chart-store [data-scale][aria-pressed=true]")
    other = {"log": "linear", "linear": "log"}[str(pressed.get_attribute("data-scale"))]
    page.click(f"#chart-store [data-scale={other}]")
    page.wait_for_selector(READY)
    assert chosen(page)["scale"] == other
    assert pressed.get_attribute("data-scale") == other
    assert page.locator(f"[data-scale={other}][aria-pressed=false]").count() == 0
    assert picture(page) != drawn
    again = open_page(visits, stored, urlsplit(page.url).fragment)
    assert picture(again) == picture(page)


@pytest.mark.parametrize("control", ["library", "workload"])
def test_versions(visits: Visits, stored: Stored, control: str) -> None:
    """Versions of a library are compared: which, and at what, are choices, too."""
    page = open_page(visits, stored, "library=lmdb&workload=read")
    page.wait_for_selector(VERSIONS_READY)
    drawn = page.locator("#versions .plot").first.screenshot()
    other = next(v for v in options(page, control) if v not in ("lmdb", "read"))
    page.select_option(f"#{control}", other)
    page.wait_for_selector(VERSIONS_READY)
    assert chosen(page)[control] == other
    assert page.locator("#versions .plot").first.screenshot() != drawn
    again = open_page(visits, stored, urlsplit(page.url).fragment)
    again.wait_for_selector(VERSIONS_READY)
    assert again.input_value(f"#{control}") == other


def test_changed_version(visits: Visits, stored: Stored) -> None:
    """Where a version made a difference, the factor and both versions are said."""
    page = open_page(visits, stored, "library=lmdb&workload=read")
    page.wait_for_selector(VERSIONS_READY)
    text = page.inner_text("#versions")
    assert "1.4.1" in text
    assert "2.1.1" in text
    page.select_option("#library", "Pillow")
    page.wait_for_selector(VERSIONS_READY)
    assert "11.3.0" in page.inner_text("#versions")
    assert page.inner_text("#versions") != text


def test_unknown_choices(visits: Visits, stored: Stored) -> None:
    """An address that names what is not there opens the page on what is."""
    page = open_page(visits, stored, "machine=%3Cb%3E&environment=&commit=0&dataset=x&scale=x&y")
    assert page.input_value("#machine") in {"desk", HOSTILE}
    assert verdict(page)


# -- charts ------------------------------------------------------------------------------------


def test_every_chart_has_its_table_and_downloads(visits: Visits, stored: Stored) -> None:
    """The table has the points, and what is downloaded parses and says what the table says."""
    page = open_page(visits, stored)
    page.wait_for_selector(VERSIONS_READY)
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    charts = page.eval_on_selector_all("figure.chart", "all => all.map(one => one.id)")
    assert {"chart-store", "chart-read", "chart-store-and-read", "chart-disk"} <= set(charts)
    for chart in charts:
        within = f"#{chart}"
        assert page.locator(f"{within} .plot .main-svg").count() > 0, chart
        table: list[list[str]] = page.eval_on_selector_all(
            f"{within} table tr",
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))",
        )
        heading, *rows = table
        assert rows, chart
        names, *lines = csv.reader(io.StringIO(fetch(page, within, "csv")))
        assert len(names) == len(heading)
        assert len(lines) == len(rows)
        records = json.loads(fetch(page, within, "json"))
        points = records if isinstance(records, list) else records["points"]
        assert [[said(point[name]) for name in names] for point in points] == lines
        backends = [name.lower() for name in heading].index("backend")
        assert [row[backends] for row in rows] == [line[backends] for line in lines]


def said(value: object) -> str:
    """Return a value of JSON as CSV has it."""
    return "" if value is None else str(value)


def test_verdict_downloads(visits: Visits, stored: Stored) -> None:
    """The verdict can be downloaded, with the figures of its table."""
    page = open_page(visits, stored)
    shown = [float(c["value"]) for c in verdict(page).values() if "value" in c]
    lines = list(csv.DictReader(io.StringIO(fetch(page, "#verdict", "csv"))))
    assert [float(line["value"]) for line in lines if line["value"]] == shown
    records = json.loads(fetch(page, "#verdict", "json"))
    points = records if isinstance(records, list) else records["points"]
    assert [point["value"] for point in points if point["value"] is not None] == shown


def test_hover(visits: Visits, stored: Stored) -> None:
    """A point that the mouse is over says its exact figure."""
    page = open_page(visits, stored)
    plot = page.locator("#chart-store .plot")
    plot.scroll_into_view_if_needed()
    point = plot.locator("path.point").first
    point.hover(force=True)
    page.wait_for_selector("#chart-store .hoverlayer .hovertext")


def test_keyboard(visits: Visits, stored: Stored) -> None:
    """All there is to choose or open is reached by the tabulator, and works from the keyboard."""
    page = open_page(visits, stored)
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.tagName")
        if name == "BODY":
            break
        reached.add(name)
    controls = {"machine", "environment", "commit", "dataset", "library", "workload"}
    assert controls | {"SUMMARY", "A", "BUTTON"} <= reached
    page.focus("#chart-store summary")
    page.keyboard.press("Enter")
    assert page.locator("#chart-store details").get_attribute("open") is not None


# -- readers -----------------------------------------------------------------------------------

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_accessible(
    visits: Visits, stored: Stored, axe: str, scheme: str, size: dict[str, int]
) -> None:
    """axe-core finds nothing serious, with the tables open, and nothing sticks out sideways."""
    page = open_page(visits, stored, color_scheme=scheme, viewport=size, reduced_motion="reduce")
    page.wait_for_selector(VERSIONS_READY)
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= size["width"]
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    serious = [
        (violation["id"], violation["help"], [node["html"] for node in violation["nodes"]][:3])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_dark(visits: Visits, stored: Stored) -> None:
    """Where the reader's system is dark, page and charts are."""
    page = open_page(visits, stored, color_scheme="dark")
    light = open_page(visits, stored, color_scheme="light")
    assert picture(page) != picture(light)
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) != light.evaluate(colour)


def test_print(visits: Visits, stored: Stored) -> None:
    """The page can be printed."""
    page = open_page(visits, stored)
    assert page.pdf(format="A4").startswith(b"%PDF")


# -- what is missing ---------------------------------------------------------------------------


def test_hostile_names(visits: Visits, stored: Stored) -> None:
    """A machine with the name of a script is shown by its name, and runs nothing."""
    page = open_page(visits, stored)
    page.select_option("#machine", HOSTILE)
    page.wait_for_selector(READY)
    assert chosen(page)["machine"] == HOSTILE
    assert HOSTILE in page.inner_text("body")


def test_partial(visits: Visits, publish: Callable[..., Stored]) -> None:
    """What failed, was not run, or is not there is shown as such, and all else as ever."""

    def change(name: str, parameters: dict[str, str], value: float) -> float | None:
        backend = parameters.get("backend")
        if name == WRITE and backend == "'lmdb'":
            return None
        if name == READ and backend == "'hdf5'":
            return math.nan
        if name == "access_patterns.ReadLabels.time_read":
            return None
        if name.startswith("floor."):
            return math.nan
        return value

    stored = publish(change=change, without=("disk_usage.",))
    page = open_page(visits, stored)
    cells = verdict(page)
    assert cells["write", "lmdb"]["state"] == "failed"
    assert cells["write", "hdf5"]["state"] == "measured"
    assert "floor" not in cells["write", "hdf5"]
    assert cells["read", "hdf5"]["state"] == "skipped"
    assert cells["labels", "png"]["state"] == "failed"
    assert cells["disk", "png"]["state"] == "missing"
    assert page.locator("#chart-disk .plot .main-svg").count() == 0
    assert page.locator("p.notice").count() > 0


def test_noise(visits: Visits, publish: Callable[..., Stored]) -> None:
    """A difference within noise is called that, and one beyond is not."""

    def change(name: str, parameters: dict[str, str], value: float) -> float | None:
        if name != READ:
            return value
        return {"'png'": 1.0, "'lmdb'": 0.101, "'hdf5'": 0.1}[parameters["backend"]]

    cells = verdict(open_page(visits, publish(change=change)))
    assert {b: cells["read", b]["verdict"] for b in BACKENDS} == {
        "png": "worse",
        "lmdb": "noise",
        "hdf5": "best",
    }


def test_one_backend(visits: Visits, publish: Callable[..., Stored]) -> None:
    """Results of one backend are shown, and nothing is said to be the best of one."""

    def change(name: str, parameters: dict[str, str], value: float) -> float | None:
        return value if parameters.get("backend") in (None, "'png'") else math.nan

    page = open_page(visits, publish(change=change))
    cells = verdict(page)
    assert cells["read", "png"]["verdict"] == "only"
    assert "value" not in cells["read", "hdf5"]


def test_one_commit_of_one_environment(visits: Visits, publish: Callable[..., Stored]) -> None:
    """The results of a first run are a page."""
    page = open_page(visits, publish())
    assert options(page, "commit") == [page.input_value("#commit")]
    assert {cell["state"] for cell in verdict(page).values()} == {"measured"}


def test_no_results(visits: Visits, publish: Callable[..., Stored]) -> None:
    """Before the first run the page says so, and what to do."""
    page = visits.open(publish(commits=0).html, "compare.html")
    page.wait_for_selector("html[data-state=empty]")
    assert "tox run -e bench" in page.inner_text("main")


def test_link(visits: Visits, stored: Stored) -> None:
    """The pages of asv lead to the page, and it leads back."""
    page = visits.open(stored.html, "index.html", served=True)
    page.click("#nav-li-compare a")
    page.wait_for_selector(READY)
    page.locator("a[href^='index.html']").first.click()
    page.wait_for_selector("#summarygrid-display .benchmark-container")
