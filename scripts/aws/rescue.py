"""Local changes written to a folder beside the repository, and read again before anything is changed."""

import os
import shutil
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.aws.calls import say
from scripts.aws.errors import FailedError
from scripts.aws.git import Repository

_HOW = """What was in {folder} on {date}, before `instance setup --local-changes back-up` moved it.

repository.bundle     every commit, branch and stash, and {snapshot}: all files as they lay there, but ignored ones
changes.patch         what was changed since the last commit;  git apply changes.patch
staged.patch          the part of it that was staged
untracked.tar.gz      files that git did not know;  tar -xzf untracked.tar.gz
submodules/           the same of every submodule

All of it in a folder of its own:
    git clone repository.bundle before && cd before && git fetch origin '+{snapshot}:refs/heads/kept' && git checkout kept
"""


def back_up(repository: Repository, submodules: Sequence[Repository]) -> None:
    """Write everything of the work tree that is not ignored, and check it.

    Raises:
        FailedError: something could not be written or read again; nothing else was changed.
    """
    room = repository.folder.with_name(f"{repository.folder.name}-back-ups")
    room.mkdir(mode=0o700, exist_ok=True)
    repository.account.own(room)
    for left in room.glob("*.partial"):
        shutil.rmtree(left)
    date = time.strftime("%Y%m%d-%H%M%S")
    final = next(path for number in range(1000) if not (path := room / (f"{date}-{number}" if number else date)).exists())
    partial = final.with_name(f"{final.name}.partial")
    _write(repository, partial)
    for submodule in submodules:
        _write(submodule, partial / "submodules" / submodule.folder.relative_to(repository.folder))
    partial.rename(final)
    descriptor = os.open(room, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    say(f"{repository.folder}: local changes are in {final}")


def _write(repository: Repository, place: Path) -> None:
    """One repository's part."""
    place.mkdir(parents=True, mode=0o700)
    repository.account.own(place)
    snapshot = repository.keep_reachable(repository.snapshot())
    untracked = [path for state, path in repository.changed_files() if state == "??"]
    (place / "changes.patch").write_text(repository.ask("diff", "--binary", "HEAD") or "", errors="surrogateescape")
    (place / "staged.patch").write_text(repository.ask("diff", "--binary", "--cached", "HEAD") or "", errors="surrogateescape")
    with tarfile.open(place / "untracked.tar.gz", "w:gz") as archive:
        for path in untracked:
            archive.add(repository.folder / path, arcname=path, recursive=False)
    words = _HOW.format(folder=repository.folder, date=time.strftime("%F %T"), snapshot=snapshot)
    (place / "README.txt").write_text(words)
    repository.run("bundle", "create", "--quiet", str(place / "repository.bundle"), "--all", "HEAD")
    repository.must("bundle", "verify", "--quiet", str(place / "repository.bundle"))
    with tarfile.open(place / "untracked.tar.gz") as archive:
        if archive.getnames() != untracked:
            raise FailedError(f"{place}/untracked.tar.gz does not hold every untracked file: nothing was changed.")
    for file in place.iterdir():
        repository.account.own(file)
        if file.is_file():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
