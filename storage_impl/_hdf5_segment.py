"""A segment of an HDF5 store, checked before anything in it is used.

A contiguous segment that this package wrote is recognized by its header, byte for byte, and read
without HDF5. HDF5 opens all others: chunked segments, and those that another program rewrote
(h5repack for instance). Such a file may point to other files, load code for a filter, or declare
more than it holds. So a dataset is used only if it is plain: a hard link, of the exact type and
shape, with its data inside this file, and no filter except gzip.
"""

import os
from typing import Any, NamedTuple

import numpy as np
from h5py import h5d, h5f, h5l, h5p, h5t
from numpy.typing import NDArray

from storage_impl._files import File, pread
from storage_impl._hdf5_layout import Dataset, Layout, Place
from storage_impl.errors import DamagedStoreError

_DESCRIPTORS = "/proc/self/fd"


class Segment(NamedTuple):
    """The content of a segment without its images, and where the images begin.

    Attributes
    ----------
    identity : tuple of int
        Device and inode of the file.
    images : int
        Where the images begin in the file. Not used if they are chunked.
    columns : list of ndarray
        The contents of the datasets before the images.
    """

    identity: tuple[int, int]
    images: int
    columns: list[NDArray[Any]]


def read(file: File, images: int, layout: Layout, *, strict: bool) -> Segment:
    """Read a segment of contiguous images.

    Parameters
    ----------
    file : File
    images : int
        How many images it must hold.
    layout : Layout
    strict : bool
        Whether to refuse a header that this package does not write, instead of reading it with
        HDF5.

    Raises
    ------
    DamagedStoreError
        The segment does not match `layout`.
    """
    status = os.fstat(file.fd)
    rows = layout.rows(images, 0)
    places = layout.places(rows)
    start = pread(file.fd, places[-1].offset, 0)
    if not layout.same_shape and len(start) == places[-1].offset:
        # The last offset is the length of the data.
        end = places[2].offset + 8 * images
        rows = layout.rows(images, int.from_bytes(start[end : end + 8], "little"))
        places = layout.places(rows)
    end = places[-1].offset + rows[-1] * layout.datasets[-1].row_bytes
    if end <= status.st_size and start.startswith(layout.header(rows)):
        columns = [
            np.frombuffer(start, dataset.dtype, place.rows * _items(dataset), place.offset)
            for dataset, place in zip(layout.datasets[:-1], places, strict=False)
        ]
    elif strict:
        raise DamagedStoreError(
            f"{file.path} is cut off, or its header is not what storage_impl writes; if another "
            "program rewrote it on purpose, open the store without verify=True"
        )
    else:
        opened = open_file(file)
        places = []
        columns = []
        for dataset, number in zip(layout.datasets, rows, strict=True):
            expected = None if dataset.name == "data" else number
            places.append(_place(open_dataset(opened, file, dataset, expected), file, dataset))
            if len(places) < len(layout.datasets):
                columns.append(_read(file, dataset, places[-1]))
    if not layout.same_shape:
        _check_offsets(file, columns[2], places[-1].rows)
        columns[3] = columns[3].reshape(images, 3)
    return Segment((status.st_dev, status.st_ino), places[-1].offset, columns)


def _items(dataset: Dataset) -> int:
    return dataset.row_bytes // dataset.dtype.itemsize


def _check_offsets(file: File, offsets: NDArray[np.uint64], end: int) -> None:
    if offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
        raise DamagedStoreError(f"{file.path}: the offsets are damaged")


def read_column(opened: h5f.FileID, file: File, dataset: Dataset, rows: int) -> NDArray[Any]:
    """Read a contiguous dataset as a whole."""
    return _read(file, dataset, _place(open_dataset(opened, file, dataset, rows), file, dataset))


def _read(file: File, dataset: Dataset, place: Place) -> NDArray[Any]:
    size = place.rows * dataset.row_bytes
    data = pread(file.fd, size, place.offset)
    if len(data) < size:
        raise DamagedStoreError(f"{file.path} is cut off")
    return np.frombuffer(data, dataset.dtype)


def open_file(file: File) -> h5f.FileID:
    """Open a file with HDF5. It must be the same file that `file` has open."""
    path = f"{_DESCRIPTORS}/{file.fd}"
    if not os.path.exists(path):  # pragma: no cover - Linux has it
        path = os.fspath(file.path)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_file_locking(False, False)
    opened = h5f.open(os.fsencode(path), h5f.ACC_RDONLY, access)
    if not os.path.sameopenfile(opened.get_vfd_handle(), file.fd):
        raise DamagedStoreError(f"{file.path} was replaced while the store was open")
    return opened


def open_dataset(
    opened: h5f.FileID, file: File, dataset: Dataset, rows: int | None
) -> h5d.DatasetID:
    """Open a dataset, and check that its type, its shape and its data are plain.

    It must have `rows` rows. None accepts any number.
    """
    key = dataset.name.encode()

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise DamagedStoreError(f"{file.path}: {dataset.name} {what}")

    require(opened.links.get_info(key).type == h5l.TYPE_HARD, "is a link to another place")
    found = h5d.open(opened, key)
    space = found.get_space()
    require(space.is_simple(), "is not an array")
    shape = space.shape
    expected = (shape[:1] if rows is None else (rows,)) + dataset.row
    require(shape == expected, f"has the shape {shape}, expected {expected}")
    # If only the maximal shape has room for a chunk, HDF5 looks for it beyond its own memory.
    require(space.get_simple_extent_dims(True) == shape, "may grow")
    require(found.get_type().equal(h5t.py_create(dataset.dtype)), f"is not of type {dataset.dtype}")
    properties = found.get_create_plist()
    require(properties.get_external_count() == 0, "keeps its data in another file")
    return found


def _place(found: h5d.DatasetID, file: File, dataset: Dataset) -> Place:
    """Where a contiguous dataset begins, and how many rows it has."""
    rows = found.shape[0]
    size = rows * dataset.row_bytes
    offset = None
    if found.get_create_plist().get_layout() == h5d.CONTIGUOUS:
        offset = found.get_offset()
    if offset is None or found.get_storage_size() != size or offset + size > file.size():
        raise DamagedStoreError(f"{file.path}: {dataset.name} is not in one piece inside the file")
    return Place(offset, rows)
