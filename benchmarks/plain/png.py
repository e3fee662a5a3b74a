"""PNG files with Pillow, one for each image, and a text file of labels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.plain import sync_tree


def write_all(path: Path, images: Any, labels: Any, sync: bool) -> None:
    """Write a file for each image, and the labels line by line."""
    path.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index}.png")
    (path / "labels.txt").write_text("\n".join(map(str, labels)))
    if sync:
        sync_tree(path)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield the directory and the labels."""
    labels = [int(line) for line in (path / "labels.txt").read_text().splitlines()]
    yield path, labels


def read_all(store: Any) -> Any:
    """Read every file."""
    return read_batch(store, range(len(store[1])))


def read_one(store: Any, index: int) -> Any:
    """Read one file."""
    path, labels = store
    with Image.open(path / f"{index}.png") as image:
        return np.array(image), labels[index]


def read_batch(store: Any, indices: Sequence[int]) -> Any:
    """Read the files one by one."""
    images, labels = zip(*[read_one(store, index) for index in indices], strict=True)
    return np.stack(images), np.array(labels)
