"""A file of a store that is cut off: a typed error or the right pixels, and no signal."""

import random
import shutil
from pathlib import Path

from .conftest import FULL, SEED, Tally
from .examine import make, problems
from .tool import Server
from .workload import VARIANTS

EVERY_LENGTH_BELOW = 4096
TRIALS = 2400 if FULL else 80


def test_truncation(server: Server, scratch: Path, backend: str, tally: Tally) -> None:
    """Every file is cut off at every length, above 4 KB at sampled ones."""
    random_ = random.Random(SEED)
    trials = TRIALS // len(VARIANTS[backend])
    for number, variant in enumerate(VARIANTS[backend]):
        original, path = scratch / f"original {number}", scratch / "store"
        make(original, backend, variant)
        sizes = {
            file.relative_to(original): file.stat().st_size
            for file in original.rglob("*")
            if file.is_file() and file.name not in ("write.lock", "lock.mdb")
        }
        low = [(f, n) for f, size in sizes.items() for n in range(min(size, EVERY_LENGTH_BELOW))]
        low = random_.sample(low, min(len(low), trials * 3 // 4))
        large = [file for file, size in sizes.items() if size > EVERY_LENGTH_BELOW]
        while large and len(low) < trials:
            file = random_.choice(large)
            low.append((file, random_.randrange(EVERY_LENGTH_BELOW, sizes[file])))
        for file, length in low:
            shutil.copytree(original, path)
            with open(path / file, "r+b") as opened:
                opened.truncate(length)
            problem = problems(server, path, variant.shape, strict=True)
            tally.add(f"{file} cut to {length}, {variant}: {problem}" if problem else None)
            shutil.rmtree(path)
    tally.check(at_least=TRIALS // 2)
