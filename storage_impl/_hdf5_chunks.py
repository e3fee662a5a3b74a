"""Segments whose images are chunked and optionally compressed. HDF5 itself writes and reads them.

HDF5 builds each file in memory, and the bytes are then written like any others. If HDF5 wrote to
the disk itself, a full disk would end the process with a signal.
"""

from typing import Any

import numpy as np
from h5py import Dataset as HighLevelDataset
from h5py import h5d, h5f, h5p, h5s, h5t, h5z
from numpy.typing import NDArray

from storage_impl._files import File
from storage_impl._hdf5_layout import Layout, in_memory
from storage_impl._hdf5_segment import open_dataset, open_file, read_column
from storage_impl.codecs import MAX_RATIO
from storage_impl.errors import DamagedStoreError


def file_of(
    layout: Layout, columns: list[NDArray[Any]], chunk_images: int, gzip_level: int | None
) -> bytes:
    """Build a segment's file in memory.

    Parameters
    ----------
    layout : Layout
    columns : list of ndarray
        The contents of its datasets, the images last.
    chunk_images : int
        Images per chunk.
    gzip_level : int or None
    """

    def make(file: h5f.FileID) -> None:
        for dataset, column in zip(layout.datasets, columns, strict=True):
            properties = h5p.create(h5p.DATASET_CREATE)
            properties.set_obj_track_times(False)
            if column is columns[-1]:
                properties.set_chunk((min(chunk_images, len(column)), *dataset.row))
                properties.set_fill_time(h5d.FILL_TIME_NEVER)
                if gzip_level is not None:
                    properties.set_deflate(gzip_level)
            space = h5s.create_simple((len(column), *dataset.row))
            kind = h5t.py_create(dataset.dtype)
            made = h5d.create(file, dataset.name.encode(), kind, space, properties)
            made.write(h5s.ALL, h5s.ALL, column.reshape(space.shape))

    return in_memory(make, h5f.LIBVER_V110)


class ChunkedImages:
    """The images of a segment, open and checked.

    Attributes
    ----------
    columns : list of ndarray
        The contents of the datasets before the images.

    Raises
    ------
    DamagedStoreError
        The segment does not match `layout`.
    """

    def __init__(self, file: File, images: int, layout: Layout, *, compressed: bool) -> None:
        opened = open_file(file)
        rows = layout.rows(images, 0)
        self.columns = [
            read_column(opened, file, dataset, number)
            for dataset, number in zip(layout.datasets[:-1], rows, strict=False)
        ]
        self._images = open_dataset(opened, file, layout.datasets[-1], images)
        self._check(file, images * layout.datasets[-1].row_bytes, compressed)
        # For a single image h5py's own indexing is twice as fast as a selection made here.
        self._dataset = HighLevelDataset(self._images, readonly=True)

    def _check(self, file: File, declared: int, compressed: bool) -> None:
        properties = self._images.get_create_plist()
        if properties.get_layout() != h5d.CHUNKED:
            raise DamagedStoreError(f"{file.path}: the images are not chunked")
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        if filters != [h5z.FILTER_DEFLATE] * compressed:
            raise DamagedStoreError(
                f"{file.path}: the filters of the images do not match store.json"
            )
        chunk, shape = properties.get_chunk(), self._images.shape
        if chunk[0] > shape[0] or chunk[1:] != shape[1:]:
            raise DamagedStoreError(f"{file.path}: the images have wrong chunks: {chunk}")
        if declared > file.size() * (MAX_RATIO if compressed else 1):
            raise DamagedStoreError(f"{file.path} declares more images than it can hold")

    def read_one(self, inside: int) -> NDArray[np.uint8]:
        """Read one image, (H, W, C), as a new array."""
        image: NDArray[np.uint8] = self._dataset[inside]
        return image

    def read(self, inside: int, out: NDArray[np.uint8]) -> None:
        """Read consecutive images, the first at `inside`, into `out`, (n, bytes)."""
        shape = (len(out), *self._images.shape[1:])
        space = self._images.get_space()
        space.select_hyperslab((inside, 0, 0, 0), shape)
        self._images.read(h5s.create_simple(shape), space, out.reshape(shape), h5t.NATIVE_UINT8)
