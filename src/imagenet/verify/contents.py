"""Level 1, by first bytes and sizes: empty files, extensions that lie, and what the preparation's own list says."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from src.batch import DataError
from src.imagenet.manifest import LINKED, Manifest, read_manifest
from src.imagenet.verify.known import KNOWN_PNG
from src.imagenet.verify.listing import Folder
from src.imagenet.verify.look import KINDS
from src.imagenet.verify.looking import Looks
from src.imagenet.verify.official import NUMBERED
from src.imagenet.verify.report import Finding

_TOLD = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
_TEST = re.compile(r"test/" + NUMBERED["test"].pattern, re.ASCII)
MANIFEST = "the preparation's list"


def check_contents(looks: Looks) -> Iterator[Finding]:
    """Yield what sizes and first bytes tell.

    Another format than the name tells is expected of the one known PNG, and of the test split: of that nothing is published.
    """
    kinds = looks.column("kind")
    empty, unreadable = KINDS.index("empty"), KINDS.index("unreadable")
    yield _finding("readable", looks, np.flatnonzero(kinds == unreadable), "cannot be opened")
    yield _finding("empty files", looks, np.flatnonzero(kinds == empty), "are empty")
    otherwise: list[str] = []
    known: list[str] = []
    for path, kind in zip(looks.paths(), kinds.tolist(), strict=True):
        told = _TOLD[os.path.splitext(path)[1].lower()]  # noqa: PTH122 (a million paths)
        if KINDS[kind] != told and kind not in (empty, unreadable):
            is_known = (KINDS[kind] == "PNG" and path.endswith(f"/{KNOWN_PNG}")) or (kind > 0 and _TEST.fullmatch(path))
            (known if is_known else otherwise).append(f"{path} is {KINDS[kind] if kind else 'of no known format'}")
    name = "extension against content"
    if otherwise:
        yield Finding(1, name, "problem", f"{len(otherwise):,} are not what their extension tells", otherwise)
    elif known:
        yield Finding(1, name, "expected", "one PNG is named .JPEG in ImageNet; of its test split nothing is published", known)
    else:
        yield Finding(1, name, "ok", "agree")


def _finding(check: str, looks: Looks, places: "np.ndarray[tuple[int], np.dtype[np.int64]]", what: str) -> Finding:
    if len(places):
        return Finding(1, check, "problem", f"{len(places):,} {what}", looks.names_of(places))
    return Finding(1, check, "ok", "all" if check == "readable" else "none")


def check_manifest(root: Path, looks: Looks, level: int) -> Finding:
    """Compare names and sizes, and at level 3 checksums, with what the preparation wrote."""
    try:
        manifest = read_manifest(root)
    except (DataError, OSError) as error:
        return Finding(1, MANIFEST, "problem", str(error))
    if manifest is None:
        return Finding(1, MANIFEST, "not checked", "there is none: the set was not prepared here")
    offenders, compared = _differences(manifest, looks)
    if offenders:
        return Finding(1, MANIFEST, "problem", f"{len(offenders):,} files differ from it", offenders)
    sums = f", {compared:,} checksums" if level > 2 else ""
    return Finding(1, MANIFEST, "ok", f"{len(looks):,} names and sizes{sums} agree")


def _differences(manifest: Manifest, looks: Looks) -> tuple[list[str], int]:
    """Walk both lists side by side. A split that the manifest does not tell of was prepared elsewhere.

    Returns:
        What differs, and how many checksums were compared.
    """
    sizes, crcs = looks.column("size"), looks.column("crc")
    offenders: list[str] = []
    compared = 0
    mine = _in_order_of_bytes(looks, {manifest.paths[number].partition("/")[0] for number in range(len(manifest.paths))})
    path, place = next(mine, _END)
    for number in range(len(manifest.paths)):
        told = manifest.paths[number]
        encoded = os.fsencode(told)
        while place >= 0 and path < encoded:
            offenders.append(f"{os.fsdecode(path)} is not in it")
            path, place = next(mine, _END)
        if path != encoded:
            offenders.append(f"{told} is missing")
            continue
        if sizes[place] != manifest.sizes[number]:
            offenders.append(f"{told} has {sizes[place]:,} bytes, and had {manifest.sizes[number]:,}")
        elif crcs[place] >= 0 and manifest.crcs[number] != LINKED:
            compared += 1
            if crcs[place] != manifest.crcs[number]:
                offenders.append(f"{told} has other bytes (crc32 {crcs[place]:08x}, was {manifest.crcs[number]:08x})")
        path, place = next(mine, _END)
    while place >= 0:
        offenders.append(f"{os.fsdecode(path)} is not in it")
        path, place = next(mine, _END)
    return offenders, compared


_END = (b"", -1)


def _in_order_of_bytes(looks: Looks, wanted: set[str]) -> Iterator[tuple[bytes, int]]:
    """Yield path and place of each file of the wanted splits, as the preparation's list is sorted, a class folder at a time."""
    splits: dict[str, list[tuple[Folder, int]]] = {}
    place = 0
    for listing in looks.listings:
        for folder in listing.folders:
            splits.setdefault(listing.split, []).append((folder, place))
            place += folder.size
    for listing in sorted((each for each in looks.listings if each.split in wanted), key=lambda each: each.split):
        folders = splits.get(listing.split, [])
        if all(folder.name for folder, _ in folders):
            groups = [[each] for each in sorted(folders, key=lambda each: os.fsencode(f"{each[0].name}/"))]
        else:
            groups = [folders]  # what lies beside folders is sorted among them
        for group in groups:
            paths = ((listing.path(folder, name), first + at) for folder, first in group for at, name in enumerate(folder.names()))
            yield from sorted((os.fsencode(path), place) for path, place in paths)
