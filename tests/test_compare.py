"""The page that compares backends: its data, and that nothing stops asv's own site."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asv.publishing import OutputPublisher
from asv.results import Results

from report.page import compare, figures
from report.page.charts import SECTIONS, Chart
from report.page.compare import Compare
from report.results import Benchmark, Figure, Result, read_all
from report.workloads import CALIBRATION, FIRST, Source, Workload, used_in
from tests import stored_results
from tests.stored_results import CURRENT, HOSTILE, Stored

pytestmark = pytest.mark.unmeasured

READ = "many_images.ReadMany.time_read"
FLOOR = "floor.RawFile.time_read"
NAN = math.nan
BACKENDS = ["'png'", "'lmdb'", "'hdf5'"]


def data(path: Path) -> Any:
    """Return what a script gives the page."""
    prefix, _, content = path.read_text().partition("] = ")
    assert prefix.startswith("(window.compareData ??= {})[")
    assert content.endswith(";\n")
    return json.loads(content[:-2])


def figure(value: float | None, spread: float = 0.01, repeat: int = 10) -> Figure:
    """Return what was timed, with all samples within a spread."""
    if value is None or math.isnan(value):
        return Figure(value, {}, None, True)
    low, high = value * (1 - spread), value * (1 + spread)
    if repeat == 1:
        low, high = -math.inf, math.inf
    return Figure(value, {"ci_99_a": low, "ci_99_b": high, "repeat": repeat}, None, True)


def measured(**by_backend: Figure) -> dict[str, Benchmark]:
    """Return results of reading 10,000 images, and of its floor of 1 us an image."""
    floors = dict.fromkeys(("png", "lmdb", "hdf5"), FLOOR)
    known = {"param_names": ["backend", "count"], "floors": floors}
    cells = {(backend, 10_000): cell for backend, cell in by_backend.items()}
    floor = Benchmark({"param_names": ["count"]}, {(10_000,): figure(0.01)})
    return {READ: Benchmark(known, cells), FLOOR: floor}


def result(datasets: dict[str, Any], **versions: str) -> Result:
    """Return results of an environment with these versions."""
    name = "-".join(versions.values())
    hardware = dict.fromkeys(("machine", "cpu", "num_cpu", "ram", "os"), "")
    return Result("desk", name, "c" * 40, 0, hardware, versions, {}, datasets, 0)


READ_ALL: Workload = next(workload for workload in used_in(FIRST) if workload.id == "read")


# -- what is measured against what ---------------------------------------------------------------


def test_names() -> None:
    """Every benchmark that the page names exists, with the parameters that it names."""
    known = stored_results.known_benchmarks()
    charts = [chart for section in SECTIONS for chart in section.charts]
    sources = [(source, (chart.x, chart.panel)) for chart in charts for source in chart.sources]
    for source, names in sources:
        benchmark = known[source.benchmark]
        assert set(filter(None, (*names, *source.where))) <= set(benchmark["param_names"])
        for name, value in source.where.items():
            values = benchmark["params"][benchmark["param_names"].index(name)]
            assert repr(value) in values, source
    assert [known[name]["param_names"] for name in CALIBRATION.values()] == [[], []]


# -- the verdict -------------------------------------------------------------------------------


def test_verdict() -> None:
    """A cost is that of one image, beside the floor's; the lowest is the best."""
    cells = figures.verdict(
        READ_ALL, measured(png=figure(0.8), lmdb=figure(0.05), hdf5=figure(0.02))
    )
    assert cells["png"] == {"cost": [8e-5, 7.92e-5, 8.08e-5, 10], "floor": 80.0, "verdict": "worse"}
    assert cells["lmdb"]["verdict"] == "worse"
    assert cells["hdf5"]["verdict"] == "best"


def test_verdict_within_noise() -> None:
    """Where the interval of another overlaps with that of the lowest, there is no best."""
    cells = figures.verdict(
        READ_ALL, measured(png=figure(0.8), lmdb=figure(0.021, 0.1), hdf5=figure(0.02))
    )
    assert [cells[name]["verdict"] for name in ("png", "lmdb", "hdf5")] == [
        "worse",
        "close",
        "close",
    ]


def test_verdict_by_samples() -> None:
    """Where samples were kept and suffice, they decide, and not the intervals."""
    apart = [[1 + i / 100 for i in range(10)], [1.095 + i / 100 for i in range(10)]]
    both = [Figure(s[5], figure(s[5], 0.5).stats, s, True) for s in apart]
    assert both[0].differs(both[1])
    assert not both[0].differs(both[0])


def test_verdict_of_single_samples() -> None:
    """One sample has no noise that were known, and none is claimed."""
    cells = figures.verdict(READ_ALL, measured(lmdb=figure(9, repeat=1), hdf5=figure(1, repeat=1)))
    assert cells["lmdb"]["verdict"] == "few"
    assert cells["lmdb"]["cost"][1:] == [None, None, 1]


def test_verdict_of_few_samples() -> None:
    """Three samples, whose intervals span everything, give neither a best nor an equal one."""
    cells = figures.verdict(
        READ_ALL,
        measured(png=figure(5.39, 50, 3), lmdb=figure(0.0239, 50, 3), hdf5=figure(0.0088, 50, 3)),
    )
    assert {cell["verdict"] for cell in cells.values()} == {"few"}


@pytest.mark.parametrize(("value", "said"), [(None, "failed"), (NAN, "not run")])
def test_verdict_without_a_figure(value: float | None, said: str) -> None:
    """What failed or was not run says so; what is left of one backend is not the best."""
    cells = figures.verdict(READ_ALL, measured(png=figure(0.8), hdf5=figure(value)))
    assert cells["hdf5"] == {"cost": [said]}
    assert cells["png"]["verdict"] == "only"


def test_verdict_of_nothing() -> None:
    """A benchmark that was not run at all leaves its row empty."""
    assert figures.verdict(READ_ALL, {}) == {}


def test_verdict_of_what_is_counted() -> None:
    """Bytes on disk do not vary: any difference counts, and equal ones are the same."""
    disk = next(workload for workload in used_in(FIRST) if workload.id == "disk")
    cells = {
        (name, 10_000): Figure(value, {}, None, False)
        for name, value in (("png", 4e7), ("lmdb", 4e7), ("hdf5", 40_000_001.0))
    }
    known = {"param_names": ["backend", "count"]}
    found = figures.verdict(disk, {disk.source.benchmark: Benchmark(known, cells)})
    assert [found[name]["verdict"] for name in ("png", "lmdb", "hdf5")] == ["same", "same", "worse"]
    assert found["png"]["cost"] == [4000.0, None, None, None]


# -- charts ------------------------------------------------------------------------------------


def test_points() -> None:
    """A point has its panel, line, backend and x, then the figure; failures are points, too."""
    chart = Chart(
        "a",
        "A",
        "",
        "threads",
        "threads",
        "time",
        "seconds per image",
        (Source("b", "read"),),
        panel="stores",
    )
    cells = {
        ("png", 2, True): figure(1.0),
        ("png", 4, True): figure(None),
        ("lmdb", 2, False): figure(NAN),
    }
    known = {"param_names": ["backend", "threads", "stores"], "images": 100}
    assert list(figures.points(chart, {"b": Benchmark(known, cells)})) == [
        ["yes", "read", "png", 2, 0.01, 0.0099, 0.0101, 10],
        ["yes", "read", "png", 4, "failed"],
        ["no", "read", "lmdb", 2, "not run"],
    ]


def test_points_by_source() -> None:
    """Where no parameter is along the x axis, the sources are."""
    chart = Chart(
        "a", "A", "", "", "", "time", "seconds", (Source("b", "store"), Source("c", "read"))
    )
    known = {"param_names": ["backend"], "images": 100}
    both = {name: Benchmark(known, {("png",): figure(1.0)}) for name in "bc"}
    assert [point[:5] for point in figures.points(chart, both)] == [
        ["", "", "png", "store", 1.0],
        ["", "", "png", "read", 1.0],
    ]


# -- library versions --------------------------------------------------------------------------


def versions(*results: Result) -> Any:
    return figures.versions_of(list(results))


def read(value: float | None) -> dict[str, Any]:
    return {"synthetic": measured(lmdb=figure(value))}


def test_versions() -> None:
    """Versions are in their order, and a change beyond noise and a tenth has its factor."""
    found = versions(
        result(read(0.010), lmdb="1.10.0", numpy="2.0"),
        result(read(0.020), lmdb="1.9.0", numpy="2.0"),
        result(read(0.0105), lmdb="2.0.0", numpy="2.0"),
    )
    assert list(found["synthetic"]) == ["lmdb"]
    (group,) = found["synthetic"]["lmdb"]
    assert group["versions"] == ["1.9.0", "1.10.0", "2.0.0"]
    assert group["others"] == {"numpy": "2.0"}
    points = group["lines"]["read"]["lmdb"]
    assert [point[:2] for point in points] == [[None, 2e-6], [[0.5, 0], 1e-6], [None, 1.05e-6]]


def test_versions_one_at_a_time() -> None:
    """Environments that differ in two libraries are not compared by either."""
    assert versions(
        result(read(1.0), lmdb="1.0", numpy="1.0"), result(read(1.0), lmdb="2.0", numpy="2.0")
    ) == {"synthetic": {}}


def test_versions_without_a_figure() -> None:
    """What failed in one version is said; the next is compared with the one before it."""
    (group,) = versions(
        result(read(1.0), lmdb="1.0"),
        result(read(None), lmdb="2.0"),
        result({"synthetic": {}}, lmdb="3.0"),
        result(read(2.0), lmdb="4.0"),
    )["synthetic"]["lmdb"]
    first, *others = group["lines"]["read"]["lmdb"]
    assert first[0] is None
    assert [point and point[:2] for point in others] == [[None, "failed"], None, [[2.0, 0], 2e-4]]


def test_versions_that_are_none() -> None:
    """A version that follows no rule comes last, and stops nothing."""
    (group,) = versions(result(read(1.0), lmdb="main"), result(read(1.0), lmdb="2.0"))["synthetic"][
        "lmdb"
    ]
    assert group["versions"] == ["2.0", "main"]


# -- what is read ------------------------------------------------------------------------------


def stored(path: Path, **what: Any) -> tuple[Stored, dict[str, Any]]:
    """Return made-up results, and the benchmarks that they are of."""
    made = stored_results.store(path / "stored", **what)
    known = json.loads((made.results / "benchmarks.json").read_text())
    del known["version"]
    return made, known


def test_read(tmp_path: Path) -> None:
    """All files of results are read, with the machine, the versions and what was measured."""
    made, known = stored(tmp_path, commits=2, machines=(HOSTILE,))
    both = list(read_all(str(made.results), known))
    assert {found.commit for found in both} == set(made.commits)
    assert {found.machine for found in both} == {HOSTILE}
    assert both[0].versions == {"python": "3.11", **CURRENT}
    assert both[0].hardware["cpu"] == "A processor"
    benchmark = both[0].datasets["synthetic"][READ]
    assert {key[1] for key in benchmark.figures} == {1, 10, 100, 1_000, 10_000, 100_000}


def test_read_another_version_of_a_benchmark(tmp_path: Path) -> None:
    """What an older version of a benchmark measured is left out, and counted."""
    made, known = stored(tmp_path)
    newer = {**known, READ: {**known[READ], "version": "99, synthetic"}}
    (found,) = read_all(str(made.results), newer)
    assert READ not in found.datasets["synthetic"]
    assert found.outdated == 1


def test_read_other_images(tmp_path: Path) -> None:
    """Results of other images than the last run's are there, under their own name."""
    made, known = stored(tmp_path)
    photos = {
        name: {**each, "version": each["version"].replace("synthetic", "photos")}
        for name, each in known.items()
    }
    (found,) = read_all(str(made.results), photos)
    assert list(found.datasets) == ["synthetic"]
    assert found.outdated == 0


def test_read_facts(tmp_path: Path) -> None:
    """What is recorded beside a file of results is part of it."""
    made, known = stored(tmp_path)
    (path,) = made.results.glob("*/*-*.json")
    shown = {"LMDB": "0.9.36", "file system": "ext4", "page cache": "warm", "kernel": "Linux"}
    path.with_suffix(".facts").write_text(json.dumps({**shown, "other": "x"}))
    (found,) = read_all(str(made.results), known)
    assert figures.page_of(found)["facts"] == shown


def test_calibration(tmp_path: Path) -> None:
    """How fast the machine was is part of each result: seconds, of the loads that were measured."""

    def change(name: str, parameters: dict[str, str], value: float) -> float | None:
        loads = {"calibration.Cpu.time_work": 0.027, "calibration.Disk.time_work": None}
        return loads.get(name, value)

    made, known = stored(tmp_path, change=change)
    (found,) = read_all(str(made.results), compare.shown(known))
    assert figures.page_of(found)["calibration"] == {"CPU": 0.027}
    other = found._replace(versions={**found.versions, "lmdb": "2.1.1"}, common={})
    (group,) = versions(found, other)["synthetic"]["lmdb"]
    assert group["calibration"] == [{}, {"CPU": 0.027}]


def test_read_what_is_no_result(tmp_path: Path) -> None:
    """A file that is cut short is left out, as asv leaves it out."""
    made, known = stored(tmp_path, commits=2)
    first, _ = sorted(made.results.glob("*/*-*.json"))
    first.write_text(first.read_text()[:100])
    assert len(list(read_all(str(made.results), known))) == 1


def test_read_parameters_that_are_no_literals(tmp_path: Path) -> None:
    """A parameter that is no word and no number is kept as it was written."""
    made, known = stored(tmp_path)
    (path,) = made.results.glob("*/*-*.json")
    written = ["<object>", "[1]", "(" * 5000]
    path.write_text(path.read_text().replace(json.dumps(BACKENDS), json.dumps(written)))
    (found,) = read_all(str(made.results), known)
    assert {key[0] for key in found.datasets["synthetic"][READ].figures} == set(written)


# -- the site ----------------------------------------------------------------------------------


@pytest.fixture
def publish(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., tuple[Path, str]]:
    """Publish made-up results as asv asks for it; return the site, and what was printed."""

    def run(index: str = compare.ANCHOR, tagged: str = "", **what: Any) -> tuple[Path, str]:
        made, known = stored(tmp_path, **what)
        made.html.mkdir()
        (made.html / "index.html").write_text(f"<ul>{index}</ul>")
        conf = SimpleNamespace(
            html_dir=str(made.html), results_dir=str(made.results), project="storage_impl"
        )
        repo = SimpleNamespace(get_tags=lambda: {tagged: made.commits[-1]} if tagged else {})
        Compare.publish(conf, repo, known, None, dict.fromkeys(made.commits, 0))
        return made.html, "\n".join(caplog.messages)

    return run


def _spoil(place: int, content: Any) -> Callable[[str], str]:
    """Return what replaces a column of every benchmark in a file of results."""

    def spoil(kept: str) -> str:
        content_of = json.loads(kept)
        for row in content_of["results"].values():
            row[place] = content
        return json.dumps(content_of)

    return spoil


MALFORMED = {
    "nested": lambda kept: '{"version": 2, "results": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "half": lambda kept: kept[: len(kept) // 2],
    "word": _spoil(0, ["fast"] * 12),
    "no list": _spoil(0, 3),
    "parameters": _spoil(1, [[1, 2], [3]]),
    "interval": _spoil(stored_results.COLUMNS.index("stats_ci_99_a"), ["low"] * 12),
    "date": lambda kept: re.sub(r'"date": \d+', '"date": "today"', kept),
}


def test_publish_beside_malformed_results(tmp_path: Path) -> None:
    """A file with contents that asv cannot use is named and left out; the site has all others."""
    known = stored_results.known_benchmarks()
    others = tuple(name for name in known if "ReadMany.time_read" not in name)
    made = stored_results.store(tmp_path / "stored", commits=len(MALFORMED) + 1, without=others)
    for commit, spoil in zip(made.commits, MALFORMED.values(), strict=False):
        (path,) = made.results.glob(f"*/{commit[:8]}-*.json")
        before = path.read_text()
        path.write_text(spoil(before))
        assert path.read_text() != before
    printed = made.publish()
    for commit in made.commits[:-1]:
        assert re.search(f"file '[^']*{commit[:8]}-", printed), (commit, printed)
    index = json.loads((made.html / "index.json").read_text())
    assert list(index["revision_to_hash"].values()) == made.commits[-1:]
    assert data(made.html / "compare/data/index.js")["machines"]


def test_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the plugin is what makes asv publish the page."""
    import report

    monkeypatch.setattr(Results, "load", Results.load)
    report.setup()
    assert Compare in OutputPublisher.__subclasses__()


def test_publish(publish: Any) -> None:
    """The page, its data and its library are beside asv's pages, and linked from there."""
    site, _ = publish(commits=2, environments=stored_results.ENVIRONMENTS[:3])
    assert (site / "index.html").read_text() == f"<ul>{compare.ANCHOR}\n        {compare.LINK}</ul>"
    assert (site / "compare.html").exists()
    names = {path.name for path in (site / "compare").iterdir()}
    assert (
        {"compare.css", "compare.js", "data"}
        <= names
        <= {"changes.json", "changes.txt", "compare.css", "compare.js", "data", "plotly.min.js"}
    )
    index = data(site / "compare/data/index.js")
    assert index["backends"] == ["png", "lmdb", "hdf5"]
    (machine,) = index["machines"]
    keys = [key for environment in machine["environments"] for _, key, _ in environment["results"]]
    keys += machine["files"].values()
    keys += [environment["history"] for environment in machine["environments"]]
    written = {path.stem for path in (site / "compare/data").iterdir()}
    assert written == {"index", *keys}
    page = data(site / f"compare/data/{keys[0]}.js")["datasets"]["synthetic"]
    assert set(page["verdict"]) == {workload.id for workload in used_in(FIRST)}
    assert set(page["charts"]) == {chart.id for section in SECTIONS for chart in section.charts}


def test_publish_changes(publish: Any) -> None:
    """A slowdown of a fifth is named with its commit: in the text, as JSON and for the page."""
    calls: Counter[tuple[str, str]] = Counter()

    def slower(name: str, parameters: dict[str, str], value: float) -> float:
        calls[name, str(parameters)] += 1
        late = calls[name, str(parameters)] > 14
        is_read = name == "many_images.ReadMany.time_read"
        return value * 1.2 if late and is_read and parameters["backend"] == "'lmdb'" else value

    site, _ = publish(commits=20, change=slower)
    found = json.loads((site / "compare/changes.json").read_text())
    (change,) = (
        each
        for each in found
        if each["benchmark"] == "many_images.ReadMany.time_read"
        and each["parameters"] == {"backend": "lmdb", "count": 10_000}
    )
    index = data(site / "compare/data/index.js")
    (environment,) = index["machines"][0]["environments"]
    assert change["commit"] == index["commits"][14]["hash"]
    assert change["factor"] == pytest.approx(1.2, abs=0.02)
    listed = (site / "compare/changes.txt").read_text()
    assert f"{change['commit'][:8]} " in listed
    assert f"ReadMany.time_read(lmdb, 10000) x {change['factor']:.3f} " in listed
    history = data(site / f"compare/data/{environment['history']}.js")["synthetic"]
    assert ["read", "times", "lmdb", 14, change["factor"], ""] in history["changes"]
    lines = history["lines"]["read"]
    assert [place for place, *_ in lines["times"]["lmdb"]] == list(range(20))
    assert [place for place, *_ in lines["counts"]["hdf5"]] == list(range(20))
    assert [place for place, _ in history["calibration"]] == list(range(20))


def test_publish_names(publish: Any) -> None:
    """No name is read as HTML in a script, nor as the path of a file."""
    site, _ = publish(machines=(HOSTILE, "../../up"))
    text = (site / "compare/data/index.js").read_text()
    assert "<" not in text
    names = [machine["name"] for machine in data(site / "compare/data/index.js")["machines"]]
    assert sorted(names) == sorted((HOSTILE, "../../up"))
    assert all(path.stem.isalnum() for path in (site / "compare/data").iterdir())


def test_publish_tags(publish: Any) -> None:
    """A commit that has a tag is shown with it."""
    site, _ = publish(commits=2, tagged="v1")
    commits = data(site / "compare/data/index.js")["commits"]
    assert [commit["tag"] for commit in commits] == ["", "v1"]


def test_publish_without_results(publish: Any) -> None:
    """Where there are no results the page is there, and has nothing to choose from."""
    site, _ = publish(commits=0)
    assert data(site / "compare/data/index.js")["machines"] == []


def test_publish_results_of_no_images(publish: Any) -> None:
    """A run of the calibration alone is nothing to choose: a page opened on it would be empty."""
    known = stored_results.known_benchmarks()
    site, _ = publish(without=tuple(name for name in known if not name.startswith("calibration.")))
    assert data(site / "compare/data/index.js")["machines"] == []
    assert [path.name for path in (site / "compare/data").iterdir()] == ["index.js"]


@pytest.mark.parametrize("index", ["", compare.ANCHOR * 2])
def test_publish_where_asv_changed(publish: Any, index: str) -> None:
    """Where asv's index.html has another shape, publish says so; the page is there, unlinked."""
    site, printed = publish(index)
    assert "asv's index.html has changed" in printed
    assert (site / "index.html").read_text() == f"<ul>{index}</ul>"
    assert (site / "compare.html").exists()


def test_publish_without_plotly(publish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without plotly the page has its tables, and publish says what is missing."""
    monkeypatch.setattr(compare, "plotly", lambda: None)
    site, printed = publish()
    assert "plotly is missing" in printed
    assert data(site / "compare/data/index.js")["plotly"] is False


def test_publish_fails(publish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the page cannot be made, asv's site is left as it was, with a sentence of why."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compare, "write", full)
    site, printed = publish()
    assert "No space left on device" in printed
    assert "Traceback" not in printed
    assert [path.name for path in site.iterdir()] == ["index.html"]
    assert (site / "index.html").read_text() == f"<ul>{compare.ANCHOR}</ul>"


def test_asv_has_the_anchor() -> None:
    """Asv's index.html is as the page expects it."""
    import asv

    text = Path(asv.__file__).with_name("www").joinpath("index.html").read_text(encoding="utf-8")
    assert text.count(compare.ANCHOR) == 1
