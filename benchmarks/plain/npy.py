"""A .npy file of the images and one of the labels, memory-mapped to read parts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plain import sync_tree


def write_all(path: Path, images: Any, labels: Any, sync: bool) -> None:
    """Save both arrays."""
    path.mkdir()
    np.save(path / "images.npy", images)
    np.save(path / "labels.npy", labels)
    if sync:
        sync_tree(path)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield both arrays, memory-mapped."""
    yield (
        np.load(path / "images.npy", mmap_mode="r"),
        np.load(path / "labels.npy", mmap_mode="r"),
    )


def read_all(store: Any) -> Any:
    """Copy both arrays into memory."""
    images, labels = store
    return np.array(images), np.array(labels)


def read_one(store: Any, index: int) -> Any:
    """Copy one image."""
    images, labels = store
    return np.array(images[index]), int(labels[index])


def read_batch(store: Any, indices: Sequence[int]) -> Any:
    """Copy the images of a list."""
    images, labels = store
    return np.array(images[indices]), np.array(labels[indices])
