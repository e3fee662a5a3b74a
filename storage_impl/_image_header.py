"""What the first bytes of a PNG, JPEG or WebP file say, read without decoding anything.

What a file asks for is known before a decoder sees it: its size, its channels, and whether it is
of a kind that this package refuses (16 bits a channel, an animation).

The formats are those of the PNG specification (third edition, sections 5.3, 11.2 and 11.3), ITU-T
T.81 (annex B) and the WebP container specification (RFC 9649).
"""

import struct
from typing import NamedTuple

from storage_impl._records import Shape
from storage_impl.errors import InvalidInputError

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_CHANNELS_OF_COLOUR_TYPE = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # once decoded: 4 is grey with alpha
_PALETTE = 3


class Header(NamedTuple):
    """What a file says of itself.

    Attributes
    ----------
    encoding : str
        "png", "jpeg" or "webp".
    shape : tuple of int
        (H, W, C) of the decoded pixels: a palette becomes RGB, or RGBA where it has transparency,
        grey with alpha becomes RGBA, CMYK becomes RGB.
    """

    encoding: str
    shape: Shape


def read(data: bytes) -> Header:
    """Read the header of a file.

    Raises
    ------
    InvalidInputError
        It is of no format that is known, is refused, or ends within its header.
    """
    try:
        if data[:8] == _PNG:
            return Header("png", _png(data))
        if data[:3] == _JPEG:
            return Header("jpeg", _jpeg(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return Header("webp", _webp(data))
    except (struct.error, IndexError):
        raise InvalidInputError("the file ends within its header") from None
    raise InvalidInputError("it is no PNG, JPEG or WebP file")


def _png(data: bytes) -> Shape:
    length, kind, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13 or colour not in _CHANNELS_OF_COLOUR_TYPE:
        raise InvalidInputError("the PNG file has no valid header")
    if depth == 16:
        raise InvalidInputError("PNG files of 16 bits a channel are refused; convert to 8 bits")
    channels = _CHANNELS_OF_COLOUR_TYPE[colour]
    position = 8 + 12 + length
    while (chunk := struct.unpack_from(">I4s", data, position))[1] not in (b"IDAT", b"IEND"):
        if chunk[1] == b"acTL":
            raise InvalidInputError("animated PNG files are refused; store their frames")
        if chunk[1] == b"tRNS" and colour == _PALETTE:
            channels = 4
        position += 12 + chunk[0]
    return height, width, channels


def _jpeg(data: bytes) -> Shape:
    position = 2
    while True:
        while data[position] == 0xFF and data[position + 1] == 0xFF:  # fill bytes
            position += 1
        mark, kind = data[position], data[position + 1]
        if mark != 0xFF:
            raise InvalidInputError("the JPEG file has no valid header")
        # SOF0 to SOF15 but for DHT, JPG and DAC, which have numbers among them.
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            depth, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            if depth != 8:
                raise InvalidInputError(f"JPEG files of {depth} bits a channel are refused")
            if components not in (1, 3, 4) or not height:
                raise InvalidInputError("the JPEG file has no valid header")
            return height, width, 1 if components == 1 else 3
        if kind == 0xDA:  # the pixels
            raise InvalidInputError("the JPEG file has no valid header")
        position += 2
        if not (kind == 0x01 or 0xD0 <= kind <= 0xD8):  # those have no content
            length = struct.unpack_from(">H", data, position)[0]
            if length < 2:
                raise InvalidInputError("the JPEG file has no valid header")
            position += length


def _webp(data: bytes) -> Shape:
    kind = data[12:16]
    if kind == b"VP8X":
        flags = data[20]
        if flags & 0x02:
            raise InvalidInputError("animated WebP files are refused; store their frames")
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
    raise InvalidInputError("the WebP file has no valid header")
