"""What a .beton cannot say of itself: class names and checksums, in `<file>.json` beside it."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError
from src.data.beton.format import Layout

_KIND = "beton-sidecar"
_VERSION = 1
_PROBES, _PROBE = 64, 4096
_BLOCK = 2**22


class Sidecar(NamedTuple):
    """The content of the file beside a .beton.

    Attributes:
        classes: names; a label is a position in them.
        bytes: size of the .beton.
        samples: how many it holds.
        sha256: of the whole .beton.
        fingerprint: sha256 of what is cheap to check at every opening, see `fingerprint`.
        settings: that it was written with; for people.
        skipped: [name, reason] of the images that were left out.
        bad: [row, reason] of samples that are in the file and cannot be decoded.
        verified: every image was decoded whole when it was written.
    """

    classes: tuple[str, ...]
    bytes: int
    samples: int
    sha256: str
    fingerprint: str
    settings: dict[str, Any]
    skipped: list[tuple[str, str]]
    bad: list[tuple[int, str]]
    verified: bool


def sidecar_path(path: Path) -> Path:
    """Return `train.beton.json` for `train.beton`."""
    return path.with_name(f"{path.name}.json")


def fingerprint(descriptor: int, layout: Layout, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> str:
    """Hash the header, descriptors, metadata, allocation table, and the first 4 KiB of 64 images spread evenly over the file.

    Labels, sizes and pointers cannot change unnoticed then, nor can the file be another one of the same shape; a changed bit in an
    image can. 60 MB for ImageNet's training split.

    Args:
        descriptor: of the open file.
        layout: of the file.
        starts: int64 (n,), first byte of each image.
        ends: int64 (n,), and the byte behind its last.
    """
    digest = hashlib.sha256()
    _update(digest, descriptor, 0, layout.metadata_end)
    _update(digest, descriptor, layout.table_at, layout.size)
    for row in np.unique(np.linspace(0, len(starts) - 1, _PROBES).astype(np.int64)).tolist():
        start, end = starts.item(row), ends.item(row)
        _update(digest, descriptor, start, min(end, start + _PROBE))
    return digest.hexdigest()


def render(sidecar: Sidecar) -> bytes:
    """Make the file's content: JSON that a person can read."""
    content = {"kind": _KIND, "version": _VERSION, **sidecar._asdict()}
    return json.dumps({**content, "seal": _seal(content)}, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")


def load(path: Path) -> Sidecar | None:
    """Read the sidecar of a .beton; None where there is none.

    Raises:
        DataError: it cannot be read, or is not what this program writes. The message names it.
    """
    beside = sidecar_path(path)
    remedy = "Fetch it again from where the .beton came from, or remove it: the classes have no names then."
    try:
        content = json.loads(beside.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{beside} cannot be read: {error.strerror}. {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{beside} is no JSON ({error}). {remedy}") from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise DataError(f"{beside} does not describe a .beton. {remedy}")
    if "seal" in content and content.pop("seal") != _seal(content):
        raise DataError(f"{beside} is damaged: it is not what was written. {remedy}")
    if content.get("version") != _VERSION:
        raise DataError(f"{beside} is of version {content.get('version')}; this program reads {_VERSION}. {remedy}")
    try:
        sidecar = Sidecar(**{name: content[name] for name in Sidecar._fields})
        sidecar = sidecar._replace(
            classes=tuple(sidecar.classes),
            skipped=[(str(name), str(reason)) for name, reason in sidecar.skipped],
            bad=[(int(row), str(reason)) for row, reason in sidecar.bad],
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{beside} is damaged ({type(error).__name__}: {error}). {remedy}") from error
    if not isinstance(sidecar.fingerprint, str) or not isinstance(sidecar.sha256, str):
        raise DataError(f"{beside} is damaged: its hashes are no strings. {remedy}")
    distinct = not isinstance(content["classes"], str) and all(isinstance(name, str) for name in sidecar.classes)
    if not distinct or len(set(sidecar.classes)) != len(sidecar.classes):
        raise DataError(f"{beside} is damaged: its class names are not distinct strings. {remedy}")
    return sidecar


def check(
    sidecar: Sidecar, path: Path, descriptor: int, layout: Layout, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> None:
    """Refuse a sidecar that belongs to another file.

    Raises:
        DataError: naming both, and what differs.
    """
    if sidecar.bytes != layout.size:
        differs = f"{sidecar.bytes} bytes, the file has {layout.size}"
    elif sidecar.samples != layout.num_samples:
        differs = f"{sidecar.samples} samples, the file has {layout.num_samples}"
    elif sidecar.fingerprint != (found := fingerprint(descriptor, layout, starts, ends)):
        differs = f"the fingerprint {sidecar.fingerprint[:16]}..., the file has {found[:16]}..."
    else:
        return
    raise DataError(
        f"{sidecar_path(path)} does not belong to {path.name}, or one of them is damaged: it tells of {differs}. "
        "Fetch both again from where they came from, or write them anew."
    )


def _seal(content: dict[str, Any]) -> str:
    """Hash what the file says, however it is laid out: a changed letter in a class name belongs to no other check."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _update(digest: Any, descriptor: int, start: int, end: int) -> None:
    while start < end and (block := os.pread(descriptor, min(_BLOCK, end - start), start)):
        digest.update(block)
        start += len(block)
