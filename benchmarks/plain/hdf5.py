"""HDF5 with h5py, the images one dataset and the labels another."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.plain import sync_tree


def write_all(path: Path, images: Any, labels: Any, sync: bool) -> None:
    """Write both datasets at once."""
    path.mkdir()
    with h5py.File(path / "images.h5", "w") as file:
        file.create_dataset("images", data=images)
        file.create_dataset("labels", data=labels)
    if sync:
        sync_tree(path)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield the file."""
    with h5py.File(path / "images.h5") as file:
        yield file


def read_all(store: Any) -> Any:
    """Read both datasets."""
    return store["images"][:], store["labels"][:]


def read_one(store: Any, index: int) -> Any:
    """Read one image of the dataset."""
    return store["images"][index], int(store["labels"][index])


def read_batch(store: Any, indices: Sequence[int]) -> Any:
    """Read a list of images; h5py accepts indices only in ascending order."""
    ascending, place = np.unique(indices, return_inverse=True)
    return store["images"][ascending][place], store["labels"][ascending][place]
