"""Plain code: what a tutorial would write for each store, without promises.

A module for each store, all with the same functions:

- ``write_all(path, images, labels, sync)`` makes the store. With `sync` the images are on the disk
  when it returns, without it they are in the hands of the system.
- ``opened(path)`` is a context manager that gives what the other functions read from.
- ``read_all(store)``, ``read_one(store, index)`` and ``read_batch(store, indices)`` return images
  and labels as numpy arrays, a single label as int.

Those in ``others`` need a package that nothing else needs. That folder has no ``__init__.py``: asv
imports every module that it finds in a package, whether or not it can be imported.

`bytes_on_disk` weighs any of them. :mod:`benchmarks.plain_stores` measures them. No module knows of
``storage_impl``.

Two stores that the article names are left out. Badger: `badgerdb` 0.7.0 takes text alone, and a
value ends at its first NUL, so it cannot hold pixels. BoltDB: `boltdb` 0.0.2 is a port to pure
Python from 2020 that is no longer maintained, so it would not measure BoltDB.
"""

import os
from pathlib import Path


def sync_tree(path: Path) -> None:
    """Have the disk hold all files below a directory, and their names."""
    for parent, _, names in os.walk(path):
        for name in (*names, "."):
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def bytes_on_disk(path: Path) -> int:
    """Return what the files and directories below a path take on the disk, as `du` counts it."""
    found = (os.lstat(entry).st_blocks for entry in (path, *path.rglob("*")))
    return 512 * sum(found)
