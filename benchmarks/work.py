"""How much work is each operation: instructions, cache misses, system calls, bytes, memory?

Counts are the same from run to run, while times of the same code differ by 10% and more. So a
difference of 1% in instructions, or any difference in system calls, comes from the code. Counts do
not include waiting, and hold for one version of Python and of the libraries. `benchmarks.counting`
describes how they are taken.
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
    """Base: the work of every operation, counted once for each commit and environment.

    The operations, on 64 images of 32 x 32 pixels:

    - write many, write one, append: into a durable store. `append` opens a store of 32 images, adds
      32 and closes it. `write one` writes 8 images, one by one.
    - read all, read one, shuffled batches: from a store that did the same before. `read one` reads
      8 images, one by one. A batch has 32.
    - labels: `read_labels` of 8 stores that were just opened.
    - open, open alone: opening and closing, 8 times. With `open`, the process already has the same
      store open, and may share its state. With `open alone`, no process has it open.
    - verify: `verify` of a store that was just opened.
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
        """Load the counts; raise NotImplementedError if the program that counts is missing."""
        if reason := counting.missing(self.program):
            raise NotImplementedError(reason)
        found = json.loads(Path(CACHE).read_text())[f"{self.code} {backend}"][operation]
        if isinstance(found, str):
            if "No module named 'storage_impl." in found:  # the commit has no such backend
                raise NotImplementedError(found)
            raise RuntimeError(f"{operation} failed: {found}")
        self.found = found


class Instructions(Work):
    """The work of the processor, as valgrind counts it."""

    program = "valgrind"

    def track_instructions(self, backend: str, operation: str) -> int:
        """Return the instructions outside of the kernel."""
        return int(self.found["instructions"])

    def track_d1_misses(self, backend: str, operation: str) -> int:
        """Return the data accesses that miss a simulated first-level cache of 32 KiB."""
        return int(self.found["d1_misses"])

    def track_ll_misses(self, backend: str, operation: str) -> int:
        """Return the data and code accesses that miss a simulated last-level cache of 1 MiB."""
        return int(self.found["ll_misses"])

    track_instructions.unit = "instructions"  # type: ignore[attr-defined]
    track_d1_misses.unit = track_ll_misses.unit = "misses"  # type: ignore[attr-defined]


class SystemCalls(Work):
    """The system calls, as strace counts them; `counting.COMMANDS` has those left out."""

    program = "strace"

    def track_syscalls(self, backend: str, operation: str) -> int:
        """Return the system calls."""
        return int(self.found["syscalls"])

    def track_bytes_read(self, backend: str, operation: str) -> int:
        """Return the bytes that system calls read, without those of memory-mapped files."""
        return int(self.found["bytes_read"])

    def track_bytes_written(self, backend: str, operation: str) -> int:
        """Return the bytes that system calls write."""
        return int(self.found["bytes_written"])

    def track_syncs(self, backend: str, operation: str) -> int:
        """Return the system calls that wait for the disk, such as fsync, fdatasync and msync."""
        return int(self.found["syncs"])

    track_syscalls.unit = "calls"  # type: ignore[attr-defined]
    track_bytes_read.unit = track_bytes_written.unit = "bytes"  # type: ignore[attr-defined]
    track_syncs.unit = "syncs"  # type: ignore[attr-defined]


class Memory(Work):
    """The memory that Python and numpy hold, as tracemalloc counts it: a copy of a read shows."""

    params = (BACKENDS, ("read all", "read one", "shuffled batches", "verify"))
    program = "tracemalloc"

    def track_peak_memory(self, backend: str, operation: str) -> int:
        """Return the peak in bytes, without what C libraries allocate by themselves."""
        return int(self.found["peak_memory"])

    track_peak_memory.unit = "bytes"  # type: ignore[attr-defined]


class PlainInstructions(Instructions):
    """The same for plain code: the work of the library, without storage_impl's promises."""

    params = (BACKENDS, PLAIN_OPERATIONS)
    code = PLAIN


class PlainSystemCalls(SystemCalls):
    """The same for plain code, whose `write many` also makes the store."""

    params = (BACKENDS, PLAIN_OPERATIONS)
    code = PLAIN


def copy_package(name: str, directory: Path) -> None:
    """Copy an installed package, and nothing else from its directory."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(f"{name} is not installed")
    (source,) = found.submodule_search_locations
    made = directory.joinpath(*name.split("."))
    shutil.copytree(source, made)
    if made.parent != directory:
        (made.parent / "__init__.py").touch()
