"""Run `asv run` in this process: save each figure at once, and show the time that is left.

asv itself saves the results of an environment only when all of its benchmarks have run, so Ctrl-C
loses them. Here they are saved after each benchmark, and a journal beside them says which are done.
The same command then continues from there.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from asv.commands import run
from asv.console import log
from asv.plugin_manager import plugin_manager
from asv.util import ProcessError, UserError

from report import obstacles, runner
from report.results import durations, result_files

JOURNAL = Path(".asv", "unfinished.jsonl")
# Several processes measure in turns, for two reasons. What the machine does meanwhile affects all
# sides alike, and the samples of a single process resemble each other.
IN_TURNS = ("--interleave-rounds", "--attribute=rounds=4", "--attribute=repeat=3")
SHOWN_EVERY = 20.0  # seconds, between two lines of the time that is left
Step = tuple[str, str, int, str]  # commit, environment, round, benchmark


def measure_and_publish(
    conf: Any, options: Any, space: int, text: Callable[[set[str]], str] = lambda paths: ""
) -> int:
    """Measure, publish the site and say where it is; return the exit code.

    Parameters
    ----------
    conf, options, space
        As for `measure`.
    text : callable, optional
        Returns what to print of the files of results that were written.
    """
    before = result_files(conf.results_dir)
    code = measure(conf, options, space)
    changed = result_files(conf.results_dir).items() - before.items()
    if not changed:
        print("\nNo results were saved: there is nothing to publish.")
        return code
    if failure := runner.publish(conf):
        return failure
    if tables := text({path for path, _ in changed}):
        print(f"\n{tables}")
    runner.say_where(conf, code)
    return code


def measure(conf: Any, options: Any, space: int) -> int:
    """Run asv with `space` bytes of scratch space; return its exit code.

    Parameters
    ----------
    conf : Config
        The configuration of asv.
    options : Namespace
        The options of `asv run`.
    space : int
        Bytes that the run needs on the disk.

    Raises
    ------
    KeyboardInterrupt
        The run was interrupted; what to do is printed before.
    """
    for plugin in conf.plugins:
        plugin_manager.import_plugin(plugin)
    _enable_log(options.verbose)
    journal = Journal(_identity(options), keeps=not options.dry_run)
    if journal.done:  # a benchmark with some of its rounds has results, but must not be skipped
        options.skip_existing = options.skip_existing_successful = False
    original = run.run_benchmarks
    with runner.scratch(space) as directory, _temporary(directory):
        run.run_benchmarks = _resumable(original, conf, options, journal)
        try:
            code = int(run.Run.run_from_conf_args(conf, options) or 0)
        except (UserError, ProcessError, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) or str(error) == "Interrupted.":  # asv's words
                log.flush()
                print(f"\n{obstacles.wrapped(journal.farewell())}", file=sys.stderr)
                raise KeyboardInterrupt from None
            log.error(str(error))
            return 1
        finally:
            run.run_benchmarks = original
            vars(log).pop("step", None)  # the class has its own
            log.flush()
    journal.close()
    return code


@cache  # each further call would add a handler, and each handler writes every line
def _enable_log(verbose: bool) -> None:
    log.enable(verbose)


@contextmanager
def _temporary(directory: str) -> Iterator[None]:
    """Make asv, and what it starts, put temporary files into a directory."""
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = directory
    try:
        yield
    finally:
        tempfile.tempdir = before[1]
        if before[0] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before[0]


def _identity(options: Any) -> list[str]:
    """Return what identifies a run: the code, the images and the options."""
    asked = {name: value for name, value in vars(options).items() if name != "func"}
    dataset = os.environ.get("STORAGE_IMPL_DATASET", "")
    head = "" if options.range else runner.git("rev-parse", "HEAD")
    return [head, dataset, json.dumps(asked, default=str)]


class Journal:
    """Which steps of a run are done: a line for each, after a line that identifies the run.

    Parameters
    ----------
    identity : list of str
        What identifies the run.
    keeps : bool
        Whether a later run can continue this one.
    """

    def __init__(self, identity: Sequence[str], keeps: bool) -> None:
        self.keeps = keeps
        self.done: set[Step] = set()
        if not keeps:
            return
        lines = JOURNAL.read_text().splitlines() if JOURNAL.exists() else []
        if lines and lines[0] == json.dumps(identity):
            # A line is torn if the machine went down: that step is measured again.
            self.done = {tuple(json.loads(line)) for line in lines[1:] if line.endswith("]")}
            print(f"Continuing the interrupted run; to start a new one, remove {JOURNAL}.")
        else:
            JOURNAL.parent.mkdir(exist_ok=True)
            JOURNAL.write_text(json.dumps(identity) + "\n")

    def add(self, step: Step) -> None:
        """Note that a step is done."""
        self.done.add(step)
        if self.keeps:
            with JOURNAL.open("a") as file:
                file.write(json.dumps(step) + "\n")

    def close(self) -> None:
        """Forget the run: it is complete."""
        if self.keeps:
            JOURNAL.unlink(missing_ok=True)

    def farewell(self) -> str:
        """Return what to do after an interrupt."""
        if not self.done:
            return "Interrupted before anything was measured."
        if not self.keeps:
            return "Interrupted: this run keeps nothing."
        count = len({step[3] for step in self.done})
        benchmarks = f"{count} benchmark{'s' if count > 1 else ''}"
        return (
            f"Interrupted. What was measured of {benchmarks} is kept, and the same command "
            "continues from there."
        )


class Clock:
    """The time that is left, estimated from how long each benchmark took the last time.

    Parameters
    ----------
    durations : dict of str to float
        How many seconds each benchmark took, with all of its rounds.
    """

    def __init__(self, durations: Mapping[str, float]) -> None:
        self._durations = durations
        self._weights: dict[str, float] = {}
        self._done = self._left = 0.0
        self._start = self._said = time.monotonic()

    def begin(self, rounds: Mapping[str, int], laps: float) -> None:
        """Start, with the rounds of each benchmark, and how many times all of them are run."""
        if self._weights:
            return
        known = [self._durations[name] for name in rounds if name in self._durations]
        usual = median(known) if known else 1.0
        for name, count in rounds.items():
            self._weights[name] = self._durations.get(name, usual) / count
            self._left += self._weights[name] * count * laps
        self._start = self._said = time.monotonic()

    def skip(self, name: str) -> None:
        """Leave a round of a benchmark out of the time that is left."""
        self._left -= self._weights.get(name, 0.0)

    def tick(self, name: str) -> None:
        """Note that a round of a benchmark is measured."""
        self.skip(name)
        self._done += self._weights.get(name, 0.0)

    def say(self, say: Callable[[str], None]) -> None:
        """Say how much time is left, unless it was said a short time ago."""
        now = time.monotonic()
        if self._done and now > self._said + SHOWN_EVERY:
            self._said = now
            left = self._left * (now - self._start) / self._done
            say(f"About {left / 60:.0f} min left" if left > 90 else "About a minute left")


def _resumable(original: Any, conf: Any, options: Any, journal: Journal) -> Any:
    """Return asv's `run_benchmarks`, which now skips what is done and saves each result at once.

    asv's own function runs all benchmarks for a round before the next round. So does this one, with
    a call of asv's for each round.
    """
    clock = Clock(durations(runner.ROOT / "docs" / "results") | durations(conf.results_dir))
    log_step = log.step

    def step() -> None:
        log_step()
        clock.say(log.info)

    log.step = step

    def run_benchmarks(
        benchmarks: Any,
        env: Any,
        results: Any,
        run_rounds: list[int] | None,
        record_samples: bool,
        append_samples: bool,
        **given: Any,
    ) -> None:
        own = given["extra_params"] or {}
        rounds = {
            name: int(own.get("rounds", known.get("rounds", 1)))
            for name, known in benchmarks.items()
        }
        most = max(rounds.values())
        clock.begin(rounds, log._total / (most * len(benchmarks)))
        add_result = results.add_result

        def add(benchmark: Mapping[str, Any], *figures: Any, **more: Any) -> None:
            name = benchmark["name"]
            if number < rounds[name]:
                more["duration"] = more.get("duration", 0.0) + results.duration.get(name, 0.0)
            add_result(benchmark, *figures, **more)
            if not options.dry_run:
                results.save(conf.results_dir)
            journal.add((results.commit_hash, env.name, number, name))
            clock.tick(name)

        results.add_result = add
        for number in run_rounds or range(most, 0, -1):
            done = {
                name
                for name in benchmarks
                if (results.commit_hash, env.name, number, name) in journal.done
            }
            for name in done:
                log_step()
                clock.skip(name)
            if len(done) < len(benchmarks):
                original(
                    benchmarks.filter_out(done),
                    env,
                    results=results,
                    run_rounds=[number],
                    record_samples=record_samples or (not run_rounds and number > 1),
                    append_samples=append_samples or (not run_rounds and number < most),
                    **given,
                )

    return run_benchmarks
