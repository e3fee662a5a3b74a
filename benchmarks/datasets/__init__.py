"""The images that the benchmarks store.

The environment variable ``STORAGE_IMPL_DATASET`` chooses them:

- unset or empty: generated images, the same on every machine (:mod:`synthetic`);
- the absolute path of a directory with the batches of CIFAR-10 in its published python format, or
  of the directory above it: these batches (:mod:`cifar10`);
- the absolute path of any other directory: the images in it (:mod:`folder`).

Nothing here uses ``storage_impl``: the images are the same for every commit that is measured.
"""

import io
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.datasets import cifar10, folder, synthetic
from benchmarks.datasets._images import (
    ACCEPTED,
    SKIP_BAD,
    VARIABLE,
    Images,
    Labels,
    check,
    square,
    stacked,
)

__all__ = [
    "VARIABLE",
    "cifar10",
    "decoded",
    "folder",
    "load",
    "originals",
    "photos",
    "survey",
    "synthetic",
]

_SHOWN = 20  # the most unreadable images that are named


def load(count: int, size: int = 32) -> tuple[Images, Labels]:
    """Return images and labels of the dataset that ``STORAGE_IMPL_DATASET`` chooses.

    Image ``i`` is the same whatever `count` is. If `count` is larger than the dataset, the images
    repeat from the first one on.

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
        The path is relative, or its contents cannot be read as images.
    """
    check(count, size)
    kind, path = _chosen()
    if kind == "synthetic":
        return synthetic.make(count, size)
    if kind == "cifar10":
        images, labels = cifar10.read(path, limit=count)
        if size != 32:
            pictures = (Image.fromarray(image) for image in images)
            images = stacked([square(picture, size) for picture in pictures], size)
    else:
        images, labels = folder.read(path, size, limit=count)
    if len(images) < count:
        cycle = np.arange(count) % len(images)
        return images[cycle], labels[cycle]
    return images, labels


def photos(sizes: Sequence[tuple[int, int]]) -> tuple[list[Images], Labels]:
    """Return images of differing sizes of the dataset that ``STORAGE_IMPL_DATASET`` chooses.

    Parameters
    ----------
    sizes : sequence of tuple of int
        The height and width of each image in pixels.

    Returns
    -------
    images : list of ndarray of uint8, shape (height, width, 3)
    labels : ndarray of int64, shape (n,)

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ValueError
        As :func:`load` does.
    """
    kind, _ = _chosen()
    if kind == "synthetic":
        return synthetic.photos(sizes), synthetic.make(len(sizes), 1)[1]
    squares, labels = load(len(sizes), 32 if kind == "cifar10" else max(map(max, sizes)))
    pairs = zip(squares, sizes, strict=True)
    images = [Image.fromarray(image).resize((width, height)) for image, (height, width) in pairs]
    return [np.asarray(image) for image in images], labels


def originals(pixel_bytes: int) -> tuple[list[bytes], Labels]:
    """Return the first PNG, JPEG and WebP files of the folder that is chosen, and their labels.

    Parameters
    ----------
    pixel_bytes : int
        About how many bytes of pixels they have in all.

    Returns
    -------
    files : list of bytes
        Empty if no folder is chosen, or if it has no such files.
    labels : ndarray of int64, shape (n,)

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ValueError
        As :func:`load` does.
    """
    kind, path = _chosen()
    if kind != "folder":
        return [], np.empty(0, np.int64)
    return folder.originals(path, pixel_bytes)


def decoded(data: bytes) -> Images:
    """Return the pixels of a file, with an axis for the channels, as Pillow decodes them."""
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


class Survey(NamedTuple):
    """What the dataset holds.

    Attributes
    ----------
    text : str
        The number of images, their formats, sizes and labels, and the names of unreadable ones.
    usable : bool
        Whether the benchmarks can use it.
    """

    text: str
    usable: bool


def survey(limit: int = 10_000) -> Survey:
    """Describe the dataset that ``STORAGE_IMPL_DATASET`` chooses, before anything is measured.

    Parameters
    ----------
    limit : int
        How many images to read at most. The benchmarks use at most 10,000, or 100,000 on request.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ValueError
        As :func:`load` does.
    """
    kind, path = _chosen()
    if kind == "synthetic":
        return Survey("synthetic images with the statistics of CIFAR-10", usable=True)
    if kind == "cifar10":
        files = cifar10.batch_files(path)
        count = len(cifar10.read(path, limit=limit)[1])
        text = f"CIFAR-10, {_counted(len(files), 'batch', 'es')} in {path.name}, "
        return Survey(f"{text}{_counted(count, 'image')} read", usable=True)
    labelled = folder.image_files(path)
    labels = len({label for _, label in labelled})
    seen = folder.look(path, [file for file, _ in labelled[:limit]])
    bad = [each for each in seen if each.bad]
    lines = [f"{_counted(len(labelled), 'image')} with {_counted(labels, 'label')} in {path.name}"]
    if len(seen) < len(labelled):
        lines.append(f"{len(seen):,} of them were checked: the benchmarks use no more")
    formats = Counter(each.format for each in seen if each.format)
    if formats:
        kinds = ", ".join(f"{count:,} {name}" for name, count in formats.most_common())
        sizes = sorted((each.size for each in seen if each.format), key=math.prod)
        ends = dict.fromkeys((sizes[0], sizes[-1]))
        extent = " to ".join(f"{width:,} x {height:,}" for width, height in ends)
        lines.append(f"{kinds}; {extent} pixels")
    skipped = bool(os.environ.get(SKIP_BAD))
    if bad:
        shown = [f"  {each.name}: {each.bad}" for each in bad[:_SHOWN]]
        if len(bad) > _SHOWN:
            shown.append(f"  and {len(bad) - _SHOWN:,} more")
        advice = f"remove or repair them, or set {SKIP_BAD}=1 to leave them out"
        what = "left out" if skipped else advice
        lines += [f"{_counted(len(bad), 'image')} cannot be read: {what}", *shown]
    return Survey("\n".join(lines), usable=not bad or (skipped and len(bad) < len(seen)))


def _counted(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def _chosen() -> tuple[Literal["synthetic", "cifar10", "folder"], Path]:
    """Return the kind of the dataset that ``STORAGE_IMPL_DATASET`` names, and its path."""
    value = os.environ.get(VARIABLE, "")
    if not value:
        return "synthetic", Path()
    path = Path(value)
    if not path.is_absolute():
        # asv runs the benchmarks in a temporary directory, where a relative path would name another
        # place than in the shell.
        raise ValueError(f"{VARIABLE} is {value!r}, a relative path. {ACCEPTED}.")
    if not path.exists():
        raise FileNotFoundError(f"{VARIABLE} is {value!r}, which does not exist. {ACCEPTED}.")
    if not path.is_dir():
        raise NotADirectoryError(
            f"{VARIABLE} is {value!r}, which is not a directory (an archive must be unpacked). "
            f"{ACCEPTED}."
        )
    return ("cifar10" if cifar10.batch_files(path) else "folder"), path
