"""The project's repository on the instance: cloned, or brought to the wanted state with a choice for local changes.

What a local change is: a file that differs from HEAD, an untracked file that is not ignored, a commit that no remote branch has.
Ignored files (.env, data/, runs/), other branches, stashes, and repositories inside are never touched by any choice.

    refuse    list them and stop (unless you choose)
    keep      leave the folder exactly as it is: nothing is fetched, nothing moves
    merge     bring the wanted state in; your changes stay, uncommitted ones uncommitted. Tried beside the folder first: a conflict
              is told, and the folder is as it was before
    back-up   write them to <folder>-back-ups/<date>: a bundle of all commits and a snapshot, patches, an archive of the untracked
              files, checked by reading them again; then as reset
    reset     throw uncommitted changes and untracked files away; commits stay under refs/local. Nothing else is kept: that is
              what the word says, and `back-up` is the careful one

Each ends in one journalled move (scripts/aws/git.py): killed in the middle, the next set-up ends it.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from scripts.aws.account import Account
from scripts.aws.calls import say
from scripts.aws.errors import FailedError, Problem, RefusedError, refuse
from scripts.aws.git import VARIABLES, Move, Repository
from scripts.aws.rescue import back_up

LOCAL_CHANGES = ("refuse", "keep", "merge", "back-up", "reset")
_WHERE = "instance setup"
_SHOWN = 20  # of many local changes


@dataclass(frozen=True)
class Wanted:
    """Where the code comes from, and which; `branch` and `commit` are None: what is checked out, or the remote's own branch."""

    url: str | None
    branch: str | None
    commit: str | None


@dataclass(frozen=True)
class LocalChanges:
    """What only this folder has."""

    files: list[tuple[str, str]]
    commits: list[str]

    def __bool__(self) -> bool:
        return bool(self.files or self.commits)

    def lines(self) -> list[str]:
        """As a list for people."""
        listed = [f"{state} {path}" for state, path in self.files] + [f"commit {commit}" for commit in self.commits]
        return listed if len(listed) <= _SHOWN else [*listed[:_SHOWN], f"... and {len(listed) - _SHOWN} more"]


def put_in_place(folder: Path, wanted: Wanted, choice: str, account: Account) -> str:
    """Clone, or bring an existing clone to what is wanted. Returns the commit that is checked out.

    Args:
        folder: the work tree.
        wanted: origin, branch or commit.
        choice: one of LOCAL_CHANGES.
        account: who owns the folder.

    Raises:
        RefusedError: there are local changes and no choice; a conflict; another repository; an unknown branch or commit.
        FailedError: git failed.
    """
    if not (folder / ".git").exists():
        _clone(folder, wanted, account)
        if account.dry_run:
            return "(dry run)"
    repository = Repository(folder, account)
    repository.finish_interrupted()
    origin = (repository.ask("remote", "get-url", "origin") or "").strip()
    if wanted.url and origin != wanted.url:
        raise refuse(_WHERE, "--repository", wanted.url, f"is not where {folder} comes from ({origin}). Choose another --folder.")
    if choice == "keep":
        say(f"{folder}: left as it is")
        return repository.must("rev-parse", "HEAD")
    under_way = repository.unfinished()
    if under_way:
        raise refuse(_WHERE, str(folder), None, f"{under_way} is under way there. End or abort it (`git status` tells how).")
    repository.begin()
    try:
        _fetch(repository, wanted)
        _bring(repository, wanted, choice)
    except (RefusedError, FailedError):
        repository.give_up()
        raise
    repository.end()
    return repository.must("rev-parse", "HEAD")


def _bring(repository: Repository, wanted: Wanted, choice: str) -> None:
    """Go to what is wanted, by the choice where there are local changes."""
    branch, target = _target(repository, wanted)
    changes = local_changes(repository, branch, target)
    if changes:
        _deal_with(changes, repository, branch, target, choice)
    elif repository.account.dry_run:
        say(f"{repository.folder}: would go to {target[:12]} ({branch or 'detached'}), or what the origin has by then")
    elif repository.must("rev-parse", "HEAD") != target or repository.branch != branch:
        repository.go(Move(target, f"{target}^{{tree}}", branch))


def local_changes(repository: Repository, branch: str | None, target: str) -> LocalChanges:
    """Return what would be lost, or left behind, by going to the target."""
    heads = ["HEAD"]
    if branch is not None and repository.commit_of(f"refs/heads/{branch}"):
        heads.append(f"refs/heads/{branch}")
    commits = repository.must("log", "--format=%h %s", *heads, "--not", target, "--remotes", "--").splitlines()
    return LocalChanges(repository.changed_files(), commits)


def _clone(folder: Path, wanted: Wanted, account: Account) -> None:
    if wanted.url is None:
        raise refuse(_WHERE, "--repository", None, f"is needed: {folder} is no git repository yet.")
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise refuse(_WHERE, "--folder", folder, "exists and is no git repository. Move it away, or choose another.")
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.exists() and not account.dry_run:
        shutil.rmtree(partial)
    account.run(["mkdir", "--parents", str(folder.parent)])
    git = ["git", "clone", "--quiet", "--recurse-submodules"]
    account.run(
        [*git, *(["--branch", wanted.branch] if wanted.branch else []), "--", wanted.url, str(partial)],
        variables=VARIABLES,
        shown=True,
    )
    if not account.dry_run:
        partial.rename(folder)


def _fetch(repository: Repository, wanted: Wanted) -> None:
    try:
        repository.run("fetch", "--quiet", "--tags", "origin")
    except FailedError:
        if wanted.commit is None or repository.commit_of(wanted.commit) is None:
            raise
        say(f"{repository.folder}: the origin does not answer; {wanted.commit} is here already")


def _target(repository: Repository, wanted: Wanted) -> tuple[str | None, str]:
    """The branch to stand on (None: detached), and the commit."""
    if wanted.commit is not None:
        found = repository.commit_of(wanted.commit)
        if found is None:
            raise refuse(_WHERE, "--commit", wanted.commit, "is not in the repository, also after fetching. Was it pushed?")
        return None, found
    branch = wanted.branch or repository.branch
    if branch is None:
        head = (repository.ask("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD") or "").strip()
        branch = head.removeprefix("origin/") or None
    if branch is None:
        raise refuse(_WHERE, "--branch", None, f"is needed: {repository.folder} stands on none, and its origin names none.")
    found = repository.commit_of(f"refs/remotes/origin/{branch}")
    if found is None:
        raise refuse(_WHERE, "--branch", branch, "is no branch of the origin. Push it, or choose another.")
    return branch, found


def _deal_with(changes: LocalChanges, repository: Repository, branch: str | None, target: str, choice: str) -> None:
    if choice == "refuse":
        listed = "".join(f"\n      {line}" for line in changes.lines())
        fix = (
            f"has local changes:{listed}\n    Type again with --local-changes keep (leave all as it is), "
            "merge (bring the new state in), back-up (write them to a folder beside it, then reset) or reset (throw them away)."
        )
        raise RefusedError(_WHERE, [Problem(str(repository.folder), None, fix)])
    if repository.account.dry_run:
        say("\n".join([f"{repository.folder}: would {choice}:", *(f"  {line}" for line in changes.lines())]))
        return
    if choice == "merge":
        _merge(changes, repository, branch, target)
        return
    inner = [Repository(repository.folder / path, repository.account) for path in repository.submodules()]
    if choice == "back-up":
        back_up(repository, inner)
    else:
        say("\n".join([f"{repository.folder}: thrown away:", *(f"  {line}" for line in changes.lines())]))
        if changes.commits:
            repository.keep_reachable("HEAD")
    for submodule in reversed(inner):
        submodule.run("reset", "--quiet", "--hard")
        submodule.run("clean", "--quiet", "-d", "--force")
    untracked = [path for state, path in changes.files if state == "??"]
    repository.go(Move(target, f"{target}^{{tree}}", branch, untracked))


def _merge(changes: LocalChanges, repository: Repository, branch: str | None, target: str) -> None:
    """Merge beside the folder, and only then move it."""
    if branch is not None and repository.branch not in (None, branch):
        fix = (
            f"is not checked out ({repository.branch} is), and merge works on the present branch. Type git checkout {branch} first."
        )
        raise refuse(_WHERE, "--branch", branch, fix)
    dirty = {path for _, path in changes.files} & set(repository.submodules())
    if dirty:
        raise refuse(_WHERE, "--local-changes", "merge", f"does not reach into submodules ({', '.join(sorted(dirty))}).")
    mine = repository.snapshot()
    repository.keep_reachable(mine)
    files = _merged(repository, mine, target)
    head = _merged(repository, repository.must("rev-parse", "HEAD"), target) if changes.commits else target
    repository.go(Move(head, f"{files}^{{tree}}", branch))


def _merged(repository: Repository, mine: str, target: str) -> str:
    """Return the commit that merges both, made in a work tree of its own.

    Raises:
        RefusedError: with every file in conflict; nothing has changed.
    """
    beside = repository.folder.with_name(f".{repository.folder.name}.merge")
    _forget(repository, beside)
    repository.run("worktree", "add", "--quiet", "--detach", str(beside), mine)
    try:
        tree = Repository(beside, repository.account)
        if tree.ask("merge", "--quiet", "--no-edit", target) is None:
            conflicts = tree.must("diff", "--name-only", "--diff-filter=U").splitlines()
            if not conflicts:
                raise FailedError(f"git merge {target} failed in {beside}")
            fix = (
                f"your changes and {target[:12]} contradict each other in {', '.join(conflicts)}. Nothing was changed. "
                "Merge by hand, or type --local-changes keep, back-up or reset."
            )
            raise RefusedError(_WHERE, [Problem(str(repository.folder), None, fix)])
        return tree.must("rev-parse", "HEAD")
    finally:
        _forget(repository, beside)


def _forget(repository: Repository, beside: Path) -> None:
    if beside.exists():
        shutil.rmtree(beside)
    repository.run("worktree", "prune")
