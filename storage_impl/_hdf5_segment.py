"""A segment of an HDF5 store, open for reading.

An HDF5 file may point to other files, load code for a filter, and declare more than it holds. So
a dataset is read only after it proved to be plain: a hard link, of the exact type and shape, its
data inside this file, and no filter but gzip.
"""

import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l, h5s, h5t, h5z
from numpy.typing import NDArray

from storage_impl._checksum import digest
from storage_impl._files import check_regular
from storage_impl.errors import DamagedStoreError


class Segment:
    """A segment open for reading, checked so that it can lead nowhere else."""

    def __init__(
        self, path: Path, start: int, stop: int, image_shape: tuple[int, int, int], shrinks: int
    ) -> None:
        self.start = start
        self.stop = stop
        self._path = path
        self._lock = threading.Lock()  # the selection of `_space` is shared by all threads
        size = check_regular(path).st_size
        count = stop - start
        file = h5py.File(path, "r", locking=False)
        self._images = _open_dataset(file, "images", "u1", (count, *image_shape), size, shrinks)
        self._space = self._images.get_space()
        self._dataset = h5py.Dataset(self._images, readonly=True)
        self.labels = _read_whole(_open_dataset(file, "labels", "<i8", (count,), size, 1))
        sums = _read_whole(_open_dataset(file, "checksums", "<u8", (count + 1,), size, 1))
        self.sums, self._sum_of_labels = sums[:-1], sums[-1]
        self._sound = False  # whether the labels have been checked
        self._file = file

    def checked_labels(self, check: bool) -> NDArray[np.int64]:
        if check and not self._sound:
            self._sound = labels_sum(self.labels, self.start) == self._sum_of_labels
        if check and not self._sound:
            raise DamagedStoreError(
                f"{self._path}: the labels of images {self.start} to {self.stop - 1} are damaged"
            )
        return self.labels

    def image(self, inside: int) -> NDArray[np.uint8]:
        # For a single image h5py's own indexing is twice as fast as a selection made here.
        image: NDArray[np.uint8] = self._dataset[inside]
        return image

    def read_images(self, inside: slice, out: NDArray[np.uint8]) -> None:
        memory = h5s.create_simple(out.shape)
        with self._lock:
            self._space.select_hyperslab((inside.start, 0, 0, 0), out.shape)
            self._images.read(memory, self._space, out, h5t.NATIVE_UINT8)


def labels_sum(labels: NDArray[np.int64], first: int) -> np.uint64:
    """The checksum of a segment's labels, the first of which has the index `first`."""
    return np.uint64((digest(labels.data) + first) % 2**64)


def _open_dataset(
    file: h5py.File, name: str, dtype: str, shape: tuple[int, ...], file_size: int, shrinks: int
) -> h5d.DatasetID:
    """Open a dataset that holds its data in this file and declares no more than is there."""
    key = name.encode()

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise DamagedStoreError(f"{file.filename}: {name} {what}")

    require(file.id.links.get_info(key).type == h5l.TYPE_HARD, "is a link to elsewhere")
    dataset = h5d.open(file.id, key)
    space = dataset.get_space()
    require(
        space.is_simple() and space.shape == shape,
        f"has the shape {space.shape}, expected {shape}",
    )
    require(dataset.get_type().equal(h5t.py_create(np.dtype(dtype))), f"is not of type {dtype}")
    properties = dataset.get_create_plist()
    declared = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    require(properties.get_external_count() == 0, "keeps its data in another file")
    if properties.get_layout() == h5d.CONTIGUOUS:
        offset = dataset.get_offset()
        require(
            offset is not None
            and dataset.get_storage_size() == declared
            and offset + declared <= file_size,
            "lies outside of the file",
        )
        return dataset
    require(properties.get_layout() == h5d.CHUNKED and len(shape) == 4, "has an unknown layout")
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    require(filters in ([], [h5z.FILTER_DEFLATE]), "uses a filter other than gzip")
    chunk = properties.get_chunk()
    require(chunk[0] <= shape[0] and chunk[1:] == shape[1:], f"has chunks of {chunk}")
    require(declared <= file_size * shrinks, "declares more than the file can hold")
    return dataset


def _read_whole(dataset: h5d.DatasetID) -> NDArray[Any]:
    data = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5s.ALL, h5s.ALL, data)
    return data
