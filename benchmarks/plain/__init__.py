"""Plain code for each store, as a tutorial would write it, without storage_impl's promises.

Each store has a module, and all modules have the same functions:

- ``write_all(path, images, labels, sync)`` makes the store. With `sync`, the images are on the disk
  when it returns. Without it, the operating system writes them later.
- ``opened(path)`` is a context manager that yields what the other functions read from.
- ``read_all(store)``, ``read_one(store, index)`` and ``read_batch(store, indices)`` return images
  and labels as numpy arrays, a single label as int.

Each module in ``others`` needs a package that nothing else needs. That folder has no
``__init__.py``, because asv imports every module of a package, also one that cannot be imported.

`bytes_on_disk` returns the disk space of any store. :mod:`benchmarks.plain_stores` measures the
stores. No module uses ``storage_impl``.

Two stores that the article in README names are left out. Badger: `badgerdb` 0.7.0 accepts only
text, and a value ends at its first NUL, so it cannot hold pixels. BoltDB: `boltdb` 0.0.2 is a port
to pure Python from 2020 that is no longer maintained, so it would not measure BoltDB.
"""

import os
from pathlib import Path


def sync_tree(path: Path) -> None:
    """Sync all files below a directory, and their names."""
    for parent, _, names in os.walk(path):
        for name in (*names, "."):
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def bytes_on_disk(path: Path) -> int:
    """Return the disk space of the files and directories below a path, as `du` counts it."""
    found = (os.lstat(entry).st_blocks for entry in (path, *path.rglob("*")))
    return 512 * sum(found)
