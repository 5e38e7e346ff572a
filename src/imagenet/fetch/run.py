"""Download what a preparation starts from. Safe to kill at any instant; the same command continues."""

import json
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.imagenet.fetch import torrent
from src.imagenet.fetch.notes import Receipts, notes_in
from src.imagenet.fetch.parts import download, is_there
from src.imagenet.fetch.remote import STAGE, Offer

TERMS = (
    "ImageNet is for non-commercial research and education only, under its terms of access (https://image-net.org/download). "
    "By downloading it you agree to them, from wherever it comes."
)
_THREADS = 8  # wait for the network most of the time


def fetch(config: PrepareConfig, source: Path, progress: Callable[[int, int], None]) -> None:
    """Download config.fetch's files into the folder `source`, which is made. Where all is there, nothing is asked of the network.

    Args:
        config: `fetch` says from where, `origin` what, `workers` with how many threads.
        source: the folder to download into; notes and unfinished files stand in its folder .fetch.
        progress: called with (bytes there, bytes in all).

    Raises:
        ConfigError: it cannot be had; says what to install, sign, free or try.
    """
    what = json.dumps([config.fetch, config.origin])
    if Receipts(source).finished(what):
        logger.info(f"all was downloaded into {source} already")
        return
    if config.fetch != "s3":
        logger.info(TERMS)
    names: list[str] | None
    with notes_in(source) as notes:
        if config.fetch == "torrent":
            names = torrent.download(config.origin, source, notes, progress)
        else:
            offer = _offer(config, source)
            try:
                logger.info(f"downloading {offer.title}: {offer.files:,} files, {offer.bytes:,} bytes, into {source}")
                threads = _THREADS if config.workers == "auto" else config.workers
                download(offer, source, threads=threads, progress=progress)
                # of a bucket nothing is written down: it is listed anew, and what is new in it fetched
                names = [remote.name for remote in offer.each()] if config.fetch != "s3" else None
            finally:
                offer.close()
        if names is not None:
            Receipts(source).finish(what, names)


def describe(config: PrepareConfig, source: Path) -> list[str]:
    """Say for dry_run=true what would be downloaded, a line each, and make nothing. Asks the service for sizes where it can.

    Raises:
        ConfigError: something is missing that the download needs.
    """
    if Receipts(source).finished(json.dumps([config.fetch, config.origin])):
        return [f"all was downloaded into {source} already"]
    lines = [] if config.fetch == "s3" else [TERMS]
    if config.fetch == "torrent":
        return lines + torrent.describe(config.origin, source)
    offer = _offer(config, source)
    receipts = Receipts(source)
    try:
        there = sum(remote.bytes for remote in offer.each() if is_there(remote, source, receipts))
    finally:
        offer.close()
    lines.append(
        f"would download {offer.title} into {source}: {offer.files:,} files, {offer.bytes:,} bytes, of which {there:,} are there"
    )
    return lines


def _offer(config: PrepareConfig, source: Path) -> Offer:
    """Ask the service what there is. Modules are imported late: their packages are optional, and slow."""
    match config.fetch:
        case "kaggle":
            from src.imagenet.fetch import kaggle

            return kaggle.offer(config.origin, source)
        case "huggingface":
            from src.imagenet.fetch import huggingface

            return huggingface.offer(config.origin, source)
        case "s3":
            from src.imagenet.fetch import s3

            return s3.offer(config.origin, source)
        case _:
            raise ConfigError(STAGE, [Problem("fetch", config.fetch, "name one: torrent, kaggle, huggingface or s3.")])
