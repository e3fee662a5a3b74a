"""The order in which a training loop reads: shuffled, split among ranks, and resumable.

This needs only numpy. torch's DataLoader accepts the sampler as `batch_sampler`. Any other loop can
iterate over it and pass each list of indices to `ImageStore.read_many`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any

import numpy as np
from numpy.random import default_rng

from storage_impl.errors import InvalidInputError


@dataclass(eq=False)
class ResumableBatchSampler:
    """Batches of indices: each of `count` images once per epoch, in another order in each epoch.

    Blocks of `block` neighbouring images come in random order, and so do the images within a block.
    So only a few shards of a dataset are read at a time. Each of the `world_size` ranks gets the
    same number of batches; this sampler yields those of `rank`. Batches have `batch_size` images,
    except the last ones, which share the rest. `epoch` and `batch` say where iteration starts.
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
            raise InvalidInputError(
                "batch_size and block must be at least 1, and rank from 0 to world_size - 1"
            )
        each, rest = divmod(self.count, self.world_size)
        if each < 1 or (rest and self.batch_size == 1):
            raise InvalidInputError(
                f"too few images to give each rank the same number of batches: {self}"
            )
        self._rounds = -(-self.count // (self.batch_size * self.world_size))
        full = (each - 1) // self.batch_size * self.world_size  # so that no share is empty
        shares = self._rounds * self.world_size - full
        last = np.linspace(full * self.batch_size, self.count, shares + 1, dtype=np.int64)
        self._edges = np.append(np.arange(full) * self.batch_size, last)

    def __len__(self) -> int:
        return self._rounds - self.batch

    def __iter__(self) -> Iterator[list[int]]:
        seed, edges = [self.seed, self.epoch], self._edges[self.batch * self.world_size :].tolist()
        self.epoch, self.batch = self.epoch + 1, 0  # `consume` corrects this
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
        """Yield and count the items of a DataLoader, so that a state resumes after the last one.

        Parameters
        ----------
        loader : DataLoader
            A loader whose `batch_sampler` is this sampler.

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
        """Return the position in the order. It is the same for all ranks.

        Returns
        -------
        dict
            Numbers by name, for `load_state_dict`.
        """
        return {name: value for name, value in asdict(self).items() if name != "rank"}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Resume after the last batch of a state.

        Parameters
        ----------
        state : mapping of str to int
            What `state_dict` returned.

        Raises
        ------
        InvalidInputError
            The state belongs to another order, because its sampler had other arguments.
        """
        here = self.state_dict() | {name: state[name] for name in ("epoch", "batch")}
        if here != state:
            raise InvalidInputError(
                f"the state belongs to another order: it has {state}, the sampler has {here}; "
                "create the sampler with the arguments of the state"
            )
        self.epoch, self.batch = state["epoch"], state["batch"]
