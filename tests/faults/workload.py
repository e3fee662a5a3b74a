"""What is done to a store while faults are injected, and what it may hold afterwards.

All of it runs in children of `tool.Server`. `write` marks each call in the log before and
after it, with the length that the store then has: what returned must be there, whole, and
what was under way may be.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import storage_impl
from storage_impl import ImageStore
from tests.samples import images_of, labels_of

from .tool import mark, stop_faults

Shape = tuple[int, int, int] | None  # None: shapes differ


class Variant(NamedTuple):
    """The shape of a store's images, and the options of its backend."""

    shape: Shape
    options: dict[str, Any]


# Of LMDB, records that lie inside a page and records with pages of their own. Of HDF5, so many
# bytes a call that they do not wait in the buffer of a Python file. Of all three, encoded images of
# differing shapes.
VARIANTS: dict[str, tuple[Variant, ...]] = {
    "png": (Variant((20, 20, 3), {}), Variant((40, 40, 3), {}), Variant(None, {})),
    "lmdb": (
        Variant((20, 20, 3), {}),
        Variant((40, 40, 3), {}),
        Variant(None, {"encoding": "png"}),
    ),
    "hdf5": (
        Variant((20, 20, 3), {}),
        Variant((64, 64, 3), {"chunk_images": 2, "gzip_level": 1}),
        Variant(None, {"encoding": "png"}),
    ),
}

# The lengths of the store after each call, and how it is made.
CALLS = (
    (0, "create"),
    (3, "many"),
    (4, "one"),
    (4, "reopen"),
    (9, "generator"),
    (10, "one"),
    (13, "many"),
    (13, "close"),
)
LAST = CALLS[-1][0]


class Known(NamedTuple):
    """What is known of a store from the marks of a job that was cut short.

    Attributes
    ----------
    done : int
        The length after the last call that returned; -1 before the store was created.
    begun : int
        The length when the call under way is done; `done` where none was.
    """

    done: int
    begun: int


def known(marked: list[str]) -> Known:
    """Tell from the marks what may be there."""
    done = begun = -1
    for text in marked:
        word, _, number = text.partition(" ")
        begun = int(number)
        if word == "done":
            done = begun
    return Known(done, begun)


def write(path: Path, backend: str, variant: Variant, durable: bool) -> None:
    """Make all the calls, each between two marks."""
    store: ImageStore | None = None
    for length, kind in CALLS:
        mark(f"begin {length}")
        store = _call(store, path, backend, variant, durable, length, kind)
        mark(f"done {length}")


def _call(
    store: ImageStore | None,
    path: Path,
    backend: str,
    variant: Variant,
    durable: bool,
    length: int,
    kind: str,
) -> ImageStore:
    if store is None:
        return storage_impl.create_store(
            path, backend, image_shape=variant.shape, durable=durable, **variant.options
        )
    shape = variant.shape
    first = len(store)
    images, labels = images_of(length - first, shape, first), labels_of(length - first, first)
    if kind == "reopen":
        store.close()
        return storage_impl.open_store(path, "a")
    if kind == "close":
        store.close()
    elif kind == "one":
        store.write_one(images[0], labels[0])
    elif kind == "generator":
        store.write_many(iter(images), (int(label) for label in labels))
    else:
        store.write_many(images, labels)
    return store


def write_and_retry(
    path: Path,
    backend: str,
    variant: Variant,
    durable: bool,
    ballast: Path | None = None,
    in_doubt: bool = False,
) -> list[str]:
    """Make all the calls; where one fails, look at the store, end the fault and call again.

    Parameters
    ----------
    path : Path
        Where to create the store.
    backend : str
        Of which backend.
    variant : Variant
        Its shape and options.
    durable : bool
        Whether it is durable.
    ballast : Path, optional
        What fills the disk: the fault ends when it is removed. Without it, the job's own.
    in_doubt : bool, optional
        Whether the fault also keeps a store from taking back a commit that failed to be
        synced: readers may see that call until the next.

    Returns
    -------
    list of str
        What was not as promised.
    """
    store: ImageStore | None = None
    wrong: list[str] = []
    previous = -1
    for length, kind in CALLS:
        before = store
        try:
            store = _call(before, path, backend, variant, durable, length, kind)
        except Exception as error:
            if not isinstance(error, storage_impl.StorageError):
                wrong.append(f"{kind}: untyped {error!r}")
            elif error.__cause__ is None or getattr(error, "errno", None) is None:
                wrong.append(f"{kind}: {error!r} has lost its cause or errno")
            if ballast is None:
                stop_faults()
            else:
                ballast.unlink()
            if before is not None:
                if not before.closed:
                    wrong += [f"{kind}: {text}" for text in _differences(before, previous)]
                with storage_impl.open_store(path, verify=True) as reader:
                    expected = length if in_doubt and len(reader) == length else previous
                    wrong += [f"reader after {kind}: {t}" for t in _differences(reader, expected)]
            if before is not None and before.closed:
                store = storage_impl.open_store(path, "a")
            else:
                store = _call(before, path, backend, variant, durable, length, kind)
        previous = length
    assert store is not None
    store.close()
    return wrong


def _differences(store: ImageStore, length: int) -> Iterator[str]:
    if len(store) != length:
        yield f"{len(store)} images instead of {length}"
    elif not same(*store.read_many(), store.image_shape):
        yield "wrong pixels or labels"


def same(images: Any, labels: NDArray[np.int64], shape: Shape, first: int = 0) -> bool:
    """Whether these are the sample images from `first` on."""
    return np.array_equal(labels, labels_of(len(images), first)) and all(
        map(np.array_equal, images, images_of(len(images), shape, first))
    )


def check(path: Path, backend: str, variant: Variant, state: Known) -> None:
    """Assert that a store is as promised after a fault, and that it can be written to."""
    allowed = {state.done, state.begun}
    shape, options = variant
    try:
        with storage_impl.open_store(path, verify=True) as store:
            length = len(store)
            assert length in allowed, f"{length} images, allowed are {sorted(allowed)}"
            assert same(*store.read_many(), shape), "wrong pixels or labels"
            assert np.array_equal(store.read_labels(), labels_of(length)), "wrong labels"
            store.verify()
        writer = storage_impl.open_store(path, "a")
    except storage_impl.StoreNotFoundError:
        assert state.done == -1, f"no store, although {state.done} images were written"
        writer = storage_impl.create_store(path, backend, image_shape=shape, **options)
        length = 0
    with writer:
        assert writer.write_one(images_of(1, shape, length)[0], labels_of(1, length)[0]) == length
        writer.write_many(images_of(4, shape, length + 1), labels_of(4, length + 1))
    with storage_impl.open_store(path) as store:
        assert len(store) == length + 5, f"{len(store)} images after an append of 5 to {length}"
        assert same(*store.read_many(), shape), "wrong pixels or labels after an append"
        store.verify()
    names = os.listdir(path.parent)
    assert names == [path.name], f"left behind: {names}"
