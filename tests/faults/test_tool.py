"""The fault tool itself, on plain code whose behaviour is known."""

import errno
import os
import random
import signal
from pathlib import Path

import pytest

from .power import Disk, choose, everything
from .tool import Action, Fault, Op, Server, mark, marks, read_log, stop_faults


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def put(path: Path, data: bytes, sync: bool, sync_names: bool) -> None:
    """Replace a file through a temporary one, with or without what makes it safe."""
    with open(path.with_suffix(".tmp"), "wb", buffering=0) as file:
        file.write(data)
        if sync:
            os.fsync(file.fileno())
    os.rename(path.with_suffix(".tmp"), path)
    if sync_names:
        sync_directory(path.parent)


def replace_five_times(root: Path, sync: bool, sync_names: bool) -> None:
    """A file that holds 1500 bytes of one value, replaced by those of the next."""
    for n in range(5):
        mark(f"begin {n}")
        put(root / "file", bytes([n + 1]) * 1500, sync, sync_names)
        mark(f"done {n}")


def every_call(root: Path) -> None:
    """Each call that the tool knows, once at least."""
    os.mkdir(root / "a")
    directory = os.open(root, os.O_RDONLY)
    os.mkdir("b", dir_fd=directory)
    fd = os.open("b/one", os.O_RDWR | os.O_CREAT, dir_fd=directory)
    os.write(fd, b"abc")
    os.pwrite(fd, b"xy", 1000)
    os.writev(fd, [b"de", b"", b"fgh"])
    os.pwritev(fd, [b"1", b"22"], 2000)
    os.lseek(fd, 10, os.SEEK_SET)
    os.write(fd, b"tenth")
    os.ftruncate(fd, 1999)
    os.posix_fallocate(fd, 0, 5000)
    os.fdatasync(fd)
    os.close(fd)
    with open(root / "b" / "two", "ab") as file:
        file.write(b"first")
    with open(root / "b" / "two", "ab") as file:
        file.write(b" second")
        file.flush()
        os.sync()
    with open(root / "b" / "two", "r+b") as file:
        file.truncate(9)
    with open(root / "three", "wb") as file:
        file.write(b"x" * 10_000)
    with open(root / "three", "wb") as file:
        file.write(b"short")
    os.truncate(root / "three", 3)
    os.link(root / "three", root / "four")
    os.replace(root / "b" / "one", root / "a" / "one")
    os.rename("b", "c", src_dir_fd=directory, dst_dir_fd=directory)
    os.unlink(root / "three")
    os.mkdir(root / "d")
    os.rmdir(root / "d")
    os.fsync(directory)
    os.close(directory)


def content(root: Path) -> dict[str, bytes | None]:
    """All files below a directory, and None for directories."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def watched(scratch: Path) -> tuple[Path, Path]:
    """An empty directory to watch, and a place for the log outside of it."""
    (scratch / "root").mkdir()
    return scratch / "root", scratch / "log"


def test_log_is_complete(faulty: Server, scratch: Path) -> None:
    """Replaying the log gives the same files: no call was missed."""
    root, log = watched(scratch)
    assert not faulty.run(every_call, root, root=root, log=log).text
    records = read_log(log)
    disk = Disk(root)
    for record in records:
        disk.apply(record)
    disk.cut(scratch / "replayed", everything)
    assert content(scratch / "replayed") == content(root)
    assert set(Op) - {record.op for record in records} == {Op.MMAP, Op.MARK}


@pytest.mark.parametrize(
    ("action", "done"),
    [(Action.KILL_BEFORE, 0), (Action.KILL_INSIDE, 750), (Action.KILL_AFTER, 1500)],
)
def test_killed_at_a_call(faulty: Server, scratch: Path, action: Action, done: int) -> None:
    """The process dies at the call that was named: here the second write of six."""
    root, log = watched(scratch)
    fault = Fault(action, at=2)
    outcome = faulty.run(replace_five_times, root, True, True, root=root, log=log, fault=fault)
    assert outcome.signal == signal.SIGKILL
    assert content(root) == {"file.tmp": b"\1" * done}
    assert marks(log) == ["begin 0"]


def test_every_kill_of_a_safe_replacement(faulty: Server, scratch: Path) -> None:
    """Killed at each call in turn, a file replaced by rename is the old or the new one."""
    for at in range(1, 100):
        root, log = scratch / f"root {at}", scratch / "log"
        root.mkdir()
        fault = Fault(Action.KILL_BEFORE, at)
        outcome = faulty.run(replace_five_times, root, True, True, root=root, log=log, fault=fault)
        done = sum(text.startswith("done") for text in marks(log))
        begun = sum(text.startswith("begin") for text in marks(log))
        allowed = [bytes([n]) * 1500 for n in (done, begun) if n]
        assert (root / "file").read_bytes() in allowed if done else done == 0
        if not outcome.signal:
            assert at == 5 * 5 + 1  # create, write, fsync, rename, fsync: five times
            return
    raise AssertionError("the workload never ended")


def fail_and_retry(root: Path) -> list[int | None]:
    """Five replacements, the errno of each; the fault ends with the fourth."""
    errors: list[int | None] = []
    for n in range(5):
        if n == 4:
            stop_faults()
        try:
            put(root / "file", bytes([n]), True, True)
        except OSError as error:
            errors.append(error.errno)
        else:
            errors.append(None)
    return errors


def test_failing_calls(faulty: Server, scratch: Path) -> None:
    """A call fails once, or each from there on until the fault ends."""
    root, log = watched(scratch)
    fault = Fault(Action.FAIL, at=7, error=errno.EIO)
    outcome = faulty.run(fail_and_retry, root, root=root, log=log, fault=fault)
    assert outcome.value == [None, errno.EIO, None, None, None]
    fault = Fault(Action.FAIL, at=7, error=errno.ENOSPC, lasting=True)
    outcome = faulty.run(fail_and_retry, root, root=root, log=log, fault=fault)
    assert outcome.value == [None, errno.ENOSPC, errno.ENOSPC, errno.ENOSPC, None]


def test_short_write(faulty: Server, scratch: Path) -> None:
    """A short write does half, and says so."""
    root, log = watched(scratch)
    fault = Fault(Action.SHORT_WRITE, at=2)
    faulty.run(put, root / "file", b"abcd", True, True, root=root, log=log, fault=fault)
    assert content(root) == {"file": b"ab"}


def survivors(records_root: Path, log: Path, scratch: Path, states: int) -> int:
    """Of so many power cuts, how many leave the last completed replacement or a later one."""
    random_ = random.Random(1)
    records = read_log(log)
    good = 0
    for state in range(states):
        disk, done, begun = Disk(records_root), 0, 0
        for record in records[: random_.randrange(len(records) + 1)]:
            disk.apply(record)
            if record.op is Op.MARK:
                done += record.path.startswith("done")
                begun += record.path.startswith("begin")
        target = scratch / f"state {state}"
        disk.cut(target, *choose(random_))
        file = target / "file"
        data = file.read_bytes() if file.exists() else None
        allowed = [bytes([n]) * 1500 if n else None for n in (done, begun)]
        good += data in allowed
    return good


def test_power_cut_of_a_safe_replacement(faulty: Server, scratch: Path) -> None:
    """Written aside, synced, renamed, directory synced: each state is the old or the new one."""
    root, log = watched(scratch)
    faulty.run(replace_five_times, root, True, True, root=root, log=log)
    assert survivors(root, log, scratch, 300) == 300


@pytest.mark.parametrize(("sync", "sync_names"), [(False, True), (True, False), (False, False)])
def test_power_cut_of_an_unsafe_replacement(
    faulty: Server, scratch: Path, sync: bool, sync_names: bool
) -> None:
    """Without the one sync or the other, power cuts are found that lose the file."""
    root, log = watched(scratch)
    faulty.run(replace_five_times, root, sync, sync_names, root=root, log=log)
    assert survivors(root, log, scratch, 300) < 250


def synced_write(root: Path) -> None:
    """A write of one sector, not synced, then another through a synced descriptor."""
    fd = os.open(root / "file", os.O_WRONLY | os.O_CREAT)
    sync_directory(root)
    os.pwrite(fd, b"a" * 512, 0)
    synced = os.open(root / "file", os.O_WRONLY | os.O_DSYNC)
    os.pwrite(synced, b"b" * 512, 512)


def test_synced_descriptor(faulty: Server, scratch: Path) -> None:
    """A write through O_DSYNC is durable, the one before it is not."""
    root, log = watched(scratch)
    faulty.run(synced_write, root, root=root, log=log)
    disk = Disk(root)
    for record in read_log(log):
        disk.apply(record)
    disk.cut(scratch / "state", lambda kind: False)
    assert content(scratch / "state") == {"file": bytes(512) + b"b" * 512}


def allocate(size: int) -> int:
    """Take memory."""
    return len(bytearray(size))


def wait() -> None:
    """Never end."""
    signal.pause()


def abort() -> None:
    """End by a signal."""
    os.abort()


def test_limits(server: Server) -> None:
    """Too much memory is a MemoryError, too much time and a crash are signals."""
    assert server.run(allocate, 2**27, memory=2**28).value == 2**27
    assert "MemoryError" in server.run(allocate, 2**29, memory=2**28).raised
    assert server.run(wait, seconds=0.1).signal == signal.SIGALRM
    assert server.run(abort).signal == signal.SIGABRT
