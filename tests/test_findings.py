"""The pages in docs/ about what was measured: their figures are those of the kept results."""

import json
import re
from pathlib import Path

import pytest
from asv.config import Config

from report.docs import tables
from tests import stored_results

pytestmark = pytest.mark.unmeasured

FINDINGS, CHOOSING, *_ = tables.PAGES
VERDICT = re.compile(r"^\*\*(?:Holds|Holds if [^*]+|Does not hold)\.\*\* ", re.MULTILINE)
MEASURED = re.compile(r"(?<![\w.,])(\d[\d,]*(?:\.\d+)?) (?:us|ms|s|times|bytes|KB|MB)\b")

PAGE = """\
Before.

<!-- table many -->
what was here
<!-- end -->

After.
"""
ROWS = {
    "many": "read 10,000 (us/image): many_images.ReadMany.time_read(*, 10_000)\n"
    "read 100,000 (us/image): many_images.ReadMany.time_read(*, 100_000)\n"
}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tables.Kept:
    """Results of every benchmark with several versions of the libraries."""
    directory = tmp_path_factory.mktemp("results") / "stored"
    current = stored_results.CURRENT
    further = ({**current, "plyvel": "1.5.1"}, {**current, "torch": "2.13.0"})
    environments = (*stored_results.ENVIRONMENTS, *further)
    results = stored_results.store(directory, environments=environments).results
    return tables.Kept(results)


@pytest.fixture(scope="module")
def kept() -> tables.Kept:
    """The results that the pages cite."""
    if not tables.RESULTS.exists():
        pytest.skip("no results are kept yet")
    return tables.Kept()


def sections(page: str) -> dict[str, str]:
    """Return what stands under each heading of the second level."""
    heading, *parts = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)
    assert heading
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    return {title: re.split(r"^# ", text, flags=re.MULTILINE)[0] for title, text in found.items()}


def cells(kept: tables.Kept, line: str) -> list[list[str]]:
    """Return the rows of the table that a line of a comment makes."""
    rows = [row for row in tables.table([line], kept) if row.startswith("| ")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[2:]]


def test_a_page_keeps_its_words_and_gets_new_tables(made_up: tables.Kept) -> None:
    """What stands between a comment and its end is replaced, and nothing else; twice is once."""
    filled = tables.filled(PAGE, made_up, ROWS)
    before, after = PAGE.split("what was here\n")
    assert filled.startswith(before)
    assert filled.endswith(after)
    assert "what was here" not in filled
    # 80 us in the results that were made up, within 1%
    assert re.search(r"\| read 10,000 \| us/image \| (79|8\d)", filled)
    assert tables.filled(filled, made_up, ROWS) == filled


def test_a_table_says_how_to_measure_it_again(made_up: tables.Kept) -> None:
    """The command names the benchmarks as asv does, and asks for what is large."""
    command = (
        "Again: `STORAGE_IMPL_LARGE=1 python -m tox run -e bench-full -- "
        "--bench many_images.ReadMany.time_read`"
    )
    assert command in tables.filled(PAGE, made_up, ROWS).splitlines()


def test_a_figure_has_its_interval(made_up: tables.Kept) -> None:
    """It lies within its interval of 99%, both in the unit of the row."""
    line = 'read (us/image): many_images.ReadMany.time_read("lmdb", 1_000)'
    ((label, unit, cell),) = cells(made_up, line)
    assert (label, unit) == ("read", "us/image")
    value, low, high = map(float, re.findall(r"[\d.]+", cell))
    assert low <= value <= high
    assert value == pytest.approx(1.3, rel=0.05)  # as stored_results makes it up


def test_a_quotient_is_of_what_an_image_costs(made_up: tables.Kept) -> None:
    """Two benchmarks are compared by the image, whatever their calls handle."""
    line = (
        'one by one (times): single_image.ReadOne.time_read_100("png") / '
        'many_images.ReadMany.time_read("png", 10_000)'
    )
    ((_, _, cell),) = cells(made_up, line)
    value, low, high = map(float, re.findall(r"[\d.]+", cell))
    assert value == pytest.approx(1, rel=0.05)
    assert low < value < high


def test_a_row_of_a_version(made_up: tables.Kept) -> None:
    """`@` takes a figure from the run with that version."""
    line = 'read (us/image): many_images.ReadMany.time_read("lmdb", 10_000) @ lmdb '
    rows = [cells(made_up, line + version)[0] for version in ("1.4.1", "2.1.1", "3.0.0")]
    oldest, middle, newest = (float(row[2].split()[0]) for row in rows)
    assert oldest / newest == pytest.approx(2, rel=0.05)  # as stored_results makes it up
    assert middle / newest == pytest.approx(1, rel=0.05)
    assert "tox run -e versions" in tables.table([line + "1.4.1"], made_up)[-1]


def test_versions_that_need_older_ones(tmp_path: Path) -> None:
    """Where a library's version needs another one to be older, that run is the version's."""
    current, older = stored_results.CURRENT, {"numpy": "1.26.4"}
    environments = (
        current,
        *({**current, "Pillow": version} for version in ("9.2.0", "10.4.0")),
        {**current, **older},
        {**current, **older, "h5py": "3.8.0"},
    )
    kept = tables.Kept(stored_results.store(tmp_path / "r", environments=environments).results)
    assert kept.default.versions == current
    by_h5py, by_numpy = kept.sweep("h5py"), kept.sweep("numpy")
    assert list(by_h5py) == ["3.8.0", "3.16.0"]
    assert by_h5py["3.8.0"].versions["numpy"] == "1.26.4"
    assert list(by_numpy) == ["1.26.4", "2.4.6"]
    assert by_numpy["1.26.4"].versions["h5py"] == "3.16.0"


def test_runs_with_further_packages(tmp_path: Path) -> None:
    """What was measured beside further packages is named so, and is never the default run."""
    current = stored_results.CURRENT
    environments = (current, {**current, "plyvel": "1.5.1"}, {**current, "torch": "2.13.0"})
    kept = tables.Kept(stored_results.store(tmp_path / "r", environments=environments).results)
    assert not kept.default.packages & {"plyvel", "torch"}
    line = 'read (us/image): plain_stores.PlainRead.time_read("leveldb", 10_000) @ others'
    *_, command = tables.table([line], kept)
    assert command.endswith("Again: `python -m tox run -e others`")
    assert kept.further("others").packages & {"plyvel", "torch"} == {"plyvel"}
    with pytest.raises(ValueError, match="no run of others"):
        tables.Kept(stored_results.store(tmp_path / "s").results).further("others")


def test_versions_are_compared_within_one_commit(tmp_path: Path) -> None:
    """A newer run of the default versions alone is the default, and no row of the versions."""
    stored = stored_results.store(
        tmp_path / "r", commits=2, environments=stored_results.ENVIRONMENTS
    )
    old, new = stored.commits
    current = stored_results.CURRENT
    for path in stored.results.glob(f"*/{new[:8]}-*"):
        if not all(f"-{name}{version}" in path.stem for name, version in current.items()):
            path.unlink()
    kept = tables.Kept(stored.results)
    assert (kept.default.commit, kept.default.versions) == (new, current)
    sweep = kept.sweep("h5py")
    assert list(sweep) == ["3.8.0", "3.13.0", "3.16.0"]
    assert {run.commit for run in sweep.values()} == {old}

    # As stored_results makes it up, HDF5 takes half as long again to write at the newer commit.
    line = 'write (us/image): many_images.WriteMany.time_write("hdf5", 10_000)'
    ((*_, by_default),) = cells(kept, line)
    for version in sweep:
        ((*_, by_version),) = cells(kept, f"{line} @ h5py {version}")
        assert float(by_default.split()[0]) / float(by_version.split()[0]) > 1.3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("read: many_images.ReadMany.time_read(*, 1)", "not a row"),
        ("read (hours): many_images.ReadMany.time_read(*, 1)", "not a row"),
        ("read (us): many_images.ReadMany.time_read", "not a row"),
        ("read (us): many_images.ReadManny.time_read(*, 1)", "no such benchmark"),
        ("read (us): many_images.ReadMany.time_read(*, 2)", "no such benchmark"),
        ("read (us): many_images.ReadMany.time_read(*)", "no such benchmark"),
        ('read (us): single_image.ReadOne.time_read_100("png") @ lmdb 0.1', "no run with lmdb 0.1"),
    ],
)
def test_a_mistake_is_no_missing_figure(made_up: tables.Kept, line: str, message: str) -> None:
    """A row that names what there is not is an error, and never reads "not measured"."""
    with pytest.raises(ValueError, match=message):
        tables.table([line], made_up)


def test_what_failed_has_no_figure(tmp_path: Path) -> None:
    """A benchmark that failed, or was not run, is shown as not measured."""

    def fail(name: str, parameters: dict[str, str], value: float) -> float | None:
        if name == "single_image.ReadOne.time_read_100":
            return {"'png'": None, "'lmdb'": float("nan")}.get(parameters["backend"], value)
        return value

    results = stored_results.store(tmp_path / "stored", change=fail).results
    ((_, _, *found),) = cells(
        tables.Kept(results), "read (us): single_image.ReadOne.time_read_100(*)"
    )
    assert found[:2] == [tables.ABSENT] * 2
    assert number(found[2].split()[0]) > 0


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.stem)
def test_pages_name_benchmarks_that_exist(path: Path, made_up: tables.Kept) -> None:
    """With results of every benchmark, each row of the pages has a figure."""
    rows = tables.rows_of(path.stem)
    page = tables.filled(path.read_text(encoding="utf-8"), made_up, rows)
    named = [name for _, name, *_ in tables.BLOCK.findall(page)]
    assert set(named) - {"run", "verdicts"} == set(rows)
    assert len(named) == page.count("<!-- table ") == page.count("<!-- end")
    assert f"| {tables.ABSENT} |" not in page


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.stem)
def test_tables_are_those_of_the_results(path: Path, kept: tables.Kept) -> None:
    """The page is what `tox run -e charts` makes of it, and misses no figure and no answer."""
    page = path.read_text(encoding="utf-8")
    assert tables.filled(page, kept, tables.rows_of(path.stem)) == page
    assert f"| {tables.ABSENT} |" not in page
    assert "| open |" not in page


@pytest.mark.parametrize("path", [FINDINGS, CHOOSING], ids=lambda path: path.stem)
def test_figures_in_the_words_are_those_of_the_tables(path: Path, kept: tables.Kept) -> None:
    """A number with a unit stands in a table of the same section, rounded as it is there."""
    for title, text in sections(path.read_text(encoding="utf-8")).items():
        tabled = " ".join(block[3] for block in tables.BLOCK.finditer(text))
        known = [number(found) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", tabled)]
        for found in MEASURED.findall(tables.BLOCK.sub("", text)):
            half = 0.5 * 10 ** -len(found.partition(".")[2])
            assert any(abs(value - number(found)) <= half * 1.001 for value in known), (
                title,
                found,
            )


def number(written: str) -> float:
    """Return a number as the pages write it."""
    return float(written.replace(",", ""))


def test_each_claim_has_a_verdict(kept: tables.Kept) -> None:
    """Each section has one verdict, and they are numbered from one on."""
    page = FINDINGS.read_text(encoding="utf-8")
    claims = sections(page)
    for title, text in claims.items():
        assert len(VERDICT.findall(text)) == 1, title
        assert "**Open" not in text, title
    assert [title.partition(".")[0] for title in claims] == [str(i + 1) for i in range(len(claims))]


def test_verdicts_are_listed(made_up: tables.Kept) -> None:
    """The list is of the sections with a verdict, and leads to them."""
    page = (
        "<!-- table verdicts -->\n<!-- end -->\n## 1. It's so: always\n**Holds if it rains.**\n"
        "## 2. Open\n**Open.**\n## 3. Not so\n**Does not hold.** Never.\n"
    )
    rows = [line for line in tables.filled(page, made_up, {}).splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        "| 1 | [It's so: always](#1-its-so-always) | holds if |",
        "| 3 | [Not so](#3-not-so) | does not hold |",
    ]


def test_patterns_of_the_configuration_match() -> None:
    """No benchmark was renamed from under what asv.conf.json says of its regressions."""
    names = stored_results.known_benchmarks()
    conf = Config.load(str(tables.ROOT / "asv.conf.json"))
    for pattern in (*conf.regressions_thresholds, *conf.regressions_first_commits):
        assert any(re.match(pattern, name) for name in names)


@pytest.mark.parametrize(
    "path",
    sorted([*tables.ROOT.glob("*.md"), *(tables.ROOT / "docs").glob("*.md")]),
    ids=lambda path: path.stem,
)
def test_links_lead_somewhere(path: Path, kept: tables.Kept) -> None:
    """Every link within the project, and every picture, is there."""
    page = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^):]*)\)", page):
        if target.startswith("../../actions/"):  # of the repository on GitHub
            continue
        file, _, anchor = target.partition("#")
        text = (path.parent / file).read_text(encoding="utf-8") if anchor and file else page
        assert (path.parent / file).exists(), target
        anchors = map(tables.anchor, re.findall(r"^#+ (.*)$", text, re.MULTILINE))
        assert not anchor or anchor in anchors, target


def test_every_picture_is_shown(kept: tables.Kept) -> None:
    """No picture lies in docs/charts that no page shows."""
    pages = "".join(path.read_text(encoding="utf-8") for path in tables.PAGES)
    drawn = {path.name for path in (tables.ROOT / "docs" / "charts").iterdir()}
    assert set(re.findall(r"\((?:docs/)?charts/([\w.]+)\)", pages)) == drawn


def test_results_name_what_they_were_measured_with(kept: tables.Kept) -> None:
    """Beside each kept file of results lie the facts: libraries, file system, kernel, processor."""
    files = [
        path
        for path in tables.RESULTS.glob("*/*.json")
        if path.name not in ("machine.json", "benchmarks.json")
    ]
    assert files
    for path in files:
        facts = json.loads(path.with_suffix(".facts").read_text())
        assert {"LMDB", "HDF5", "file system", "kernel", "CPU", "page cache"} <= set(facts)
