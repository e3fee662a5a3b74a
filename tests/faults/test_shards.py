"""A dataset is right or absent, wherever its run is killed, fails or loses power."""

import errno
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np

import storage_impl
from storage_impl import shards
from tests.parts import parts_of
from tests.samples import SHAPE, images_of, labels_of

from .power import Disk, choose
from .tally import FULL, SEED, Tally
from .tool import Action, Fault, Op, Server, mark, read_log

SIZES = (2, 3)
COUNT = sum(SIZES)


class InTurn(Executor):
    """Runs each call when it is submitted, in this process, so that what it asks can be counted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def write(path: Path, backend: str, fingerprint: str | None) -> None:
    """Write the dataset; the log says when that has returned."""
    shards.write_shards(
        path,
        parts_of(SIZES),
        backend=backend,
        image_shape=SHAPE,
        executor=InTurn(),
        fingerprint=fingerprint,
    )


def write_marked(path: Path, backend: str, fingerprint: str | None) -> None:
    """The same, and the log of calls says when it has returned."""
    write(path, backend, fingerprint)
    mark("written")


def write_and_retry(path: Path, backend: str, fingerprint: str | None) -> list[str]:
    """The names of the errors that are not as promised."""
    try:
        write(path, backend, fingerprint)
    except (storage_impl.WriteFailedError, storage_impl.ReadFailedError):
        return []
    except Exception as error:
        return [repr(error)]
    return []


def check(path: Path, backend: str, fingerprint: str | None, written: bool) -> None:
    """It is right, or absent unless it was written; then the next run makes it right."""
    try:
        store = storage_impl.open_store(path, verify=True)
    except (storage_impl.StoreNotFoundError, storage_impl.NotAStoreError):
        assert not written, "the dataset is gone"
        write(path, backend, fingerprint)
        store = storage_impl.open_store(path, verify=True)
    with store:
        assert isinstance(store, shards.ShardedStore)
        store.verify()
        images, labels = store.read_many()
        assert np.array_equal(images, images_of(COUNT))
        assert np.array_equal(labels, labels_of(COUNT))
        assert sorted(os.listdir(path)) == sorted([store.fingerprint, "shards.json", "write.lock"])
        assert sorted((path / store.fingerprint).iterdir()) == store.shards


def log_of(faulty: Server, scratch: Path, *arguments: Any) -> tuple[Path, list[Any]]:
    """The directory that a whole run was done in, and its calls."""
    root, log = Path(tempfile.mkdtemp(dir=scratch)), scratch / "log"
    outcome = faulty.run(write_marked, root / "train", *arguments, root=root, log=log)
    assert not outcome.text, str(outcome)
    return root, read_log(log)


def test_killed_at_every_call(
    faulty: Server, server: Server, scratch: Path, backend: str, tally: Tally
) -> None:
    """Wherever the run is killed, the dataset is absent or right, and nothing else stays."""
    points = []
    for fingerprint in (None, "May"):
        _, records = log_of(faulty, scratch, backend, fingerprint)
        calls = sum(record.op not in (Op.MARK, Op.OPEN) for record in records)
        for at in range(1, calls + 1):
            points += [
                (fingerprint, Fault(Action.KILL_BEFORE, at)),
                (fingerprint, Fault(Action.KILL_INSIDE, at)),
            ]
    if not FULL:
        points = random.Random(SEED).sample(points, 40)
    for fingerprint, fault in points:
        root = Path(tempfile.mkdtemp(dir=scratch))
        arguments = (root / "train", backend, fingerprint)
        outcome = faulty.run(write_marked, *arguments, root=root, log=scratch / "log", fault=fault)
        assert outcome.signal == signal.SIGKILL, str(outcome)
        after = server.run(check, *arguments, False)
        failed = after.signal or after.text
        tally.add(f"{fault}, {fingerprint}: {after}" if failed else None)
        shutil.rmtree(root)
    tally.check(at_least=len(points))


def test_power_cut(
    faulty: Server, server: Server, scratch: Path, backend: str, tally: Tally
) -> None:
    """Whatever a power cut leaves, too; and once the run has returned, the dataset stays."""
    random_ = random.Random(SEED)
    states = 300 if FULL else 40
    root, records = log_of(faulty, scratch, backend, None)
    cuts = sorted(random_.randrange(len(records) + 1) for _ in range(states))
    cuts += [len(records)] * 10
    disk = Disk(root)
    written = False
    for position in range(len(records) + 1):
        for _ in range(cuts.count(position)):
            disk.cut(scratch / "state", *choose(random_))
            after = server.run(check, scratch / "state" / "train", backend, None, written)
            failed = after.signal or after.text
            tally.add(f"cut at {position} of {len(records)}: {after}" if failed else None)
            shutil.rmtree(scratch / "state")
        if position < len(records):
            disk.apply(records[position])
            written = written or records[position].op is Op.MARK
    tally.check(at_least=states)


def test_failing_calls(
    faulty: Server, server: Server, scratch: Path, backend: str, tally: Tally
) -> None:
    """A call that fails is a typed error, and the next run makes the dataset right."""
    _, records = log_of(faulty, scratch, backend, None)
    calls = sum(record.op not in (Op.MARK, Op.OPEN) for record in records)
    trials = [
        Fault(Action.FAIL, at, error)
        for at in range(1, calls + 1)
        for error in (errno.EIO, errno.ENOSPC)
    ]
    if not FULL:
        trials = random.Random(SEED).sample(trials, 30)
    for fault in trials:
        root = Path(tempfile.mkdtemp(dir=scratch))
        arguments = (root / "train", backend, None)
        outcome = faulty.run(
            write_and_retry, *arguments, root=root, log=scratch / "log", fault=fault
        )
        after = server.run(check, *arguments, False)
        failed = outcome.value != [] or after.signal or after.text
        tally.add(f"{fault}: {outcome}, {after}" if failed else None)
        shutil.rmtree(root)
    tally.check(at_least=len(trials))
