"""How the datasets of a segment lie in its file, and the header that says so.

HDF5 makes the header once, for datasets whose lengths are known primes and whose data are not there
yet. Each segment is that header with its own lengths and addresses written over those: no call
into HDF5, which has no place for an error of the disk or an interrupt, and costs a millisecond. The
format is the oldest, superblock 0, whose metadata have no checksums that would have to change too.
"""

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t

from storage_impl._marker import Marker
from storage_impl._records import Shape

_PRIMES = (50_331_653, 50_331_667, 50_331_707, 50_331_757, 50_331_787)
_NUMBER = struct.Struct("<Q")
_NOWHERE = b"\xff" * 8
_CONTIGUOUS = b"\x03\x01"  # a layout message: version 3, contiguous; address and size follow
_PAGE = 4096  # where large data begin: the system copies whole pages a tenth faster
_LARGE = 1 << 16
_END = 40  # where superblock 0 says how long the file is


class Dataset(NamedTuple):
    """A dataset of a segment: its rows, whose number differs from segment to segment."""

    name: str
    dtype: np.dtype[np.generic]
    row: tuple[int, ...]
    row_bytes: int


class Place(NamedTuple):
    """Where a dataset lies in a file, and how many rows it has."""

    offset: int
    rows: int


class Layout:
    """The datasets of a store's segments, in the order in which they lie in each file.

    Parameters
    ----------
    image_shape : tuple of int or None
        (H, W, C) where all images are raw and of one shape, else None.

    Attributes
    ----------
    datasets : list of Dataset
        The last of them holds the images.
    header_bytes : int
        Bytes in front of the first dataset.
    """

    def __init__(self, image_shape: Shape | None) -> None:
        self.same_shape = image_shape is not None
        rows: list[tuple[str, str, tuple[int, ...]]] = [
            ("labels", "<i8", ()),
            ("checksums", "<u8", ()),
        ]
        if image_shape is not None:
            rows += [("images", "u1", image_shape)]
        else:
            rows += [("offsets", "<u8", ()), ("shapes", "<u4", (3,)), ("data", "u1", ())]
        self.datasets = [
            Dataset(name, np.dtype(dtype), row, math.prod(row) * np.dtype(dtype).itemsize)
            for name, dtype, row in rows
        ]
        self._template, self._holes = self._make_template()
        self.header_bytes = len(self._template)

    def rows(self, images: int, data_bytes: int) -> tuple[int, ...]:
        """The rows of each dataset in a segment of so many images, or bytes where they differ."""
        if self.same_shape:
            return images, images + 1, images
        return images, images + 1, images + 1, images, data_bytes

    def places(self, rows: Sequence[int]) -> list[Place]:
        """Where each dataset begins, one after another behind the header."""
        found = []
        offset = self.header_bytes
        for dataset, number in zip(self.datasets, rows, strict=True):
            size = number * dataset.row_bytes
            if dataset is self.datasets[-1] and size >= _LARGE:
                offset = -(-offset // _PAGE) * _PAGE
            found.append(Place(offset, number))
            offset += size
        return found

    def header(self, rows: Sequence[int]) -> bytes:
        """The header of a file with so many rows in its datasets."""
        header = bytearray(self._template)
        for dataset, hole, place in zip(self.datasets, self._holes, self.places(rows), strict=True):
            size = place.rows * dataset.row_bytes
            for dimension in hole.dimensions:
                _NUMBER.pack_into(header, dimension, place.rows)
            _NUMBER.pack_into(header, hole.address, place.offset)
            _NUMBER.pack_into(header, hole.address + 8, size)
        _NUMBER.pack_into(header, _END, place.offset + size)
        return bytes(header)

    def _make_template(self) -> tuple[bytes, list["_Hole"]]:
        image = in_memory(self._make, h5f.LIBVER_EARLIEST)
        holes = []
        for dataset, rows in zip(self.datasets, _PRIMES, strict=False):
            message = _CONTIGUOUS + _NOWHERE + _NUMBER.pack(rows * dataset.row_bytes)
            (found,) = _all(image, message)
            address = found + len(_CONTIGUOUS)
            dimensions = [i for i in _all(image, _NUMBER.pack(rows)) if i != address + 8]
            if len(dimensions) != 2:  # now, and at most
                raise RuntimeError(f"HDF5 lays out {dataset.name} in a way that is not known")
            holes.append(_Hole(dimensions, address))
        return image, holes

    def _make(self, file: h5f.FileID) -> None:
        for dataset, rows in zip(self.datasets, _PRIMES, strict=False):
            properties = h5p.create(h5p.DATASET_CREATE)
            properties.set_obj_track_times(False)
            properties.set_fill_time(h5d.FILL_TIME_NEVER)
            space = h5s.create_simple((rows, *dataset.row))
            h5d.create(file, dataset.name.encode(), h5t.py_create(dataset.dtype), space, properties)


class _Hole(NamedTuple):
    """What is written over in the header for a dataset."""

    dimensions: list[int]
    address: int  # the size follows it


def _all(data: bytes, wanted: bytes) -> list[int]:
    """All places where `wanted` is."""
    found = []
    at = data.find(wanted)
    while at >= 0:
        found.append(at)
        at = data.find(wanted, at + 1)
    return found


_names = count()


def in_memory(make: Callable[[h5f.FileID], None], oldest: int) -> bytes:
    """The bytes of an HDF5 file that `make` fills, of format `oldest` where that can hold it."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(1 << 20, backing_store=False)
    access.set_libver_bounds(oldest, h5f.LIBVER_V110)
    # A name of its own: HDF5 takes two files in memory that have one name for the same.
    file = h5f.create(b"memory-%d" % next(_names), h5f.ACC_TRUNC, fapl=access)
    make(file)
    h5f.flush(file)
    image: bytes = file.get_file_image()
    return image


@lru_cache(64)
def layout_of_shape(image_shape: Shape | None) -> Layout:
    """The layout of raw images of one shape, or of all others."""
    return Layout(image_shape)


def layout_of(marker: Marker) -> Layout:
    """The layout of a store's segments."""
    return layout_of_shape(None if marker.row_bytes is None else marker.image_shape)
