"""Shared by the sources of images: types, cropping and resizing, and what is accepted."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

VARIABLE = "STORAGE_IMPL_DATASET"
SKIP_BAD = "STORAGE_IMPL_SKIP_BAD"
ACCEPTED = (
    f"{VARIABLE} accepts the absolute path of a directory that holds CIFAR-10's data_batch_1, "
    "data_batch_2, ..., or images; if these are in subfolders, the subfolders are the labels. "
    "Unset, it means synthetic images"
)


def check(count: int, size: int) -> None:
    """Raise ValueError unless `count` and `size` are in range."""
    if count < 0:
        raise ValueError(f"count must be 0 or more, not {count}")
    if size < 1:
        raise ValueError(f"size must be 1 pixel or more, not {size}")


def square(picture: Image.Image, size: int) -> Images:
    """Return the square in the middle of a picture, resized to (size, size, 3)."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=box))


def stacked(images: list[Images], size: int) -> Images:
    """Return images as one array, also if there are none."""
    return np.array(images, np.uint8).reshape(-1, size, size, 3)
