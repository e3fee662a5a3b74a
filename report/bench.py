"""Measure HEAD, publish the site and print the table: what `tox run -e bench` runs.

python -m report.bench quick|full|large [ARGUMENT OF asv run ...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report import checks

ROOT = Path(__file__).resolve().parent.parent
FAILED_BENCHMARK = 2  # asv's exit code when a benchmark failed and all others have results

# A few samples, as many as a second allows.
QUICK = ["--attribute", "rounds=1", "--attribute", "repeat=(3,10,1)"]
# The quick run has what the table shows; 100,000 images and the largest sizes are asked for.
BENCHMARKS = {
    "quick": r"^(?!.*Large\.)(calibration|disk_usage|many_images|single_image|startup\.OpenStore"
    r"|access_patterns\.(ReadLabels|ReadBatches.*shuffled', 256)|floor\.(?!Memory|Png\.))",
    "full": r"^(?!.*Large\.)",
    "large": r"Large\.|^calibration\.",
}
SPACE = {"quick": 1 << 30, "full": 4 << 30, "large": 4 << 30}


def main(arguments: list[str]) -> int:
    """Run the suite; return the exit code."""
    kind, *given = arguments
    return unless_obstructed(lambda: measure(kind, given))


def unless_obstructed(command: Callable[[], int], obstructed: int = 1) -> int:
    """Look for what would stand in the way of asv, run a command and return its exit code.

    Where there is an obstacle, the user reads what to do, and `obstructed` is returned.
    """
    os.chdir(ROOT)
    try:
        checks.check_python()
        checks.check_checkout(ROOT)
        checks.check_dataset()
        dataset = os.environ.get("STORAGE_IMPL_DATASET")
        if dataset:  # asv runs the benchmarks in another directory
            os.environ["STORAGE_IMPL_DATASET"] = os.path.abspath(dataset)
        return command()
    except checks.ObstacleError as obstacle:
        print(f"\n{checks.wrapped(str(obstacle))}", file=sys.stderr)
        return obstructed
    except KeyboardInterrupt:
        return 130


def measure(kind: str, given: list[str]) -> int:
    """Run asv, publish and print the table; return the exit code."""
    # Imported after the checks: asv itself needs a Python that it supports.
    from asv.config import Config

    from report import summary

    conf = Config.load()
    before = summary.result_files(conf.results_dir)
    remember_machine()
    code = asv_measuring(SPACE[kind], *run_arguments(kind, given))
    if code not in (0, FAILED_BENCHMARK):
        if not list(Path(conf.env_dir).glob("*/asv-env-info.json")):
            raise checks.ObstacleError(checks.advice(ROOT))
        return code
    changed = summary.result_files(conf.results_dir).items() - before.items()
    if not changed:
        print("\nNo results were saved: there is nothing to publish.")
        return code
    if failure := publish(conf):
        return failure
    print()
    print(summary.text(conf, {path for path, _ in changed}))
    say_where(conf, code)
    return code


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
        print(checks.wrapped(note))


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


def run_arguments(kind: str, given: list[str]) -> list[str]:
    """Return the arguments of asv; the user's come last, so that they win."""
    from asv.commands import make_argparser

    parser, _ = make_argparser()
    options = parser.parse_args(["run", *given])
    arguments = ["run", "--show-stderr"]
    if kind == "quick":
        arguments += QUICK
    if not options.bench:
        arguments += ["--bench", BENCHMARKS[kind]]
    return arguments + given


def remember_machine(called: str | None = None) -> str:
    """Have asv know this machine, or its run would ask; return the name of its results."""
    from asv.machine import Machine, MachineCollection
    from asv.util import UserError

    called = called or Machine.get_unique_machine_name()
    try:
        known = MachineCollection.load(called)
    except UserError:
        known = {**Machine.get_defaults(), "machine": called}
        MachineCollection.save(called, known)
    return str(known["machine"])


def asv_measuring(space: int, *arguments: str) -> int:
    """Run asv with `space` bytes of scratch on the disk to measure; return its exit code."""
    with scratch(space) as directory:
        return asv(*arguments, TMPDIR=directory)


@contextmanager
def scratch(space: int) -> Iterator[str]:
    """Give a directory with `space` bytes on the disk to measure, and remove it."""
    (ROOT / ".asv").mkdir(exist_ok=True)
    parent = Path(tempfile.gettempdir() if "TMPDIR" in os.environ else ROOT / ".asv")
    for place in (ROOT, parent):
        checks.check_space(place, space)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
