"""The command that publishes the site, and how asv's pages come off the network."""

import importlib.resources
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from report import obstacles, runner
from report.commands import site
from report.page import offline
from tests.test_report import git

pytestmark = pytest.mark.unmeasured

INDEX = importlib.resources.files("asv") / "www" / "index.html"


PAGES = Path(offline.__file__).parent


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """What npm installs, with a line in place of each script."""
    for end, path in offline.SCRIPTS.items():
        (tmp_path / "scripts" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scripts" / path).write_text(end)
    return tmp_path / "scripts"


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program called npm on the path, which installs one file, or fails."""
    if os.name == "nt":
        pytest.skip("Windows starts no script by its first line")
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "assert sys.argv[1] == 'ci' and '--ignore-scripts' in sys.argv\n"
        "assert os.path.exists('package.json') and os.path.exists('package-lock.json')\n"
        "os.makedirs('node_modules/a')\n"
        "open('node_modules/a/a.js', 'w').write('1 + 1')\n"
        "if os.path.exists(f'{sys.path[0]}/down'):\n"
        "    sys.exit('ENOTFOUND')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


# -- what npm installs -------------------------------------------------------------------------


def test_pins() -> None:
    """The lock file pins each script's package by its hash, and names no host."""
    packages = json.loads((PAGES / "package-lock.json").read_text())["packages"]
    wanted = json.loads((PAGES / "package.json").read_text())["dependencies"]
    assert packages.pop("")["dependencies"] == wanted
    assert {name.removeprefix("node_modules/") for name in packages} == set(wanted)
    assert {path.partition("/")[0] for path in offline.SCRIPTS.values()} == set(wanted)
    for package in packages.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package


def test_installed_once(npm: Path, tmp_path: Path) -> None:
    """What npm has installed is kept, and the registry is not asked again."""
    found = offline.install(tmp_path / "cache", PAGES)
    assert (found / "a" / "a.js").read_text() == "1 + 1"
    npm.unlink()
    assert offline.install(tmp_path / "cache", PAGES) == found
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [found.parent.name]


def test_other_pins(npm: Path, tmp_path: Path) -> None:
    """Where the lock file has changed, npm installs again."""
    pins = tmp_path / "pins"
    pins.mkdir()
    (pins / "package.json").write_text("{}")
    (pins / "package-lock.json").write_text("{}")
    found = offline.install(tmp_path / "cache", PAGES)
    assert offline.install(tmp_path / "cache", pins) != found


def test_no_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without npm the user is told to install it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(obstacles.ObstacleError, match=r"install Node\.js"):
        offline.install(tmp_path / "cache", PAGES)


def test_no_registry(npm: Path, tmp_path: Path) -> None:
    """Where npm fails, what it said is said, and nothing of what it has installed is kept."""
    (npm.parent / "down").touch()
    with pytest.raises(obstacles.ObstacleError, match="check the network(?s:.*)    ENOTFOUND"):
        offline.install(tmp_path / "cache", PAGES)
    assert not list((tmp_path / "cache").iterdir())


# -- index.html --------------------------------------------------------------------------------


def test_localise(tmp_path: Path, scripts: Path) -> None:
    """Nothing that asv's page loads is on the network any more, and all of it is there."""
    text = INDEX.read_text(encoding="utf-8")
    site = tmp_path / "site"
    site.mkdir()
    index = site / "index.html"
    index.write_text(text, encoding="utf-8")
    offline.localise(site, scripts)
    changed = index.read_text(encoding="utf-8")
    assert 'src="http' not in changed
    assert "integrity" not in changed
    for end in offline.SCRIPTS:
        (path,) = [p for p in (site / offline.DIRECTORY).iterdir() if p.read_text() == end]
        assert changed.count(f'"{offline.DIRECTORY}/{path.name}"') == 1
    # All else is as it was, and in the same order.
    kept = [line for line in text.splitlines() if "integrity" not in line]
    assert [x for x in changed.splitlines() if f'"{offline.DIRECTORY}/' not in x] == kept


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("jquery-3.3.1.min", "jquery-4.0.0.min", r"loads https://\S+/jquery-4\.0\.0\.min\.js"),
        ("</head>", '<link rel="stylesheet" href="//x.example/y.css">', "loads //x.example/y.css"),
        ("</body>", '<img src="https://x.example/y.png">', "loads https://x.example/y.png"),
        ("/blueimp-md5/2.19.0/", "/", r"does not load one /blueimp-md5/2\.19\.0"),
    ],
)
def test_another_index(
    before: str,
    after: str,
    says: str,
    tmp_path: Path,
    scripts: Path,
) -> None:
    """A page of another version of asv is left as it is, and a sentence says why."""
    text = INDEX.read_text(encoding="utf-8").replace(before, after)
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(text, encoding="utf-8")
    with pytest.raises(obstacles.ObstacleError, match=says):
        offline.localise(site, scripts)
    assert (site / "index.html").read_text(encoding="utf-8") == text
    assert [path.name for path in site.iterdir()] == ["index.html"]


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def run_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: Path) -> Callable[..., int]:
    """Run the command in a checkout with results, with an asv that copies its index.html."""
    root = tmp_path / "checkout"
    (root / ".asv" / "results").mkdir(parents=True)
    (root / ".asv" / "results" / "benchmarks.json").write_text("{}")
    settings = {"version": 1, "repo": ".", "results_dir": ".asv/results", "html_dir": ".asv/html"}
    (root / "asv.conf.json").write_text(json.dumps(settings))
    git(root, "init")
    git(root, "commit", "--allow-empty", "-m", "Start")
    monkeypatch.setattr(runner, "ROOT", root)
    monkeypatch.delenv("STORAGE_IMPL_DATASET", raising=False)
    monkeypatch.chdir(root)

    def publish(*arguments: str) -> int:
        assert arguments == ("publish",)
        (root / ".asv" / "html").mkdir()
        (root / ".asv" / "html" / "index.html").write_bytes(INDEX.read_bytes())
        return 0

    monkeypatch.setattr(runner, "asv", publish)
    monkeypatch.setattr(offline, "install", lambda cache: scripts)
    return lambda *arguments: site.main(list(arguments))


@pytest.mark.parametrize("arguments", [(), ("--offline",)])
def test_site(
    run_site: Callable[..., int], arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The site is published and named; off the network only where that is asked for."""
    assert run_site(*arguments) == 0
    said = capsys.readouterr().out
    assert f"The site: {Path('.asv/html/index.html').resolve()}" in said
    assert "asv preview" in said
    loaded = Path(".asv/html/index.html").read_text().partition("<body>")[0]
    assert ("https:" in loaded) is not bool(arguments)


def test_no_results(run_site: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first run there is nothing to publish, and the command to run is named."""
    Path(".asv/results/benchmarks.json").unlink()
    assert run_site() == 1
    assert "tox run -e bench" in capsys.readouterr().err


def test_nothing_is_touched_without_the_scripts(
    run_site: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where the scripts cannot be had, a site that is there stays."""

    def fail(*_: Any) -> None:
        raise obstacles.ObstacleError("There is no npm program.")

    monkeypatch.setattr(offline, "install", fail)
    assert run_site("--offline") == 1
    assert "There is no npm program." in capsys.readouterr().err
    assert not Path(".asv/html").exists()


def test_asv_fails(run_site: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where asv fails, so does the command; asv has said why."""
    monkeypatch.setattr(runner, "asv", lambda *_: 3)
    assert run_site() == 3
