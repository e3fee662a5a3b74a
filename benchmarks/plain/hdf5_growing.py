"""HDF5 with h5py, the dataset made longer for each image."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.plain import sync_tree
from benchmarks.plain.hdf5 import opened, read_all, read_batch, read_one

__all__ = ["opened", "read_all", "read_batch", "read_one", "write_all"]


def write_all(path: Path, images: Any, labels: Any, sync: bool) -> None:
    """Resize both datasets for each image; h5py chooses the chunks."""
    path.mkdir()
    shape = images.shape[1:]
    with h5py.File(path / "images.h5", "w") as file:
        pixels = file.create_dataset("images", (0, *shape), np.uint8, maxshape=(None, *shape))
        numbers = file.create_dataset("labels", (0,), np.int64, maxshape=(None,))
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            pixels.resize(index + 1, axis=0)
            pixels[index] = image
            numbers.resize(index + 1, axis=0)
            numbers[index] = label
    if sync:
        sync_tree(path)
