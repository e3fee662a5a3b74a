"""The code of README.md and docs/using.md runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.unmeasured
@pytest.mark.parametrize("page", ["README.md", "docs/using.md"])
def test_code_of_a_page(page: str, tmp_path: Path) -> None:
    """Each example runs, with no warning."""
    examples = PYTHON.findall((ROOT / page).read_text(encoding="utf-8"))
    assert examples
    for example in examples:
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr


def test_examples_are_short() -> None:
    """The README's example is read at a glance."""
    (example,) = PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(example.splitlines()) <= 12
