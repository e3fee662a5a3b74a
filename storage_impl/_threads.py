"""Calls spread over the cores that this process may use.

The threads are not `concurrent.futures`': an interrupt of its calls can leave one of their locks
locked, and the next call waits for ever. Here is no lock that Python code holds: a `SimpleQueue`
and `start_new_thread` are interrupted before they begin, or after they are done.
"""

import _thread
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import starmap
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")


def each(function: Callable[..., _T], calls: Sequence[tuple[Any, ...]]) -> list[_T]:
    """Call a function with each of several tuples of arguments, on all cores.

    The calling thread takes its share, and all of it where no thread can be started: when the
    interpreter ends, or the system has no more of them.
    """
    workers = min(cores(), len(calls))
    if workers < 2 or not _started(workers - 1):
        return list(starmap(function, calls))
    # A share of the calls for each thread: handing over single ones would cost too much.
    answers: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(workers - 1)]
    for i, answer in enumerate(answers, 1):
        _jobs.put((function, calls[i::workers], answer))
    results: list[Any] = [None] * len(calls)
    results[::workers] = starmap(function, calls[::workers])
    for i, answer in enumerate(answers, 1):
        found = answer.get()
        if isinstance(found, BaseException):
            raise found
        results[i::workers] = found
    return results


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_jobs: SimpleQueue[Any] = SimpleQueue()
_threads: list[int] = []  # the threads that take jobs


def _started(count: int) -> bool:
    """Whether there is a thread that takes jobs, after an attempt to have `count` of them."""
    if sys.is_finalizing():  # they run no more
        return False
    with suppress(RuntimeError):
        while len(_threads) < count:
            _threads.append(_thread.start_new_thread(_work, (_jobs,)))
    return bool(_threads)


def _work(jobs: SimpleQueue[Any]) -> None:
    while True:
        _do(*jobs.get())


def _do(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], answer: SimpleQueue[Any]
) -> None:
    try:
        answer.put(list(starmap(function, calls)))
    except BaseException as error:
        answer.put(error)


def _forget() -> None:
    """Begin anew: no thread but the one that forks is in the child."""
    global _jobs
    _jobs = SimpleQueue()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
