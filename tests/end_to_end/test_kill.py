"""`kill -9` at random instants, and the same command again: the end is equal bit for bit. The long version is kill_harness.py."""

from pathlib import Path

import pytest

from tests.end_to_end.kill_harness import kill_and_compare


@pytest.mark.parametrize(("optimizer", "ranks", "kills"), [("sgd", 1, 3), ("sf_adamw", 2, 2)])
def test_killed_at_random_instants_ends_equal(tmp_path: Path, optimizer: str, ranks: int, kills: int) -> None:
    outcome = kill_and_compare(tmp_path, (f"optim={optimizer}",), ranks=ranks, kills=kills, seed=0)
    assert outcome["unequal"] == []
    assert outcome["lost"] == 0
    assert outcome["kills"] >= 1
