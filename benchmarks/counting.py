"""Count the instructions, cache misses, system calls and memory of each operation of a store.

`count` runs `benchmarks.counted` under valgrind's callgrind, under strace and with tracemalloc.
Counts of the same code are the same from run to run, even on a busy machine. This module fixes what
else would change them: the environment variables, the seed of hashes, the paths of the packages and
the stores, and the simulated caches. The garbage collector is off while an operation is counted.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OPERATIONS = (
    "write many",
    "write one",
    "append",
    "read all",
    "read one",
    "shuffled batches",
    "labels",
    "open",
    "verify",
    "open alone",
)
EVERY = "every operation"  # the name of a failure of a whole task
IMAGES = 64
COUNTERS: Mapping[str, tuple[str, ...]] = {
    "valgrind": ("instructions", "d1_misses", "ll_misses"),
    "strace": ("syscalls", "bytes_read", "bytes_written", "syncs"),
    "tracemalloc": ("peak_memory",),
}
# Code that nothing calls moves names and arrays in memory, which changes the misses of the
# interpreter's and the processor's caches. So every operation is counted in several layouts of
# memory, and the lowest count is taken.
LAYOUTS = 6
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
PASSED = ("LD_LIBRARY_PATH",)  # a Python that was moved finds its own library through it
COMMANDS = {
    # Without these sizes, valgrind would simulate the caches of this machine. The caches hold
    # nothing of an operation when it begins, and all of it fits into the last one: its misses there
    # are the memory that it touches.
    "valgrind": "valgrind -q --tool=callgrind --instr-atstart=no --vgdb=no"
    " --cache-sim=yes --I1=32768,8,64 --D1=32768,8,64 --LL=1048576,16,64"
    " --callgrind-out-file=callgrind.%p",
    # Two kinds of calls vary, and are not counted. The allocator and the interpreter make those for
    # memory and locks. The C library starts and ends threads, and a thread may end later than the
    # operation.
    "strace": "strace -f -qq --seccomp-bpf"
    " -e trace=!brk,mmap,munmap,mremap,madvise,futex,rt_sigprocmask,rseq,set_robust_list,exit"
    " -o strace",
    "tracemalloc": "",  # in the process itself
}
READING = {"read", "readv", "pread64", "preadv", "preadv2", "copy_file_range", "sendfile"}
WRITING = {"write", "writev", "pwrite64", "pwritev", "pwritev2", "copy_file_range", "sendfile"}
SYNCING = {"fsync", "fdatasync", "msync", "sync", "syncfs", "sync_file_range"}
CALL = re.compile(r"\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>).* = (-?\d+|\?)")
MARK = re.compile(r'\d+ +access\("/@(.*)", F_OK\)')

Counts = dict[str, int]


class Task(NamedTuple):
    """What to count.

    Attributes
    ----------
    name : str
        The key of its counts.
    packages : Path
        The directory that `module` is imported from; everything in it is copied.
    module : str
        A module with `create_store` and `open_store`, or one of `benchmarks.plain`.
    backend : str
    """

    name: str
    packages: Path
    module: str
    backend: str


class CountingError(Exception):
    """Nothing could be counted; the message says why."""


def missing(program: str) -> str:
    """Return what to do before a program can count; an empty string if it can."""
    if sys.platform != "linux":
        return "work can be counted only on Linux: run this on Linux"
    if program == "valgrind" and platform.machine() != "x86_64":
        return "instructions can be counted only on x86-64: run this on such a machine"
    if COMMANDS[program] and shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
        return f"{program} is not installed: install it, for example with apt-get install {program}"
    if program == "strace":
        tried = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True)
        if tried.returncode != 0:
            return (
                "strace may not trace processes here: allow ptrace, "
                "in a container with --cap-add=SYS_PTRACE"
            )
    return ""


def count(
    tasks: Sequence[Task],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    processes: int = 1,
    python: str = sys.executable,
) -> dict[str, dict[str, Counts | str]]:
    """Count every operation of each task, with the programs that are installed.

    Parameters
    ----------
    tasks : sequence of Task
        Each is counted in a fork of one process, which has imported the libraries.
    images : ndarray
        uint8 (N, H, W, C), the images to store.
    labels : ndarray
        int64 (N,).
    processes : int, optional
        How many forks count at the same time; under strace it is always one.
    python : str, optional
        An interpreter with the libraries.

    Returns
    -------
    dict
        For each task and operation, what each counter found, or why the operation failed.

    Raises
    ------
    CountingError
        A program that counts failed.
    """
    # The paths have the same length, whatever TMPDIR is: opening a longer path is more work.
    directory = Path(tempfile.mkdtemp(prefix="work-", dir="/tmp"))
    try:
        np.save(directory / "images.npy", images)
        np.save(directory / "labels.npy", labels)
        shutil.copy(Path(__file__).with_name("counted.py"), directory)
        listed = []
        names = []
        for number, task in enumerate(tasks):
            packages = directory / f"packages-{number:03}"
            shutil.copytree(task.packages, packages, ignore=shutil.ignore_patterns("__pycache__"))
            for layout in range(LAYOUTS):
                given = {"packages": str(packages), "name": f"{number:03}-{layout}"}
                listed.append({**task._asdict(), **given, "layout": layout})
                names.append((task.name, given["name"], layout))
        (directory / "tasks.json").write_text(json.dumps(listed))
        compiling = [python, "-m", "compileall", "-q", str(directory)]
        subprocess.run(compiling)
        found: dict[str, dict[str, Counts | str]] = {task.name: {} for task in tasks}
        for program in COMMANDS:
            if not missing(program):
                counted = _run(program, directory, python, processes)
                for (task_name, name, layout), operation in product(names, OPERATIONS):
                    reason = counted.get(f"{name}/{EVERY}", {} if layout else "the process ended")
                    counts = counted.get(f"{name}/{operation}", reason)
                    before = found[task_name].setdefault(operation, {})
                    if isinstance(before, dict):
                        found[task_name][operation] = _least(before, counts)
        return found
    finally:
        shutil.rmtree(directory)


def _least(before: Counts, counts: Counts | str) -> Counts | str:
    """Return the lower value of each counter, or why the operation failed."""
    if isinstance(counts, str):
        return counts
    return before | {name: min(n, before.get(name, n)) for name, n in counts.items()}


def _run(program: str, directory: Path, python: str, processes: int) -> dict[str, Counts | str]:
    """Count all tasks with one program; return the counts by task and operation."""
    at_once = 1 if program == "strace" else processes  # strace's log has no two tasks mixed
    script = [python, "-P", str(directory / "counted.py"), program, str(at_once)]
    done = subprocess.run(
        [*COMMANDS[program].split(), *script],
        cwd=directory,
        env=ENVIRONMENT | {name: os.environ[name] for name in PASSED if name in os.environ},
        capture_output=True,
        text=True,
    )
    found: dict[str, Counts | str] = {**_PARSERS[program](directory)}
    for path in directory.glob("failed/*/*"):
        found[f"{path.parent.name}/{path.name}"] = path.read_text()
    if done.returncode != 0 or not found:
        raise CountingError(f"{program} failed with code {done.returncode}: {done.stderr[-2000:]}")
    for path in (*directory.glob("failed"), *directory.glob("stores-*")):
        shutil.rmtree(path)
    return found


def _callgrind(directory: Path) -> dict[str, Counts]:
    """Return what callgrind counted."""
    found = {}
    for path in directory.glob("callgrind.*.*"):
        lines = path.read_text(errors="replace").splitlines()
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        name = fields.get("desc", "").removeprefix("Trigger: Client Request: ")
        if "/" in name:
            # Callgrind leaves out trailing zeros.
            events = fields["events"].split()
            counted = Counter(dict(zip(events, map(int, fields["totals"].split()), strict=False)))
            found[name] = {
                "instructions": counted["Ir"],
                "d1_misses": counted["D1mr"] + counted["D1mw"],
                "ll_misses": counted["ILmr"] + counted["DLmr"] + counted["DLmw"],
            }
    return found


def _strace(directory: Path) -> dict[str, Counts]:
    """Return what strace counted."""
    found: dict[str, Counts] = {}
    counted = None
    for line in (directory / "strace").read_text(errors="replace").splitlines():
        if mark := MARK.match(line):
            counted = None
            if mark[1]:
                counted = found[mark[1]] = dict.fromkeys(COUNTERS["strace"], 0)
        elif counted is not None and (call := CALL.match(line)):
            result = int(call[2]) if call[2] != "?" else 0
            counted["syscalls"] += 1
            counted["bytes_read"] += max(result, 0) if call[1] in READING else 0
            counted["bytes_written"] += max(result, 0) if call[1] in WRITING else 0
            counted["syncs"] += call[1] in SYNCING
    return found


def _tracemalloc(directory: Path) -> dict[str, Counts]:
    """Return what tracemalloc found."""
    found: dict[str, Counts] = {}
    for path in directory.glob("memory/*/*"):
        found[f"{path.parent.name}/{path.name}"] = {"peak_memory": int(path.read_text())}
    return found


_PARSERS: Mapping[str, Callable[[Path], dict[str, Counts]]] = {
    "valgrind": _callgrind,
    "strace": _strace,
    "tracemalloc": _tracemalloc,
}


def main() -> None:
    """Read tasks from stdin as JSON, count them, and print the counts as JSON.

    The input has the tasks, each as a list, the number of images and the number of processes.
    """
    from benchmarks import datasets

    given = json.load(sys.stdin)
    tasks = [Task(name, Path(packages), *task) for name, packages, *task in given["tasks"]]
    images, labels = datasets.load(given["images"])
    json.dump(count(tasks, images, labels, processes=given["processes"]), sys.stdout)


if __name__ == "__main__":
    main()
