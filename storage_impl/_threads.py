"""Run calls in threads, on the cores that this process may use.

`concurrent.futures` is not used for this: if one of its calls is interrupted, a lock may stay
locked, and the next call waits forever. The code here holds no lock. A call of `SimpleQueue` or
`start_new_thread` is interrupted before it begins or after it has ended.
"""

import _thread
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import starmap
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")

_PAUSE = 0.0001  # seconds
_PATIENCE = 0.1  # seconds, after which to look whether this is a forked child


def each(function: Callable[..., _T], calls: list[tuple[Any, ...]]) -> list[_T]:
    """Call a function with each of several tuples of arguments, on all cores.

    The calling thread takes a share of the calls. It takes all of them if no thread can be started:
    while the interpreter shuts down, or if the system has no more threads. Once this returns or
    raises, no call is in progress, so that what the calls write to belongs to the caller again.
    """
    workers = min(cores(), len(calls))
    jobs = _jobs  # a child that a handler forks has others
    if workers < 2 or not _started(workers - 1):
        return list(starmap(function, calls))
    # Each thread gets its share at once, because handing over single calls takes too long.
    shares = [calls[i::workers] for i in range(workers)]
    answers: list[SimpleQueue[Any]] = [SimpleQueue() for _ in shares[1:]]
    results: list[Any] = [None] * len(calls)
    running: list[None] = []  # an item for each thread that is at work on a share
    try:
        for share, answer in zip(shares[1:], answers, strict=True):
            jobs.put((function, share, running, answer))
        results[::workers] = starmap(function, shares[0])
        for i, answer in enumerate(answers, 1):
            found = _taken(answer, jobs)
            if found is None:  # the thread that had this share is not in this process
                found = list(starmap(function, shares[i]))
            if isinstance(found, BaseException):
                raise found
            results[i::workers] = found
        return results
    except BaseException:
        for share in shares:
            share.clear()  # no call of it begins any more
        _wait(running, jobs)
        raise


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_jobs: SimpleQueue[Any] = SimpleQueue()
_threads: list[int] = []  # the threads that take jobs


def _started(count: int) -> bool:
    """Start threads that take jobs, until there are `count`. Return whether there is any."""
    if sys.is_finalizing():  # threads do not run any more
        return False
    threads = _threads
    with suppress(RuntimeError):
        while len(threads) < count:
            threads.append(_thread.start_new_thread(_work, (_jobs,)))
    return bool(threads)


def _work(jobs: SimpleQueue[Any]) -> None:
    while True:
        _do(*jobs.get())


def _do(
    function: Callable[..., Any],
    share: list[tuple[Any, ...]],
    running: list[None],
    answer: SimpleQueue[Any],
) -> None:
    running.append(None)  # before the first call is taken, so that who clears the share sees it
    try:
        answer.put(list(starmap(function, share)))
    except BaseException as error:
        answer.put(error)
    finally:
        running.pop()


def _taken(answer: SimpleQueue[Any], jobs: SimpleQueue[Any]) -> Any:
    """Wait for the answer of a thread; None in a child that a handler forked meanwhile."""
    while jobs is _jobs:
        with suppress(Empty):
            return answer.get(timeout=_PATIENCE)
    return None


def _wait(running: list[None], jobs: SimpleQueue[Any]) -> None:
    """Wait for the threads that are at work, and only then raise what interrupts that."""
    interrupt: BaseException | None = None
    while running and jobs is _jobs:  # a forked child has no other threads
        try:
            time.sleep(_PAUSE)
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _forget() -> None:
    """Start anew: a forked child has only the thread that forked."""
    global _jobs, _threads
    _jobs, _threads = SimpleQueue(), []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
