"""Drop files from the page cache, without root, and check whether they are gone."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np


def empty(directory: Path) -> None:
    """Drop all pages of the files below a directory from the page cache.

    Changes that are not on the disk yet are synced. A page that a process has mapped stays, so no
    process may have an LMDB environment open there.

    Raises
    ------
    NotImplementedError
        The system cannot drop pages, cannot say which are in memory, or keeps some.
    """
    if not hasattr(os, "posix_fadvise"):
        raise NotImplementedError("needs posix_fadvise")
    files = [
        os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names
    ]
    # Only a page that is on the disk can be dropped, but syncing thousands of files takes long: the
    # second pass syncs the files of which pages stayed.
    for changed in (False, True):
        for path in files:
            _drop(path, sync=changed)
        files = [path for path in files if resident(path)]
    if files:
        raise NotImplementedError(f"pages of {os.path.relpath(files[0], directory)} stay in memory")


def _drop(path: str, *, sync: bool) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if sync:
            os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def resident(path: str | Path) -> int:
    """Return how many pages of a file the page cache holds.

    Raises
    ------
    NotImplementedError
        The system cannot tell.
    """
    try:
        mincore = ctypes.CDLL(None).mincore
    except (TypeError, AttributeError) as error:  # Windows, and a libc without it
        raise NotImplementedError("needs mincore") from error
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        if length == 0:
            return 0
        with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as pages:
            mapped = np.frombuffer(pages, np.uint8)
            states = np.empty(-(-length // mmap.PAGESIZE), np.uint8)
            address = ctypes.c_void_p(mapped.ctypes.data)
            result = mincore(address, ctypes.c_size_t(length), ctypes.c_void_p(states.ctypes.data))
            del mapped  # otherwise the map cannot be closed
    if result != 0:
        raise NotImplementedError("needs a file system that mincore works on")
    return int(np.count_nonzero(states & 1))
