"""After a power cut a durable store holds the calls that returned, whatever else was lost."""

import random
import shutil
import tempfile
from pathlib import Path

from .power import Disk, choose, everything
from .tally import FULL, SEED, Tally
from .tool import Op, Record, Server, read_log
from .workload import CALLS, VARIANTS, Known, Variant, check, known, write


def log_of(
    faulty: Server, scratch: Path, backend: str, variant: Variant, durable: bool
) -> tuple[Path, list[Record]]:
    """The directory that the whole workload was done in, and its log."""
    root, log = Path(tempfile.mkdtemp(dir=scratch)), scratch / "log"
    outcome = faulty.run(write, root / "store", backend, variant, durable, root=root, log=log)
    assert not outcome.text, str(outcome)
    return root, read_log(log)


def try_state(
    server: Server, disk: Disk, target: Path, tally: Tally, conditions: tuple[str, Variant, Known],
    random_: random.Random,
) -> None:  # fmt: skip
    """Cut the power once, and check what is left."""
    state = random_.getstate()
    disk.cut(target, *choose(random_))
    # The note of which directory is being written to: after a power cut that is the same one, and
    # here it is another, as that of a copy.
    lock = target / "store" / "write.lock"
    if lock.exists():
        lock.write_bytes(b"")
    after = server.run(check, target / "store", *conditions)
    failed = after.signal or after.text
    tally.add(f"{conditions}, random state {hash(state)}: {after}" if failed else None)
    shutil.rmtree(target)


def test_power_cut(
    faulty: Server, server: Server, scratch: Path, backend: str, tally: Tally
) -> None:
    """Of each state that the calls allow, `check` says what it must hold."""
    random_ = random.Random(SEED)
    states = 600 if FULL else 180 // len(VARIANTS[backend])  # of each variant
    for variant in VARIANTS[backend]:
        root, records = log_of(faulty, scratch, backend, variant, durable=True)
        cuts = sorted(random_.randrange(len(records) + 1) for _ in range(states))
        disk = Disk(root)
        marked: list[str] = []
        for position in range(len(records) + 1):
            for _ in range(cuts.count(position)):
                conditions = (backend, variant, known(marked))
                try_state(server, disk, scratch / "state", tally, conditions, random_)
            if position < len(records):
                disk.apply(records[position])
                if records[position].op is Op.MARK:
                    marked.append(records[position].path)
    tally.check(at_least=states * len(VARIANTS[backend]))


def test_power_cut_after_close(
    faulty: Server, server: Server, scratch: Path, backend: str, tally: Tally
) -> None:
    """A store that is not durable survives it from `close` on."""
    random_ = random.Random(SEED)
    length = CALLS[-1][0]
    for variant in VARIANTS[backend]:
        root, records = log_of(faulty, scratch, backend, variant, durable=False)
        disk = Disk(root)
        for record in records:
            disk.apply(record)
        for _ in range(50 if FULL else 30 // len(VARIANTS[backend])):
            conditions = (backend, variant, Known(length, length))
            try_state(server, disk, scratch / "state", tally, conditions, random_)
    tally.check()


def test_log_is_complete(faulty: Server, scratch: Path, backend: str) -> None:
    """The replayed calls give the store's own files, so the log has missed none."""
    root, records = log_of(faulty, scratch, backend, VARIANTS[backend][1], durable=True)
    disk = Disk(root)
    for record in records:
        disk.apply(record)
    disk.cut(scratch / "replayed", everything)
    for file in (scratch / "replayed").rglob("*"):
        # LMDB writes its table of readers through a map; it is made anew at each opening.
        if file.is_file() and file.name != "lock.mdb":
            original = root / file.relative_to(scratch / "replayed")
            assert file.read_bytes() == original.read_bytes(), file.name
