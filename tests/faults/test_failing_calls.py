"""A call to the disk fails: a typed error, the store as before, and a retry that works."""

import errno
import os
import random
import shutil
from pathlib import Path

from .tally import FULL, SEED, Tally
from .tool import Action, Fault, Op, Server, read_log
from .workload import CALLS, VARIANTS, Known, check, write_and_retry

FINISHED = Known(CALLS[-1][0], CALLS[-1][0])
KINDS = (
    Fault(Action.FAIL, error=errno.EIO),
    Fault(Action.FAIL, error=errno.EIO, lasting=True),
    Fault(Action.FAIL, error=errno.ENOSPC),
    Fault(Action.FAIL, error=errno.ENOSPC, lasting=True),
    Fault(Action.SHORT_WRITE, error=errno.ENOSPC, lasting=True),
)


def test_failing_calls(
    faulty: Server, server: Server, scratch: Path, backend: str, tally: Tally
) -> None:
    """Every call of the workload fails, once or until the error was seen."""
    root, log = scratch / "root", scratch / "log"
    trials = []
    for variant in VARIANTS[backend]:
        for durable in (True, False):
            root.mkdir()
            arguments = (root / "store", backend, variant, durable)
            outcome = faulty.run(write_and_retry, *arguments, root=root, log=log)
            assert outcome.value == [], str(outcome)
            calls = sum(record.op not in (Op.MARK, Op.OPEN) for record in read_log(log))
            for at in range(1, calls + 1):
                trials += [
                    (arguments, Fault(kind.action, at, kind.error, kind.lasting)) for kind in KINDS
                ]
            shutil.rmtree(root)
    if not FULL:
        trials = random.Random(SEED).sample(trials, 100)
    for arguments, fault in trials:
        root.mkdir()
        in_doubt = fault.lasting and fault.error == errno.EIO
        outcome = faulty.run(
            write_and_retry, *arguments, None, in_doubt, root=root, log=log, fault=fault
        )
        problem = "" if outcome.value == [] else str(outcome)
        if not problem:
            after = server.run(check, *arguments[:3], FINISHED)
            problem = str(after) if after.signal or after.text else ""
        tally.add(f"{fault}, {arguments}: {problem}" if problem else None)
        shutil.rmtree(root)
    tally.check(at_least=len(trials))


def test_full_disk(server: Server, small_disk: Path, backend: str, tally: Tally) -> None:
    """The same on a file system that is full, for every number of pages left free."""
    root, ballast = small_disk / "root", small_disk / "ballast"
    free = os.statvfs(small_disk)
    step = 1 if FULL else 2 * len(VARIANTS[backend]) + 1
    for number, variant in enumerate(VARIANTS[backend]):
        for durable in (True, False):
            for left in range(number % step, 60, step):
                root.mkdir()
                ballast.write_bytes(bytes((free.f_bavail - left) * free.f_frsize))
                arguments = (root / "store", backend, variant, durable)
                outcome = server.run(write_and_retry, *arguments, ballast)
                ballast.unlink(missing_ok=True)
                problem = "" if outcome.value == [] else str(outcome)
                if not problem:
                    after = server.run(check, *arguments[:3], FINISHED)
                    problem = str(after) if after.signal or after.text else ""
                tally.add(f"{left} pages left, {arguments}: {problem}" if problem else None)
                shutil.rmtree(root)
    tally.check()
