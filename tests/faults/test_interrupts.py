"""Ctrl-C at random times of writes: each is whole or not there, and the process goes on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .tally import FULL, SEED, Tally

WRITES = 25_000 if FULL else 80  # about half of them are interrupted
LAYOUTS: list[tuple[str, dict[str, Any]]] = [
    ("png", {"compress_level": 0}),
    ("lmdb", {}),
    ("hdf5", {}),
    ("hdf5", {"chunk_images": 4}),
    ("hdf5", {"chunk_images": 4, "gzip_level": 1}),
    ("lmdb", {"encoding": "webp"}),  # encoded and decoded in threads
    ("hdf5", {"encoding": "jpeg"}),
]


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no timers that interrupt")
@pytest.mark.parametrize(
    ("backend", "options"),
    LAYOUTS,
    ids=["-".join([name, *map(str, options.values())]) for name, options in LAYOUTS],
)
@pytest.mark.unmeasured
def test_interrupted_writes(
    scratch: Path, tally: Tally, backend: str, options: dict[str, Any]
) -> None:
    """No signal ends the process, no store is damaged, every store holds whole calls."""
    program = [sys.executable, "-m", "tests.faults.interrupts", str(scratch), backend]
    finished = subprocess.run(
        [*program, json.dumps(options), str(WRITES), str(SEED)],
        capture_output=True,
        text=True,
        check=False,
    )
    *wrong, last = finished.stdout.splitlines() or [""]
    for line in wrong:
        tally.add(line, tried=0)
    if finished.returncode or not last.endswith("interrupted"):
        tally.add(f"exit {finished.returncode}: {last}\n{finished.stderr[-2000:]}", tried=0)
    else:
        tally.add(None, tried=int(last.split()[0]))
    tally.check(at_least=10_000 if FULL else 4)
