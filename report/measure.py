"""`asv run` in this process: each figure is kept as it comes, and the time that is left is shown.

asv itself saves the results of an environment when all of its benchmarks have run, so that Ctrl-C
loses them. Here they are saved after each, and a journal beside them says which are done: the same
command goes on from there.
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
from report.results import durations

JOURNAL = Path(".asv", "unfinished.jsonl")
# What the machine does meanwhile happens to all sides, and the samples of one process share that
# process's luck: several processes, in turns.
IN_TURNS = ("--interleave-rounds", "--attribute=rounds=4", "--attribute=repeat=3")
SHOWN_EVERY = 20.0  # seconds, between two lines of the time that is left
Step = tuple[str, str, int, str]  # commit, environment, round, benchmark


def measure(conf: Any, options: Any, space: int, resumable: bool = True) -> int:
    """Run asv on `space` bytes of scratch; return its exit code.

    Parameters
    ----------
    conf : Config
        asv's.
    options : Namespace
        Those of `asv run`.
    space : int
        Bytes that the run needs on the disk.
    resumable : bool
        Whether an interrupted run is gone on with.

    Raises
    ------
    KeyboardInterrupt
        It was interrupted: what to do has been said.
    """
    for plugin in conf.plugins:
        plugin_manager.import_plugin(plugin)
    _enable_log(options.verbose)
    journal = Journal(_identity(options), keeps=resumable and not options.dry_run)
    if journal.done:  # what has some of its rounds exists, and is not to be skipped
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


@cache  # a handler for each call would write each line as often
def _enable_log(verbose: bool) -> None:
    log.enable(verbose)


@contextmanager
def _temporary(directory: str) -> Iterator[None]:
    """Have asv, and what it starts, make temporary files in a directory."""
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
    """Return what makes two runs the same: the code, the images and what was asked for."""
    asked = {name: value for name, value in vars(options).items() if name != "func"}
    dataset = os.environ.get("STORAGE_IMPL_DATASET", "")
    head = "" if options.range else runner.git("rev-parse", "HEAD")
    return [head, dataset, json.dumps(asked, default=str)]


class Journal:
    """Which steps of a run are done: a line each, after one of what the run is.

    Parameters
    ----------
    identity : list of str
        What the run is.
    keeps : bool
        Whether there is a next run to go on.
    """

    def __init__(self, identity: Sequence[str], keeps: bool) -> None:
        self.keeps = keeps
        self.done: set[Step] = set()
        if not keeps:
            return
        lines = JOURNAL.read_text().splitlines() if JOURNAL.exists() else []
        if lines and lines[0] == json.dumps(identity):
            # A line is torn where the machine went down: that step is measured again.
            self.done = {tuple(json.loads(line)) for line in lines[1:] if line.endswith("]")}
            print(f"Going on with the run that was interrupted; to start anew, remove {JOURNAL}.")
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
            f"Interrupted. What was measured of {benchmarks} is kept, and the same command goes "
            "on from there."
        )


class Clock:
    """The time that is left: what is to be measured, as long as it took when it was measured last.

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
        """Start, with the rounds of each benchmark, and how often all of them are run."""
        if self._weights:
            return
        known = [self._durations[name] for name in rounds if name in self._durations]
        usual = median(known) if known else 1.0
        for name, count in rounds.items():
            self._weights[name] = self._durations.get(name, usual) / count
            self._left += self._weights[name] * count * laps
        self._start = self._said = time.monotonic()

    def skip(self, name: str) -> None:
        """Expect a round of a benchmark no longer."""
        self._left -= self._weights.get(name, 0.0)

    def tick(self, name: str) -> None:
        """Note that a round of a benchmark is measured."""
        self.skip(name)
        self._done += self._weights.get(name, 0.0)

    def say(self, say: Callable[[str], None]) -> None:
        """Say now and then how long it takes from here."""
        now = time.monotonic()
        if self._done and now > self._said + SHOWN_EVERY:
            self._said = now
            left = self._left * (now - self._start) / self._done
            say(f"About {left / 60:.0f} min left" if left > 90 else "About a minute left")


def _resumable(original: Any, conf: Any, options: Any, journal: Journal) -> Any:
    """Return asv's `run_benchmarks` with what is done left out, and each result saved at once.

    asv's own runs all benchmarks for a round before it goes on to the next one. So does this, by
    a call for each round.
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
