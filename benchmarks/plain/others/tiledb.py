"""TileDB, a dense array of the images, 64 in a tile, and one of the labels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tiledb

from benchmarks.plain import sync_tree

TILE = 64  # images


def write_all(path: Path, images: Any, labels: Any, sync: bool) -> None:
    """Write both arrays at once, not compressed."""
    path.mkdir()
    for name, values in (("images", images), ("labels", labels)):
        tiles = (min(TILE, len(values)), *values.shape[1:])
        sizes = zip(values.shape, tiles, strict=True)
        dimensions = [
            tiledb.Dim(f"axis{axis}", domain=(0, size - 1), tile=tile, dtype=np.uint64)
            for axis, (size, tile) in enumerate(sizes)
        ]
        attribute = tiledb.Attr(dtype=values.dtype)
        schema = tiledb.ArraySchema(tiledb.Domain(*dimensions), attrs=[attribute])
        tiledb.Array.create(str(path / name), schema)
        with tiledb.open(str(path / name), "w") as array:
            array[:] = values
    if sync:
        sync_tree(path)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield both arrays."""
    with tiledb.open(str(path / "images")) as images, tiledb.open(str(path / "labels")) as labels:
        yield images, labels


def read_all(store: Any) -> Any:
    """Read both arrays."""
    images, labels = store
    return images[:], labels[:]


def read_one(store: Any, index: int) -> Any:
    """Read one image."""
    images, labels = store
    return images[index], int(labels[index])


def read_batch(store: Any, indices: Sequence[int]) -> Any:
    """Read the images one by one."""
    images, labels = zip(*[read_one(store, index) for index in indices], strict=True)
    return np.stack(images), np.array(labels)
