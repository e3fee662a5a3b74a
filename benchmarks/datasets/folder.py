"""The images of a directory, whose subfolders are the labels."""

import functools
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.datasets._images import ACCEPTED, SKIP_BAD, Images, Labels, square, stacked

# Opened by Pillow, but not as pictures that it can decode by itself: EPS is run by Ghostscript,
# the others need a handler that Pillow does not bring.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


def read(directory: Path, size: int = 32, *, limit: int | None = None) -> tuple[Images, Labels]:
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
        be read: the message names it. With ``STORAGE_IMPL_SKIP_BAD`` set such a one is left out.
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
        raise ValueError(f"none of the {len(files):,} images in {directory} can be read")
    return stacked(images, size), np.array(labels, np.int64)


def originals(directory: Path, limit: int) -> tuple[list[bytes], Labels]:
    """The first files below a directory that are PNG, JPEG or WebP, as they are, and their labels.

    Files whose pixels are not 8-bit grey, RGB or RGBA are passed over.
    """
    found: list[bytes] = []
    labels: list[int] = []
    for path, label in image_files(directory):
        if len(found) == limit:
            break
        try:
            _picture(path, 32)
        except ValueError:
            if not os.environ.get(SKIP_BAD):
                raise
            continue
        with Image.open(path, formats=_decoded()) as picture:
            if picture.format in ("PNG", "JPEG", "WEBP") and picture.mode in ("L", "RGB", "RGBA"):
                found.append(path.read_bytes())
                labels.append(label)
    return found, np.array(labels, np.int64)


class Seen(NamedTuple):
    """What an image file is.

    Attributes
    ----------
    name : str
        Below the directory.
    format : str
        As Pillow calls it; empty where the file is none that it knows.
    size : tuple of int
        Width and height in pixels.
    bad : str
        Why it cannot be read; empty where it can.
    """

    name: str
    format: str
    size: tuple[int, int]
    bad: str


def look(directory: Path, files: list[Path]) -> list[Seen]:
    """Read image files, as the benchmarks will, and return what each is."""

    def seen(path: Path) -> Seen:
        name = path.relative_to(directory).as_posix()
        kind, size = "", (0, 0)
        try:
            if path.is_file():
                with Image.open(path, formats=_decoded()) as picture:
                    kind, size = picture.format or "", picture.size
            _picture(path, 32)
        except Exception as error:  # what Pillow raises for a damaged file is not a closed list
            return Seen(name, kind, size, str(error.__cause__ or error))
        return Seen(name, kind, size, "")

    with ThreadPoolExecutor() as threads:  # Pillow decodes outside of the interpreter's lock
        return list(threads.map(seen, files))


def image_files(directory: Path) -> list[tuple[Path, int]]:
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
        if not path.is_file():  # a FIFO would block, for ever
            raise ValueError("it is not a regular file")
        with Image.open(path, formats=_decoded()) as picture:
            # Of a large JPEG only what the resizing needs is decoded.
            picture.draft("RGB", (2 * size, 2 * size))
            return square(_rgb(picture), size)
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
