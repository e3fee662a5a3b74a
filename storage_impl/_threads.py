"""Calls spread over the cores that this process may use."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import starmap
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_T = TypeVar("_T")


def each(function: Callable[..., _T], calls: Sequence[tuple[Any, ...]]) -> list[_T]:
    """Call a function with each of several tuples of arguments, on all cores.

    The calling thread takes its share, and all of it where no thread can be started: when the
    interpreter ends, or the system has no more of them.
    """
    workers = min(cores(), len(calls))
    if workers < 2:
        return list(starmap(function, calls))
    # A share of the calls for each thread: handing over single ones would cost too much.
    shares = [calls[i::workers] for i in range(workers)]
    handed: list[Future[list[_T]]] = []
    with suppress(RuntimeError):
        for share in shares[1:]:
            handed.append(_pool().submit(_share, function, share))
    results: list[Any] = [None] * len(calls)
    for i in (0, *range(len(handed) + 1, workers)):
        results[i::workers] = _share(function, shares[i])
    for i, future in enumerate(handed, 1):
        results[i::workers] = future.result()
    return results


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _share(function: Callable[..., _T], calls: Sequence[tuple[Any, ...]]) -> list[_T]:
    return list(starmap(function, calls))


_threads: "ThreadPoolExecutor | None" = None


def _pool() -> "ThreadPoolExecutor":
    global _threads
    if _threads is None:
        from concurrent.futures import ThreadPoolExecutor  # which few programs need

        _threads = ThreadPoolExecutor(max(cores() - 1, 1), "storage_impl")
    return _threads


def _forget() -> None:
    global _threads
    _threads = None  # no thread but the one that forks is in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
