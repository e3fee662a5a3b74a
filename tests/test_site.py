"""The command that publishes the site, and how asv's pages come off the network."""

import base64
import hashlib
import importlib.resources
import io
import json
import os
import sys
import tarfile
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


def archive(files: dict[str, bytes]) -> bytes:
    """Return the archive of a package as the registry has it."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(f"package/{path}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def pinned(name: str, content: bytes) -> offline.Package:
    """Return a package whose archive is this."""
    return offline.Package(name, base64.b64encode(hashlib.sha512(content).digest()).decode())


ARCHIVE = archive({"dist/a.js": b"1 + 1\n"})
PACKAGE = pinned("a@1.0.0", ARCHIVE)


@pytest.fixture
def archives() -> dict[offline.Package, bytes]:
    """Archives with a line in place of each script."""
    return {
        package: archive(
            {s.member: s.address.encode() for s in offline.SCRIPTS if s.package == package}
        )
        for package in {script.package for script in offline.SCRIPTS}
    }


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program called npm on the path: it gives what is in a directory, or fails."""
    if os.name == "nt":
        pytest.skip("Windows starts no script by its first line")
    registry = tmp_path / "registry"
    registry.mkdir()
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, shutil, sys\n"
        "if os.path.exists(f'{sys.path[0]}/down'):\n"
        "    sys.exit('ENOTFOUND')\n"
        f"shutil.copytree({str(registry)!r}, '.', dirs_exist_ok=True)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return registry


# -- what the registry has ---------------------------------------------------------------------


def test_fetch(npm: Path, tmp_path: Path) -> None:
    """An archive comes from the registry, and its files are to be had."""
    (npm / "a-1.0.0.tgz").write_bytes(ARCHIVE)
    found = offline.fetch([PACKAGE], tmp_path / "cache")
    assert found == {PACKAGE: ARCHIVE}
    assert offline.content(found[PACKAGE], "dist/a.js") == b"1 + 1\n"


def test_fetched_once(npm: Path, tmp_path: Path) -> None:
    """What was fetched is kept, and the registry is not asked again."""
    (npm / "a-1.0.0.tgz").write_bytes(ARCHIVE)
    offline.fetch([PACKAGE], tmp_path / "cache")
    (tmp_path / "bin" / "npm").unlink()
    assert offline.fetch([PACKAGE], tmp_path / "cache") == {PACKAGE: ARCHIVE}


def test_damaged_copy(npm: Path, tmp_path: Path) -> None:
    """A kept archive that is not what it was is fetched again."""
    (npm / "a-1.0.0.tgz").write_bytes(ARCHIVE)
    offline.fetch([PACKAGE], tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(ARCHIVE[:-1])
    assert offline.fetch([PACKAGE], tmp_path / "cache") == {PACKAGE: ARCHIVE}
    assert kept.read_bytes() == ARCHIVE


def test_another_archive(npm: Path, tmp_path: Path) -> None:
    """An archive that is not the one pinned is refused, and not kept."""
    (npm / "a-1.0.0.tgz").write_bytes(archive({"dist/a.js": b"steal()\n"}))
    with pytest.raises(obstacles.ObstacleError, match=r"a@1\.0\.0 is not what is pinned"):
        offline.fetch([PACKAGE], tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_no_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without npm the user is told to install it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(obstacles.ObstacleError, match=r"install Node\.js"):
        offline.fetch([PACKAGE], tmp_path / "cache")


def test_no_registry(npm: Path, tmp_path: Path) -> None:
    """Where npm fails, what it said is said."""
    (tmp_path / "bin" / "down").touch()
    with pytest.raises(obstacles.ObstacleError, match="check the network(?s:.*)    ENOTFOUND"):
        offline.fetch([PACKAGE], tmp_path / "cache")


# -- index.html --------------------------------------------------------------------------------


def test_localise(tmp_path: Path, archives: dict[offline.Package, bytes]) -> None:
    """Nothing that asv's page loads is on the network any more, and all of it is there."""
    text = INDEX.read_text(encoding="utf-8")
    index = tmp_path / "index.html"
    index.write_text(text, encoding="utf-8")
    offline.localise(tmp_path, archives)
    changed = index.read_text(encoding="utf-8")
    assert 'src="http' not in changed
    assert "integrity" not in changed
    for script in offline.SCRIPTS:
        (path,) = [
            path
            for path in (tmp_path / offline.DIRECTORY).iterdir()
            if path.read_text() == script.address
        ]
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
    archives: dict[offline.Package, bytes],
) -> None:
    """A page of another version of asv is left as it is, and a sentence says why."""
    text = INDEX.read_text(encoding="utf-8").replace(before, after)
    (tmp_path / "index.html").write_text(text, encoding="utf-8")
    with pytest.raises(obstacles.ObstacleError, match=says):
        offline.localise(tmp_path, archives)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def run_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archives: dict[offline.Package, bytes]
) -> Callable[..., int]:
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
    monkeypatch.setattr(offline, "fetch", lambda packages, cache: archives)
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

    monkeypatch.setattr(offline, "fetch", fail)
    assert run_site("--offline") == 1
    assert "There is no npm program." in capsys.readouterr().err
    assert not Path(".asv/html").exists()


def test_asv_fails(run_site: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where asv fails, so does the command; asv has said why."""
    monkeypatch.setattr(runner, "asv", lambda *_: 3)
    assert run_site() == 3
