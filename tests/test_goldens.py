"""Stores that were written once, in format version 1, are read for ever; and written the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import storage_impl
from tests.contract import StoreContract
from tests.goldens.make import ENCODED, GOLDENS, HERE, LOCKS, Golden, make

# The files that are the same, byte for byte, whichever versions of the libraries wrote them.
EXACT = {"store.json", "labels.log", "commit"}


def hooks(backend: str) -> StoreContract:
    """What looks at the disk without a store."""
    # Imported here, so that its tests are not collected a second time.
    from tests import test_hdf5, test_lmdb, test_png

    contracts = (test_png.TestPng, test_lmdb.TestLmdb, test_hdf5.TestHdf5)
    return {contract.backend: contract() for contract in contracts}[backend]


@pytest.fixture(params=GOLDENS)
def name(request: pytest.FixtureRequest) -> str:
    """The name of each golden."""
    name: str = request.param
    return name


@pytest.fixture
def golden(name: str) -> Golden:
    """How it was made."""
    return GOLDENS[name]


@pytest.fixture
def path(name: str, tmp_path: Path) -> Path:
    """A copy of it, to be opened."""
    return shutil.copytree(HERE / name, tmp_path / "golden")


def test_no_golden_is_forgotten() -> None:
    """Every golden that is kept is tested, and every backend has one."""
    kept = {entry.name for entry in HERE.iterdir() if (entry / "store.json").exists()}
    assert kept == {*GOLDENS, *ENCODED}
    assert {golden.backend for golden in GOLDENS.values()} == set(storage_impl.BACKENDS)


def test_golden_is_read(golden: Golden, path: Path) -> None:
    """A golden opens, verifies, and holds what was written to it."""
    with storage_impl.open_store(path, verify=True) as store:
        assert (store.backend, store.image_shape) == (golden.backend, golden.image_shape)
        assert store.durable is golden.durable
        images, labels = store.read_many()
        np.testing.assert_array_equal(images, golden.images())
        np.testing.assert_array_equal(labels, golden.labels())
        np.testing.assert_array_equal(store.read_labels(), golden.labels())
        store.verify()


def test_golden_is_appended_to(golden: Golden, path: Path) -> None:
    """A golden can be appended to, and keeps what says how it was made."""
    marker = (path / "store.json").read_bytes()
    with storage_impl.open_store(path, "a") as store:
        new = store.write_many(golden.images(), golden.labels())
        assert new == range(golden.length, 2 * golden.length)
    assert (path / "store.json").read_bytes() == marker
    with storage_impl.open_store(path, verify=True) as store:
        images, labels = store.read_many()
        np.testing.assert_array_equal(images, np.concatenate([golden.images()] * 2))
        np.testing.assert_array_equal(labels, np.concatenate([golden.labels()] * 2))


def test_golden_is_written_again(golden: Golden, path: Path, tmp_path: Path) -> None:
    """Writing the same images now makes a store of the same content, in the same files."""
    new = tmp_path / "new"
    make(new, golden)
    disk = hooks(golden.backend)
    for written, kept in zip(disk.content(new), disk.content(path), strict=True):
        np.testing.assert_array_equal(written, kept)
    assert disk.checksums(new) == disk.checksums(path)
    assert disk.leftovers(new) == disk.leftovers(path) == []
    found, expected = (
        {str(file.relative_to(where)) for file in where.rglob("*") if file.is_file()} - set(LOCKS)
        for where in (new, path)
    )
    assert found == expected
    exact = expected & EXACT
    if "chunk_images" not in golden.options:  # a header of this package, not of HDF5's making
        exact |= {file for file in expected if file.endswith(".h5")}
    assert len(exact) >= 1
    for file in exact:
        assert (new / file).read_bytes() == (path / file).read_bytes()


def test_content_of_a_golden(golden: Golden, path: Path) -> None:
    """The backend's library alone finds in a golden what was written to it."""
    images, labels = hooks(golden.backend).content(path)
    np.testing.assert_array_equal(images, golden.images())
    np.testing.assert_array_equal(labels, golden.labels())


def test_marker_of_a_golden(name: str, golden: Golden) -> None:
    """A golden's `store.json` is as the format describes it."""
    marker = json.loads((HERE / name / "store.json").read_bytes())
    assert golden.options.items() <= marker.pop("options").items()
    assert marker == {
        "format": "storage_impl",
        "format_version": 1,
        "backend": golden.backend,
        "encoding": storage_impl.BACKENDS[golden.backend].encodings[0],
        "image_shape": list(golden.image_shape),
        "durable": golden.durable,
    }


@pytest.mark.parametrize("name", ENCODED)
def test_encoded_golden(name: str, path: Path) -> None:
    """An encoded golden holds what was written, as files and as pixels, and can be appended to."""
    golden = ENCODED[name]
    encoding = golden.encoding or "png"
    with storage_impl.open_store(path, "a", verify=True) as store:
        assert (store.backend, store.image_shape) == (golden.backend, golden.image_shape)
        assert store.encoding == encoding
        if encoding == "raw":
            store.write_many(golden.images(), golden.labels())
        else:
            files = [store.read_encoded(index)[0] for index in range(golden.length)]
            store.write_encoded(files, golden.labels())
    with storage_impl.open_store(path, verify=True) as store:
        images, labels = store.read_many()
        for found, expected in zip(images, [*golden.images()] * 2, strict=True):
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(labels, [*golden.labels()] * 2)
        store.verify()
