"""Levels 2 and 3: what headers and pixels tell, and whether ImageNet's 24 known oddities, and no others, are odd."""

import os
from collections.abc import Iterator

import numpy as np

from src.imagenet.verify.known import KNOWN, KNOWN_XMP
from src.imagenet.verify.look import KINDS
from src.imagenet.verify.looking import Looks
from src.imagenet.verify.official import Truth
from src.imagenet.verify.report import Finding, Verdict
from src.imagenet.verify.segments import BROKEN_EXIF, BROKEN_XMP

_GREY, _CMYK = 1, 4


def check_headers(looks: Looks) -> Iterator[Finding]:
    """Yield what cannot be used, and what is in the headers of all."""
    bad = [f"{path}: {looks.bad[place].reason}" for place, path in enumerate(looks.paths()) if place in looks.bad]
    if bad:
        yield Finding(2, "usable by training", "problem", f"{len(bad):,} are not", bad)
    else:
        yield Finding(2, "usable by training", "ok", "all")
    width, height, kinds, channels = (looks.column(name) for name in ("width", "height", "kind", "channels"))
    whole = width > 0
    if whole.any():
        area = f"{width[whole].min():,} to {width[whole].max():,} px wide, {height[whole].min():,} to {height[whole].max():,} high"
        yield Finding(2, "sizes", "ok", area)
    formats = {KINDS[kind]: int(count) for kind, count in zip(*np.unique(kinds[whole], return_counts=True), strict=True)}
    many = ", ".join(f"{count:,} {name}" for name, count in sorted(formats.items(), key=lambda item: -item[1]))
    grey, cmyk = int((channels == _GREY).sum()), int((channels == _CMYK).sum())
    yield Finding(2, "formats", "ok", f"{many or 'none'}; of the JPEGs {grey:,} grey, {cmyk:,} CMYK")
    turned = int((looks.column("orientation") > 1).sum())
    yield Finding(2, "EXIF rotation", "ok", f"{turned:,} tell of one; training shows all pixels as they are stored")
    odd = looks.column("odd_metadata")
    exif, xmp = int((odd & BROKEN_EXIF > 0).sum()), int((odd & BROKEN_XMP > 0).sum())
    verdict: Verdict = "expected" if exif or xmp else "ok"
    yield Finding(2, "metadata", verdict, f"{exif:,} broken EXIF blocks, {xmp:,} broken XMP packets: harmless, nothing reads them")


def check_oddities(looks: Looks, truth: Truth | None) -> Finding:
    """Hold the known oddities against what is there. A set in which they are not odd was written anew, and others may be, too.

    Nobody has published which images of the test split are odd, and an XMP packet makes no difference: both are told, no more.
    """
    name = "known oddities"
    kinds, channels, odd = looks.column("kind"), looks.column("channels"), looks.column("odd_metadata")
    unreadable = [KINDS.index("empty"), KINDS.index("unreadable")]
    cmyk = channels == _CMYK
    suspects = cmyk | ~np.isin(kinds, [KINDS.index("JPEG"), *unreadable])
    test = looks.span("test")
    as_known: list[str] = []
    otherwise: list[str] = []
    told: list[str] = []
    there: set[str] = set()
    for place, path in enumerate(looks.paths()):
        base = os.path.basename(path)  # noqa: PTH119 (a million paths)
        wanted = KNOWN.get(base)
        if wanted is not None:
            there.add(base)
            is_odd = {"CMYK": cmyk[place], "PNG": KINDS[kinds[place]] == "PNG"}.get(wanted, odd[place] & BROKEN_XMP)
            if is_odd:
                as_known.append(f"{path}: {wanted}")
            elif truth is not None and base == KNOWN_XMP:
                told.append(f"{path} is known as: {wanted}, and its packet is sound or gone here: harmless")
            elif truth is not None:
                otherwise.append(f"{path} is known as: {wanted}, and is not. Was the set encoded anew?")
        elif truth is not None and suspects[place]:
            what = f"{path} is {'CMYK' if cmyk[place] else KINDS[kinds[place]]}"
            if test.start <= place < test.stop:
                told.append(f"{what}; of the test split nothing is published")
            else:
                otherwise.append(f"{what}, and is known not to be")
    if truth is not None:
        otherwise += [f"{base} is not there" for base in sorted(KNOWN.keys() - there - {KNOWN_XMP})]
    if otherwise:
        return Finding(2, name, "problem", f"{len(as_known)} of 24 as known, {len(otherwise):,} otherwise", [*otherwise, *told])
    if as_known or told:
        more = f"; {len(told):,} more to tell of" if told else ""
        return Finding(2, name, "expected", f"{len(as_known)} of ImageNet's 24, as known{more}", [*told, *as_known])
    return Finding(2, name, "ok", "none is there")


def check_pixels(looks: Looks) -> Iterator[Finding]:
    """Yield what the full decoding told. What it could not decode is among what training cannot use."""
    yield Finding(3, "decoded", "ok", f"{len(looks) - len(looks.bad):,} of {len(looks):,}, strictly")
    if looks.warned:
        told = [f"{path}: {looks.warned[place]}" for place, path in enumerate(looks.paths()) if place in looks.warned]
        yield Finding(3, "warnings", "expected", f"{len(told):,}, harmless", told)
