"""The order of training: every image once an epoch, dealt to ranks, resumed where it stopped."""

from collections.abc import Callable, Iterable
from itertools import chain, islice, pairwise

import pytest

import storage_impl
from storage_impl.sampling import ResumableBatchSampler

COUNT = 103  # no multiple of the size of a batch
BATCH = 8


def flat(batches: Iterable[list[int]]) -> list[int]:
    """The indices of batches, one after the other."""
    return list(chain.from_iterable(batches))


def take(sampler: ResumableBatchSampler, batches: int) -> list[list[int]]:
    """So many batches, over as many epochs as it takes."""
    seen: list[list[int]] = []
    while len(seen) < batches:
        seen += islice(sampler.consume(sampler), batches - len(seen))
    return seen


@pytest.mark.parametrize("stop", [1, 7, 12, 13, 14, 20])
def test_resume(stop: int) -> None:
    """A loop goes on at the batch that it stopped at."""
    whole = take(ResumableBatchSampler(COUNT, BATCH, seed=3, block=40), 30)
    sampler = ResumableBatchSampler(COUNT, BATCH, seed=3, block=40)
    before = take(sampler, stop)
    resumed = ResumableBatchSampler(COUNT, BATCH, seed=3, block=40)
    resumed.load_state_dict(sampler.state_dict())
    assert len(resumed) == 13 - stop % 13
    assert before + take(resumed, 30 - stop) == whole


def test_no_order_twice() -> None:
    """Each epoch has another order, also where it is iterated over without `consume`."""
    sampler = ResumableBatchSampler(COUNT, BATCH)
    assert len({tuple(flat(sampler)) for _ in range(20)}) == 20
    assert sampler.state_dict()["epoch"] == 20


def test_seed() -> None:
    """The order follows from the seed and the epoch."""
    orders = [flat(ResumableBatchSampler(COUNT, BATCH, seed=seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    later = flat(ResumableBatchSampler(COUNT, BATCH, seed=1, epoch=1))
    assert later not in orders


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [16, 24, 100, 101, 103, 127, 129])
@pytest.mark.parametrize("batch_size", [2, 8, 13])
def test_ranks(count: int, batch_size: int, world_size: int) -> None:
    """Each rank has as many batches, none is empty or too large, and no image comes twice."""
    samplers = [
        ResumableBatchSampler(count, batch_size, block=10, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for _ in range(2):
        lengths = [len(sampler) for sampler in samplers]
        dealt = [list(sampler) for sampler in samplers]
        assert [len(each) for each in dealt] == lengths
        assert len(set(lengths)) == 1
        batches = [batch for each in dealt for batch in each]
        assert sorted(flat(batches)) == list(range(count))
        sizes = [len(batch) for batch in batches]
        assert 1 <= min(sizes) <= max(sizes) <= batch_size
        rounds = -(-count // (batch_size * world_size))
        assert sizes.count(batch_size) >= (rounds - 2) * world_size


def test_one_rank_has_torchs_batches() -> None:
    """Without ranks all batches but the last are full."""
    sizes = [len(batch) for batch in ResumableBatchSampler(COUNT, BATCH)]
    assert sizes == [8] * 12 + [7]


def test_blocks_bound_what_is_read_at_a_time() -> None:
    """A batch is of one block of neighbours, or of two where one ends."""
    block, count = 50, 1020
    batches = list(ResumableBatchSampler(count, BATCH, block=block))
    touched = [{index // block for index in batch} for batch in batches]
    assert max(map(len, touched)) == 2
    visits = [number for each in touched for number in each]
    changes = [visits[0], *(b for a, b in pairwise(visits) if a != b)]
    assert len(set(changes)) == 21
    assert sorted(changes) != changes
    inside = [index for batch in batches for index in batch][:block]
    assert inside != sorted(inside)


def test_far_into_a_large_dataset() -> None:
    """A billion images take no time and little memory, also near the end of an epoch."""
    sampler = ResumableBatchSampler(10**9, 256, rank=3, world_size=8)
    sampler.batch = len(sampler) - 2
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [256, 64]
    assert len(set(flat(batches))) == 320


BAD: dict[str, Callable[[], object]] = {
    "no batch size": lambda: ResumableBatchSampler(10, 0),
    "no block": lambda: ResumableBatchSampler(10, 2, block=0),
    "rank beyond": lambda: ResumableBatchSampler(10, 2, rank=2, world_size=2),
    "no ranks": lambda: ResumableBatchSampler(10, 2, world_size=0),
    "fewer images than ranks": lambda: ResumableBatchSampler(3, 2, world_size=4),
    "no images": lambda: ResumableBatchSampler(0, 2),
    "one at a time and one left": lambda: ResumableBatchSampler(5, 1, world_size=2),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_bad_arguments(make: Callable[[], object]) -> None:
    """What cannot be dealt is refused."""
    with pytest.raises(storage_impl.InvalidInputError):
        make()


def test_state_of_another_order() -> None:
    """A state resumes the order that it was saved in, or none; ranks share it."""
    state = ResumableBatchSampler(COUNT, BATCH, world_size=2).state_dict()
    ResumableBatchSampler(COUNT, BATCH, world_size=2, rank=1).load_state_dict(state)
    for other in (
        ResumableBatchSampler(COUNT, BATCH),
        ResumableBatchSampler(COUNT, BATCH, world_size=2, seed=1),
        ResumableBatchSampler(COUNT + 1, BATCH, world_size=2),
        ResumableBatchSampler(COUNT, BATCH, world_size=2, block=10),
    ):
        with pytest.raises(storage_impl.InvalidInputError, match="another order"):
            other.load_state_dict(state)
        assert other.batch == other.epoch == 0
