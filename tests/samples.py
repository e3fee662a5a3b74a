"""Images and labels that follow from their index, so that any process can tell which it sees."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPE = (5, 7, 3)
SHAPES = ((20, 20, 3), (33, 7, 1), (1, 2, 4), (40, 40, 3))  # of images that differ in shape


def images_of(count: int, shape: tuple[int, int, int] | None = SHAPE, first: int = 0) -> Any:
    """The images `first` to ``first + count - 1``, each unlike the others.

    An array (n, H, W, C); with `shape` None a list of arrays of differing shapes.
    """
    if shape is None:
        numbers = range(first, first + count)
        return [images_of(1, SHAPES[i % len(SHAPES)], i)[0] for i in numbers]
    index = np.arange(first, first + count, dtype=np.int64)[:, np.newaxis]
    place = np.arange(int(np.prod(shape)), dtype=np.int64)
    values = (index * 7919 + place * 104_729) ^ (index * place >> 3)
    return (values & 255).astype(np.uint8).reshape(count, *shape)


def labels_of(count: int, first: int = 0) -> NDArray[np.int64]:
    """Their labels, some of them negative."""
    return np.arange(first, first + count, dtype=np.int64) * 1_000_003 - 5_000_000
