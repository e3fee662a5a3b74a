"""What can prevent a run, each with a message that says what to do."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from report import own_images

_LITTLE = 200 << 20  # bytes; a virtual environment takes about as much


class ObstacleError(Exception):
    """The run cannot start or continue; the message says what to do."""


def check_python() -> None:
    """Raise ObstacleError unless this Python is one that the package supports."""
    if sys.version_info < (3, 11):  # noqa: UP036, tox takes whichever Python it runs on
        found = ".".join(map(str, sys.version_info[:3]))
        raise ObstacleError(
            f"This is Python {found}, but the suite needs 3.11 or later: "
            "run the same commands with a newer one."
        )


def check_checkout(root: Path) -> None:
    """Raise ObstacleError unless there is a commit that asv can measure."""
    if shutil.which("git") is None:
        raise ObstacleError(
            "The program git is missing, which asv needs to get the commit to measure: "
            "install git and run the same command again."
        )
    if not (root / ".git").exists():
        raise ObstacleError(
            f"{root} is not a git checkout, but asv measures commits: clone the repository with "
            "git instead of downloading an archive of it, or make this folder a checkout with\n"
            '    git init && git add . && git commit -m "As downloaded"'
        )
    head = subprocess.run(
        ["git", "rev-parse", "--verify", "HEAD^{commit}"], cwd=root, capture_output=True, text=True
    )
    if head.returncode != 0:
        raise ObstacleError(
            "git finds no commit here, but asv measures commits: clone the repository again, "
            "or commit what is here. git says:\n    " + head.stderr.strip()
        )


def check_space(directory: Path, needed: int) -> None:
    """Raise ObstacleError unless `needed` bytes are free where `directory` is."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ObstacleError(
            f"{free >> 20:,} MB are free on the disk of {directory}, but this run needs about "
            f"{needed >> 20:,} MB: free some space, or, if TMPDIR is on that disk, set it to a "
            "folder on a larger one."
        )


def check_dataset() -> None:
    """Raise ObstacleError if the images to use are not there."""
    path = os.environ.get(own_images.DATASET)
    if path and not os.path.isdir(path):
        raise ObstacleError(
            f"STORAGE_IMPL_DATASET names {path}, but there is no such folder: correct it, or "
            "unset it to use synthetic images."
        )
    if problem := own_images.look():
        raise ObstacleError(problem)


def advice(directory: Path) -> str:
    """Return what to do after an installation into `directory` failed; pip has said why."""
    if shutil.disk_usage(directory).free < _LITTLE:
        return (
            f"Nothing could be installed, because the disk of {directory} is nearly full: "
            "free some space and run the same command again."
        )
    return (
        "Nothing could be installed; pip's message above says why. If it could not connect or "
        "found no versions at all, the package index is out of reach: check the network (behind "
        "a proxy or with an index of your own, set HTTPS_PROXY or PIP_INDEX_URL) and run the "
        "same command again."
    )


def wrapped(message: str) -> str:
    """Return a message in lines that fit a terminal; a path or a line to copy stays whole."""
    lines = textwrap.TextWrapper(96, break_long_words=False, break_on_hyphens=False)
    return "\n".join(
        line if line.startswith(" ") else lines.fill(line) for line in message.splitlines()
    )
