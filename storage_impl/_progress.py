"""Show the progress of a long command on a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TextIO, TypeVar

_Item = TypeVar("_Item")

_INTERVAL = 0.2  # seconds between two updates


class Progress:
    """A line on a terminal: how many items are done, how fast, and how much time is left.

    If `stream` is not a terminal, nothing is written.

    Parameters
    ----------
    total : int
        How many there are.
    what : str
        What is counted, for instance "images".
    stream : file
        Where the line is written.
    """

    def __init__(self, total: int, what: str = "images", stream: TextIO | None = None) -> None:
        self._total, self._what = total, what
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._begun = self._last = time.monotonic()
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown:
            self._write("")

    def advance(self, count: int = 1) -> None:
        """Count `count` more as done."""
        self.done += count
        now = time.monotonic()
        if self._shown and now - self._last >= _INTERVAL:
            self._last = now
            self._write(self._line(now - self._begun))

    def count(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Iterate, and count each item as done when the next one is asked for."""
        for item in items:
            yield item
            self.advance()

    def _line(self, seconds: float) -> str:
        rate = self.done / seconds
        left = (self._total - self.done) / rate if rate else 0.0
        minutes, rest = divmod(round(left), 60)
        time_left = f"{minutes} min {rest} s" if minutes else f"{rest} s"
        return f"{self.done:,} of {self._total:,} {self._what}, {rate:,.0f}/s, {time_left} left"

    def _write(self, line: str) -> None:
        self._stream.write(f"\r\x1b[K{line}")
        self._stream.flush()
