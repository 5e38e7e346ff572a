"""Write a .beton that FFCV reads, from any source: decoded, encoded, read back and compared, and only then given its name.

The file grows under a temporary name. The sidecar takes its place first, then the file: a crash leaves the old pair, or a sidecar
that is seen not to belong to the file beside it.
"""

import contextlib
import errno
import os
import shutil
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.batch import Buffer, DataError, Source
from src.data.beton import sidecar as beside
from src.data.beton.encode import Recipe, Stored, shrunk_sizes, store, stored_raw
from src.data.beton.format import ALLOCATION, IMAGE_ID, INT_ID, JPEG, MIN_PAGE, RAW, Field, Layout
from src.data.beton.pages import Pages, temporary_file
from src.data.sources.beton import hash_file, open_all, read_layout
from src.files import sync_folder, write_atomically

FIELDS = (Field("image", IMAGE_ID), Field("label", INT_ID))
PAGE = 4 * MIN_PAGE  # FFCV's default
_AHEAD = 4  # samples in flight for each worker
_PROBES = 64  # samples that tell how large the file will be
_CHUNK = 256  # samples compared at once
_SHOWN = 5


class Written(NamedTuple):
    """What was written.

    Attributes:
        path: of the file; its sidecar stands beside it.
        samples: in the file.
        raw: of them, stored as pixels.
        kept: of them, JPEGs stored byte for byte as they were.
        shrunk: of them, larger before.
        bytes: of the file.
        sha256: of the file.
        skipped: name and reason of each image that was left out.
    """

    path: Path
    samples: int
    raw: int
    kept: int
    shrunk: int
    bytes: int
    sha256: str
    skipped: list[tuple[str, str]]


def write_beton(
    source: Source,
    target: Path,
    *,
    workers: int,
    progress: Callable[[int, int, int], None],
    max_resolution: int | None = 500,
    jpeg_quality: int = 90,
    mode: Literal["jpg", "raw", "proportion"] = "jpg",
    raw_fraction: float = 0.5,
    jpeg_bytes: Literal["reencode", "original"] = "reencode",
    page_size: int = PAGE,
    on_bad: Literal["raise", "skip"] = "raise",
) -> Written:
    """Write all of a source, in its order, with the fields image and label. Memory is bounded by a few samples a worker.

    Args:
        source: to read from.
        target: the file, replaced if it exists. Beside it comes `<target>.json`: class names, checksums, what was left out.
        workers: threads that decode and encode.
        progress: called with (samples done, samples in all, bytes so far): while writing, then again from 0 while reading back.
        max_resolution: longest side in pixels; see Recipe, also for the next four.
        jpeg_quality: of what is encoded anew.
        mode: JPEG, pixels, or a share of pixels.
        raw_fraction: that share.
        jpeg_bytes: whether a JPEG's bytes are kept where they can be.
        page_size: bytes, a power of two; doubled where an image needs it.
        on_bad: "raise" looks at every image, writes nothing, and lists the bad ones; "skip" leaves them out.

    Raises:
        DataError: bad images (the first by name, and how many), or what was read back differs.
        OSError: ENOSPC, before or while the disk is full; EBUSY, another process writes this file. No temporary file is left.
    """
    assert workers > 0 and page_size >= MIN_PAGE and page_size & (page_size - 1) == 0
    recipe = Recipe(max_resolution, jpeg_quality, mode, raw_fraction, jpeg_bytes)
    count = len(source)
    if count == 0:
        raise DataError(f"{target}: there is no image to write.")
    stopped = threading.Event()
    with temporary_file(target) as (temporary, file), _pool(workers, stopped) as pool, _clear_when_full(target):
        _require_space(source, target, recipe, pool)
        pages = Pages(file, FIELDS, count, page_size)
        filled = _fill(pages, source, recipe, on_bad, pool, workers, progress)
        size = pages.finish(filled.rows, filled.table)
        digest = _read_back(temporary, filled, pool, stopped, progress)
        skipped = filled.bad
        settings = {**recipe._asdict(), "page_size": pages.page_size}
        starts, ends = (column.astype(np.int64) for column in (filled.table["ptr"], filled.table["ptr"] + filled.table["size"]))
        mark = beside.fingerprint(file.fileno(), read_layout(file.fileno()), starts, ends)
        told = beside.Sidecar(source.classes, size, len(filled.rows), digest, mark, settings, skipped, [], verified=True)
        write_atomically(beside.sidecar_path(target), beside.render(told))
        os.replace(temporary, target)
        sync_folder(target.parent)
    raw, kept, shrunk = filled.counts
    return Written(target, len(filled.rows), raw, kept, shrunk, size, digest, skipped)


class _Filled(NamedTuple):
    """What was placed: metadata rows, allocations, crc32 of each sample, (raw, kept, shrunk), and the bad images."""

    rows: NDArray[Any]
    table: NDArray[Any]
    crcs: NDArray[np.uint32]
    counts: tuple[int, int, int]
    bad: list[tuple[str, str]]


def _fill(
    pages: Pages,
    source: Source,
    recipe: Recipe,
    on_bad: Literal["raise", "skip"],
    pool: ThreadPoolExecutor,
    workers: int,
    progress: Callable[[int, int, int], None],
) -> _Filled:
    count = len(source)
    rows, table = np.zeros(count, Layout(FIELDS, 0, 0, 0, 0).row), np.zeros(count, ALLOCATION)
    crcs = np.zeros(count, np.uint32)
    counts = np.zeros(3, np.int64)
    bad: list[tuple[str, str]] = []
    row = 0
    for number, made in enumerate(_stored(source, recipe, pool, workers * _AHEAD)):
        if isinstance(made, str):
            bad.append((source.name(number), made))
        elif not bad or on_bad == "skip":  # else nothing more is written, but every image is looked at
            size = len(made.data)
            start = pages.place(made.data)
            rows[row] = ((RAW if made.raw else JPEG, made.width, made.height, start), source.labels[number])
            table[row] = (row, start, size)
            crcs[row] = made.crc
            counts += made.raw, made.kept, made.shrunk
            row += 1
        progress(number + 1, count, pages.at)
    if bad and on_bad == "raise":
        listed = "; ".join(f"{name} {reason}" for name, reason in bad[:_SHOWN]) + ("; ..." if len(bad) > _SHOWN else "")
        raise DataError(f"{len(bad)} of {count} images are bad: {listed}. Replace them, or leave them out with on_bad=skip.")
    if row == 0:
        raise DataError(f"all {count} images are bad, such as {bad[0][0]}: {bad[0][1]}. There is nothing to write.")
    raw, kept, shrunk = counts.tolist()
    return _Filled(rows[:row], table[:row], crcs[:row], (raw, kept, shrunk), bad)


def _stored(source: Source, recipe: Recipe, pool: ThreadPoolExecutor, ahead: int) -> Iterator[Stored | str]:
    """Yield each sample in order, or what is wrong with it."""
    raw = stored_raw(recipe, len(source))
    pending: deque[Future[Stored | str]] = deque()
    for number in range(len(source)):
        if len(pending) == ahead:
            yield pending.popleft().result()
        pending.append(pool.submit(_store, source, number, bool(raw[number]), recipe))
    while pending:
        yield pending.popleft().result()


def _store(source: Source, number: int, raw: bool, recipe: Recipe) -> Stored | str:
    try:
        return store(source.read(number), raw=raw, recipe=recipe)
    except DataError as error:
        return str(error).removeprefix(f"{source.name(number)} ")
    except Exception as error:
        error.add_note(f"while encoding {source.name(number)}")
        raise


def _flat(data: Buffer) -> bytes | memoryview:
    return data.data if isinstance(data, np.ndarray) else data


def _read_back(
    temporary: Path, filled: _Filled, pool: ThreadPoolExecutor, stopped: threading.Event, progress: Callable[[int, int, int], None]
) -> str:
    """Compare every sample and label with what was handed to the disk, and return the file's sha256."""
    written = open_all(temporary)
    count, done = len(filled.rows), 0

    def differing(start: int) -> list[int]:
        chunk = range(start, min(start + _CHUNK, count))
        return [] if stopped.is_set() else [at for at in chunk if zlib.crc32(_flat(written.read(at).data)) != filled.crcs[at]]

    with open(temporary, "rb", buffering=0) as file:
        digest = pool.submit(hash_file, file.fileno(), stopped.is_set)
        wrong = [] if np.array_equal(written.labels, filled.rows["f1"]) else ["labels"]
        for start, found in zip(range(0, count, _CHUNK), pool.map(differing, range(0, count, _CHUNK)), strict=True):
            wrong += [f"#{at}" for at in found]
            done = min(start + _CHUNK, count)
            progress(done, count, int(filled.table["ptr"][done - 1] + filled.table["size"][done - 1]))
        if wrong or len(written) != count:
            raise DataError(
                f"{len(wrong)} samples were read back otherwise than they were written, the first {wrong[0]}: the disk or the "
                "memory of this machine is not sound. Write to another disk."
            )
        return digest.result()


def _require_space(source: Source, target: Path, recipe: Recipe, pool: ThreadPoolExecutor) -> None:
    """Refuse at once what cannot fit: pixels are counted, JPEGs estimated from samples spread over the source."""
    count = len(source)
    raw = stored_raw(recipe, count)
    needed = int(shrunk_sizes(source.sizes[raw], recipe.max_resolution).prod(axis=1).sum()) * 3
    encoded = np.flatnonzero(~raw)
    if len(encoded):
        probes = encoded[np.unique(np.linspace(0, len(encoded) - 1, _PROBES).astype(np.int64))]
        made = list(pool.map(lambda number: _store(source, number, False, recipe), probes.tolist()))
        sizes = [len(one.data) for one in made if isinstance(one, Stored)]
        needed += int(np.mean(sizes or [0]) * len(encoded))
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{target} will be about {needed / 1e9:,.1f} GB, but only {free / 1e9:,.1f} GB are free. Free some space, write to "
            "another disk, or make it smaller (max_resolution, jpeg_quality, mode=jpg)",
        )


@contextlib.contextmanager
def _pool(workers: int, stopped: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """Threads that are told when nobody waits for them any more."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="write")
    try:
        yield pool
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _clear_when_full(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and str(target) not in str(error):
            free = f"{shutil.disk_usage(target.parent).free / 1e9:,.1f} GB are free"
            raise OSError(error.errno, f"the disk of {target} is full ({error.strerror}; {free}). Nothing was kept") from error
        raise
