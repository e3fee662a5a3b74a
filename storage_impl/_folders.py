"""Folders of image files: read into a store, and written out of one."""

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage_impl import ImageStore, InvalidInputError, codecs
from storage_impl.codecs import DecodeError

_AT_ONCE = 64  # files read ahead, in threads
_MODES = {"1": "L", "L": "L", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA"}
_MODES |= {"LA": "RGBA", "La": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"}
_MODES |= {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}
EXPORTED = re.compile(r"\d{8,}\.(png|jpg|webp)")
"""The name of a file that `write` makes."""

_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


class BadFileError(Exception):
    """A file that is no image, or cannot be read."""


class Folder(NamedTuple):
    """The files of a folder.

    Attributes
    ----------
    files : list of (Path, int)
        Each with its label, in order.
    names : list of str
        The subfolders, each at the place of its label; empty where the files lie in the folder.
    """

    files: list[tuple[Path, int]]
    names: list[str]


def look(folder: Path) -> Folder:
    """List the files of each subfolder, or those of the folder itself, with label 0.

    Subfolders and files come sorted by name. Those whose name begins with a dot do not count.
    Files deeper inside belong to the subfolder at the top.
    """
    visible = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    names = [each.name for each in visible if each.is_dir()]
    beside = [each for each in visible if not each.is_dir()]
    if names and beside:
        raise InvalidInputError(
            f"{folder} holds subfolders, which are labels, and files beside them, such as "
            f"{beside[0].name}; move those into a subfolder"
        )
    files = [(each, 0) for each in beside]
    for label, name in enumerate(names):
        for directory, subdirectories, found in os.walk(folder / name):
            subdirectories[:] = sorted(each for each in subdirectories if not each.startswith("."))
            files += [
                (Path(directory, each), label) for each in sorted(found) if not each.startswith(".")
            ]
    return Folder(files, names)


def kept(path: Path) -> bytes:
    """The bytes of a PNG, JPEG or WebP file that can be decoded."""
    try:
        data = path.read_bytes()
        header = codecs.header_of(data, "mixed")
        codecs.decode(data, header.encoding, header.shape)
    except (OSError, InvalidInputError, DecodeError) as error:
        raise BadFileError(f"{path}: {error}") from error
    return data


def pixels(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The pixels of an image file, (H, W, C) uint8.

    With a `size`, height and width, the image is centre-cropped to its shape, resized, and RGB.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise BadFileError(f"{path}: it is an animation")
            mode = _MODES.get(image.mode)
            if mode is None:
                raise BadFileError(f"{path}: it has the mode {image.mode}, not 8 bits a channel")
            if mode == "RGB" and "transparency" in image.info:
                mode = "RGBA"
            if size is None:
                converted = image.convert(mode)
            else:
                converted = ImageOps.fit(image.convert("RGB"), size[::-1])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFileError(f"{path}: {error}") from error
    array = np.asarray(converted)
    return array[:, :, np.newaxis] if array.ndim == 2 else array


def read(
    folder: Folder, load: Callable[[Path], Any], on_bad: Callable[[BadFileError], None]
) -> Iterator[tuple[Any, int]]:
    """Load the files in threads, in order; `on_bad` raises or leaves a file out."""

    def attempt(path: Path) -> Any:
        try:
            return load(path)
        except BadFileError as error:
            return error

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(folder.files), _AT_ONCE):
            some = folder.files[start : start + _AT_ONCE]
            loaded = threads.map(attempt, [path for path, _ in some])
            for found, (_, label) in zip(loaded, some, strict=True):
                if isinstance(found, BadFileError):
                    on_bad(found)
                else:
                    yield found, label


def write(store: ImageStore, folder: Path, names: list[str]) -> Iterator[None]:
    """Write each image into the subfolder of its label: files as they are stored, pixels as PNG."""
    for index in range(len(store)):
        if store.encoding == "raw":
            image, label = store.read_one(index)
            data, suffix = codecs.encode(image, "png", codecs.OPTIONS["png"]), ".png"
        else:
            data, label = store.read_encoded(index)
            suffix = _SUFFIXES[codecs.header_of(data, store.encoding).encoding]
        directory = folder / (names[label] if 0 <= label < len(names) else str(label))
        directory.mkdir(exist_ok=True)
        (directory / f"{index:08d}{suffix}").write_bytes(data)
        yield
