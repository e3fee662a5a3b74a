"""Something that happens in the midst of a call: before any line of the package that it runs.

What a signal's handler does, or another thread, can happen at any moment. Here it happens at each
moment in turn, so that a race need not be waited for.
"""

import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_LIMIT = 100_000  # lines, far more than any call here runs


def at_line(number: int, action: Callable[[], object], call: Callable[[], object]) -> bool:
    """Make a call, and do something in the same thread before one of its lines.

    Returns whether the call came to that line, counted from 0. What `action` raises comes out of
    the line, as from the handler of a signal.
    """
    return _run(number, action, call) > number


def count(call: Callable[[], object]) -> int:
    """Make a call, and return how many lines it runs."""
    return _run(_LIMIT, lambda: None, call)


def _run(number: int, action: Callable[[], object], call: Callable[[], object]) -> int:
    """Make a call, and return how many lines it runs, up to the one with the action."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if not frame.f_globals.get("__name__", "").startswith("storage_impl"):
            return None
        if event == "call" and _in_finalizer(frame):  # Python ignores whatever is raised there
            return None
        if event == "line":
            lines += 1
            if lines > number:
                sys.settrace(None)
                frame.f_trace = None
                action()
                return None
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


def _in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def numbers(step: int) -> Iterator[int]:
    """Line numbers to try until a call does not come to one: each in the full form, else some."""
    full = os.environ.get("STORAGE_IMPL_FAULTS") == "full"
    return iter(range(0, _LIMIT, 1 if full else step))
