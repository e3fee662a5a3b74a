"""Results as asv stores them, made up: of every benchmark, for a site to be made of."""

import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from asv_runner.discovery import disc_benchmarks

from report.own_images import DEFAULT, TAG

ROOT = Path(__file__).resolve().parent.parent
START = 1_700_000_000  # seconds; the date of the first commit
DAY = 86_400

HOSTILE = "<script>alert(1)</script>"
CURRENT = {"numpy": "2.4.6", "Pillow": "13.0.0", "lmdb": "3.0.0", "h5py": "3.16.0"}
OLDER = (
    ("lmdb", "2.1.1"),
    ("lmdb", "1.4.1"),
    ("h5py", "3.13.0"),
    ("h5py", "3.8.0"),
    ("Pillow", "11.3.0"),
    ("Pillow", "9.2.0"),
    ("numpy", "2.2.6"),
    ("numpy", "1.26.4"),
)
ENVIRONMENTS = (CURRENT, *({**CURRENT, library: version} for library, version in OLDER))

# Microseconds an image; bytes on disk over bytes of pixels.
WRITE = {"png": 400.0, "lmdb": 8.0, "hdf5": 1.1, "floor": 0.8}
READ = {"png": 80.0, "lmdb": 1.3, "hdf5": 0.4, "floor": 0.3}
RANDOM = {"png": 80.0, "lmdb": 1.5, "hdf5": 11.0, "floor": 1.0}
DISK = {"png": 1.33, "lmdb": 1.35, "hdf5": 1.01, "floor": 1.0}
PIXELS = 32 * 32 * 3
CALIBRATION = {"calibration.Cpu.time_work": 0.027, "calibration.Disk.time_work": 0.0035}  # seconds
FACTS = {
    "LMDB": "0.9.36",
    "HDF5": "2.0.0",
    "file system": "ext4",
    "page cache": "warm unless a benchmark says cold",
    "kernel": "Linux 6.1.0",
}

# What the names of benchmarks begin with that the choices of the page have no part in. They are a
# third of all results, and asv takes the same time for each.
NOT_COMPARED = ("tuning_", "work.")

COLUMNS = (
    *("result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b"),
    *("stats_q_25", "stats_q_75", "stats_number", "stats_repeat", "samples", "profile"),
)


def _spread(random_numbers: random.Random) -> list[float]:
    """Return ends and quartiles of ten samples at most 5% around a median of 1."""
    samples = sorted(random_numbers.uniform(0.95, 1.05) for _ in range(10))
    low, middle, high = statistics.quantiles(samples, n=4)
    return [x / middle for x in (samples[0], samples[-1], low, high)]


SPREADS = [_spread(random.Random(seed)) for seed in range(8)]

Change = Callable[[str, dict[str, str], float], float | None]


class Stored(NamedTuple):
    """A repository, its results, and where the site of them goes.

    Attributes
    ----------
    directory : Path
        What holds all of it.
    commits : list of str
        Their hashes, oldest first.
    """

    directory: Path
    commits: list[str]

    @property
    def results(self) -> Path:
        return self.directory / "results"

    @property
    def html(self) -> Path:
        return self.directory / "html"

    def publish(self) -> str:
        """Make the site as asv does with the plugin; return what it prints."""
        # Not with coverage, which is of the package alone.
        names = os.environ.keys() - {"COVERAGE_PROCESS_CONFIG"}
        done = subprocess.run(
            [sys.executable, "-m", "asv", "--config", "asv.conf.json", "publish"],
            cwd=self.directory,
            env={**{name: os.environ[name] for name in names}, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@cache
def known_benchmarks() -> dict[str, dict[str, Any]]:
    """Return what asv knows of each benchmark of this suite, by name."""
    kinds = (str, int, float, list, dict, bool)  # as asv chooses them
    return {
        benchmark.name: {
            name: value
            for name, value in vars(benchmark).items()
            if isinstance(value, kinds) and not name.startswith("_")
        }
        for benchmark in disc_benchmarks(str(ROOT / "benchmarks"))
    }


def unchanged(name: str, parameters: dict[str, str], value: float) -> float | None:
    return value


def store(
    directory: Path,
    *,
    commits: int = 1,
    environments: Sequence[dict[str, str]] = (CURRENT,),
    machines: Iterable[str] = ("desk",),
    datasets: Sequence[str] = ("synthetic",),
    without: tuple[str, ...] = (),
    change: Change = unchanged,
) -> Stored:
    """Make up results of every benchmark.

    LMDB reads in half the time since lmdb 2; HDF5 takes half as long again to write from the
    middle commit on. All else differs by noise.

    Parameters
    ----------
    directory : Path
        Where to; it is made.
    commits, environments, machines
        What to multiply; no commits, no results. The machines after the first have two
        environments at most.
    datasets
        What the first commits were measured on, in turn; the others are on the last.
    without
        What the names of benchmarks begin with that have no results.
    change : callable
        Takes a benchmark, its parameters as asv writes them, and the value; returns what to
        store instead: None failed, and NaN was not run.
    """
    directory.mkdir(parents=True)
    stored = Stored(directory, _make_repository(directory / "repository", max(commits, 1)))
    settings = {
        "version": 1,
        "project": "storage_impl",
        "repo": str(directory / "repository"),
        "branches": ["main"],
        "plugins": [".report"],
        "results_dir": str(stored.results),
        "html_dir": str(stored.html),
        "env_dir": str(directory / "env"),
    }
    (directory / "asv.conf.json").write_text(json.dumps(settings))
    benchmarks = known_benchmarks()
    stored.results.mkdir()
    _write(stored.results / "benchmarks.json", {**benchmarks, "version": 2})
    for number, machine in enumerate(machines):
        facts = {
            "machine": machine,
            "os": "Linux 6.1",
            "arch": "x86_64",
            "cpu": "A processor",
            "num_cpu": "2",
            "ram": str(8 << 30),
        }
        place = stored.results / f"machine-{number}"  # a name need not be one of a directory
        place.mkdir()
        _write(place / "machine.json", {**facts, "version": 1})
        for position, commit in enumerate(stored.commits[:commits]):
            dataset = datasets[min(position, len(datasets) - 1)]
            for environment in environments[: 2 if number else None]:
                name = "virtualenv-py3.11-" + "-".join(
                    f"{library}{version}" for library, version in sorted(environment.items())
                )
                if dataset != DEFAULT:
                    name += f"-{TAG}{dataset}"
                noise = random.Random(f"{machine} {position} {name}")
                late = 2 * position >= commits > 1
                result = {
                    "commit_hash": commit,
                    "env_name": name,
                    "date": (START + position * DAY) * 1000,
                    "params": {**facts, "python": "3.11", **environment},
                    "python": "3.11",
                    "requirements": environment,
                    "env_vars": {} if dataset == DEFAULT else {TAG: dataset},
                    "result_columns": COLUMNS,
                    "results": {
                        known["name"]: _row(known, environment, late, noise, change)
                        for known in benchmarks.values()
                        if not known["name"].startswith(without)
                    },
                    "durations": {},
                    "version": 2,
                }
                _write(place / f"{commit[:8]}-{name}.json", result)
                _write(place / f"{commit[:8]}-{name}.facts", FACTS)
    return stored


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _row(
    known: dict[str, Any],
    environment: dict[str, str],
    late: bool,
    noise: random.Random,
    change: Change,
) -> list[Any]:
    values: list[float | None] = []
    spreads: list[list[float] | None] = []
    for key in product(*known["params"]):
        parameters = dict(zip(known["param_names"], key, strict=True))
        value = _value(known, parameters, environment, late)
        if known["type"] != "track":  # what is counted does not vary
            value *= noise.uniform(0.99, 1.01)
        changed = change(known["name"], parameters, value)
        values.append(changed)
        spread = SPREADS[noise.randrange(len(SPREADS))]
        measured = changed is not None and not math.isnan(changed)
        spreads.append([x * changed for x in spread] if measured else None)
    row: list[Any] = [values, known["params"], known["version"], START * 1000, 1.0]
    if known["type"] == "time" and any(spreads):
        row += [[s and s[column] for s in spreads] for column in range(4)]
        row += [[s and number for s in spreads] for number in (1, 10)]
    return row


def _value(
    known: dict[str, Any], parameters: dict[str, str], environment: dict[str, str], late: bool
) -> float:
    """Return about what a benchmark would measure."""
    name = known["name"]
    if name in CALIBRATION:
        return CALIBRATION[name]
    backend = parameters.get("backend", "'floor'").strip("'")
    images = int(parameters.get("count", known.get("images", 1)))
    if known["type"] == "peakmemory":
        return 60e6 + images * PIXELS
    if known["type"] == "track" and "seconds" not in known["unit"]:
        ratio = DISK.get(backend, 1.0)
        return ratio * images * PIXELS + 8192 if known["unit"] == "bytes" else ratio
    writes = "write" in name.lower() or "append" in name.lower()
    costs = WRITE if writes else RANDOM if "One" in name or "order" in parameters else READ
    cost = costs.get(backend, 1.0)
    for parameter, value in sorted(parameters.items()):
        if parameter not in ("backend", "count"):
            cost *= random.Random(f"{parameter} {value}").uniform(0.7, 1.4)
    if backend == "lmdb" and not writes and environment["lmdb"].startswith("1."):
        cost *= 2
    if backend == "hdf5" and writes and late:
        cost *= 1.5
    return (20 + images * cost) * 1e-6


def _make_repository(directory: Path, commits: int) -> list[str]:
    """Make a repository with one commit a day; return their hashes."""
    who = "A <a@example.com>"
    subprocess.run(["git", "init", "-q", "-b", "main", directory], check=True)
    script = "".join(
        f"commit refs/heads/main\ncommitter {who} {START + number * DAY} +0000\n"
        f"data 1\n.\nM 100644 inline file\ndata {len(str(number))}\n{number}\n"
        for number in range(commits)
    )
    subprocess.run(
        ["git", "fast-import", "--quiet"], cwd=directory, input=script.encode(), check=True
    )
    done = subprocess.run(
        ["git", "rev-list", "--reverse", "main"],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()
