"""How fast a data set is prepared and verified, beside what one would do by hand: `tar x`, and a loop over Pillow.

The same images, repeated to a few thousand, in one run: the real stages extract a tar of tars beside `tar x` of the outer and then
of each inner tar, as the shell scripts do, and beside one `tar x` of a flat tar. Verification of level 3 stands beside a plain loop
in one process and in a pool of processes. In every round each contender runs once, in another order; a sync of the file system
ends everybody's writing. Sources are in the page cache, so a disk's own limit is told apart: by the bytes.
"""

import contextlib
import io
import multiprocessing
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from PIL import Image

from src.config.prepare import load_prepare
from src.data.headers import FORMATS
from src.imagenet.published import TRAIN_TAR
from src.imagenet.space import sync_file_system
from src.imagenet.stages import prepare
from src.imagenet.verify import verify
from src.machine import allowed_cpus
from src.prepare_benchmark.options import Options, pictures
from src.prepare_benchmark.report import figures_of

_CHUNK = 32
_CLASSES = 10  # at least: 400 images each of 4,000; ImageNet has 1,281
_BY_HAND = """set -e
tar -xf "$1"
find . -name '*.tar' | while read -r name; do mkdir -p "${name%.tar}"; tar -xf "$name" -C "${name%.tar}"; rm -f "$name"; done"""


def measure_prepare(options: Options) -> dict[str, Any]:
    """Measure, and return the figures; what is told on the way goes to stderr. Nothing that was written stays."""
    workers = options.workers or allowed_cpus()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="prepare-benchmark-") as name:
        folder = Path(name)
        mean_bytes = _write_sources(options, folder, classes=max(_CLASSES, 2 * workers))
        out, root = folder / "out", folder / "set"
        extraction = _rounds(
            {
                "prepare": lambda: _by_stages(folder, workers),
                "tar x twice": lambda: _by_hand(folder),
                "tar x of a flat tar": lambda: _flat(folder),
            },
            options.pairs,
            before=out.mkdir,
            after=lambda: shutil.rmtree(out),
        )
        out.mkdir()
        _flat(folder)
        root.mkdir()
        out.rename(root / "train")
        paths = [str(path) for path in sorted(pictures(root))]
        with _pool(workers) as pool:
            verification = _rounds(
                {
                    "verify level=3": lambda: _verify(root, workers),
                    "Pillow, one process": lambda: _loop(paths),
                    f"Pillow, {workers} processes": lambda: pool.map(_loop, _chunks(paths)),
                },
                options.pairs,
                before=lambda: None,
                after=lambda: _forget(root),
            )
    return figures_of(options, workers, mean_bytes, extraction, verification)


def _write_sources(options: Options, folder: Path, *, classes: int) -> float:
    """Write a tar of class tars, named as ImageNet's, and a flat tar of the same. Returns the mean bytes of an image."""
    contents = [path.read_bytes() for path in sorted(pictures(options.data))[: options.images]]
    inner: dict[str, tuple[io.BytesIO, tarfile.TarFile]] = {}
    total = 0
    (folder / "official").mkdir()
    with (
        tarfile.open(folder / "official" / TRAIN_TAR, "w", format=tarfile.USTAR_FORMAT) as outer,
        tarfile.open(folder / "flat.tar", "w", format=tarfile.USTAR_FORMAT) as flat,
    ):
        for number in range(options.images):
            wnid = f"n{number * classes // options.images:08d}"
            if wnid not in inner:
                memory = io.BytesIO()
                inner[wnid] = memory, tarfile.open(fileobj=memory, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            content = contents[number % len(contents)]
            total += len(content)
            _add(inner[wnid][1], f"{wnid}_{number}.JPEG", content)
            _add(flat, f"{wnid}/{wnid}_{number}.JPEG", content)
        for wnid, (memory, tar) in inner.items():
            tar.close()
            _add(outer, f"{wnid}.tar", memory.getvalue())
    return total / options.images


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _by_stages(folder: Path, workers: int) -> None:
    """Extract by the stages of a preparation, up to what arranging would publish: journal, crc32 of every file, and syncs."""
    target = folder / "out"
    (target / "val").mkdir()  # of which the source has none
    asked = (f"source={folder / 'official'}", f"target={target}", "layout=official", "checksum=off", "until=extract")
    prepare(load_prepare([*asked, f"workers={workers}"]), data_set=None, bars=_Silent())


def _by_hand(folder: Path) -> None:
    command = ["bash", "-c", _BY_HAND, "tar-x-twice", str(folder / "official" / TRAIN_TAR)]
    subprocess.run(command, cwd=folder / "out", check=True)
    sync_file_system(folder)


def _flat(folder: Path) -> None:
    subprocess.run(["tar", "-xf", str(folder / "flat.tar"), "-C", str(folder / "out")], check=True)
    sync_file_system(folder)


def _verify(root: Path, workers: int) -> None:
    report = verify(root, level=3, expect="any", threads=workers, progress=lambda done, total: None)
    assert next(finding for finding in report.findings if finding.check == "usable by training").verdict == "ok", report.table()


def _forget(root: Path) -> None:
    """Remove what a verification wrote, so that the next one writes it, too."""
    for path in root.glob(".*.index.npz"):
        path.unlink()


def _loop(paths: Sequence[str]) -> None:
    for path in paths:
        with Image.open(path, formats=FORMATS) as image:
            image.convert("RGB")


def _chunks(paths: Sequence[str]) -> list[Sequence[str]]:
    return [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[Pool]:
    """Start the processes, and wait until all of them have imported Pillow: none of that is measured."""
    with multiprocessing.get_context("forkserver").Pool(workers) as pool:
        pool.map(_loop, [[]] * 4 * workers, chunksize=1)
        yield pool


class _Silent:
    """Shows no progress."""

    @contextlib.contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show nothing."""
        yield lambda done, total: None

    @contextlib.contextmanager
    def amounts(self, what: str) -> Iterator[Callable[[int, int, int, int], None]]:
        """Show nothing."""
        yield lambda files, all_files, length, all_bytes: None

    @contextlib.contextmanager
    def transfer(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show nothing."""
        yield lambda done, total: None

    def say(self, text: str) -> None:
        """Say nothing."""


def _rounds(
    contenders: dict[str, Callable[[], object]], pairs: int, *, before: Callable[[], object], after: Callable[[], object]
) -> dict[str, list[float]]:
    """Run each contender once a round, beginning with another one in each, after one round that is not counted.

    Returns:
        Name to the seconds of each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(-1, pairs):
        start = number % len(names)
        for name in [*names[start:], *names[:start]]:
            before()
            began = time.perf_counter()
            contenders[name]()
            took = time.perf_counter() - began
            after()
            if number >= 0:
                seconds[name].append(took)
    return seconds
