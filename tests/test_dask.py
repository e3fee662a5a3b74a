"""Datasets written by a Dask cluster; collected where Dask is installed (`tox run -e loaders`)."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

import storage_impl
from storage_impl import shards
from tests.parts import Part, parts_of
from tests.samples import SHAPE, images_of, labels_of

SIZES = (40,) * 8
COUNT = sum(SIZES)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of distributed's own sockets
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A cluster of two processes on this machine."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as connected,
    ):
        yield connected


def check(path: Path, backend: str, number: int) -> None:
    """The dataset is there, whole, and nothing is beside it."""
    with storage_impl.open_store(path, verify=True) as store:
        assert isinstance(store, shards.ShardedStore)
        assert (store.backend, len(store.shards)) == (backend, number)
        images, labels = store.read_many()
        assert np.array_equal(images, images_of(COUNT))
        assert np.array_equal(labels, labels_of(COUNT))
        store.verify()
        assert sorted(os.listdir(path)) == sorted([store.fingerprint, "shards.json", "write.lock"])
        assert sorted((path / store.fingerprint).iterdir()) == store.shards


@pytest.mark.parametrize(("backend", "other"), [("png", "lmdb"), ("lmdb", "hdf5"), ("hdf5", "png")])
def test_written_verified_converted(
    client: Client, tmp_path: Path, backend: str, other: str
) -> None:
    """Eight shards, then three of another backend."""
    executor = client.get_executor()
    shards.write_shards(
        tmp_path / "eight", parts_of(SIZES), backend=backend, image_shape=SHAPE, executor=executor
    )
    check(tmp_path / "eight", backend, 8)
    parts = shards.split(tmp_path / "eight", 3)
    shards.write_shards(
        tmp_path / "three", parts, backend=other, image_shape=SHAPE, executor=executor
    )
    check(tmp_path / "three", other, 3)


class DiesOnce(Part):
    """A part whose worker is killed in the midst of it, the first time."""

    def __iter__(self) -> Iterator[shards.Item]:
        for number, item in enumerate(super().__iter__()):
            if number == 20 and not os.path.exists(self.options["died"]):
                Path(self.options["died"]).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield item


def test_worker_killed(client: Client, tmp_path: Path) -> None:
    """Dask runs the part again on another worker: the dataset is right, nothing is left over."""
    died = tmp_path / "died"
    parts: list[Part] = parts_of(SIZES)
    parts[3] = DiesOnce(120, 40, died=str(died))
    path = tmp_path / "data" / "train"
    path.parent.mkdir()
    executor = client.get_executor()
    shards.write_shards(path, parts, backend="hdf5", image_shape=SHAPE, executor=executor)
    assert died.exists()
    check(path, "hdf5", 8)


def test_part_fails(client: Client, tmp_path: Path) -> None:
    """What a part raises on a worker is raised here, and nothing is left."""
    with pytest.raises(KeyError, match="100"):
        shards.write_shards(
            tmp_path / "train",
            parts_of(SIZES, fail=100),
            backend="hdf5",
            image_shape=SHAPE,
            executor=client.get_executor(),
        )
    assert os.listdir(tmp_path) == []


def test_same_call_twice(client: Client, tmp_path: Path) -> None:
    """Dask does not take the shards of a dataset that is gone for those of the next."""
    for _ in range(2):
        shards.write_shards(
            tmp_path / "train",
            parts_of(SIZES),
            backend="hdf5",
            image_shape=SHAPE,
            executor=client.get_executor(),
            fingerprint="May",
        )
        check(tmp_path / "train", "hdf5", 8)
        shutil.rmtree(tmp_path / "train")
