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
from tests.samples import Shape, files_of, images_of, labels_of

from .tool import mark, stop_faults


class Variant(NamedTuple):
    """The shape of a store's images, and the options of its backend."""

    shape: Shape
    options: dict[str, Any]

    @property
    def encoding(self) -> str:
        """That of its images: "raw" where none is named, though the backend may be PNG."""
        return str(self.options.get("encoding", "raw"))

    def images(self, count: int, first: int = 0) -> Any:
        """The sample images that are written to it, and read."""
        return images_of(count, self.shape, first, self.encoding)

    def create(self, path: Path, backend: str, durable: bool = True) -> ImageStore:
        """Make a store of it."""
        return storage_impl.create_store(
            path, backend, image_shape=self.shape, durable=durable, **self.options
        )

    def write(self, store: ImageStore, count: int, lazily: bool = False) -> None:
        """Append sample images in one call, as files where the store takes nothing else."""
        first = len(store)
        labels = labels_of(count, first)
        mixed = self.encoding == "mixed"
        given = files_of(count, first) if mixed else self.images(count, first)
        write = store.write_encoded if mixed else store.write_many
        if lazily:
            write(iter(given), (int(label) for label in labels))
        else:
            write(given, labels)

    def write_one(self, store: ImageStore) -> None:
        """Append one sample image."""
        first = len(store)
        label = labels_of(1, first)[0]
        if self.encoding == "mixed":
            added = store.write_encoded(files_of(1, first)[0], label)
            assert added == range(first, first + 1)
        else:
            assert store.write_one(self.images(1, first)[0], label) == first


# Of LMDB, records that lie inside a page and records with pages of their own. Of HDF5, so many
# bytes a call that they do not wait in the buffer of a Python file. Of all three, images of
# differing shapes, in each encoding that the backend has.
ENCODED = tuple(Variant(None, {"encoding": name}) for name in ("png", "jpeg", "webp", "mixed"))
VARIANTS: dict[str, tuple[Variant, ...]] = {
    "png": (Variant((20, 20, 3), {}), Variant((40, 40, 3), {}), Variant(None, {})),
    "lmdb": (Variant((20, 20, 3), {}), Variant((40, 40, 3), {}), *ENCODED),
    "hdf5": (
        Variant((20, 20, 3), {}),
        Variant((64, 64, 3), {"chunk_images": 2, "gzip_level": 1}),
        *ENCODED,
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
        return variant.create(path, backend, durable)
    if kind == "reopen":
        store.close()
        return storage_impl.open_store(path, "a")
    if kind == "close":
        store.close()
    elif kind == "one":
        variant.write_one(store)
    else:
        variant.write(store, length - len(store), lazily=kind == "generator")
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
                    wrong += [f"{kind}: {text}" for text in _differences(before, variant, previous)]
                with storage_impl.open_store(path, verify=True) as reader:
                    expected = length if in_doubt and len(reader) == length else previous
                    found = _differences(reader, variant, expected)
                    wrong += [f"reader after {kind}: {text}" for text in found]
            if before is not None and before.closed:
                store = storage_impl.open_store(path, "a")
            else:
                store = _call(before, path, backend, variant, durable, length, kind)
        previous = length
    assert store is not None
    store.close()
    return wrong


def _differences(store: ImageStore, variant: Variant, length: int) -> Iterator[str]:
    if len(store) != length:
        yield f"{len(store)} images instead of {length}"
    elif not same(*store.read_many(), variant):
        yield "wrong pixels or labels"


def same(images: Any, labels: NDArray[np.int64], variant: Variant, first: int = 0) -> bool:
    """Whether these are the sample images from `first` on."""
    return np.array_equal(labels, labels_of(len(images), first)) and all(
        map(np.array_equal, images, variant.images(len(images), first))
    )


def check(path: Path, backend: str, variant: Variant, state: Known) -> None:
    """Assert that a store is as promised after a fault, and that it can be written to."""
    allowed = {state.done, state.begun}
    try:
        with storage_impl.open_store(path, verify=True) as store:
            length = len(store)
            assert length in allowed, f"{length} images, allowed are {sorted(allowed)}"
            assert same(*store.read_many(), variant), "wrong pixels or labels"
            assert np.array_equal(store.read_labels(), labels_of(length)), "wrong labels"
            store.verify()
        writer = storage_impl.open_store(path, "a")
    except storage_impl.StoreNotFoundError:
        assert state.done == -1, f"no store, although {state.done} images were written"
        writer = variant.create(path, backend)
        length = 0
    with writer:
        variant.write_one(writer)
        variant.write(writer, 4)
    with storage_impl.open_store(path) as store:
        assert len(store) == length + 5, f"{len(store)} images after an append of 5 to {length}"
        assert same(*store.read_many(), variant), "wrong pixels or labels after an append"
        store.verify()
    names = os.listdir(path.parent)
    assert names == [path.name], f"left behind: {names}"
