"""Image files as users have them, and as nobody should, made with Pillow."""

import io
import struct
import warnings
import zlib
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Smooth pixels with some noise, as of a photo."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[:height, :width]
    layers = [
        120 + 70 * np.sin(down / (5 + i) + seed) * np.cos(across / (7 - i)) for i in range(channels)
    ]
    noisy = np.stack(layers, axis=-1) + random.normal(0, 6, (height, width, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def file_of(pixels: Pixels | Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a file of that kind: "PNG", "JPEG" or "WEBP"."""
    if not isinstance(pixels, Image.Image):
        pixels = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    pixels.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, *chunks: bytes, lace: int = 0) -> bytes:
    """A PNG file of any header and chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, lace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def idat(rows: bytes) -> bytes:
    """The chunk of the pixels of a PNG file."""
    return chunk(b"IDAT", zlib.compress(rows))


def frame(data: bytes) -> int:
    """Where the frame header of a JPEG file begins."""
    position = 2
    while data[position + 1] not in (0xC0, 0xC1, 0xC2):
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return position


def segment(data: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG file with one more segment at its beginning."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def with_frame(data: bytes, offset: int, new: bytes) -> bytes:
    """A JPEG file with some bytes of its frame header replaced."""
    at = frame(data) + offset
    return data[:at] + new + data[at + len(new) :]


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP file of these chunks."""
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def exif(orientation: int) -> bytes:
    """Metadata that tell a viewer to turn the image."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG file whose last scan comes `count` times."""
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


# -- files that are accepted: what they are, and their pixels ---------------------------------


@cache
def accepted() -> dict[str, tuple[bytes, Pixels]]:
    """Files of each kind that is accepted, with their pixels.

    The pixels are what was drawn where the file is lossless, else what Pillow reads.
    """
    Image.init()
    colour, grey, clear = photo(19, 23), photo(19, 23, 1), photo(19, 23, 4)
    clear[:4, :, 3] = 1
    bits = (grey[:, :, 0] > 120).astype(np.uint8)
    palette = Image.fromarray(colour).quantize(37)
    of_palette = np.asarray(palette.convert("RGB"))
    alpha = bytes(range(0, 250, 10))
    table = np.zeros((256, 4), np.uint8)
    table[:, 3] = 255
    given = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
    table[: len(given), :3] = given
    table[: len(alpha), 3] = np.frombuffer(alpha, np.uint8)
    with_alpha = table[np.asarray(palette)]
    both = Image.merge("LA", [Image.fromarray(grey[..., 0]), Image.fromarray(clear[..., 3])])
    key = (int(colour[0, 0, 0]), int(colour[0, 0, 1]), int(colour[0, 0, 2]))
    profile = b"any profile " * 9
    jpeg = file_of(colour, "JPEG", quality=90)
    ink = Image.fromarray(colour).convert("CMYK")
    two = Image.fromarray(255 - colour)
    laced = b"".join(
        b"\0" + grey[top::down, left::across, 0].tobytes()[i : i + width]
        for top, left, down, across in (
            (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4),
            (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
        )
        for width in [grey[top::down, left::across, 0].shape[1]]
        for i in range(0, grey[top::down, left::across, 0].size, width)
    )  # fmt: skip
    rgba = np.dstack([np.repeat(grey, 3, axis=2), clear[:, :, 3:]])
    lossless: dict[str, tuple[bytes, Pixels]] = {
        "png": (file_of(colour, "PNG"), colour),
        "png of grey": (file_of(grey, "PNG"), grey),
        "png with alpha": (file_of(clear, "PNG"), clear),
        "png of one bit": (
            file_of(Image.fromarray(bits * 255).convert("1"), "PNG"),
            bits[..., None] * 255,
        ),
        "png of two bits": (
            png(4, 1, 2, 0, idat(b"\0\x1b")),
            np.array([0, 85, 170, 255], np.uint8).reshape(1, 4, 1),
        ),
        "png of four bits": (
            png(3, 1, 4, 0, idat(b"\0\x0f\x80")),
            np.array([0, 255, 136], np.uint8).reshape(1, 3, 1),
        ),
        "png of a palette": (file_of(palette, "PNG"), of_palette),
        "png of a palette of one bit": (
            png(3, 1, 1, 3, chunk(b"PLTE", b"abcdef"), idat(b"\0\x40")),
            np.frombuffer(b"abcdefabc", np.uint8).reshape(1, 3, 3),
        ),
        "png of a palette with alpha": (file_of(palette, "PNG", transparency=alpha), with_alpha),
        "png of a palette that is too short": (
            png(2, 1, 8, 3, chunk(b"PLTE", b"abc"), idat(b"\0\x00\xff")),
            np.frombuffer(b"abc\0\0\0", np.uint8).reshape(1, 2, 3),
        ),
        "png of grey with alpha": (file_of(both, "PNG"), rgba),
        "png with a transparent colour": (file_of(colour, "PNG", transparency=key), colour),
        "png of grey with a transparent one": (file_of(grey, "PNG", transparency=7), grey),
        "png with a profile": (file_of(colour, "PNG", icc_profile=profile), colour),
        "png with an orientation": (file_of(colour, "PNG", exif=exif(6)), colour),
        "png with gamma": (
            png(1, 1, 8, 0, chunk(b"gAMA", struct.pack(">I", 100000)), idat(b"\0\x64")),
            np.full((1, 1, 1), 100, np.uint8),
        ),
        "png interlaced": (png(23, 19, 8, 0, idat(laced), lace=1), grey),
        "png with bytes after it": (file_of(colour, "PNG") + b"after" * 999, colour),
        "png with text of 3 MB": (
            png(1, 1, 8, 0, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3 << 20))), idat(b"\0d")),
            np.full((1, 1, 1), 100, np.uint8),
        ),
        "webp": (file_of(colour, "WEBP", lossless=True), colour),
        "webp with alpha": (file_of(clear, "WEBP", lossless=True, exact=True), clear),
        "webp with an orientation": (
            file_of(colour, "WEBP", lossless=True, exif=exif(6), icc_profile=profile),
            colour,
        ),
        "webp with bytes after it": (file_of(colour, "WEBP", lossless=True) + b"after", colour),
    }
    lossy = {
        "jpeg": jpeg,
        "jpeg of grey": file_of(grey, "JPEG"),
        "jpeg without subsampling": file_of(colour, "JPEG", subsampling=0),
        "jpeg of 4:2:2": file_of(colour, "JPEG", subsampling=1),
        "jpeg progressive": file_of(colour, "JPEG", progressive=True),
        "jpeg progressive of grey": file_of(grey, "JPEG", progressive=True),
        "jpeg with restarts": file_of(colour, "JPEG", restart_marker_rows=1),
        "jpeg of RGB": file_of(colour, "JPEG", keep_rgb=True),
        "jpeg of CMYK": file_of(ink, "JPEG"),
        "jpeg with an orientation": file_of(colour, "JPEG", exif=exif(6)),
        "jpeg with a profile": file_of(colour, "JPEG", icc_profile=profile),
        "jpeg with bytes after it": jpeg + b"a film" * 999,
        "jpeg with fill bytes": jpeg[:2] + b"\xff\xff\xff" + jpeg[2:],
        "jpeg with odd metadata": segment(jpeg, 0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "jpeg with a preview": segment(jpeg, 0xE1, b"Exif\0\0" + file_of(photo(8, 8), "JPEG")),
        "webp lossy": file_of(colour, "WEBP"),
        "webp lossy with alpha": file_of(clear, "WEBP"),
    }
    if "MPO" in Image.SAVE_ALL:  # since Pillow 9.3
        lossy["mpo"] = file_of(Image.fromarray(colour), "MPO", save_all=True, append_images=[two])
    found = dict(lossless)
    for name, data in lossy.items():
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            if image.mode == "CMYK":
                image = image.convert("RGB")
            found[name] = data, np.asarray(image).reshape(19, 23, -1)
    return found


@cache
def refused() -> dict[str, tuple[bytes, str]]:
    """Files that are refused by their headers, and what the message says."""
    colour = photo(19, 23)
    jpeg, flat = file_of(colour, "JPEG"), file_of(colour, "WEBP", lossless=True)
    progressive = file_of(colour, "JPEG", progressive=True)
    others = [Image.fromarray(255 - colour)]
    moving = {"save_all": True, "append_images": others, "duration": 100}
    rows = b"\0" + bytes(23 * 3)
    palette = Image.fromarray(colour).quantize(37)
    extended = webp((b"VP8X", b"\0\0\0\0" + b"\xff\x3f\0" * 2), (b"VP8L", flat[20:]))
    return {
        "nothing": (b"", "not a PNG, JPEG or WebP"),
        "text": (b"no image at all", "not a PNG, JPEG or WebP"),
        "gif": (file_of(colour, "GIF"), "not a PNG, JPEG or WebP"),
        "tiff": (file_of(colour, "TIFF"), "not a PNG, JPEG or WebP"),
        "bmp": (file_of(colour, "BMP"), "not a PNG, JPEG or WebP"),
        "avi": (b"RIFF\0\0\0\0AVI LIST", "not a PNG, JPEG or WebP"),
        "png of 16 bits": (file_of(Image.fromarray(np.ones((5, 7), np.uint16)), "PNG"), "16 bits"),
        "png animated": (file_of(Image.fromarray(colour), "PNG", **moving), "animation"),
        "png cut": (file_of(colour, "PNG")[:30], "cut short"),
        "png cut before the pixels": (file_of(colour, "PNG")[:37], "cut short"),
        "png cut in its palette": (file_of(palette, "PNG")[:60], "cut short"),
        "png without pixels": (png(3, 3, 8, 2), "no pixels"),
        "png of no height": (png(23, 0, 8, 2, idat(rows)), r"\(0, 23, 3\)"),
        "png of most pixels": (png(2**31 - 1, 2**31 - 1, 8, 2, idat(rows)), "1 GiB"),
        "png too wide": (png(2**24 + 1, 1, 8, 0, idat(rows)), "16,777,216"),
        "png bomb": (png(9000, 9000, 8, 2, idat(rows)), "32 MiB"),
        "png of depth 3": (png(3, 3, 3, 0, idat(rows)), "damaged"),
        "png of colour type 1": (png(3, 3, 8, 1, idat(rows)), "damaged"),
        "png of palette and 16 bits": (png(3, 3, 16, 3, idat(rows)), "damaged"),
        "png of another interlacing": (png(3, 3, 8, 2, idat(rows), lace=2), "damaged"),
        "png without a palette": (png(3, 3, 8, 3, idat(rows)), "palette"),
        "png of an odd palette": (png(3, 3, 8, 3, chunk(b"PLTE", b"abcd"), idat(rows)), "palette"),
        "png whose header is wrong": (
            file_of(colour, "PNG")[:19] + b"\x18" + file_of(colour, "PNG")[20:],
            "checksum",
        ),
        "png that is too long": (file_of(colour, "PNG") + bytes(17 << 20), "at most"),
        "jpeg of 12 bits": (with_frame(jpeg, 4, b"\x0c"), "12 bits"),
        "jpeg lossless": (with_frame(jpeg, 1, b"\xc3"), "lossless"),
        "jpeg arithmetic-coded": (with_frame(jpeg, 1, b"\xc9"), "arithmetic"),
        "jpeg of two channels": (with_frame(jpeg, 9, b"\2"), "damaged"),
        "jpeg of no height": (with_frame(jpeg, 5, b"\0\0"), "damaged"),
        "jpeg too wide": (with_frame(jpeg, 5, b"\0\1\xff\xff"), "65,500"),
        "jpeg bomb": (with_frame(jpeg, 5, b"\x40\0\x40\0"), "32 MiB"),
        "jpeg of most pixels": (with_frame(jpeg, 5, b"\xf0\0\xf0\0"), "1 GiB"),
        "jpeg of many scans": (scans(progressive, 101), "scans"),
        "jpeg cut": (jpeg[:40], "cut short"),
        "jpeg without a frame": (jpeg[:2] + jpeg[jpeg.index(b"\xff\xda") :], "no valid header"),
        "jpeg of junk": (b"\xff\xd8\xff\xe0\0\x04ab junk", "no valid header"),
        "webp animated": (file_of(Image.fromarray(colour), "WEBP", **moving), "animation"),
        "webp cut": (flat[:22], "cut short"),
        "webp bomb": (extended, "32 MiB"),
        "webp of junk": (webp((b"VP8L", b"\x30" + bytes(30))), "no valid header"),
        "webp of another kind": (webp((b"VP9 ", bytes(30))), "no valid header"),
    }


@cache
def damaged() -> dict[str, bytes]:
    """Files of 19 x 23 RGB pixels whose headers are good, and which cannot be decoded."""
    colour = photo(19, 23)
    rows = b"".join(b"\0" + row.tobytes() for row in colour)
    bomb = chunk(b"IDAT", zlib.compress(b"\x09" + bytes(50 << 20)))
    jpeg, flat = file_of(colour, "JPEG"), file_of(colour, "WEBP", lossless=True)
    lossy = file_of(colour, "WEBP")
    scan = jpeg.index(b"\xff\xda")
    extended = b"\0\0\0\0" + b"\x16\0\0" + b"\x12\0\0"
    return {
        "png cut in half": file_of(colour, "PNG")[:700],
        "png of half the rows": png(23, 19, 8, 2, idat(rows[:600])),
        "png of no rows": png(23, 19, 8, 2, idat(b"")),
        "png whose data are not compressed": png(23, 19, 8, 2, chunk(b"IDAT", rows)),
        "png of a wrong filter that is long": png(23, 19, 8, 2, bomb),
        "jpeg cut in half": jpeg[: scan + (len(jpeg) - scan) // 2],
        "jpeg without its end": jpeg[:-2],
        "jpeg that ends in its tables": jpeg[:scan],
        "jpeg with two frames": jpeg[:scan] + jpeg[frame(jpeg) : scan] + jpeg[scan:],
        "webp cut in half": flat[: len(flat) // 2],
        "webp lossy cut in half": lossy[: len(lossy) // 2],
        "webp of no pixels": webp((b"VP8X", extended)),
        "webp that holds another size": webp(
            (b"VP8X", extended), (b"VP8L", file_of(photo(9, 8), "WEBP", lossless=True)[20:])
        ),
        "webp of zeros": flat[:30] + bytes(len(flat) - 30),
    }
