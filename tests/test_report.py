"""What the user reads: the table, the site, and sentences where a run cannot go on."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from asv.benchmarks import Benchmarks
from asv.commands.run import Run
from asv.config import Config
from asv.results import Results
from asv.runner import BenchmarkResult
from asv_runner.discovery import disc_benchmarks

import benchmarks
from report import obstacles, runner, terminal
from report.commands import bench
from report.results import Benchmark, Figure, read_all, result_files
from report.workloads import LARGE

pytestmark = pytest.mark.unmeasured

NAN = float("nan")
MACHINE = {
    "machine": "desk",
    "os": "Linux 6.1",
    "arch": "x86_64",
    "cpu": "A processor",
    "num_cpu": "2",
    "ram": str(8 << 30),
}
VERSIONS = {"numpy": "2.4.6", "Pillow": "13.0.0", "lmdb": "3.0.0"}
BACKENDS = ["'png'", "'lmdb'"]
COUNTS = ["1", "10", "100000"]
FLOORS = {"png": "floor.PngFiles.time_write", "lmdb": "floor.RawFile.time_write"}

TABLE = """\
commit       {commit} of 2023-11-14 22:13 UTC
machine      desk, A processor, 2 cores, 8 GiB, Linux 6.1
calibration  cpu 27.0 ms, disk 3.50 ms
file system  ext4
page cache   warm
versions     Python 3.11, lmdb 3.0.0, numpy 2.4.6, Pillow 13.0.0
libraries    LMDB 0.9.36, zlib-ng 2.3.3
images       synthetic

operation    images  backend  us/image    quartiles  x floor  bytes/image  on disk

write one            png           500      450-550
write one            lmdb         20.0

read one             png          80.0    75.0-90.0
read one             lmdb         1.25    1.12-1.38

write many        1  png         1,500  1,450-2,000     3.00        2,904   24,576
write many        1  lmdb          100      100-100     2.00
write many       10  png           300      300-300     1.50        2,300    6,144
write many       10  lmdb       failed
write many  100,000  png           250      250-250     1.25

8 of 8 times have fewer than 8 samples, down to 1: too few to call a backend faster. `python -m
tox run -e bench-full` takes 10 of each.
"""


class Site(NamedTuple):
    """A checkout with a commit and the results of one run."""

    conf: Any
    commit: str

    @property
    def files(self) -> list[str]:
        return list(result_files(self.conf.results_dir))


def benchmark(name: str, params: list[list[str]], **facts: Any) -> dict[str, Any]:
    """Return what asv knows of a benchmark."""
    names = {0: [], 1: ["count"], 2: ["backend", "count"]}[len(params)]
    if params == [BACKENDS]:
        names = ["backend"]
    kind = "track" if "track" in name else "time"
    unit = "bytes" if kind == "track" else "seconds"
    known = {"type": kind, "unit": unit, "params": params, "param_names": names, "code": "pass"}
    return {"name": name, "version": "1, synthetic", "timeout": 60.0, **known, **facts}


def timed(benchmark: dict[str, Any], *samples: Any) -> tuple[dict[str, Any], BenchmarkResult]:
    """Return what asv measured, in microseconds; None failed and NaN was not run."""
    known = [[sample * 1e-6 for sample in s] if isinstance(s, list) else None for s in samples]
    results = [True if isinstance(s, list) else s for s in samples]
    numbers = [1 if isinstance(s, list) else None for s in samples]
    return benchmark, BenchmarkResult(results, known, numbers, 0, "", None)


def tracked(benchmark: dict[str, Any], *values: Any) -> tuple[dict[str, Any], BenchmarkResult]:
    """Return what asv tracked."""
    none = [None] * len(values)
    return benchmark, BenchmarkResult(list(values), none, none, 0, "", None)


RUN = [
    timed(
        benchmark("many_images.WriteMany.time_write", [BACKENDS, COUNTS], floors=FLOORS),
        *([1400, 1500, 2500], [3000, 3000], [250e5, 250e5], [100, 100, 100], None, NAN),
    ),
    timed(benchmark("single_image.WriteOne.time_write", [BACKENDS]), [400, 500, 600], [20]),
    timed(
        benchmark("single_image.ReadOne.time_read_100", [BACKENDS], images=100),
        *([7000, 8000, 10000], [100, 150]),
    ),
    timed(benchmark("floor.PngFiles.time_write", [COUNTS]), [500, 500], [2000, 2000], [200e5] * 2),
    timed(benchmark("floor.RawFile.time_write", [COUNTS]), [50, 50], [60, 60], NAN),
    tracked(
        benchmark("disk_usage.DiskUsage.track_apparent", [BACKENDS, COUNTS]),
        *(2904, 23000, NAN, NAN, NAN, NAN),
    ),
    tracked(
        benchmark("disk_usage.DiskUsage.track_allocated", [BACKENDS, COUNTS]),
        *(24576, 61440, NAN, NAN, NAN, NAN),
    ),
    timed(benchmark("many_images.ReadMany.time_read", [BACKENDS, COUNTS]), *[NAN] * 6),
    timed(benchmark("calibration.Cpu.time_work", [], version="1"), [26e3, 27e3, 28e3]),
    timed(benchmark("calibration.Disk.time_work", [], version="1"), [3500, 3500]),
]


def git(directory: Path, *arguments: str) -> str:
    """Return what git says in a directory, whoever the user is."""
    who = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=directory, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def save(conf: Any, commit: str, date: int, run: list[Any] = RUN, **machine: str) -> None:
    """Save results of a commit as asv does."""
    params = {**MACHINE, **machine, "python": "3.11", **VERSIONS}
    results = Results(params, VERSIONS, commit, date, "3.11", "virtualenv-py3.11", {})
    for known, result in run:
        results.add_result(known, result)
    results.save(conf.results_dir)
    known = Path(conf.results_dir, params["machine"], "machine.json")
    known.write_text(json.dumps({**MACHINE, **machine, "version": 1}))
    beside = known.with_name(f"{commit[:8]}-virtualenv-py3.11.facts")
    recorded = {"page cache": "warm", "zlib-ng": "2.3.3", "LMDB": "0.9.36", "file system": "ext4"}
    beside.write_text(json.dumps(recorded))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A checkout with one commit and no results yet."""
    root = tmp_path / "checkout"
    (root / "storage_impl").mkdir(parents=True)
    (root / "storage_impl" / "__init__.py").touch()
    settings = {
        "version": 1,
        "project": "storage_impl",
        "repo": str(root),
        "branches": ["HEAD"],
        "environment_type": "virtualenv",
        "env_dir": str(root / ".asv/env"),
        "results_dir": str(root / ".asv/results"),
        "html_dir": str(root / ".asv/html"),
    }
    (root / "asv.conf.json").write_text(json.dumps(settings))
    (root / ".gitignore").write_text(".asv\n")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "Start")
    monkeypatch.chdir(root)
    monkeypatch.setattr(runner, "ROOT", root)
    monkeypatch.delenv("STORAGE_IMPL_DATASET", raising=False)
    return Site(Config.load(str(root / "asv.conf.json")), git(root, "rev-parse", "HEAD"))


@pytest.fixture
def site(checkout: Site) -> Site:
    """The checkout with the results of a run."""
    Benchmarks(checkout.conf, [known for known, _ in RUN]).save()
    save(checkout.conf, checkout.commit, 1_700_000_000_000)
    return checkout


# -- the table ---------------------------------------------------------------------------------


def test_table(site: Site) -> None:
    """Every backend, operation and count: its cost an image, its floor, its bytes.

    A benchmark that failed says so, one that was not run is left out, and a single sample has
    no quartiles.
    """
    text = terminal.text(site.conf.results_dir, site.files)
    assert text == TABLE.format(commit=site.commit[:8]).rstrip()


def test_tables_of_groups() -> None:
    """What the promises cost, and encodings, have tables where they were measured.

    A row for each choice, a column for each backend and for what is beside.
    """

    def of(names: list[str], figures: dict[Any, float | None], **facts: Any) -> Any:
        known = {"type": "time", "param_names": names, **facts}
        return Benchmark(
            known, {key: Figure(value, {}, None, True) for key, value in figures.items()}
        )

    encoded = ["backend", "encoding", "size"]
    read, one = ("shuffled", 256), "plain_stores.PlainBatches.time_read_1024"
    measured = {
        "access_patterns.ReadBatches.time_read_10000": of(
            ["backend", "order", "batch"],
            {("lmdb", *read): 0.02, ("hdf5", *read): 0.03, ("lmdb", "in order", 256): 1.0},
            images=10_000,
            plain=one,
        ),
        one: of(
            ["store", "order", "batch"],
            {("lmdb", *read): 0.001, ("hdf5", *read): None, ("npy", *read): 0.001},
            images=1_000,
        ),
        "encoding.EncodedRead.time_read_6mib": of(
            encoded,
            {("lmdb", "jpeg", 32): 0.2, ("hdf5", "jpeg", 32): None, ("png", "jpeg", 32): NAN},
        ),
        "encoding.Folder.time_read_6mib": of(encoded[1:], {("jpeg", 32): 0.25}),
    }
    text = "\n".join(terminal.tables_of(measured))
    plain, encodings, stores = (
        table.split("\n\n", 1) for table in re.split(r"\n\n(?=Encodings|Plain)", text)
    )
    assert plain[0].startswith("storage_impl relative to plain code. ")
    assert plain[1] == "           unit  lmdb\nShuffled  ratio  2.00"
    assert encodings[1] == (
        "          encoding  size  unit  lmdb    hdf5  files\n"
        "Read all      jpeg    32    ms   200  failed    250"
    )
    assert stores[1].splitlines()[1].split() == ["Shuffled", "us/image", "1.00", "failed", "1.00"]
    assert max(map(len, text.splitlines())) <= 100


def test_table_fits_the_terminal(site: Site) -> None:
    """No line of the widest table has more than 100 characters, and nothing trails."""
    wide = [BACKENDS, ["100000"]]
    save(
        site.conf,
        site.commit,
        1_700_000_000_000,
        [
            timed(
                benchmark("many_images.WriteMany.time_write", wide, floors=FLOORS),
                [1e12, 9e12],
                [1e12, 9e12],
            ),
            timed(benchmark("floor.RawFile.time_write", [["100000"]]), [1e5]),
            tracked(benchmark("disk_usage.DiskUsage.track_apparent", wide), 1e11, 1e11),
            tracked(benchmark("disk_usage.DiskUsage.track_allocated", wide), 1e11, 1e11),
        ],
    )
    Benchmarks(
        site.conf, [benchmark("many_images.WriteMany.time_write", wide, floors=FLOORS)]
    ).save()
    lines = terminal.text(site.conf.results_dir, site.files).splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line == line.rstrip() for line in lines)


def test_table_tells_methods_of_a_class_apart(site: Site) -> None:
    """Two benchmarks of one class have lines that say which is which."""
    run = [
        timed(benchmark(f"startup.OpenStore.{method}", [BACKENDS]), [1], [2], [3])
        for method in ("time_open", "time_open_read")
    ]
    save(site.conf, site.commit, 1_700_000_000_000, run)
    Benchmarks(site.conf, [known for known, _ in run]).save()
    text = terminal.text(site.conf.results_dir, site.files)
    assert "open store: open  " in text
    assert "open store: open read  " in text


def test_table_says_what_is_not_the_cost_of_an_image(site: Site) -> None:
    """What opening a store takes is not shared among its images, and the line says so."""
    known = benchmark("startup.OpenStore.time_open", [BACKENDS, ["1000"]], images=1)
    save(site.conf, site.commit, 1_700_000_000_000, [timed(known, [7, 8, 9], [5, 6, 7])])
    Benchmarks(site.conf, [known]).save()
    lines = terminal.text(site.conf.results_dir, site.files).splitlines()
    (line,) = (line for line in lines if "  png" in line)
    assert line.split() == ["open", "store", "(us)", "1,000", "png", "8.00", "7.50-8.50"]


def test_calibration_alone(site: Site) -> None:
    """A run that measures no images has no table and says so, and its head has the calibration."""
    run = [each for each in RUN if each[0]["name"].startswith("calibration.")]
    save(site.conf, site.commit, 1_700_000_000_000, run)
    text = terminal.text(site.conf.results_dir, site.files)
    assert "calibration  cpu 27.0 ms, disk 3.50 ms" in text
    assert "images  " not in text.partition("\n\n")[0]
    assert text.endswith(
        "\n\n" + "No measured benchmark has a row here: the figures are above, and on the site."
    )


def test_table_of_the_newest_commit_alone(site: Site) -> None:
    """After a run of several commits the table is that of the newest."""
    save(site.conf, "0" * 40, 1_600_000_000_000)
    text = terminal.text(site.conf.results_dir, site.files)
    assert text.count("commit ") == 1
    assert site.commit[:8] in text


def test_table_leaves_out_what_another_version_measured(site: Site) -> None:
    """What was measured by another version of a benchmark is not shown."""
    Benchmarks(site.conf, [{**known, "version": "2"} for known, _ in RUN]).save()
    assert "write" not in terminal.text(site.conf.results_dir, site.files)


def test_table_on_a_terminal_that_knows_ascii_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that the terminal cannot show is escaped; it does not end the run."""
    save(site.conf, site.commit, 1_700_000_000_000, machine="Büro")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert "machine      B\\xfcro" in terminal.text(site.conf.results_dir, site.files)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0041, "0.004"),
        (0.123, "0.12"),
        (9.999, "10.0"),
        (99.99, "100"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1e6, "1,000,000"),
    ],
)
def test_figure(value: float, expected: str) -> None:
    """Figures are as long as they are good for."""
    assert terminal.figure(value) == expected


# -- what is noise -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "unit", "differs", "repeat"),
    [
        ("track", "bytes", True, None),
        ("track", "stored/raw", True, None),
        ("track", "seconds", None, 1),
        ("peakmemory", "bytes", None, 1),
    ],
)
def test_figures_of_one_sample(
    kind: str, unit: str, differs: bool | None, repeat: int | None, site: Site
) -> None:
    """Bytes and ratios are the same in every run: any difference of two is one.

    A percentile of times and the memory in use are not, and two of them do not say what is noise.
    """
    known = benchmark("a.B.track_c", [BACKENDS], type=kind, unit=unit)
    save(site.conf, site.commit, 1_700_000_000_000, [tracked(known, 2.0, 2.5)])
    (found,) = read_all(site.conf.results_dir, {known["name"]: known})
    one, other = found.datasets["synthetic"]["a.B.track_c"].figures.values()
    assert one.differs(other) is differs
    assert one.repeat == repeat


# -- the site ----------------------------------------------------------------------------------


def test_publish(site: Site) -> None:
    """A site is made of these results: the page, and a graph for each benchmark."""
    done = subprocess.run(
        [sys.executable, "-m", "asv", "--config", "asv.conf.json", "publish"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    html = Path(site.conf.html_dir)
    index = json.loads((html / "index.json").read_text())
    assert set(index["benchmarks"]) == {known["name"] for known, _ in RUN}
    assert index["revision_to_hash"] == {"0": site.commit}
    assert (html / "index.html").exists()
    graphs = {path.stem for path in (html / "graphs").rglob("*.json")}
    assert "many_images.WriteMany.time_write" in graphs


# -- the command behind tox --------------------------------------------------------------------


class FakeAsv:
    """In place of asv: remembers its arguments, runs `then`, and exits with `code`."""

    def __init__(self, code: int, then: Callable[[], None] = lambda: None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.code = code
        self.then = then

    def __call__(self, *arguments: Any, **_: Any) -> int:
        self.calls.append(arguments)
        if arguments[0] != "run":
            return 0
        self.then()
        return self.code


@pytest.fixture
def run_bench(
    checkout: Site, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, FakeAsv]]:
    """Run the command with an asv that does nothing but save these results."""

    def run(*arguments: str, code: int = 0, saves: bool = True) -> tuple[int, FakeAsv]:
        def results() -> None:
            if saves:
                Benchmarks(checkout.conf, [known for known, _ in RUN]).save()
                save(checkout.conf, checkout.commit, 1_700_000_000_000)

        asv = FakeAsv(code, results)
        monkeypatch.setattr(runner, "asv", asv)
        monkeypatch.setattr(Run, "run_from_conf_args", lambda conf, options: asv("run", options))
        monkeypatch.setattr(runner, "remember_machine", lambda: None)
        monkeypatch.setenv(LARGE, "")  # put back as it was, whatever the command sets
        return bench.main(list(arguments)), asv

    return run


def test_quick_run(run_bench: Any, checkout: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A quick run measures, publishes, and ends with the table and where the site is."""
    code, asv = run_bench("quick")
    assert code == 0
    assert [call[0] for call in asv.calls] == ["run", "publish"]
    printed = capsys.readouterr().out
    assert TABLE.format(commit=checkout.commit[:8]) in printed
    assert str(Path(".asv/html/index.html").resolve()) in printed
    assert "asv preview" in printed
    assert not list(Path(".asv").glob("tmp-*"))


@pytest.mark.parametrize(
    ("kind", "there", "missing"),
    [
        ("quick", "WriteOne WriteMany ReadBatches Cpu PngFiles", "Png Memory ReadFolds"),
        ("full", "WriteOne ReadMany ReadFolds Png Cpu", ""),
        ("large", "WriteMany ReadMany Png Cpu Disk", "WriteOne ReadFolds"),
    ],
)
def test_kinds(kind: str, there: str, missing: str, run_bench: Any) -> None:
    """What takes long is not in a quick run, and what takes longest is asked for by name."""
    _, options = run_bench(kind)[1].calls[0]
    assert (options.attribute == {"rounds": 1, "repeat": (8, 10, 1)}) == (kind == "quick")
    known = [
        {"name": found.name, "params": found.params, "version": "1"}
        for found in disc_benchmarks(str(Path(benchmarks.__file__).parent))
    ]
    chosen = Benchmarks(Config(), known, regex=options.bench)
    classes = {name.split(".")[1] for name in chosen}
    assert classes >= set(there.split())
    assert not classes & set(missing.split())
    large = {"100000", "200000", "512"}
    for name, known in chosen.items():
        picked = [
            list(product(*known["params"]))[i] for i in chosen.benchmark_selection[name] or ()
        ]
        for parameters in picked:
            assert bool(large & set(parameters)) == (kind == "large"), name


def test_arguments_go_to_asv(run_bench: Any) -> None:
    """What the user adds comes last, and replaces the choice of benchmarks."""
    _, asv = run_bench("quick", "HEAD~3..HEAD", "--bench", "ReadOne", "--attribute", "repeat=4")
    _, options = asv.calls[0]
    assert (options.range, options.bench) == ("HEAD~3..HEAD", ["ReadOne"])
    assert options.attribute == {"rounds": 1, "repeat": 4}


def test_failed_benchmark(run_bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark that failed fails the command, after the table of the others."""
    code, asv = run_bench("quick", code=2)
    assert code == 2
    assert [call[0] for call in asv.calls] == ["run", "publish"]
    printed = capsys.readouterr().out
    assert "write many" in printed
    assert "Benchmarks failed" in printed


def test_nothing_saved(run_bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run has no table, and says why."""
    code, asv = run_bench("quick", "--dry-run", saves=False)
    assert code == 0
    assert [call[0] for call in asv.calls] == ["run"]
    assert "No results were saved" in capsys.readouterr().out


def test_uncommitted_changes(run_bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader who changed the package without committing learns what was measured."""
    Path("storage_impl/new.py").touch()
    run_bench("quick")
    assert "uncommitted changes" in capsys.readouterr().out


def test_no_network_for_asv(run_bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """An environment that could not be made is explained."""
    assert run_bench("quick", code=1, saves=False)[0] == 1
    assert "check the network" in capsys.readouterr().err


def test_asv_has_said_it(run_bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the environment exists, what asv said stands for itself."""
    Path(".asv/env/0123").mkdir(parents=True)
    Path(".asv/env/0123/asv-env-info.json").write_text("{}")
    assert run_bench("quick", code=1, saves=False)[0] == 1
    assert capsys.readouterr().err == ""


# -- obstacles ---------------------------------------------------------------------------------


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the command says, on one line, when it cannot start."""
    assert bench.main(["quick"]) == 1
    return " ".join(capsys.readouterr().err.split())


def test_download(checkout: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is no checkout is told how to become one."""
    os.rename(".git", "git")
    said = failure(capsys)
    assert "not a git checkout" in said
    assert "git init && git add ." in said


def test_no_commit(checkout: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A repository without a commit has nothing to measure."""
    git(Path.cwd(), "update-ref", "-d", "HEAD")
    assert "git finds no commit here" in failure(capsys)


def test_no_git(
    checkout: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without git the user is told to install it."""
    monkeypatch.setenv("PATH", "")
    assert "install git" in failure(capsys)


def test_no_space(
    checkout: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that would fill the disk does not start."""
    monkeypatch.setattr(runner, "SPACE", {"quick": 1 << 60})
    said = failure(capsys)
    assert "free some space" in said
    assert str(Path.cwd()) in said


def test_no_dataset(
    checkout: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped dataset is named before anything is installed."""
    monkeypatch.setenv("STORAGE_IMPL_DATASET", "/no/such/folder")
    assert "STORAGE_IMPL_DATASET names /no/such/folder" in failure(capsys)


def test_old_python(
    checkout: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Python that is too old is named, with the one that is needed."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    assert "Python 3.10.13, but the suite needs 3.11" in failure(capsys)


def test_pip_fails() -> None:
    """What tox cannot install is explained below pip's own message."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "report.commands.install",
            "--no-index",
            "--quiet",
            "./no-such-package",
        ],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "check the network" in " ".join(done.stderr.split())


def test_no_git_before_anything_is_installed(tmp_path: Path) -> None:
    """Where there is no git, it is said before the time of an installation."""
    done = subprocess.run(
        [sys.executable, "-m", "report.commands.install", "--quiet", "asv==0.0.0.none"],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "install git" in done.stderr
    assert "pip" not in done.stderr


def test_full_disk_is_the_first_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that failed on a full disk is not blamed on the network."""
    monkeypatch.setattr(obstacles, "_LITTLE", 1 << 60)
    assert "free some space" in obstacles.advice(tmp_path)


def test_lines_fit_and_commands_stay_whole() -> None:
    """Sentences are wrapped for the terminal; a command to copy is not."""
    command = "    git " + "x" * 200
    lines = obstacles.wrapped("word " * 60 + "\n" + command).splitlines()
    assert lines[-1] == command
    assert all(len(line) <= 96 for line in lines[:-1])
