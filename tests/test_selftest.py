"""The selftest: what it plants, how it judges what the gate measured, and the spread it prints."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from report import obstacles, runner
from report.commands import selftest
from report.commands.selftest import Run
from report.comparison import Pair
from report.results import Figure
from tests.test_report import git

READ = "many_images.ReadMany.time_read('lmdb', 1000)"
WRITE = "many_images.WriteMany.time_write('lmdb', 1000)"
OTHER = "many_images.ReadMany.time_read('png', 1000)"
CPU = "calibration.Cpu.time_work"


def figure(seconds: float | None) -> Figure:
    """Return a figure of twelve samples that differ by 2%."""
    if seconds is None:
        return Figure(None, {}, None, True)
    stats = {"repeat": 12, "ci_99_a": seconds * 0.99, "ci_99_b": seconds * 1.01}
    return Figure(seconds, stats, None, True)


def pair(benchmark: str, ratio: float | None) -> Pair:
    """Return a benchmark that took a millisecond, and this many times as long after; None broke."""
    return Pair(benchmark, "seconds", figure(1e-3), figure(ratio and ratio * 1e-3))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (pair(READ, 1.3), True),
        (pair("single_image.ReadOne.time_read_100('lmdb')", 1.3), True),
        (pair(READ, 0.7), False),
        (pair(READ, None), False),
        (pair(WRITE, 1.3), False),
        (pair(OTHER, 1.3), False),
    ],
)
def test_what_was_planted(line: Pair, expected: bool) -> None:
    """It is a slower read of that backend: one that fails, a write or another backend is not."""
    assert selftest.is_planted(line) == expected


def run_of(*changed: Pair) -> Run:
    """Return a run in which all else stayed the same."""
    named = {each.benchmark for each in changed}
    same = [pair(name, 1.1 if name == READ else 1.0) for name in (READ, OTHER) if name not in named]
    return Run([*changed, *same])


@pytest.mark.parametrize(
    ("changed", "quiet", "alone", "said"),
    [
        ([], True, False, "nothing"),
        ([pair(READ, 1.31)], False, True, "1 read of lmdb, x 1.31 to 1.31"),
        (
            [pair(READ, 1.31), pair(OTHER, 0.7)],
            False,
            False,
            f"1 read of lmdb, x 1.31 to 1.31; {OTHER} x 0.70 (1.00ms, then 700μs)",
        ),
        ([pair(WRITE, 1.2)], False, False, f"{WRITE} x 1.20 (1.00ms, then 1.20ms)"),
        ([pair(READ, None)], False, False, f"{READ} x  (1.00ms, then failed)"),
        (
            [pair(CPU, 1.4)],
            True,
            False,
            f"nothing; the machine changed: {CPU} x 1.40 (1.00ms, then 1.40ms)",
        ),
        (
            [pair(CPU, 0.8), pair(READ, 1.31)],
            False,
            True,
            "1 read of lmdb, x 1.31 to 1.31; "
            f"the machine changed: {CPU} x 0.80 (1.00ms, then 800μs)",
        ),
    ],
)
def test_judgement(changed: list[Pair], quiet: bool, alone: bool, said: str) -> None:
    """The same code must have nothing named; what was planted must be, and nothing beside it.

    The calibration is not of the code: that it changed is said, and counts for nothing.
    """
    run = run_of(*changed)
    assert (selftest.quiet(run), selftest.found_alone(run)) == (quiet, alone)
    assert selftest.verdict(run) == said


def test_report() -> None:
    """It says what each run named, how many were right, and how far the same code is apart."""
    later = [Pair(name, "seconds", figure(1.5e-3), figure(1.5e-3)) for name in (READ, OTHER)]
    planted = [run_of(pair(READ, 1.31)), run_of(pair(OTHER, 1.31))]
    lines = selftest.report([run_of(), Run(later)], planted)
    assert "  same code 2  nothing" in lines
    assert "  planted   1  1 read of lmdb, x 1.31 to 1.31" in lines
    assert "same code: nothing was named in 2 of 2" in lines
    (found,) = (line for line in lines if line.endswith(READ) and "%" in line)
    assert found.split()[:5] == ["10.0%", "50.0%", "1", "of", "2"]
    assert max(map(len, lines)) <= 100


def test_nothing_compared(checkout: Path, tmp_path: Path) -> None:
    """Where the gate stops before it compares, the end of what it printed is shown."""
    (tmp_path / "scratch").mkdir()
    clone = selftest.Clone(tmp_path / "scratch")
    with pytest.raises(obstacles.ObstacleError, match="(?s)compared nothing.*No module named"):
        clone.compare("same code", clone.same, 1)


# -- what is planted ---------------------------------------------------------------------------

COUNT_READS = """
import sys, tempfile, pathlib
import numpy as np
import storage_impl
from storage_impl.lmdb import LmdbStore

images = np.arange(100 * 12, dtype=np.uint8).reshape(100, 2, 2, 3)
read = []
for name in "_read_range", "_read_indices":
    def count(self, wanted, images, labels, sums, original=getattr(LmdbStore, name)):
        read.append(len(images))
        original(self, wanted, images, labels, sums)
    setattr(LmdbStore, name, count)
get_one = LmdbStore._get_one
def count_one(self, txn, index):
    read.append(1)
    return get_one(self, txn, index)
LmdbStore._get_one = count_one
path = pathlib.Path(tempfile.mkdtemp(), "store")
with storage_impl.create_store(path, "lmdb", image_shape=(2, 2, 3), durable=False) as store:
    store.write_many(images, range(100))
for verify in False, True:
    with storage_impl.open_store(path, verify=verify) as store:
        for wanted in None, slice(0, 50), list(range(99, -1, -1)):
            read.clear()
            found, labels = store.read_many(wanted)
            expected = range(100) if wanted is None else np.arange(100)[wanted]
            assert (found == images[expected]).all() and (labels == np.array(expected)).all()
            print(sum(read), end=" ")
        read.clear()
        for index in range(100):
            image, label = store.read_one(index)
            assert (image == images[index]).all() and label == index
        print(sum(read), end=" ")
"""


def reads(package: Path) -> list[int]:
    """Return how many images are read for 100, 50, 100 and 100, unverified and verified."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COUNT_READS],
        capture_output=True,
        text=True,
        cwd=package,
    )
    assert done.returncode == 0, done.stderr
    return list(map(int, done.stdout.split()))


def test_the_planted_commit_reads_a_third_more(tmp_path: Path) -> None:
    """It does 30% more of the real work, whatever is read, and what it returns is right."""
    shutil.copytree(runner.ROOT / "storage_impl", tmp_path / "storage_impl")
    assert reads(tmp_path) == [100, 50, 100, 100] * 2
    with open(tmp_path / "storage_impl" / "lmdb.py", "a") as module:
        module.write(selftest.PLANT)
    assert reads(tmp_path) == [130, 65, 130, 130] * 2


# -- the whole, without asv's measuring --------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of which the selftest makes its clone."""
    root = tmp_path / "checkout"
    (root / "storage_impl").mkdir(parents=True)
    (root / "storage_impl" / "lmdb.py").write_text("# the backend\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "Start")
    monkeypatch.setattr(runner, "ROOT", root)
    monkeypatch.setattr(runner, "remember_machine", lambda: None)
    monkeypatch.delenv("TMPDIR", raising=False)
    return root


def test_clone(checkout: Path, tmp_path: Path) -> None:
    """One commit has the same files, one more work in the backend; the repository stays."""
    before = git(checkout, "log", "--format=%H", "--all")
    (tmp_path / "scratch").mkdir()
    clone = selftest.Clone(tmp_path / "scratch")
    changed = [
        git(clone.path, "diff", "--name-only", clone.base, commit)
        for commit in (clone.same, clone.planted)
    ]
    assert changed == ["", "storage_impl/lmdb.py"]
    assert len({clone.base, clone.same, clone.planted}) == 3
    assert git(checkout, "log", "--format=%H", "--all") == before


@pytest.mark.parametrize(
    ("same", "planted", "code"),
    [
        ([], [pair(READ, 1.3)], 0),
        ([pair(CPU, 1.3)], [pair(READ, 1.3), pair(CPU, 0.7)], 0),
        ([pair(OTHER, 1.3)], [pair(READ, 1.3)], 1),
        ([], [], 1),
        ([], [pair(READ, 1.3), pair(OTHER, 1.3)], 1),
    ],
)
def test_exit_code(
    same: list[Pair],
    planted: list[Pair],
    code: int,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is 0 only where every run came out right; the report is kept, and the clone is not."""
    seen = []

    def compare(self: Any, kind: str, commit: str, number: int) -> Run:
        seen.append(kind)
        return run_of(*(planted if commit == self.planted else same))

    monkeypatch.setattr(selftest.Clone, "compare", compare)
    monkeypatch.setattr(selftest.Clone, "head", lambda self: ["machine  desk"])
    assert selftest.main(["--runs", "2"]) == code
    assert seen == ["same code"] * 2 + ["planted"] * 2
    kept = (checkout / ".asv" / "selftest.txt").read_text()
    assert kept in capsys.readouterr().out
    assert [path.name for path in (checkout / ".asv").iterdir()] == ["selftest.txt"]


def test_what_is_planted() -> None:
    """Images of that backend are read more slowly, and nothing else is slower."""
    assert selftest.is_read("many_images.ReadMany.time_read('lmdb', 1000)")
    assert selftest.is_read("single_image.ReadOne.time_read_100('lmdb')")
    assert not selftest.is_read("many_images.ReadMany.time_read('png', 1000)")
    assert not selftest.is_read("many_images.WriteMany.time_write('lmdb', 1000)")
