"""The table of workloads: each row has a benchmark, and is measured where it is used."""

import math
import re
from itertools import product

import pytest

from report import workloads
from report.results import Benchmark, Figure, over_plain
from report.workloads import GATE, GROUPS, QUICK, SWEEP, WORKLOADS, Source, Workload, used_in
from tests.stored_results import known_benchmarks

KNOWN = known_benchmarks()
by_id = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.id)
LARGE = {"100000", "200000", "512"}


def selected(patterns: list[str]) -> set[str]:
    """Return what asv runs by these, each with its parameters."""
    return {
        full
        for name, known in KNOWN.items()
        for key in product(*known["params"])
        if any(
            re.search(pattern, full := f"{name}({', '.join(key)})" if key else name)
            for pattern in patterns
        )
    }


def columns(source: Source) -> set[str]:
    """Return the figures of a row, one for each column, as asv names them."""
    rest = tuple(map(repr, source.parameters))
    return {
        f"{source.benchmark}({', '.join((column, *rest))})"
        for column in KNOWN[source.benchmark]["params"][0]
    }


@by_id
def test_a_row_is_one_figure_by_column(workload: Workload) -> None:
    """It fixes each parameter behind the first, in order, but for those that the reader chooses."""
    known = KNOWN[workload.source.benchmark]
    choices = {name for group in GROUPS if group.id in workload.used for name in group.choices}
    names = known["param_names"]
    assert names[0] in ("backend", "store")
    assert [name for name in names[1:] if name not in choices] == list(workload.source.where)
    for name, value in workload.source.where.items():
        assert repr(value) in known["params"][names.index(name)]


@by_id
def test_what_is_beside(workload: Workload) -> None:
    """What a row has beside its source is there, and has the choices as its parameters."""
    choices = [name for group in GROUPS if group.id in workload.used for name in group.choices]
    for source in workload.beside:
        assert KNOWN[source.benchmark]["param_names"] == choices
        assert source.line
    if workload.floors:
        known = KNOWN[workload.floors.benchmark]
        for name, value in workload.floors.where.items():
            assert repr(value) in known["params"][known["param_names"].index(name)]


def test_rows_are_told_apart() -> None:
    """No two have one name, nor one title within a table; the first screen has eight."""
    names = [workload.id for workload in WORKLOADS]
    assert len(set(names)) == len(names)
    for group in GROUPS:
        titles = [workload.title for workload in used_in(group.id)]
        assert titles
        assert len(set(titles)) == len(titles)
    assert GROUPS[0].id == workloads.FIRST
    assert len(used_in(workloads.FIRST)) == 8


def test_over_plain() -> None:
    """What is shown over plain code names it, and both have the same further parameters."""
    (group,) = (group for group in GROUPS if group.over_plain)
    for workload in used_in(group.id):
        known = KNOWN[workload.source.benchmark]
        plain = KNOWN[known["plain"]]
        assert set(known["params"][0]) <= set(plain["params"][0])
        assert plain["param_names"][1:] == known["param_names"][1:]


@pytest.mark.parametrize("where", [QUICK, SWEEP])
def test_a_row_is_measured_where_it_is_used(where: str) -> None:
    """All of its figures are, but those of a backend that is slow in the sweep."""
    found = selected(workloads.patterns(where))
    for workload in used_in(where):
        slow = {f"{workload.source.benchmark}('{backend}'" for backend in workload.slow}
        left = columns(workload.source) - found
        assert {name.partition(",")[0] for name in left} == (slow if where == SWEEP else set())


@pytest.mark.parametrize("where", [QUICK, "full", SWEEP, workloads.STORES, workloads.LOADERS])
def test_what_is_large_is_asked_for(where: str) -> None:
    """No run measures 100,000 images or 512 pixels unless it is told to; `large` has them alone."""
    names = selected(workloads.patterns(where))
    assert "calibration.Cpu.time_work" in names
    assert not [name for name in names if LARGE & set(re.split(r"[(), ]+", name))]
    large = selected(workloads.patterns("large"))
    assert all(LARGE & set(re.split(r"[(), ]+", name)) or "calibration" in name for name in large)


def test_the_quick_run_has_the_floors_of_what_it_shows() -> None:
    """And all of its counts: the table in the terminal has them below each other."""
    names = selected(workloads.patterns(QUICK))
    assert {
        f"many_images.ReadMany.time_read('lmdb', {count})" for count in (1, 10, 10_000)
    } <= names
    for workload in used_in(QUICK):
        for floor in KNOWN[workload.source.benchmark].get("floors", {}).values():
            assert [name for name in names if name.partition("(")[0] == floor]


def test_the_quick_run_has_plain_code_beside_what_it_reads() -> None:
    """The table of what the promises cost has figures of every backend, and of no other store."""
    names = selected(workloads.patterns(QUICK))
    for workload in used_in(workloads.PLAIN):
        plain = KNOWN[workload.source.benchmark]["plain"]
        of_it = {name for name in names if name.startswith(f"{plain}(")}
        if workload.id in ("read", "shuffled", "random", "open"):
            wanted = columns(workload.source)
            assert of_it == {
                plain + name.removeprefix(workload.source.benchmark) for name in wanted
            }
        else:
            assert not of_it


def test_the_gate_counts_what_it_times() -> None:
    """A figure of time has an operation with the same name, that is counted."""
    operations = KNOWN["work.Instructions.track_instructions"]["params"][1]
    assert {repr(workload.counted) for workload in used_in(GATE)} <= set(operations)
    assert all(repr(each.counted) in operations for each in WORKLOADS if each.counted)


def test_full_is_all_but_loaders() -> None:
    """Everything that needs no further package, and is not large."""
    names = selected(["."]) - selected(workloads.patterns("full"))
    assert not [
        name
        for name in names
        if not name.startswith("loaders.") and not LARGE & set(re.split(r"[(), ]+", name))
    ]


def test_over_plain_code() -> None:
    """The costs of an image are divided, whatever a call handles; without either there is none."""

    def measured(name: str, plain: str, images: int, value: float | None) -> dict[str, Benchmark]:
        known = {"param_names": ["backend", "order"], "images": images, "plain": plain}
        return {name: Benchmark(known, {("lmdb", "shuffled"): Figure(value, {}, None, True)})}

    key = ("lmdb", "shuffled")
    ours = measured("ours", "plain", 10_000, 3.0)
    plain = measured("plain", "", 1_000, 0.1)
    assert over_plain(ours | plain, "ours", key) == pytest.approx(3.0)
    assert over_plain(ours | plain, "ours", ("png", "shuffled")) is None
    assert over_plain(ours | plain, "plain", key) is None
    assert over_plain(ours, "ours", key) is None
    assert over_plain(ours | measured("plain", "", 1, None), "ours", key) is None
    assert over_plain(ours | measured("plain", "", 1, math.nan), "ours", key) is None
