"""Read the header of a PNG, JPEG or WebP file, without decoding anything.

The header gives the size and the channels of the image before a decoder sees the file. It also
shows whether this package refuses the file (see `storage_impl.codecs`).

The sources for the formats are the PNG specification (third edition, sections 5.3, 11.2 and 11.3),
ITU-T T.81 (annex B) and the WebP container specification (RFC 9649).
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from storage_impl._records import Shape
from storage_impl.errors import InvalidInputError

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_IHDR = struct.Struct(">IIBBBBB")
_CHUNK = struct.Struct(">I4s")
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # of each colour type, once decoded
PALETTE = 3  # the colour type
_JPEG_SIDE = 65_500  # pixels, the limit of libjpeg
# Each scan of a progressive file, however short, takes a pass over the image. Most files have 10.
_SCANS = 100
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # a marker that ends compressed pixels


class Header(NamedTuple):
    """The content of a file's header.

    Attributes
    ----------
    encoding : str
        "png", "jpeg" or "webp".
    shape : tuple of int
        (H, W, C) of the decoded pixels. A palette becomes RGB, or RGBA if it has transparency. Grey
        with alpha becomes RGBA, and CMYK becomes RGB.
    components : int
        Channels in the file: 1, 3 or 4 (CMYK) for JPEG, otherwise C of `shape`.
    """

    encoding: str
    shape: Shape
    components: int


class PngHeader(NamedTuple):
    """The fields of the chunk IHDR of a PNG file."""

    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filtering: int
    interlaced: int


def read(data: bytes) -> Header:
    """Read the header of a file.

    Raises
    ------
    InvalidInputError
        The format is unknown, the file is refused, or it ends within its header.
    """
    try:
        if data[:8] == _PNG:
            return _png(data)
        if data[:3] == _JPEG:
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            shape = _webp(data)
            return Header("webp", shape, shape[2])
    except (struct.error, IndexError):
        raise InvalidInputError("the file was cut short: it ends within its header") from None
    raise InvalidInputError("the bytes are not a PNG, JPEG or WebP file")


def png_header(data: bytes) -> PngHeader:
    """The header of a PNG file; InvalidInputError if the bytes are not one."""
    if data[:16] != _PNG + b"\0\0\0\rIHDR":
        raise InvalidInputError("the bytes are not a PNG file: they do not begin with its header")
    header = PngHeader(*_IHDR.unpack_from(data, 16))
    if (
        header.depth not in _DEPTHS.get(header.colour, ())
        or header[4:6] != (0, 0)
        or header.interlaced > 1
    ):
        raise InvalidInputError("the PNG file is damaged: its header is not valid")
    return header


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk of a PNG file, and where its content begins and ends.

    If the file was cut short, the last chunk may end beyond it.
    """
    position = 8
    while position + 8 <= len(data):
        length, kind = _CHUNK.unpack_from(data, position)
        yield kind, position + 8, position + 8 + length
        position += 12 + length


def _png(data: bytes) -> Header:
    header = png_header(data)
    if header.depth == 16:
        raise InvalidInputError(
            "the PNG file has 16 bits per channel, at most 8 are accepted; convert it first"
        )
    channels = _CHANNELS[header.colour]
    has_palette = header.colour != PALETTE
    for kind, start, stop in png_chunks(data):
        if kind == b"IEND":
            raise InvalidInputError("the PNG file contains no pixels")
        if kind == b"IDAT":
            if not has_palette:
                raise InvalidInputError("the PNG file is damaged: it has no palette")
            return Header("png", (header.height, header.width, channels), channels)
        if stop + 4 > len(data):
            break
        if kind in (b"IHDR", b"PLTE", b"tRNS") and (
            crc32(data[start - 4 : stop]) != int.from_bytes(data[stop : stop + 4], "big")
        ):
            raise InvalidInputError(f"the PNG file is damaged: {kind.decode()} fails its checksum")
        if kind == b"acTL":
            raise InvalidInputError("the PNG file is an animation; store its frames one by one")
        if kind == b"PLTE" and header.colour == PALETTE:
            has_palette = True
            if not 0 < stop - start <= 768 or (stop - start) % 3:
                raise InvalidInputError("the PNG file is damaged: its palette is not valid")
        if kind == b"tRNS" and header.colour == PALETTE:
            channels = 4
    raise IndexError


def _jpeg(data: bytes) -> Header:
    position = 2
    while True:
        while data[position] == 0xFF and data[position + 1] == 0xFF:  # fill bytes
            position += 1
        mark, kind = data[position], data[position + 1]
        if mark != 0xFF or kind in (0x00, 0xD8, 0xD9, 0xDA):
            raise InvalidInputError("the JPEG file is damaged: it has no valid header")
        # SOF0 to SOF15 except DHT, JPG and DAC, which have numbers among them.
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return _jpeg_frame(data, kind, position + 4)
        position += 2
        if not (kind == 0x01 or 0xD0 <= kind <= 0xD7):  # these have no content
            length = struct.unpack_from(">H", data, position)[0]
            if length < 2:
                raise InvalidInputError("the JPEG file is damaged: it has no valid header")
            position += length


def _jpeg_frame(data: bytes, kind: int, position: int) -> Header:
    depth, height, width, components = struct.unpack_from(">BHHB", data, position)
    if depth != 8:
        raise InvalidInputError(
            f"the JPEG file has {depth} bits per channel, only 8 are accepted; convert it first"
        )
    if kind > 0xC2:  # neither baseline nor extended nor progressive
        raise InvalidInputError(
            "the JPEG file is lossless, hierarchical or arithmetic-coded; convert it to a baseline "
            "or progressive file first"
        )
    if components not in (1, 3, 4) or not height or not width:
        raise InvalidInputError("the JPEG file is damaged: it has no valid header")
    if max(height, width) > _JPEG_SIDE:
        raise InvalidInputError(
            f"the JPEG file has {width:,} x {height:,} pixels; at most {_JPEG_SIDE:,} per side are "
            "accepted"
        )
    if kind == 0xC2 and data.count(b"\xff\xda") > _SCANS and _scans(data, position) > _SCANS:
        raise InvalidInputError(
            f"the JPEG file has more than {_SCANS} scans, which take too long to decode; convert "
            "it to a baseline file first"
        )
    return Header("jpeg", (height, width, 1 if components == 1 else 3), components)


def _scans(data: bytes, position: int) -> int:
    """The number of scans of a JPEG file from `position` on."""
    count = 0
    while (mark := _MARKER.search(data, position)) is not None:
        kind = data[mark.end() - 1]
        if kind == 0xD9:  # the end of the image
            break
        count += kind == 0xDA
        position = mark.end() + int.from_bytes(data[mark.end() : mark.end() + 2], "big")
    return count


def _webp(data: bytes) -> Shape:
    kind = data[12:16]
    if kind == b"VP8X":
        flags = data[20]
        if flags & 0x02:
            raise InvalidInputError("the WebP file is an animation; store its frames one by one")
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        if len(data) < 30:
            raise IndexError
        return height, width, 4 if flags & 0x10 else 3
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", data, 20)
        if signature == 0x2F:
            return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 4 if bits >> 28 & 1 else 3
    if kind == b"VP8 ":
        start, width, height = struct.unpack_from("<3sHH", data, 23)
        if start == b"\x9d\x01\x2a":
            return height & 0x3FFF, width & 0x3FFF, 3
    raise InvalidInputError("the WebP file is damaged: it has no valid header")
