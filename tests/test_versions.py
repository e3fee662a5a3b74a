"""The sweep over library versions: what is varied, what is measured, and what the user reads."""

import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable
from configparser import ConfigParser
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from asv import environment as asv_environment
from asv.commands.run import Run
from asv.config import Config
from asv.util import ProcessError, UserError, load_json
from packaging.requirements import Requirement
from packaging.version import Version

from benchmarks.common import BACKENDS
from report import obstacles, runner, terminal, workloads
from report.commands import versions
from report.results import Benchmark, Figure, Result
from tests.stored_results import CURRENT, ROOT, Stored, known_benchmarks, store

pytestmark = pytest.mark.unmeasured

EXACT = re.compile(r"\d+(\.\d+)+")
LISTED: list[dict[str, str]] = load_json(ROOT / versions.VERSIONS, js_comments=True)
DATASET = "synthetic"


@pytest.fixture(scope="module")
def conf() -> Any:
    """Return asv's configuration, as a plain run has it."""
    return Config.load(ROOT / "asv.conf.json")


@pytest.fixture(scope="module")
def default(conf: Any) -> dict[str, str]:
    """Return the versions of a plain run."""
    return {name: each[0] for name, each in conf.matrix["req"].items()}


def lower_bounds() -> dict[str, Version]:
    """Return the oldest version of each library that the package allows."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    bounds = {}
    for requirement in map(Requirement, setup["options"]["install_requires"].split()):
        (only,) = requirement.specifier
        assert only.operator == ">="
        bounds[requirement.name] = Version(only.version)
    return bounds


def oldest() -> dict[str, Version]:
    """Return the versions that `tox run -e oldest` installs."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pins = [line.split("==") for line in setup["testenv:oldest"]["deps"].split() if "==" in line]
    return {name: Version(version) for name, version in pins if not name.startswith("asv")}


# -- what is varied ------------------------------------------------------------------------------


def test_oldest_are_the_lower_bounds() -> None:
    """The tests are run with exactly the oldest versions that the package allows."""
    assert oldest() == lower_bounds()


def test_pins_agree(conf: Any) -> None:
    """Types are checked with the libraries that are measured, and asv measures as it reports."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lint = dict(re.findall(r"- (\w+)==(.+)", (ROOT / ".pre-commit-config.yaml").read_text()))
    measured = {name: version for name, (version,) in conf.matrix["req"].items()}
    shared = lint.keys() & measured.keys()
    assert shared
    assert {name: lint[name] for name in shared} == {name: measured[name] for name in shared}
    asv = dict(line.split("==") for line in setup["asv"]["deps"].split())
    assert measured["pip+asv_runner"] == asv["asv_runner"]


@pytest.mark.parametrize("library", workloads.LIBRARIES)
def test_from_the_oldest_to_the_newest(library: str, default: dict[str, str]) -> None:
    """There are four versions of each library at least, from the lower bound to the default."""
    found = {Version(line[library]) for line in LISTED if library in line}
    found.add(Version(default[library]))
    assert len(found) >= 4
    assert min(found) == lower_bounds()[library]
    assert max(found) == Version(default[library])


def test_exact_versions() -> None:
    """A version is one and the same whenever it is installed."""
    assert all(EXACT.fullmatch(version) for line in LISTED for version in line.values())


def test_one_varied_at_a_time(default: dict[str, str]) -> None:
    """Each environment has another that differs in one library alone, to be compared with."""
    environments = [default, *({**default, **line} for line in LISTED)]
    assert len({tuple(sorted(each.items())) for each in environments}) == len(environments)
    for one in environments:
        differences = [sum(one[name] != other[name] for name in one) for other in environments]
        assert 1 in differences, one


def test_no_plain_run_includes_it(conf: Any) -> None:
    """`asv run` has the default environment and no other."""
    assert not conf.include
    assert all(len(each) == 1 for each in conf.matrix["req"].values())


def test_the_sweep_goes_on_from_a_plain_run(conf: Any) -> None:
    """The default environment has the name under which a plain run keeps its results."""
    sweep = Config.load(ROOT / "asv.conf.json")
    sweep.include = versions.environments(sweep, LISTED)
    (plain,) = asv_environment.get_environments(conf, None)
    names = [each.name for each in asv_environment.get_environments(sweep, None)]
    assert names[0] == plain.name
    assert len(set(names)) == len(LISTED) + 1
    assert sweep.results_dir == conf.results_dir
    assert sweep.env_dir == conf.env_dir


def test_a_line_that_varies_nothing(conf: Any) -> None:
    """A mistyped name is an error, not an environment that differs in nothing."""
    with pytest.raises(obstacles.ObstacleError, match="pillow.*numpy, Pillow, lmdb, h5py"):
        versions.environments(conf, [{"pillow": "9.2.0"}])


# -- what is measured ----------------------------------------------------------------------------


@cache
def selected() -> dict[str, list[tuple[str, ...]]]:
    """Return the benchmarks of the sweep, each with its parameters as asv writes them."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for name, known in known_benchmarks().items():
        for key in product(*known["params"]):
            full = f"{name}({', '.join(key)})" if key else name
            if any(re.search(pattern, full) for pattern in workloads.patterns(workloads.SWEEP)):
                found.setdefault(name, []).append(key)
    return found


@pytest.mark.parametrize("pattern", workloads.patterns(workloads.SWEEP))
def test_each_pattern_selects(pattern: str) -> None:
    """No benchmark was renamed from under the sweep."""
    assert any(
        re.search(pattern, f"{name}({', '.join(key)})")
        for name, keys in selected().items()
        for key in keys
    )


def test_selected_are_enough() -> None:
    """A difference can become significant, and what takes minutes is left out."""
    known = known_benchmarks()
    found = selected()
    assert not [name for name in found if "concurrency" in name]
    for name in found:
        if known[name]["type"] == "time":
            assert known[name]["rounds"] * known[name]["repeat"] >= 10, name


@pytest.mark.parametrize("workload", workloads.used_in(workloads.VERSIONS))
def test_what_the_table_shows_is_measured(workload: workloads.Workload) -> None:
    """Every cell of the table has a figure, for every backend."""
    source = workload.source
    keys = [(repr(backend), *map(repr, source.parameters)) for backend in BACKENDS]
    assert set(keys) <= set(selected()[source.benchmark])


# -- what the user reads -------------------------------------------------------------------------

PILLOW = """\
Pillow, beside numpy 2.4.6, lmdb 3.0.0, h5py 3.16.0

               Pillow  inside          png      x    hdf5      x    cpu

Read all       9.2.0   zlib 1.2.13     100           0.50
Read all       11.1.0  zlib-ng 2.2.2   250  2.50*    0.50  1.00   1.10*
Read all       13.0.0                  200  0.80*  failed         0.91*

Random access  9.2.0   zlib 1.2.13    80.0           11.0"""


def figure(seconds: float | None) -> Figure:
    """Return a figure of ten samples that differ by 1%."""
    if seconds is None:
        return Figure(None, {}, None, True)
    stats = {"repeat": 10, "ci_99_a": seconds * 0.99, "ci_99_b": seconds * 1.01}
    return Figure(seconds, stats, None, True)


def result(
    change: dict[str, str],
    figures: dict[str, dict[Any, float | None]],
    facts: dict[str, str] | None = None,
) -> Result:
    """Return what was measured in an environment, in seconds a call."""
    measured = {}
    for name, values in figures.items():
        names = ["backend", "count" if "Many" in name else "order", "batch"]
        known: dict[str, Any] = {"param_names": names[: len(next(iter(values)))]}
        if "Many" not in name:  # a count says it there
            known["images"] = 100
        measured[name] = Benchmark(known, {key: figure(value) for key, value in values.items()})
    environment = {"python": "3.11", **CURRENT, **change}
    return Result(
        "desk", str(change), "c0ffee", 0, {}, environment, facts or {}, {DATASET: measured}, 0
    )


def read(png: float, hdf5: float | None, cpu: float) -> dict[str, dict[Any, float | None]]:
    """Return figures of reading 10,000 images, in microseconds an image."""
    many = {
        ("png", 10_000): png / 100,
        ("hdf5", 10_000): None if hdf5 is None else hdf5 / 100,
        ("png", 1_000): math.nan,
    }
    return {"many_images.ReadMany.time_read": many, "calibration.Cpu.time_work": {(): cpu}}


def test_tables() -> None:
    """The versions of a library in their order, each with the factor to the one before it.

    Only environments that are alike otherwise are put side by side. What is more than noise is
    marked, what failed says so, and what was not measured is left out.
    """
    one = {"single_image.ReadOne.time_read_100": {("png",): 80e-4, ("hdf5",): 11e-4}}
    found = [
        result({}, read(200, None, 1.0)),
        result({"Pillow": "9.2.0"}, read(100, 0.5, 1.0) | one, {"zlib": "1.2.13"}),
        result({"Pillow": "11.1.0"}, read(250, 0.5, 1.1), {"zlib-ng": "2.2.2", "LMDB": "0.9"}),
        result({"Pillow": "11.1.0", "numpy": "1.26.4"}, read(1, 1, 1)),
    ]
    text = terminal.versions_text(found, DATASET)
    legend, *tables = text.split("\n\n" + "numpy, beside")
    assert legend == terminal.LEGEND
    (tables_of_both,) = tables
    of_numpy, of_pillow = tables_of_both.split("\n\nPillow, beside")
    assert "1.26.4" in of_numpy
    assert "2.4.6" in of_numpy
    assert "Pillow, beside" + of_pillow == PILLOW


def test_tables_fit_the_terminal() -> None:
    """No line has more than 100 characters, with the longest names and figures."""
    backends = ("png", "lmdb", "hdf5")
    figures = {
        of.source.benchmark: {(backend, *of.source.parameters): 123.456 for backend in backends}
        for of in workloads.used_in(workloads.VERSIONS)
    }
    facts = {"zlib-ng": "12.13.14"}
    found = [result({"Pillow": "11.1.10"}, figures, facts), result({}, figures, facts)]
    lines = terminal.versions_text(found, DATASET).splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line == line.rstrip() for line in lines)


def test_nothing_to_compare() -> None:
    """A run of one environment, or of other benchmarks, has no table."""
    assert terminal.versions_text([result({}, read(200, 1, 1.0))], DATASET) == ""
    assert terminal.versions_text([result({}, {}), result({"lmdb": "1.4.1"}, {})], DATASET) == ""


class Environment:
    """An environment of asv's that is not there, and cannot be made if `broken`."""

    python = "3.11"

    def __init__(self, change: dict[str, str], broken: bool = False) -> None:
        self.requirements = {**CURRENT, **change}
        named = sorted(self.requirements.items())
        self.name = "virtualenv-py3.11-" + "-".join(map("".join, named))
        self.broken = broken

    def create(self) -> None:
        if self.broken:
            raise ProcessError(["pip"], 1, "", "no matching distribution")


class Sweep(NamedTuple):
    """A checkout in which asv and git are not run."""

    stored: Stored
    environments: list[Environment]
    asked: list[Any]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A checkout with results of two commits, and of one more environment than is measured."""
    environments = [Environment({}), Environment({"lmdb": "1.4.1"})]
    stored = store(
        tmp_path / "checkout",
        commits=2,
        environments=[
            *(environment.requirements for environment in environments),
            {**CURRENT, "lmdb": "2.1.1"},
        ],
    )
    settings = json.loads((stored.directory / "asv.conf.json").read_text())
    settings["plugins"] = []
    settings["matrix"] = {"req": {name: [version] for name, version in CURRENT.items()}}
    (stored.directory / "asv.conf.json").write_text(json.dumps(settings))
    asked: list[Any] = []

    def run(conf: Any, options: Any) -> int:
        asked.append((conf, options, os.environ["TMPDIR"], tempfile.gettempdir()))
        for path in stored.results.glob("machine-0/*lmdb1.4.1*.json"):
            path.write_text(path.read_text() + "\n\n")
            os.utime(path, (1, 1))
        return 0

    monkeypatch.chdir(stored.directory)
    monkeypatch.setattr(runner, "ROOT", stored.directory)
    monkeypatch.setattr(runner, "asv", lambda *arguments: asked.append(arguments) or 0)
    monkeypatch.setattr(runner, "remember_machine", lambda machine: machine or "desk")
    monkeypatch.setattr(runner, "notes", lambda code: [])
    monkeypatch.setattr(runner, "git", lambda *arguments: "c0ffee")
    monkeypatch.setattr(runner, "unless_obstructed", unless_obstructed)
    monkeypatch.setattr(versions, "VERSIONS", ROOT / versions.VERSIONS)
    monkeypatch.setattr(asv_environment, "get_environments", lambda conf, names: environments)
    monkeypatch.setattr(Run, "run_from_conf_args", run)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("STORAGE_IMPL_DATASET", raising=False)
    return Sweep(stored, environments, asked)


def unless_obstructed(command: Callable[[], int]) -> int:
    """Run a command, and say what was in its way."""
    try:
        return command()
    except obstacles.ObstacleError as obstacle:
        print(obstacle, file=sys.stderr)
        return 1


def test_a_sweep(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    """All environments are measured, the site is made, and the tables are of the newest commit."""
    assert versions.main([]) == 0
    (conf, options, *scratch), publish = sweep.asked
    assert len(conf.include) == len(LISTED)
    assert options.bench == workloads.patterns(workloads.SWEEP)
    assert options.show_stderr
    assert options.interleave_rounds
    assert options.attribute == {"rounds": 4, "repeat": 3}
    assert scratch[0] == scratch[1] != str(sweep.stored.directory.parent)
    assert publish == ("publish",)
    out = capsys.readouterr().out
    assert "Environment 2 of 2: numpy 2.4.6, Pillow 13.0.0, lmdb 1.4.1, h5py 3.16.0\n" in out
    assert f"commit {sweep.stored.commits[-1][:8]}, images 'synthetic'\n" in out
    assert re.search(r"^Read all +1\.4\.1 ", out, re.MULTILINE)
    assert re.search(r"^Read all +3\.0\.0 ", out, re.MULTILINE)
    assert "2.1.1" not in out
    assert f"The site: {sweep.stored.html / 'index.html'}\n" in out


def test_arguments_for_asv(sweep: Sweep) -> None:
    """What follows the dashes goes to asv run; its benchmarks take the place of the sweep's."""
    assert versions.main(["--bench", "ReadMany", "--skip-existing-successful"]) == 0
    _, options, *_ = sweep.asked[0]
    assert options.bench == ["ReadMany"]
    assert options.skip_existing_successful


def test_a_dry_run(sweep: Sweep) -> None:
    """A run that keeps nothing is possible: asv cannot keep its first round for the second."""
    assert versions.main(["--dry-run"]) == 0
    _, options, *_ = sweep.asked[0]
    assert options.dry_run
    assert not options.interleave_rounds


def test_an_environment_that_cannot_be_made(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, with what to do, and nothing is measured."""
    sweep.environments[1].broken = True
    assert versions.main([]) == 1
    assert sweep.asked == []
    said = capsys.readouterr().err
    assert "make an environment with numpy 2.4.6, Pillow 13.0.0, lmdb 1.4.1, h5py 3.16.0" in said
    assert "versions.json" in said


def test_a_user_error(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What asv refuses ends the run with a failure, and nothing is published."""

    def refuse(*_: Any) -> int:
        raise UserError("no such thing")

    monkeypatch.setattr(Run, "run_from_conf_args", refuse)
    assert versions.main([]) == 1
    assert sweep.asked == []
    assert "nothing to publish" in capsys.readouterr().out


def test_dependencies_are_not_replaced(conf: Any) -> None:
    """What is installed last, the package itself, brings no newer libraries with it."""
    assert all("--no-deps" in command for command in conf.build_command + conf.install_command)
