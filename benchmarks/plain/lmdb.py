"""LMDB, each value a pickle of the image and its label."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np


def write_all(path: Path, images: Any, labels: Any, sync: bool) -> None:
    """Put all images in one transaction, under keys of eight digits."""
    size = 10 * images.nbytes + (1 << 20)  # more than enough, because the map cannot grow
    with (
        lmdb.open(str(path), map_size=size, sync=sync) as environment,
        environment.begin(write=True) as transaction,
    ):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            transaction.put(f"{index:08}".encode(), pickle.dumps((image, label)))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield a transaction that reads."""
    with lmdb.open(str(path), readonly=True) as environment, environment.begin() as transaction:
        yield transaction


def read_all(store: Any) -> Any:
    """Read all values in the order of their keys."""
    found = [pickle.loads(value) for _, value in store.cursor()]
    images, labels = zip(*found, strict=True)
    return np.stack(images), np.array(labels)


def read_one(store: Any, index: int) -> Any:
    """Get a value."""
    image, label = pickle.loads(store.get(f"{index:08}".encode()))
    return image, int(label)


def read_batch(store: Any, indices: Sequence[int]) -> Any:
    """Get the values one by one."""
    images, labels = zip(*[read_one(store, index) for index in indices], strict=True)
    return np.stack(images), np.array(labels)
