"""Stores in torch's DataLoader: a dataset read by the batch, and a sampler that resumes."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import default_rng
from torch.utils.data import Dataset, Sampler

from storage_impl import InvalidInputError, open_store


@dataclass(eq=False)
class Batch(Sequence[tuple[Any, Any]]):
    """Samples read at once: `collate` takes them whole, DataLoader's own collate one by one."""

    images: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        return self.images[index], self.labels[index]


@dataclass(eq=False)
class StoreDataset(Dataset[tuple[Any, Any]]):
    """The images of a store or a sharded dataset, and their labels, by index.

    Images are uint8 tensors (C, H, W), as torchvision has them, or with ``tensors=False`` arrays
    (H, W, C). `transform` is called with each. `verify` compares each with its checksum.
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
    """Make images and labels of samples of a `StoreDataset`, for DataLoader's `collate_fn`.

    Parameters
    ----------
    samples : sequence of (image, label)
        What `StoreDataset` gave for a batch of indices.

    Returns
    -------
    images : Tensor, ndarray or list
        One tensor or array; a list of them where a store has differing sizes, unless a transform
        gives them one size.
    labels : Tensor or ndarray
        (N,) int64.
    """
    if isinstance(samples, Batch):
        return samples.images, samples.labels
    images, labels = zip(*samples, strict=True)
    library = torch if isinstance(images[0], torch.Tensor) else np
    return library.stack(images), library.asarray(labels, dtype=library.int64)


@dataclass(eq=False)
class ResumableBatchSampler(Sampler[list[int]]):
    """Batches of indices: each of `count` images once an epoch, each epoch in another order.

    Blocks of `block` neighbours come in random order, and so do the images of a block: of many
    shards, a few are read at a time. Each `rank` of `world_size` gets as many batches, all of
    `batch_size` but the last, which share the rest. `epoch` and `batch` are where it goes on.
    """

    count: int
    batch_size: int
    _: KW_ONLY
    seed: int = 0
    block: int = 1 << 18
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    batch: int = 0

    def __post_init__(self) -> None:
        if min(self.batch_size, self.block) < 1 or not 0 <= self.rank < self.world_size:
            raise InvalidInputError("batch_size and block must be at least 1, rank < world_size")
        each, rest = divmod(self.count, self.world_size)
        if each < 1 or (rest and self.batch_size == 1):
            raise InvalidInputError(f"too few images for equal numbers of batches: {self}")
        self._rounds = -(-self.count // (self.batch_size * self.world_size))
        full = (each - 1) // self.batch_size * self.world_size  # so that no share is empty
        shares = self._rounds * self.world_size - full
        last = np.linspace(full * self.batch_size, self.count, shares + 1, dtype=np.int64)
        self._edges = np.append(np.arange(full) * self.batch_size, last)

    def __len__(self) -> int:
        return self._rounds - self.batch

    def __iter__(self) -> Iterator[list[int]]:
        seed, edges = [self.seed, self.epoch], self._edges[self.batch * self.world_size :].tolist()
        self.epoch, self.batch = self.epoch + 1, 0  # until `consume` knows better
        blocks = [range(self.count)[i : i + self.block] for i in range(0, self.count, self.block)]
        default_rng(seed).shuffle(blocks)
        begin = end = 0
        for i in range(self.rank, len(edges) - 1, self.world_size):
            position, stop, indices = edges[i], edges[i + 1], list[int]()
            while position < stop:
                if position >= end:
                    while position >= end:
                        block = blocks.pop()
                        begin, end = end, end + len(block)
                    order = default_rng([*seed, block[0]]).permutation(len(block)) + block[0]
                indices += order[position - begin : stop - begin].tolist()
                position = min(stop, end)
            yield indices

    def consume(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield what a DataLoader yields, and count it: a state goes on after the last item.

        Parameters
        ----------
        loader : DataLoader
            One whose `batch_sampler` is this sampler.

        Yields
        ------
        object
            A batch.
        """
        epoch = self.epoch
        for batch, item in enumerate(loader, self.batch + 1):
            self.epoch, self.batch = epoch + batch // self._rounds, batch % self._rounds
            yield item

    def state_dict(self) -> dict[str, int]:
        """Return the place in the order, the same for all ranks.

        Returns
        -------
        dict
            For `load_state_dict`: numbers by name.
        """
        return {name: value for name, value in asdict(self).items() if name != "rank"}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on after the batch of a state.

        Parameters
        ----------
        state : mapping of str to int
            What `state_dict` returned.

        Raises
        ------
        InvalidInputError
            The state is of another order: the sampler was made in another way.
        """
        here = self.state_dict() | {name: state[name] for name in ("epoch", "batch")}
        if here != state:
            raise InvalidInputError(f"the state is of another order: {state}, here {here}")
        self.epoch, self.batch = state["epoch"], state["batch"]
