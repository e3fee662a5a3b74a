"""SQLite from the standard library, a row for each image."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def write_all(path: Path, images: Any, labels: Any, sync: bool) -> None:
    """Insert all rows in one transaction."""
    path.mkdir()
    with closing(sqlite3.connect(path / "images.db")) as connection:
        connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'OFF'}")
        connection.execute(
            "CREATE TABLE images (id INTEGER PRIMARY KEY, height INTEGER, width INTEGER,"
            " channels INTEGER, pixels BLOB, label INTEGER)"
        )
        rows = (
            (index, *image.shape, image.tobytes(), int(label))
            for index, (image, label) in enumerate(zip(images, labels, strict=True))
        )
        with connection:
            connection.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?)", rows)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield the connection."""
    with closing(sqlite3.connect(path / "images.db")) as connection:
        yield connection


def _image(row: Any) -> Any:
    _, height, width, channels, pixels, label = row
    return np.frombuffer(pixels, np.uint8).reshape(height, width, channels), label


def read_all(store: Any) -> Any:
    """Select all rows in order."""
    rows = store.execute("SELECT * FROM images ORDER BY id")
    images, labels = zip(*map(_image, rows), strict=True)
    return np.stack(images), np.array(labels)


def read_one(store: Any, index: int) -> Any:
    """Select a row."""
    return _image(store.execute("SELECT * FROM images WHERE id = ?", (int(index),)).fetchone())


def read_batch(store: Any, indices: Sequence[int]) -> Any:
    """Select the rows one by one."""
    images, labels = zip(*[read_one(store, index) for index in indices], strict=True)
    return np.stack(images), np.array(labels)
