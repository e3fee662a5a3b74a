"""A run that is interrupted: what was measured is kept, and the next run goes on from there.

It runs with git and asv as they are, on the project of test_history with other benchmarks.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from report import measure
from tests.test_history import Remote
from tests.test_report import git

pytestmark = pytest.mark.unmeasured

# Each round is a process of its own. One of them can interrupt the command, as Ctrl-C does.
BENCHMARK = """
import os
import signal


class Steps:
    rounds = 2
    repeat = 3
    number = 1
    warmup_time = 0.0

    def setup(self):
        self.place = f"{os.environ['ASV_COMMIT'][:8]} {os.getpid()}"

    def measure(self, name):
        with open(os.environ["MEASURED"], "a+") as measured:
            measured.seek(0)
            rounds = {line for line in measured.read().splitlines() if line.startswith(name)}
            measured.write(f"{name} {self.place}\\n")
        if os.environ.get("INTERRUPT_AT") == f"{name}{len(rounds | {f'{name} {self.place}'})}":
            os.kill(int(os.environ["COMMAND"]), signal.SIGINT)
            signal.pause()

    def time_a(self):
        self.measure("a")

    def time_b(self):
        self.measure("b")

    def time_c(self):
        self.measure("c")
"""


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    """A project with three benchmarks."""
    remote = Remote(tmp_path)
    (remote.work / "benchmarks" / "tiny.py").write_text(BENCHMARK)
    remote.commit()
    return remote


def rounds(remote: Remote) -> list[str]:
    """Return the benchmarks that were measured since this was asked last, once for each round."""
    lines = dict.fromkeys(remote.log.read_text().splitlines())
    remote.log.write_text("")
    return [line.partition(" ")[0] for line in lines]


def samples(clone: Path) -> dict[str, Any]:
    """Return how many samples the results of each benchmark have."""
    (path,) = (clone / ".asv" / "results").rglob("*-here-*.json")
    kept = json.loads(path.read_text())
    repeat = kept["result_columns"].index("stats_repeat")
    return {name.rpartition("_")[2]: row[repeat] for name, row in kept["results"].items()}


BENCH = ("bench", "full", "--bench", "Steps")


def test_interrupted(remote: Remote) -> None:
    """The last lines say what is kept, and the same command measures the rest and nothing twice."""
    clone = remote.clone("clone")
    measured: list[str] = []
    for at, benchmarks in ("b1", "1 benchmark"), ("b2", "3 benchmarks"):
        done = remote.run(clone, *BENCH, INTERRUPT_AT=at)
        assert done.returncode == 130
        assert "Traceback" not in done.stdout + done.stderr
        assert " ".join(done.stderr.split()).endswith(
            f"Interrupted. What was measured of {benchmarks} is kept, and the same command "
            "continues from there."
        )
        measured += rounds(remote)[:-1]
        assert samples(clone) == {name: [3 * measured.count(name)] for name in set(measured)}

    rest = remote.run(clone, *BENCH)
    assert rest.returncode == 0, rest.stderr
    assert "Continuing the interrupted run" in rest.stdout
    assert measured + rounds(remote) == ["a", "b", "c"] * 2
    assert samples(clone) == {name: [6] for name in "abc"}
    assert not (clone / measure.JOURNAL).exists()


def test_interrupted_before_anything_was_measured(remote: Remote) -> None:
    """Nothing is claimed to be kept."""
    interrupted = remote.run(remote.clone("clone"), *BENCH, INTERRUPT_AT="a1")
    assert interrupted.returncode == 130
    assert interrupted.stderr.endswith("Interrupted before anything was measured.\n")


def test_another_run_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was interrupted is gone on with by the same run alone, and a torn line is no step."""
    monkeypatch.chdir(tmp_path)
    step = ("c0ffee", "here", 2, "tiny.time_a")
    for torn in "", '["c0ffee", "he':
        measure.Journal(["this"], keeps=True).add(step)
        with measure.JOURNAL.open("a") as file:
            file.write(torn)
        assert measure.Journal(["this"], keeps=True).done == {step}
        assert measure.Journal(["another"], keeps=True).done == set()
        assert measure.Journal(["this"], keeps=True).done == set()


def test_the_history_goes_on(remote: Remote) -> None:
    """An interrupted history keeps no commit half measured."""
    clone = remote.clone("clone")
    assert remote.run(clone, "history", "--bench", "Steps", INTERRUPT_AT="b2").returncode == 130
    assert rounds(remote) == ["a", "b", "c", "a", "b"]
    assert git(remote.path, "branch", "--list", "asv-results") == ""
    done = remote.run(clone, "history", "--bench", "Steps")
    assert done.returncode == 0, done.stderr
    assert rounds(remote) == ["b", "c"]
    assert samples(clone) == {name: [6] for name in "abc"}


# -- the time that is left ---------------------------------------------------------------------


def test_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in proportion to what the benchmarks took when they were measured last."""
    now = [100.0]
    monkeypatch.setattr(measure.time, "monotonic", lambda: now[0])
    clock = measure.Clock({"short": 10.0, "long": 90.0})
    said: list[str] = []
    clock.begin({"short": 2, "long": 2, "new": 1}, laps=2)  # 50 for what nobody knows: 300 in all
    clock.say(said.append)
    now[0] += 60.0
    clock.say(said.append)
    assert said == []  # nothing is known yet
    for name in ("short", "long"):
        clock.tick(name)
    clock.say(said.append)
    clock.say(said.append)  # not as often as this
    assert said == ["About 5 min left"]  # 50 took a minute, 250 are left
    clock.skip("long")
    now[0] += 30.0
    for _ in range(3):
        clock.tick("long")
    clock.tick("short")
    clock.tick("new")
    clock.say(said.append)
    assert said[1:] == ["About a minute left"]
