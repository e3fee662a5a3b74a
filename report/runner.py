"""What the commands share: asv with room to measure, git, and the sentences around them."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asv.config import Config
from asv.environment import get_environments
from asv.machine import Machine, MachineCollection
from asv.util import ProcessError, UserError

from report import obstacles

ROOT = Path(__file__).resolve().parent.parent
FAILED_BENCHMARK = 2  # asv's exit code when a benchmark failed and all others have results

SPACE = {"quick": 1 << 30, "full": 4 << 30, "large": 4 << 30}


def unless_obstructed(command: Callable[[], int], obstructed: int = 1) -> int:
    """Look for what would stand in the way of asv, run a command and return its exit code.

    Where there is an obstacle, the user reads what to do, and `obstructed` is returned.
    """
    os.chdir(ROOT)
    try:
        obstacles.check_python()
        obstacles.check_checkout(ROOT)
        obstacles.check_dataset()
        dataset = os.environ.get("STORAGE_IMPL_DATASET")
        if dataset:  # asv runs the benchmarks in another directory
            os.environ["STORAGE_IMPL_DATASET"] = os.path.abspath(dataset)
        return command()
    except obstacles.ObstacleError as obstacle:
        print(f"\n{obstacles.wrapped(str(obstacle))}", file=sys.stderr)
        return obstructed
    except KeyboardInterrupt:
        return 130


def publish(conf: Any) -> int:
    """Have asv make the site; return its exit code."""
    code = asv("publish")
    if code:
        shutil.rmtree(conf.html_dir, ignore_errors=True)  # half a site looks like a whole one
    return code


def say_where(conf: Any, code: int) -> None:
    """Say where the site is, and what the reader of a table may otherwise miss."""
    say_site(conf)
    for note in notes(code):
        print(obstacles.wrapped(note))


def say_site(conf: Any) -> None:
    """Say where the site is, and what opens it."""
    site = Path(conf.html_dir).resolve()
    print()
    if (site / "compare.html").exists():
        print(f"The backends compared: {site / 'compare.html'}, which any browser opens")
    print(f"The site: {site / 'index.html'}")
    environment = os.environ.get("TOX_ENV_NAME", "bench")
    print(f"It needs a server: python -m tox exec -e {environment} -- asv preview")


def notes(code: int) -> list[str]:
    """Return what the reader of the table may otherwise miss."""
    found = []
    if code == FAILED_BENCHMARK:
        found.append("Benchmarks failed: asv's output above the table says why.")
    if git("status", "--porcelain", "--", "storage_impl"):
        found.append("asv measured the commit: the uncommitted changes in storage_impl are not in.")
    if git("rev-parse", "--is-shallow-repository") == "true":
        found.append("This clone has no history to compare with: git fetch --unshallow gets it.")
    return found


def remember_machine(called: str | None = None) -> str:
    """Have asv know this machine, or its run would ask; return the name of its results."""
    called = called or Machine.get_unique_machine_name()
    try:
        known = MachineCollection.load(called)
    except UserError:
        known = {**Machine.get_defaults(), "machine": called}
        MachineCollection.save(called, known)
    return str(known["machine"])


def environment_python() -> str:
    """Return the interpreter of the suite's environment, which is made where there is none.

    Raises
    ------
    ObstacleError
        It cannot be made.
    """
    conf = Config.load()
    (environment,) = get_environments(conf, "")
    try:
        environment.create()
        return str(environment.find_executable("python"))
    except ProcessError as error:
        raise obstacles.ObstacleError(obstacles.advice(ROOT)) from error


def backends(python: str) -> list[str]:
    """Return the backends that the benchmarks measure, by an interpreter with the libraries."""
    code = "from benchmarks.common import BACKENDS; print(*BACKENDS)"
    return subprocess.run(
        [python, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()


@contextmanager
def scratch(space: int) -> Iterator[str]:
    """Give a directory with `space` bytes on the disk to measure, and remove it."""
    (ROOT / ".asv").mkdir(exist_ok=True)
    parent = Path(tempfile.gettempdir() if "TMPDIR" in os.environ else ROOT / ".asv")
    for place in (ROOT, parent):
        obstacles.check_space(place, space)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=parent) as directory:
        yield directory


def asv(*arguments: str, **environment: str) -> int:
    """Run asv, its output where the user sees it; return its exit code."""
    sys.stdout.flush()
    return subprocess.run(
        [sys.executable, "-m", "asv", *arguments], env=os.environ | environment
    ).returncode


def git(*arguments: str, directory: Path | None = None) -> str:
    """Return what git prints, in the checkout unless it is told another directory."""
    return subprocess.run(
        ["git", *arguments], cwd=directory or ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
