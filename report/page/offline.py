"""The site without the network: asv's pages with their scripts beside them.

asv's index.html loads its scripts from the network. npm installs them once below `.asv/`, in the
versions that package-lock.json pins.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import textwrap
from html.parser import HTMLParser
from pathlib import Path

from report import obstacles

DIRECTORY = "offline"  # in the site

# The ends of the addresses that index.html loads, and the file that npm installs for each.
SCRIPTS = {
    "/jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "/flot/0.8.3/jquery.flot.min.js": "flot/jquery.flot.js",
    "/flot/0.8.3/jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    "/flot/0.8.3/jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    "/flot/0.8.3/jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    "/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js": (
        "flot-orderbars/js/jquery.flot.orderBars.js"
    ),
    # The registry has no 1.0.1: this is 1.1.3.
    "/stupidtable/1.0.1/stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "/blueimp-md5/2.19.0/js/md5.min.js": "blueimp-md5/js/md5.min.js",
    "/bootstrap@3.1.1/dist/js/bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "/bootstrap@3.1.1/dist/css/bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}


def install(cache: Path, pins: Path = Path(__file__).parent) -> Path:
    """Have npm install what is pinned, unless that is done, and return where it is.

    Parameters
    ----------
    cache : Path
        The directory that keeps what was installed; it is made.
    pins : Path
        The directory of package.json and package-lock.json.

    Raises
    ------
    ObstacleError
        There is no npm, npm cannot reach the registry, or its files differ from those pinned.
    """
    lock = (pins / "package-lock.json").read_bytes()
    installed = cache / hashlib.sha256(lock).hexdigest()[:16]
    if installed.exists():
        return installed / "node_modules"
    npm = shutil.which("npm")
    if npm is None:
        raise obstacles.ObstacleError(
            "The program npm is missing, which downloads the scripts of asv's pages: "
            "install Node.js, which has it, and run the same command again."
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        aside = Path(scratch, "installed")
        aside.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(pins / name, aside / name)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        command += ["--fetch-retries=1", f"--cache={scratch}/cache"]
        done = subprocess.run(command, cwd=aside, capture_output=True, text=True)
        if done.returncode != 0:
            raise obstacles.ObstacleError(
                "npm could not download the scripts of asv's pages. If it cannot reach the "
                "registry, check the network and npm's settings. npm says:\n"
                + textwrap.indent("\n".join(done.stderr.strip().splitlines()[:4]), "    ")
            )
        if not installed.exists():  # by another command, meanwhile
            aside.rename(installed)
    return installed / "node_modules"


def localise(site: Path, scripts: Path) -> None:
    """Make index.html of a site load its scripts from the site.

    Parameters
    ----------
    site : Path
        The directory of the site.
    scripts : Path
        What `install` returned.

    Raises
    ------
    ObstacleError
        It does not load exactly the known scripts; the site stays as it was.
    """
    index = site / "index.html"
    text = index.read_text(encoding="utf-8")
    loads = _Loads(text).tags
    known = {end: [a for a in loads if a.endswith(end)] for end in SCRIPTS}
    strange = sorted(loads.keys() - {address for found in known.values() for address in found})
    differs = [f"loads {address}" for address in strange]
    differs += [f"does not load one {end}" for end, found in known.items() if len(found) != 1]
    if differs:
        raise obstacles.ObstacleError(
            "asv's index.html has changed, so its scripts could not be put into the site: it "
            f"{', '.join(differs)}. The site is complete, but loads its scripts from the network."
        )
    (site / DIRECTORY).mkdir(exist_ok=True)
    for end, (address,) in known.items():
        script = scripts / SCRIPTS[end]
        shutil.copyfile(script, site / DIRECTORY / script.name)
        text = text.replace(loads[address], _tag(f"{DIRECTORY}/{script.name}"))
    aside = index.with_suffix(".new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, index)


def _tag(path: str) -> str:
    if path.endswith(".css"):
        return f'<link rel="stylesheet" href="{path}">'
    return f'<script src="{path}" onerror="js_load_failure()">'


class _Loads(HTMLParser):
    """What a page loads from the network: for each address, the tag that loads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is loaded with the page, without links to other pages."""
        for name, value in attrs:
            if (name == "src" or (tag == "link" and name == "href")) and "//" in (value or ""):
                self.tags[str(value)] = str(self.get_starttag_text())
