"""Read folders of image files into a store, and write the images of a store into folders."""

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
"""The names of the files that `write` creates."""

_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


class BadFileError(Exception):
    """A file is not an image, or cannot be read."""


class Folder(NamedTuple):
    """The files of a folder.

    Attributes
    ----------
    files : list of (Path, int)
        Each file with its label, in order.
    names : list of str
        The subfolder of each label. Empty if the files lie directly in the folder.
    """

    files: list[tuple[Path, int]]
    names: list[str]


def look(folder: Path) -> Folder:
    """List the files of each subfolder or, without subfolders, those of the folder itself.

    The subfolders have the labels 0, 1, and so on. Files of the folder itself have the label 0.
    Subfolders and files are sorted by name, and names that begin with a dot are ignored. Files in
    deeper folders belong to the subfolder at the top.
    """
    visible = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    names = [each.name for each in visible if each.is_dir()]
    beside = [each for each in visible if not each.is_dir()]
    if names and beside:
        raise InvalidInputError(
            f"{folder} contains both subfolders, which become labels, and files, such as "
            f"{beside[0].name}; move the files into a subfolder"
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
    """Read a PNG, JPEG or WebP file, and check that it can be decoded."""
    try:
        data = path.read_bytes()
        header = codecs.header_of(data, "mixed")
        codecs.decode(data, header.encoding, header.shape)
    except (OSError, InvalidInputError, DecodeError) as error:
        raise BadFileError(f"{path}: {error}") from error
    return data


def pixels(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Read the pixels of an image file, (H, W, C) uint8.

    If `size` (height, width) is given, the image is cropped around its centre to that aspect ratio,
    resized, and converted to RGB.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise BadFileError(f"{path}: animations are not accepted")
            mode = _MODES.get(image.mode)
            if mode is None:
                raise BadFileError(
                    f"{path}: the mode {image.mode} is not accepted; convert to 8 bits per channel"
                )
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
    """Load the files in threads, in order. `on_bad` raises, or returns to skip a bad file."""

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
    """Write each image to the subfolder of its label: files unchanged, raw pixels as PNG."""
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
