"""A file of a store that is cut off: a typed error or the right pixels, and no signal."""

import random
import shutil
from pathlib import Path

from .examine import make, problems
from .tally import FULL, SEED, Tally
from .tool import Server
from .workload import VARIANTS

EVERY_LENGTH_BELOW = 4096
TRIALS = 2400 if FULL else 80  # beside, in the full form, those of every length


def test_truncation(server: Server, scratch: Path, backend: str, tally: Tally) -> None:
    """Each kind of file is cut off at every length below 4 KB, and all at sampled ones."""
    random_ = random.Random(SEED)
    for number, variant in enumerate(VARIANTS[backend]):
        original, path = scratch / f"original {number}", scratch / "store"
        make(original, backend, variant)
        sizes = {
            file.relative_to(original): file.stat().st_size
            for file in sorted(original.rglob("*"))
            if file.is_file() and file.name not in ("write.lock", "lock.mdb")
        }
        files = list(sizes)
        cuts = [
            (file, random_.randrange(sizes[file]))
            for file in random_.choices(files, k=-(-TRIALS // len(VARIANTS[backend])))
        ]
        if FULL:
            kinds = {file.suffix or file.name: file for file in files}
            cuts += [
                (file, length)
                for file in kinds.values()
                for length in range(min(sizes[file], EVERY_LENGTH_BELOW))
            ]
        for file, length in cuts:
            shutil.copytree(original, path)
            with open(path / file, "r+b") as opened:
                opened.truncate(length)
            problem = problems(server, path, variant, strict=True)
            tally.add(f"{file} cut to {length}, {variant}: {problem}" if problem else None)
            shutil.rmtree(path)
    tally.check(at_least=TRIALS)
