"""The calibration, and what is recorded beside the results: the same in every environment."""

import json
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import h5py
import json5
import lmdb
import pytest
import xxhash
from asv.config import Config
from asv.machine import Machine
from asv.plugins.virtualenv import Virtualenv
from asv.results import get_filename, iter_results_paths
from PIL import features

from benchmarks import calibration, common, datasets, environment
from report.results import facts_of, libraries

pytestmark = pytest.mark.unmeasured

ROOT = Path(__file__).resolve().parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def asv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What asv sets up before it calls `setup_cache`; give its results' directory."""
    monkeypatch.setenv("ASV_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("ASV_COMMIT", COMMIT)
    monkeypatch.setenv("ASV_ENV_NAME", "virtualenv-py3.11-numpy2.4.6")
    results = tmp_path / ".asv" / "results"
    machine = Machine()
    machine.__dict__.update(machine="desk", os="", arch="", cpu="", num_cpu="", ram="")
    machine.save(str(results))
    return results


# -- what is recorded --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["virtualenv-py3.11-numpy2.4.6", "virtualenv-" + "x" * 200])
def test_beside_the_results(name: str, asv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The facts have the name of the file of results, however long the environment's is."""
    monkeypatch.setenv("ASV_ENV_NAME", name)
    environment.record_facts()
    assert facts_of(asv / get_filename("desk", COMMIT, name)) == environment.collect()


def test_where_asv_keeps_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of the facts is the one that asv.conf.json names."""
    conf = json5.loads((ROOT / "asv.conf.json").read_text())
    assert Path(conf["results_dir"]) == environment.RESULTS


def test_asv_sets_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To every process of an environment asv tells its commit, its name and where it runs."""
    monkeypatch.chdir(tmp_path)
    python = "{}.{}".format(*sys.version_info[:2])
    environment = Virtualenv(Config(), python, {"numpy": "2.4.6"}, {})
    environment._set_commit_hash(COMMIT)
    variables = environment._global_env_vars
    assert variables["ASV_CONF_DIR"] == str(tmp_path)
    assert variables["ASV_COMMIT"] == COMMIT
    assert variables["ASV_ENV_NAME"] == environment.name


def test_the_machine_that_runs(asv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among the machines whose results are kept it is the one that asv described last."""
    old = asv / "old" / "machine.json"
    old.parent.mkdir()
    old.touch()
    os.utime(old, (1, 1))
    assert environment.sidecar() == asv / "desk" / "01234567-virtualenv-py3.11-numpy2.4.6.facts"


@pytest.mark.parametrize("missing", ["ASV_CONF_DIR", "ASV_COMMIT", "ASV_ENV_NAME"])
def test_outside_of_asv(missing: str, asv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written where asv keeps no results: in an environment of the user's own."""
    monkeypatch.delenv(missing)
    environment.record_facts()
    assert [path.name for path in asv.rglob("*.*")] == ["machine.json"]


def test_without_a_machine(asv: Path) -> None:
    """Where asv has described no machine there is nothing to stand beside."""
    (asv / "desk" / "machine.json").unlink()
    environment.record_facts()
    assert not list(asv.rglob("*.facts"))


def test_asv_passes_over_it(asv: Path) -> None:
    """The facts are not results to asv."""
    environment.record_facts()
    assert len(list(asv.rglob("*.facts"))) == 1
    assert list(iter_results_paths(str(asv))) == []


def test_every_setup_records(asv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever benchmarks are run, their environment's facts are recorded."""
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda count: load(1))
    monkeypatch.chdir(asv.parent)
    common.Suite().setup_cache()
    assert len(list(asv.rglob("*.facts"))) == 1


def test_facts_of_this_process() -> None:
    """They are strings, and those of the libraries that are loaded."""
    found = environment.collect()
    zlib = {"zlib": features.version("zlib")}
    if "zlib_ng" in features.features and features.check("zlib_ng"):
        zlib = {"zlib-ng": features.version("zlib_ng")}
    expected = {
        "LMDB": "{}.{}.{}".format(*lmdb.version()),
        "HDF5": h5py.version.hdf5_version,
        **zlib,
        "xxHash": xxhash.XXHASH_VERSION,
    }
    assert expected.items() <= found.items()
    assert found["Python"].endswith(".".join(map(str, sys.version_info[:3])))
    rest = {"file system", "kernel", "CPU", "Python", "page cache", "valgrind"}
    assert set(found) - set(expected) == rest
    assert all(isinstance(value, str) and value for value in found.values())
    assert libraries(found).startswith(f"LMDB {expected['LMDB']}, HDF5 {expected['HDF5']}, zlib")


def test_an_older_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow before 11.1 does not know zlib-ng: it is asked for zlib, without a warning."""
    known = {name: module for name, module in features.features.items() if name != "zlib_ng"}
    monkeypatch.setattr(features, "features", known)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = environment.libraries()
    assert found["zlib"] == features.version("zlib")
    assert "zlib-ng" not in found


def test_a_pillow_without_zlib_ng(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pillow that knows zlib-ng may still be built with zlib."""
    monkeypatch.setattr(features, "version_feature", lambda name: None)
    assert environment.libraries()["zlib"] == features.version("zlib")


MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
28 27 0:25 / /data rw,relatime - xfs /dev/vdb rw
29 27 0:26 / /data/my\040images rw,relatime shared:2 master:1 - btrfs /dev/vdc rw
30 28 0:27 / /data/twice rw - tmpfs one rw
31 30 0:28 / /data/twice rw - overlay two rw
""".strip()


@pytest.mark.parametrize(
    ("path", "expected"),
    {
        "/": "ext4",
        "/data": "xfs",
        "/data/deep/down": "xfs",
        "/database": "ext4",
        "/data/my images/0": "btrfs",
        "/data/twice/x": "overlay",
    }.items(),
)
def test_file_system(path: str, expected: str, tmp_path: Path) -> None:
    """It is that of the deepest mount above the directory, and of those the last."""
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert environment.file_system(Path(path), tmp_path / "mountinfo") == expected


def test_file_system_elsewhere(tmp_path: Path) -> None:
    """Without Linux's list of mounts it is unknown."""
    assert environment.file_system(tmp_path, tmp_path / "none") == "unknown"


def test_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the model that Linux names, or what Python knows."""
    described = tmp_path / "cpuinfo"
    described.write_text("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nmodel name\t: A CPU @ 2 GHz")
    assert environment.cpu(described) == "A CPU @ 2 GHz"
    monkeypatch.setattr(
        environment, "platform", SimpleNamespace(processor=lambda: "", machine=lambda: "arm")
    )
    assert environment.cpu(tmp_path / "none") == "arm"


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_no_facts(content: str | None, tmp_path: Path) -> None:
    """Results of before, or whose facts were lost, have none; that is no error."""
    if content is not None:
        (tmp_path / "0.facts").write_text(content)
    assert facts_of(tmp_path / "0.json") == {}
    assert libraries({}) == ""


def test_libraries_in_order() -> None:
    """The line names each library once, in a fixed order, and no other fact."""
    recorded = json.loads('{"kernel": "Linux", "zlib": "1.2.13", "HDF5": "1.14.5"}')
    assert libraries(recorded) == "HDF5 1.14.5, zlib 1.2.13"


# -- the calibration ---------------------------------------------------------------------------


def test_calibration_needs_nothing_installed() -> None:
    """The load is the same in every environment: only the standard library is imported."""
    lines = Path(calibration.__file__).read_text().splitlines()
    imported = {
        line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))
    }
    assert imported <= sys.stdlib_module_names


def test_calibration_of_the_cpu_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less work than is said has no figure."""
    cpu = calibration.Cpu()
    cpu.setup()
    monkeypatch.setattr(calibration, "STEPS", calibration.STEPS - 1)
    with pytest.raises(RuntimeError, match="the work gave"):
        cpu.setup()


def test_calibration_of_the_disk_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written to the disk, synced, and read back; nothing of it stays."""
    monkeypatch.chdir(tmp_path)
    synced: list[int] = []
    fsync = os.fsync

    def count(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    disk = calibration.Disk()
    disk.setup()
    assert not disk.path.exists()
    monkeypatch.setattr(os, "fsync", count)
    disk.found = b""
    disk.time_work()
    assert synced == [calibration.WRITTEN]
    assert disk.path.read_bytes() == disk.found == disk.content
    disk.teardown()
    assert list(tmp_path.iterdir()) == []


def test_calibration_of_a_disk_that_forgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not come back as it was written has no figure."""
    monkeypatch.chdir(tmp_path)
    disk = calibration.Disk()

    def forgets() -> None:
        disk.found = b""

    monkeypatch.setattr(disk, "time_work", forgets)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        disk.setup()
    disk.teardown()
    assert list(tmp_path.iterdir()) == []
