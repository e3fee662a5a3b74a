"""The benchmarks of torch's DataLoader run; collected where torch is (`tox run -e loaders`)."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks import datasets, loaders

CASES = [
    *(
        (loaders.LoaderCalls, "time_epoch_10000", ("lmdb", asked))
        for asked in ("batch", "one by one")
    ),
    *(
        (loaders.LoaderEpoch, "time_epoch_10000", (store, workers))
        for store in ("hdf5", "files")
        for workers in ("0", "2 fork")
    ),
    (loaders.LoaderEpoch, "time_epoch_10000", ("files", "2 spawn")),
    (loaders.LoaderStart, "time_first_256", ("png", "2 fork")),
]

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.mark.parametrize(("kind", "method", "parameters"), CASES)
def test_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    method: str,
    parameters: tuple[str, str],
) -> None:
    """Each compares an epoch with the images that were written, and then can be timed."""
    monkeypatch.chdir(tmp_path)
    # Nothing is measured: a disk that is busy with something else is not waited for.
    monkeypatch.setattr(os, "sync", lambda: None, raising=False)
    monkeypatch.delenv("ASV_ENV_DIR", raising=False)
    monkeypatch.delenv(datasets.VARIABLE, raising=False)
    synthetic = cache(datasets.load)
    monkeypatch.setattr(datasets, "load", lambda count, size=32: synthetic(min(count, 300), size))
    benchmark = kind()
    benchmark.setup_cache()
    for _ in range(2):
        benchmark.setup(*parameters)
        getattr(benchmark, method)(*parameters)
        benchmark.teardown(*parameters)
