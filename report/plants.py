"""Slowdowns that the self-test plants in the code, to show that each is found.

A plant is appended to a backend's module. It replaces a method of the public interface, for stores
of that backend only. A process that counts another backend does not even import it.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

from report.counts import READING

# The operations in which a plant in a writing method may be reported.
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
        The method of a store that is replaced.
    body : str
        The code that replaces it; "{loops}" in it stands for the number of turns of a loop.
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
    """Copy a package unless that is done, and add a plant to the copy."""
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
