"""LevelDB with plyvel, each value the label and the pixels."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import plyvel


def write_all(path: Path, images: Any, labels: Any, sync: bool) -> None:
    """Put all images in one batch, under keys of eight digits, and their shape."""
    with (
        closing(plyvel.DB(str(path), create_if_missing=True)) as database,
        database.write_batch(sync=sync) as batch,
    ):
        batch.put(b"shape", np.array(images.shape[1:], np.int64).tobytes())
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            value = int(label).to_bytes(8, "little", signed=True) + image.tobytes()
            batch.put(f"{index:08}".encode(), value)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield the database and the shape of an image."""
    with closing(plyvel.DB(str(path))) as database:
        yield database, np.frombuffer(database.get(b"shape"), np.int64)


def _image(value: bytes, shape: Any) -> Any:
    pixels = np.frombuffer(value, np.uint8, offset=8).reshape(shape)
    return pixels, int.from_bytes(value[:8], "little", signed=True)


def read_all(store: Any) -> Any:
    """Read all values in the order of their keys."""
    database, shape = store
    with database.iterator(stop=b"shape", include_key=False) as values:
        images, labels = zip(*[_image(value, shape) for value in values], strict=True)
    return np.stack(images), np.array(labels)


def read_one(store: Any, index: int) -> Any:
    """Get a value."""
    database, shape = store
    return _image(database.get(f"{index:08}".encode()), shape)


def read_batch(store: Any, indices: Sequence[int]) -> Any:
    """Get the values one by one."""
    images, labels = zip(*[read_one(store, index) for index in indices], strict=True)
    return np.stack(images), np.array(labels)
