"""The selftest: what it plants, what it reads of asv, how it judges, and the spread it prints."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asv.results import Results
from asv.runner import BenchmarkResult

from report import noise, obstacles, runner
from report.commands import selftest
from report.commands.selftest import Run
from report.continuous import Row
from tests.test_report import git

NAN = float("nan")
READ = "many_images.ReadMany.time_read('lmdb', 1000)"
WRITE = "many_images.WriteMany.time_write('lmdb', 1000)"
OTHER = "many_images.ReadMany.time_read('png', 1000)"
CPU = "calibration.Cpu.time_work"

# What asv 0.6.6 prints, its progress shortened.
CHANGED = f"""\
· Creating environments
· Running 36 total benchmarks (2 commits * 1 environments * 18 benchmarks)
[100.00%] ··· single_image.ReadOne.time_read                                  ok
[100.00%] ··· ========= =============
               backend
              --------- -------------
                 png     9.92±0.2ms
                 lmdb     270±5μs
              ========= =============
| Change   | Before [0be1ce49] <v>   | After [f6c0ffee]    |   Ratio | Benchmark (Parameter) |
|----------|-------------------------|---------------------|---------|-----------------------|
| +        | 1.01±0.01ms             | 1.32±0.02ms         |    1.31 | {READ} |
| -        | 95.3±1ms                | 70.2±1ms            |    0.74 | {OTHER} |

SOME BENCHMARKS HAVE CHANGED SIGNIFICANTLY.
PERFORMANCE DECREASED.
"""
UNCHANGED = "\nBENCHMARKS NOT SIGNIFICANTLY CHANGED.\n"


def row(change: str, ratio: str, benchmark: str) -> Row:
    """Return a line of asv's table."""
    return Row(change, "1ms", "2ms", ratio, benchmark)


def test_what_asv_names() -> None:
    """Every line of asv's table is read, and nothing else that it prints."""
    assert selftest.table(CHANGED) == [
        Row("+", "1.01±0.01ms", "1.32±0.02ms", "1.31", READ),
        Row("-", "95.3±1ms", "70.2±1ms", "0.74", OTHER),
    ]
    assert selftest.table(UNCHANGED) == []


def test_asv_without_a_verdict() -> None:
    """Where asv stops before its table, the end of what it printed is shown."""
    with pytest.raises(obstacles.ObstacleError, match="asv: benchmark failed"):
        selftest.table("first\n" * 100 + "asv: benchmark failed (exit status 1)\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (row("+", "1.3", READ), True),
        (row("+", "1.3", "single_image.ReadOne.time_read('lmdb')"), True),
        (row("-", "0.7", READ), False),
        (row("!", "n/a", READ), False),
        (row("+", "1.3", WRITE), False),
        (row("+", "1.3", OTHER), False),
    ],
)
def test_what_was_planted(line: Row, expected: bool) -> None:
    """It is a slower read of that backend: one that fails, a write or another backend is not."""
    assert selftest.is_planted(line) == expected


def run_of(*changed: Row) -> Run:
    return Run(list(changed), {READ: 1.0, OTHER: 1.0}, {READ: 1.1, OTHER: 1.0})


@pytest.mark.parametrize(
    ("changed", "quiet", "alone", "said"),
    [
        ([], True, False, "nothing"),
        ([row("+", "1.31", READ)], False, True, "1 read of lmdb, x 1.31 to 1.31"),
        (
            [row("+", "1.31", READ), row("-", "0.7", OTHER)],
            False,
            False,
            f"1 read of lmdb, x 1.31 to 1.31; {OTHER} x 0.7 (1ms, then 2ms)",
        ),
        ([row("+", "1.2", WRITE)], False, False, f"{WRITE} x 1.2 (1ms, then 2ms)"),
        ([row("!", "n/a", READ)], False, False, f"{READ} x n/a (1ms, then 2ms)"),
        (
            [row("+", "1.4", CPU)],
            True,
            False,
            f"nothing; the machine changed: {CPU} x 1.4 (1ms, then 2ms)",
        ),
        (
            [row("-", "0.8", CPU), row("+", "1.31", READ)],
            False,
            True,
            f"1 read of lmdb, x 1.31 to 1.31; the machine changed: {CPU} x 0.8 (1ms, then 2ms)",
        ),
    ],
)
def test_judgement(changed: list[Row], quiet: bool, alone: bool, said: str) -> None:
    """The same code must have nothing named; what was planted must be, and nothing beside it.

    The calibration is not of the code: that it changed is said, and counts for nothing.
    """
    run = run_of(*changed)
    assert (selftest.quiet(run), selftest.found_alone(run)) == (quiet, alone)
    assert selftest.verdict(run) == said


def test_report() -> None:
    """It says what each run named, how many were right, and how far the same code is apart."""
    same = [run_of(), Run([], {READ: 1.5, OTHER: 1.0}, {READ: 1.5, OTHER: 1.0})]
    planted = [run_of(row("+", "1.31", READ)), run_of(row("+", "1.31", OTHER))]
    lines = selftest.report(same, planted)
    assert "  same code 2  nothing" in lines
    assert "  planted   1  1 read of lmdb, x 1.31 to 1.31" in lines
    assert "same code: nothing was named in 2 of 2" in lines
    assert lines[-1].startswith('"regressions_thresholds": {')
    (found,) = (line for line in lines if line.endswith(READ) and "%" in line)
    assert found.split()[:5] == ["10.0%", "50.0%", "1", "of", "2"]
    assert max(map(len, lines)) <= 100


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
        ([], [row("+", "1.3", READ)], 0),
        ([row("+", "1.3", CPU)], [row("+", "1.3", READ), row("-", "0.7", CPU)], 0),
        ([row("+", "1.3", OTHER)], [row("+", "1.3", READ)], 1),
        ([], [], 1),
        ([], [row("+", "1.3", READ), row("+", "1.3", OTHER)], 1),
    ],
)
def test_exit_code(
    same: list[Row],
    planted: list[Row],
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
    assert selftest.is_read("single_image.ReadOne.time_read('lmdb')")
    assert not selftest.is_read("many_images.ReadMany.time_read('png', 1000)")
    assert not selftest.is_read("many_images.WriteMany.time_write('lmdb', 1000)")


# -- the spread --------------------------------------------------------------------------------


def save(directory: Path, **values: Any) -> str:
    """Save what a run measured, as asv does; return the file."""
    machine = {"machine": "desk", "python": "3.11"}
    results = Results(machine, {}, "0" * 40, 0, "3.11", "virtualenv-py3.11", {})
    for name, (params, *found) in values.items():
        known = {"name": name.replace("__", "."), "version": "1", "params": params}
        none = [None] * len(found)
        results.add_result(known, BenchmarkResult(found, none, none, 0, "", None))
    results.save(str(directory))
    return str(next(directory.glob("desk/*.json")))


def test_medians(tmp_path: Path) -> None:
    """What failed or was not run has no figure; all else has its name with the parameters."""
    path = save(tmp_path, a__B__time_c=([["'png'", "'lmdb'", "'x'"]], 1.5, None, NAN), d=([], 2.0))
    assert noise.medians(path) == {"a.B.time_c('png')": 1.5, "d": 2.0}


def test_spreads() -> None:
    """The largest over the smallest, of what was measured more than once."""
    found = noise.spreads([{"a": 2.0, "b": 1.0}, {"a": 3.0}, {"a": 2.5}])
    assert found == {"a": 0.5}


@pytest.mark.parametrize(
    ("spread", "expected"), [(0.04, None), (0.05, None), (0.051, 0.1), (0.15, 0.15), (1.52, 1.55)]
)
def test_thresholds(spread: float, expected: float | None) -> None:
    """Where asv's own is too small the threshold is the spread, rounded up; asv matches it."""
    name = "many_images.ReadMany.time_read('png', 1000)"
    found = noise.thresholds({name: spread})
    assert list(found.values()) == ([] if expected is None else [expected])
    for pattern in found:
        assert re.match(pattern, f"{name}@HEAD")  # as asv calls it, with the branch
        assert not re.match(pattern, name.replace("png", "lmdb"))


def test_one_threshold_for_a_first_parameter() -> None:
    """It is of the widest spread, and of no other benchmark whose name begins alike."""
    found = noise.thresholds(
        {
            "a.B.time_c('put, append', 24)": 0.1,
            "a.B.time_c('put, append', 32)": 0.3,
            "a.B.time_c('put', 32)": 0.2,
            "a.B.time_c_d('put', 32)": 0.02,
            "a.B.time_e": 0.4,
        }
    )
    assert list(found.values()) == [0.3, 0.2, 0.4]
    names = ["a.B.time_c('put, append', 64)", "a.B.time_c('put', 64)", "a.B.time_e"]
    for pattern, name in zip(found, names, strict=True):
        assert [
            each
            for each in [*names, "a.B.time_c_d('put', 32)", "a.B.time_e_f"]
            if re.match(pattern, f"{each}@HEAD")
        ] == [name]


def test_printed_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the widest first, and entries that asv.conf.json can take."""
    first = save(tmp_path / "1", a=([["'png'"]], 1.0), b=([], 1.0))
    second = save(tmp_path / "2", a=([["'png'"]], 1.04), b=([], 1.3))
    noise.main([first, second])
    lines, _, entries = capsys.readouterr().out.partition('\n\n"regressions_thresholds": ')
    assert lines.splitlines() == ["  30.0%  b", "   4.0%  a('png')"]
    assert json.loads(entries) == {"b(@|$)": 0.3}
