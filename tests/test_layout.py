"""What CONTRIBUTING says of where things are: one table of workloads, a module for each command."""

import ast
from configparser import ConfigParser
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.stored_results import ROOT, known_benchmarks

pytestmark = pytest.mark.unmeasured

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "report").rglob("*.py")
}


def imports(path: Path) -> set[str]:
    """Return the modules of the report that one of them imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) or ({node.module} & MODULES.keys())
    return found


def test_no_two_modules_import_each_other() -> None:
    """Nor do more of them in a circle."""
    graph = {name: imports(path) for name, path in MODULES.items()}
    assert graph["report.commands.gate"] >= {"report.counts", "report.pairs", "report.workloads"}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_one_module_names_benchmarks() -> None:
    """What is shown, gated and swept is in workloads.py, and the charts beside; docs/ apart."""
    words = {name.rpartition(".")[0] for name in known_benchmarks()}
    named = {
        (name, word)
        for name, path in MODULES.items()
        for word in words
        if word in path.read_text(encoding="utf-8")
    }
    assert {name for name, _ in named if not name.startswith("report.docs.")} == {
        "report.workloads",
        "report.page.charts",
    }


def test_places_of_a_backend() -> None:
    """Beside its own module, four modules name a backend; some are about certain stores alone."""
    about = {
        "storage_impl.shards",  # an example
        "benchmarks.encoding",  # read with an empty page cache
        "benchmarks.cost",  # beside plain code, pair by pair
        "benchmarks.plain_stores",
        "benchmarks.shards",
        "benchmarks.tuning_hdf5",
        "benchmarks.many_images",  # the floors that there are
        "benchmarks.single_image",
        "report.docs.charts",
    }
    named = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("storage_impl", "benchmarks", "report")
        for path in (ROOT / folder).rglob("*.py")
        if '"hdf5"' in path.read_text(encoding="utf-8")
    }
    assert named - about == {
        "storage_impl.hdf5",
        "storage_impl.__init__",
        "benchmarks.common",
        "report.docs.tables",
    }


def test_each_command_has_its_environment() -> None:
    """Each module of the commands is run by tox, which runs nothing else of this project."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [line for section in setup.values() for line in section.get("commands", "").split("\n")]
    lines.append(setup["testenv"]["install_command"])
    run = {words[words.index("-m") + 1] for line in lines if "-m" in (words := line.split())}
    commands = {name for name in MODULES if name.startswith("report.commands.")}
    assert run == commands
