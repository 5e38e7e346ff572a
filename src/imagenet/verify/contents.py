"""Level 1, by first bytes and sizes: empty files, extensions that lie, and what the preparation's own list says."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from src.batch import DataError
from src.imagenet.manifest import LINKED, Manifest, read_manifest
from src.imagenet.verify.known import KNOWN_PNG
from src.imagenet.verify.looking import KINDS, Looks
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
MANIFEST = "the preparation's list"


def check_contents(looks: Looks) -> Iterator[Finding]:
    """Yield what sizes and first bytes tell."""
    kinds = looks.column("kind")
    empty, unreadable = KINDS.index("empty"), KINDS.index("unreadable")
    yield _finding("readable", looks, np.flatnonzero(kinds == unreadable), "cannot be opened")
    yield _finding("empty files", looks, np.flatnonzero(kinds == empty), "are empty")
    otherwise: list[str] = []
    known: list[str] = []
    for path, kind in zip(looks.paths(), kinds.tolist(), strict=True):
        told = _TOLD[os.path.splitext(path)[1].lower()]  # noqa: PTH122 (a million paths)
        if KINDS[kind] != told and kind not in (empty, unreadable):
            is_known = KINDS[kind] == "PNG" and path.endswith(f"/{KNOWN_PNG}")
            (known if is_known else otherwise).append(f"{path} is {KINDS[kind] if kind else 'of no known format'}")
    name = "extension against content"
    if otherwise:
        yield Finding(1, name, "problem", f"{len(otherwise):,} are not what their extension tells", otherwise)
    elif known:
        yield Finding(1, name, "expected", "one PNG is named .JPEG in ImageNet", known)
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
    """Walk both lists, sorted, side by side. A split that the manifest does not tell of was prepared elsewhere."""
    paths = [os.fsencode(path) for path in looks.paths()]
    told_of = {os.fsencode(manifest.paths[number].partition("/")[0]) for number in range(len(manifest.paths))}
    order = sorted((at for at, path in enumerate(paths) if path.partition(b"/")[0] in told_of), key=paths.__getitem__)
    sizes, crcs = looks.column("size"), looks.column("crc")
    offenders: list[str] = []
    compared, at = 0, 0
    for number in range(len(manifest.paths)):
        path = manifest.paths[number]
        told = os.fsencode(path)
        while at < len(order) and paths[order[at]] < told:
            offenders.append(f"{os.fsdecode(paths[order[at]])} is not in it")
            at += 1
        if at == len(order) or paths[order[at]] != told:
            offenders.append(f"{path} is missing")
            continue
        place, at = order[at], at + 1
        if sizes[place] != manifest.sizes[number]:
            offenders.append(f"{path} has {sizes[place]:,} bytes, and had {manifest.sizes[number]:,}")
        elif crcs[place] >= 0 and manifest.crcs[number] != LINKED:
            compared += 1
            if crcs[place] != manifest.crcs[number]:
                offenders.append(f"{path} has other bytes (crc32 {crcs[place]:08x}, was {manifest.crcs[number]:08x})")
    offenders += [f"{os.fsdecode(paths[place])} is not in it" for place in order[at:]]
    return offenders, compared
