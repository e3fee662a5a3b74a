"""Stores in torch's DataLoader: a dataset that reads a batch at once.

`storage_impl.sampling` has the sampler that can resume.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from storage_impl import open_store
from storage_impl.sampling import ResumableBatchSampler

__all__ = ["Batch", "ResumableBatchSampler", "StoreDataset", "collate"]


@dataclass(eq=False)
class Batch(Sequence[tuple[Any, Any]]):
    """Samples that were read at once. `collate` takes them whole, DataLoader's own one by one."""

    images: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        return self.images[index], self.labels[index]


@dataclass(eq=False)
class StoreDataset(Dataset[tuple[Any, Any]]):
    """The images of a store or a sharded dataset, and their labels, by index.

    Images are uint8 tensors (C, H, W), as in torchvision, or arrays (H, W, C) with
    ``tensors=False``. `transform` is called with each image. With `verify`, each image is compared
    with its checksum.
    """

    path: str | os.PathLike[str]
    _: KW_ONLY
    transform: Callable[[Any], Any] | None = None
    tensors: bool = True
    verify: bool = False

    def __post_init__(self) -> None:
        self._store = open_store(self.path, verify=self.verify)

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self._store.read_one(index)
        return self._finish(image), label

    def __getitems__(self, indices: Sequence[int]) -> Sequence[tuple[Any, Any]]:
        images, labels = self._store.read_many(indices)
        if self.transform is not None:
            return list(zip(map(self._finish, images), labels.tolist(), strict=True))
        one_array = isinstance(images, np.ndarray)
        converted = self._finish(images) if one_array else [self._finish(each) for each in images]
        return Batch(converted, torch.from_numpy(labels) if self.tensors else labels)

    def _finish(self, image: Any) -> Any:
        if self.tensors:
            image = torch.from_numpy(image).movedim(-1, -3)  # a view: nothing is copied
        return image if self.transform is None else self.transform(image)


def collate(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Make a batch from samples of a `StoreDataset`. Pass this as the DataLoader's `collate_fn`.

    Parameters
    ----------
    samples : sequence of (image, label)
        What `StoreDataset` returned for the indices of a batch.

    Returns
    -------
    images : Tensor, ndarray or list
        One tensor or array. If the images of a store have different sizes, a list of them, unless a
        transform gives them one size.
    labels : Tensor or ndarray
        (N,) int64.
    """
    if isinstance(samples, Batch):
        return samples.images, samples.labels
    images, labels = zip(*samples, strict=True)
    library = torch if isinstance(images[0], torch.Tensor) else np
    return library.stack(images), library.asarray(labels, dtype=library.int64)
