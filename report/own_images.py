"""Measuring on images of one's own: they are looked at before, and their results stand apart.

asv keeps one file of results for a commit and an environment. Images of one's own are a variable
of the environment to asv, as its `env_nobuild` has it: another file, the same virtual environment.
asv.conf.json cannot say so, since it knows no variable that may be set or not.
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
DEFAULT = "synthetic"
ROOT = Path(__file__).resolve().parent.parent


def name() -> str:
    """Return the name of the images that are measured on."""
    return Path(os.environ.get(DATASET, "")).name or DEFAULT


def name_of(variables: Mapping[str, str], version: str) -> str:
    """Return the name of the images that a result is of.

    Parameters
    ----------
    variables : dict of str to str
        Those that asv kept of the environment.
    version : str
        Of the benchmark; before the variable was there, it had the name of the images.
    """
    return variables.get(TAG) or version.partition(", ")[2] or DEFAULT


def keep_apart() -> None:
    """Have asv take images of one's own for another environment, and look at them before."""
    from asv import environment

    combinations = environment.iter_matrix

    def tagged(*arguments: Any, **options: Any) -> Iterator[dict[Any, Any]]:
        for combination in combinations(*arguments, **options):
            if name() != DEFAULT:
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
    """Print what there is to measure on; return what is wrong with it, or nothing."""
    if not os.environ.get(DATASET) or not (find_spec("PIL") and find_spec("numpy")):
        return ""  # without Pillow here, what is wrong shows when it is measured
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
    return done.stderr.strip() or "These images cannot be measured on as they are; see above."
