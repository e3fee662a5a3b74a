"""Counted work: the counts are of what is asked, the same each time, and n/a where they must."""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import counting, work
from benchmarks.counting import Task

pytestmark = pytest.mark.unmeasured

IMAGES = np.arange(8 * 48, dtype=np.uint8).reshape(8, 4, 4, 3)
LABELS = np.arange(8)

# The least that can be counted: a store that is a file of numpy's. "again" is a planted extra call.
STORE = """
import os
import numpy as np

class Store:
    def __init__(self, path):
        path.mkdir(exist_ok=True)
        self.path = path / "images.npz"
    def write_many(self, images, labels):
        with open(self.path, "wb") as file:
            np.savez(file, images=images, labels=labels)
            os.fsync(file.fileno())
    def write_one(self, image, label):
        self.write_many(np.stack([image]), np.array([label]))
    def read_many(self):
        {again}
        with np.load(self.path) as found:
            return found["images"], found["labels"]
    def read_one(self, index):
        return self.read_many()[0][index]
    def batches(self, batch, shuffle):
        yield self.read_many()
    def read_labels(self):
        return self.read_many()[1]
    def verify(self):
        raise OSError("nothing is checked")
    def close(self):
        pass
    def __enter__(self):
        return self
    def __exit__(self, *error):
        pass

def create_store(path, backend, image_shape):
    return Store(path)

def open_store(path, mode="r"):
    return Store(path)
"""


def needs(program: str) -> None:
    """Skip where a program is missing."""
    if counting.missing(program):
        pytest.skip(f"needs {program}")


def count(
    directory: Path, monkeypatch: pytest.MonkeyPatch, program: str, *again: str
) -> dict[str, Any]:
    """Return what one program counts of stores with these lines in their reading."""
    needs(program)
    monkeypatch.setattr(counting, "COMMANDS", {program: counting.COMMANDS[program]})
    if program == "valgrind":
        monkeypatch.setattr(counting, "LAYOUTS", 1)  # each takes ten seconds
    tasks = []
    for number, line in enumerate(again):
        packages = directory / str(number)
        packages.mkdir()
        (packages / "tiny_store.py").write_text(STORE.replace("{again}", line))
        tasks.append(Task(f"{number}", packages, "tiny_store", "tiny"))
    return counting.count(tasks, IMAGES, LABELS, processes=2)


def test_system_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the operation alone; the same of the same code, and each call that is added is seen.

    An operation that fails says why, and has no part in the others.
    """
    found = count(tmp_path, monkeypatch, "strace", "pass", "pass", "os.getppid()")
    assert found["0"] == found["1"]
    write, read = found["0"]["write many"], found["0"]["read all"]
    assert write["syncs"] == 1
    assert write["bytes_written"] > IMAGES.nbytes
    assert write["bytes_read"] == read["bytes_written"] == read["syncs"] == 0
    assert read["bytes_read"] > IMAGES.nbytes
    assert found["2"]["read all"]["syscalls"] == read["syscalls"] + 1
    assert found["2"]["read one"]["syscalls"] == found["0"]["read one"]["syscalls"] + 8
    assert found["2"]["write many"] == write
    assert found["0"]["open"]["syscalls"] == 2 * 8  # to make the directory, and to look at it
    assert found["0"]["verify"] == "OSError: nothing is checked"


def test_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More is seen where it is done, and nowhere else."""
    before, after = count(tmp_path, monkeypatch, "valgrind", "pass", "sum(range(1000))").values()
    for operation in ("read all", "labels"):
        assert after[operation]["instructions"] > 1.01 * before[operation]["instructions"]
    unchanged = pytest.approx(before["write many"]["instructions"], rel=0.005)
    assert after["write many"]["instructions"] == unchanged
    assert before["write one"].startswith("RuntimeError: what was read differs from what")
    assert before["read all"]["ll_misses"] > 2 * IMAGES.nbytes / 64


def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held at once: a copy of what is read shows, and other operations are as they were."""
    copy = "kept = np.load(self.path)['images'].copy()"
    before, after = count(tmp_path, monkeypatch, "tracemalloc", "pass", copy).values()
    more = after["read all"]["peak_memory"] - before["read all"]["peak_memory"]
    assert more >= IMAGES.nbytes
    assert after["open"] == before["open"]


def test_the_least_of_all_layouts_counts() -> None:
    """Code that nothing calls adds to a count by moving names in memory, and takes nothing away."""
    first: counting.Counts = {"instructions": 1010, "syscalls": 8}
    second: counting.Counts = {"instructions": 1000, "d1_misses": 7}
    least = {"instructions": 1000, "syscalls": 8, "d1_misses": 7}
    assert counting._least(first, second) == least
    assert counting._least(first, "OSError: full") == "OSError: full"


@pytest.mark.parametrize(
    ("platform_name", "machine", "program", "said"),
    [
        ("darwin", "arm64", "strace", "only on Linux"),
        ("linux", "aarch64", "valgrind", "only on x86-64"),
        ("linux", "x86_64", "valgrind", "apt-get install valgrind"),
        ("linux", "x86_64", "strace", "apt-get install strace"),
    ],
)
def test_what_is_missing(
    platform_name: str,
    machine: str,
    program: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The benchmarks do not apply, and a sentence says what to install, or where to run."""
    monkeypatch.setattr(sys, "platform", platform_name)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setitem(counting.ENVIRONMENT, "PATH", str(tmp_path))
    suite = work.Instructions() if program == "valgrind" else work.SystemCalls()
    with pytest.raises(NotImplementedError, match=said):
        suite.setup("png", "open")


def test_benchmarks_return_what_was_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of its backend and operation; a failure is one, and an absent backend is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(counting, "missing", lambda program: "")
    counts = {name: n for n, name in enumerate(sum(counting.COUNTERS.values(), ()))}
    absent = "ModuleNotFoundError: No module named 'storage_impl.hdf5'"
    kept = {
        "storage_impl png": {"open": counts, "verify": "OSError: gone"},
        "storage_impl hdf5": {"open": absent},
        "plain png": {"open": {name: n + 100 for name, n in counts.items()}},
    }
    (tmp_path / work.CACHE).write_text(json.dumps(kept))
    for kind, more in ((work.Instructions, 0), (work.PlainInstructions, 100)):
        suite = kind()
        suite.setup("png", "open")
        assert suite.track_instructions("png", "open") == counts["instructions"] + more
        assert suite.track_ll_misses("png", "open") == counts["ll_misses"] + more
    with pytest.raises(RuntimeError, match="verify failed: OSError: gone"):
        work.SystemCalls().setup("png", "verify")
    with pytest.raises(NotImplementedError):
        work.SystemCalls().setup("hdf5", "open")
