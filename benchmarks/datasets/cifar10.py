"""CIFAR-10 in its published python format."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets._images import Images, Labels


def read(directory: Path, *, limit: int | None = None) -> tuple[Images, Labels]:
    """Return the training images of CIFAR-10, from the files ``data_batch_*`` in their order.

    The files are pickles. Whatever they hold, reading them executes nothing, imports nothing and
    takes at most a few times their length in memory.

    Parameters
    ----------
    directory : Path
        The directory with the batches, or the one above it that holds ``cifar-10-batches-py``.
    limit : int, optional
        Read no more images than this.

    Returns
    -------
    images : ndarray of uint8, shape (n, 32, 32, 3)
    labels : ndarray of int64, shape (n,)

    Raises
    ------
    FileNotFoundError
        There is no batch.
    ValueError
        A file is not in the format.
    """
    files = batch_files(directory)
    if not files:
        raise FileNotFoundError(
            f"{directory} has no CIFAR-10 batch: unpack cifar-10-python.tar.gz there, which has "
            "data_batch_1, data_batch_2, ..."
        )
    images: list[Images] = []
    labels: list[Labels] = []
    for path in files:
        batch = _batch(path)
        images.append(batch[0])
        labels.append(batch[1])
        if limit is not None and sum(map(len, labels)) >= limit:
            break
    return np.concatenate(images)[:limit], np.concatenate(labels)[:limit]


def batch_files(directory: Path) -> list[Path]:
    """Return the batches in the order of their numbers; none if the directory is not CIFAR-10."""
    for place in (directory, directory / "cifar-10-batches-py"):
        files = [path for path in place.glob("data_batch_*") if path.is_file()]
        files = [path for path in files if re.fullmatch(r"data_batch_\d+", path.name)]
        if files:
            return sorted(files, key=lambda path: int(path.name.rpartition("_")[2]))
    return []


def _batch(path: Path) -> tuple[Images, Labels]:
    data = path.read_bytes()
    try:
        _scan(data)
        # Python 2 wrote these files: their strings are bytes.
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        return _checked(batch)
    except Exception as error:  # a damaged pickle may raise any exception
        raise ValueError(
            f"{path} is not a CIFAR-10 python batch: {error}. Use the files data_batch_1 to "
            "data_batch_5 of cifar-10-python.tar.gz as published."
        ) from error


def _checked(batch: Any) -> tuple[Images, Labels]:
    if not isinstance(batch, dict):
        raise pickle.UnpicklingError(f"it holds a {type(batch).__name__}, not a dict")
    pixels, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(pixels, _Pixels) or pixels.raw is None:
        raise pickle.UnpicklingError("it has no pixels under 'data'")
    if not isinstance(labels, list) or len(labels) * 3072 != len(pixels.raw):
        raise pickle.UnpicklingError("it has no list of one label per image under 'labels'")
    if not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise pickle.UnpicklingError("it has labels that are not integers 0 to 9")
    planes = np.frombuffer(pixels.raw, np.uint8).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, np.int64)


# The opcodes of the published files. Opcodes of the first group occur once per image or more often.
# Each of the others occurs at most 6 times, and at most 8 times are accepted. This leaves no room
# for nesting that exhausts the stack or takes too long.
_MANY = re.compile("MARK|APPENDS?|BININT1|SHORT_BINSTRING|(LONG_)?BIN(PUT|GET)")
_FEW = re.compile(
    "PROTO|EMPTY_(DICT|LIST)|BINSTRING|BININT2?|NONE|NEWFALSE|TUPLE[123]?|GLOBAL|REDUCE|BUILD"
    "|SETITEMS?|STOP"
)
_HANDFUL = 8


def _scan(data: bytes) -> None:
    """Refuse a pickle with opcodes that a batch does not have, before any is executed."""
    seen: Counter[str] = Counter()
    for number, (opcode, argument, position) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if not _MANY.fullmatch(name):
            seen[name] += 1
            if not _FEW.fullmatch(name) or seen[name] > _HANDFUL:
                raise pickle.UnpicklingError(f"{name} at byte {position} is not part of the format")
        # The unpickler's memo grows as long as the largest number put into it.
        if name == "LONG_BINPUT" and int(argument or 0) > number:
            raise pickle.UnpicklingError(f"memo number {argument} at byte {position} is too large")


class _Unpickler(pickle.Unpickler):
    """Accepts the three globals of the format, as stand-ins that only check their arguments."""

    def find_class(self, module: str, name: str) -> object:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is not part of the format"
            ) from None


class _Pixels:
    """Stands in for the array of a batch: the bytes of a uint8 array of (n, 3072), n > 0."""

    __slots__ = ("raw",)

    def __init__(self) -> None:
        self.raw: bytes | None = None

    def __setstate__(self, state: Any) -> None:
        version, (rows, columns), dtype, fortran, raw = state
        right = (version, columns, dtype, fortran) == (1, 3072, _DTYPE, False)
        # Nothing is computed from `rows`, which may be anything.
        if not right or type(raw) is not bytes or not raw or divmod(len(raw), 3072) != (rows, 0):
            raise pickle.UnpicklingError("its array is not uint8 of shape (n, 3072)")
        self.raw = raw


class _Reconstruct:
    """Stands in for ``numpy.core.multiarray._reconstruct``."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> _Pixels:
        if arguments != (_NDARRAY, (0,), b"b"):
            raise pickle.UnpicklingError("it makes its array in another way than the format")
        return _Pixels()


class _Dtype:
    """Stands in for ``numpy.dtype`` and for the one dtype of the format."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> _Dtype:
        if arguments != (b"u1", 0, 1):
            raise pickle.UnpicklingError("its array is not uint8")
        return self

    def __setstate__(self, state: Any) -> None:
        if state != (3, b"|", None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("its array is not plain uint8")


_NDARRAY = object()
_DTYPE = _Dtype()
_GLOBALS: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
}
