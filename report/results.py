"""Read the results that asv keeps, as figures for the page and the terminal."""

import json
import math
import os
from ast import literal_eval
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from asv import _stats
from asv.benchmarks import Benchmarks
from asv.config import Config
from asv.machine import Machine
from asv.results import Results, iter_results_paths
from asv.util import UserError

from report import own_images
from report.workloads import CALIBRATION, OF_ONE_IMAGE, Group, Workload, used_in

Key = tuple[Any, ...]

# In the order in which they are shown; newer versions of Pillow have zlib-ng in place of zlib.
BUNDLED = ("LMDB", "HDF5", "zlib", "zlib-ng", "xxHash")

# From 8 samples on, two of them are the ends of a 99% confidence interval for the median:
# 2 * 0.5**8 < 0.01. With fewer, asv's interval depends on an assumed distribution.
ENOUGH = 8

# What JSON has for a figure; a benchmark that failed has none.
NUMBERS = {int, float, bool, type(None)}


class Figure(NamedTuple):
    """What one benchmark measured with one set of parameters.

    Attributes
    ----------
    value : float or None
        The median of the samples in the benchmark's unit; None if it failed, and NaN if it was
        not run or does not apply.
    stats : dict
        asv's statistics of the samples; empty if the value is measured once.
    samples : list of float or None
        The samples, if asv was told to keep them.
    varies : bool
        Whether another run would find another value. Times and memory in use vary; bytes and ratios
        that are counted do not.
    """

    value: float | None
    stats: Mapping[str, float]
    samples: list[float] | None
    varies: bool

    @property
    def number(self) -> float | None:
        """The value; None if it failed, was not run or does not apply."""
        return None if self.value is None or math.isnan(self.value) else self.value

    @property
    def failed(self) -> bool:
        """Whether it was run, and gave no value."""
        return self.value is None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 99% confidence interval of the median, from asv; None if samples are too few."""
        ends = self.stats.get("ci_99_a", math.nan), self.stats.get("ci_99_b", math.nan)
        return ends if all(map(math.isfinite, ends)) else None

    @property
    def repeat(self) -> int | None:
        """The number of samples; None if the value does not vary."""
        return int(self.stats.get("repeat", 1)) if self.varies else None

    def differs(self, other: "Figure") -> bool | None:
        """Return whether the difference is more than noise; None if it cannot be known.

        The test is that of `asv compare`. If enough samples were kept, it is the Mann-Whitney test
        at 0.002. Otherwise, two values differ if their 99% confidence intervals do not overlap.
        """
        if not self.varies:
            return self.value != other.value
        if self.interval is None or other.interval is None:
            return None
        return bool(_stats.is_different(self.samples, other.samples, self.stats, other.stats))


class Benchmark(NamedTuple):
    """What asv knows about a benchmark, and what was measured with it.

    Attributes
    ----------
    known : dict
        Its entry in benchmarks.json.
    figures : dict
        By parameters.
    """

    known: Mapping[str, Any]
    figures: dict[Key, Figure]

    def parameters(self, key: Key) -> dict[str, Any]:
        """Return the parameters by name."""
        return dict(zip(self.known["param_names"], key, strict=True))

    def images(self, parameters: Mapping[str, Any]) -> int:
        """Return how many images a call with these parameters handles."""
        count = self.known.get("images", parameters.get("count"))
        return count if isinstance(count, int) and count > 0 else 1


def over_plain(measured: Mapping[str, Benchmark], name: str, key: Key) -> float | None:
    """Return the cost of an image divided by its cost in plain code: what the promises cost.

    Parameters
    ----------
    measured : dict
        The benchmarks, by name.
    name : str
        The benchmark; its fact `plain` names that of plain code.
    key : tuple
        Its parameters, the backend first.

    Returns
    -------
    float or None
        None if one of the two was not measured.
    """
    ours = measured.get(name)
    plain = measured.get(ours.known.get("plain", "")) if ours else None
    if ours is None or plain is None or key not in ours.figures or key not in plain.figures:
        return None
    costs = [
        (found := benchmark.figures[key].number)
        and found / benchmark.images(benchmark.parameters(key))
        for benchmark in (ours, plain)
    ]
    return costs[0] / costs[1] if costs[0] is not None and costs[1] else None


class Cell(NamedTuple):
    """A figure in the table of a group.

    Attributes
    ----------
    workload : Workload
        Its row.
    column : str
        The backend, or what else is compared.
    choices : tuple of str
        The values that the reader chooses; empty if the benchmark has no such parameter.
    figure : Figure
    images : int
        What to divide the figure by.
    over_plain : float or None
        The ratio, in a group of ratios to plain code.
    """

    workload: Workload
    column: str
    choices: tuple[str, ...]
    figure: Figure
    images: int
    over_plain: float | None


def cells_of(group: Group, measured: Mapping[str, Benchmark]) -> Iterator[Cell]:
    """Yield the cells of a group that were measured or failed, row by row."""
    for workload in used_in(group.id):
        for source in (workload.source, *workload.beside):
            benchmark = measured.get(source.benchmark)
            if benchmark is None:
                continue
            for key, figure in benchmark.figures.items():
                parameters = benchmark.parameters(key)
                if not source.where.items() <= parameters.items():
                    continue
                ratio = over_plain(measured, source.benchmark, key) if group.over_plain else None
                known = figure.failed or figure.number is not None
                if not (ratio is not None if group.over_plain else known):
                    continue
                yield Cell(
                    workload,
                    source.line or str(key[0]),
                    tuple(str(parameters.get(name, "")) for name in group.choices),
                    figure,
                    benchmark.images(parameters) if workload.unit in OF_ONE_IMAGE else 1,
                    ratio,
                )


class Result(NamedTuple):
    """What was measured for one commit, in one environment of one machine.

    Attributes
    ----------
    machine, environment, commit : str
    date : int
        The date of the commit, in milliseconds since 1970.
    hardware, versions, facts : dict of str to str
        What it was measured with: the machine, the Python packages, and what is recorded beside
        the results.
    datasets : dict
        The benchmarks by name, for each name of images.
    outdated : int
        How many benchmarks were left out because another version of them was measured.
    common : dict
        The benchmarks that use no images, such as the calibration, by name. All datasets have them,
        too.
    """

    machine: str
    environment: str
    commit: str
    date: int
    hardware: dict[str, str]
    versions: dict[str, str]
    facts: dict[str, str]
    datasets: dict[str, dict[str, Benchmark]]
    outdated: int
    common: Mapping[str, Benchmark] = {}

    @property
    def hardware_line(self) -> str:
        """A line about the hardware, as far as asv knows it."""
        known = self.hardware
        ram = f"{int(known['ram']) / 2**30:.0f} GiB" if known["ram"].isdigit() else known["ram"]
        cores = f"{known['num_cpu']} cores" if known["num_cpu"] else ""
        return ", ".join(filter(None, (known["cpu"], cores, ram, known["os"])))

    @property
    def calibration(self) -> dict[str, float]:
        """How many seconds the fixed loads took, those that were measured."""
        return {
            load: value
            for load, name in CALIBRATION.items()
            if name in self.common
            for figure in self.common[name].figures.values()
            if (value := figure.number)
        }


def result_files(results_dir: str) -> dict[str, int]:
    """Return the files of results, each with the time at which it was written."""
    paths = (os.path.join(root, name) for root, name, _ in iter_results_paths(results_dir))
    return {path: os.stat(path).st_mtime_ns for path in paths}


def leave_out_unusable() -> None:
    """Make asv leave out, and name, a file of results with figures that it cannot use.

    asv itself does so only if the file is not JSON or lacks a key. Other contents would end
    `asv publish`.
    """
    load_file = Results.load
    sound: set[str] = set()  # asv loads each file three times, and the page once more

    def load_checked(path: str, machine_name: str | None = None) -> Any:
        try:
            results = load_file(path, machine_name)
            if path not in sound:
                _check(results)
                sound.add(path)
        except (RecursionError, TypeError, ValueError, AttributeError, LookupError) as error:
            cause = str(error) or type(error).__name__
            raise UserError(f"Error loading results file '{path}': {cause}") from error
        return results

    Results.load = staticmethod(load_checked)


def _check(results: Any) -> None:
    """Raise TypeError unless figures are numbers, and commits and parameters are text."""
    if not isinstance(results.date, int) or not isinstance(results.commit_hash, str):
        raise TypeError("the commit or its date is malformed")
    for name in results.get_all_result_keys():
        parameters = results.get_result_params(name)
        if not all(isinstance(value, str) for values in parameters or () for value in values):
            raise TypeError(f"{name} has malformed parameters")
        kinds = set(map(type, results.get_result_value(name, parameters)))
        for stats in filter(None, results.get_result_stats(name, parameters)):
            kinds.update(map(type, stats.values()))
        for samples in filter(None, results.get_result_samples(name, parameters)):
            kinds.update(map(type, samples))
        if not kinds <= NUMBERS:
            raise TypeError(f"{name} has a figure that is not a number")


def read_all(results_dir: str, benchmarks: Mapping[str, Any]) -> Iterator[Result]:
    """Yield all results; those of one machine and commit come one after another.

    Files that asv cannot read are left out: asv has named them when it made its own pages.
    """
    for root, name, machine in sorted(iter_results_paths(results_dir)):
        path = os.path.join(root, name)
        with suppress(UserError):
            yield load(path, benchmarks, machine)


def load(path: str | Path, benchmarks: Mapping[str, Any], machine: str | None = None) -> Result:
    """Return what a file of results holds.

    Parameters
    ----------
    path : str or Path
    benchmarks : dict
        What asv knows about each benchmark, by name.
    machine : str, optional
        The machine that the file must be of.

    Raises
    ------
    UserError
        asv cannot read the file, or it is of another machine.
    """
    results = Results.load(str(path), machine_name=machine)
    versions = {name: str(value or "") for name, value in results.params.items()}
    hardware = {name: versions.pop(name, "") for name, _ in Machine.fields}
    datasets: dict[str, dict[str, Benchmark]] = {}
    common: dict[str, Benchmark] = {}
    outdated = 0
    for name in sorted(results.get_all_result_keys()):
        known = benchmarks.get(name)
        if known is None:
            continue
        version = str(results.benchmark_version.get(name) or known["version"])
        # Before images had their own environment, their name was a part of the version.
        if version.partition(", ")[0] != str(known["version"]).partition(", ")[0]:
            outdated += 1
            continue
        measured = Benchmark(known, dict(_figures(results, name, known)))
        if name in CALIBRATION.values():
            common[name] = measured
        else:
            dataset = own_images.name_of(results.env_vars, version)
            datasets.setdefault(dataset, {})[name] = measured
    for measured_with in datasets.values():
        measured_with.update(common)
    return Result(
        machine=hardware["machine"],
        environment=str(results.env_name),
        commit=str(results.commit_hash),
        date=int(results.date or 0),
        hardware=hardware,
        versions=versions,
        facts=facts_of(path),
        datasets=datasets,
        outdated=outdated,
        common=common,
    )


def known_benchmarks(results_dir: str | Path) -> Mapping[str, Any]:
    """Return what asv knows about the benchmarks of a directory of results, by name."""
    conf = Config()
    conf.results_dir = str(results_dir)
    benchmarks: Mapping[str, Any] = Benchmarks.load(conf)
    return benchmarks


def durations(results_dir: str | Path) -> dict[str, float]:
    """Return how many seconds each benchmark took, according to the newest files of results."""
    files = result_files(str(results_dir))
    found: dict[str, float] = {}
    for path in sorted(files, key=files.__getitem__)[-20:]:
        with suppress(UserError):
            for name, seconds in Results.load(path).duration.items():
                # For benchmarks that are measured in turns, asv keeps only that of the last turn.
                found[name] = max(seconds or 0.0, found.get(name, 0.0))
    return found


def facts_of(result_path: str | Path) -> dict[str, str]:
    """Return the facts recorded beside a file of results; none if none can be read."""
    try:
        recorded = json.loads(Path(result_path).with_suffix(".facts").read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(recorded, dict):
        return {}
    return {str(name): str(value) for name, value in recorded.items()}


def libraries(facts: Mapping[str, str]) -> str:
    """Return the C libraries with their versions, in one line."""
    return ", ".join(f"{name} {facts[name]}" for name in BUNDLED if name in facts)


def _figures(results: Any, name: str, known: Mapping[str, Any]) -> Iterator[tuple[Key, Figure]]:
    parameters = results.get_result_params(name) or []
    if len(parameters) != len(known["param_names"]):
        return
    keys = _keys(tuple(map(tuple, parameters)))
    values = results.get_result_value(name, parameters)
    stats = results.get_result_stats(name, parameters)
    samples = results.get_result_samples(name, parameters)
    varies = known["type"] != "track" or known["unit"] == "seconds"
    for key, value, stat, sample in zip(keys, values, stats, samples, strict=True):
        number = isinstance(value, int | float) and not math.isinf(value)
        yield key, Figure(float(value) if number else None, stat or {}, sample, varies)


@cache  # they are the same in thousands of files
def _keys(parameters: tuple[tuple[str, ...], ...]) -> list[Key]:
    """Return all combinations of parameters."""
    return list(product(*(map(_parameter, values) for values in parameters)))


def _parameter(written: str) -> Any:
    """Return the value of a parameter, of which asv keeps the repr."""
    try:
        value = literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return written
    return value if isinstance(value, str | int | float | bool) else written
