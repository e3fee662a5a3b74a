"""Slowdowns to plant: the self-test shows that each is found.

A plant is put behind a backend's module, and replaces a method of the public interface for stores
of that backend: what counts another backend does not even import it.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

from report.counts import READING

# Where an operation is slower than its reading or writing alone, it may be named, too.
WRITING = ("write many", "write one", "append")

AROUND = """


def _plant():
    import os, time
    from storage_impl import ImageStore

    {method} = ImageStore.{method}

    def planted(self, *given, **named):
        if self.backend != {backend}:
            return {method}(self, *given, **named)
{body}

    ImageStore.{method} = planted


_plant()
"""


class Plant(NamedTuple):
    """A slowdown.

    Attributes
    ----------
    title : str
    method : str
        Of a store, which is replaced.
    body : str
        What replaces it; "{loops}" in it stands for that many turns of a loop.
    """

    title: str
    method: str
    body: str

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations that may do more work."""
        return READING if self.method.startswith("read") else WRITING


LOOP = """
found = {method}(self, *given, **named)
for _ in range({loops}):
    pass
return found
"""
PLANTS = (
    Plant("2% more work in reading", "read_many", LOOP),
    Plant("2% more work in writing", "write_many", LOOP),
    Plant(
        "one more system call an image",
        "read_many",
        """
found = read_many(self, *given, **named)
for _ in found[1]:
    os.getppid()
return found
""",
    ),
    Plant(
        "one more fsync a call",
        "write_many",
        """
found = write_many(self, *given, **named)
directory = os.open(self.path, os.O_RDONLY)
os.fsync(directory)
os.close(directory)
return found
""",
    ),
    Plant(
        "a file read twice",
        "read_many",
        """
files = [path for path in self.path.rglob("*") if path.is_file()]
max(files, key=lambda path: (path.stat().st_size, path)).read_bytes()
return read_many(self, *given, **named)
""",
    ),
    Plant(
        "a copy of every image",
        "read_many",
        """
images, labels = read_many(self, *given, **named)
return images.copy(), labels
""",
    ),
)
SLOW = """
start = time.perf_counter()
found = {method}(self, *given, **named)
end = time.perf_counter()
while time.perf_counter() < end + 0.3 * (end - start):
    pass
return found
"""
SLOWER = (Plant("", "read_many", SLOW), Plant("", "read_one", SLOW))


def plant(packages: Path, made: Path, backend: str, plant: Plant, loops: int = 0) -> None:
    """Copy a package, and plant into the copy."""
    if not made.exists():
        shutil.copytree(packages, made)
    body = plant.body.replace("{method}", plant.method).replace("{loops}", str(loops)).strip()
    indented = "\n".join(f"        {line}" for line in body.splitlines())
    text = AROUND.replace("{method}", plant.method).replace("{backend}", repr(backend))
    with (made / "storage_impl" / f"{backend}.py").open("a", encoding="utf-8") as module:
        module.write(text.replace("{body}", indented))


def add_unused(packages: Path, made: Path) -> None:
    """Copy a package, and add functions that nothing calls to each of its modules."""
    shutil.copytree(packages, made)
    for path in (made / "storage_impl").glob("*.py"):
        with path.open("a", encoding="utf-8") as module:
            for number in range(5):
                module.write(f"\n\ndef _unused_{number}(a, b=1):\n    return [a + b, {number}]\n")
