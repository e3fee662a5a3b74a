"""Errors of the system, raised where a library would raise them."""

import types
from collections.abc import Callable
from typing import Any


def in_library(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as if it were part of a library that the package calls.

    What the handler of a signal raises, or anything else outside of the package and its
    libraries, passes through a store unchanged: see `storage_impl.errors.is_ours`.
    """
    assert isinstance(function, types.FunctionType)
    return types.FunctionType(
        function.__code__,
        function.__globals__ | {"__name__": "storage_impl"},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


def failing(error: BaseException) -> Callable[..., Any]:
    """A function that fails as the system does."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return in_library(fail)
