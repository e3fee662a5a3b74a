"""The gate: what it counts and times, how it judges, what it says; and the plants to find."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from report import counts, pairs, plants, runner
from report.commands import gate, selftest
from report.commands.gate import BROKEN, WORSE, Judgement
from report.counts import Counted, Version
from report.obstacles import ObstacleError
from report.pairs import Timed

pytestmark = pytest.mark.unmeasured

SAME = Counted("png", "read all", "instructions", 1_000_000, 1_004_000)
MORE = SAME._replace(after=1_020_000)
LESS = SAME._replace(after=900_000)
BROKE = SAME._replace(after=None)
STEADY = [0.0100, 0.0101, 0.0100, 0.0102]


def timed(factor: float, noise: float = 0.0) -> Timed:
    """Return rounds of a benchmark, every second one off by some noise."""
    after = [seconds * factor * (1 + noise * (i % 2)) for i, seconds in enumerate(STEADY)]
    name = ("png", "read all")
    return Timed("many_images.ReadMany.time_read", ("png", 1000), name, STEADY, after)


JUDGED: list[tuple[list[Counted], list[Timed], int, str]] = [
    ([SAME], [timed(1.01)], 0, "Nothing got slower, in 1 counts and 1 times."),
    ([MORE], [timed(1.01)], WORSE, "png, read all: instructions +2.0%; only counts show it."),
    ([SAME], [timed(1.3)], WORSE, "png, read all: time x 1.30; only times show it."),
    ([MORE], [timed(1.3)], WORSE, "instructions +2.0%, time x 1.30; counts and times show it."),
    ([MORE], [], WORSE, "instructions +2.0%; it is not timed."),
    ([LESS], [timed(0.7)], 0, "Nothing got slower"),
    ([BROKE, MORE], [], BROKEN, "Broken: png, read all."),
    ([SAME], [timed(1)._replace(before=[], after=[], failed="after the change: x")], BROKEN, "x."),
    ([SAME._replace(before=None, after=None)], [timed(1)], 0, "Nothing got slower"),
    ([], [timed(1.3, noise=0.5)], 0, "Nothing got slower, in 0 counts and 1 times."),
    ([], [], BROKEN, "Nothing was compared."),
    ([], [timed(1)._replace(before=[], after=[])], BROKEN, "Nothing was compared."),
]


@pytest.mark.parametrize(("counted", "times", "code", "said"), JUDGED)
def test_judgement(counted: list[Counted], times: list[Timed], code: int, said: str) -> None:
    """Worse is 1; broken, or nothing compared, is 2; each line says what sees a change."""
    judgement = Judgement(counted, times)
    assert judgement.code == code
    assert said in " ".join(judgement.sentences())


def test_what_is_missing_is_said() -> None:
    """Without valgrind the times are judged alone, and the user reads what to install."""
    said = list(Judgement([], [timed(1)], ["Not counted: install valgrind."]).sentences())
    assert said[-1] == "Not counted: install valgrind."


def test_both_tables_are_in_the_summary_of_a_job() -> None:
    """Of counts those that changed; of times all, with the noise that they are judged by."""
    text = gate.markdown(["Slower."], Judgement([SAME, MORE], [timed(1.3)]))
    assert "### Counts that changed (1 did not)" in text
    assert "| 1,000,000 | 1,020,000 | +2.0% | instructions | png, read all |" in text
    assert "| 10 ms | 13 ms | 1.300 | 0.0% | png, read all | slower |" in text


@pytest.mark.parametrize(
    ("counter", "before", "after", "changed"),
    [
        ("instructions", 1000, 1010, False),
        ("instructions", 1000, 1011, True),
        ("instructions", 1000, 989, True),
        ("d1_misses", 1000, 1090, False),
        ("d1_misses", 1000, 1210, True),
        ("ll_misses", 1000, 1090, False),
        ("ll_misses", 1000, 1110, True),
        ("peak_memory", 1000, 1011, True),
        ("syncs", 0, 1, True),
        ("syscalls", 321, 385, True),
        ("bytes_read", 0, 0, False),
    ],
)
def test_threshold_of_each_counter(counter: str, before: int, after: int, changed: bool) -> None:
    """1%, and 20% of what caches miss: it moves with what lies where."""
    assert Counted("png", "open", counter, before, after).changed == changed


@pytest.mark.parametrize(
    ("after", "changed"),
    [([1.1] * 8, True), ([0.9] * 8, True), ([1.05] * 8, False), ([0.8, 1.3] * 4, False)],
)
def test_times_are_judged_by_their_noise(after: list[float], changed: bool) -> None:
    """A tenth is named where all rounds agree on it, and nothing that rounds disagree about."""
    assert Timed("", (), ("", ""), [1.0] * 8, after).changed == changed


# -- pairs of processes ------------------------------------------------------------------------

TINY = """
import time
import tiny_package

now = 0
time.perf_counter = lambda: now

class Suite:
    def setup_cache(self):
        open("cached", "a").write("x")
    def setup(self, seconds):
        assert open("cached").read() == "x"
        if tiny_package.SECONDS < 0:
            raise ValueError("no figure")
    def time_it(self, seconds):
        global now
        now += seconds * tiny_package.SECONDS
    def teardown(self, seconds):
        pass
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose benchmark takes as long as its package says, by a clock of its own."""
    root = tmp_path / "root"
    (root / "benchmarks").mkdir(parents=True)
    (root / "benchmarks" / "tiny.py").write_text(TINY)
    paired = Path(runner.ROOT, "benchmarks", "paired.py")
    (root / "benchmarks" / "paired.py").write_bytes(paired.read_bytes())
    for name, seconds in (("one", 1), ("two", 2), ("broken", -1)):
        (root / name).mkdir()
        (root / name / "tiny_package.py").write_text(f"SECONDS = {seconds}\n")
    monkeypatch.setattr(runner, "ROOT", root)
    return root


def measured(root: Path, before: str, after: str) -> Timed:
    """Return what two packages are timed at."""
    asked: list[pairs.Asked] = [("tiny.Suite.time_it", (0.001,), ("tiny", "sleep"))]
    sides = root / before, root / after
    (found,) = pairs.measure(sys.executable, *sides, asked, root, rounds=2, seconds=0)
    return found


def test_two_versions_in_turn(tiny: Path) -> None:
    """Each version is imported from where it is, and each round has both."""
    found = measured(tiny, "one", "two")
    assert len(found.before) == len(found.after) == 2
    assert found.factor == pytest.approx(2)
    assert found.changed


def test_a_version_that_fails(tiny: Path) -> None:
    """The side and the error are said, and no figure is given."""
    found = measured(tiny, "one", "broken")
    assert found.failed == "after the change: ValueError: no figure"
    assert not found.changed
    assert measured(tiny, "broken", "one").failed.startswith("before the change")


# -- commits and plants ------------------------------------------------------------------------


def test_the_package_of_a_commit(tmp_path: Path) -> None:
    """Nothing else of the commit is imported, and an unknown commit is said to be one."""
    gate.extract("HEAD", tmp_path / "head")
    assert [path.name for path in (tmp_path / "head").iterdir()] == ["storage_impl"]
    with pytest.raises(ObstacleError, match="git has no storage_impl of nothing here"):
        gate.extract("nothing", tmp_path / "nothing")


READ_AND_WRITE = """
import sys, numpy as np, storage_impl
images, labels = np.arange(20 * 48, dtype=np.uint8).reshape(20, 4, 4, 3), np.arange(20)
with storage_impl.create_store("store", sys.argv[1], image_shape=(4, 4, 3)) as store:
    store.write_many(images, labels)
    found, named = store.read_many()
    assert (found == images).all() and (named == labels).all()
    assert store.read_one(7)[1] == 7
print("planted" if storage_impl.ImageStore.{method}.__name__ == "planted" else "as it was")
"""


@pytest.mark.parametrize("planted", [*plants.PLANTS, plants.SLOWER[1]], ids=lambda p: p.title)
def test_plants_read_and_write_the_same(planted: plants.Plant, tmp_path: Path) -> None:
    """What is planted costs time, and changes nothing else; other backends run without it."""
    gate.extract("HEAD", tmp_path / "before")
    plants.plant(tmp_path / "before", tmp_path / "after", "lmdb", planted, 10)
    script = READ_AND_WRITE.replace("{method}", planted.method)
    for backend, said in (("lmdb", "planted"), ("png", "as it was")):
        (tmp_path / backend).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", script, backend],
            cwd=tmp_path / backend,
            env={"PYTHONPATH": str(tmp_path / "after")},
            capture_output=True,
            text=True,
        )
        assert (done.stdout.strip(), done.stderr) == (said, "")


def test_outcome_of_a_plant() -> None:
    """Found where an operation that does more names it; what else is named is told apart."""
    reading = plants.READING
    of_png = [MORE, MORE._replace(operation="write many"), MORE._replace(backend="lmdb")]
    found = selftest.outcome("plant", "png", reading, of_png)
    assert (found.found, found.named) == (True, ["read all: instructions +2.0%"])
    assert found.other == ["write many: instructions +2.0%"]
    assert not selftest.outcome("plant", "hdf5", reading, of_png).found
    same = selftest.outcome("the same code", "hdf5", (), of_png)
    assert (same.found, same.other) == (True, [])
    lines = list(selftest.summary("counts", [found, found._replace(other=[])]))
    assert lines[1].split()[:7] == ["plant", "png", "2", "of", "2", "1", "of"]
    assert "also reported: write many: instructions +2.0%" in lines[2]


def test_differences_of_unchanged_code() -> None:
    """The largest difference of each counter, in either direction."""
    less = MORE._replace(before=1000, after=997)
    lines = list(selftest.differences({"same": [less, MORE._replace(after=MORE.before)], "": []}))
    assert lines[3].split() == ["instructions", "0.30%", "n/a"]


def test_a_version_that_fails_has_no_counts() -> None:
    """An operation that fails after the change is one count of None for each counter."""
    before, after = Version("before", Path(), ["png"]), Version("after", Path(), ["png"])
    found = {"before/png": {"open": {"syscalls": 8}}, "after/png": {"open": "OSError: full"}}
    assert {each.after for each in counts.compare(found, before, after)} == {None}
    with pytest.raises(ObstacleError, match="png, open of after failed: OSError: full"):
        counts.instructions(found, after, "png", "open")


def test_times_of_the_selftest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same code nothing is named; of the slower one every read, and no write."""
    versions = selftest.Versions("python", ["png", "lmdb"], tmp_path)

    def measure(python: str, before: Path, after: Path, asked: Any, *_: Any, **__: Any) -> Any:
        slower = 1.3 if after == versions.slower.packages else 1.0
        return [
            timed(slower if name[1].startswith("read") else 1.0)._replace(name=name)
            for _, _, name in asked
        ]

    monkeypatch.setattr(pairs, "measure", measure)
    same, outcomes = versions.time()
    assert [(each.kind, each.backend) for each in outcomes] == [
        ("the same code", "png"),
        ("the same code", "lmdb"),
        ("30% slower reading", "png"),
        ("30% slower reading", "lmdb"),
    ]
    assert all(each.found and not each.other for each in outcomes)
    assert sorted(outcomes[2].named) == ["read all x 1.30", "read one x 1.30"]
    assert len(list(selftest.spread(same))) == 2 + len(same)


def test_the_gate_needs_asv_alone() -> None:
    """Its environment has neither numpy nor an image library: those are where it measures."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['numpy', 'PIL', 'h5py', 'lmdb']));"
        "import report.commands.gate"
    )
    subprocess.run([sys.executable, "-c", code], cwd=runner.ROOT, check=True)
