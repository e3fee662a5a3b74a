"""Plain code: it stores and gives back what it is given, and syncs where it says so."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks import plain_stores
from benchmarks.plain import bytes_on_disk
from tests import test_benchmarks
from tests.samples import images_of, labels_of
from tests.test_benchmarks import benchmark_of

pytestmark = pytest.mark.unmeasured

few_images = test_benchmarks.few_images

SHAPE = (5, 7, 3)
FUNCTIONS = {"opened", "read_all", "read_batch", "read_one", "write_all"}


@pytest.fixture(params=plain_stores.STORES)
def plain(request: pytest.FixtureRequest) -> ModuleType:
    """Give the code for a store."""
    try:
        return plain_stores.plain(request.param)
    except NotImplementedError as error:
        pytest.skip(f"n/a here: {error}")


@pytest.mark.parametrize("sync", [True, False])
def test_what_is_written_is_read(plain: ModuleType, sync: bool, tmp_path: Path) -> None:
    """All images, one and a batch in any order come back as they were, labels too."""
    images, labels = images_of(70, SHAPE), labels_of(70)
    plain.write_all(tmp_path / "store", images, labels, sync)
    with plain.opened(tmp_path / "store") as store:
        found, found_labels = plain.read_all(store)
        np.testing.assert_array_equal(found, images)
        np.testing.assert_array_equal(found_labels, labels)
        for index in (0, 69, 31):
            image, label = plain.read_one(store, index)
            np.testing.assert_array_equal(image, images[index])
            assert type(label) is int
            assert label == labels[index]
        indices = np.array([69, 3, 42, 4, 0])
        batch, batch_labels = plain.read_batch(store, indices)
        assert batch.dtype == np.uint8
        np.testing.assert_array_equal(batch, images[indices])
        np.testing.assert_array_equal(batch_labels, labels[indices])
    assert bytes_on_disk(tmp_path / "store") >= images.nbytes / 20


def test_all_have_the_same_functions(plain: ModuleType) -> None:
    """What is public in a module of the package are the functions of all of them."""
    here = {
        name
        for name, value in vars(plain).items()
        if callable(value)
        and not name.startswith("_")
        and str(getattr(value, "__module__", "")).startswith("benchmarks.plain.")
    }
    assert here == FUNCTIONS


FILES = ("png", "hdf5", "hdf5_growing", "npy", "feather", "tiledb", "zarr")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("sync", [True, False])
def test_files_are_synced(
    name: str, sync: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is to be on the disk each file and directory is synced, and else none is."""
    try:
        module = plain_stores.plain(name)
    except NotImplementedError as error:
        pytest.skip(f"n/a here: {error}")
    synced = set()
    fsync = os.fsync

    def remember(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", remember)
    path = tmp_path / "store"
    module.write_all(path, images_of(3, SHAPE), labels_of(3), sync)
    entries = {entry.stat().st_ino for entry in (path, *path.rglob("*"))}
    assert synced == (entries if sync else set())


def test_databases_are_told_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMDB and SQLite sync as they commit, or not at all."""
    lmdb = importlib.import_module("benchmarks.plain.lmdb")
    sqlite = importlib.import_module("benchmarks.plain.sqlite")
    told = []
    opening, connecting = lmdb.lmdb.open, sqlite.sqlite3.connect

    def open_lmdb(*arguments: Any, **options: Any) -> Any:
        told.append(("lmdb", options["sync"]))
        return opening(*arguments, **options)

    def connect(*arguments: Any) -> Any:
        connection = connecting(*arguments)
        connection.set_trace_callback(
            lambda statement: told.append(("sqlite", statement)) if "PRAGMA" in statement else None
        )
        return connection

    monkeypatch.setattr(lmdb.lmdb, "open", open_lmdb)
    monkeypatch.setattr(sqlite.sqlite3, "connect", connect)
    for sync in (True, False):
        for module in (lmdb, sqlite):
            path = tmp_path / f"{module.__name__}-{sync}"
            module.write_all(path, images_of(2, SHAPE), labels_of(2), sync)
    assert told == [
        ("lmdb", True),
        ("sqlite", "PRAGMA synchronous = FULL"),
        ("lmdb", False),
        ("sqlite", "PRAGMA synchronous = OFF"),
    ]


@pytest.mark.parametrize(
    "name",
    [name for name in test_benchmarks.EXPECTED if name.startswith("plain_stores.")],
)
def test_wrong_pixels_have_no_figure(
    name: str, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that does not give back what was written fails before anything is timed."""
    parameters = test_benchmarks.smallest(name)[5]  # npy
    module = plain_stores.plain("npy")
    for function in ("read_all", "read_one", "read_batch"):
        original = getattr(module, function)

        def wrong(*arguments: Any, original: Any = original) -> Any:
            images, labels = original(*arguments)
            return images ^ 1, labels

        monkeypatch.setattr(module, function, wrong)
    benchmark = benchmark_of(name, parameters)
    with pytest.raises(RuntimeError, match="differs from what was written"):
        benchmark.do_setup()
    benchmark.do_teardown()


def test_a_package_that_is_missing_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that other packages need is n/a without them, with what to do; others must work."""
    missing = ModuleNotFoundError("No module named 'plyvel'", name="plyvel")

    def fail(name: str) -> None:
        raise missing

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(NotImplementedError, match="leveldb needs plyvel, which `tox run -e others"):
        plain_stores.plain("leveldb")
    with pytest.raises(ModuleNotFoundError):
        plain_stores.plain("sqlite")
