"""The same images in the same slots of the same steps, whatever number of processes trains."""

import json
from pathlib import Path

from tests.distributed.conftest import TINY, Torchrun

SCRIPT = str(Path(__file__).with_name("record_plans.py"))


STRONG = (
    *("augment.operations=trivial_augment_wide", "augment.brightness=0.4", "augment.hue=0.1", "augment.erase_probability=0.5"),
    *("augment.erase_with=noise", "augment.mixup_alpha=0.2", "augment.cutmix_alpha=1.0", "augment.mix_probability=0.7"),
)


def test_slots_and_what_is_seen_of_them_do_not_depend_on_the_ranks(torchrun: Torchrun, tmp_path: Path) -> None:
    recorded = {}
    for ranks in (1, 2, 4):
        torchrun(ranks, SCRIPT, str(tmp_path), *TINY, *STRONG, "max_local_batch_size=8")
        slots: dict[str, tuple[list[int], str]] = {}
        for rank in range(ranks):
            own = json.loads((tmp_path / f"world{ranks}-rank{rank}.json").read_text())
            assert not slots.keys() & own.keys()
            slots |= own
        recorded[ranks] = slots
    assert len(recorded[1]) == 2 * 3 * 4  # epochs x steps x slots
    assert recorded[1] == recorded[2] == recorded[4]
    assert len({digest for _, digest in recorded[1].values()}) == 2 * 3 * 4
    for epoch in range(2):
        shown = [sample for key, (ids, _) in recorded[1].items() if int(key.split(".")[0]) // 3 == epoch for sample in ids]
        assert len(set(shown)) == len(shown) == 96
    assert recorded[1]["0.0"] != recorded[1]["3.0"]
