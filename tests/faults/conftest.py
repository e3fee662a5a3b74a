"""What the fault tests share: the servers that run their jobs, and the table they fill.

`STORAGE_IMPL_FAULTS=full` chooses the full form; `STORAGE_IMPL_FAULTS_SEED` another seed.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import storage_impl

from .tool import Server, compile_library

FULL = os.environ.get("STORAGE_IMPL_FAULTS") == "full"
SEED = int(os.environ.get("STORAGE_IMPL_FAULTS_SEED", "1"))


class Tally:
    """One row of the table: what was tried on a backend, and what it did not survive."""

    def __init__(self, row: str, backend: str) -> None:
        self.row = row
        self.backend = backend
        self.tried = 0
        self.failures: list[str] = []

    def add(self, failure: str | None, tried: int = 1) -> None:
        """Count a trial; `failure` tells what went wrong in it, if anything did.

        The test ends at the twentieth.
        """
        self.tried += tried
        if failure is not None:
            self.failures.append(failure)
            if len(self.failures) == 20:
                self.check()

    def check(self, at_least: int = 1) -> None:
        """Fail the test if a trial failed, or if there were too few."""
        shown = "\n\n".join(self.failures[:5])
        assert not self.failures, f"{len(self.failures)} of {self.tried} failed:\n{shown}"
        assert self.tried >= at_least, f"only {self.tried} trials"


_tallies: list[Tally] = []


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """A row for the table, named after the test's module and its backend."""
    backend = request.node.callspec.params["backend"]
    row = request.node.path.stem.removeprefix("test_").replace("_", " ")
    _tallies.append(Tally(row, backend))
    return _tallies[-1]


@pytest.fixture(params=tuple(storage_impl.BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend whose library is installed."""
    name: str = request.param
    try:
        storage_impl.BACKENDS[name]
    except storage_impl.MissingLibraryError as error:
        pytest.skip(f"needs a library: {error}")
    return name


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fault tool, built once."""
    built = compile_library(tmp_path_factory.mktemp("interpose"))
    if built is None:
        pytest.skip("needs Linux and a C compiler, to build the fault tool")
    return built


@pytest.fixture(scope="session")
def faulty(library: Path) -> Iterator[Server]:
    """Runs jobs whose calls are watched, and made to fail."""
    with Server(library) as server:
        yield server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Runs jobs with limits of time and memory, and nothing else."""
    if sys.platform != "linux":
        pytest.skip("needs Linux, to limit the memory of a child")
    with Server() as server:
        yield server


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: no power is cut for real."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    directory = Path(tempfile.mkdtemp(dir=memory))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounting.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if not _tallies:
        return
    write = terminalreporter.write_line
    terminalreporter.section("faults: survived / tried")
    names = list(dict.fromkeys(tally.backend for tally in _tallies))
    write(f"{'':14}" + "".join(f"{name:>24}" for name in names))
    for row in dict.fromkeys(tally.row for tally in _tallies):
        cells = []
        for name in names:
            of_cell = [t for t in _tallies if (t.row, t.backend) == (row, name)]
            tried = sum(tally.tried for tally in of_cell)
            failed = sum(len(tally.failures) for tally in of_cell)
            cells.append(f"{tried - failed:,} / {tried:,}")
        write(f"{row:14}" + "".join(f"{cell:>24}" for cell in cells))
    found = [f"Python {platform.python_version()}"]
    for library in ("numpy", "Pillow", "lmdb", "h5py", "xxhash"):
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            continue
    write(f"{'full' if FULL else 'short'} form, seed {SEED}; {', '.join(found)}")
