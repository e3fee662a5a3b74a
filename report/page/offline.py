"""The site without the network: asv's pages with their scripts beside them.

asv's index.html loads its scripts from the network. They are fetched from the npm registry
once, by npm, checked against the hashes below, and kept under `.asv/`.
"""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import textwrap
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, NamedTuple, cast

from report import obstacles

DIRECTORY = "offline"  # in the site


class Package(NamedTuple):
    """A package of the npm registry.

    Attributes
    ----------
    name : str
        Its name and version as npm takes them.
    sha512 : str
        The hash of its archive, in base64 as npm shows it after "sha512-".
    """

    name: str
    sha512: str


class Script(NamedTuple):
    """What index.html loads from the network.

    Attributes
    ----------
    address : str
        How its address ends.
    package : Package
        Where it is to be had.
    member : str
        Its path in the package.
    """

    address: str
    package: Package
    member: str


JQUERY = Package(
    "jquery@3.3.1",
    "Ubldcmxp5np52/ENotGxlLe6aGMvmF4R8S6tZjsP6Knsaxd/xp3Zrh50cG93lR6nPXyUFwzN3ZSOQI0wRJNdGg==",
)
FLOT = Package(
    "flot@0.8.3",
    "xg2otcTJDvS+ERK+my4wxG/ASq90QURXtoM4LhacCq0jQW2jbyjdttbRNqU2cPykrpMvJ6b2uSp6SAgYAzj9tQ==",
)
ORDER_BARS = Package(
    "flot-orderbars@1.0.0",
    "Jv51fvzevUjNXEeozpwEKfPjhiZhfiJddv0WHjduUTCmSF+7T5K7C9c9Y1wIVmUhDBv5fLMjgbwKecT0GIKPZA==",
)
STUPID_TABLE = Package(  # the registry has no 1.0.1
    "stupid-table-plugin@1.1.3",
    "2Vk7XouQPxUQPRe9w0Fu7ZZ8kHLK7rDoLMsCgtKxRNJ7f4dSOGvW9CkHsq5wD6QsaEnWoyLBYH3xOEsrK3yWBg==",
)
MD5 = Package(
    "blueimp-md5@2.19.0",
    "DRQrD6gJyy8FbiE4s+bDoXS9hiW3Vbx5uCdwvcCf3zLHL+Iv7LtGHLpr+GZV8rHG8tK766FGYBwRbu8pELTt+w==",
)
BOOTSTRAP = Package(
    "bootstrap@3.1.1",
    "TAzqS8E/ISpVHP29gYhy+1NSV+FJwApDVQhDfgLYsIuUDJiqJzH2DfORN5tiu+Ie2iBLrzEG34t4Rf465cigqg==",
)

SCRIPTS = (
    Script("/jquery-3.3.1.min.js", JQUERY, "dist/jquery.min.js"),
    Script("/flot/0.8.3/jquery.flot.min.js", FLOT, "jquery.flot.js"),
    Script("/flot/0.8.3/jquery.flot.time.min.js", FLOT, "jquery.flot.time.js"),
    Script("/flot/0.8.3/jquery.flot.selection.min.js", FLOT, "jquery.flot.selection.js"),
    Script("/flot/0.8.3/jquery.flot.categories.min.js", FLOT, "jquery.flot.categories.js"),
    Script(
        "/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js",
        ORDER_BARS,
        "js/jquery.flot.orderBars.js",
    ),
    Script("/stupidtable/1.0.1/stupidtable.min.js", STUPID_TABLE, "stupidtable.min.js"),
    Script("/blueimp-md5/2.19.0/js/md5.min.js", MD5, "js/md5.min.js"),
    Script("/bootstrap@3.1.1/dist/js/bootstrap.min.js", BOOTSTRAP, "dist/js/bootstrap.min.js"),
    Script("/bootstrap@3.1.1/dist/css/bootstrap.min.css", BOOTSTRAP, "dist/css/bootstrap.min.css"),
)


def fetch(packages: Iterable[Package], cache: Path) -> dict[Package, bytes]:
    """Return the archives of packages, from `cache` or else from the registry.

    Parameters
    ----------
    packages : iterable of Package
        What is needed.
    cache : Path
        The directory that keeps archives under their hashes; it is made.

    Raises
    ------
    ObstacleError
        There is no npm, it does not reach the registry, or an archive is not the pinned one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    kept = {package: cache / f"{_hex(package.sha512)}.tgz" for package in packages}
    missing = [package for package, path in kept.items() if not _is_archive(path, package)]
    if missing:
        for package, archive in _from_registry(missing).items():
            aside = kept[package].with_suffix(".new")
            aside.write_bytes(archive)
            os.replace(aside, kept[package])
    return {package: path.read_bytes() for package, path in kept.items()}


def _hex(sha512: str) -> str:
    return base64.b64decode(sha512).hex()


def _is_archive(path: Path, package: Package) -> bool:
    """Return whether a file is there, and is the archive of a package."""
    if not path.exists():
        return False
    return hashlib.sha512(path.read_bytes()).hexdigest() == _hex(package.sha512)


def _from_registry(packages: list[Package]) -> dict[Package, bytes]:
    """Return the archives that npm fetches; npm knows which registry, and the way to it."""
    npm = shutil.which("npm")
    if npm is None:
        raise obstacles.ObstacleError(
            "There is no npm program, and the scripts of asv's pages come from its registry: "
            "install Node.js, which has it, and run the same command again."
        )
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
        command.append(f"--cache={scratch}/cache")
        done = subprocess.run(
            [*command, *(package.name for package in packages)],
            cwd=scratch,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode != 0:
            raise obstacles.ObstacleError(
                "npm did not get the scripts of asv's pages; if the registry is out of reach, "
                "check the network and npm's settings. npm says:\n"
                + textwrap.indent("\n".join(done.stderr.strip().splitlines()[:4]), "    ")
            )
        fetched = list(Path(scratch).glob("*.tgz"))
        found = {p: path.read_bytes() for p in packages for path in fetched if _is_archive(path, p)}
    if other := [package.name for package in packages if package not in found]:
        raise obstacles.ObstacleError(
            f"What the registry gave for {', '.join(other)} is not what is pinned in "
            "report/page/offline.py: nothing of it was used."
        )
    return found


def content(archive: bytes, member: str) -> bytes:
    """Return one file of the archive of a package."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        # The hash fixes what the archive holds: this is a file.
        return cast(IO[bytes], files.extractfile(f"package/{member}")).read()


def localise(site: Path, archives: dict[Package, bytes]) -> None:
    """Have index.html of a site load its scripts from the site.

    Raises
    ------
    ObstacleError
        It does not load exactly the scripts that are known; the site stays as it was.
    """
    index = site / "index.html"
    text = index.read_text(encoding="utf-8")
    loads = _Loads(text).tags
    known = {script: [a for a in loads if a.endswith(script.address)] for script in SCRIPTS}
    strange = sorted(loads.keys() - {address for found in known.values() for address in found})
    differs = [f"loads {address}" for address in strange]
    differs += [f"does not load one {s.address}" for s, found in known.items() if len(found) != 1]
    if differs:
        raise obstacles.ObstacleError(
            "asv's index.html has changed, and this version cannot take it off the network: it "
            f"{', '.join(differs)}. The site is complete, and loads its scripts from the network."
        )
    (site / DIRECTORY).mkdir(exist_ok=True)
    for script, (address,) in known.items():
        name = script.member.rpartition("/")[2]
        (site / DIRECTORY / name).write_bytes(content(archives[script.package], script.member))
        text = text.replace(loads[address], _tag(f"{DIRECTORY}/{name}"))
    aside = index.with_suffix(".new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, index)


def _tag(path: str) -> str:
    if path.endswith(".css"):
        return f'<link rel="stylesheet" href="{path}">'
    return f'<script src="{path}" onerror="js_load_failure()">'


class _Loads(HTMLParser):
    """What a page loads from the network: by address, the tag that does."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is loaded with the page; a link to follow is not."""
        for name, value in attrs:
            if (name == "src" or (tag == "link" and name == "href")) and "//" in (value or ""):
                self.tags[str(value)] = str(self.get_starttag_text())
