"""The stages that write images: extract, with the archives' sums read beside it, and arrange."""

import os

from loguru import logger

from src.config import ConfigError, Problem
from src.imagenet.arrange import arrange, clear_away
from src.imagenet.extract import Extraction
from src.imagenet.job import Job, is_arranged
from src.imagenet.journal import Journal, State, read_state
from src.imagenet.plan import Plan, make_plan
from src.imagenet.rows import Rows, remove_unknown
from src.imagenet.sums import ReadAhead
from src.imagenet.writing import STAGE, Writer


def write_tree(job: Job, plan: Plan) -> None:
    """Extract and arrange what the plan says, as far as `until` lets it; the caller has the target's lock.

    Raises:
        ConfigError: an archive is damaged or hostile, its sum is wrong, or images do not fit together.
        StoppedError, OSError: the disk is full, or failed.
    """
    target = job.target
    state, _ = read_state(target)
    if is_arranged(state, target) and state.start is not None and state.start["key"] == plan.key:
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


def _journal(job: Job, plan: Plan, state: State) -> Journal:
    """Go on with the journal that is there, or begin one."""
    target = job.target
    if state.start is not None and state.start["key"] == plan.key and not job.config.restart:
        return Journal.resume(target)
    if state.start is not None and "publish" not in state.stages:
        logger.info("restart=true: what an earlier start wrote is deleted")
    clear_away(target)
    return Journal.begin(target, key=plan.key, source=os.path.realpath(plan.source), layout=plan.found.layout)


def _extract(job: Job, plan: Plan, journal: Journal, rows: Rows) -> None:
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
