"""Shared by the commands: asv with disk space to measure in, git, and messages to the user."""

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

from report import obstacles, own_images

ROOT = Path(__file__).resolve().parent.parent
FAILED_BENCHMARK = 2  # asv's exit code when a benchmark failed and all others have results

SPACE = {"quick": 1 << 30, "full": 4 << 30, "large": 4 << 30}


def unless_obstructed(command: Callable[[], int], obstructed: int = 1) -> int:
    """Check for obstacles, run a command and return its exit code.

    If there is an obstacle, print what to do about it, and return `obstructed`.
    """
    os.chdir(ROOT)
    try:
        obstacles.check_python()
        obstacles.check_checkout(ROOT)
        obstacles.check_dataset()
        dataset = os.environ.get("STORAGE_IMPL_DATASET")
        if dataset:  # asv runs the benchmarks in another directory
            os.environ["STORAGE_IMPL_DATASET"] = os.path.abspath(dataset)
            os.environ[own_images.SEEN] = os.environ["STORAGE_IMPL_DATASET"]
        return command()
    except obstacles.ObstacleError as obstacle:
        print(f"\n{obstacles.wrapped(str(obstacle))}", file=sys.stderr)
        return obstructed
    except KeyboardInterrupt:
        return 130


def publish(conf: Any) -> int:
    """Make asv build the site; return its exit code."""
    code = asv("publish")
    if code:
        shutil.rmtree(conf.html_dir, ignore_errors=True)  # an incomplete site would look complete
    return code


def say_where(conf: Any, code: int) -> None:
    """Print where the site is, and the notes to the table."""
    say_site(conf)
    for note in notes(code):
        print(obstacles.wrapped(note))


def say_site(conf: Any) -> None:
    """Print where the site is, and how to open it."""
    site = Path(conf.html_dir).resolve()
    print()
    if (site / "compare.html").exists():
        print(f"The backends compared: {site / 'compare.html'} (opens in any browser)")
    print(f"The site: {site / 'index.html'}")
    environment = os.environ.get("TOX_ENV_NAME", "bench")
    print(f"The site needs a server: python -m tox exec -e {environment} -- asv preview")


def notes(code: int) -> list[str]:
    """Return what the reader of the table might not notice otherwise."""
    found = []
    if code == FAILED_BENCHMARK:
        found.append("Benchmarks failed: asv's output above the table says why.")
    if git("status", "--porcelain", "--", "storage_impl"):
        found.append("asv measured the commit, without the uncommitted changes in storage_impl.")
    if git("rev-parse", "--is-shallow-repository") == "true":
        found.append(
            "This clone has no history to compare with: get it with git fetch --unshallow."
        )
    return found


def remember_machine(called: str | None = None) -> str:
    """Describe this machine to asv, whose run would ask otherwise; return the machine's name."""
    called = called or Machine.get_unique_machine_name()
    try:
        known = MachineCollection.load(called)
    except UserError:
        known = {**Machine.get_defaults(), "machine": called}
        MachineCollection.save(called, known)
    return str(known["machine"])


def environment_python() -> str:
    """Return the interpreter of the suite's environment, which is made if it does not exist.

    Raises
    ------
    ObstacleError
        The environment cannot be made.
    """
    conf = Config.load()
    (environment,) = get_environments(conf, "")
    try:
        environment.create()
        return str(environment.find_executable("python"))
    except ProcessError as error:
        raise obstacles.ObstacleError(obstacles.advice(ROOT)) from error


def backends(python: str) -> list[str]:
    """Return the backends that the benchmarks measure; `python` has the libraries."""
    code = "from benchmarks.common import BACKENDS; print(*BACKENDS)"
    return subprocess.run(
        [python, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()


@contextmanager
def scratch(space: int) -> Iterator[str]:
    """Yield a directory on the disk to measure, which has `space` bytes free, and remove it."""
    (ROOT / ".asv").mkdir(exist_ok=True)
    parent = Path(tempfile.gettempdir() if "TMPDIR" in os.environ else ROOT / ".asv")
    for place in (ROOT, parent):
        obstacles.check_space(place, space)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=parent) as directory:
        yield directory


def asv(*arguments: str, **environment: str) -> int:
    """Run asv with its output shown to the user; return its exit code."""
    sys.stdout.flush()
    return subprocess.run(
        [sys.executable, "-m", "asv", *arguments], env=os.environ | environment
    ).returncode


def git(*arguments: str, directory: Path | None = None) -> str:
    """Return what git prints when it runs in the checkout, or in another directory."""
    return subprocess.run(
        ["git", *arguments], cwd=directory or ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
