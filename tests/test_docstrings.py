"""What public docstrings name beside the signatures, which numpydoc compares when it lints."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import storage_impl
from storage_impl import ImageStore

pytestmark = pytest.mark.unmeasured

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "create_store": storage_impl.create_store,
    "open_store": storage_impl.open_store,
    **{
        f"ImageStore.{name}": member
        for name, member in vars(ImageStore).items()
        if inspect.isfunction(member) and not name.startswith("_")
    },
}


def sections(documented: Any) -> dict[str, str]:
    """The sections of a numpydoc docstring, and its summary under ""."""
    text = inspect.getdoc(documented)
    assert text
    parts = re.split(r"^([A-Z][\w ]+)\n-+\n", text, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def items(section: str) -> set[str]:
    """The names that a section describes."""
    heads = [line for line in section.splitlines() if line and not line.startswith(" ")]
    return {
        name.strip().lstrip("*") for head in heads for name in head.partition(" :")[0].split(",")
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_raises(name: str) -> None:
    """A function says which errors it raises, and all of these are the package's."""
    raised = items(sections(FUNCTIONS[name])["Raises"])
    assert raised
    for error in raised:
        assert issubclass(getattr(storage_impl, error), storage_impl.StorageError)


@pytest.mark.parametrize("name", storage_impl.BACKENDS)
def test_backends(name: str) -> None:
    """A backend's class documents its options, its module the format on disk."""
    backend = storage_impl.BACKENDS[name]
    documented = items(sections(backend).get("Other Parameters", ""))
    assert documented == set(backend.defaults)
    module = inspect.getmodule(backend)
    assert module is not None
    assert module.__doc__ is not None
    assert "On-disk format, version 1" in module.__doc__


def test_attributes() -> None:
    """`ImageStore` documents its public attributes."""
    documented = items(sections(ImageStore)["Attributes"])
    assert documented == {
        "backend", "path", "image_shape", "encoding", "mode", "durable", "closed",
    }  # fmt: skip
