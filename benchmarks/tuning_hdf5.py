"""What do HDF5's layouts, and the ways to read it, cost and gain?

The options that `storage_impl` has are measured through it. Advice for which it has no option is
measured on the library alone, whether `storage_impl` follows it or not. The library then stores
only the pixels.
"""

import os
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

import storage_impl
from benchmarks.common import StoreSuite, Suite, compare, facts, kept, scattered, version

COUNT = 5_000

LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "1 a chunk": {"chunk_images": 1},
    "16 a chunk": {"chunk_images": 16},
    "64 a chunk": {"chunk_images": 64},
    "16 a chunk, gzip": {"chunk_images": 16, "gzip_level": 6},
}


class Hdf5Layout(StoreSuite):
    """HDF5 stores of 5,000 images, contiguous (the default) or in chunks of whole images.

    Each sample opens the store again, because HDF5 caches the chunks that it has decompressed.
    """

    params = (("contiguous", "1 a chunk", "16 a chunk", "64 a chunk", "16 a chunk, gzip"),)
    param_names = ("layout",)
    unit = "file bytes/raw"
    count = COUNT
    version = version(1)

    def prepare(self, layout: str) -> None:
        """Open a store and read its labels, and open an empty one."""
        self.store = storage_impl.open_store(self.stored("hdf5", **LAYOUTS[layout]))
        self.undo.callback(self.store.close)
        self.store.read_labels()  # opens the file
        self.empty = self.new_store("hdf5", **LAYOUTS[layout])
        self.indices = scattered(100, len(self.images))

    def check(self, layout: str) -> None:
        """Raise RuntimeError unless what was written and the single images are right."""
        self.time_write_5000(layout)
        self.compare(self.empty)
        self.compare(self.store)
        found = [self.store.read_one(index)[0] for index in self.indices]
        compare(found, self.images[self.indices])

    @facts(images=COUNT)
    def time_write_5000(self, layout: str) -> None:
        """Write all images; not synced."""
        self.empty.write_many(self.images, self.labels)

    @facts(images=COUNT)
    def time_read_5000(self, layout: str) -> None:
        """Read all images, in order."""
        self.store.read_many()

    @facts(images=100)
    def time_read_100(self, layout: str) -> None:
        """Read 100 scattered images, one by one."""
        for index in self.indices:
            self.store.read_one(index)

    def track_ratio(self, layout: str) -> float:
        """Return the total length of the files divided by the bytes of the pixels."""
        return self.store.disk_usage().apparent / self.images.nbytes


class DatasetSuite(Suite):
    """Base of the benchmarks of h5py alone."""

    count = COUNT

    def dataset(self, name: str, **options: Any) -> Any:
        """Return an h5py dataset of all images, made with these options and open for this sample.

        Each sample opens it again, because HDF5 caches the chunks that it has read.
        """

        def make(path: Path) -> None:
            with h5py.File(path, "w") as file:
                file.create_dataset("images", data=self.images, **options)

        path = kept(f"tuning-{len(self.images)}-{name}.h5", make)
        if self.first:
            with h5py.File(path) as file:
                compare(file["images"][:], self.images)
        opened = h5py.File(path)
        self.undo.callback(opened.close)
        return opened["images"]


class Hdf5AutoChunks(DatasetSuite):
    """5,000 images with h5py alone: contiguous, and in chunks that h5py chooses.

    h5py chooses the chunks if it is given ``chunks=True``, compression or ``maxshape``. It cuts
    each image into pieces, and a chunk holds pieces of many images.
    """

    params = (("contiguous", "chunks=True", "compression='gzip'"),)
    param_names = ("layout",)
    warmup_time = 0.1
    unit = "file bytes/raw"
    version = version(1)

    options: ClassVar[dict[str, dict[str, Any]]] = {
        "contiguous": {},
        "chunks=True": {"chunks": True},
        "compression='gzip'": {"compression": "gzip"},
    }

    def prepare(self, layout: str) -> None:
        """Open the dataset of a layout."""
        name = next(iter(self.options[layout]), layout)
        self.images_stored = self.dataset(name, **self.options[layout])
        self.indices = scattered(20, len(self.images))

    def check(self, layout: str) -> None:
        """Raise RuntimeError unless the single images are right."""
        found = [self.images_stored[index] for index in self.indices]
        compare(found, self.images[self.indices])

    @facts(images=COUNT)
    def time_read_5000(self, layout: str) -> None:
        """Read all images, in order."""
        self.images_stored[:]

    @facts(images=20)
    def time_read_20(self, layout: str) -> None:
        """Read 20 scattered images, one by one."""
        for index in self.indices:
            self.images_stored[index]

    def track_ratio(self, layout: str) -> float:
        """Return the length of the file divided by the bytes of the pixels."""
        return os.path.getsize(self.images_stored.file.filename) / self.images.nbytes


class Hdf5Selection(DatasetSuite):
    """256 scattered images out of 5,000, sorted, with h5py alone."""

    params = (("contiguous", "16 a chunk"), ("list", "one by one", "everything"))
    param_names = ("layout", "how")
    warmup_time = 0.1
    version = version(1)

    def prepare(self, layout: str, how: str) -> None:
        """Open the dataset of a layout."""
        chunks = None if layout == "contiguous" else (16, *self.images.shape[1:])
        self.images_stored = self.dataset(layout, chunks=chunks)
        self.indices = sorted(scattered(256, len(self.images)))

    def check(self, layout: str, how: str) -> None:
        """Raise RuntimeError unless the images are right."""
        self.time_read_256(layout, how)
        compare(self.found, self.images[self.indices])

    @facts(images=256)
    def time_read_256(self, layout: str, how: str) -> None:
        """Index with a list, read one by one, or read all 5,000 and choose in memory."""
        stored = self.images_stored
        if how == "list":
            self.found = stored[self.indices]
        elif how == "one by one":
            self.found = np.stack([stored[index] for index in self.indices])
        else:
            self.found = stored[:][self.indices]
