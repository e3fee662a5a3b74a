"""Killed at each call to the disk, or at any time, a store holds the calls that returned."""

import random
import shutil
import signal
from pathlib import Path

import storage_impl

from .tally import FULL, SEED, Tally
from .tool import Action, Fault, Op, Server, marks, read_log
from .workload import VARIANTS, Variant, check, known, write

Conditions = tuple[Variant, bool]  # and whether durable


def kill_points(faulty: Server, scratch: Path, backend: str) -> list[tuple[Conditions, Fault]]:
    """Every call of the workload, before it and, for a write, inside of it."""
    points = []
    for number, variant in enumerate(VARIANTS[backend]):
        for durable in (True, False):
            root, log = scratch / f"{number}-{durable}", scratch / "log"
            root.mkdir()
            outcome = faulty.run(
                write, root / "store", backend, variant, durable, root=root, log=log
            )
            assert outcome.value is None, str(outcome)
            assert not outcome.text, str(outcome)
            calls = [r for r in read_log(log) if r.op not in (Op.MARK, Op.OPEN)]
            for at, call in enumerate(calls, 1):
                points.append(((variant, durable), Fault(Action.KILL_BEFORE, at)))
                if call.op is Op.WRITE:
                    points.append(((variant, durable), Fault(Action.KILL_INSIDE, at)))
                else:
                    points.append(((variant, durable), Fault(Action.KILL_AFTER, at)))
    return points


def test_killed_at_every_call(
    faulty: Server, server: Server, scratch: Path, backend: str, tally: Tally
) -> None:
    """Reopened it holds exactly what returned, or that and the call under way, whole."""
    points = kill_points(faulty, scratch, backend)
    if not FULL:
        points = random.Random(SEED).sample(points, 90)
    for number, ((variant, durable), fault) in enumerate(points):
        root, log = scratch / str(number), scratch / "log"
        root.mkdir()
        path = root / "store"
        outcome = faulty.run(
            write, path, backend, variant, durable, root=root, log=log, fault=fault
        )
        assert outcome.signal == signal.SIGKILL, str(outcome)
        state = known(marks(log))
        after = server.run(check, path, backend, variant, state)
        problem = f"{fault}, {variant}, durable={durable}, {state}: {after}"
        tally.add(problem if after.signal or after.text else None)
        shutil.rmtree(root)
    tally.check(at_least=len(points))


def test_killed_at_any_time(
    faulty: Server, server: Server, scratch: Path, backend: str, tally: Tally
) -> None:
    """The same where a timer ends the process, between two instructions."""
    random_ = random.Random(SEED)
    for number in range(600 if FULL else 30):
        root, log = scratch / str(number), scratch / "log"
        root.mkdir()
        path, variant, durable = (
            root / "store",
            random_.choice(VARIANTS[backend]),
            random_.random() < 0.5,
        )
        seconds = random_.uniform(0.0005, 0.03)
        faulty.run(write, path, backend, variant, durable, root=root, log=log, seconds=seconds)
        state = known(marks(log)) if log.exists() else known([])
        after = server.run(check, path, backend, variant, state)
        problem = f"after {seconds} s, {variant}, durable={durable}, {state}: {after}"
        tally.add(problem if after.signal or after.text else None)
        shutil.rmtree(root)
        log.unlink(missing_ok=True)
    tally.check()


def append(path: Path, variant: Variant, count: int) -> None:
    """Append sample images in one call."""
    with storage_impl.open_store(path, "a") as store:
        variant.write(store, count)


def files_and_bytes(path: Path) -> tuple[int, int]:
    """Count the files below a directory, and their bytes."""
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    return len(sizes), sum(sizes)


def test_litter_does_not_grow(faulty: Server, scratch: Path, backend: str, tally: Tally) -> None:
    """Killed a hundred times at random, a store is no larger than one that never was."""
    variant = VARIANTS[backend][1]
    path, log = scratch / "store", scratch / "log"
    random_ = random.Random(SEED)
    variant.create(path, backend).close()
    done = faulty.run(append, path, variant, 5, root=scratch, log=log)
    assert not done.text, str(done)
    calls = sum(record.op not in (Op.MARK, Op.OPEN) for record in read_log(log))
    for _ in range(100 if FULL else 30):
        fault = Fault(
            random_.choice((Action.KILL_BEFORE, Action.KILL_INSIDE)), 1 + random_.randrange(calls)
        )
        faulty.run(append, path, variant, 5, root=scratch, log=log, fault=fault)
        tally.add(None)
    append(path, variant, 5)
    with storage_impl.open_store(path) as store:
        appends = len(store) // 5
    clean = scratch / "clean"
    variant.create(clean, backend).close()
    for _ in range(appends):
        append(clean, variant, 5)
    files, size = files_and_bytes(path)
    clean_files, clean_size = files_and_bytes(clean)
    assert files == clean_files
    assert size <= clean_size + 20 * variant.images(5).nbytes
    tally.check()
