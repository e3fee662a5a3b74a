"""The page that compares backends: its figures, its choices, its charts and their tables."""

import csv
import io
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from report.workloads import GROUPS
from tests import stored_results
from tests.browser.visit import Visits
from tests.stored_results import CURRENT, HOSTILE, Stored

pytestmark = pytest.mark.unmeasured

if TYPE_CHECKING:
    from playwright.sync_api import Page

BACKENDS = ("png", "lmdb", "hdf5")

# By row of the verdict: the benchmark, its parameters but for the backend, and what the floor of
# an image is taken from.
WRITE, READ = "many_images.WriteMany.time_write", "many_images.ReadMany.time_read"
MANY = {"count": "10000"}
PLAIN = {"store": "'lmdb'", "count": "10000"}
MEASURED = ("machine", "environment", "commit")
ROWS: dict[str, tuple[str, dict[str, str], tuple[str, dict[str, str]] | None]] = {
    "write": (WRITE, MANY, (WRITE, MANY)),
    "read": (READ, MANY, (READ, MANY)),
    "shuffled": (
        "access_patterns.ReadBatches.time_read_10000",
        {"order": "'shuffled'", "batch": "256"},
        (READ, MANY),
    ),
    "random": (
        "single_image.ReadOne.time_read_100",
        {},
        ("single_image.ReadOne.time_read_100", {}),
    ),
    "labels": ("access_patterns.ReadLabels.time_read", MANY, None),
    "append": ("growth.Append.time_append_1000", {"held": "10000"}, (WRITE, {"count": "1000"})),
    "processes": (
        "concurrency.ReadProcesses.time_read_5000",
        {"start": "'spawn'", "processes": "4"},
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

    def value(self, name: str, parameters: dict[str, str]) -> float:
        """Return a figure."""
        row = dict(zip(self.columns, self.rows[name], strict=False))
        place = list(product(*row["params"])).index(
            tuple(parameters[parameter] for parameter in self.known[name]["param_names"])
        )
        value: float = row["result"][place]
        return value

    def cost(self, row: str, backend: str) -> float:
        """Return the cost of an image in a row of the verdict."""
        name, parameters, _ = ROWS[row]
        value = self.value(name, {"backend": f"'{backend}'", **parameters})
        return value / int(parameters.get("count") or self.known[name].get("images", 1))

    def floor(self, row: str, backend: str) -> float | None:
        """Return the least that an image could cost; None for what has no floor."""
        source = ROWS[row][2]
        if source is None:
            return None
        name, parameters = source
        floor = self.known[name]["floors"][backend]
        images = parameters.get("count") or self.known[floor].get("images", 1)
        return self.value(floor, parameters) / int(images)


def open_page(visits: Visits, stored: Stored, choices: str = "", **options: Any) -> "Page":
    """Open the page as a file, and wait until its tables and first chart are drawn."""
    page = visits.open(stored.html, f"compare.html#{choices}", **options)
    drawn(page, "#chart-store")
    return page


def drawn(page: "Page", charts: str = "figure.chart") -> None:
    """Wait until the tables are drawn, and scroll to charts until these are."""
    page.wait_for_selector("html[data-state=ready]:has(#versions[data-state=ready])")
    page.wait_for_function(
        """charts => {
            const left = document.querySelector(`${charts}:not([data-drawn])`);
            left?.scrollIntoView({ block: "center" });
            return !left;
        }""",
        arg=charts,
    )


def choose(page: "Page", control: str, value: str, charts: str = "figure.chart") -> None:
    """Choose, and wait until the address says so, and tables and charts are drawn."""
    page.select_option(f"#{control}", value)
    page.wait_for_function(
        "choice => new URLSearchParams(location.hash.slice(1)).get(choice[0]) === choice[1]",
        arg=[control, value],
    )
    drawn(page, charts)


@pytest.fixture(scope="module")
def page(browser: Any, stored: Stored) -> Iterator[Any]:
    """The page as it opens, for tests that choose nothing."""
    visits = Visits(browser)
    opened = open_page(visits, stored)
    drawn(opened)
    yield opened
    visits.close()
    assert visits.problems == []


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


def table(page: "Page", within: str) -> list[list[str]]:
    """Return the words of a table, the headings first."""
    rows: list[list[str]] = page.eval_on_selector_all(
        f"{within} table tr",
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))",
    )
    return rows


def picture(page: "Page", chart: str) -> bytes:
    """Return what a chart looks like."""
    return page.locator(f"#chart-{chart} .plot").screenshot()


def download(page: "Page", within: str, kind: str) -> str:
    """Click on a link to download, and return the text that comes."""
    with page.expect_download() as coming:
        page.locator(f"{within} a.download[data-format={kind}]").click()
    return Path(coming.value.path()).read_text(encoding="utf-8")


def linked(page: "Page", within: str, kind: str) -> str:
    """Return the text that would come: browsers ask before they save dozens of files."""
    text: str = page.eval_on_selector(
        f"{within} a.download[data-format={kind}]",
        "async link => (await fetch(link.href)).text()",
    )
    return text


def plain(words: list[str]) -> list[str]:
    """Return words and numbers without the commas that make them readable."""
    return [word.replace(",", "") for word in words]


def amount(shown: str) -> float:
    """Return a figure of a table as a number."""
    found, _, prefix = shown.replace(",", "").partition(" ")
    return float(found) * {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9}.get(
        prefix[:1] if len(prefix) > 1 else "", 1
    )


# -- the verdict -------------------------------------------------------------------------------


def test_verdict(page: "Page", stored: Stored) -> None:
    """The figures are those of the newest file of results, and the multiples of its floors."""
    choice = {name: page.input_value(f"#{name}") for name in ("machine", "environment", "commit")}
    assert choice["commit"] == stored.commits[-1]
    file = File(stored, **choice)
    cells = verdict(page)
    assert set(cells) == set(product(ROWS, BACKENDS))
    for (row, backend), cell in cells.items():
        cost, floor = file.cost(row, backend), file.floor(row, backend)
        assert cell["state"] == "measured"
        assert float(cell["value"]) == pytest.approx(cost, rel=1e-4), (row, backend)
        if floor is not None:
            assert float(cell["floor"]) == pytest.approx(cost / floor, rel=1e-4), (row, backend)


def test_best(page: "Page") -> None:
    """In each row the smallest figure is the best, and no other is."""
    cells = verdict(page)
    for row in ROWS:
        costs = {backend: float(cells[row, backend]["value"]) for backend in BACKENDS}
        best = [backend for backend in BACKENDS if cells[row, backend]["verdict"] == "best"]
        assert best in ([], [min(costs, key=lambda backend: costs[backend])])
    assert cells["read", "hdf5"]["verdict"] == "best"
    assert cells["read", "png"]["verdict"] == "worse"


# -- choices -----------------------------------------------------------------------------------


def test_choices(visits: Visits, stored: Stored) -> None:
    """Each choice changes figures, picture and address, and the address restores all of them."""
    page = open_page(visits, stored)
    figures, shown = verdict(page), picture(page, "store")
    # Photos were measured at the first commit alone: the page finds it when they are chosen.
    for control in ("machine", "environment", "dataset"):
        current = page.input_value(f"#{control}")
        other = next(value for value in options(page, control) if value != current)
        choose(page, control, other, "#chart-store")
        assert verdict(page) != figures, control
        assert picture(page, "store") != shown, control
        figures, shown = verdict(page), picture(page, "store")
    machine, environment = page.input_value("#machine"), page.input_value("#environment")
    assert machine in {"desk", HOSTILE}
    again = open_page(visits, stored, urlsplit(page.url).fragment)
    drawn(again)
    assert chosen(again) == chosen(page)
    assert again.input_value("#machine") == machine
    assert again.input_value("#environment") == environment
    assert verdict(again) == figures
    assert picture(again, "store") == shown


NAMED = ("machine", "dataset", "environment", "commit", "library", "workload")


def selected(page: "Page") -> dict[str, str]:
    """Return what an address names that names all that is shown."""
    return {**{name: page.input_value(f"#{name}") for name in NAMED}, "scale": "log"}


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stored, Stored]:
    """A history, before and after its last commit was measured, in one environment alone."""
    later = stored_results.store(
        tmp_path_factory.mktemp("twice") / "later",
        commits=3,
        environments=[CURRENT, {**CURRENT, "lmdb": "1.4.1"}, {**CURRENT, "h5py": "3.8.0"}],
        without=(*stored_results.NOT_COMPARED, "encoding.", "plain_stores."),
    )
    earlier = Stored(later.directory.with_name("earlier"), later.commits[:-1])
    shutil.copytree(later.directory, earlier.directory)
    settings = earlier.directory / "asv.conf.json"
    moved = settings.read_text().replace(str(later.directory), str(earlier.directory))
    settings.write_text(moved)
    newest = f"*/{later.commits[-1][:8]}-*"
    for path in earlier.results.glob(newest):
        path.unlink()
    for path in later.results.glob(newest):
        if any(f"{library}{version}" not in path.name for library, version in CURRENT.items()):
            path.unlink()
    for made in (earlier, later):
        made.publish()
    return earlier, later


@pytest.mark.parametrize("control", ["commit", "library"])
def test_link_later(visits: Visits, twice: tuple[Stored, Stored], control: str) -> None:
    """One choice makes the address name all; it shows the same when there are newer results."""
    earlier, later = twice
    page = open_page(visits, earlier)
    assert urlsplit(page.url).fragment == ""
    current = page.input_value(f"#{control}")
    other = next(each for each in options(page, control) if each != current)
    choose(page, control, other, "#chart-versions")
    assert chosen(page) == selected(page)
    again = open_page(visits, later, urlsplit(page.url).fragment)
    drawn(again, "#chart-versions")
    assert set(options(again, "commit")) >= set(options(page, "commit"))
    assert chosen(again) == chosen(page)
    assert verdict(again) == verdict(page)
    assert again.inner_text("#versions") == page.inner_text("#versions")


def test_versions_of_an_earlier_commit(visits: Visits, twice: tuple[Stored, Stored]) -> None:
    """Where the chosen commit has one environment, versions are those of the nearest before it."""
    _, later = twice
    page = open_page(visits, later)
    drawn(page, "#chart-versions")
    *_, before, newest = later.commits
    assert page.input_value("#commit") == newest
    assert f"Measured at {before[:8]}" in page.inner_text("#versions")
    downloaded = json.loads(linked(page, "#chart-versions", "json"))
    assert downloaded["commit"] == before
    assert "environment" not in downloaded
    assert downloaded["versions"] == {
        name: version for name, version in {"python": "3.11", **CURRENT}.items() if name != "lmdb"
    }


def test_link_to_a_section(visits: Visits, stored: Stored) -> None:
    """An address that leads to a section names all that is shown, too."""
    page = open_page(visits, stored)
    page.locator("#contents a").last.click()
    page.wait_for_function("location.hash.includes('workload')")
    assert chosen(page) == {**selected(page), "at": "versions"}


def test_commit(visits: Visits, stored: Stored) -> None:
    """An older commit has its own figures, at an address that opens on it."""
    page = open_page(visits, stored, f"machine=desk&commit={stored.commits[2]}")
    assert page.input_value("#commit") == stored.commits[2]
    file = File(stored, "desk", page.input_value("#environment"), stored.commits[2])
    figures, shown = verdict(page), picture(page, "store")
    expected = pytest.approx(file.cost("write", "hdf5"), rel=1e-5)  # the page has six digits
    assert float(figures["write", "hdf5"]["value"]) == expected
    choose(page, "commit", stored.commits[-2], "#chart-store")
    assert verdict(page) != figures
    assert picture(page, "store") != shown


def test_scale_and_versions(visits: Visits, stored: Stored) -> None:
    """The scale of all charts, the library and the workload are choices as the others are.

    Where a version of a library made a difference, its factor and both versions are said.
    """
    page = open_page(visits, stored, "library=lmdb&workload=read")
    drawn(page, "#chart-versions")
    said = page.inner_text("#versions")
    assert "LMDB 2.0\N{MULTIPLICATION SIGN} faster with lmdb 2.1.1 than with 1.4.1" in said
    assert re.search(
        r"Calibration: CPU 2[67]\.\d ms to 2[67]\.\d ms, disk 3\.\d+ ms to 3\.\d+ ms", said
    )
    for control, other in (("library", "h5py"), ("workload", "write")):
        shown = picture(page, "versions")
        choose(page, control, other, "#chart-versions")
        assert picture(page, "versions") != shown
    assert "3.13.0" in page.inner_text("#versions")
    assert "faster" not in page.inner_text("#versions")
    pressed = page.locator("#contents [data-scale][aria-pressed=true]")
    other = {"log": "linear", "linear": "log"}[str(pressed.get_attribute("data-scale"))]
    shown = picture(page, "store")
    page.click(f"#contents [data-scale={other}]")
    drawn(page)
    assert chosen(page)["scale"] == other
    assert pressed.get_attribute("data-scale") == other
    assert page.locator(f"[data-scale={other}][aria-pressed=false]").count() == 0
    assert picture(page, "store") != shown
    again = open_page(visits, stored, urlsplit(page.url).fragment)
    assert chosen(again) == chosen(page)
    for chart in ("store", "versions"):
        drawn(again, f"#chart-{chart}")
        assert picture(again, chart) == picture(page, chart)


def test_unknown_choices(visits: Visits, stored: Stored) -> None:
    """An address that names what is not there opens the page on what is."""
    page = open_page(visits, stored, "machine=%3Cb%3E&environment=&commit=0&dataset=x&scale=x&y")
    drawn(page)
    assert page.input_value("#machine") in {"desk", HOSTILE}
    assert chosen(page) == selected(page)
    assert set(verdict(page)) == set(product(ROWS, BACKENDS))


# -- what it was measured with -----------------------------------------------------------------


def test_measured_with(page: "Page", stored: Stored) -> None:
    """How fast the machine was is shown in milliseconds, with what was recorded of the run."""
    said = page.inner_text("#measured")
    choice = {name: page.input_value(f"#{name}") for name in ("machine", "environment", "commit")}
    file = File(stored, **choice)
    for load, benchmark in (("CPU", "calibration.Cpu"), ("disk", "calibration.Disk")):
        (shown,) = re.findall(rf"{load} ([\d.]+ ms)", said)
        assert amount(shown) == pytest.approx(file.value(f"{benchmark}.time_work", {}), rel=0.01)
    for fact in ("LMDB 0.9.36", "file system ext4", "page cache warm", "Linux 6.1.0"):
        assert fact in said


# -- charts ------------------------------------------------------------------------------------


def test_every_chart_has_its_table_and_downloads(page: "Page") -> None:
    """The table has the points, and what is downloaded parses and says what the table says."""
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    charts = page.eval_on_selector_all("figure.chart", "all => all.map(one => one.id)")
    assert {"chart-store", "chart-read", "chart-disk"} <= set(charts)
    for chart in charts:
        within = f"#{chart}"
        assert page.locator(f"{within} .plot .main-svg").count() > 0, chart
        headings, *rows = table(page, within)
        names, *lines = csv.reader(io.StringIO(linked(page, within, "csv")))
        points = json.loads(linked(page, within, "json"))["points"]
        assert rows, chart
        assert len(headings) == len(names)
        assert len(rows) == len(lines) == len(points)
        value = names.index("value")
        for row, line, point in zip(rows, lines, points, strict=True):
            assert list(point) == names
            assert line[:value] == [str(point[name]) for name in names[:value]]
            assert plain(row[:value]) == plain(line[:value])
            for shown, written, kept in zip(
                row[value:], line[value:], list(point.values())[value:], strict=True
            ):
                if kept is None:  # what is counted has no interval
                    assert written == ""
                    assert not re.search(r"\d", shown)
                else:
                    assert float(written) == kept
                    assert amount(shown) == pytest.approx(kept, rel=0.05), (chart, row)


def test_verdict_downloads(page: "Page") -> None:
    """The verdict can be downloaded, with the figures of its table."""
    shown = {at: float(cell["value"]) for at, cell in verdict(page).items()}
    lines = csv.DictReader(io.StringIO(download(page, "#verdict", "csv")))
    assert {(x["workload"], x["backend"]): float(x["value"]) for x in lines} == shown
    points = json.loads(download(page, "#verdict", "json"))["points"]
    assert {(x["workload"], x["backend"]): x["value"] for x in points} == shown


def test_hover(page: "Page") -> None:
    """A point that the mouse is over says its figure."""
    point = page.locator("#chart-store .plot path.point").first
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    page.wait_for_selector("#chart-store .hoverlayer .hovertext")
    _, first, *_ = table(page, "#chart-store")
    assert first[2] in str(page.text_content("#chart-store .hoverlayer"))


def test_keyboard(page: "Page") -> None:
    """All there is to choose or open is reached by the tabulator, and works from the keyboard."""
    page.focus("a")  # the first
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"machine", "environment", "commit", "dataset", "SUMMARY", "A", "BUTTON"} <= reached
    tables = page.locator("#chart-store details")
    before = tables.get_attribute("open")
    page.focus("#chart-store summary")
    page.keyboard.press("Enter")
    assert tables.get_attribute("open") != before
    assert page.locator("[tabindex]:not([tabindex='0']):not([tabindex='-1'])").count() == 0


def test_print(page: "Page") -> None:
    """On paper are the verdict and all pictures, and nothing to choose or click on."""
    page.emulate_media(media="print")
    assert page.is_visible("#verdict-table")
    assert all(plot.is_visible() for plot in page.locator("figure.chart .plot").all())
    assert not any(page.is_visible(f"#{control}") for control in ("machine", "commit", "library"))
    assert not any(link.is_visible() for link in page.locator("a.download").all())
    sheets = page.pdf(format="A4").count(b"/Type /Page\n")
    assert 2 < sheets <= 6
    page.emulate_media(media="screen")


def test_drawn_when_scrolled_to(visits: Visits, stored: Stored) -> None:
    """A chart far below the first screen is drawn when it is scrolled to, or printed."""
    page = open_page(visits, stored)
    far = page.locator("#chart-versions")
    assert far.locator(".main-svg").count() == 0
    far.scroll_into_view_if_needed()
    page.wait_for_selector("#chart-versions[data-drawn=true] .main-svg")
    other = page.locator("#chart-cold-open:not([data-drawn])")
    assert other.count() == 1
    page.pdf(format="A4")
    assert other.count() == 0


# -- the other tables --------------------------------------------------------------------------


def test_tables(visits: Visits, stored: Stored) -> None:
    """Plain code, encodings and further stores have tables of their own, in the same place."""
    page = open_page(visits, stored)
    assert options(page, "table") == [group.id for group in GROUPS]
    first = verdict(page)
    choose(page, "table", "plain", "#chart-store")
    file = File(stored, **{name: page.input_value(f"#{name}") for name in MEASURED})
    ours, plain = file.cost("read", "lmdb"), file.value("plain_stores.PlainRead.time_read", PLAIN)
    shown = float(verdict(page)["read", "lmdb"]["value"])
    assert shown == pytest.approx(ours / (plain / 10_000), rel=1e-4)
    assert "storage_impl relative to plain code" in page.inner_text("#verdict")
    choose(page, "table", "encodings", "#chart-store")
    assert options(page, "size") == ["32", "256", "64 to 512"]  # as in the terminal
    choose(page, "encoding", "jpeg", "#chart-store")
    choose(page, "size", "256", "#chart-store")
    written = {"backend": "'lmdb'", "encoding": "'jpeg'", "size": "256"}
    expected = file.value("encoding.EncodedWrite.time_write_6mib", written)
    cells = verdict(page)
    shown = float(cells["encoded-write", "lmdb"]["value"])
    assert shown == pytest.approx(expected, rel=1e-4)
    assert ("encoded-write", "encoding alone") in cells
    again = open_page(visits, stored, urlsplit(page.url).fragment)
    assert verdict(again) == cells
    choose(page, "table", "first", "#chart-store")
    assert verdict(page) == first
    assert page.locator("#encoding").count() == 0


# -- readers -----------------------------------------------------------------------------------

PHONE = {"width": 390, "height": 844}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readers(visits: Visits, stored: Stored, axe: str, scheme: str) -> None:
    """In light and in dark axe-core finds nothing serious, and on a phone nothing sticks out.

    In dark it looks at the colours alone, and once: all else is the same page.
    """
    page = open_page(visits, stored, color_scheme=scheme, reduced_motion="reduce")
    drawn(page)
    page.locator("#chart-store summary").click()
    page.evaluate(axe)
    for size in (page.viewport_size, PHONE):
        page.set_viewport_size(size)
        page.wait_for_function("document.scrollingElement.scrollWidth <= innerWidth")
        if scheme == "dark" and size == PHONE:
            continue
        # Not the style sheets: those of a file cannot be read by its scripts.
        how = {"preload": False, "resultTypes": ["violations"]}
        found = page.evaluate(
            "how => axe.run(how)", how if scheme == "light" else {**how, "runOnly": ["cat.color"]}
        )
        serious = [
            (violation["id"], [node["html"] for node in violation["nodes"]])
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
        assert serious == []
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, *_ = (int(x) for x in re.findall(r"\d+", colour))
    assert (red < 128) == (scheme == "dark")


# -- what is missing ---------------------------------------------------------------------------


def test_over_time(visits: Visits, publish: Callable[..., Stored]) -> None:
    """A slowdown shows in the table, in the chart that the table leads to, and in the list."""
    calls: Counter[tuple[str, str]] = Counter()

    def slower(name: str, parameters: dict[str, str], value: float) -> float:
        calls[name, str(parameters)] += 1
        reads = name == ROWS["shuffled"][0] and parameters["backend"] == "'lmdb'"
        return value * 1.2 if reads and calls[name, str(parameters)] > 14 else value

    stored = publish(commits=20, change=slower)
    page = open_page(visits, stored)
    commit = stored.commits[14][:8]
    link = page.locator('[data-workload="shuffled"] .since a')
    assert re.fullmatch(rf"LMDB (19|2[01])% slower since {commit}", link.inner_text())
    assert page.inner_text('[data-workload="labels"] .since').strip() == "no change"
    assert "Slower lately: Shuffled, LMDB" in page.inner_text("#answer")
    link.click()
    drawn(page, "#chart-time")
    assert page.input_value("#over") == "shuffled"
    assert page.locator("#chart-time .annotation-text").text_content().endswith(" 1.2")
    named = page.locator("#chart-time .legend").inner_text()
    assert "storage_impl" in named
    assert "plain code" in named
    assert page.locator("#changes li").first.get_attribute("data-commit") == stored.commits[14]
    choose(page, "figures", "counts", "#chart-time")
    assert (
        "No change" in page.inner_text("#time-body")
        or not page.locator("#time-body .changes li").count()
    )


def test_one_commit_has_no_history(page: "Page") -> None:
    """Where there are too few commits for a history, the page says so."""
    assert page.locator(".since").first.inner_text().strip() in ("too few commits", "no change")


def test_hostile_name(page: "Page") -> None:
    """A machine with the name of a script is shown by its name, and runs nothing."""
    assert HOSTILE in options(page, "machine")
    assert HOSTILE in page.inner_text("#machine")
    assert page.locator("script:not([src])").filter(has_text="alert").count() == 0


def test_partial(visits: Visits, publish: Callable[..., Stored]) -> None:
    """What failed, was not run, or is not there is shown as such, and all else as ever."""

    def change(name: str, parameters: dict[str, str], value: float) -> float | None:
        backend = parameters.get("backend")
        if name.startswith("floor."):
            return math.nan
        if name == WRITE and backend == "'lmdb'":
            return None
        if name == READ and backend == "'hdf5'":
            return math.nan
        if name == "access_patterns.ReadLabels.time_read":
            return None
        return value

    stored = publish(change=change, without=("disk_usage.",))
    page = open_page(visits, stored)
    drawn(page)
    cells = verdict(page)
    assert cells["write", "lmdb"]["state"] == "failed"
    assert cells["write", "hdf5"]["state"] == "measured"
    assert "floor" not in cells["write", "hdf5"]
    assert cells["read", "hdf5"]["state"] == "skipped"
    assert {cells["labels", backend]["state"] for backend in BACKENDS} == {"failed"}
    assert {cells["disk", backend]["state"] for backend in BACKENDS} == {"missing"}
    assert "NaN" not in page.inner_text("main")
    assert page.locator("#chart-disk .plot .main-svg").count() == 0
    assert "Disk space" in " ".join(page.locator("p.missing").all_inner_texts())


def test_one_commit_of_one_environment(visits: Visits, publish: Callable[..., Stored]) -> None:
    """The results of a first run are a page; what cannot be told apart is not ranked."""

    def change(name: str, parameters: dict[str, str], value: float) -> float | None:
        if name != READ:
            return value
        return {"'png'": 1.0, "'lmdb'": 0.101, "'hdf5'": 0.1}[parameters["backend"]]

    stored = publish(change=change)
    page = open_page(visits, stored)
    assert options(page, "commit") == stored.commits
    cells = verdict(page)
    assert {cell["state"] for cell in cells.values()} == {"measured"}
    assert {backend: cells["read", backend]["verdict"] for backend in BACKENDS} == {
        "png": "worse",
        "lmdb": "close",
        "hdf5": "close",
    }


def test_one_backend(visits: Visits, publish: Callable[..., Stored]) -> None:
    """Results of one backend are shown, and it is not called the best of one."""

    def change(name: str, parameters: dict[str, str], value: float) -> float | None:
        return value if parameters.get("backend") in (None, "'png'") else math.nan

    page = open_page(visits, publish(change=change))
    drawn(page)
    cells = verdict(page)
    assert cells["read", "png"]["verdict"] == "only"
    assert {cells[row, "hdf5"]["state"] for row in ROWS} == {"skipped"}


def test_no_results(visits: Visits, publish: Callable[..., Stored]) -> None:
    """Before the first run the page says so, and what to do."""
    page = visits.open(publish(commits=0).html, "compare.html")
    page.wait_for_selector("html[data-state=empty]")
    assert "tox run -e bench" in page.inner_text("main")


def test_link(visits: Visits, stored: Stored) -> None:
    """The pages of asv lead to the page, and it leads back."""
    page = visits.open(stored.html, "index.html", served=True)
    page.click("#nav-li-compare a")
    page.wait_for_selector("html[data-state=ready]")
    page.locator("a[href^='index.html']").first.click()
    page.wait_for_selector("#summarygrid-display .benchmark-container")
