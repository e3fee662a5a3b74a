"""Zarr, an array of the images, 64 in a chunk, and one of the labels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr

from benchmarks.plain import sync_tree

CHUNK = 64  # images


def write_all(path: Path, images: Any, labels: Any, sync: bool) -> None:
    """Write both arrays at once, not compressed."""
    group = zarr.open_group(path, mode="w")
    chunks = (CHUNK, *images.shape[1:])
    group.create_array("images", data=images, chunks=chunks, compressors=None)
    group.create_array("labels", data=labels, compressors=None)
    if sync:
        sync_tree(path)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield both arrays."""
    group = zarr.open_group(path, mode="r")
    yield group["images"], group["labels"]


def read_all(store: Any) -> Any:
    """Read both arrays."""
    images, labels = store
    return images[:], labels[:]


def read_one(store: Any, index: int) -> Any:
    """Read one image."""
    images, labels = store
    return images[index], int(labels[index])


def read_batch(store: Any, indices: Sequence[int]) -> Any:
    """Read a list of images."""
    images, labels = store
    return images.oindex[indices], labels.oindex[indices]
