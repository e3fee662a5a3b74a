"""Check the installed versions, and record facts about a run that asv does not record.

asv's files of results have no place for these facts. They are written beside each file of results,
once for each commit and environment, under the same name with the suffix ".facts". The content is
one JSON object of strings.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

UNKNOWN = "unknown"
PAGE_CACHE = "warm unless a benchmark says cold"
RESULTS = Path(".asv", "results")  # as in asv.conf.json: asv does not pass on its results_dir


def check_versions() -> None:
    """Raise RuntimeError unless the installed versions are those that the results will name."""
    directory = os.environ.get("ASV_ENV_DIR")
    if directory is None:  # the user's own environment: the results name no versions
        return
    environment = json.loads(Path(directory, "asv-env-info.json").read_text())
    for library, named in environment["requirements"].items():
        found = importlib.metadata.version(library)
        if found.partition("+")[0] != named:  # after the "+" is how it was built: torch's "+cpu"
            raise RuntimeError(
                f"the results would name {library} {named}, but {found} is installed: "
                f"remove {directory} and run again"
            )


def record_facts() -> None:
    """Write the facts beside the results of this run, if it keeps any."""
    path = sidecar()
    if path is not None:
        path.write_text(json.dumps(collect(), indent=2, sort_keys=True) + "\n")


def sidecar() -> Path | None:
    """Return the file to write; None unless asv measures a commit in its own environment."""
    try:
        directory = Path(os.environ["ASV_CONF_DIR"], RESULTS)
        commit, environment = os.environ["ASV_COMMIT"], os.environ["ASV_ENV_NAME"]
    except KeyError:
        return None
    # asv first describes the machine there, under its own name or the one that --machine gives.
    machines = sorted(directory.glob("*/machine.json"), key=lambda path: path.stat().st_mtime_ns)
    if not machines:
        return None
    if len(environment) >= 128:  # as asv.results.get_filename shortens it
        environment = f"env-{hashlib.md5(environment.encode()).hexdigest()}"
    return machines[-1].with_name(f"{commit[:8]}-{environment}.facts")


def collect() -> dict[str, str]:
    """Return all facts; the current directory is the scratch directory."""
    return {
        **libraries(),
        "file system": file_system(Path.cwd()),
        "kernel": f"{platform.system()} {platform.release()}",
        "CPU": cpu(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "page cache": PAGE_CACHE,
        "valgrind": valgrind(),
    }


def valgrind() -> str:
    """Return the version of valgrind, since another version counts instructions differently."""
    if shutil.which("valgrind") is None:
        return "none"
    done = subprocess.run(["valgrind", "--version"], stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().removeprefix("valgrind-") or UNKNOWN


def libraries() -> dict[str, str]:
    """Return the versions of the C libraries that come inside the Python packages."""
    import h5py
    import lmdb
    import xxhash
    from PIL import features

    # Pillow before 11.1 does not know this name, and warns when it is asked for it.
    next_generation = "zlib_ng" in features.features and features.version_feature("zlib_ng")
    zlib = "zlib-ng" if next_generation else "zlib"
    return {
        "LMDB": ".".join(map(str, lmdb.version())),
        "HDF5": h5py.version.hdf5_version,
        zlib: next_generation or features.version_codec("zlib") or UNKNOWN,
        "xxHash": xxhash.XXHASH_VERSION,
    }


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that a directory is on; "unknown" except on Linux."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return UNKNOWN
    types = {}
    for line in lines:  # proc(5): "… mount-point options optional … - type source options"
        before, _, after = line.partition(" - ")
        # The last mount on a point hides the ones before it. Spaces in its path are octal codes.
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        types[Path(point)] = after.split()[0]
    path = path.resolve()
    return next((types[place] for place in (path, *path.parents) if place in types), UNKNOWN)


def cpu(description: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's model, or what Python knows of it."""
    try:
        models = re.findall(r"^model name\s*:\s*(.+)$", description.read_text(), re.MULTILINE)
    except OSError:
        models = []
    return next(iter(models), platform.processor() or platform.machine() or UNKNOWN)
