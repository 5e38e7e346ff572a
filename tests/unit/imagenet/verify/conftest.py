"""A small ImageNet with all 24 oddities, and the truth that it is held against."""

import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from src.imagenet.classes import write_classes
from src.imagenet.manifest import line_of, write_manifest
from src.imagenet.verify.known import KNOWN
from src.imagenet.verify.levels import verify_against
from src.imagenet.verify.official import Truth, sum_of
from src.imagenet.verify.report import Report
from tests.pictures import encode, noise, segment, with_segments, write_files

WNIDS = sorted({name[:9] for name in KNOWN})
VAL = {wnid: (number, number + len(WNIDS)) for number, wnid in enumerate(WNIDS, 1)}
TEST = 5
TRUTH = Truth(
    train=2 * len(WNIDS),
    train_a_class=(1, 3),
    val=2 * len(WNIDS),
    val_sums={wnid: sum_of(numbers) for wnid, numbers in VAL.items()},
    test=TEST,
)
XMP = b"http://ns.adobe.com/xap/1.0/\0"


def oddity(name: str) -> bytes:
    if KNOWN[name] == "PNG":
        return encode("png")
    if KNOWN[name] == "CMYK":
        return encode("cmyk")
    return with_segments(encode("jpeg"), segment(0xE1, XMP + b"<x:xmpmeta \xff"))


def small_imagenet() -> dict[str, bytes]:
    """Return path to content."""
    files = {f"train/{name[:9]}/{name}": oddity(name) for name in KNOWN}
    files |= {f"train/{wnid}/{wnid}_1.JPEG": encode("jpeg", seed=number) for number, wnid in enumerate(WNIDS)}
    files |= {
        f"val/{wnid}/ILSVRC2012_val_{number:08d}.JPEG": encode("grey" if number % 5 == 0 else "jpeg", seed=number)
        for wnid, numbers in VAL.items()
        for number in numbers
    }
    return files | {f"test/ILSVRC2012_test_{number:08d}.JPEG": encode("progressive", seed=number) for number in range(1, TEST + 1)}


class Made(NamedTuple):
    root: Path

    def verify(self, level: int, expect: str = "imagenet", threads: int = 2) -> Report:
        return verify_against(TRUTH, self.root, level=level, expect=expect, threads=threads, progress=lambda done, total: None)

    def list_again(self, *, linked: tuple[str, ...] = ()) -> None:
        """Write the preparation's list of what is there now."""
        found = [path for split in ("train", "val", "test") for path in (self.root / split).rglob("*")]
        found = [path for path in found if path.suffix in (".JPEG", ".png") and path.parent.name != "train"]
        paths = [path.relative_to(self.root) for path in found if path.is_file()]
        lines = []
        for path in sorted(map(str, paths), key=os.fsencode):
            data = (self.root / path).read_bytes()
            lines.append(line_of(path, len(data), -1 if path in linked else zlib.crc32(data)))
        (self.root / ".prepare").mkdir(exist_ok=True)
        write_manifest(self.root, lines)


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    return small_imagenet()


@pytest.fixture
def made(tmp_path: Path, files: dict[str, bytes]) -> Made:
    found = Made(write_files(tmp_path / "Imagenet", files))
    write_classes(found.root / "classes.tsv", WNIDS, {})
    found.list_again()
    return found


@pytest.fixture
def any_set(tmp_path: Path) -> Made:
    """A set of any kind, without a list."""
    files = {
        f"{split}/{name}/{n}.png": encode("png", 20, 20, n)
        for split in ("train", "val")
        for name in ("ant", "bee")
        for n in range(3)
    }
    return Made(write_files(tmp_path / "any", files))


def problems(report: Report) -> set[str]:
    return {finding.check for finding in report.findings if finding.verdict == "problem"}


def offenders(report: Report, check: str) -> list[str]:
    return next(list(finding.offenders) for finding in report.findings if finding.check == check)


def broken_png() -> bytes:
    """Return a PNG whose headers and end are sound, and whose pixels are not."""
    file = io.BytesIO()
    Image.fromarray(noise(40, 30)).save(file, "PNG")
    data = bytearray(file.getvalue())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(8)
    return bytes(data)


Damage = Callable[[Path], Any]
