"""What a backend is given to write: numbered images with their checksums, in pieces."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage_impl._checksum import checksums
from storage_impl._inputs import Chunk


class Staged(NamedTuple):
    """Images that a backend is to write.

    Attributes
    ----------
    first : int
        Index of the first one.
    images : ndarray
        C-contiguous (n, H, W, C) uint8, n > 0.
    labels : ndarray
        C-contiguous (n,) int64.
    sums : ndarray
        Checksums, (n,) uint64.
    """

    first: int
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sums: NDArray[np.uint64]


class Source:
    """What `_append` consumes: numbered chunks with their checksums.

    Attributes
    ----------
    stop : int
        Index after the last image handed out.
    error : BaseException or None
        What the caller's iterable raised, to tell it from an error of the backend.
    """

    def __init__(self, chunks: Iterator[Chunk], start: int) -> None:
        self._chunks = chunks
        self.stop = start
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[Staged]:
        return self

    def __next__(self) -> Staged:
        try:
            images, labels = next(self._chunks)
        except BaseException as error:
            self.error = error
            raise
        first, self.stop = self.stop, self.stop + len(images)
        indices = np.arange(first, self.stop, dtype=np.int64)
        return Staged(first, images, labels, checksums(indices, images, labels))

    def parts(self, limit: int) -> Iterator[Staged]:
        """The chunks, in parts of at most `limit` images."""
        for first, images, labels, sums in self:
            for start in range(0, len(images), limit):
                part = slice(start, start + limit)
                yield Staged(first + start, images[part], labels[part], sums[part])
