"""`tox run -e others`: further stores in an environment of their own, in the same site."""

import json
import re
import subprocess
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asv.util import load_json

import report.measure
from benchmarks import plain_stores
from report import obstacles, runner, workloads
from report.commands import others
from tests.stored_results import ROOT, known_benchmarks

pytestmark = pytest.mark.unmeasured


def test_what_is_measured() -> None:
    """It is plain code for every store, no more, and what is not large."""
    found = set()
    for name, known in known_benchmarks().items():
        for key in product(*known["params"]):
            full = f"{name}({', '.join(key)})" if key else name
            if any(re.search(pattern, full) for pattern in workloads.patterns(workloads.STORES)):
                found.add((name.partition(".")[0], key[0] if key else "", "100000" in key))
    stores = {("plain_stores", repr(store), False) for store in plain_stores.STORES}
    assert found == stores | {("calibration", "", False)}


def test_each_store_has_its_package() -> None:
    """There is one exact version of what each module imports."""
    listed = load_json(str(ROOT / others.PACKAGES), js_comments=True)
    sources = [
        (ROOT / "benchmarks" / "plain" / "others" / f"{store}.py").read_text()
        for store in plain_stores.OTHERS
    ]
    assert len(listed) == len(sources)
    for name, version in listed.items():
        assert re.fullmatch(r"\d+(\.\d+)+", version)
        assert [source for source in sources if f"import {name}" in source]


def test_a_package_without_a_wheel_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its store is n/a, and that is said; without any there is nothing to measure."""

    def pip(command: list[str], **_: Any) -> Any:
        assert {"--dry-run", "--only-binary"} <= set(command)
        return SimpleNamespace(returncode=int("plyvel==1" in command))

    monkeypatch.setattr(subprocess, "run", pip)
    assert others.with_wheels({"plyvel": "1", "zarr": "3"}, others.PACKAGES) == {"zarr": "3"}
    said = "plyvel 1 has no wheel here: benchmarks that need it are n/a.\n"
    assert capsys.readouterr().out == said
    with pytest.raises(obstacles.ObstacleError, match="pip found none of plyvel"):
        others.with_wheels({"plyvel": "1"}, others.PACKAGES)


def test_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One environment more is made, measured in, and published; what the user adds goes to asv."""
    made, measured = [], []
    monkeypatch.setattr(others, "with_wheels", lambda packages, _: {"zarr": packages["zarr"]})
    environments = others.environment.get_environments
    monkeypatch.setattr(
        others.environment,
        "get_environments",
        lambda *arguments: (
            SimpleNamespace(create=lambda each=each: made.append(each.requirements))
            for each in environments(*arguments)
        ),
    )
    monkeypatch.setattr(runner, "remember_machine", lambda machine: "desk")

    def measure(conf: Any, options: Any, space: int) -> int:
        measured.append((conf.matrix["req"]["zarr"], options.bench, options.quick))
        Path(conf.results_dir, "desk").mkdir(parents=True)
        described = {"machine": "desk", "version": 1}
        Path(conf.results_dir, "desk", "machine.json").write_text(json.dumps(described))
        Path(conf.results_dir, "desk", "0-x.json").write_text("{}")
        return 0

    monkeypatch.setattr(report.measure, "measure", measure)
    monkeypatch.setattr(runner, "publish", lambda conf: 0)
    monkeypatch.setattr(runner, "say_where", lambda conf, code: print("said"))
    load = others.Config.load

    def conf() -> Any:
        found = load(str(ROOT / "asv.conf.json"))
        found.results_dir = str(tmp_path / "results")
        return found

    monkeypatch.setattr(others, "Config", SimpleNamespace(load=conf))
    monkeypatch.chdir(ROOT)
    assert others.run(["--quick"], others.PACKAGES, workloads.patterns(workloads.STORES)) == 0
    ((version,),) = [entry[0] for entry in measured]
    assert measured[0][1:] == (workloads.patterns(workloads.STORES), True)
    (requirements,) = made
    assert requirements["zarr"] == version
    assert "said" in capsys.readouterr().out
