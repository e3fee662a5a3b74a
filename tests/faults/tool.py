"""Run a function in a forked child with a fault injected, and read what it asked of the disk.

`interpose.c` is the other half: a library for LD_PRELOAD that sees the calls.
"""

import ctypes
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from PIL import Image

import storage_impl

SOURCE = Path(__file__).with_name("interpose.c")


class Op(IntEnum):
    """A call that changes the disk, as numbered in interpose.c."""

    WRITE = 1
    TRUNCATE = 2
    CREATE = 3
    MKDIR = 4
    RENAME = 5
    LINK = 6
    UNLINK = 7
    RMDIR = 8
    ALLOCATE = 9
    SYNC = 10
    SYNC_ALL = 11
    MMAP = 12
    OPEN = 13  # of a file that exists: logged, neither counted nor failed
    MARK = 14  # what `mark` was told


class Action(IntEnum):
    """What happens at the call that a `Fault` names."""

    NOTHING = 0
    KILL_BEFORE = 1
    KILL_INSIDE = 2  # half of a write is done; other calls: as KILL_AFTER
    KILL_AFTER = 3
    FAIL = 4
    SHORT_WRITE = 5  # half of a write is done and reported; other calls: as FAIL


SYNCED, WRITABLE = 1, 2  # flags of WRITE (O_DSYNC) and of MMAP


@dataclass(frozen=True)
class Fault:
    """A fault at call number `at` (from 1) below the watched directory.

    With `lasting`, each later call fails too, but that files are removed, cut short and
    renamed; and where `error` is ENOSPC, all that needs no new space.
    """

    action: Action = Action.NOTHING
    at: int = 0
    error: int = 0
    lasting: bool = False


class Record(NamedTuple):
    """One line of the log: a call that succeeded, or a mark (its text is `path`)."""

    op: Op
    path: str
    path2: str
    flags: int
    offset: int
    length: int
    data: bytes


_RECORD = struct.Struct("=IIIIQQQ")


def read_log(path: Path) -> list[Record]:
    """The log which a job left, in the order of the calls."""
    data, records, at = path.read_bytes(), [], 0
    while at < len(data):
        op, flags, n1, n2, offset, length, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        first, second = data[at : at + n1], data[at + n1 : at + n1 + n2]
        at += n1 + n2
        records.append(
            Record(
                Op(op), os.fsdecode(first), os.fsdecode(second), flags, offset, length,
                data[at : at + size],
            )
        )  # fmt: skip
        at += size
    return records


def marks(log: Path) -> list[str]:
    """What the job marked, in order."""
    return [record.path for record in read_log(log) if record.op is Op.MARK]


def compile_library(directory: Path) -> Path | None:
    """Build interpose.c there; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    library = directory / "interpose.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
    subprocess.run([*command, "-o", library, SOURCE, "-lpthread"], check=True)
    return library


def mark(text: str) -> None:
    """Write a line into the log, from inside a job."""
    ctypes.CDLL(None).faults_mark(os.fsencode(text))


def stop_faults() -> None:
    """No more faults in this job: the disk has space again."""
    ctypes.CDLL(None).faults_stop()


def calls_made() -> int:
    """Calls counted so far in this job."""
    return int(ctypes.CDLL(None).faults_count())


@dataclass(frozen=True)
class Job:
    """A function for a child of the server, and the conditions it runs under."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    root: Path | None = None  # watch the calls below it,
    log: Path | None = None  # and log them there
    fault: Fault = Fault()
    seconds: float = 20.0  # then it is ended by SIGALRM
    memory: int | None = None  # bytes that it may allocate beyond what it has


@dataclass(frozen=True)
class Outcome:
    """How a job ended: by returning, by raising or by a signal.

    Attributes
    ----------
    value : object
        What it returned.
    raised : tuple of str
        The names of the classes of what it raised, itself first.
    text : str
        The traceback.
    signal : int
        What ended the process; 0 for none.
    """

    value: Any = None
    raised: tuple[str, ...] = ()
    text: str = ""
    signal: int = 0

    def __str__(self) -> str:
        if self.signal:
            return signal.Signals(self.signal).name
        return self.text or f"returned {self.value!r}"


class Server:
    """A Python process, warm with all imports, that forks a child for each job.

    Parameters
    ----------
    library : Path, optional
        What `compile_library` made; needed by jobs with a `root`.
    """

    def __init__(self, library: Path | None = None) -> None:
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        environment["OPENBLAS_NUM_THREADS"] = "1"  # a fork takes no threads along
        # A child ends as no Python process does, and what was measured of it is lost.
        environment.pop("COVERAGE_PROCESS_CONFIG", None)
        if library is not None:
            environment["LD_PRELOAD"] = str(library)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def run(self, function: Callable[..., Any], *arguments: Any, **conditions: Any) -> Outcome:
        """Run one job; keywords are the fields of `Job`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(Job(function, arguments, **conditions), self._process.stdin)
        self._process.stdin.flush()
        outcome = pickle.load(self._process.stdout)
        assert isinstance(outcome, Outcome)
        return outcome


def serve() -> None:
    """The server's loop: a job in, its outcome out."""
    _import_all()
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            job = pickle.load(requests)
        except EOFError:
            return
        pickle.dump(_fork(job), replies)
        replies.flush()


def _import_all() -> None:
    """Import what each child would import again: that takes longer than most of the jobs."""
    for name in storage_impl.BACKENDS:
        storage_impl.BACKENDS[name]
    for name in ("lmdb._envid", "storage_impl._decoders", "storage_impl.shards", "tests.samples"):
        with suppress(ModuleNotFoundError):  # `lmdb._envid` is a part of some versions
            import_module(name)
    Image.preinit()


def _fork(job: Job) -> Outcome:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "wb") as answer:
            pickle.dump(_run(job), answer)
        ctypes.CDLL(None).exit(0)  # with what the libraries do when a process ends
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        data = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Outcome(signal=os.WTERMSIG(status))
    if not data:
        return Outcome(raised=("SystemExit",), text=f"ended by itself with status {status}")
    outcome = pickle.loads(data)
    assert isinstance(outcome, Outcome)
    return outcome


def _run(job: Job) -> Outcome:
    import resource  # which not every system has

    signal.setitimer(signal.ITIMER_REAL, job.seconds)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if job.memory is not None:
        limit = _data_bytes() + job.memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        if job.root is not None:
            assert job.log is not None
            log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            fault = job.fault
            ctypes.CDLL(None).faults_start(
                os.fsencode(job.root.resolve()), log, fault.action, ctypes.c_long(fault.at),
                fault.error, fault.lasting,
            )  # fmt: skip
        return Outcome(value=job.function(*job.arguments))
    except BaseException as error:
        kinds = tuple(kind.__name__ for kind in type(error).__mro__)
        return Outcome(raised=kinds, text=traceback.format_exc())


def _data_bytes() -> int:
    """What counts against RLIMIT_DATA: private writable memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmData")
