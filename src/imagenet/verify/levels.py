"""The verification: from a data set's folder to a report.

Level 0 reads folders, level 1 every file's first bytes and size, level 2 its headers, level 3 all of it.
"""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from src.config import ConfigError, Problem
from src.data.index_cache import Progress
from src.imagenet.pieces import Split
from src.imagenet.verify.contents import check_contents, check_manifest
from src.imagenet.verify.counts import check_counts
from src.imagenet.verify.in_index import tell_index
from src.imagenet.verify.listing import SPLITS, Listing, list_split
from src.imagenet.verify.looking import look_at_all
from src.imagenet.verify.names import check_names
from src.imagenet.verify.oddities import check_headers, check_oddities, check_pixels
from src.imagenet.verify.official import Truth, ilsvrc2012
from src.imagenet.verify.report import Finding, Report

_ENOUGH = 0.9  # of ImageNet's class folders: with as many, a set is taken for ImageNet
_REPORT = "report.json"
_FOLDER = ".prepare"


def verify(root: Path, *, level: int, expect: str, threads: int, progress: Progress) -> Report:
    """Look at a prepared data set, and keep the report in its folder where that can be written.

    Args:
        root: holds train/<class>/, val/<class>/ and perhaps test/.
        level: 0 to 3, each with those below.
        expect: "imagenet", "any", or "auto": the whole of ILSVRC2012 where at least 900 of its class folders are there.
        threads: at work at once.
        progress: called with (images done, images in all) from level 1 on.

    Raises:
        ConfigError: there is no such folder, or it cannot be read.
    """
    return verify_against(ilsvrc2012(), root, level=level, expect=expect, threads=threads, progress=progress)


def verify_against(truth: Truth, root: Path, *, level: int, expect: str, threads: int, progress: Progress) -> Report:
    """Verify as `verify` does, with this truth in the whole ILSVRC2012's place."""
    started = time.monotonic()
    try:
        listings = _listings(root, threads)
        held = truth if expect == "imagenet" or (expect == "auto" and _is_imagenet(listings, truth)) else None
        findings = list(_findings(root, listings, held, level, threads, progress))
    except OSError as error:
        raise ConfigError("the verification", [Problem(str(error.filename or root), None, f"{error.strerror}.")]) from error
    expected: Literal["imagenet", "any"] = "any" if held is None else "imagenet"
    counts: dict[str, int] = {split: listing.size for split, listing in listings.items()}
    report = Report(str(root), level, expected, counts, time.monotonic() - started, findings)
    return _kept(report, root)


def _listings(root: Path, threads: int) -> dict[Split, Listing]:
    if not root.is_dir():
        raise ConfigError("the verification", [Problem("target", str(root), "no such folder. Prepare it first, or set target.")])
    found = {split: list_split(root, split, threads=threads) for split in SPLITS}
    listings = {split: listing for split, listing in found.items() if listing is not None}
    if not listings:
        fix = "holds neither train nor val. Set target to the folder that holds them."
        raise ConfigError("the verification", [Problem("target", str(root), fix)])
    return listings


def _is_imagenet(listings: Mapping[Split, Listing], truth: Truth) -> bool:
    there = {name for listing in listings.values() for name in listing.classes}
    return len(there & truth.val_sums.keys()) >= _ENOUGH * len(truth.val_sums)


def _findings(
    root: Path, listings: Mapping[Split, Listing], truth: Truth | None, level: int, threads: int, progress: Progress
) -> Iterator[Finding]:
    yield from check_counts(root, listings, truth)
    if level < 1:
        return
    yield from check_names(listings, truth)
    looks = look_at_all(root, list(listings.values()), level=level, threads=threads, progress=progress)
    yield from check_contents(looks)
    yield check_manifest(root, looks, level)
    if level < 2:
        return
    yield from check_headers(looks)
    yield check_oddities(looks, truth)
    yield tell_index(root, listings, looks, level, threads)
    if level > 2:
        yield from check_pixels(looks)


def _kept(report: Report, root: Path) -> Report:
    path = root / _FOLDER / _REPORT
    where = os.path.join(_FOLDER, _REPORT)
    try:
        report.write(path)
    except OSError as error:
        why = Finding(0, "report", "not checked", f"{where} cannot be written ({error.strerror}); it is told here only")
        return report._replace(findings=[*report.findings, why])
    return report
