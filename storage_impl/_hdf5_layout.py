"""The place of each dataset in a segment's file, and the header that describes it.

HDF5 makes the header once, as a template, for datasets without data whose lengths are known primes.
For each segment, its own lengths and addresses overwrite those of the template. So writing a
segment needs no call to HDF5, which takes a millisecond and cannot handle a disk error or an
interrupt.

The format is the oldest one, with superblock version 0. Its metadata have no checksums, which would
have to be changed too.
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
_PAGE = 4096  # large data begin at a multiple of this: whole pages are copied 10% faster
_LARGE = 1 << 16
_END = 40  # the offset of the file's length in superblock 0


class Dataset(NamedTuple):
    """A dataset of a segment. The number of its rows differs between segments."""

    name: str
    dtype: np.dtype[np.generic]
    row: tuple[int, ...]
    row_bytes: int


class Place(NamedTuple):
    """Where a dataset begins in a file, and how many rows it has."""

    offset: int
    rows: int


class Layout:
    """The datasets of a store's segments, in the order in which they lie in each file.

    Parameters
    ----------
    image_shape : tuple of int or None
        (H, W, C) if all images are raw and of one shape, else None.

    Attributes
    ----------
    datasets : list of Dataset
        The last one holds the images.
    header_bytes : int
        Bytes before the first dataset.
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
        """The rows of each dataset. `data_bytes`, of all images, is used only if shapes differ."""
        if self.same_shape:
            return images, images + 1, images
        return images, images + 1, images + 1, images, data_bytes

    def places(self, rows: Sequence[int]) -> list[Place]:
        """Where each dataset begins. They follow the header one after another."""
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
        """The header of a file whose datasets have these numbers of rows."""
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
            if len(dimensions) != 2:  # the current and the maximal length
                raise RuntimeError(f"this HDF5 lays out {dataset.name} in an unknown way")
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
    """Where the header is overwritten for a dataset."""

    dimensions: list[int]
    address: int  # followed by the size


def _all(data: bytes, wanted: bytes) -> list[int]:
    """All offsets of `wanted` in `data`."""
    found = []
    at = data.find(wanted)
    while at >= 0:
        found.append(at)
        at = data.find(wanted, at + 1)
    return found


_names = count()


def in_memory(make: Callable[[h5f.FileID], None], oldest: int) -> bytes:
    """The bytes of an HDF5 file that `make` fills, in the format `oldest` if that suffices."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(1 << 20, backing_store=False)
    access.set_libver_bounds(oldest, h5f.LIBVER_V110)
    # A unique name, because HDF5 treats two files in memory with the same name as one.
    file = h5f.create(b"memory-%d" % next(_names), h5f.ACC_TRUNC, fapl=access)
    make(file)
    h5f.flush(file)
    image: bytes = file.get_file_image()
    return image


@lru_cache(64)
def layout_of_shape(image_shape: Shape | None) -> Layout:
    """The layout for raw images of this shape, or, for None, for all other images."""
    return Layout(image_shape)


def layout_of(marker: Marker) -> Layout:
    """The layout of the segments of a store."""
    return layout_of_shape(None if marker.row_bytes is None else marker.image_shape)
