"""Every step's plan, computed again from the configuration and the data's index, without decoding an image."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from src import distributed
from src.auditing.record import RunRecord
from src.auditing.rows import windows_of
from src.auditing.verdict import Check, check
from src.batch import Source
from src.build_plans import epoch_plan
from src.config import Config
from src.training.arithmetic import Arithmetic
from src.training.ledger import hash_images


def plans_check(
    record: RunRecord,
    steps: Sequence[int],
    arithmetic: Arithmetic,
    source: Source,
    *,
    rank: int,
    progress: Callable[[int, int], None],
) -> Check:
    """Look whether the ledger's hashes are of the plans that the configuration and the data's index make. Every rank must call it.

    Where bad images were replaced in a window, as many of its steps may differ as it tells: which images those were only shows when
    they are decoded, so a replay checks them.

    Args:
        record: what the folder claims.
        steps: which, as in the ledger (1 is the first update).
        arithmetic: of the run.
        source: of the training images.
        rank: epochs are dealt out over ranks.
        progress: called with steps done and all.
    """
    claimed = dict(zip(record.ledger["step"].tolist(), record.ledger["plan"].tolist(), strict=True))
    by_epoch: dict[int, list[int]] = defaultdict(list)
    for step in steps:
        by_epoch[(step - 1) // arithmetic.steps_per_epoch].append(step)
    mine = sorted(by_epoch)[rank :: distributed.world_size()]
    other: list[int] = []
    done = 0
    for epoch in mine:
        hashes = epoch_hashes(record.config, arithmetic, source, epoch, by_epoch[epoch])
        other += [step for step, value in zip(by_epoch[epoch], hashes, strict=True) if claimed[step] != value]
        done += len(by_epoch[epoch])
        progress(done, sum(len(by_epoch[each]) for each in mine))
    wrong_steps = sorted(step for each in distributed.gather(other) for step in each)
    excused = _excused(record, arithmetic, wrong_steps)
    wrong = [f"step {step:,} did not train on what the plan says" for step in wrong_steps if step not in excused]
    told = f"{len(steps):,} steps of {len(record.ledger):,}"
    if excused:
        told += f", of which {len(excused):,} showed others in the place of bad images: only a replay can tell which"
    return check("plans", wrong, told)


def choose_steps(record: RunRecord, wanted: int | str, seed: int) -> list[int]:
    """Return the ledger's steps whose plans are computed again: all, or so many at random."""
    steps: list[int] = record.ledger["step"].tolist()
    if isinstance(wanted, int) and wanted < len(steps):
        return sorted(random.Random(seed).sample(steps, wanted))
    return steps


def epoch_hashes(config: Config, arithmetic: Arithmetic, source: Source, epoch: int, steps: Sequence[int]) -> list[int]:
    """Return the hash of each of an epoch's steps, as in the ledger."""
    whole_step = arithmetic.batch_size  # as one slot: its images are the same
    plan = epoch_plan(config, source, epoch=epoch, batch_size=whole_step, local_batch_size=whole_step)
    places: NDArray[np.int64] = np.arange(arithmetic.batch_size)
    labels = source.labels
    hashes = []
    for step in steps:
        whole = plan.batch((step - 1) % arithmetic.steps_per_epoch, 0)
        hashes.append(int(hash_images(whole, places, labels).sum(dtype=np.uint64)))
    return hashes


def _excused(record: RunRecord, arithmetic: Arithmetic, wrong: Sequence[int]) -> set[int]:
    """Return the steps that may differ because bad images were replaced in them."""
    excused: set[int] = set()
    for row, first in windows_of([row for row in record.metrics if row["kind"] == "train"], arithmetic):
        replaced = int(row.get("data/bad_images", 0))
        if replaced:
            inside = [step for step in wrong if first < step <= row["step"]]
            if len(inside) <= replaced:
                excused.update(inside)
    return excused
