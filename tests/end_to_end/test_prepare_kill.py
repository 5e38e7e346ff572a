"""`kill -9` at system calls of every stage: the same command ends in the same tree and index, and no source is touched.

One kill a stage; `python -m tests.end_to_end.prepare_kills` does fifty, `pytest --long` five of each source.
"""

from pathlib import Path

import pytest

from tests.end_to_end.prepare_kills import SOURCES, STAGES, StraceError, examine


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
