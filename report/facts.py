"""What was recorded beside a file of results: see benchmarks.facts, which writes it."""

import json
from collections.abc import Mapping
from pathlib import Path

# In the order in which they are shown; zlib-ng takes the place of zlib in newer Pillows.
BUNDLED = ("LMDB", "HDF5", "zlib", "zlib-ng", "xxHash")


def facts_of(result_path: str | Path) -> dict[str, str]:
    """Return the facts recorded beside a file of results; none where none can be read."""
    try:
        recorded = json.loads(Path(result_path).with_suffix(".facts").read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(recorded, dict):
        return {}
    return {str(name): str(value) for name, value in recorded.items()}


def libraries(facts: Mapping[str, str]) -> str:
    """Return the C libraries with their versions, in one line."""
    return ", ".join(f"{name} {facts[name]}" for name in BUNDLED if name in facts)
