"""Deletes what was read, when all of it is verified and the user asked for it."""

from pathlib import Path

from loguru import logger

from src.imagenet.pieces import Found
from src.imagenet.plan import owners_of
from src.imagenet.space import size


def delete_source(found: Found) -> None:
    """Delete the archives that images came from, and the image files that were linked or copied. No folder, no list of labels.

    Each archive is named in the log, and each class folder with the number of its files.

    Raises:
        OSError: one cannot be deleted; the same command goes on.
    """
    owners = owners_of(found)
    for path in sorted(set(owners.values())):
        if path.is_file():
            logger.info(f"delete_source: deleting {path} ({size(path.stat().st_size)})")
            path.unlink()
    for unit in found.units:
        if unit.name in owners:
            continue
        deleted = 0
        for piece in unit.pieces(0):
            if not isinstance(piece.content, Path):
                break
            if piece.place != "side":
                piece.content.unlink(missing_ok=True)
                deleted += 1
        if deleted:
            logger.info(f"delete_source: deleted the {deleted:,} files of {unit.name}")
