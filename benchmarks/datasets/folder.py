"""The images of a directory, whose subfolders are the labels."""

import functools
import itertools
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.datasets._images import ACCEPTED, SKIP_BAD, Images, Labels, square, stacked

# Pillow opens these formats, but cannot decode them by itself: it runs Ghostscript for EPS, and the
# others need a handler that does not come with Pillow.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


def read(directory: Path, size: int = 32, *, limit: int | None = None) -> tuple[Images, Labels]:
    """Return the images below a directory, cropped to a central square and resized.

    If the directory has subfolders with images, the subfolders are the labels, numbered from 0 in
    the order of their names. Images may lie at any depth below them. Otherwise all images have
    label 0. The images are sorted by the checksum of their names, so that the first few are a
    sample of all labels.

    A file is an image if its extension is that of a format that Pillow decodes. EPS is excluded,
    because Ghostscript would run it. All other files are ignored, and so are files and folders
    whose names start with a dot. An animation counts as its first picture, transparency is
    dropped, and 16-bit grey keeps its high 8 bits.

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
        There is no image, there are images both beside and in subfolders, or an image cannot be
        read; the message names that image. With ``STORAGE_IMPL_SKIP_BAD`` set, unreadable images
        are left out.
    """
    images: list[Images] = []
    labels: list[int] = []
    files = image_files(directory)
    for path, label in files:
        if len(images) == limit:
            break
        try:
            images.append(_picture(path, size))
        except ValueError:
            if not os.environ.get(SKIP_BAD):
                raise
        else:
            labels.append(label)
    if not images and limit != 0:
        raise ValueError(
            f"none of the {len(files):,} images in {directory} can be read: repair or replace them"
        )
    return stacked(images, size), np.array(labels, np.int64)


def originals(directory: Path, pixel_bytes: int) -> tuple[list[bytes], Labels]:
    """Return the first PNG, JPEG and WebP files below a directory, unchanged, and their labels.

    They have about `pixel_bytes` bytes of pixels in all: at least one file, and if there are not
    enough, they repeat from the first one on. Skipped are animations, and files whose pixels are
    not 8-bit grey, RGB or RGBA, because a store refuses them or changes their pixels.
    """
    found: list[bytes] = []
    labels: list[int] = []
    total = 0
    for data, pixels, label in itertools.cycle(_storable(directory)):
        if found and total + pixels / 2 > pixel_bytes:
            break
        found.append(data)
        labels.append(label)
        total += pixels
    return found, np.array(labels, np.int64)


def _storable(directory: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yield the bytes of each file of `originals`, the number of its pixels' bytes, its label."""
    for path, label in image_files(directory):
        try:
            _picture(path, 32)
        except ValueError:
            if not os.environ.get(SKIP_BAD):
                raise
            continue
        with Image.open(path, formats=_decoded()) as picture:
            if picture.format not in ("PNG", "JPEG", "MPO", "WEBP"):
                continue
            # An MPO file is a JPEG file with more pictures after it.
            if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
                continue
            data = path.read_bytes()
            # Pillow reduces colours of 16 bits to 8 without saying so; byte 24 of PNG has the bits.
            deep = picture.format == "PNG" and data[24] > 8
            if picture.mode in ("L", "RGB", "RGBA") and not deep:
                yield data, picture.width * picture.height * len(picture.mode), label


class Seen(NamedTuple):
    """What an image file holds.

    Attributes
    ----------
    name : str
        Its path below the directory.
    format : str
        Pillow's name for the format; empty if Pillow does not know it.
    size : tuple of int
        Width and height in pixels.
    bad : str
        Why it cannot be read; empty if it can.
    """

    name: str
    format: str
    size: tuple[int, int]
    bad: str


def look(directory: Path, files: list[Path]) -> list[Seen]:
    """Read image files as the benchmarks will, and return what each holds."""

    def seen(path: Path) -> Seen:
        name = path.relative_to(directory).as_posix()
        kind, size = "", (0, 0)
        try:
            if path.is_file():
                with Image.open(path, formats=_decoded()) as picture:
                    kind, size = picture.format or "", picture.size
            _picture(path, 32)
        except Exception as error:  # Pillow may raise any exception for a damaged file
            return Seen(name, kind, size, str(error.__cause__ or error))
        return Seen(name, kind, size, "")

    with ThreadPoolExecutor() as threads:  # Pillow decodes outside of the interpreter's lock
        return list(threads.map(seen, files))


def image_files(directory: Path) -> list[tuple[Path, int]]:
    """Return the image files below `directory` with their labels, in the order of their use."""
    visible = [path for path in directory.iterdir() if not path.name.startswith(".")]
    loose = [path for path in visible if not path.is_dir() and _is_image(path.name)]
    below = (_images_below(path) for path in sorted(visible) if path.is_dir())
    labelled = [files for files in below if files]
    if loose and labelled:
        raise ValueError(
            f"{directory} holds images ({min(loose).name}, ...) beside subfolders with images; "
            "accepted are images in subfolders alone, which are their labels, or in none"
        )
    if not loose and not labelled:
        raise ValueError(
            f"{directory} holds no image in a format that Pillow decodes (by extension: .png, "
            f".jpg, ...) and no data_batch_1 of CIFAR-10. {ACCEPTED}."
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
        if not path.is_file():  # a FIFO would block forever
            raise ValueError("it is not a regular file")
        with Image.open(path, formats=_decoded()) as picture:
            # Decode only as much of a large JPEG as the resizing needs.
            picture.draft("RGB", (2 * size, 2 * size))
            return square(_rgb(picture), size)
    except Exception as error:  # Pillow may raise any exception for a damaged file
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _rgb(picture: Image.Image) -> Image.Image:
    """Return `picture` in 8-bit RGB."""
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers; convert them to integers")
    if picture.mode.startswith("I"):
        # Pillow itself would clip these to 255.
        deep = np.asarray(picture)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError("its pixels have more than 16 bits")
        picture = Image.fromarray((deep >> 8).astype(np.uint8))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow warns if it converts straight to RGB
    return picture.convert("RGB")
