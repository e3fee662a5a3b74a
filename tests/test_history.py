"""The hosted history: kept results, and a run that goes on from them.

The history runs with git and asv as they are, on a project of one benchmark whose environment
is the Python of the tests, so that nothing is installed. Its remote is a bare repository.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from report import kept, runner
from report.commands import history
from report.kept import KeptResults
from report.obstacles import ObstacleError
from tests.test_report import git

pytestmark = pytest.mark.unmeasured

HERE = Path(__file__).resolve().parent.parent

SETTINGS = {
    "version": 1,
    "project": "tiny",
    "repo": ".",
    "branches": ["HEAD"],
    "plugins": [".here"],
    "environment_type": "here",
    "launch_method": "spawn",
    "benchmark_dir": "benchmarks",
    "env_dir": ".asv/env",
    "results_dir": ".asv/results",
    "html_dir": ".asv/html",
}

# An environment that is there already, for any commit.
ENVIRONMENT = """
import os
import sys

from asv import util
from asv.environment import Environment
from asv.publishing import OutputPublisher


class Here(Environment):
    tool_name = "here"
    installed_commit_hash = None
    _requirements = {}

    @classmethod
    def matches(cls, python):
        return True

    def check_presence(self):
        return True

    def install_project(self, conf, repo, commit_hash=None):
        self._set_commit_hash(commit_hash)

    def run(self, args, **kwargs):
        kwargs["env"] = {**os.environ, **self._global_env_vars, **kwargs.get("env", {})}
        return util.check_output([sys.executable, *args], **kwargs)


class Fails(OutputPublisher):
    name = "fails"

    @classmethod
    def publish(cls, *_):
        if "PUBLISHING_FAILS" in os.environ:
            raise RuntimeError
"""

# It says which commit it measured, and can take the whole run down with it.
BENCHMARK = """
import os
import signal


def track_answer():
    commit = os.environ["ASV_COMMIT"]
    with open(os.environ["MEASURED"], "a") as measured:
        measured.write(commit + "\\n")
    if commit == os.environ.get("CRASH_AT"):
        end = getattr(signal, "SIGKILL", signal.SIGTERM)
        os.kill(int(os.environ["COMMAND"]), end)
        os.kill(os.getppid(), end)
        os._exit(1)
    if commit in os.environ.get("FAIL_AT", ""):
        raise RuntimeError
    return 84 if commit in os.environ.get("SLOW_AT", "") else 42
"""

RUN = """
import os, runpy, sys
os.environ["COMMAND"] = str(os.getpid())
runpy.run_module("report.commands." + sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
END = "import os, signal; os.kill(int(os.environ['COMMAND']), getattr(signal, 'SIGKILL', 15))"


class Remote:
    """A bare repository with a project, and what is known of the runs on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "remote.git"
        self.work = directory / "work"
        self.log = directory / "measured"
        self.home = directory / "home"
        self.log.touch()
        self.home.mkdir()
        git(directory, "init", "--quiet", "--bare", str(self.path))
        git(directory, "init", "--quiet", str(self.work))
        git(self.work, "remote", "add", "origin", self.path.as_uri())
        (self.work / "benchmarks").mkdir()
        (self.work / "benchmarks" / "__init__.py").touch()
        (self.work / "benchmarks" / "tiny.py").write_text(BENCHMARK)
        (self.work / "here.py").write_text(ENVIRONMENT)
        (self.work / "asv.conf.json").write_text(json.dumps(SETTINGS))
        (self.work / ".gitignore").write_text("/.asv/\n__pycache__/\n")
        shutil.copytree(
            HERE / "report",
            self.work / "report",
            ignore=shutil.ignore_patterns("__pycache__", "page", "docs"),
        )

    def commit(self, count: int = 1) -> list[str]:
        """Add commits to the project and return them."""
        commits = []
        for _ in range(count):
            git(self.work, "add", ".")
            git(self.work, "commit", "--quiet", "--allow-empty", "-m", "Another")
            commits.append(git(self.work, "rev-parse", "HEAD"))
        git(self.work, "push", "--quiet", "origin", "HEAD:refs/heads/main")
        return commits

    def clone(self, name: str, *options: str) -> Path:
        """Return a fresh clone."""
        clone = self.directory / name
        options = ("--quiet", "--branch", "main", *options)
        git(self.directory, "clone", *options, self.path.as_uri(), str(clone))
        return clone

    def run(self, clone: Path, *arguments: str, **environment: str) -> Any:
        """Run a command of `report` in a clone, and return how it ended."""
        known = {
            "MEASURED": str(self.log),
            "PYTHONUTF8": "1",
            # Nobody is known to git or to asv.
            "HOME": str(self.home),
            "USERPROFILE": str(self.home),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "user.useConfigOnly",
            "GIT_CONFIG_VALUE_0": "true",
        }
        return subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            cwd=clone,
            env=os.environ | known | environment,
            capture_output=True,
            encoding="utf-8",
        )

    def measured(self) -> list[str]:
        """Return the commits that were measured since this was asked last."""
        found = self.log.read_text().split()
        self.log.write_text("")
        return found

    def kept(self) -> list[str]:
        """Return the files that are kept."""
        return git(self.path, "ls-tree", "-r", "--name-only", kept.BRANCH).splitlines()

    def kept_commits(self) -> set[str]:
        """Return the beginnings of the commits that have kept results."""
        names = (Path(path).name for path in self.kept())
        return {name[:8] for name in names if "-here-" in name}

    def refuse(self) -> Path:
        """Have the remote refuse what is pushed, while the file returned is there."""
        hook = self.path / "hooks" / "pre-receive"
        hook.write_text("#!/bin/sh\necho 'the branch is protected' >&2\nexit 1\n")
        hook.chmod(0o755)
        return hook


def short(commits: list[str]) -> set[str]:
    """Return the beginnings of commits, as the names of results have them."""
    return {commit[:8] for commit in commits}


def graphs(clone: Path) -> set[str]:
    """Return the commits that the site of a clone has results of."""
    index = json.loads((clone / ".asv" / "html" / "index.json").read_text())
    revisions = {str(revision): commit for revision, commit in index["revision_to_hash"].items()}
    (graph,) = (clone / ".asv" / "html" / "graphs").rglob("machine-*/**/tiny.track_answer.json")
    return {revisions[str(revision)][:8] for revision, _ in json.loads(graph.read_text())}


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    """A remote without results, of a project without commits."""
    return Remote(tmp_path)


# -- the whole of it ---------------------------------------------------------------------------


def test_fresh_clone_twice(remote: Remote) -> None:
    """The first run measures HEAD, keeps its results and nothing else, and makes the site.

    The second finds nothing new and says so, in the same clone and in another one. The
    checkout is as it was.
    """
    *_, head = remote.commit(3)
    clone = remote.clone("clone")
    first = remote.run(clone, "history")
    assert first.returncode == 0, first.stderr
    assert remote.measured() == [head]
    results = clone / ".asv" / "results"
    files = {path.relative_to(results).as_posix() for path in results.rglob("*.json")}
    assert set(remote.kept()) == files
    assert remote.kept_commits() == graphs(clone) == short([head])
    where = f"a new branch asv-results of origin, {remote.path.as_uri()}\n"
    assert first.stdout.startswith(f"The results will be pushed to {where}")
    assert "3 files of results are new on the branch asv-results of origin" in first.stdout
    pushed = git(remote.path, "rev-parse", kept.BRANCH)

    for again in (clone, remote.clone("another")):
        second = remote.run(again, "history")
        assert second.returncode == 0, second.stderr
        assert "Nothing is new: origin has all results of " in second.stdout
        assert "will be pushed" not in second.stdout
        assert remote.measured() == []
        assert graphs(again) == short([head])
        assert git(again, "status", "--porcelain") == ""
        assert git(again, "branch", "--format=%(refname:short)") == "main"
    assert git(remote.path, "rev-parse", kept.BRANCH) == pushed


def test_crash_while_measuring(remote: Remote) -> None:
    """Killed at the second of three new commits: the first is kept, and the rest is measured next.

    What was being measured has no results. A file that was being written is measured again.
    """
    remote.commit()
    clone = remote.clone("clone")
    assert remote.run(clone, "history").returncode == 0
    first, second, third = remote.commit(3)
    git(clone, "pull", "--quiet")
    remote.measured()
    crashed = remote.run(clone, "history", CRASH_AT=second)
    assert crashed.returncode != 0
    assert remote.measured() == [first, second]
    assert first[:8] in remote.kept_commits()
    assert not {second[:8], third[:8]} & remote.kept_commits()
    (whole,) = (clone / ".asv" / "results").rglob(f"{first[:8]}-*.json")
    torn = whole.with_name(whole.name.replace(first[:8], second[:8]))
    torn.write_text(whole.read_text()[:200])

    after = remote.run(clone, "history")
    assert after.returncode == 0, after.stderr
    assert "left half-written" in after.stdout
    assert remote.measured() == [second, third]
    assert short([first, second, third]) < remote.kept_commits()
    assert graphs(clone) == remote.kept_commits()


def test_crash_before_the_push(remote: Remote) -> None:
    """Killed with everything measured and nothing kept: the next run keeps it, unmeasured."""
    (head,) = remote.commit()
    clone = remote.clone("clone")
    hook = clone / ".git" / "hooks" / "pre-push"
    hook.write_text(f'#!/bin/sh\n"{Path(sys.executable).as_posix()}" -c "{END}"\nexit 1\n')
    hook.chmod(0o755)
    assert remote.run(clone, "history").returncode != 0
    assert git(remote.path, "branch", "--list", kept.BRANCH) == ""
    assert remote.measured() == [head]
    hook.unlink()
    after = remote.run(clone, "history")
    assert after.returncode == 0, after.stderr
    assert remote.measured() == []
    assert remote.kept_commits() == graphs(clone) == short([head])


def test_shallow_clone(remote: Remote) -> None:
    """A clone without history, as of actions/checkout, fetches it: what is new depends on it."""
    remote.commit()
    assert remote.run(remote.clone("clone"), "history").returncode == 0
    remote.measured()
    new = remote.commit(2)
    shallow = remote.clone("shallow", "--depth=1")
    done = remote.run(shallow, "history")
    assert done.returncode == 0, done.stderr
    assert "This clone is shallow: fetching its history from origin." in done.stdout
    assert remote.measured() == new
    assert graphs(shallow) == remote.kept_commits() > short(new)


def test_failed_benchmark(remote: Remote) -> None:
    """A benchmark that fails is kept as failed and the site made; the exit code says it."""
    (head,) = remote.commit()
    clone = remote.clone("clone")
    done = remote.run(clone, "history", FAIL_AT=head)
    assert done.returncode == 2
    assert "Benchmarks failed, all others are kept and published" in done.stdout
    assert remote.kept_commits() == short([head])
    assert (clone / ".asv" / "html" / "index.html").exists()


def test_given_arguments(remote: Remote) -> None:
    """What is given goes to asv: here a range of older commits, and the machine's name."""
    first, second, _ = remote.commit(3)
    done = remote.run(remote.clone("clone"), "history", "--machine", "rack", f"{first}..HEAD^")
    assert done.returncode == 0, done.stderr
    assert remote.measured() == [second]
    assert [path for path in remote.kept() if second[:8] in path] == [
        next(path for path in remote.kept() if path.startswith(f"rack/{second[:8]}"))
    ]
    assert json.loads(git(remote.path, "show", f"{kept.BRANCH}:rack/machine.json"))["cpu"]


def test_asv_stops(remote: Remote) -> None:
    """Where asv cannot measure, nothing is kept and no site is made."""
    remote.commit()
    clone = remote.clone("clone")
    done = remote.run(clone, "history", "--bench", "no such benchmark")
    assert done.returncode == 1
    assert "No benchmarks selected" in done.stdout + done.stderr
    assert "asv stopped. Nothing is published" in done.stderr
    assert git(remote.path, "branch", "--list", kept.BRANCH) == ""
    assert not (clone / ".asv" / "html").exists()


def test_publishing_fails(remote: Remote) -> None:
    """A site that is not whole is removed; the results were kept before."""
    (head,) = remote.commit()
    clone = remote.clone("clone")
    done = remote.run(clone, "history", PUBLISHING_FAILS="1")
    assert done.returncode == 1
    assert remote.kept_commits() == short([head])
    assert not (clone / ".asv" / "html").exists()


@pytest.mark.parametrize("option", ["--quick", "--dry-run", "--interleave-rounds"])
def test_not_whole(option: str) -> None:
    """What leaves results that are not whole is refused before anything is fetched."""
    with pytest.raises(ObstacleError, match="not whole"):
        history.go_on("origin", [option])


# -- what is new -------------------------------------------------------------------------------


def test_new(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """New is what came after the last commit that this machine has measured, oldest first.

    That one counts, for what of it is missing. A machine without results begins with HEAD,
    whatever others have measured, and older gaps stay.
    """
    commits = remote.commit(5)
    monkeypatch.setattr(runner, "ROOT", remote.work)
    results = remote.directory / "results"
    results.mkdir()
    (results / "machine.json").touch()
    assert history.new(results) == history.new(results / "none") == commits[-1:]
    for measured in (0, 2):
        (results / f"{commits[measured][:8]}-virtualenv-py3.11.json").touch()
        (results / f"{commits[measured][:8]}-virtualenv-py3.11.facts").touch()
        assert history.new(results) == commits[measured:]


# -- keeping -----------------------------------------------------------------------------------


class Checkout:
    """A clone and its results, without asv."""

    def __init__(self, remote: Remote, name: str) -> None:
        self.root = remote.clone(name)
        self.results = self.root / ".asv" / "results"
        self.results.mkdir(parents=True)

    def kept(self, name: str = "origin") -> KeptResults:
        """Return what a run begins with."""
        return KeptResults(self.root, self.results, name)

    def write(self, path: str, content: Any) -> None:
        """Write a file of results."""
        file = self.results / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))

    def files(self) -> dict[str, Any]:
        """Return what there is, by path."""
        return {
            path.relative_to(self.results).as_posix(): json.loads(path.read_text())
            for path in sorted(self.results.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def desk(remote: Remote) -> Checkout:
    """A checkout of one machine."""
    remote.commit()
    return Checkout(remote, "desk")


@pytest.fixture
def rack(remote: Remote, desk: Checkout) -> Checkout:
    """A checkout of another machine."""
    return Checkout(remote, "rack")


def test_two_machines(remote: Remote, desk: Checkout, rack: Checkout) -> None:
    """Two machines that push at the same time keep what both measured, and their commits."""
    runs = {}
    for name, checkout in {"desk": desk, "rack": rack}.items():
        runs[name] = checkout.kept()
        runs[name].take()
        checkout.write("benchmarks.json", name)
        checkout.write(f"{name}/a.json", name)
        checkout.write(f"{name}/a.facts", name)
    assert runs["desk"].keep("Results of desk") == 3
    assert runs["rack"].keep("Results of rack") == 3
    everything = {
        "benchmarks.json": "rack",
        "desk/a.facts": "desk",
        "desk/a.json": "desk",
        "rack/a.facts": "rack",
        "rack/a.json": "rack",
    }
    assert remote.kept() == sorted(everything)
    assert rack.files() == everything
    desk.kept().take()
    assert desk.files() == everything
    subjects = git(remote.path, "log", "--format=%s", kept.BRANCH).splitlines()
    assert subjects == ["Results of rack", "Results of desk"]


def test_newer_wins(desk: Checkout, rack: Checkout) -> None:
    """Of two versions the newer stays: the kept one, unless this checkout measured since."""
    for checkout in (desk, rack):
        checkout.kept().take()
    desk.write("desk/a.json", "first")
    desk.write("desk/b.json", "first")
    desk.kept().keep("Results")
    rack.kept().take()
    desk.write("desk/a.json", "second")
    desk.kept().keep("Results")
    rack.write("desk/b.json", "third")
    run = rack.kept()
    run.take()
    assert rack.files() == {"desk/a.json": "second", "desk/b.json": "third"}
    assert run.keep("Results") == 1


def test_nobody_knows_which_is_newer(desk: Checkout, rack: Checkout) -> None:
    """A checkout that never took anything has what is kept; what is nowhere else stays."""
    desk.write("desk/a.json", "kept")
    desk.kept().keep("Results")
    rack.write("desk/a.json", "older?")
    rack.write("desk/b.json", "only here")
    rack.kept().take()
    assert rack.files() == {"desk/a.json": "kept", "desk/b.json": "only here"}


def test_lost_results_come_back(remote: Remote, desk: Checkout) -> None:
    """Removing the results of a checkout removes nothing that is kept."""
    desk.write("desk/a.json", "kept")
    desk.kept().keep("Results")
    shutil.rmtree(desk.results)
    run = desk.kept()
    run.take()
    assert desk.files() == {"desk/a.json": "kept"}
    assert run.keep("Results") == 0


def test_lost_branch_comes_back(remote: Remote, desk: Checkout) -> None:
    """A branch that was deleted is made again from what a checkout has."""
    desk.write("desk/a.json", "kept")
    desk.kept().keep("Results")
    git(remote.path, "update-ref", "-d", f"refs/heads/{kept.BRANCH}")
    run = desk.kept()
    run.take()
    assert run.keep("Results") == 1
    assert remote.kept() == ["desk/a.json"]


def test_removed_from_the_branch(remote: Remote, desk: Checkout, rack: Checkout) -> None:
    """What is removed from the branch is removed in each checkout, unless measured again there."""
    for name in ("a", "b"):
        desk.write(f"desk/{name}.json", "bad")
    desk.kept().keep("Results")
    rack.kept().take()
    git(desk.root, "fetch", "--quiet", "origin", kept.BRANCH)
    git(desk.root, "read-tree", "FETCH_HEAD")
    git(desk.root, "rm", "--quiet", "--cached", "desk/a.json", "desk/b.json")
    tree = git(desk.root, "write-tree")
    commit = git(desk.root, "commit-tree", "-p", "FETCH_HEAD", "-m", "Removed", tree)
    git(desk.root, "push", "--quiet", "origin", f"{commit}:refs/heads/{kept.BRANCH}")
    desk.write("desk/b.json", "good")
    for checkout, left in ((rack, {}), (desk, {"desk/b.json": "good"})):
        run = checkout.kept()
        run.take()
        assert checkout.files() == left
        assert run.keep("Results") == len(left)
    assert remote.kept() == ["desk/b.json"]


def test_rewritten_branch(remote: Remote, desk: Checkout, rack: Checkout) -> None:
    """A branch that is made anew removes nothing: each checkout adds what it has."""
    desk.write("desk/a.json", "kept")
    desk.kept().keep("Results")
    git(remote.path, "update-ref", "-d", f"refs/heads/{kept.BRANCH}")
    rack.write("rack/a.json", "kept")
    rack.kept().keep("Results")
    run = desk.kept()
    run.take()
    assert run.keep("Results") == 1
    assert remote.kept() == ["desk/a.json", "rack/a.json"]


def test_results_only(remote: Remote, desk: Checkout) -> None:
    """Nothing but results and the facts beside them is kept, and nothing else is taken."""
    desk.write("desk/a.json", "result")
    (desk.results / "notes.txt").write_text("mine")
    (desk.results / "desk" / "a.json~").write_text("mine")
    desk.kept().keep("Results")
    assert remote.kept() == ["desk/a.json"]
    link = git(desk.root, "rev-parse", "HEAD:.gitignore")
    entry = f"120000,{link},desk/link.json"
    git(desk.root, "read-tree", "refs/history/origin")
    git(desk.root, "update-index", "--add", "--cacheinfo", entry)
    tree = git(desk.root, "write-tree")
    commit = git(desk.root, "commit-tree", "-m", "A link", tree)
    git(desk.root, "push", "--quiet", "--force", "origin", f"{commit}:refs/heads/{kept.BRANCH}")
    desk.kept().take()
    assert not (desk.results / "desk" / "link.json").exists()


def test_refused(remote: Remote, desk: Checkout) -> None:
    """A remote that refuses is quoted; the results stay, and the next run keeps them."""
    hook = remote.refuse()
    desk.write("desk/a.json", "result")
    run = desk.kept()
    run.take()
    with pytest.raises(ObstacleError, match="(?s)could not push.*the branch is protected"):
        run.keep("Results")
    hook.unlink()
    again = desk.kept()
    again.take()
    assert again.keep("Results") == 1
    assert remote.kept() == ["desk/a.json"]


def test_no_such_remote(desk: Checkout) -> None:
    """A remote that cannot be read is named, with the option for another."""
    with pytest.raises(ObstacleError, match="cannot read the remote 'elsewhere'.*--remote NAME"):
        desk.kept("elsewhere").take()
