"""Keep results on a branch of their own at a remote, and join them with those of this checkout.

The branch holds only what asv's directory of results holds. Each machine writes its results under
its own name, so that no two machines write the same file. The checkout, its index and its branches
are not touched: the commits are made from a temporary index, and `refs/history/REMOTE` remembers
what was taken last.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from textwrap import indent

from report.obstacles import ObstacleError

BRANCH = "asv-results"
SUFFIXES = (".json", ".facts")  # asv's results, and the facts recorded beside them


class KeptResults:
    """The kept results at a remote, and the results in a checkout.

    Parameters
    ----------
    root : Path
        The checkout.
    results : Path
        asv's directory of results in it.
    remote : str
        The name of the remote that keeps them.
    """

    def __init__(self, root: Path, results: Path, remote: str) -> None:
        self.root = root
        self.results = results
        self.remote = remote
        self._reference = f"refs/history/{remote}"
        # The commit that was taken last, and the blobs of its files; None before the first.
        self._taken = self._git("for-each-ref", "--format=%(objectname)", self._reference)
        self._base = self._files(self._taken) if self._taken else None

    def take(self) -> None:
        """Fetch the kept results into the directory of results; what was measured here stays.

        A file that a commit removed from the branch is removed here, unless it was measured again.
        A file that a crash left half-written is removed, and measured again later.

        Raises
        ------
        ObstacleError
            The remote cannot be read.
        """
        tip = self._tip()
        if not tip:
            url = self._git("remote", "get-url", "--push", self.remote)
            print(f"The results will be pushed to a new branch {BRANCH} of {self.remote}, {url}")
        else:
            self._git("fetch", "--quiet", "--no-tags", self.remote, f"refs/heads/{BRANCH}")
            tip = self._git("rev-parse", "FETCH_HEAD")  # it may have moved on
        ours, changed = self._local(), self._changed()
        kept = self._files(tip) if tip else {}
        wanted = [
            path
            for path, blob in kept.items()
            # Without a base nobody knows which file is newer: the kept one counts as newer.
            if blob != ours.get(path) and (self._base is None or path not in changed)
        ]
        if wanted:
            with tempfile.TemporaryDirectory() as scratch:
                index = {"GIT_INDEX_FILE": os.path.join(scratch, "index")}
                self._git("read-tree", tip, environment=index)
                self._git(
                    *("-c", "core.autocrlf=false", "-c", "core.eol=lf"),
                    *("checkout-index", "--force", "-z", "--stdin"),
                    f"--prefix={self.results.resolve().as_posix()}/",
                    given="\0".join(wanted),
                    environment=index,
                )
        # A branch that was made again, or rewritten, removes nothing.
        if tip and self._base and self._taken in self._git("rev-list", tip).split():
            for path in self._base.keys() - kept.keys() - changed.keys():
                (self.results / path).unlink(missing_ok=True)
        # Only now: if this run is killed before, the next one still knows what was measured here.
        self._remember(tip, kept)

    def keep(self, message: str) -> int:
        """Commit the files that were measured here and push them; return how many they are.

        If someone else has pushed meanwhile, take their results first, so that both are kept.

        Raises
        ------
        ObstacleError
            The remote refuses the push.
        """
        while changed := self._changed():
            commit = self._commit(changed, message)
            target = f"{commit}:refs/heads/{BRANCH}"
            pushed = self._run("push", "--quiet", self.remote, target)
            if pushed.returncode == 0:
                self._remember(commit, self._files(commit))
                return len(changed)
            if self._tip() == self._taken:
                raise ObstacleError(
                    f"The results are measured, but git could not push them to the branch {BRANCH} "
                    f"of {self.remote}. They stay in {self.results}, and the next run pushes them: "
                    "fix what git says below, and run the same command again. git says:\n"
                    + indent(pushed.stderr.strip(), "    ")
                )
            self.take()
        return 0

    def _tip(self) -> str:
        """Return the commit of the branch at the remote; empty if there is no such branch."""
        found = self._run("ls-remote", self.remote, f"refs/heads/{BRANCH}")
        if found.returncode != 0:
            raise ObstacleError(
                f"git cannot read the remote {self.remote!r}, where the results are kept: check "
                "the network and `git remote -v`; --remote NAME chooses another one. git says:\n"
                + indent(found.stderr.strip(), "    ")
            )
        return found.stdout.partition("\t")[0]

    def _files(self, commit: str) -> dict[str, str]:
        """Return the files of results in a commit, each with its blob."""
        files = {}
        for entry in self._git("ls-tree", "-r", "-z", "--full-tree", commit).split("\0")[:-1]:
            facts, _, path = entry.partition("\t")
            mode, _, blob = facts.split()
            if mode.startswith("100") and path.endswith(SUFFIXES):  # a file, not a link
                files[path] = blob
        return files

    def _local(self) -> dict[str, str]:
        """Return the files of results in the checkout, each with its blob."""
        found = (path for path in self.results.rglob("*") if path.suffix in SUFFIXES)
        paths = sorted(path.relative_to(self.results).as_posix() for path in found)
        if not paths:
            return {}
        names = "\n".join((self.results.resolve() / path).as_posix() for path in paths)
        hashing = ("hash-object", "-w", "--no-filters", "--stdin-paths")
        blobs = self._git(*hashing, given=names).split()
        return dict(zip(paths, blobs, strict=True))

    def _changed(self) -> dict[str, str]:
        """Return the local files that differ from those taken last, without half-written ones."""
        base = self._base or {}
        changed = {}
        for path, blob in self._local().items():
            if blob == base.get(path):
                continue
            file = self.results / path
            try:
                json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                print(f"{file} was left half-written, and is removed: it will be measured again.")
                file.unlink()
            else:
                changed[path] = blob
        return changed

    def _commit(self, files: dict[str, str], message: str) -> str:
        """Return a commit of what was taken last, with these files added."""
        entries = "".join(f"100644 {blob}\t{path}\0" for path, blob in files.items())
        parent = ["-p", self._taken] if self._taken else []
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": os.path.join(scratch, "index")}
            self._git("read-tree", self._taken or "--empty", environment=index)
            self._git("update-index", "-z", "--index-info", given=entries, environment=index)
            tree = self._git("write-tree", environment=index)
        who = {}
        if self._run("var", "GIT_COMMITTER_IDENT").returncode != 0:  # git knows no committer
            for role in ("AUTHOR", "COMMITTER"):
                who[f"GIT_{role}_NAME"] = "benchmarks"
                who[f"GIT_{role}_EMAIL"] = "benchmarks@localhost"
        return self._git("commit-tree", *parent, "-m", message, tree, environment=who)

    def _remember(self, commit: str, files: dict[str, str]) -> None:
        """Note what was taken, or pushed, last."""
        if commit:
            self._git("update-ref", self._reference, commit)
        elif self._taken:  # the branch is gone
            self._git("update-ref", "-d", self._reference)
        self._taken, self._base = commit, files

    def _git(
        self, *arguments: str, given: str | None = None, environment: dict[str, str] | None = None
    ) -> str:
        """Return what git prints."""
        done = self._run(*arguments, given=given, environment=environment)
        if done.returncode != 0:
            raise ObstacleError(
                f"git {arguments[0]} failed in {self.root}:\n" + indent(done.stderr.strip(), "    ")
            )
        return done.stdout.removesuffix("\n")

    def _run(
        self, *arguments: str, given: str | None = None, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            env=os.environ | (environment or {}),
        )
