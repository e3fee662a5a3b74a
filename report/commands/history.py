"""Measure new commits, keep the results and publish the site: what `tox run -e history` runs.

python -m report.commands.history [--remote NAME] [ARGUMENT OF asv run ...]

The results are kept on a branch of their own at a remote: see `report.kept`.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from asv.commands import make_argparser
from asv.config import Config

from report import changes, obstacles, runner
from report.kept import BRANCH, KeptResults
from report.measure import measure
from report.terminal import printable
from report.workloads import patterns


def main(arguments: list[str]) -> int:
    """Continue the history; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="tox run -e history --",
        description="Fetch the kept results, measure new commits, keep them, publish the site.",
        epilog="All other arguments go to asv run, for example a range of commits.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--remote", default="origin", help="git remote for the results (default: %(default)s)"
    )
    own, given = parser.parse_known_args(arguments)
    return runner.unless_obstructed(lambda: go_on(own.remote, given))


def go_on(remote: str, given: list[str]) -> int:
    """Measure every commit that is new to this machine, and publish; return the exit code."""
    options = make_argparser()[0].parse_args(["run", *given])
    if options.quick or options.dry_run or options.interleave_rounds:
        raise obstacles.ObstacleError(
            "--quick, --dry-run and --interleave-rounds leave results that are not whole, or none, "
            "so the history does not take them. Use python -m tox run -e bench to try things out."
        )
    conf = Config.load()
    complete_clone(remote)
    results = Path(conf.results_dir)
    kept = KeptResults(runner.ROOT, results, remote)
    kept.take()
    machine = runner.remember_machine(options.machine)
    arguments = ["--show-stderr", "--skip-existing", *given]
    if not options.bench:
        arguments += [f"--bench={pattern}" for pattern in patterns("full")]
    # The results of each commit are kept at once, so an interrupt loses one commit at most.
    ranges = [[]] if options.range else [[f"{commit}^!"] for commit in new(results / machine)]
    files = failed = 0
    for commits in ranges:
        each = make_argparser()[0].parse_args(["run", *commits, *arguments])
        code = measure(conf, each, runner.SPACE["full"])
        if code not in (0, runner.FAILED_BENCHMARK):
            print("\nasv stopped. Nothing is published; finished results stay.", file=sys.stderr)
            return code
        failed = failed or code
        files += kept.keep(f"Results of {machine} for {options.range or commits[0][:8]}")
    if files:
        print(f"\n{files} files of results are new on the branch {BRANCH} of {remote}.")
    else:
        print(f"\nNothing is new: {remote} has all results of {machine}.")
    if failure := runner.publish(conf):
        return failure
    print("\nWhat changed:")
    for line in changes.listed(conf.results_dir):
        print(printable(line))
    runner.say_site(conf)
    if failed:
        print("Benchmarks failed, all others are kept and published: asv's output says why.")
    return failed


def new(results: Path) -> list[str]:
    """Return the commits that a machine has to measure, the oldest first.

    These are the last commit that the machine measured, because some of its results may be missing,
    and every commit after it. If the machine has measured nothing, it is only HEAD.

    `asv run NEW` would do something else. It stops at a commit that any machine has measured, and
    takes the whole history if there is none. It begins with the newest commit, so that a crash
    would leave a gap for good.
    """
    measured = {path.name[:8] for path in results.glob("????????-*.json")}
    commits = runner.git("rev-list", "--first-parent", "HEAD").split()
    for position, commit in enumerate(commits):
        if commit[:8] in measured:
            return commits[position::-1]
    return commits[:1]


def complete_clone(remote: str) -> None:
    """Fetch the commits that a shallow clone lacks: the site and `new` need them."""
    if runner.git("rev-parse", "--is-shallow-repository") != "true":
        return
    print(f"This clone is shallow: fetching its history from {remote}.")
    fetching = ["git", "fetch", "--quiet", "--unshallow", remote]
    if subprocess.run(fetching, cwd=runner.ROOT).returncode != 0:
        raise obstacles.ObstacleError(
            f"This clone is shallow, and git could not fetch the rest from {remote}: fix what git "
            "says above, or clone without --depth (for actions/checkout: fetch-depth: 0)."
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
