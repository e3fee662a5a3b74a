"""What the sources of images share: types, how images are cut to size, what is accepted."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

VARIABLE = "STORAGE_IMPL_DATASET"
SKIP_BAD = "STORAGE_IMPL_SKIP_BAD"
ACCEPTED = (
    f"{VARIABLE} accepts the absolute path of a directory: one with CIFAR-10's data_batch_1, "
    "data_batch_2, ..., or one of images, whose subfolders, if any, are the labels. "
    "Unset, it means synthetic images"
)


def check(count: int, size: int) -> None:
    """Raise ValueError unless so many images of that height and width can be made."""
    if count < 0:
        raise ValueError(f"count must be 0 or more, not {count}")
    if size < 1:
        raise ValueError(f"size must be 1 pixel or more, not {size}")


def square(picture: Image.Image, size: int) -> Images:
    """Return the middle of a picture as (size, size, 3)."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=box))


def stacked(images: list[Images], size: int) -> Images:
    """Return images as one array, also where there are none."""
    return np.array(images, np.uint8).reshape(-1, size, size, 3)
