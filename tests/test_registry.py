"""The registry of backends, and what importing costs."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import storage_impl

LIBRARIES = {"png": "PIL", "lmdb": "lmdb", "hdf5": "h5py"}
ROOT = Path(storage_impl.__file__).parents[1]


def run(program: str, *arguments: Any) -> str:
    """What a program prints that is run by a fresh interpreter."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_backends() -> None:
    """`BACKENDS` maps the three names to classes that know their name."""
    assert list(storage_impl.BACKENDS) == ["png", "lmdb", "hdf5"]
    assert len(storage_impl.BACKENDS) == 3
    for name, backend in storage_impl.BACKENDS.items():
        assert issubclass(backend, storage_impl.ImageStore)
        assert backend.backend == name
        assert storage_impl.BACKENDS[name] is backend
        assert name in repr(storage_impl.BACKENDS)


def test_backends_is_a_mapping() -> None:
    """What is no backend is missing from `BACKENDS` as from any mapping."""
    backends = storage_impl.BACKENDS
    assert isinstance(backends, Mapping)
    assert "zarr" not in backends
    assert backends.get("zarr") is None
    with pytest.raises(KeyError, match="zarr"):
        backends["zarr"]


def test_backends_cannot_be_changed() -> None:
    """`BACKENDS` is read-only."""
    backends: Any = storage_impl.BACKENDS
    with pytest.raises(TypeError):
        backends["mine"] = storage_impl.ImageStore
    with pytest.raises(TypeError):
        del backends["png"]
    assert list(backends) == ["png", "lmdb", "hdf5"]


@pytest.mark.parametrize("name", ["zarr", "PNG", "", "png ", None, 3])
def test_unknown_backend(tmp_path: Path, name: Any) -> None:
    """A name that is no backend's is refused with those that are; nothing is made."""
    with pytest.raises(storage_impl.UnknownBackendError, match="png, lmdb, hdf5") as caught:
        storage_impl.create_store(tmp_path / "store", name, image_shape=(1, 1, 1))
    assert repr(name) in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert os.listdir(tmp_path) == []


def test_import_is_light() -> None:
    """Importing the package, or listing its backends, imports none of their libraries."""
    program = """
import sys, storage_impl
"png" in storage_impl.BACKENDS, list(storage_impl.BACKENDS), repr(storage_impl.BACKENDS)
print(*sorted({"PIL", "lmdb", "h5py"} & set(sys.modules)))
"""
    assert run(program) == ""


@pytest.mark.parametrize("name", LIBRARIES)
def test_only_the_library_needed_is_imported(tmp_path: Path, name: str) -> None:
    """A store imports the library of its own backend and no other."""
    program = """
import sys, storage_impl
storage_impl.create_store(sys.argv[1], sys.argv[2], image_shape=(1, 1, 1)).close()
storage_impl.open_store(sys.argv[1]).close()
print(*sorted({"PIL", "lmdb", "h5py"} & set(sys.modules)))
"""
    assert run(program, tmp_path / "store", name) == LIBRARIES[name]


def test_public_names() -> None:
    """All that is public can be had from the package itself."""
    assert storage_impl.__all__ == sorted(storage_impl.__all__)
    for name in storage_impl.__all__:
        assert hasattr(storage_impl, name)
    from storage_impl import errors

    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.StorageError):
            assert getattr(storage_impl, name) is value
            assert name in storage_impl.__all__


def test_typed() -> None:
    """The package tells type checkers that it is typed."""
    assert (Path(storage_impl.__file__).parent / "py.typed").exists()
