"""CIFAR-10 in the python format it is published in."""

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
    """The training images of CIFAR-10, from the files ``data_batch_*`` in their order.

    The files are pickles. They are read without executing anything, importing anything or
    taking more memory than a few times their length, whatever they hold.

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
            f"{directory} has no CIFAR-10 batch; accepted is the unpacked cifar-10-python.tar.gz, "
            "with data_batch_1, data_batch_2, ..."
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
    """Return the batches in the order of their numbers; none where it is no CIFAR-10."""
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
    except Exception as error:  # what a damaged pickle raises is not a closed list
        raise ValueError(
            f"{path} is not a CIFAR-10 python batch: {error}. Accepted are the files data_batch_1 "
            "to data_batch_5 of cifar-10-python.tar.gz as published."
        ) from error


def _checked(batch: Any) -> tuple[Images, Labels]:
    if not isinstance(batch, dict):
        raise pickle.UnpicklingError(f"it holds a {type(batch).__name__}, not a dict")
    pixels, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(pixels, _Pixels) or pixels.raw is None:
        raise pickle.UnpicklingError("it has no pixels under 'data'")
    if not isinstance(labels, list) or len(labels) * 3072 != len(pixels.raw):
        raise pickle.UnpicklingError("it has no list of one label an image under 'labels'")
    if not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise pickle.UnpicklingError("it has labels that are not integers 0 to 9")
    planes = np.frombuffer(pixels.raw, np.uint8).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, np.int64)


# The opcodes of the published files. Those of the first group come once an image or more
# often; of the others there are at most 6, and a handful is all that is let through, which
# leaves no room for nesting that exhausts stack or time.
_MANY = re.compile("MARK|APPENDS?|BININT1|SHORT_BINSTRING|(LONG_)?BIN(PUT|GET)")
_FEW = re.compile(
    "PROTO|EMPTY_(DICT|LIST)|BINSTRING|BININT2?|NONE|NEWFALSE|TUPLE[123]?|GLOBAL|REDUCE|BUILD"
    "|SETITEMS?|STOP"
)
_HANDFUL = 8


def _scan(data: bytes) -> None:
    """Refuse a pickle with other opcodes than a batch has, before any of it is acted on."""
    seen: Counter[str] = Counter()
    for number, (opcode, argument, position) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if not _MANY.fullmatch(name):
            seen[name] += 1
            if not _FEW.fullmatch(name) or seen[name] > _HANDFUL:
                raise pickle.UnpicklingError(f"{name} at byte {position} is not of the format")
        # The unpickler's memo grows as long as the largest number put into it.
        if name == "LONG_BINPUT" and int(argument or 0) > number:
            raise pickle.UnpicklingError(f"memo number {argument} at byte {position} is too large")


class _Unpickler(pickle.Unpickler):
    """Admits the three globals of the format, as stand-ins that only check what they are given."""

    def find_class(self, module: str, name: str) -> object:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is not of the format"
            ) from None


class _Pixels:
    """Stands for the array of a batch: the bytes of its (n, 3072) uint8, n > 0."""

    __slots__ = ("raw",)

    def __init__(self) -> None:
        self.raw: bytes | None = None

    def __setstate__(self, state: Any) -> None:
        version, (rows, columns), dtype, fortran, raw = state
        right = (version, columns, dtype, fortran) == (1, 3072, _DTYPE, False)
        # Nothing is computed from `rows`, which may be anything.
        if not right or type(raw) is not bytes or not raw or divmod(len(raw), 3072) != (rows, 0):
            raise pickle.UnpicklingError("its array is not of uint8 and shape (n, 3072)")
        self.raw = raw


class _Reconstruct:
    """Stands for ``numpy.core.multiarray._reconstruct``."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> _Pixels:
        if arguments != (_NDARRAY, (0,), b"b"):
            raise pickle.UnpicklingError("it makes an array in another way than the format")
        return _Pixels()


class _Dtype:
    """Stands for ``numpy.dtype`` and for the one dtype of the format."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> _Dtype:
        if arguments != (b"u1", 0, 1):
            raise pickle.UnpicklingError("its array is not of uint8")
        return self

    def __setstate__(self, state: Any) -> None:
        if state != (3, b"|", None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("its array is not of plain uint8")


_NDARRAY = object()
_DTYPE = _Dtype()
_GLOBALS: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
}
