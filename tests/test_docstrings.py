"""Public docstrings are numpydoc, and name what the signatures do."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import storage_impl
from storage_impl import ImageStore

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "create_store": storage_impl.create_store,
    "open_store": storage_impl.open_store,
    **{
        f"ImageStore.{name}": member
        for name, member in vars(ImageStore).items()
        if inspect.isfunction(member) and not name.startswith("_")
    },
}
CLASSES = {
    name: getattr(storage_impl, name)
    for name in storage_impl.__all__
    if isinstance(getattr(storage_impl, name), type)
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
def test_functions(name: str) -> None:
    """A docstring has a summary line, all parameters, what is returned and what is raised."""
    function = FUNCTIONS[name]
    found = sections(function)
    signature = inspect.signature(function)
    assert found[""].splitlines()[0].endswith(".")
    parameters = set(signature.parameters) - {"self"}
    assert items(found.get("Parameters", "")) == parameters
    assert ("Returns" in found) == (signature.return_annotation not in (None, "None"))
    raised = items(found["Raises"])
    assert raised
    for error in raised:
        assert issubclass(getattr(storage_impl, error), storage_impl.StorageError)


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name: str) -> None:
    """Every public class says what it is."""
    summary = sections(CLASSES[name])[""]
    assert summary.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", storage_impl.BACKENDS)
def test_backends(name: str) -> None:
    """A backend's class documents its options, its module the format on disk."""
    backend = storage_impl.BACKENDS[name]
    documented = items(sections(backend)["Other Parameters"])
    assert documented == set(backend._defaults)
    module = inspect.getmodule(backend)
    assert module is not None
    assert module.__doc__ is not None
    assert "On-disk format, version 1" in module.__doc__


def test_attributes() -> None:
    """`ImageStore` documents its public attributes."""
    documented = items(sections(ImageStore)["Attributes"])
    assert documented == {"backend", "path", "image_shape", "mode", "durable", "closed"}
