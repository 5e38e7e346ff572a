"""The stages of a preparation in their order: fetch, plan, extract, arrange, index, verify. Each is left out where it is done."""

from pathlib import Path
from typing import Any

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.extract import stopped_by
from src.imagenet.filling import write_tree
from src.imagenet.finishing import finish, verified
from src.imagenet.job import Bars, Job, is_arranged, same_place
from src.imagenet.journal import alone_at, read_state, remove_empty
from src.imagenet.layouts.recognise import find_layout
from src.imagenet.plan import key_of, make_plan, table
from src.imagenet.space import size
from src.imagenet.writing import STAGE
from src.machine import allowed_cpus

IMAGENET = "data/Imagenet"


def prepare(config: PrepareConfig, *, data_set: str | None, bars: Bars) -> dict[str, Any]:
    """Run the stages that are not done.

    Args:
        config: what was asked for.
        data_set: the name that was typed, of one that knows where it comes from; None with a source of the user's.
        bars: shows progress.

    Returns:
        What stdout's last line tells: status ("finished", "failed" where the verification found something, "stopped" where `until`
        says so, "planned" of a dry run), target, images of every split, and more.

    Raises:
        ConfigError: something that the user must mend.
        StoppedError: the disk is full, or failed.
    """
    target = Path(config.target or IMAGENET).expanduser()
    threads = allowed_cpus() if config.workers == "auto" else config.workers
    try:
        source = Path(config.source).expanduser() if config.source is not None else _usual_source(data_set, config, target, bars)
        if source is None:
            return {"status": "planned", "target": str(target)}
        return _run(Job(config, source, target, threads, bars))
    except OSError as error:
        raise stopped_by(error, target) from error
    except DataError as error:
        raise ConfigError(STAGE, [Problem("source", None, str(error))]) from error


def _usual_source(data_set: str | None, config: PrepareConfig, target: Path, bars: Bars) -> Path | None:
    """Find or download what a data set's bare name means; None for a dry run that would have to download it."""
    from src.imagenet.default_source import ORDERS, beside, downloaded

    assert data_set is not None
    state, _ = read_state(target)
    if state.start is not None and state.start["layout"] == data_set and is_arranged(state, target):
        return Path(state.start["source"])
    there = beside(data_set, target)
    if there is not None:
        return there
    if config.dry_run:
        file = ORDERS[data_set].file
        bars.say(f"{file.urls[0]} would be downloaded ({size(file.bytes)}), and prepared into {target}")
        return None
    made = not target.exists()
    try:
        with alone_at(target), bars.transfer(f"downloading {data_set}") as progress:
            return downloaded(data_set, target, progress)
    except ConfigError:
        if made:
            remove_empty(target)
        raise


def _run(job: Job) -> dict[str, Any]:
    config, target = job.config, job.target
    state, _ = read_state(target)
    if is_arranged(state, target) and same_place(state, job.source) and (config.fetch or not job.source.exists()):
        return finish(job, None)
    if config.fetch is not None:
        from src.imagenet.fetch.run import describe, fetch

        if config.dry_run:
            for line in describe(config, job.source):
                job.bars.say(line)
            return {"status": "planned", "target": str(target)}
        with job.bars.transfer("downloading") as progress:
            fetch(config, job.source, progress)
        if not job.goes_to("plan"):
            return {"status": "stopped", "stage": "fetch", "source": str(job.source), "target": str(target)}
    try:
        found = find_layout(job.source, config)
    except ConfigError:
        if is_arranged(state, target) and same_place(state, job.source):
            return finish(job, None)  # the archives were deleted, the folder was not
        raise
    key = key_of(found, config)
    if is_arranged(state, target) and state.start is not None and state.start["key"] == key:
        return finish(job, found)
    plan = make_plan(found, job.source, target, config, state)
    if config.dry_run or not job.goes_to("extract"):
        for word, text in table(plan, config, job.threads, state):
            job.bars.say(f"{word:<9}{text}")
        status = {"status": "planned"} if config.dry_run else {"status": "stopped", "stage": "plan"}
        return {**status, "target": str(target), "layout": found.layout}
    with alone_at(target):
        write_tree(job, plan)
    return finish(job, found)


def verify_target(config: PrepareConfig, *, bars: Bars) -> dict[str, Any]:
    """Verify what stands in the target. Returns what stdout's last line tells.

    Raises:
        ConfigError: nothing that can be verified stands there.
        StoppedError: the disk failed.
    """
    target = Path(config.target or IMAGENET).expanduser()
    job = Job(config, target, target, allowed_cpus() if config.workers == "auto" else config.workers, bars)
    try:
        ok, told = verified(job)
    except OSError as error:
        raise stopped_by(error, target) from error
    return {"status": "finished" if ok else "failed", "target": str(target), **told}
