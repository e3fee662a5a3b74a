"""The commit record of a store, read and written by its description and nothing else."""

import struct
from pathlib import Path
from typing import NamedTuple

import xxhash

SIZE = 64


class Slot(NamedTuple):
    """One of the two slots; a damaged one has the serial -1."""

    images: int
    serial: int


def slots(path: Path) -> tuple[Slot, Slot]:
    """Both slots, from the start of a file."""
    data = path.read_bytes()[:SIZE]
    first, second = (_slot(data[start : start + 32]) for start in (0, 32))
    return first, second


def count(path: Path) -> int:
    """How many images are committed."""
    newest = max(slots(path), key=lambda slot: slot.serial)
    assert newest.serial >= 0
    return newest.images


def put(path: Path, number: int, slot: Slot) -> None:
    """Overwrite one of the two slots."""
    body = struct.pack("<3Q", slot.images, slot.serial, 0)
    with open(path, "r+b") as file:
        file.seek(32 * number)
        file.write(body + struct.pack("<Q", xxhash.xxh3_64_intdigest(body)))


def _slot(data: bytes) -> Slot:
    number, serial, reserved, check = struct.unpack("<4Q", data)
    if xxhash.xxh3_64_intdigest(data[:24]) != check:
        return Slot(0, -1)
    assert reserved == 0
    return Slot(number, serial)
