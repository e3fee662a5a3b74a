"""HDF5's own driver on a full disk."""

import errno
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.faults.tool import Action, Fault, Server, stop_faults

IMAGES = np.ones((100, 32, 32, 3), np.uint8)
FULL = Fault(Action.FAIL, at=10, error=errno.ENOSPC, lasting=True)


def write(path: Path) -> None:
    """Write a file by its name."""
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=IMAGES, chunks=(1, 32, 32, 3))


class Forgiving:
    """A file that keeps its first error to itself, and writes no more from then on."""

    def __init__(self, raw: FileIO) -> None:
        self._raw = raw
        self.error: OSError | None = None
        self.read, self.readinto = raw.read, raw.readinto
        self.seek, self.tell = raw.seek, raw.tell

    def write(self, data: bytes) -> int:
        self._attempt(self._raw.write, data)
        return len(data)

    def truncate(self, length: int) -> int:
        self._attempt(self._raw.truncate, length)
        return length

    def flush(self) -> None:
        self._attempt(self._raw.flush)

    def _attempt(self, call: Callable[..., object], *arguments: object) -> None:
        if self.error is None:
            try:
                call(*arguments)
            except OSError as error:
                self.error = error


def write_and_forgive(path: Path) -> OSError | None:
    """Write a file through one that tells HDF5 of no error."""
    with open(path, "w+b", buffering=0) as raw:
        file = Forgiving(raw)
        with h5py.File(file, "w") as opened:
            opened.create_dataset("images", data=IMAGES, chunks=(1, 32, 32, 3))
        return file.error


def write_twice(path: Path) -> list[int | None]:
    """Write, and again when there is space, in the same process: the errno of each."""
    first = write_and_forgive(path)
    stop_faults()
    second = write_and_forgive(path)
    return [None if error is None else error.errno for error in (first, second)]


@pytest.mark.xfail(reason="a file that cannot be flushed ends the process with SIGSEGV")
def test_full_disk(faulty: Server, scratch: Path) -> None:
    """A full disk is an error and nothing more."""
    log = scratch / "log"
    outcome = faulty.run(write, scratch / "file.h5", root=scratch, log=log, fault=FULL)
    assert not outcome.signal, str(outcome)
    assert "OSError" in outcome.raised


def test_full_disk_forgiven(faulty: Server, scratch: Path) -> None:
    """Around it: HDF5 learns of no error, and Python of it when the file is closed."""
    log = scratch / "log"
    outcome = faulty.run(write_twice, scratch / "file.h5", root=scratch, log=log, fault=FULL)
    assert outcome.value == [errno.ENOSPC, None], str(outcome)
