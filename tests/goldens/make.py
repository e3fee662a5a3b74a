"""Write the goldens: small stores of format version 1, kept to be readable for ever.

Run once for each version of the format, and never again after its release; what is there stays::

    python -m tests.goldens.make
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import storage_impl

HERE = Path(__file__).parent
# Files that hold no data: locks, empty or of no meaning to another process.
LOCKS = ("write.lock", "lock.mdb")


def pixels(count: int, shape: tuple[int, int, int], first: int = 0) -> NDArray[np.uint8]:
    """Return (count, *shape) uint8."""
    values = np.arange(count * int(np.prod(shape)), dtype=np.int64) + 1000 * first
    return (values * values // 7 % 256).astype(np.uint8).reshape(count, *shape)


class Golden(NamedTuple):
    """How a golden is made."""

    backend: str
    image_shape: tuple[int, int, int] | None
    durable: bool
    options: dict[str, int | bool]
    length: int = 11
    encoding: str | None = None

    def images(self) -> Any:
        """What it holds, by arithmetic alone: an array, or a list where shapes differ."""
        if self.image_shape is None:
            return [pixels(1, SHAPES[index % 3], index)[0] for index in range(self.length)]
        return pixels(self.length, self.image_shape)

    def labels(self) -> NDArray[np.int64]:
        """The labels, with both ends of int64 among them."""
        some = [3, 1, 4, -1, 5, -(2**63), 2**63 - 1, 9, 2, 6, 0]
        return np.array([some[i % 11] for i in range(self.length)], np.int64)


GOLDENS = {
    "png-rgb": Golden("png", (5, 7, 3), True, {}),
    "png-grey": Golden("png", (4, 3, 1), False, {"compress_level": 9}),
    "png-rgba": Golden("png", (3, 6, 4), True, {"compress_level": 0}),
    "lmdb-rgb": Golden("lmdb", (5, 7, 3), True, {}),
    "lmdb-labels": Golden("lmdb", (1, 2, 1), False, {"readahead": False}, 600),
    "hdf5-rgb": Golden("hdf5", (5, 7, 3), True, {}),
    "hdf5-gzip": Golden("hdf5", (3, 6, 4), False, {"chunk_images": 3, "gzip_level": 6}),
}

# Encoded images, and images whose shapes differ.
ENCODED = {
    "png-differing": Golden("png", None, True, {}),
    "lmdb-png": Golden("lmdb", (5, 7, 3), True, {}, encoding="png"),
    "lmdb-webp": Golden("lmdb", None, True, {}, encoding="webp"),
    "lmdb-differing": Golden("lmdb", None, True, {}, encoding="raw"),
    "hdf5-webp": Golden("hdf5", (5, 7, 3), True, {}, encoding="webp"),
    "hdf5-png": Golden("hdf5", None, True, {}, encoding="png"),
    "hdf5-differing": Golden("hdf5", None, True, {}, encoding="raw"),
}
SHAPES = [(5, 7, 3), (1, 2, 3), (4, 3, 3)]  # of those that differ, in turn


def make(path: Path, golden: Golden) -> None:
    """Write a golden: two calls for many images and, between them, one for a single one."""
    images, labels = golden.images(), golden.labels()
    with storage_impl.create_store(
        path,
        golden.backend,
        image_shape=golden.image_shape,
        encoding=golden.encoding,
        durable=golden.durable,
        **golden.options,
    ) as store:
        store.write_many(images[:6], labels[:6])
        store.write_one(images[6], labels[6])
        store.write_many(iter(images[7:]), iter(labels[7:]))


if __name__ == "__main__":
    for name, golden in (GOLDENS | ENCODED).items():
        if (HERE / name).exists():
            continue
        make(HERE / name, golden)
        for lock in LOCKS:
            (HERE / name / lock).unlink(missing_ok=True)
