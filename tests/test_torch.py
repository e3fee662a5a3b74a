"""Stores in torch's DataLoader; collected where torch is installed (`tox run -e loaders`)."""

import io
import multiprocessing
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, RandomSampler, Subset

import storage_impl
from storage_impl import shards
from storage_impl.torch import ResumableBatchSampler, StoreDataset, collate
from tests.parts import parts_of
from tests.samples import SHAPE, images_of, labels_of

COUNT = 103  # no multiple of the size of a batch
BATCH = 8
BACKENDS = list(storage_impl.BACKENDS)

# Python 3.12 and later warn of any fork, for torch starts threads of its own.
# torch advises against more workers than cores.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker:UserWarning"),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of `COUNT` images for each backend, and what is read like one."""
    directory = tmp_path_factory.mktemp("stores")
    paths = {}
    for backend in BACKENDS:
        paths[backend] = directory / backend
        with storage_impl.create_store(paths[backend], backend, image_shape=SHAPE) as store:
            store.write_many(images_of(COUNT), labels_of(COUNT))
    return paths


@pytest.fixture(scope="module", autouse=True)
def quick_forkserver() -> None:
    """Import torch once in the server, not in each worker that it forks."""
    multiprocessing.set_forkserver_preload(["storage_impl.torch", "tests.test_torch"])


def loader_of(dataset: Any, sampler: Any, **options: Any) -> DataLoader[Any]:
    """A DataLoader as the module's docstring has it."""
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, **options)


def indices_of(labels: Iterable[Any]) -> list[int]:
    """Which images batches of labels belong to."""
    return [(int(each) + 5_000_000) // 1_000_003 for batch in labels for each in batch]


def check_epoch(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> list[int]:
    """Each image once, with its pixels and its label; returns their order."""
    order = indices_of(labels for _, labels in batches)
    assert sorted(order) == list(range(COUNT))
    images = torch.cat([images for images, _ in batches])
    assert images.dtype == torch.uint8
    assert torch.cat([labels for _, labels in batches]).dtype == torch.int64
    wanted = images_of(COUNT)[order].transpose(0, 3, 1, 2)
    assert np.array_equal(images.numpy(), wanted)
    return order


# -- workers -------------------------------------------------------------------------------------

WORKERS = [
    (0, None),
    (2, "fork"),
    (4, "fork"),
    (2, "forkserver"),
    (4, "forkserver"),
    (2, "spawn"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("workers", "method"), WORKERS)
def test_each_image_once_an_epoch(
    stores: dict[str, Path], backend: str, workers: int, method: str | None
) -> None:
    """Two epochs in persistent workers: all images, each once, in two orders."""
    dataset = StoreDataset(stores[backend])
    dataset[0]  # whose handles the workers inherit, where they are forked
    sampler = ResumableBatchSampler(len(dataset), BATCH, seed=7)
    loader = loader_of(
        dataset,
        sampler,
        num_workers=workers,
        multiprocessing_context=method,
        persistent_workers=workers > 0,
    )
    assert len(loader) == 13
    orders = [check_epoch(list(sampler.consume(loader))) for _ in range(2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) != orders[0]


def test_four_started_afresh(stores: dict[str, Path]) -> None:
    """Four spawned workers, and torch's own order; each import of torch takes seconds."""
    dataset = StoreDataset(stores["hdf5"])
    spawned: Any = {"num_workers": 4, "multiprocessing_context": "spawn"}
    check_epoch(list(DataLoader(dataset, BATCH, shuffle=True, collate_fn=collate, **spawned)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_samplers(stores: dict[str, Path], backend: str) -> None:
    """Torch's own samplers and batches work as well."""
    dataset = StoreDataset(stores[backend])
    in_order = list(DataLoader(dataset, BATCH, collate_fn=collate, num_workers=2))
    assert check_epoch(in_order) == list(range(COUNT))
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(1))
    check_epoch(list(DataLoader(dataset, BATCH, sampler=sampler, collate_fn=collate)))


def test_worker_error_names_the_image(tmp_path: Path) -> None:
    """Damage that a worker finds reaches the user with the image's index, in torch's own error."""
    path = tmp_path / "store"
    with storage_impl.create_store(path, "png", image_shape=SHAPE) as store:
        store.write_many(images_of(4), labels_of(4))
    files = sorted(path.rglob("*.png"))
    files[2].write_bytes(files[1].read_bytes())
    dataset = StoreDataset(path, verify=True)
    with pytest.raises(storage_impl.DamagedImageError, match="image 2"):
        dataset.__getitems__([0, 2])
    with pytest.raises(RuntimeError, match="DamagedImageError: image 2: checksum mismatch"):
        list(DataLoader(dataset, 4, collate_fn=collate, num_workers=1))


# -- what a dataset gives ------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_image(stores: dict[str, Path], backend: str) -> None:
    """An index gives a tensor as torchvision has them, or an array, and an integer."""
    image, label = StoreDataset(stores[backend])[5]
    assert image.shape == (3, 5, 7)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), images_of(1, first=5)[0])
    assert label == labels_of(1, 5)[0]
    array, _ = StoreDataset(stores[backend], tensors=False)[5]
    assert np.array_equal(array, images_of(1, first=5)[0])


def test_batches_as_tensors(stores: dict[str, Path]) -> None:
    """A batch is one tensor whose memory lies as the store has it."""
    dataset = StoreDataset(stores["hdf5"])
    images, labels = collate(dataset.__getitems__([3, 1, 4]))
    assert images.shape == (3, 3, 5, 7)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == labels_of(5)[[3, 1, 4]].tolist()


def test_batches_as_arrays(stores: dict[str, Path]) -> None:
    """Or two arrays."""
    dataset = StoreDataset(stores["hdf5"], tensors=False)
    images, labels = collate(dataset.__getitems__([3, 1, 4]))
    assert np.array_equal(images, images_of(5)[[3, 1, 4]])
    assert np.array_equal(labels, labels_of(5)[[3, 1, 4]])
    one_by_one = collate([dataset[3], dataset[1], dataset[4]])
    assert np.array_equal(one_by_one[0], images)
    assert one_by_one[1].dtype == np.int64


def test_transform(stores: dict[str, Path]) -> None:
    """Each image is transformed by itself, whichever way it is asked for."""
    calls = []

    def brighten(image: torch.Tensor) -> torch.Tensor:
        calls.append(image.shape)
        return image.float() / 255

    dataset = StoreDataset(stores["lmdb"], transform=brighten)
    images, labels = collate(dataset.__getitems__([2, 9]))
    assert calls == [(3, 5, 7)] * 2
    wanted = images_of(10)[[2, 9]].transpose(0, 3, 1, 2).astype(np.float32) / 255
    assert np.array_equal(images.numpy(), wanted)
    assert labels.tolist() == labels_of(10)[[2, 9]].tolist()
    assert torch.equal(dataset[9][0], images[1])


def test_transform_of_arrays(stores: dict[str, Path]) -> None:
    """With arrays, the transform gets arrays."""
    dataset = StoreDataset(stores["lmdb"], transform=np.flipud, tensors=False)
    images, _ = collate(dataset.__getitems__([2, 9]))
    assert np.array_equal(images, images_of(10)[[2, 9], ::-1])


def test_transform_of_differing_shapes(stores: dict[str, Path]) -> None:
    """What cannot be one batch is refused by torch, which names the shapes."""
    shapes = iter([3, 4])
    dataset = StoreDataset(stores["lmdb"], transform=lambda image: image[:, : next(shapes)])
    with pytest.raises(RuntimeError, match=r"equal size.*\[3, 3, 7\].*\[3, 4, 7\]"):
        collate(dataset.__getitems__([0, 1]))


@pytest.mark.parametrize("tensors", [True, False])
def test_torch_collate(stores: dict[str, Path], tensors: bool) -> None:
    """Torch's own collate takes the same samples, only slower, and mixes nothing up."""
    dataset = StoreDataset(stores["hdf5"], tensors=tensors)
    plain = list(DataLoader(dataset, BATCH))
    for (images, labels), (same, same_labels) in zip(
        DataLoader(dataset, BATCH, collate_fn=collate), plain, strict=True
    ):
        assert torch.equal(torch.as_tensor(images), same)
        assert torch.equal(torch.as_tensor(labels), same_labels)


def test_subset(stores: dict[str, Path]) -> None:
    """A part of a dataset reads by the batch, too."""
    dataset = StoreDataset(stores["lmdb"])
    subset = Subset(dataset, list(range(0, COUNT, 3)))
    sampler = ResumableBatchSampler(len(subset), BATCH)
    batches = list(sampler.consume(loader_of(subset, sampler, num_workers=2)))
    assert sorted(indices_of(labels for _, labels in batches)) == list(range(0, COUNT, 3))


def test_concatenated(stores: dict[str, Path]) -> None:
    """Datasets one after the other, which torch asks image by image."""
    both = ConcatDataset([StoreDataset(stores["lmdb"]), StoreDataset(stores["hdf5"])])
    batches = list(DataLoader(both, BATCH, collate_fn=collate))
    assert indices_of(labels for _, labels in batches) == [*range(COUNT), *range(COUNT)]
    assert batches[0][0].shape == (BATCH, 3, 5, 7)


# -- the order -----------------------------------------------------------------------------------


def train(sampler: ResumableBatchSampler, loader: Any, batches: int) -> list[list[int]]:
    """The labels of so many batches, over as many epochs as it takes."""
    seen: list[list[int]] = []
    while len(seen) < batches:
        for _, labels in islice(sampler.consume(loader), batches - len(seen)):
            seen.append(labels.tolist())
    return seen


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("workers", "stop"), [(0, 1), (0, 7), (0, 12), (0, 13), (0, 14), (0, 20), (2, 7), (2, 13)]
)
def test_resume(stores: dict[str, Path], backend: str, workers: int, stop: int) -> None:
    """Training goes on at the batch that it stopped at, whatever was fetched ahead."""
    dataset = StoreDataset(stores[backend])

    def start() -> tuple[ResumableBatchSampler, DataLoader[Any]]:
        sampler = ResumableBatchSampler(len(dataset), BATCH, seed=3, block=40)
        return sampler, loader_of(dataset, sampler, num_workers=workers)

    whole = train(*start(), 30)
    sampler, loader = start()
    before = train(sampler, loader, stop)
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    sampler, loader = start()
    sampler.load_state_dict(state)
    assert len(loader) == 13 - stop % 13
    assert before + train(sampler, loader, 30 - stop) == whole


def test_resume_in_the_same_process(stores: dict[str, Path]) -> None:
    """A loop that is left goes on where it was, too."""
    dataset = StoreDataset(stores["hdf5"])
    sampler = ResumableBatchSampler(len(dataset), BATCH)
    loader = loader_of(dataset, sampler, num_workers=2, persistent_workers=True)
    first = train(sampler, loader, 5)
    rest = [labels.tolist() for _, labels in sampler.consume(loader)]
    assert sorted(indices_of(first + rest)) == list(range(COUNT))


def test_no_order_twice(stores: dict[str, Path]) -> None:
    """Each epoch has another order, also where the loader is iterated over without `consume`."""
    sampler = ResumableBatchSampler(COUNT, BATCH)
    loader = loader_of(StoreDataset(stores["lmdb"]), sampler, num_workers=2)
    assert len({tuple(check_epoch(list(loader))) for _ in range(3)}) == 3


# -- many stores, and differing sizes ------------------------------------------------------------


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in a dataset of 8 shards."""
    path = tmp_path_factory.mktemp("datasets") / "train"
    sizes = (13,) * 7 + (12,)
    with ThreadPoolExecutor(2) as executor:
        shards.write_shards(
            path, parts_of(sizes), backend="hdf5", image_shape=SHAPE, executor=executor
        )
    return path


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "forkserver")])
def test_sharded(sharded: Path, workers: int, method: str | None) -> None:
    """Three ranks train on a dataset: equal batches, each image once, and resumed exactly."""

    def start(rank: int) -> tuple[ResumableBatchSampler, DataLoader[Any]]:
        dataset = StoreDataset(sharded)
        sampler = ResumableBatchSampler(
            len(dataset), BATCH, seed=5, block=26, rank=rank, world_size=3
        )
        started: Any = {"num_workers": workers, "multiprocessing_context": method}
        return sampler, loader_of(dataset, sampler, **started)

    ranks = [train(*start(rank), 10) for rank in range(3)]
    each_epoch = [batches[:5] for batches in ranks], [batches[5:] for batches in ranks]
    for epoch in each_epoch:
        seen = indices_of(batch for rank in epoch for batch in rank)
        assert sorted(seen) == list(range(COUNT))
    sampler, loader = start(1)
    before = train(sampler, loader, 3)
    state = sampler.state_dict()
    sampler, loader = start(1)
    sampler.load_state_dict(state)
    assert before + train(sampler, loader, 7) == ranks[1]


@pytest.mark.parametrize("backend", ["lmdb", "hdf5"])
@pytest.mark.parametrize("workers", [0, 2])
def test_differing_sizes(tmp_path: Path, backend: str, workers: int) -> None:
    """Images of differing sizes come as a list, or as one batch where a transform crops them."""
    shapes = [(4 + number % 3, 6 + number % 2, 3) for number in range(20)]
    images = [images_of(1, shape, number)[0] for number, shape in enumerate(shapes)]
    path = tmp_path / "store"
    with storage_impl.create_store(path, backend, image_shape=None) as store:
        store.write_many(images, range(20))
    for batch, labels in DataLoader(StoreDataset(path), 8, collate_fn=collate, num_workers=workers):
        assert isinstance(batch, list)
        for image, label in zip(batch, labels.tolist(), strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), images[label])
    cropped = StoreDataset(path, transform=lambda image: image[:, :4, :6])
    (batch, labels), *_ = DataLoader(cropped, 8, collate_fn=collate, num_workers=0)
    assert batch.shape == (8, 3, 4, 6)


def test_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of docs/recipes.md runs, and resumes at the end of the second epoch."""
    monkeypatch.chdir(tmp_path)
    with storage_impl.create_store("train.lmdb", "lmdb", image_shape=SHAPE) as store:
        store.write_many(images_of(1000), labels_of(1000))
    text = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
    (code,) = re.findall(r"```python torch\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["sampler"].epoch == 2
