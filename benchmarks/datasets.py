"""Where the images come from that the benchmarks store.

The environment variable ``STORAGE_IMPL_DATASET`` chooses:

- unset or empty: :func:`synthetic` images, made on the spot, the same everywhere;
- the absolute path of a directory with the batches of CIFAR-10 in its published
  python format, or of the directory above it: :func:`cifar10`;
- the absolute path of any other directory: :func:`folder`, its images.

Nothing here knows of ``storage_impl``: the data is the same for every commit measured.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
import pickletools
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["VARIABLE", "cifar10", "describe", "folder", "load", "synthetic"]

VARIABLE = "STORAGE_IMPL_DATASET"

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

_ACCEPTED = (
    f"{VARIABLE} accepts the absolute path of a directory: one with CIFAR-10's data_batch_1, "
    "data_batch_2, ..., or one of images, whose subfolders, if any, are the labels. "
    "Unset, it means synthetic images"
)


def load(count: int, size: int = 32) -> tuple[Images, Labels]:
    """Images and labels of the dataset that ``STORAGE_IMPL_DATASET`` chooses.

    Image ``i`` is the same whatever `count` is. Where more are asked for than there
    are, they are repeated from the first one on.

    Parameters
    ----------
    count : int
        How many images, 0 or more.
    size : int
        Their height and width in pixels, 1 or more. Images of another size are resized.

    Returns
    -------
    images : ndarray of uint8, shape (count, size, size, 3)
    labels : ndarray of int64, shape (count,)

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        The path does not exist, or is a file.
    ValueError
        The path is relative, or what it holds cannot be read as images.
    """
    _check(count, size)
    kind, path = _chosen()
    if kind == "synthetic":
        return synthetic(count, size)
    if kind == "cifar10":
        images, labels = cifar10(path, limit=count)
        if size != 32:
            pictures = (Image.fromarray(image) for image in images)
            images = _stacked([_square(picture, size) for picture in pictures], size)
    else:
        images, labels = folder(path, size, limit=count)
    if len(images) < count:
        cycle = np.arange(count) % len(images)
        return images[cycle], labels[cycle]
    return images, labels


def describe() -> str:
    """One line that names the dataset in use, for reports.

    It gives the directory's name without its path, since reports are published.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ValueError
        As :func:`load` does, where it shows without reading the images.
    """
    kind, path = _chosen()
    if kind == "synthetic":
        return "synthetic images with the statistics of CIFAR-10"
    if kind == "cifar10":
        return f"CIFAR-10, {len(_batch_files(path))} batches in {path.name}"
    files = _image_files(path)
    labels = len({label for _, label in files})
    noun = "label" if labels == 1 else "labels"
    return f"{len(files):,} images with {labels:,} {noun} in {path.name}"


def _check(count: int, size: int) -> None:
    if count < 0:
        raise ValueError(f"count must be 0 or more, not {count}")
    if size < 1:
        raise ValueError(f"size must be 1 pixel or more, not {size}")


def _chosen() -> tuple[Literal["synthetic", "cifar10", "folder"], Path]:
    """What kind of dataset ``STORAGE_IMPL_DATASET`` names, and where it is."""
    value = os.environ.get(VARIABLE, "")
    if not value:
        return "synthetic", Path()
    path = Path(value)
    if not path.is_absolute():
        # asv runs benchmarks in a temporary directory: a relative path would mean
        # another place there than where it was typed.
        raise ValueError(f"{VARIABLE} is {value!r}, a relative path. {_ACCEPTED}.")
    if not path.exists():
        raise FileNotFoundError(f"{VARIABLE} is {value!r}, which does not exist. {_ACCEPTED}.")
    if not path.is_dir():
        raise NotADirectoryError(
            f"{VARIABLE} is {value!r}, which is no directory (an archive must be unpacked). "
            f"{_ACCEPTED}."
        )
    return ("cifar10" if _batch_files(path) else "folder"), path


# --- Synthetic images ---------------------------------------------------------------------
#
# Noise in octaves: a grid of 1 x 1 is doubled and given finer noise until it has the size
# asked for. Integers only, drawn from the raw stream of a bit generator: both are the same
# on every platform and in every version of numpy, which normal deviates and Fourier
# transforms are not.
#
# Lengths of brightness are in 1/64 of a grey level.

_UNIT = 64
# Greatest brightness that the noise of each octave adds, in grey levels, before the factors
# of each image; octaves after the last listed have 5/8 of the one before. Chosen, as the
# numbers below are, by search for the statistics of CIFAR-10.
_OCTAVES = (24, 112, 104, 84, 22)
# The range of two factors of each image, in 1/256: contrast, for all octaves but the first
# (which is the image's mean), and detail, for the fine ones.
_CONTRAST = (40, 288)
_DETAIL = (16, 528)
_FIRST_DETAIL = 4
# Texture differs within an image: from this octave's grid on, noise is weakened by place to
# as little as 16/256 of its most.
_TEXTURE_GRID = 2
_LEAST_TEXTURE = 16
# Rows: red, green, blue. Columns: their mean; then the weights, in 1/64, of three independent
# fields: the principal components of CIFAR-10's colours.
_COLOURS = ((126, 62, 22, 6), (124, 64, 1, -12), (114, 66, -22, 6))


def synthetic(count: int, size: int = 32, *, seed: int = 0) -> tuple[Images, Labels]:
    """Images of random texture with the statistics of CIFAR-10, and random labels 0 to 9.

    At 32 pixels they agree with CIFAR-10 in the mean and the spread of their size as PNG
    and in the mean, deviation and correlation of their channels; the mean difference of
    neighbouring pixels is 7% less. Larger ones have finer detail that is fainter, as
    photographs do.

    They are bit for bit the same for the same `size` and `seed` on every platform and with
    every version of numpy, and image ``i`` is the same whatever `count` is.

    Parameters
    ----------
    count : int
        How many images, 0 or more.
    size : int
        Their height and width in pixels, 1 or more.
    seed : int
        0 or more.

    Returns
    -------
    images : ndarray of uint8, shape (count, size, size, 3)
    labels : ndarray of int64, shape (count,)

    Raises
    ------
    ValueError
        `count`, `size` or `seed` is out of range.
    """
    _check(count, size)
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}")
    # Many at a time, so that numpy is quick, but within about 100 MB up to 512 pixels.
    block = min(128, max(1, 2**20 // size**2))
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.empty(count, np.int64)
    for start in range(0, count, block):
        noise = _Noise(np.random.PCG64(np.random.SeedSequence([seed, size, start // block])))
        stop = min(start + block, count)
        labels[start:stop] = (noise.draw(block) * 10 >> 8)[: stop - start]
        images[start:stop] = _textures(noise, size, block)[: stop - start]
    return images, labels


class _Noise:
    """Uniform bytes from the raw stream of a bit generator."""

    def __init__(self, generator: np.random.PCG64) -> None:
        self._generator = generator

    def draw(self, *shape: int) -> NDArray[np.int32]:
        """An array of `shape` of integers 0 to 255."""
        length = int(np.prod(shape))
        words = np.asarray(self._generator.random_raw(-(-length // 8)), "<u8")
        return words.view(np.uint8)[:length].reshape(shape).astype(np.int32)


def _textures(noise: _Noise, size: int, number: int) -> Images:
    """`number` images; arrays are (height, width, field, image) until the end.

    The last axes are those that every operation treats alike: numpy is at its best so.
    """
    sides = [size]
    while sides[0] > 1:
        sides.insert(0, (sides[0] + 1) // 2)

    low, high = _CONTRAST
    # The product of two bytes is mostly small, so few images are flat, as in CIFAR-10.
    contrast = low + ((high - low) * (255 - (noise.draw(number) * noise.draw(number) >> 8)) >> 8)
    low, high = _DETAIL
    detail = low + ((high - low) * noise.draw(number) >> 8)

    peak = _UNIT * _OCTAVES[0]
    fields = (2 * noise.draw(1, 1, 3, number) - 255) * peak >> 8
    texture = np.empty(0, np.int32)
    for octave, side in enumerate(sides[1:], start=1):
        peak = _UNIT * _OCTAVES[octave] if octave < len(_OCTAVES) else peak * 5 >> 3
        weight = peak * contrast >> 8
        if octave >= _FIRST_DETAIL:
            weight = weight * detail >> 8
        if octave == _TEXTURE_GRID:
            span = 256 - _LEAST_TEXTURE
            texture = _LEAST_TEXTURE + (noise.draw(side, side, 1, number) * span >> 8)
        elif octave > _TEXTURE_GRID:
            texture = _doubled(texture)[:side, :side]
            weight = texture * weight >> 7
        grain = 2 * noise.draw(side, side, 3, number) - 255
        grain *= weight
        grain >>= 8
        grain += _doubled(fields)[:side, :side]
        fields = grain

    images = np.empty((number, size, size, 3), np.uint8)
    first, second, third = fields.transpose(2, 0, 1, 3)
    for channel, (mean, *weights) in enumerate(_COLOURS):
        mixed = first * weights[0] + second * weights[1] + third * weights[2]
        levels = (mixed // 64 + mean * _UNIT) // _UNIT
        images[..., channel] = np.clip(levels, 0, 255).transpose(2, 0, 1)
    return images


def _doubled(fields: NDArray[np.int32]) -> NDArray[np.int32]:
    """`fields` at twice the height and width, each value 3/4 of the near and 1/4 of the next."""
    for _ in range(2):
        edged = np.concatenate((fields[:1], fields, fields[-1:]))
        near = fields * 3
        wide = np.empty((2 * len(fields), *fields.shape[1:]), np.int32)
        wide[0::2] = (near + edged[:-2]) >> 2
        wide[1::2] = (near + edged[2:]) >> 2
        fields = wide.swapaxes(0, 1)
    return fields


# --- CIFAR-10 in its python format ----------------------------------------------------------


def cifar10(directory: Path, *, limit: int | None = None) -> tuple[Images, Labels]:
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
    files = _batch_files(directory)
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


def _batch_files(directory: Path) -> list[Path]:
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


# --- A folder of images ---------------------------------------------------------------------

# Opened by Pillow, but not as pictures that it can decode by itself: EPS is run by Ghostscript,
# the others need a handler that Pillow does not bring.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


def folder(directory: Path, size: int = 32, *, limit: int | None = None) -> tuple[Images, Labels]:
    """The images below a directory, cropped to a square about their centre and resized.

    Where the directory has subfolders with images, these are the labels, numbered from 0 in
    the order of their names; images may lie at any depth below them. Otherwise its images
    have label 0. The images come in an order mixed by the checksum of their names, so that
    the first few are a sample of all labels.

    Images are the files with an extension of a format that Pillow decodes (EPS excluded:
    Ghostscript would run it). Other files are ignored, and all whose name, or whose folder's
    name, starts with a dot. Of an animation the first picture counts, transparency is dropped,
    and grey of 16 bits keeps the high 8.

    Parameters
    ----------
    directory : Path
        Where the images are.
    size : int
        Height and width of the result in pixels, 1 or more.
    limit : int, optional
        Read no more images than this.

    Returns
    -------
    images : ndarray of uint8, shape (n, size, size, 3)
    labels : ndarray of int64, shape (n,)

    Raises
    ------
    ValueError
        There is no image, there are some both beside the subfolders and in them, or one cannot
        be read: the message names it.
    """
    files = _image_files(directory)[:limit]
    images = _stacked([_picture(path, size) for path, _ in files], size)
    return images, np.array([label for _, label in files], np.int64)


def _image_files(directory: Path) -> list[tuple[Path, int]]:
    """The image files below `directory` with their labels, in the order they are used."""
    visible = [path for path in directory.iterdir() if not path.name.startswith(".")]
    loose = [path for path in visible if not path.is_dir() and _is_image(path.name)]
    below = (_images_below(path) for path in sorted(visible) if path.is_dir())
    labelled = [files for files in below if files]
    if loose and labelled:
        raise ValueError(
            f"{directory} holds images ({min(loose).name}, ...) beside subfolders with images; "
            "accepted are images in subfolders, which are their labels, or no such subfolders"
        )
    if not loose and not labelled:
        raise ValueError(
            f"{directory} holds no image in a format that Pillow decodes (by extension: .png, "
            f".jpg, ...) and no data_batch_1 of CIFAR-10. {_ACCEPTED}."
        )
    found = [(path, label) for label, files in enumerate(labelled or [loose]) for path in files]

    def mixed(item: tuple[Path, int]) -> tuple[int, str]:
        name = item[0].relative_to(directory).as_posix()
        return zlib.crc32(os.fsencode(name)), name

    return sorted(found, key=mixed)


def _images_below(directory: Path) -> list[Path]:
    found = []
    for place, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if _is_image(name)]
    return found


def _is_image(name: str) -> bool:
    kind = Image.registered_extensions().get(Path(name).suffix.lower())
    # Pillow opens MPO, a JPEG with more pictures after it, as JPEG.
    return not name.startswith(".") and (kind == "MPO" or kind in _decoded())


@functools.cache
def _decoded() -> tuple[str, ...]:
    Image.init()
    return tuple(kind for kind in Image.ID if kind not in _NOT_DECODED)


def _picture(path: Path, size: int) -> Images:
    try:
        if not path.is_file():  # a FIFO would block, for ever
            raise ValueError("it is not a regular file")
        with Image.open(path, formats=_decoded()) as picture:
            # Of a large JPEG only what the resizing needs is decoded.
            picture.draft("RGB", (2 * size, 2 * size))
            return _square(_rgb(picture), size)
    except Exception as error:  # what Pillow raises for a damaged file is not a closed list
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _rgb(picture: Image.Image) -> Image.Image:
    """`picture` in 8-bit RGB."""
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers; accepted are integers")
    if picture.mode.startswith("I"):
        # Pillow itself would clip these to 255.
        deep = np.asarray(picture)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError("its pixels have more than 16 bits")
        picture = Image.fromarray((deep >> 8).astype(np.uint8))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # straight to RGB, Pillow warns
    return picture.convert("RGB")


def _square(picture: Image.Image, size: int) -> Images:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=box))


def _stacked(images: list[Images], size: int) -> Images:
    return np.array(images, np.uint8).reshape(-1, size, size, 3)
