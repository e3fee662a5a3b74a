"""A store in the workers of a process pool, however they are started."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

import storage_impl
from storage_impl import ImageStore
from tests.samples import images_of, labels_of

from .tally import FULL, Tally
from .workload import Variant, same

SHAPE = (12, 12, 3)
COUNT = 200
WORKERS = 4 if FULL else 2

_inherited: list[ImageStore] = []


def take(store: ImageStore) -> None:
    """Keep the store of a worker."""
    _inherited.append(store)


def read(first: int) -> bool:
    """Whether a worker reads the right images, at once and one by one."""
    store = _inherited[-1]
    images, labels = store.read_many(slice(first, first + 10))
    one, label = store.read_one(first)
    return bool(
        len(images) == 10
        and same(images, labels, Variant(SHAPE, {}), first)
        and label == labels[0]
        and (one == images[0]).all()
    )


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pool(tmp_path: Path, backend: str, tally: Tally, method: str) -> None:
    """Workers and their parent read at once, from one store opened before they started."""
    path = tmp_path / "store"
    with storage_impl.create_store(path, backend, image_shape=SHAPE, durable=False) as store:
        store.write_many(images_of(COUNT, SHAPE), labels_of(COUNT))
    context: Any = multiprocessing.get_context(method)
    with storage_impl.open_store(path) as store:
        assert store.read_one(0)[1] == labels_of(1)[0]  # its handles are open now
        with context.Pool(WORKERS, initializer=take, initargs=(store,)) as pool:
            firsts = [n % (COUNT - 10) for n in range(0, 20_000 if FULL else 400, 7)]
            results = pool.imap(read, firsts, chunksize=5)
            for first, right in zip(firsts, results, strict=True):
                images, labels = store.read_many(slice(first, first + 10))
                right = right and same(images, labels, Variant(SHAPE, {}), first)
                tally.add(None if right else f"{method}: wrong images from {first} on", tried=20)
            pool.close()
            pool.join()
    tally.check()
