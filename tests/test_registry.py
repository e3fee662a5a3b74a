"""The registry of backends, what importing costs, and a backend whose library is missing."""

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

# Finds no module of a name that is on the command line, as if it were not installed.
BLOCKER = """
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


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
    for library in LIBRARIES.values():
        pytest.importorskip(library)
    program = """
import sys, storage_impl
storage_impl.create_store(sys.argv[1], sys.argv[2], image_shape=(1, 1, 1)).close()
storage_impl.open_store(sys.argv[1]).close()
print(*sorted({"PIL", "lmdb", "h5py"} & set(sys.modules)))
"""
    assert run(program, tmp_path / "store", name) == LIBRARIES[name]


@pytest.mark.parametrize("name", LIBRARIES)
def test_missing_library(tmp_path: Path, name: str) -> None:
    """A backend whose library is missing says what to install; the others work."""
    for library in LIBRARIES.values():
        pytest.importorskip(library)
    existing = tmp_path / "existing"
    storage_impl.create_store(existing, name, image_shape=(1, 1, 1)).close()
    program = (
        BLOCKER
        + """
import os, storage_impl
name, directory, existing = sys.argv[2:]
for use in (
    lambda: storage_impl.create_store(directory + "/new", name, image_shape=(1, 1, 1)),
    lambda: storage_impl.open_store(existing),
    lambda: storage_impl.open_store(existing, "a"),
    lambda: storage_impl.BACKENDS[name],
):
    try:
        use()
    except storage_impl.MissingLibraryError as error:
        assert isinstance(error, ImportError)
        assert f'pip install "storage_impl[{name}]"' in str(error), error
        assert sys.argv[1] in str(error), error
    else:
        raise AssertionError("not refused")
assert os.listdir(directory) == ["existing"], os.listdir(directory)
for other in storage_impl.BACKENDS:
    if other != name:
        storage_impl.create_store(f"{directory}/{other}", other, image_shape=(1, 1, 1)).close()
print("refused")
"""
    )
    assert run(program, LIBRARIES[name], name, tmp_path, existing) == "refused"


def test_broken_library_is_not_missing(tmp_path: Path) -> None:
    """A library that is there and fails to import is reported as it fails."""
    (tmp_path / "lmdb.py").write_text("import a_module_that_is_not_there\n")
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import storage_impl
try:
    storage_impl.BACKENDS["lmdb"]
except storage_impl.MissingLibraryError:
    print("missing")
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert run(program, tmp_path) == "a_module_that_is_not_there"


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
