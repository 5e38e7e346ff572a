"""The whole audit: files, arithmetic, plans, and replays."""

import random
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch
from loguru import logger

from src import distributed
from src.auditing.compare import ROUNDING, bounded_differences, by_step, exact_differences
from src.auditing.plans import choose_steps, plans_check
from src.auditing.record import STAGE, RunRecord
from src.auditing.replay import Opened, evaluate_again, replay
from src.auditing.rows import count_check, epochs_check, loss_check, schedule_check, steps_check, time_check
from src.auditing.states import best_check, classes_check, config_check, files_check, history_check, sums_check
from src.auditing.verdict import Check, Verdict, check
from src.auditing.windows import Window, choose, covered, replayable
from src.build import build_engines
from src.config import Config, ConfigError, Problem
from src.config.audit import AuditConfig
from src.machine import settle_torch
from src.session import Place, open_sources
from src.tracking.progress import counting
from src.training.arithmetic import plan_arithmetic
from src.training.ledger import arithmetic_mark
from src.training.precision import choose_precision
from src.training.schedule import build_lr_at

_SEEDS = 2**31


def audit(keys: AuditConfig, record: RunRecord, place: Place) -> Verdict:
    """Audit a run. Writes nothing. Every rank must call it.

    Raises:
        ConfigError: the data cannot be opened, or this number of ranks cannot replay the run.
        DataError: an image cannot be read.
    """
    seed = distributed.from_rank_0(lambda: random.SystemRandom().randrange(_SEEDS) if keys.seed is None else keys.seed)
    train, val = open_sources(record.config, place)
    arithmetic = plan_arithmetic(record.config, num_train=len(train), world_size=place.world.size)
    steps = {"steps_per_epoch": arithmetic.steps_per_epoch, "total_steps": arithmetic.total_steps}
    planned = choose_steps(record, keys.plans, seed)
    checks = [
        files_check(record),
        config_check(record),
        classes_check(record, train.classes),
        steps_check(record, arithmetic),
        schedule_check(record, arithmetic, build_lr_at(record.config, **steps)),
        loss_check(record, arithmetic),
        count_check(record, arithmetic),
        epochs_check(record, record.config, arithmetic, len(val)),
        time_check(record, arithmetic),
        history_check(record),
        sums_check(record, arithmetic),
        best_check(record),
    ]
    with counting(place.console, "computing plans again") as progress:
        checks.append(plans_check(record, planned, arithmetic, train, rank=place.world.rank, progress=progress))
    windows = choose(record, windows=keys.windows, steps=keys.steps, reach=keys.reach, seed=seed)
    exact: bool | None = None
    with closing(build_engines(record.config, place.world, place.device, train, val)) as engines:
        opened = Opened(train, val, engines)
        for window in windows:
            one, was_exact = replay_check(keys, record, place, opened, window)
            checks.append(one)
            exact = was_exact if exact is None else exact and was_exact
        if keys.evaluate:
            checks.append(evaluation_check(keys, record, place, opened))
    if keys.windows and not windows:
        checks.append(Check("replay", "not checked", describe_lack(record)))
    steps_replayed, can_be = covered(windows), replayable(record)
    total = len(record.ledger)
    logger.info(f"{steps_replayed:,} of {total:,} steps replayed; {can_be:,} come after a kept checkpoint (seed={seed})")
    return Verdict(record.folder, checks, total, steps_replayed, can_be, len(planned), seed, exact)


def replay_check(keys: AuditConfig, record: RunRecord, place: Place, opened: Opened, window: Window) -> tuple[Check, bool]:
    """Replay one window and compare. Returns the check, and whether it was bit for bit."""
    claimed = [row for row in record.ledger if window.start.step < row["step"] <= window.last]
    config = with_micro_batch(record.config, window, claimed, place)
    exact = keys.compare == "exact" or (keys.compare == "auto" and promises_bits(claimed, window, place, opened))
    if place.device.type == "cpu":
        threads = {int(row["threads"]) for row in claimed} or {window.start.state["threads"]}
        if len(threads) == 1 and (wanted := threads.pop()) and wanted != torch.get_num_threads():
            settle_torch(threads=wanted, deterministic=config.deterministic)
    logger.info(f"replaying {window}, {'bit for bit' if exact else 'within a measured tolerance'}")
    ledger = by_step(record.ledger)
    replayed = replay(config, place, opened, window)
    if exact:
        wrong, told = exact_differences(ledger, record.metrics, replayed), "bit for bit"
    else:
        precision = choose_precision(config.precision, place.device)
        rounding = ROUNDING[precision.name]
        shaken = replay(config, place, opened, window, shaken=rounding)
        sizes = {"batch_size": config.batch_size, "num_val": len(opened.val)}
        wrong, widest = bounded_differences(ledger, record.metrics, replayed, shaken, rounding=rounding, **sizes)
        told = f"within the measured bound, at most {widest:.2g} on a loss"
    return check(f"replay of {window}", wrong, told), exact


def promises_bits(claimed: Sequence[np.void], window: Window, place: Place, opened: Opened) -> bool:
    """Return whether sums are taken here exactly as they were in the run: same torch, processor, ranks and threads, on CPUs."""
    if place.device.type != "cpu" or not opened.engines.train.pixels.exact:
        return False
    rows = [(row["arithmetic"], row["world_size"]) for row in claimed]
    here = (arithmetic_mark(place.device), place.world.size)
    threads = {int(row["threads"]) for row in claimed}
    ranks = window.start.state["world_size"]
    return all(row == here for row in rows) and len(threads) <= 1 and 0 not in threads and (bool(rows) or ranks == place.world.size)


def with_micro_batch(config: Config, window: Window, claimed: Sequence[np.void], place: Place) -> Config:
    """Return the configuration that cuts the batch as the run did in this window: dropout and mixing are drawn by micro-batch.

    Raises:
        ConfigError: if this number of ranks cannot.
    """
    sizes = {int(row["local_batch_size"]) for row in claimed}
    if not sizes:
        return config
    size = min(sizes)
    cut = config.model_copy(update={"max_local_batch_size": size})
    if len(sizes) > 1 or config.batch_size % (place.world.size * size):
        fix = (
            f"was trained in micro-batches of {' and '.join(map(str, sorted(sizes)))} images at {window}, which {place.world.size} "
            f"ranks cannot cut {config.batch_size} into. Audit in one process, or with the run's own ranks; or take other windows."
        )
        raise ConfigError(STAGE, [Problem("--nproc_per_node", place.world.size, fix)])
    return cut


def evaluation_check(keys: AuditConfig, record: RunRecord, place: Place, opened: Opened) -> Check:
    """Evaluate the last and the best checkpoint again."""
    wrong, names = [], []
    for each in record.states:
        if each.recorded and {"last.ckpt", "best.ckpt"} & set(each.names) and "val/acc1" in each.state["history"][-1]:
            found = evaluate_again(record.config, place, opened, each.state)
            names.append(each.names[0])
            entry = each.state["history"][-1]
            exact = keys.compare != "tolerance" and promises_bits([], Window(each, each.step), place, opened)
            for key, value in found.items():
                bound = 0.0 if exact else 1e-4 * abs(value) if key.endswith("loss") else 100 * (4 / len(opened.val) + 2e-4)
                if not abs(entry.get(key, float("nan")) - value) <= bound:
                    wrong.append(f"{each.names[0]}: {key} is {entry.get(key)}, evaluated again {value}")
    return check("evaluations done again", wrong, ", ".join(names) or "no checkpoint was evaluated")


def describe_lack(record: RunRecord) -> str:
    """Say why nothing can be replayed, and what would let it."""
    kept = ", ".join(f"{each.names[0]} (step {each.step:,})" for each in record.states) or "none"
    return (
        f"no kept checkpoint ({kept}) has steps after it in the ledger, which ends at step {int(record.ledger['step'][-1]):,}: "
        "what agrees above is arithmetic and plans alone. keep_top_k=3 or more keeps checkpoints along the way"
    )
