"""`kill -9` at system calls of every stage: the same command ends in the same tree and index, and no source is touched.

One kill a stage; `python -m tests.end_to_end.prepare_kills` does fifty, `pytest --long` five of each source.
"""

import re
from pathlib import Path

import pytest

from tests.end_to_end.prepare_kills import SOURCES, STAGES, Case, StraceError, examine
from tests.scale_models import scale_model


def survives(folder: Path, sources: list[str], *, kills: int, seed: int) -> None:
    try:
        report = examine(folder, kills=kills, stages=STAGES, sources=sources, classes=12, seed=seed)
    except StraceError as error:
        pytest.skip(str(error))
    assert report["kills"] == dict.fromkeys(STAGES, kills)
    assert (report["unequal"], report["touched"]) == (0, 0)


def test_a_kill_in_each_stage_changes_nothing(tmp_path: Path) -> None:
    survives(tmp_path, ["official"], kills=1, seed=6)


@pytest.mark.long
@pytest.mark.parametrize("source", SOURCES)
def test_five_kills_in_each_stage_change_nothing(tmp_path: Path, source: str) -> None:
    survives(tmp_path, [source], kills=5, seed=7)


def test_nothing_is_noted_before_it_lasts(tmp_path: Path) -> None:
    """A power loss would show it; here the order of the calls does: between two notes of units stands a sync of the file system."""
    try:
        case = Case(tmp_path / "case", "official", scale_model(12))
        case.calls("extract")
    except (StraceError, FileNotFoundError) as error:
        pytest.skip(f"strace cannot be used: {error}")
    events = []
    for line in case.log.read_text(errors="replace").splitlines():
        if " syncfs(" in line and "unfinished" not in line:
            events.append("sync")
        elif " write(" in line and "/journal.jsonl>" in line:
            events.append("note")
        elif " write(" in line and "/rows/" in line:
            events.append("rows")
    notes = "".join(event[0] for event in events)
    assert re.fullmatch(r"n(r+sn)+n+", notes), notes  # the start, groups of units, then the sums and the stage
