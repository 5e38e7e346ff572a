"""A run whose files were damaged goes on from a state that was saved, or says which file and what to do. Never anything else."""

from loguru import logger

from tests.end_to_end.corruptions import corrupt
from tests.end_to_end.damage import KINDS


def test_a_damaged_run_goes_on_from_a_saved_state_or_refuses() -> None:
    """The whole test is `python -m tests.end_to_end.corruptions --count 10000`; its seed repeats what went wrong."""
    try:
        found = corrupt(300, seed=1, ends=0.01)
    finally:
        logger.remove()
    assert found["told"] == []
    assert found["corruptions"] == 300
    assert found["resumed"] > 50, "too much is refused"
    assert found["refused"] > 5, "nothing was damaged so that it mattered"
    assert set(found["kinds"]) == set(KINDS), "some kind of damage did not happen"
