"""Measuring on the user's own images: check them first, and keep their results apart.

asv keeps one file of results for each commit and environment. So the name of the images becomes a
variable of asv's environment, of the kind `env_nobuild`: this gives another file of results, and
the same virtual environment. asv.conf.json cannot do this, because its variables are always set.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DATASET = "STORAGE_IMPL_DATASET"
TAG = "STORAGE_IMPL_IMAGES"  # their name; the path stays private
SEEN = "STORAGE_IMPL_SEEN"  # the path that a command has checked, for the asv that it starts
DEFAULT = "synthetic"
ROOT = Path(__file__).resolve().parent.parent


def name() -> str:
    """Return the name of the images to measure on."""
    return Path(os.environ.get(DATASET, "")).name or DEFAULT


def name_of(variables: Mapping[str, str], version: str) -> str:
    """Return the name of the images that a result is of.

    Parameters
    ----------
    variables : dict of str to str
        The variables of the environment that asv kept.
    version : str
        The version of the benchmark. In results without the variable, it names the images.
    """
    return variables.get(TAG) or version.partition(", ")[2] or DEFAULT


def keep_apart() -> None:
    """Make asv treat the user's own images as another environment, and check them first."""
    from asv import environment

    combinations = environment.iter_matrix

    def tagged(*arguments: Any, **options: Any) -> Iterator[dict[Any, Any]]:
        for combination in combinations(*arguments, **options):
            if name() != DEFAULT:
                if os.environ.get(SEEN) != os.environ[DATASET]:
                    _look()
                combination["env_nobuild", TAG] = name()
            yield combination

    environment.iter_matrix = tagged


@cache  # once for a command of asv
def _look() -> None:
    from asv.util import UserError

    if problem := look():
        raise UserError(problem)


def look() -> str:
    """Print what the dataset holds; return what is wrong with it, or an empty string."""
    if not os.environ.get(DATASET) or not (find_spec("PIL") and find_spec("numpy")):
        return ""  # without Pillow, unreadable images show only when they are measured
    count = ["100000"] if os.environ.get("STORAGE_IMPL_LARGE") else []
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.datasets", *count],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    print(done.stdout, end="", flush=True)
    if done.returncode == 0:
        return ""
    return done.stderr.strip() or "These images cannot be used as they are: see above."
