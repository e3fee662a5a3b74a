"""Fill the tables of README.md and of docs/ from the results that are kept in docs/results.

A page is written by hand, but for its tables. What stands between `<!-- table NAME -->` and
`<!-- end -->` is replaced by the table of that name in docs/tables.toml, which has a row in each
line:

    read 10,000 (us/image): many_images.ReadMany.time_read(*, 10_000)

A row is what to call it, a unit in brackets and a benchmark with its parameters, or two with
a "/" between them. `*` in place of the backend, or store, makes a column for each. `@ Pillow 9.2.0`
after a benchmark takes it from the run with that version of a library; all of these are of one
commit. `@ others` and `@ loaders` take it from the newest run of `tox run -e others` or
`loaders-bench`, which have further packages. The name `run` says what all was measured with, and
the name `verdicts` lists the sections of the page with what each says in bold at the start of a
line: Holds, Holds if, or Does not hold.
"""

import re
import tomllib
from ast import literal_eval
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from packaging.version import Version

from report.results import Key, known_benchmarks, load, result_files
from report.terminal import figure, head
from report.workloads import LIBRARIES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
ROWS = ROOT / "docs" / "tables.toml"
PAGES = (
    ROOT / "docs" / "findings.md",
    ROOT / "docs" / "choosing.md",
    ROOT / "docs" / "questions.md",
    ROOT / "docs" / "scale.md",
    ROOT / "docs" / "cost.md",
    ROOT / "README.md",
)
BACKENDS = ("png", "lmdb", "hdf5")
ABSENT = "not measured"

# By unit: what to multiply a benchmark's own with, and what it is shared among.
UNITS = {
    "us/image": (1e6, "images"),
    "ms/MB": (1e9, "bytes"),
    "us": (1e6, ""),
    "ms": (1e3, ""),
    "bytes/image": (1.0, "images"),
    "MB": (1e-6, ""),
    "ratio": (1.0, ""),
    "times": (1.0, "images"),
}

# Runs with further packages: one of these, and the environment of tox.
FURTHER = {"others": ("plyvel", "others"), "loaders": ("torch", "loaders-bench")}

BLOCK = re.compile(r"(<!-- table (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
ROW = re.compile(r"(?P<label>.+) \((?P<unit>[\w/]+)\): (?P<terms>.+)")
TERM = re.compile(
    r"(?P<name>[\w.]+)\((?P<key>[^)]*)\)(?: @ (?P<package>\w+)(?: (?P<version>\S+))?)?"
)

SECTION = re.compile(r"^## ((\d+)\. (.*))$|^\*\*(Holds if|Holds|Does not hold)\b", re.MULTILINE)


class Quantity(NamedTuple):
    """A median, and between what it lies with a confidence of 99%, if that is known."""

    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        if self.interval is None:
            return figure(self.value)
        low, high = map(figure, self.interval)
        return f"{figure(self.value)} ({low}–{high})"  # noqa: RUF001, a range


class Run:
    """What is kept of one environment.

    Attributes
    ----------
    commit : str
        What was measured.
    date : int
        Of the commit.
    versions : dict
        Of each library that is varied.
    packages : set of str
        All that were installed by name.
    head : list of str
        What it was measured with.
    size : int
        How many benchmarks were measured.
    """

    def __init__(self, path: str, benchmarks: Mapping[str, Any]) -> None:
        result = load(path, benchmarks)
        self.commit = result.commit
        self.date = result.date
        self.versions = {name: result.versions[name] for name in LIBRARIES}
        self.packages = result.versions.keys()
        self.head = head(result)
        # Of several sets of images, the one that most was measured on.
        self._measured = max(result.datasets.values(), key=len)
        self.size = len(self._measured)

    def quantity(self, name: str, key: Key, unit: str) -> Quantity | None:
        """Return what a benchmark measured, in a unit of UNITS; None if it has no figure."""
        benchmark = self._measured.get(name)
        found = benchmark and benchmark.figures.get(key)
        if not benchmark or not found or found.number is None:
            return None
        factor, among = UNITS[unit]
        if among == "images":
            factor /= benchmark.images(benchmark.parameters(key))
        elif among:
            factor /= benchmark.known[among]
        ends = found.interval
        return Quantity(found.number * factor, ends and (ends[0] * factor, ends[1] * factor))


class Kept:
    """All runs that are kept: the default one, and those with another version of a library."""

    def __init__(self, directory: Path = RESULTS) -> None:
        benchmarks = known_benchmarks(directory)
        runs = [Run(path, benchmarks) for path in sorted(result_files(str(directory)))]
        runs.sort(key=lambda run: run.date)
        self.known: dict[str, Any] = dict(benchmarks)
        self.runs = runs

        # Versions are compared within one commit, as what measures them may change from one to
        # the next: the newest of those with the most environments.
        commits = [run.commit for run in runs]
        swept = max(reversed(commits), key=commits.count)
        self.swept = [run for run in runs if run.commit == swept]

        # In the default one most is measured. Where that does not tell, it is the one that the
        # others differ least from: one library is varied at a time.
        self.default = max(
            (run for run in reversed(runs) if not self._is_further(run)),
            key=lambda run: (run.size, -self._distance(run)),
        )

    def further(self, environment: str) -> Run:
        """Return the newest run of `FURTHER`."""
        package = FURTHER[environment][0]
        runs = [run for run in self.runs if package in run.packages]
        if not runs:
            raise ValueError(f"no run of {environment}: none has {package}")
        return runs[-1]

    @staticmethod
    def _is_further(run: Run) -> bool:
        return any(package in run.packages for package, _ in FURTHER.values())

    def _distance(self, run: Run) -> int:
        versions = [
            (run.versions[name], other.versions[name]) for other in self.runs for name in LIBRARIES
        ]
        return sum(one != another for one, another in versions)

    def sweep(self, package: str) -> dict[str, Run]:
        """Return the runs of one commit with each version of a package, oldest first, by version.

        Where a version does not go with the others' default, the run with the fewest others
        differing counts.
        """

        def others(run: Run) -> int:
            usual = self.default.versions
            return sum(run.versions[name] != usual[name] for name in LIBRARIES if name != package)

        runs = sorted(self.swept, key=others, reverse=True)
        varied = {
            run.versions[package]: run
            for run in runs
            if others(run) == 0 or run.versions[package] != self.default.versions[package]
        }
        return dict(sorted(varied.items(), key=lambda item: Version(item[0])))


class Term(NamedTuple):
    """A benchmark with its parameters, and the package and version of the run to take."""

    name: str
    key: Key
    package: str | None
    version: str | None

    def of(self, kept: Kept, backend: str | None, unit: str) -> Quantity | None:
        """Return its figure; the backend takes the place of a `*`."""
        run = kept.default
        if self.package in FURTHER:
            run = kept.further(self.package)
        elif self.package and self.version:
            runs = kept.sweep(self.package)
            if self.version not in runs:
                raise ValueError(f"no run with {self.package} {self.version}")
            run = runs[self.version]
        key = tuple(backend if part == "*" else part for part in self.key)
        return run.quantity(self.name, key, unit)

    def asv_name(self, kept: Kept) -> str:
        """Return what asv calls the benchmark.

        Raises
        ------
        ValueError
            If there is no such benchmark, or it has not these parameters.
        """
        known = kept.known.get(self.name, {"params": None})["params"]
        if known is not None and len(known) == len(self.key):
            pairs = zip(self.key, known, strict=True)
            if all(part == "*" or repr(part) in values for part, values in pairs):
                return self.name
        raise ValueError(f"no such benchmark: {self.name}{self.key}")


class Row(NamedTuple):
    """A line of a comment."""

    label: str
    unit: str
    terms: tuple[Term, ...]

    def columns(self, kept: Kept) -> tuple[str | None, ...]:
        """Return the columns: all backends or stores that a benchmark has, where one says `*`."""
        for term in self.terms:
            if "*" in term.key:
                values = kept.known[term.asv_name(kept)]["params"][term.key.index("*")]
                return tuple(map(literal_eval, values))
        return (None,)

    def cells(self, kept: Kept) -> Iterator[str]:
        """Yield what stands in each column."""
        for backend in self.columns(kept):
            found = [term.of(kept, backend, self.unit) for term in self.terms]
            if None in found:
                yield ABSENT
            else:
                first, *rest = [part for part in found if part]
                yield str(quotient(first, rest[0]) if rest else first)


def quotient(above: Quantity, below: Quantity) -> Quantity:
    """Return how many times one figure is the other; the interval holds in 98% of cases."""
    interval = None
    if above.interval and below.interval:
        interval = (above.interval[0] / below.interval[1], above.interval[1] / below.interval[0])
    return Quantity(above.value / below.value, interval)


def row_of(line: str) -> Row:
    """Return what a line of a comment says.

    Raises
    ------
    ValueError
        If it says nothing, with the line.
    """
    parts = ROW.fullmatch(line)
    found = parts and [TERM.fullmatch(term) for term in parts["terms"].split(" / ")]
    if not parts or parts["unit"] not in UNITS or not found or None in found or len(found) > 2:
        raise ValueError(f"not a row: {line}")
    terms = tuple(
        Term(
            term["name"],
            tuple(literal_eval(f"[{term['key'].replace('*', repr('*'))}]")),
            term["package"],
            term["version"],
        )
        for term in found
        if term
    )
    return Row(parts["label"], parts["unit"], terms)


def table(lines: list[str], kept: Kept) -> list[str]:
    """Return the lines of a table, and the command that measures it again.

    Raises
    ------
    ValueError
        If a line says nothing, or the lines have different columns.
    """
    rows = [row_of(line) for line in lines]
    if len({row.columns(kept) for row in rows}) > 1:
        raise ValueError(f"the rows have different columns: {lines}")
    columns = [
        name.upper() if name in BACKENDS else name or "figure" for name in rows[0].columns(kept)
    ]
    written = [["", "unit", *columns], ["---", "---", *("---:" for _ in columns)]]
    written += [[row.label, row.unit, *row.cells(kept)] for row in rows]
    return [*(f"| {' | '.join(cells)} |" for cells in written), "", command(rows, kept)]


def command(rows: list[Row], kept: Kept) -> str:
    """Return what measures the figures of some rows again."""
    terms = [term for row in rows for term in row.terms]
    if terms[0].package in FURTHER:
        commit = kept.further(terms[0].package).commit[:8]
        return f"Of commit {commit}. Again: `python -m tox run -e {FURTHER[terms[0].package][1]}`"
    if any(term.package for term in terms):
        return f"Of commit {kept.swept[0].commit[:8]}. Again: `python -m tox run -e versions`"
    names = dict.fromkeys(term.asv_name(kept) for term in terms)
    options = "".join(f" --bench {name}" for name in names)
    large = any(part in (100_000, 200_000, 512) for term in terms for part in term.key)
    setting = "STORAGE_IMPL_LARGE=1 " if large else ""
    return f"Again: `{setting}python -m tox run -e bench-full --{options}`"


def rows_of(page: str) -> dict[str, str]:
    """Return the rows of each table of a page, by name."""
    rows: dict[str, str] = tomllib.loads(ROWS.read_text(encoding="utf-8"))[page]
    return rows


def filled(page: str, kept: Kept, rows: Mapping[str, str]) -> str:
    """Return a page with its tables from the results."""

    def block(match: re.Match[str]) -> str:
        if match[2] == "run":
            content = ["```", *kept.default.head, "```"]
        elif match[2] == "verdicts":
            content = verdicts(page)
        else:
            content = table(rows[match[2]].strip().splitlines(), kept)
        return "\n".join([match[1].rstrip(), *content, match[4]])

    return BLOCK.sub(block, page)


def verdicts(page: str) -> list[str]:
    """Return the lines of the list of sections, each with its verdict."""
    lines = ["| | | verdict |", "| ---: | --- | --- |"]
    title, number, name = "", "", ""
    for match in SECTION.finditer(page):
        if match[4]:
            lines.append(f"| {number} | [{name}](#{anchor(title)}) | {match[4].lower()} |")
        else:
            title, number, name = match[1], match[2], match[3]
    return lines


def anchor(title: str) -> str:
    """Return what a heading is called in an address."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def main() -> None:
    """Fill the pages."""
    kept = Kept()
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        new = filled(page, kept, rows_of(path.stem))
        if new != page:
            path.write_text(new, encoding="utf-8")
            print(f"{path.name}: filled")
