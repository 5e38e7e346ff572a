"""Deletes what was read, when all of it is verified and the user asked for it."""

import os
from pathlib import Path

from loguru import logger

from src.imagenet.pieces import Found
from src.imagenet.space import size


def delete_source(found: Found) -> None:
    """Delete the archives, and the image files that were linked or copied. Nothing else: no folder, no list of labels.

    Each archive is named in the log, and each class folder with the number of its files.

    Raises:
        OSError: one cannot be deleted; the same command goes on.
    """
    archives = {archive.path for archive in found.archives}
    for path in sorted(archives):
        if path.is_file():
            logger.info(f"delete_source: deleting {path} ({size(path.stat().st_size)})")
            path.unlink()
    if archives:  # and where there are archives, only these were read: what lies beside them tells classes
        return
    for unit in found.units:
        deleted = 0
        folder = ""
        for piece in list(unit.pieces(0)):
            if isinstance(piece.content, Path) and piece.place != "side" and os.path.lexists(piece.content):
                os.unlink(piece.content)
                folder = os.fspath(piece.content.parent)
                deleted += 1
        if deleted:
            logger.info(f"delete_source: deleted {deleted:,} files of {unit.name} in {folder}")
