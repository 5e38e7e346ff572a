"""The same images in the same slots of the same steps, whatever number of processes trains."""

import json
from pathlib import Path

from tests.distributed.conftest import TINY, Torchrun

SCRIPT = str(Path(__file__).with_name("record_plans.py"))


def test_slots_do_not_depend_on_the_ranks(torchrun: Torchrun, tmp_path: Path) -> None:
    recorded = {}
    for ranks in (1, 2, 4):
        torchrun(ranks, SCRIPT, str(tmp_path), *TINY, "max_local_batch_size=8")
        slots: dict[str, list[int]] = {}
        for rank in range(ranks):
            own = json.loads((tmp_path / f"world{ranks}-rank{rank}.json").read_text())
            assert not slots.keys() & own.keys()
            slots |= own
        recorded[ranks] = slots
    assert len(recorded[1]) == 2 * 3 * 4  # epochs x steps x slots
    assert recorded[1] == recorded[2] == recorded[4]
    for epoch in range(2):
        shown = [sample for key, ids in recorded[1].items() if int(key.split(".")[0]) // 3 == epoch for sample in ids]
        assert len(set(shown)) == len(shown) == 96
    assert recorded[1]["0.0"] != recorded[1]["3.0"]
