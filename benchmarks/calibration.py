"""How fast is the machine itself, whatever is installed in the environment?

A fixed load on the CPU and one on the disk, with the standard library alone. If these figures are
slower in one run than in another, then the machine was slower, and not the code.
"""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

STEPS = 200_000
BLOCK = 1 << 23  # bytes
COPIES = 8
WRITTEN = 1 << 22  # bytes


class Cpu:
    """Arithmetic in the interpreter, and copies of memory too large for the CPU's caches."""

    # rounds x repeat >= 10: with fewer samples asv cannot call a difference significant.
    rounds = 2
    repeat = 5
    number = 1
    warmup_time = 0.1
    version = "1"

    def setup(self) -> None:
        """Make the block to copy, and check the results of the work."""
        self.block = bytearray(b"\x01\x02\x03\x04") * (BLOCK // 4)
        self.time_work()
        if (self.state, self.copied) != (775_356_609, COPIES * BLOCK):
            raise RuntimeError(
                f"the work gave {self.state} and copied {self.copied} bytes, and not what it should"
            )

    def time_work(self) -> None:
        """Step a generator of random numbers 200,000 times, and copy 8 MiB 8 times."""
        state = 1
        for _ in range(STEPS):
            state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        self.state = state
        self.copied = sum(len(bytes(self.block)) for _ in range(COPIES))


class Disk:
    """Write, sync and read a file; the read comes from the page cache."""

    rounds = 2
    repeat = 5
    number = 1
    warmup_time = 0.0
    version = "1"

    def setup(self) -> None:
        """Choose a new file, and check what the work reads."""
        self.undo = ExitStack()
        scratch = self.undo.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd()))
        self.path = Path(scratch, "written")
        self.content = bytes(range(256)) * (WRITTEN // 256)
        self.time_work()
        if self.found != self.content:
            raise RuntimeError("what was read differs from what was written")
        self.path.unlink()

    def time_work(self) -> None:
        """Write 4 MiB, sync it and read it."""
        with open(self.path, "xb") as file:
            file.write(self.content)
            file.flush()
            os.fsync(file.fileno())
        with open(self.path, "rb") as file:
            self.found = file.read()

    def teardown(self) -> None:
        """Remove the file."""
        self.undo.close()
