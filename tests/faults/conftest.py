"""What the fault tests share: the servers that run their jobs, and where these have space."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import storage_impl

from .tally import Tally
from .tool import Server, compile_library


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """A row for the table, named after the test's module and its backend."""
    backend = request.node.callspec.params["backend"]
    row = request.node.path.stem.removeprefix("test_").replace("_", " ")
    kept = Tally(row, backend)
    yield kept
    kept.report(request.node)


@pytest.fixture(params=tuple(storage_impl.BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend."""
    name: str = request.param
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
