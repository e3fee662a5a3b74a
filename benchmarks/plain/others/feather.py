"""Feather with pyarrow, a table of tensors and labels, memory-mapped to read it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import feather

from benchmarks.plain import sync_tree


def write_all(path: Path, images: Any, labels: Any, sync: bool) -> None:
    """Write a table of two columns, not compressed."""
    path.mkdir()
    pixels = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    table = pa.table({"image": pixels, "label": labels})
    feather.write_feather(table, path / "images.feather", compression="uncompressed")
    if sync:
        sync_tree(path)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield both columns as arrays on the mapped file."""
    table = feather.read_table(path / "images.feather", memory_map=True)
    chunks = [chunk.to_numpy_ndarray() for chunk in table["image"].chunks]
    images = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    yield images, table["label"].to_numpy()


def read_all(store: Any) -> Any:
    """Copy both columns into memory."""
    images, labels = store
    return np.array(images), np.array(labels)


def read_one(store: Any, index: int) -> Any:
    """Copy one image."""
    images, labels = store
    return np.array(images[index]), int(labels[index])


def read_batch(store: Any, indices: Sequence[int]) -> Any:
    """Copy the images of a list."""
    images, labels = store
    return images[indices], labels[indices]
