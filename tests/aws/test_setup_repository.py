"""`instance setup`: the repository, with every choice for local changes, on real git repositories."""

import os
import shutil
import stat
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IGNORED = {".env": "WANDB_API_KEY=sentinel\n", "data/photo": "pixels"}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip("\n")


def tree(folder: Path) -> dict[str, str]:
    """Every file, but git's own."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


@dataclass
class Place:
    """An origin and the folder that is set up from it."""

    root: Path

    @property
    def origin(self) -> Path:
        return self.root / "origin"

    @property
    def folder(self) -> Path:
        return self.root / "work tree"

    def setup(self, *options: str, path: str | None = None, url: str | None = None) -> subprocess.CompletedProcess[str]:
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        command = [sys.executable, "-m", "scripts.aws", "instance", "setup", "--repository", url or str(self.origin)]
        command += ["--folder", str(self.link), "--user", user, "--environment", "none", "--python", sys.executable, *options]
        variables = {"PATH": path or os.environ["PATH"], "GIT_CONFIG_GLOBAL": str(self.root / "gitconfig")}
        environment = {**os.environ, **variables}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)

    @property
    def link(self) -> Path:
        """The command takes no white space in the folder; the folder itself is called so that unquoted words would be seen."""
        return self.root / "link"

    def good(self, *options: str) -> None:
        done = self.setup(*options)
        assert done.returncode == 0, done.stderr

    def commit(self, name: str, content: str, message: str, where: Path | None = None) -> str:
        folder = where or self.origin
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", message)
        return git(folder, "rev-parse", "HEAD")

    def change_locally(self) -> None:
        """An edit, a staged new file, a deletion, untracked files with odd names, a commit; and files that git ignores."""
        self.commit("mine.txt", "a local commit\n", "mine", self.folder)
        (self.folder / "train.py").write_text("one\ntwo\nthree\nfour\nfive, mine\n")
        (self.folder / "staged.txt").write_text("staged\n")
        git(self.folder, "add", "staged.txt")
        (self.folder / "old.txt").unlink()
        (self.folder / "notes" / "deep").mkdir(parents=True)
        (self.folder / "notes" / "deep" / "a b'c$.txt").write_text("untracked\n")
        (self.folder / "ümlaut.txt").write_text("untracked too\n")
        for name, content in IGNORED.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(content)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.folder.mkdir()
    place.link.symlink_to(place.folder)
    (tmp_path / "gitconfig").write_text('[user]\nname=me\nemail=me@localhost\n[protocol "file"]\nallow=always\n')
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(place.origin)], check=True)
    git(place.origin, "config", "user.name", "me")
    git(place.origin, "config", "user.email", "me@localhost")
    (place.origin / ".gitignore").write_text(".env\ndata/\n")
    (place.origin / "old.txt").write_text("old\n")
    place.commit("train.py", "one\ntwo\nthree\nfour\nfive\n", "first")
    return place


@pytest.fixture
def cloned(place: Place) -> Place:
    """Cloned, changed locally, and the origin has gone on without contradicting it."""
    place.folder.rmdir()
    subprocess.run(["git", "clone", "--quiet", str(place.origin), str(place.folder)], check=True)
    git(place.folder, "config", "user.name", "me")
    git(place.folder, "config", "user.email", "me@localhost")
    place.change_locally()
    place.commit("train.py", "ONE\ntwo\nthree\nfour\nfive\n", "second")
    place.commit("new.txt", "new\n", "third")
    return place


def test_a_clone_is_made_whole_or_not_at_all(place: Place) -> None:
    place.link.unlink()
    missing = place.setup(url=f"{place.origin}-not-there")
    assert missing.returncode == 1 and "not-there" in missing.stderr and "Traceback" not in missing.stderr
    assert not place.link.exists()
    (place.root / ".link.partial").mkdir()  # what a killed clone leaves
    (place.root / ".link.partial" / "half").touch()
    place.good()
    assert tree(place.link) == tree(place.origin)
    assert not (place.root / ".link.partial").exists()
    place.good()  # again: nothing to do
    assert git(place.link, "status", "--short", "--branch") == "## main...origin/main"


def test_an_unchanged_clone_follows_its_branch_a_commit_and_back(cloned: Place) -> None:
    shutil.rmtree(cloned.folder)
    subprocess.run(["git", "clone", "--quiet", str(cloned.origin), str(cloned.folder)], check=True)
    first = git(cloned.origin, "rev-list", "--max-parents=0", "HEAD")
    newest = cloned.commit("later.txt", "later\n", "later")
    cloned.good()
    assert git(cloned.folder, "rev-parse", "HEAD") == newest
    cloned.good("--commit", first)
    assert git(cloned.folder, "rev-parse", "HEAD") == first and git(cloned.folder, "branch", "--show-current") == ""
    assert git(cloned.folder, "status", "--porcelain") == ""
    cloned.good()  # detached, no branch named: the origin's own
    assert git(cloned.folder, "branch", "--show-current") == "main" and tree(cloned.folder) == tree(cloned.origin)


def test_local_changes_are_listed_and_the_folder_is_left_alone(cloned: Place) -> None:
    before, status = tree(cloned.folder), git(cloned.folder, "status", "--porcelain")
    done = cloned.setup()
    assert done.returncode == 2
    for words in ("train.py", "staged.txt", "old.txt", "notes/deep/a b'c$.txt", "ümlaut.txt", "mine"):
        assert words in done.stderr
    for choice in ("keep", "merge", "back-up", "reset"):
        assert choice in done.stderr
    assert "sentinel" not in done.stderr and ".env" not in done.stderr
    assert not (cloned.folder / ".git" / "imagenet-trainer-at-work.json").exists(), "nothing is under way"
    assert tree(cloned.folder) == before and git(cloned.folder, "status", "--porcelain") == status


def test_keep_changes_nothing_at_all(cloned: Place) -> None:
    before, head = tree(cloned.folder), git(cloned.folder, "rev-parse", "HEAD")
    shutil.move(cloned.origin, cloned.root / "away")  # it does not even ask
    cloned.good("--local-changes", "keep")
    assert tree(cloned.folder) == before and git(cloned.folder, "rev-parse", "HEAD") == head


def check_merged(cloned: Place) -> None:
    files = tree(cloned.folder)
    assert files["train.py"] == "ONE\ntwo\nthree\nfour\nfive, mine\n"
    assert files["new.txt"] == "new\n" and files["mine.txt"] == "a local commit\n" and files["staged.txt"] == "staged\n"
    assert files["notes/deep/a b'c$.txt"] == "untracked\n" and files["ümlaut.txt"] == "untracked too\n" and "old.txt" not in files
    for name, content in IGNORED.items():
        assert files[name] == content
    for commit in (git(cloned.origin, "rev-parse", "main"),):
        git(cloned.folder, "merge-base", "--is-ancestor", commit, "HEAD")
    assert "mine" in git(cloned.folder, "log", "--format=%s")
    states = set(git(cloned.folder, "-c", "core.quotePath=false", "status", "--porcelain").splitlines())
    assert states == {" M train.py", " D old.txt", "?? staged.txt", "?? notes/", "?? ümlaut.txt"}
    assert git(cloned.folder, "branch", "--show-current") == "main"
    assert len(git(cloned.folder, "worktree", "list").splitlines()) == 1


def test_merge_brings_both_together_and_uncommitted_stays_uncommitted(cloned: Place) -> None:
    cloned.good("--local-changes", "merge")
    check_merged(cloned)
    files = tree(cloned.folder)
    cloned.good("--local-changes", "merge")  # again
    assert tree(cloned.folder) == files


@pytest.mark.parametrize("committed", [False, True])
def test_a_conflict_is_told_and_everything_is_as_it_was(cloned: Place, *, committed: bool) -> None:
    cloned.commit("train.py", "one\ntwo\nthree\nfour\nfive, theirs\n", "against mine")
    if committed:
        git(cloned.folder, "commit", "--quiet", "--all", "--message", "all of it")
    before, status = tree(cloned.folder), git(cloned.folder, "status", "--porcelain=v2", "--branch")
    done = cloned.setup("--local-changes", "merge")
    assert done.returncode == 2 and "train.py" in done.stderr and "Nothing was changed" in done.stderr
    assert tree(cloned.folder) == before
    after = git(cloned.folder, "status", "--porcelain=v2", "--branch")
    known = [line for line in after.splitlines() if not line.startswith("# branch.ab")]  # what it fetched, it knows
    assert known == [line for line in status.splitlines() if not line.startswith("# branch.ab")]
    assert len(git(cloned.folder, "worktree", "list").splitlines()) == 1


def check_backed_up(cloned: Place, before: dict[str, str], number: int = 1) -> None:
    assert tree(cloned.folder) == tree(cloned.origin) | IGNORED
    assert git(cloned.folder, "status", "--porcelain") == "" and git(cloned.folder, "branch", "--show-current") == "main"
    assert not (cloned.folder / "notes").exists()
    kept = sorted((cloned.root / "link-back-ups").iterdir())
    assert len(kept) == number and not any(path.name.endswith(".partial") for path in kept)
    assert stat.S_IMODE(kept[0].stat().st_mode) == 0o700
    with tarfile.open(kept[0] / "untracked.tar.gz") as archive:
        assert sorted(archive.getnames()) == ["notes/deep/a b'c$.txt", "ümlaut.txt"]
    # As its README says.
    words = next(line.strip() for line in (kept[0] / "README.txt").read_text().splitlines() if "git clone" in line)
    subprocess.run(words, shell=True, cwd=kept[0], check=True, capture_output=True)
    assert tree(kept[0] / "before") == {name: text for name, text in before.items() if name not in IGNORED}
    shutil.rmtree(kept[0] / "before")


def test_back_up_loses_nothing(cloned: Place) -> None:
    before = tree(cloned.folder)
    cloned.good("--local-changes", "back-up")
    check_backed_up(cloned, before)
    cloned.good("--local-changes", "back-up")  # nothing is left to back up
    check_backed_up(cloned, before)


def test_reset_throws_changes_away_but_ignored_files_and_commits_stay(cloned: Place) -> None:
    mine = git(cloned.folder, "rev-parse", "HEAD")
    done = cloned.setup("--local-changes", "reset")
    assert done.returncode == 0 and "thrown away" in done.stderr and "ümlaut.txt" in done.stderr
    assert tree(cloned.folder) == tree(cloned.origin) | IGNORED and git(cloned.folder, "status", "--porcelain") == ""
    assert mine in git(cloned.folder, "for-each-ref", "--format=%(objectname)", "refs/local").splitlines()


def test_other_branches_stashes_and_repositories_inside_are_not_touched(cloned: Place) -> None:
    (cloned.folder / "inside").mkdir()
    subprocess.run(["git", "init", "--quiet", str(cloned.folder / "inside")], check=True)
    (cloned.folder / "inside" / "file").write_text("mine")
    git(cloned.folder, "branch", "other")
    (cloned.folder / "train.py").write_text("to be stashed\n")
    git(cloned.folder, "stash")
    for choice in ("back-up", "merge", "reset"):
        (cloned.folder / "more.txt").write_text(choice)
        cloned.good("--local-changes", choice)
        assert (cloned.folder / "inside" / "file").read_text() == "mine" and (cloned.folder / "inside" / ".git").is_dir()
        assert git(cloned.folder, "rev-parse", "other") and git(cloned.folder, "stash", "list")


def test_what_is_under_way_is_refused_and_kept(cloned: Place) -> None:
    cloned.commit("train.py", "contradiction\n", "contradiction")
    git(cloned.folder, "commit", "--quiet", "--all", "--message", "all")
    git(cloned.folder, "fetch", "--quiet")
    subprocess.run(["git", "-C", str(cloned.folder), "merge", "--quiet", "origin/main"], capture_output=True, check=False)
    assert (cloned.folder / ".git" / "MERGE_HEAD").exists()
    before = tree(cloned.folder)
    for choice in ("merge", "back-up", "reset", "refuse"):
        done = cloned.setup("--local-changes", choice)
        assert done.returncode == 2 and "a merge is under way" in done.stderr
    cloned.good("--local-changes", "keep")
    assert tree(cloned.folder) == before and (cloned.folder / ".git" / "MERGE_HEAD").exists()


def test_changes_in_a_submodule_are_found_backed_up_and_refused_by_merge(cloned: Place) -> None:
    shutil.rmtree(cloned.folder)
    part = cloned.root / "part"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(part)], check=True)
    git(part, "config", "user.name", "me")
    git(part, "config", "user.email", "me@localhost")
    cloned.commit("lib.py", "library\n", "first", part)
    git(cloned.origin, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(part), "part")
    git(cloned.origin, "commit", "--quiet", "--message", "a submodule")
    cloned.link.unlink()
    cloned.good()
    assert (cloned.link / "part" / "lib.py").read_text() == "library\n"
    (cloned.link / "part" / "lib.py").write_text("library, mine\n")
    (cloned.link / "part" / "new.py").write_text("new\n")
    assert "part" in cloned.setup().stderr
    done = cloned.setup("--local-changes", "merge")
    assert done.returncode == 2 and "submodules (part)" in done.stderr
    cloned.good("--local-changes", "back-up")
    assert tree(cloned.link / "part") == {"lib.py": "library\n"} and git(cloned.link, "status", "--porcelain") == ""
    (kept,) = (cloned.root / "link-back-ups").iterdir()
    assert "library, mine" in (kept / "submodules" / "part" / "changes.patch").read_text()
    with tarfile.open(kept / "submodules" / "part" / "untracked.tar.gz") as archive:
        assert archive.getnames() == ["new.py"]


def test_wrong_wishes_are_refused_by_name(cloned: Place) -> None:
    for options, words in (
        (("--branch", "nowhere"), "nowhere"),
        (("--commit", "0" * 40), "0" * 40),
        (("--branch", "main", "--commit", "0" * 40), "exclude each other"),
        (("--repository", "https://me:sentinel@example.org/x"), "holds a user or password"),
        (("--repository", "ssh://git:sentinel@example.org/x"), "holds a user or password"),
        (("--repository", "ssh://git@example.org/another"), "is not where"),
    ):
        done = cloned.setup(*options)
        assert done.returncode == 2 and words in done.stderr, (options, done.stderr)
        assert "sentinel" not in done.stderr + done.stdout and "Traceback" not in done.stderr
    other = cloned.root / "other"
    other.mkdir()
    (other / "file").touch()
    done = cloned.setup("--folder", str(other))
    assert done.returncode == 2 and "exists and is no git repository" in done.stderr


def test_a_dry_run_changes_nothing(cloned: Place) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(cloned.root.rglob("*")) if path.is_file()}
    for choice in ("refuse", "keep", "merge", "back-up", "reset"):
        done = cloned.setup("--local-changes", choice, "--dry-run")
        assert done.returncode == (2 if choice == "refuse" else 0), done.stderr
    assert {path: path.stat().st_mtime_ns for path in sorted(cloned.root.rglob("*")) if path.is_file()} == before


KILLER = """#!/bin/bash
# git, that kills who called it before or after its n-th call.
n=$(($(cat "{counter}") + 1))
echo $n >"{counter}"
[[ $n != {at} || {manner} != before ]] || {{ kill -9 $PPID; exit 1; }}
"{git}" "$@"
code=$?
[[ $n != {at} || {manner} != after ]] || kill -9 $PPID
exit $code
"""


def killed_at(cloned: Place, choice: str, at: int, manner: str) -> bool:
    """Set up with a git that kills the set-up at its at-th call; False: it made fewer calls and ended well."""
    room = cloned.root / "killer"
    room.mkdir(exist_ok=True)
    (room / "counter").write_text("0")
    real = shutil.which("git")
    (room / "git").write_text(KILLER.format(counter=room / "counter", at=at, manner=manner, git=real))
    (room / "git").chmod(0o755)
    done = cloned.setup("--local-changes", choice, path=f"{room}:{os.environ['PATH']}")
    assert done.returncode in (0, -9), done.stderr
    return done.returncode != 0


def kill_everywhere(cloned: Place, choice: str, steps: range) -> None:
    shutil.copytree(cloned.folder, cloned.root / "as it was", symlinks=True)
    before = tree(cloned.folder)
    for at in steps:
        for manner in ("before", "after"):
            shutil.rmtree(cloned.folder)
            shutil.rmtree(cloned.root / "link-back-ups", ignore_errors=True)
            shutil.copytree(cloned.root / "as it was", cloned.folder, symlinks=True)
            if not killed_at(cloned, choice, at, manner):
                return
            cloned.good("--local-changes", choice)
            if choice == "merge":
                check_merged(cloned)
            elif choice == "back-up":
                kept = len(list((cloned.root / "link-back-ups").iterdir()))
                assert kept in (1, 2)  # killed behind it, nothing is known of it
                check_backed_up(cloned, before, kept)
            else:
                assert tree(cloned.folder) == tree(cloned.origin) | IGNORED


def test_a_move_that_was_cut_off_is_ended_whatever_is_chosen_then(cloned: Place) -> None:
    room = cloned.root / "killer"
    room.mkdir()
    words = '[[ "$*" != *"symbolic-ref HEAD refs"* ]] || { kill -9 $PPID; exit 1; }'
    (room / "git").write_text(f'#!/bin/bash\n{words}\nexec "{shutil.which("git")}" "$@"\n')
    (room / "git").chmod(0o755)
    assert cloned.setup("--local-changes", "merge", path=f"{room}:{os.environ['PATH']}").returncode == -9
    cloned.good("--local-changes", "keep")
    check_merged(cloned)


@pytest.mark.parametrize(
    ("choice", "steps"), [("merge", range(22, 60, 7)), ("back-up", range(24, 60, 8)), ("reset", range(9, 60, 6))]
)
def test_killed_in_the_middle_the_next_set_up_ends_it(cloned: Place, choice: str, steps: range) -> None:
    kill_everywhere(cloned, choice, steps)


@pytest.mark.long
@pytest.mark.parametrize("choice", ["merge", "back-up", "reset"])
def test_killed_at_every_call_of_git_the_next_set_up_ends_it(cloned: Place, choice: str) -> None:
    kill_everywhere(cloned, choice, range(1, 200))


def test_a_lock_that_a_killed_git_has_left_is_removed_but_never_somebody_elses(cloned: Place) -> None:
    lock = cloned.folder / ".git" / "index.lock"
    lock.touch()  # the user's own git is at work, or was killed: not ours to judge
    done = cloned.setup("--local-changes", "reset")
    assert done.returncode == 1 and "index.lock" in done.stderr and lock.exists()
    (cloned.folder / ".git" / "imagenet-trainer-at-work.json").write_text('{"move": null}')
    lock.unlink()
    lock.touch()
    cloned.good("--local-changes", "reset")
    assert not lock.exists()
