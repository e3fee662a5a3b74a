"""Parts of the sample images for `write_shards`, apart from the tests for the processes' sake."""

import os
import signal
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from storage_impl import shards
from tests.samples import SHAPE, images_of, labels_of

SIZES = (5, 0, 7, 1, 10)  # of the shards: 23 images, as the contract's selections expect


class Part:
    """Some of the sample images; at one of them it fails, dies or waits, as the options say."""

    def __init__(self, first: int, count: int, **options: Any) -> None:
        self.first, self.count, self.options = first, count, options

    def __iter__(self) -> Iterator[shards.Item]:
        for index in range(self.first, self.first + self.count):
            if index == 15 and os.path.exists(self.options.get("unready", "")):
                raise FileExistsError(self.options["unready"])
            if index == self.options.get("fail"):
                raise KeyError(index)
            if index == self.options.get("die"):
                os.kill(os.getpid(), signal.SIGKILL)
            if index == self.options.get("pause"):
                self._pause()
            yield images_of(1, SHAPE, index)[0], int(labels_of(1, index)[0])

    def _pause(self) -> None:
        """Tell the test that this image is reached, and wait until it says to go on."""
        with open(self.options["reached"], "w") as fifo:
            fifo.write(str(os.getpid()))
        with open(self.options["go_on"], "rb", buffering=0) as fifo:
            fifo.read(1)


def parts_of(sizes: tuple[int, ...] = SIZES, **options: Any) -> list[Part]:
    """Parts of so many images each."""
    firsts = list(accumulate(sizes, initial=0))
    return [Part(first, size, **options) for first, size in zip(firsts, sizes, strict=False)]


def write_in_processes(path: Path, parts: list[Part], fingerprint: str | None) -> None:
    """What a script does, in a process of its own."""
    shards.write_shards(path, parts, backend="hdf5", image_shape=SHAPE, fingerprint=fingerprint)
