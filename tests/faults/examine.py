"""Look at a store that may be damaged or hostile, in a child with limits."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import storage_impl
from storage_impl import ImageStore, StorageError
from tests.samples import labels_of

from .tool import Server
from .workload import Variant, same

COUNT = 40
LIMITS: dict[str, Any] = {"seconds": 5.0, "memory": 2**28}


def make(path: Path, backend: str, variant: Variant) -> None:
    """Make the store that is damaged: 40 sample images from three calls."""
    with variant.create(path, backend) as store:
        for count in (17, 1, COUNT - 18):
            variant.write(store, count)


def unverified(path: Path, variant: Variant, before: Callable[[Path], None] | None) -> list[str]:
    """Read a store without verifying, and tell what was not as written."""
    if before is not None:
        before(path)
    return _alterations(path, variant)


def examine(
    path: Path, variant: Variant, before: Callable[[Path], None] | None, altered: list[str]
) -> list[str]:
    """Verify, read and append to a store; typed errors are as it should be.

    Parameters
    ----------
    path : Path
        A store that `make` made and something else changed.
    variant : Variant
        Its shape and options.
    before : callable, optional
        Is called with the path first.
    altered : list of str
        What `verify` has to find.

    Returns
    -------
    list of str
        What was not as promised.
    """
    if before is not None:
        before(path)
    wrong: list[str] = []
    if altered and _succeeds(lambda: verify(path)):
        wrong.append(f"verify() found nothing, but {altered}")
    for what in _wrong_reads(path, variant):
        wrong.append(f"verify=True, but {what}")
    if _succeeds(lambda: _append(path, variant)):
        for what in _wrong_reads(path, variant):
            wrong.append(f"verify=True after an append, but {what}")
    return wrong


def problems(
    server: Server,
    path: Path,
    variant: Variant,
    *,
    strict: bool,
    before: Callable[[Path], None] | None = None,
    root: Path | None = None,
    logs: tuple[Path, Path] | tuple[None, None] = (None, None),
) -> str | None:
    """Read a store in one child, examine it in another, and tell what was not as promised.

    Damage may reach a library that was not asked to verify, and the library may crash on it:
    that counts only if `strict`, as do wrong pixels and labels. `verify` has to find it anyway.
    """
    read = server.run(unverified, path, variant, before, root=root, log=logs[0], **LIMITS)
    altered = [str(read)] if read.signal else read.value
    if altered is None or (strict and altered):
        return f"unverified: {altered or read}"
    outcome = server.run(examine, path, variant, before, altered, root=root, log=logs[1], **LIMITS)
    return None if outcome.value == [] else str(outcome)


def is_sound(path: Path, variant: Variant) -> bool:
    """Whether a store verifies and holds what `make` put there: for trials that must succeed."""
    verify(path)
    with storage_impl.open_store(path, verify=True) as store:
        return len(store) == COUNT and same(*store.read_many(), variant)


def _succeeds(action: Callable[[], object]) -> bool:
    try:
        action()
    except StorageError:
        return False
    return True


def verify(path: Path) -> None:
    """Verify all of a store."""
    with storage_impl.open_store(path) as store:
        store.verify()


def _append(path: Path, variant: Variant) -> None:
    with storage_impl.open_store(path, "a", verify=True) as store:
        variant.write_one(store)
        variant.write(store, 3)


def _alterations(path: Path, variant: Variant) -> list[str]:
    """What a reader that does not verify gets that is not what was written."""
    found: list[str] = []
    try:
        with storage_impl.open_store(path) as store:
            if len(store) != COUNT:
                found.append(f"{len(store)} images")
            for index in range(len(store)):
                try:
                    image, label = store.read_one(index)
                except StorageError:
                    continue
                if not np.array_equal(image, variant.images(1, index)[0]):
                    found.append(f"pixels of image {index}")
                if label != labels_of(1, index)[0]:
                    found.append(f"label of image {index}")
            for read in (lambda: store.read_many(), lambda: store.read_many([5, 3, 39, 3])):
                _succeeds(read)
            if not np.array_equal(store.read_labels(), labels_of(COUNT)):
                found.append("read_labels")
    except StorageError:
        pass
    return found


def _wrong_reads(path: Path, variant: Variant) -> Iterator[str]:
    """What a reader that verifies returns that is not what was written."""
    try:
        store = storage_impl.open_store(path, verify=True)
    except StorageError:
        return
    with store:
        reads: list[tuple[Any, Callable[[Any], Any]]] = [
            (range(len(store)), lambda indices: store.read_many()),
            (np.array([5, 3, 39, 3]), store.read_many),
            (range(len(store))[10:30], lambda indices: store.read_many(slice(10, 30))),
            (range(len(store)), lambda indices: (None, store.read_labels())),
            *((range(i, i + 1), lambda indices: _one(store, indices[0])) for i in range(COUNT)),
        ]
        for indices, read in reads:
            try:
                images, labels = read(indices)
            except StorageError:
                continue
            for place, index in enumerate(indices):
                if images is not None and not np.array_equal(
                    images[place], variant.images(1, index)[0]
                ):
                    yield f"pixels of image {index}"
                if labels[place] != labels_of(1, index)[0]:
                    yield f"label of image {index}"


def _one(store: ImageStore, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    image, label = store.read_one(index)
    return image[np.newaxis], np.array([label])
