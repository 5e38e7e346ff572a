"""The stages after the splits are published: index and verify; and the deleting of what is of no more use."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from src.config.prepare import PrepareConfig
from src.imagenet.arrange import clear_away, remove_downloads
from src.imagenet.deleting import delete_source
from src.imagenet.job import Job
from src.imagenet.journal import Journal, read_state
from src.imagenet.manifest import FOLDER
from src.imagenet.pieces import Found
from src.imagenet.space import StoppedError


def finish(job: Job, found: Found | None) -> dict[str, Any]:
    """Index and verify what is published, and delete what was asked to be.

    Args:
        job: the preparation.
        found: what the source is; None where it was not looked at, and then it is not deleted.

    Returns:
        As src.imagenet.stages.prepare.

    Raises:
        StoppedError: the index could not be written.
        ConfigError: what the index or the verification refuses.
    """
    config, target = job.config, job.target
    state, _ = read_state(target)
    counts = state.stages.get("publish", {}).get("counts", {})
    result: dict[str, Any] = {"target": str(target), **counts, "layout": state.start["layout"] if state.start else None}
    if "arrange" not in state.stages:
        return {"status": "stopped", "stage": "extract", **result}
    if config.dry_run:
        left = [stage for stage in ("index", "verify") if stage not in state.stages]
        to_do = f"{' and '.join(left)} would follow" if left else "nothing to do"
        job.bars.say(f"{target} is complete already: {to_do}.")
        return {"status": "planned", **result}
    writable = os.access(target / FOLDER, os.W_OK)
    if writable:
        clear_away(target)
    if not job.goes_to("index"):
        return {"status": "stopped", "stage": "arrange", **result}
    journal = Journal.resume(target) if writable else None
    if "index" not in state.stages:
        _index(job)
        if journal is not None:
            journal.note_stage("index")
    if not job.goes_to("verify"):
        return {"status": "stopped", "stage": "index", **result}
    earlier = state.stages.get("verify", {})
    if _suffices(earlier, config):
        job.bars.say(f"{target} is complete already: nothing to do.")
        outcome = {"verified": earlier["level"], "report": str(target / FOLDER / "report.json")}
    else:
        ok, outcome = verified(job)
        if journal is not None:
            journal.note_stage("verify", ok=ok, level=config.level, expect=config.expect)
        if not ok:
            return {"status": "failed", **result, **outcome}
    if config.delete_source and found is not None:
        delete_source(found)
    remove_downloads(target)
    return {"status": "finished", **result, **outcome}


def _index(job: Job) -> None:
    from src.data.index import open_index

    for split in ("train", "val"):
        root = job.target / split
        if not root.is_dir():
            continue
        with job.bars.counting(f"indexing {split}") as progress:
            open_index(
                root,
                choose=lambda labels: np.arange(len(labels)),
                cache_dir=job.target / FOLDER,
                threads=job.threads,
                progress=progress,
            )
        path = job.target / f".{split}.index.npz"
        if not path.exists() and os.access(job.target, os.W_OK):  # the trainer would build it at each start
            raise StoppedError(f"{path} could not be written: is there room? The same command goes on.")


def verified(job: Job) -> tuple[bool, dict[str, Any]]:
    """Verify, and show the report. Returns whether nothing unknown was found, and what the result tells of it."""
    from src.imagenet.verify.levels import verify

    config, target = job.config, job.target
    with job.bars.counting(f"verifying, level {config.level}") as progress:
        report = verify(target, level=config.level, expect=config.expect, threads=job.threads, progress=progress)
    job.bars.say(report.table())
    where = target / FOLDER / "report.json"
    if config.report is not None:
        where = Path(config.report).expanduser()
        report.write(where)
    return report.ok, {"verified": config.level, "report": str(where)}


def _suffices(told: dict[str, Any], config: PrepareConfig) -> bool:
    """Tell whether an earlier verification answers what is asked for now."""
    if config.report is not None or not told.get("ok") or told["level"] < config.level:
        return False
    return bool(told["expect"] in (config.expect, "imagenet"))
