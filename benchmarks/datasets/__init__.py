"""Where the images come from that the benchmarks store.

The environment variable ``STORAGE_IMPL_DATASET`` chooses:

- unset or empty: :mod:`synthetic` images, made on the spot, the same everywhere;
- the absolute path of a directory with the batches of CIFAR-10 in its published
  python format, or of the directory above it: :mod:`cifar10`;
- the absolute path of any other directory: :mod:`folder`, its images.

Nothing here knows of ``storage_impl``: the data is the same for every commit measured.
"""

import os
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from benchmarks.datasets import cifar10, folder, synthetic
from benchmarks.datasets._images import ACCEPTED, VARIABLE, Images, Labels, check, square, stacked

__all__ = ["VARIABLE", "cifar10", "describe", "folder", "load", "synthetic"]


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
        return f"CIFAR-10, {len(cifar10.batch_files(path))} batches in {path.name}"
    files = folder.image_files(path)
    labels = len({label for _, label in files})
    noun = "label" if labels == 1 else "labels"
    return f"{len(files):,} images with {labels:,} {noun} in {path.name}"


def _chosen() -> tuple[Literal["synthetic", "cifar10", "folder"], Path]:
    """What kind of dataset ``STORAGE_IMPL_DATASET`` names, and where it is."""
    value = os.environ.get(VARIABLE, "")
    if not value:
        return "synthetic", Path()
    path = Path(value)
    if not path.is_absolute():
        # asv runs benchmarks in a temporary directory: a relative path would mean
        # another place there than where it was typed.
        raise ValueError(f"{VARIABLE} is {value!r}, a relative path. {ACCEPTED}.")
    if not path.exists():
        raise FileNotFoundError(f"{VARIABLE} is {value!r}, which does not exist. {ACCEPTED}.")
    if not path.is_dir():
        raise NotADirectoryError(
            f"{VARIABLE} is {value!r}, which is no directory (an archive must be unpacked). "
            f"{ACCEPTED}."
        )
    return ("cifar10" if cifar10.batch_files(path) else "folder"), path
