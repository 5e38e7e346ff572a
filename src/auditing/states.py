"""Whether kept checkpoints, the ledger and metrics.jsonl tell the same run. Nothing is trained."""

import math

import torch

from src.auditing.record import RunRecord
from src.auditing.verdict import Check, check
from src.config.identity import CUT_OTHERWISE, differences, model_name
from src.training.arithmetic import Arithmetic
from src.training.checkpoint import BEST, LAST, names_of
from src.training.history import History

_LOSS = 1e-9  # relative: sums of float64 in another order


def files_check(record: RunRecord) -> Check:
    """Look whether every file is the one that was written."""
    wrong = [f"{name} {what}" for name, what in record.wrong.items()]
    return check("files", wrong, "every file is as it was sealed")


def config_check(record: RunRecord) -> Check:
    """Look whether every checkpoint was trained by config.yaml's configuration."""
    wrong = []
    for each in record.states:
        changed = [item for item in differences(record.config, each.state["config"]) if item[0] not in CUT_OTHERWISE]
        wrong += [f"{each.names[0]} was trained with {key}={before}, and config.yaml says {now}" for key, before, now in changed]
    return check("configuration", wrong, f"config.yaml and {len(record.states)} checkpoints have one")


def history_check(record: RunRecord) -> Check:
    """Look whether every checkpoint's epochs are metrics.jsonl's, to the last bit."""
    rows = {row["step"]: row for row in record.metrics if row["kind"] == "epoch"}
    wrong = []
    for each in record.states:
        for entry in each.state["history"]:
            row = rows.get(entry["step"])
            if row is None:
                wrong.append(f"{each.names[0]} knows of an epoch that ends at step {entry['step']:,}, and metrics.jsonl does not")
                continue
            keys = {key for key in (*entry, *row) if key.startswith("val/")}
            wrong += [
                f"step {entry['step']:,} (epoch): {key} {row.get(key)}, and {each.names[0]} says {entry.get(key)}"
                for key in sorted(keys)
                if row.get(key) != entry.get(key)
            ]
    return check("evaluations against checkpoints", wrong, f"{len(rows)} epochs' rows are the checkpoints'")


def best_check(record: RunRecord) -> Check:
    """Look whether the checkpoints that are kept for their accuracy are the best, and the last one is the run's end."""
    if not record.states:
        return Check("kept checkpoints", "not checked", "there is none")
    newest = record.states[-1]
    history, model = History(newest.state["history"]), model_name(record.config)
    wanted = names_of(history.top(record.config.keep_top_k, model), next(iter(history.top(1, model)), None))
    steps = {name: each.step for each in record.states for name in each.names}
    wrong = [
        f"{name} is of step {steps[name]:,}, and should be of {step:,}"
        for name, step in wanted.items()
        if steps.get(name, step) != step
    ]
    missing = [name for name in wanted if name not in steps]
    wrong += [f"{name} is missing" for name in missing if record.status.get("status") == "finished" or name == BEST]
    stray = [name for name in steps if "-val_acc1-" in name and name not in wanted]
    wrong += [f"{name} is not among the best {record.config.keep_top_k}" for name in stray]
    if LAST not in newest.names:
        wrong.append(f"{LAST} is not the newest checkpoint")
    last = int(record.ledger["step"][-1])
    if record.status.get("status") == "finished":
        if not (newest.step == last == record.status.get("step")) or not newest.recorded:
            wrong.append(
                f"the run finished at step {record.status.get('step')}; {LAST} is of {newest.step:,}, the ledger's end {last:,}"
            )
    elif newest.step > last:
        wrong.append(f"{newest.names[0]} is of step {newest.step:,}, and the ledger ends at {last:,}")
    return check("kept checkpoints", wrong, f"{len(steps)} names of {len(record.states)} states are where they belong")


def sums_check(record: RunRecord, arithmetic: Arithmetic) -> Check:
    """Look whether what a checkpoint in mid-epoch has summed up of its epoch is the ledger's."""
    loss_at = dict(zip(record.ledger["step"].tolist(), record.ledger["loss"].tolist(), strict=True))
    wrong, checked = [], 0
    for each in record.states:
        loss, _, _, images, *_ = torch.stack(each.state["meters"]).sum(dim=0)[0].tolist()
        end = each.step
        begin = end if each.recorded or end == 0 else (end - 1) // arithmetic.steps_per_epoch * arithmetic.steps_per_epoch
        steps = range(begin + 1, end + 1)
        if any(step not in loss_at for step in steps):
            continue
        checked += 1
        expected = math.fsum(loss_at[step] for step in steps) * arithmetic.batch_size
        if round(images) != len(steps) * arithmetic.batch_size:
            wrong.append(f"{each.names[0]} counts {images:,.0f} images of its epoch, not {len(steps) * arithmetic.batch_size:,}")
        elif not math.isclose(loss, expected, rel_tol=_LOSS, abs_tol=1e-12):
            wrong.append(f"{each.names[0]} has a sum of losses of {loss}, and the ledger's steps {begin + 1}-{end} of {expected}")
    return check("sums in checkpoints", wrong, f"{checked} checkpoints' are the ledger's")


def classes_check(record: RunRecord, classes: tuple[str, ...]) -> Check:
    """Look whether the data has the classes that the run was trained on."""
    wrong = [f"{each.names[0]} has others than the data" for each in record.states if tuple(each.state["classes"]) != classes]
    return check("classes", wrong, f"{len(classes):,}, as in the data")
