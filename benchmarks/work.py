"""How much work is each operation: instructions, cache misses, system calls, bytes, memory?

Counts are the same from run to run, where times of the same code differ by a tenth and more: a
difference of 1% in instructions, and any in system calls, is one of the code. They say nothing of
waiting, and are of one version of Python and of the libraries. `benchmarks.counting` says how.
"""

import json
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from benchmarks import counting, datasets, environment
from benchmarks.common import BACKENDS, version

CACHE = "work.json"
CODE, PLAIN = "storage_impl", "plain"
PLAIN_OPERATIONS = ("write many", "read all", "read one", "shuffled batches", "open")


class Work:
    """Base: what every operation costs, counted once for a commit and an environment.

    Of 64 images in 32x32:

    - write many, write one, append: durable. `append` opens a store of 32 images, adds as many
      and closes it.
    - read all, read one, shuffled batches: from a store that did the same before.
    - labels: `read_labels` of 8 stores that were just opened.
    - open, open alone: opening and closing, 8 times. `open` is of a store that the process has
      open, and may share what that has; `open alone` is of one that nobody has open.
    - verify: `verify` of a store that was just opened.

    8 images are written, and read, one by one; 32 are a batch.
    """

    params: tuple[tuple[str, ...], ...] = (BACKENDS, counting.OPERATIONS)
    param_names = ("backend", "operation")
    timeout = 600.0
    version = version(1)
    code = CODE
    program: str

    def setup_cache(self) -> None:
        """Count everything, each backend in a process of its own."""
        environment.record_facts()
        environment.check_versions()
        images, labels = datasets.load(counting.IMAGES)
        with tempfile.TemporaryDirectory() as directory:
            packages = Path(directory)
            for name in ("storage_impl", "benchmarks.plain"):
                copy_package(name, packages)
            modules = {CODE: dict.fromkeys(BACKENDS, CODE)}
            modules[PLAIN] = {backend: f"benchmarks.plain.{backend}" for backend in BACKENDS}
            tasks = [
                counting.Task(f"{code} {backend}", packages, module, backend)
                for code, named in modules.items()
                for backend, module in named.items()
            ]
            processes = os.cpu_count() or 1
            found = counting.count(tasks, images, labels, processes=processes)
        Path(CACHE).write_text(json.dumps(found))

    def setup(self, backend: str, operation: str) -> None:
        """Find what was counted; not applicable where the program that counts is missing."""
        if reason := counting.missing(self.program):
            raise NotImplementedError(reason)
        found = json.loads(Path(CACHE).read_text())[f"{self.code} {backend}"][operation]
        if isinstance(found, str):
            if "No module named 'storage_impl." in found:  # a commit before this backend
                raise NotImplementedError(found)
            raise RuntimeError(f"{operation} failed: {found}")
        self.found = found


class Instructions(Work):
    """What the processor does, as valgrind counts it."""

    program = "valgrind"

    def track_instructions(self, backend: str, operation: str) -> int:
        """Return the instructions outside of the kernel."""
        return int(self.found["instructions"])

    def track_d1_misses(self, backend: str, operation: str) -> int:
        """Return the accesses to data that miss a simulated first cache of 32 KiB."""
        return int(self.found["d1_misses"])

    def track_ll_misses(self, backend: str, operation: str) -> int:
        """Return the accesses to data and code that miss a simulated last cache of 1 MiB."""
        return int(self.found["ll_misses"])

    track_instructions.unit = "instructions"  # type: ignore[attr-defined]
    track_d1_misses.unit = track_ll_misses.unit = "misses"  # type: ignore[attr-defined]


class SystemCalls(Work):
    """What is asked of the kernel, as strace counts it: all but memory and locks."""

    program = "strace"

    def track_syscalls(self, backend: str, operation: str) -> int:
        """Return the system calls."""
        return int(self.found["syscalls"])

    def track_bytes_read(self, backend: str, operation: str) -> int:
        """Return the bytes that calls read: what is mapped into memory is not among them."""
        return int(self.found["bytes_read"])

    def track_bytes_written(self, backend: str, operation: str) -> int:
        """Return the bytes that calls write."""
        return int(self.found["bytes_written"])

    def track_syncs(self, backend: str, operation: str) -> int:
        """Return the calls that wait for the disk: fsync, fdatasync, msync."""
        return int(self.found["syncs"])

    track_syscalls.unit = "calls"  # type: ignore[attr-defined]
    track_bytes_read.unit = track_bytes_written.unit = "bytes"  # type: ignore[attr-defined]
    track_syncs.unit = "syncs"  # type: ignore[attr-defined]


class Memory(Work):
    """What Python and numpy hold at once, as tracemalloc notes it: a copy of what is read shows."""

    params = (BACKENDS, ("read all", "read one", "shuffled batches", "verify"))
    program = "tracemalloc"

    def track_peak_memory(self, backend: str, operation: str) -> int:
        """Return the most bytes; what C libraries allocate by themselves is not among them."""
        return int(self.found["peak_memory"])

    track_peak_memory.unit = "bytes"  # type: ignore[attr-defined]


class PlainInstructions(Instructions):
    """The same of the plain code: what the library itself does, and no promise."""

    params = (BACKENDS, PLAIN_OPERATIONS)
    code = PLAIN


class PlainSystemCalls(SystemCalls):
    """The same of the plain code: `write many` makes the store, too."""

    params = (BACKENDS, PLAIN_OPERATIONS)
    code = PLAIN


def copy_package(name: str, directory: Path) -> None:
    """Copy an installed package, and nothing that lies beside it."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(f"{name} is not installed")
    (source,) = found.submodule_search_locations
    made = directory.joinpath(*name.split("."))
    shutil.copytree(source, made)
    if made.parent != directory:
        (made.parent / "__init__.py").touch()
