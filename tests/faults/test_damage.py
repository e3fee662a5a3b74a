"""Bits flipped, records swapped, bytes inserted: `verify` finds what alters an image."""

import random
import shutil
from pathlib import Path

from .examine import make, problems
from .tally import FULL, SEED, Tally
from .tool import Server
from .workload import VARIANTS

TRIALS = 10_000 if FULL else 120
UNITS = (1, 8, 24, 32, 512, 4096)  # labels, records, commit slots, sectors, pages


def flip(random_: random.Random, data: bytearray) -> str:
    """Flip some bits."""
    bits = [random_.randrange(8 * len(data)) for _ in range(random_.choice((1, 1, 1, 2, 16)))]
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
    return f"bits {bits} flipped"


def overwrite(random_: random.Random, data: bytearray) -> str:
    """Overwrite some bytes with zeros, ones or anything."""
    unit = random_.choice(UNITS)
    start = random_.randrange(len(data))
    new = random_.choice((bytes(unit), b"\xff" * unit, random_.randbytes(unit)))
    data[start : start + unit] = new[: len(data) - start]
    return f"{unit} bytes at {start} overwritten"


def swap(random_: random.Random, data: bytearray) -> str:
    """Swap two records or pages, or copy one over the other."""
    unit = random_.choice(UNITS)
    count = max(len(data) // unit, 1)
    start = random_.choice((0, 64 % unit if len(data) > 64 else 0))
    one, two = (start + unit * random_.randrange(count) for _ in range(2))
    if random_.random() < 0.7:
        data[one : one + unit], data[two : two + unit] = (
            data[two : two + unit],
            data[one : one + unit],
        )
    else:
        data[two : two + unit] = data[one : one + unit]
    return f"{unit} bytes at {one} and {two} swapped"


def insert(random_: random.Random, data: bytearray) -> str:
    """Insert bytes."""
    unit, start = random_.choice(UNITS), random_.randrange(len(data) + 1)
    data[start:start] = random_.randbytes(unit)
    return f"{unit} bytes inserted at {start}"


def delete(random_: random.Random, data: bytearray) -> str:
    """Take bytes out."""
    unit, start = random_.choice(UNITS), random_.randrange(len(data))
    del data[start : start + unit]
    return f"{unit} bytes at {start} deleted"


def damage(random_: random.Random, path: Path) -> str:
    """Damage a store in one way, and say in which."""
    files = sorted(f for f in path.rglob("*") if f.is_file() and f.stat().st_size)
    files = [f for f in files if f.name != "lock.mdb"]
    # Images take nearly all files of some backends: half of all damage goes to each kind of file.
    kinds = sorted({f.suffix for f in files})
    kind = random_.choice(kinds)
    file = random_.choice([f for f in files if f.suffix == kind])
    name = file.relative_to(path)
    other = random_.choice([f for f in files if f.suffix == kind])
    manner = random_.random()
    if manner < 0.04:
        file.unlink()
        return f"{name} removed"
    if manner < 0.08 and other != file:
        file.rename(path / "aside")
        other.rename(file)
        (path / "aside").rename(other)
        return f"{name} and {other.relative_to(path)} swapped"
    if manner < 0.1 and other != file:
        shutil.copy(other, file)
        return f"{name} replaced by {other.relative_to(path)}"
    data = bytearray(file.read_bytes())
    change = random_.choice((flip, flip, overwrite, swap, insert, delete))
    said = change(random_, data)
    file.write_bytes(data)
    return f"{name}: {said}"


def test_damage(server: Server, scratch: Path, backend: str, tally: Tally) -> None:
    """No signal, no hang, no wrong pixel where it was asked to verify; `verify` finds it all."""
    random_ = random.Random(SEED)
    trials = -(-TRIALS // len(VARIANTS[backend]))
    for number, variant in enumerate(VARIANTS[backend]):
        original, path = scratch / f"original {number}", scratch / "store"
        make(original, backend, variant)
        for _ in range(trials):
            shutil.copytree(original, path)
            said = damage(random_, path)
            problem = problems(server, path, variant, strict=False)
            tally.add(f"{said}, {variant}: {problem}" if problem else None)
            shutil.rmtree(path)
    tally.check(at_least=TRIALS)
