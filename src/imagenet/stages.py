"""The stages of a preparation in their order: fetch, plan, extract, arrange, index, verify. Each is left out where it is done."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from loguru import logger

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.arrange import arrange, clear_away, remove_downloads
from src.imagenet.deleting import delete_source
from src.imagenet.extract import Amounts, Extraction, stopped_by
from src.imagenet.journal import Journal, State, alone_at, read_state, remove_empty
from src.imagenet.layouts.recognise import find_layout
from src.imagenet.manifest import FOLDER
from src.imagenet.pieces import Found
from src.imagenet.plan import Plan, key_of, make_plan, table
from src.imagenet.rows import Rows, remove_unknown
from src.imagenet.space import StoppedError, size
from src.imagenet.sums import ReadAhead
from src.imagenet.writing import STAGE, Writer
from src.machine import allowed_cpus

IMAGENET = "data/Imagenet"
_ORDER = ("fetch", "plan", "extract", "arrange", "index", "verify")
Progress = Callable[[int, int], None]


class Bars(Protocol):
    """How progress is shown."""

    def counting(self, what: str) -> AbstractContextManager[Progress]:
        """Show (done, total)."""

    def amounts(self, what: str) -> AbstractContextManager[Amounts]:
        """Show files and bytes, with the time that is left."""

    def transfer(self, what: str) -> AbstractContextManager[Progress]:
        """Show (bytes, bytes in all), with the time that is left."""

    def say(self, text: str) -> None:
        """Print as it is."""


class _Job(NamedTuple):
    config: PrepareConfig
    source: Path
    target: Path
    threads: int
    bars: Bars

    def goes_to(self, stage: str) -> bool:
        return _ORDER.index(self.config.until) >= _ORDER.index(stage)


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
        return _run(_Job(config, source, target, threads, bars))
    except OSError as error:
        raise stopped_by(error, target) from error
    except DataError as error:
        raise ConfigError(STAGE, [Problem("source", None, str(error))]) from error


def _usual_source(data_set: str | None, config: PrepareConfig, target: Path, bars: Bars) -> Path | None:
    """Find or download what a data set's bare name means; None for a dry run that would have to download it."""
    from src.imagenet.sets.default_source import ORDERS, beside, downloaded

    assert data_set is not None
    state, _ = read_state(target)
    if state.start is not None and state.start["layout"] == data_set and _is_arranged(state, target):
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


def _run(job: _Job) -> dict[str, Any]:
    config, target = job.config, job.target
    state, _ = read_state(target)
    if _is_arranged(state, target) and _same_place(state, job.source) and (config.fetch or not job.source.exists()):
        return _finish(job, None)
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
        if _is_arranged(state, target) and _same_place(state, job.source):
            return _finish(job, None)  # the archives were deleted, the folder was not
        raise
    key = key_of(found, config)
    if _is_arranged(state, target) and state.start is not None and state.start["key"] == key:
        return _finish(job, found)
    plan = make_plan(found, job.source, target, config, state)
    if config.dry_run or not job.goes_to("extract"):
        for word, text in table(plan, config, job.threads, state):
            job.bars.say(f"{word:<9}{text}")
        status = {"status": "planned"} if config.dry_run else {"status": "stopped", "stage": "plan"}
        return {**status, "target": str(target), "layout": found.layout}
    with alone_at(target):
        _write_tree(job, plan)
    return _finish(job, found)


def _write_tree(job: _Job, plan: Plan) -> None:
    """Extract and arrange, within the lock."""
    target = job.target
    state, _ = read_state(target)
    if _is_arranged(state, target) and state.start is not None and state.start["key"] == plan.key:
        return  # by the process that was waited for
    make_plan(plan.found, plan.source, target, job.config, state)  # once more: what was waited for may have changed all
    journal = _journal(job, plan, state)
    rows = Rows(target, journal)
    if "extract" not in journal.state.stages:
        rows.cut_back()
        removed = remove_unknown(target, rows.sorted())
        if removed:
            logger.info(f"{removed:,} files were written and not noted when the last attempt ended: they are written again")
        _extract(job, plan, journal, rows)
        journal.note_stage("extract")
    if job.goes_to("arrange"):
        logger.info("arranging the splits")
        arrange(target, plan.found, rows, journal)


def _journal(job: _Job, plan: Plan, state: State) -> Journal:
    """Go on with the journal that is there, or begin one."""
    target = job.target
    if state.start is not None and state.start["key"] == plan.key and not job.config.restart:
        return Journal.resume(target)
    if state.start is not None and "publish" not in state.stages:
        logger.info("restart=true: what an earlier start wrote is deleted")
    clear_away(target)
    return Journal.begin(target, key=plan.key, source=os.path.realpath(plan.source), layout=plan.found.layout)


def _extract(job: _Job, plan: Plan, journal: Journal, rows: Rows) -> None:
    """Write all units, and compare sums."""
    unsummed = [archive for archive in plan.sums if journal.state.sums.get(str(archive.path)) != archive.md5]
    ahead = ReadAhead(unsummed, plan.found.units, plan.owners) if unsummed else None
    for name, told in journal.state.units.items():
        if ahead is not None and told.done:
            ahead.tell(name, 1.0)
    extraction = Extraction(job.target, journal, rows, Writer(job.target, job.config.link), ahead)
    if ahead is not None:
        ahead.start()
    try:
        with job.bars.amounts("extracting") as progress:
            extraction.run(plan.found.units, threads=job.threads, progress=progress)
        if ahead is not None:
            with job.bars.transfer("checking sums") as progress_of_sums:
                ahead.finish(progress_of_sums)
    finally:
        if ahead is not None:
            ahead.stop()
    if ahead is None:
        return
    if ahead.error is not None:
        raise ahead.error
    wrong = []
    for archive in unsummed:
        found = ahead.found[archive.path]
        if found == archive.md5:
            journal.note([{"what": "sum", "path": str(archive.path), "md5": found}])
            continue
        fix = f"has the md5 {found}, not {archive.md5}. Nothing is published. Download it again and type restart=true, or "
        wrong.append(Problem(str(archive.path), None, f"{fix}checksum=off to take it as it is."))
    if wrong:
        raise ConfigError(STAGE, wrong)


def _finish(job: _Job, found: Found | None) -> dict[str, Any]:
    """Index and verify what is published, and delete what was asked to be."""
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
    told = state.stages.get("verify", {})
    if _suffices(told, config):
        job.bars.say(f"{target} is complete already: nothing to do.")
        verified = {"verified": told["level"], "report": str(target / FOLDER / "report.json")}
    else:
        ok, verified = _verified(job)
        if journal is not None:
            journal.note_stage("verify", ok=ok, level=config.level, expect=config.expect)
        if not ok:
            return {"status": "failed", **result, **verified}
    if config.delete_source and found is not None:
        delete_source(found)
    remove_downloads(target)
    return {"status": "finished", **result, **verified}


def _index(job: _Job) -> None:
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


def verify_target(config: PrepareConfig, *, bars: Bars) -> dict[str, Any]:
    """Verify what stands in the target. Returns what stdout's last line tells.

    Raises:
        ConfigError: nothing that can be verified stands there.
        StoppedError: the disk failed.
    """
    target = Path(config.target or IMAGENET).expanduser()
    job = _Job(config, target, target, allowed_cpus() if config.workers == "auto" else config.workers, bars)
    try:
        ok, verified = _verified(job)
    except OSError as error:
        raise stopped_by(error, target) from error
    return {"status": "finished" if ok else "failed", "target": str(target), **verified}


def _verified(job: _Job) -> tuple[bool, dict[str, Any]]:
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


def _is_arranged(state: State, target: Path) -> bool:
    """Tell whether a preparation published its splits, and all of them still stand there."""
    if "arrange" not in state.stages:
        return False
    return all((target / split).is_dir() for split in state.stages["arrange"]["counts"])


def _suffices(told: dict[str, Any], config: PrepareConfig) -> bool:
    """Tell whether an earlier verification answers what is asked for now."""
    if config.report is not None or not told.get("ok") or told["level"] < config.level:
        return False
    return bool(told["expect"] in (config.expect, "imagenet"))


def _same_place(state: State, source: Path) -> bool:
    return state.start is not None and state.start["source"] == os.path.realpath(source)
