"""Questions to a git repository, and the one way in which the set-up moves it: by a journal, so that the next ends a killed one."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.aws.account import Account
from scripts.aws.calls import say
from scripts.aws.errors import FailedError

# No housekeeping that goes on after git has ended; whole names.
_SETTINGS = {
    "gc.auto": "0",
    "maintenance.auto": "false",
    "core.quotePath": "false",
    "advice.detachedHead": "false",
    "commit.gpgSign": "false",
    "user.name": "instance setup",
    "user.email": "setup@localhost",
}
VARIABLES = {
    "GIT_TERMINAL_PROMPT": "0",  # nobody is there to type a password
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_CONFIG_COUNT": str(len(_SETTINGS)),
    **{f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(_SETTINGS)},
    **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(_SETTINGS.values())},
}
_AT_ONCE = 500  # paths in one command line
_UNFINISHED = {
    "MERGE_HEAD": "a merge",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisection",
}


@dataclass(frozen=True)
class Move:
    """Where the repository goes: HEAD at `head` (on `branch`, or detached), the files those of `tree`, `remove` gone."""

    head: str
    tree: str
    branch: str | None = None
    remove: list[str] = field(default_factory=list)


def holds_credentials(url: str | None) -> bool:
    """Return whether an address holds a password, or over http a user: often a token. ssh://git@host is how everybody writes it."""
    scheme, mark, rest = (url or "").partition("://")
    user, at, _ = rest.partition("/")[0].rpartition("@")
    return bool(mark and at) and (":" in user or scheme.lower().startswith("http"))


class Repository:
    """One work tree on this machine."""

    def __init__(self, folder: Path, account: Account) -> None:
        self.folder, self.account = folder, account
        self._journal = self.own_folder / "imagenet-trainer-at-work.json"

    @property
    def own_folder(self) -> Path:
        """Git's own folder: .git, or for a submodule or a linked work tree where the file .git says."""
        return Path(self.must("rev-parse", "--absolute-git-dir"))

    def ask(self, *arguments: str, **variables: str) -> str | None:
        """Ask git; None where it answers with an error."""
        return self.account.ask(self._command(arguments), variables={**VARIABLES, **variables})

    def must(self, *arguments: str, **variables: str) -> str:
        """Ask git what it must be able to answer.

        Raises:
            FailedError: it is not.
        """
        answer = self.ask(*arguments, **variables)
        if answer is None:
            raise FailedError(f"git {' '.join(arguments)} failed in {self.folder}: is the repository damaged? `git fsck` tells.")
        return answer.strip("\n")

    def run(self, *arguments: str, **variables: str) -> str:
        """Change something, as Account.run."""
        return self.account.run(self._command(arguments), variables={**VARIABLES, **variables}).strip("\n")

    def commit_of(self, name: str) -> str | None:
        """Return the id of a commit, or None where there is no such."""
        found = self.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return found.strip() if found else None

    @property
    def branch(self) -> str | None:
        """The branch that is checked out; None: detached."""
        return (self.ask("symbolic-ref", "--quiet", "--short", "HEAD") or "").strip() or None

    def unfinished(self) -> str | None:
        """What somebody has begun here and not ended: a merge, a rebase, ..."""
        own = self.own_folder
        for name, words in _UNFINISHED.items():
            if (own / name).exists():
                return words
        return "a merge with conflicts" if self.must("ls-files", "--unmerged") else None

    def changed_files(self) -> list[tuple[str, str]]:
        """Return (state, path) of every file that differs from HEAD or is not known to git; ignored files are not looked at."""
        words = self.must("status", "--porcelain=v1", "-z", "--untracked-files=all", "--ignore-submodules=none", "--no-renames")
        found = [(entry[:2], entry[3:]) for entry in words.split("\0") if entry]
        return [(state, path) for state, path in found if not path.endswith("/")]  # another repository inside: never touched

    def snapshot(self) -> str:
        """Return a commit of all files as they lie there, on top of HEAD; neither files nor index nor HEAD change."""
        own_index = self.own_folder / "imagenet-trainer-index"
        own_index.unlink(missing_ok=True)
        variables = {"GIT_INDEX_FILE": str(own_index)}
        self.run("read-tree", "HEAD", **variables)
        strangers = [f":(exclude,top,literal){path[:-1]}" for path in self._repositories_inside()]
        self.run("add", "--all", "--", ":(top)", *strangers, **variables)
        tree = self.run("write-tree", **variables)
        own_index.unlink(missing_ok=True)
        return self.commit_tree(tree, ["HEAD"])

    def commit_tree(self, tree: str, parents: Sequence[str]) -> str:
        """Return a new commit of a tree that no branch knows yet."""
        words = [word for parent in parents for word in ("-p", parent)]
        return self.run("commit-tree", "-m", "Local changes, kept by instance setup", *words, tree)

    def begin(self, move: Move | None = None) -> None:
        """Note that git is at work here, and from a certain point where to."""
        if self.account.dry_run:
            return
        text = json.dumps({"move": asdict(move) if move else None})
        partial = self._journal.with_suffix(".partial")
        with open(partial, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._journal)

    def end(self) -> None:
        """Forget it: all is done."""
        if self.account.dry_run:
            return
        self._journal.unlink(missing_ok=True)

    def give_up(self) -> None:
        """After an error: forget it, unless the folder is half way."""
        if self._journal.exists() and not json.loads(self._journal.read_text())["move"]:
            self.end()

    def finish_interrupted(self) -> None:
        """End what a killed set-up had begun, and remove the locks that its git has left. The set-up's own lock must be held."""
        if not self._journal.exists() or self.account.dry_run:
            return
        begun = self._journal.stat().st_mtime
        for lock in [*self._journal.parent.glob("*.lock"), *(self._journal.parent / "refs").rglob("*.lock")]:
            if lock.stat().st_mtime >= begun - 1:
                lock.unlink(missing_ok=True)
        stored = json.loads(self._journal.read_text())["move"]
        if stored:
            say(f"{self.folder}: ending what an interrupted set-up had begun")
            self.go(Move(**stored))
        self.end()

    def go(self, move: Move) -> None:
        """Move. Every step may be repeated; the journal says that it is to be."""
        self.begin(move)
        self.run("read-tree", "--reset", "-u", move.tree)
        self._remove(move.remove)
        if move.branch is None:
            self.run("update-ref", "--no-deref", "HEAD", move.head)
        else:
            self.run("symbolic-ref", "HEAD", f"refs/heads/{move.branch}")
            self.run("update-ref", f"refs/heads/{move.branch}", move.head)
            if self.commit_of(f"refs/remotes/origin/{move.branch}"):
                self.run("branch", "--quiet", f"--set-upstream-to=origin/{move.branch}", move.branch)
        self.run("read-tree", "HEAD")  # what the tree has beyond HEAD is a local change again
        self.ask("update-index", "-q", "--refresh")
        if (self.folder / ".gitmodules").exists():
            self.run("submodule", "sync", "--quiet", "--recursive")
            self.run("submodule", "update", "--quiet", "--init", "--recursive", "--force")
        self.end()

    def keep_reachable(self, commit: str) -> str:
        """Give a commit a name under refs/local, so that git never removes it. Returns the name."""
        name = f"refs/local/{time.strftime('%Y%m%d-%H%M%S')}-{commit[:8]}"
        self.run("update-ref", name, commit)
        return name

    def submodules(self) -> list[str]:
        """Paths of the submodules that are there, inner ones too."""
        if not (self.folder / ".gitmodules").exists():
            return []
        return self.must("submodule", "foreach", "--quiet", "--recursive", 'printf "%s\\n" "$displaypath"').splitlines()

    def _remove(self, paths: Sequence[str]) -> None:
        """Remove files that git does not know, and folders that are empty then. As the user, so that no path leads outside."""
        known = set(self.must("ls-files", "-z").split("\0"))
        there = [path for path in paths if path not in known]
        parents = sorted({parent for path in there if (parent := os.path.dirname(path))}, reverse=True)  # noqa: PTH120
        for start in range(0, len(there), _AT_ONCE):
            self.account.run(["env", f"--chdir={self.folder}", "rm", "-f", "--", *there[start : start + _AT_ONCE]])
        for parent in parents:
            rmdir = ["rmdir", "--parents", "--ignore-fail-on-non-empty", "--", parent]
            self.account.ask(["env", f"--chdir={self.folder}", *rmdir])

    def _repositories_inside(self) -> list[str]:
        words = self.must("ls-files", "--others", "--exclude-standard", "-z").split("\0")
        return [path for path in words if path.endswith("/")]

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return ["git", "-C", str(self.folder), *arguments]
