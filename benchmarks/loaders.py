"""When do the workers of torch's DataLoader save time, and when do they cost time?

The loaders return batches of 256 shuffled images, as tensors. The benchmarks need torch, which
`tox run -e loaders-bench` installs.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import BACKENDS, MADE, StoreSuite, compare, facts, kept, version
from benchmarks.workers import ImageFiles, without_asv

BATCH = 256
WORKERS = ("0", "2 fork", "2 spawn", "2 forkserver")
FILES = "files"  # a folder of PNG files, read one by one with Pillow


class LoaderSuite(StoreSuite):
    """Base: a dataset, and loaders for it."""

    params: tuple[tuple[Any, ...], ...] = ((*BACKENDS, FILES), WORKERS)
    param_names: tuple[str, ...] = ("store", "workers")
    version = version(1)

    def dataset(self, store: str) -> Any:
        """Return a dataset of all images; raise NotImplementedError if torch is missing."""
        if find_spec("torch") is None:
            raise NotImplementedError("needs torch, which `tox run -e loaders-bench` installs")
        from storage_impl.torch import StoreDataset

        if store != FILES:
            return StoreDataset(self.stored(store))

        def make(path: Path) -> None:
            ImageFiles.write(path, self.images, self.labels)

        return ImageFiles(kept(f"read-files-{len(self.images)}", make))

    def loader(self, dataset: Any, workers: str) -> Any:
        """Return a DataLoader whose workers stay from epoch to epoch."""
        from torch.utils.data import DataLoader

        from storage_impl.torch import collate

        number, _, method = workers.partition(" ")
        return DataLoader(
            dataset,
            BATCH,
            shuffle=True,
            collate_fn=collate if not isinstance(dataset, ImageFiles) else None,
            num_workers=int(number),
            multiprocessing_context=method or None,
            persistent_workers=bool(method),
        )

    def compare_batches(self, loader: Any) -> None:
        """Raise RuntimeError unless an epoch holds every image with its label."""
        found = [
            (image.permute(1, 2, 0).numpy().tobytes(), int(label))
            for images, labels in started(loader)
            for image, label in zip(images, labels, strict=True)
        ]
        written = zip((image.tobytes() for image in self.images), self.labels.tolist(), strict=True)
        compare(sorted(map(hash, found)), sorted(map(hash, written)))


def started(loader: Any) -> Any:
    """Return an iterator over a loader, whose workers can import this package."""
    with without_asv():
        return iter(loader)


class LoaderEpoch(LoaderSuite):
    """An epoch of 10,000 images, by workers that have run an epoch before."""

    def prepare(self, store: str, workers: str) -> None:
        """Start the workers, once in a process."""
        if self.first:
            self.batches = self.loader(self.dataset(store), workers)

    def check(self, store: str, workers: str) -> None:
        """Raise RuntimeError unless an epoch holds every image."""
        self.compare_batches(self.batches)

    @facts(images=MADE)
    def time_epoch_10000(self, store: str, workers: str) -> None:
        """Read all batches."""
        for _ in self.batches:
            pass


class LoaderStart(LoaderSuite):
    """From a dataset to the first batch of 256: this includes starting the workers."""

    def prepare(self, store: str, workers: str) -> None:
        """Open the store."""
        if self.first:
            self.images_read = self.dataset(store)

    @facts(images=BATCH)
    def time_first_256(self, store: str, workers: str) -> None:
        """Read the first batch."""
        next(started(self.loader(self.images_read, workers)))


class LoaderCalls(LoaderSuite):
    """10,000 images without workers: a call for each batch, or a call for each image."""

    params = (BACKENDS, ("batch", "one by one"))
    param_names = ("backend", "asked")

    def prepare(self, backend: str, asked: str) -> None:
        """Open the store."""
        if self.first:
            dataset = self.dataset(backend)
            if asked != "batch":
                dataset.__getitems__ = None  # as in a dataset that lacks this method
            self.batches = self.loader(dataset, "0")

    def check(self, backend: str, asked: str) -> None:
        """Raise RuntimeError unless an epoch holds every image."""
        self.compare_batches(self.batches)

    @facts(images=MADE)
    def time_epoch_10000(self, backend: str, asked: str) -> None:
        """Read all batches."""
        for _ in self.batches:
            pass
