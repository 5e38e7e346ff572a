"""Write train.beton and val.beton, which FFCV and this trainer read, from any source. FFCV is not needed.

    python -m src.ffcv_writer
    python -m src.ffcv_writer data.path=/datasets/imagenet target=/scratch/ffcv jpeg_bytes=original
    python -m src.ffcv_writer data=tar data.subset=100000 splits=[train] write_mode=proportion

Safe to kill, and to start again: a split that is there, written with the same settings, is kept.
"""

import errno
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config import ConfigError, Problem
from src.config.door import door, parser_of
from src.config.writer import WriterOrder, load_writer

if TYPE_CHECKING:
    from src.batch import Source


@door
def main(arguments: Sequence[str]) -> int:
    """Parse, and write what is missing. Returns the exit code."""
    started = time.monotonic()
    about = "Write train.beton and val.beton from an ImageFolder or any other source."
    parser = parser_of("ffcv_writer", about, help_text="see below; data=... and data.<key>=... as in src.train")
    written = write(load_writer(parser.parse_args(arguments).words))
    print(json.dumps({"status": "finished", "splits": written, "seconds": round(time.monotonic() - started, 1)}), flush=True)
    return 0


def write(order: WriterOrder) -> dict[str, Any]:
    """Write every split that is not there yet. Returns what there is now, by split.

    Raises:
        ConfigError: if the source cannot be used, a file is in the way, or there is no room.
    """
    from src.data.build import STAGE, build_source
    from src.machine import allowed_cpus
    from src.tracking.console import start_console
    from src.tracking.progress import counting

    writer, console = order.writer, start_console(speaks=True)
    target = Path(writer.target).expanduser()
    workers = writer.workers if isinstance(writer.workers, int) else allowed_cpus()
    data = order.data.model_copy(update={"bad_image": "replace"}) if writer.on_bad == "skip" else order.data
    sources: dict[str, Source] = {}
    problems: list[Problem] = []
    for split in dict.fromkeys(writer.splits):
        try:
            with counting(console, "reading image headers") as progress:
                sources[split] = build_source(data, split, threads=2 * workers, progress=progress)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(STAGE, problems)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(STAGE, [Problem("target", writer.target, f"cannot be made: {error.strerror}.")]) from error
    in_the_way = [
        problem
        for split, source in sources.items()
        if (problem := why_not(target / f"{split}.beton", order, source)) is not None and not writer.overwrite
    ]
    if in_the_way:
        raise ConfigError(STAGE, in_the_way)
    return {split: write_split(target / f"{split}.beton", order, source, split, workers) for split, source in sources.items()}


def write_split(path: Path, order: WriterOrder, source: "Source", split: str, workers: int) -> dict[str, Any]:
    """Write one split, or find it there."""
    from loguru import logger

    from src.batch import DataError
    from src.data.beton.writer import write_beton
    from src.tracking.console import start_console
    from src.tracking.progress import counting_bytes

    writer = order.writer
    if not writer.overwrite and is_there(path, order, source):
        logger.info(f"{path} is there already, written with these settings: nothing to do.")
        return {"path": str(path), "images": len(source), "bytes": path.stat().st_size, "written": False}
    try:
        with counting_bytes(start_console(speaks=True), f"writing {path.name}") as progress:
            written = write_beton(
                source,
                path,
                workers=workers,
                progress=progress,
                max_resolution=writer.max_resolution,
                jpeg_quality=writer.jpeg_quality,
                mode=writer.write_mode,
                raw_fraction=writer.raw_fraction,
                jpeg_bytes=writer.jpeg_bytes,
                on_bad="skip" if writer.on_bad == "skip" and split == "train" else "raise",
            )
    except DataError as error:
        raise ConfigError("the data", [Problem(f"{split} split", None, str(error))]) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EBUSY):
            raise
        raise ConfigError("the target", [Problem("target", writer.target, f"{error.strerror}.")]) from error
    for name, reason in written.skipped[:5]:
        logger.warning(f"left out: {name}: {reason}")
    logger.info(
        f"{path}: {written.samples:,} images, {written.bytes / 2**20:,.1f} MiB; {written.shrunk:,} shrunk, {written.kept:,} kept "
        f"byte for byte, {written.raw:,} as pixels, {len(written.skipped):,} bad ones left out; read back and compared"
    )
    told = written._asdict() | {"path": str(path), "images": written.samples, "skipped": len(written.skipped), "written": True}
    return {name: value for name, value in told.items() if name != "samples"}


def why_not(path: Path, order: WriterOrder, source: "Source") -> Problem | None:
    """Return what is in the way of writing, if anything is."""
    if not path.exists() or is_there(path, order, source):
        return None
    fix = "is there already, written with other settings or from other data. Set overwrite=true, or another target."
    return Problem("target", str(path), fix)


def is_there(path: Path, order: WriterOrder, source: "Source") -> bool:
    """Return whether the file was written whole, from a source like this, with these settings."""
    from src.batch import DataError
    from src.data.beton.sidecar import load

    try:
        found = load(path) if path.exists() else None
    except DataError:
        return False
    if found is None or found.bytes != path.stat().st_size:
        return False
    wanted = order.writer
    settings = {
        "max_resolution": wanted.max_resolution,
        "jpeg_quality": wanted.jpeg_quality,
        "mode": wanted.write_mode,
        "raw_fraction": wanted.raw_fraction,
        "jpeg_bytes": wanted.jpeg_bytes,
    }
    same = all(found.settings.get(key) == value for key, value in settings.items())
    return same and found.classes == source.classes and found.samples + len(found.skipped) == len(source)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
