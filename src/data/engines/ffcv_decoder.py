"""The one file that touches FFCV and numba: FFCV reads the .beton, decodes and resizes; rows, boxes and flips come from us.

Of FFCV 1.0.2 this uses the reader of the file, the memory manager (the operating system's cache) with its compiled look-up, the
compiler, and the C library with turbojpeg and OpenCV. Not its Loader and EpochIterator: they draw order and boxes themselves, an
exception in their thread never reaches the caller, and closing them leaves threads behind. What they do beside that, calling
compiled code a batch at a time, is done here for a few rows at a time, by whoever calls, without the interpreter lock.

FFCV's own decoder drops the JPEG decoder's return code and shows whatever its buffer held before. Here such a row is reported.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray
from PIL import Image

from src.batch import DataError
from src.config import ConfigError, Problem
from src.data.beton.format import JPEG, RAW
from src.data.engines.ffcv_jpeg import compile_check
from src.data.sources.beton import BetonSource

_INSTALL = (
    "To install it: apt-get install build-essential pkg-config libturbojpeg0-dev libopencv-dev (or conda install -c conda-forge "
    "pkg-config libjpeg-turbo opencv compilers), then pip install 'imagenet-trainer[ffcv]', which compiles it."
)
_MOST_PIXELS = int(Image.MAX_IMAGE_PIXELS or 0)  # what Pillow takes for a bomb, Pillow shall judge; also bounds a thread's scratch


class Rows(NamedTuple):
    """What compiled code must know of every sample of a source, in its order.

    Attributes:
        usable: bool (n,), whether FFCV can be given it at all.
        modes: uint8 (n,), JPEG or RAW.
        sizes: int32 (n, 2), width and height.
        pointers: uint64 (n,), first byte in the file.
        storage: FFCV's: the mapped file, and where each allocation begins and how long it is.
    """

    usable: NDArray[np.bool_]
    modes: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    pointers: NDArray[np.uint64]
    storage: Any

    @property
    def scratch_bytes(self) -> int:
        """How much memory decoding any one of the JPEGs takes."""
        jpegs = self.sizes[self.usable & (self.modes == JPEG)]
        return int(jpegs.astype(np.int64).prod(axis=1).max(initial=0)) * 3


def why_not_importable() -> str | None:
    """Return None where FFCV can be used, which imports it (two seconds); else why not, and how to install it, in sentences."""
    try:
        _load()
    except Exception as error:  # noqa: BLE001 (whatever a half-installed library raises)
        return f"FFCV cannot be imported ({type(error).__name__}: {error}). {_INSTALL}"
    return None


def require_ffcv() -> None:
    """Raise ConfigError, naming the extra and the system's packages, where FFCV cannot be imported."""
    reason = why_not_importable()
    if reason is not None:
        fix = f"{reason} Or set data.engine=auto, which reads the same file without FFCV."
        raise ConfigError("the data", [Problem("data.engine", "ffcv", fix)])


def read_rows(source: BetonSource) -> Rows:
    """Let FFCV read a file's tables and map it.

    Raises:
        DataError: the file is not what the source has opened.
    """
    loaded = _load()
    reader = loaded.Reader(str(source.path))
    images = [at for at, field in enumerate(reader.handlers.values()) if isinstance(field, loaded.RGBImageField)]
    if reader.num_samples <= source.ids.max(initial=-1) or len(images) != 1:
        raise DataError(f"{source.path} was changed after it was opened. Start again.")
    image = reader.metadata[f"f{images[0]}"][source.ids]
    sizes = np.stack([image["width"], image["height"]], axis=1).astype(np.int32)
    if not np.array_equal(sizes, source.sizes):
        raise DataError(f"{source.path} was changed after it was opened: the images' sizes differ. Start again.")
    order = np.argsort(reader.alloc_table["ptr"])
    starts, lengths = (np.ascontiguousarray(reader.alloc_table[name][order]) for name in ("ptr", "size"))
    modes: NDArray[np.uint8] = np.ascontiguousarray(image["mode"])
    pointers: NDArray[np.uint64] = np.ascontiguousarray(image["data_ptr"])
    usable = _usable(modes, sizes, pointers, starts, lengths)
    if not usable.all():
        logger.warning(
            f"{np.count_nonzero(~usable):,} of the {len(usable):,} samples of {source.path} cannot be given to FFCV, as its "
            "allocation table does not tell where they end, or they are too large. They are made as torchvision makes them."
        )
    with loaded.manager(reader, starts, lengths).schedule_epoch(None) as context:
        return Rows(usable, modes, sizes, pointers, context.state)


def _usable(
    modes: NDArray[np.uint8],
    sizes: NDArray[np.int32],
    pointers: NDArray[np.uint64],
    starts: NDArray[np.uint64],
    lengths: NDArray[np.uint64],
) -> NDArray[np.bool_]:
    """Return bool (n,): has pixels, and its bytes are where FFCV looks for them, which checks nothing."""
    if not len(starts):
        return np.zeros(len(modes), np.bool_)
    at = np.minimum(np.searchsorted(starts, pointers), len(starts) - 1)
    length = np.where(starts[at] == pointers, lengths[at], 0).astype(np.int64)
    area = sizes.astype(np.int64).prod(axis=1)
    jpeg = (modes == JPEG) & (length > 0) & (area <= _MOST_PIXELS)
    raw = (modes == RAW) & (length == 3 * area)
    return np.asarray((area > 0) & (jpeg | raw), np.bool_)


class _Loaded(NamedTuple):
    Reader: Any
    RGBImageField: Any
    manager: Callable[..., Any]


@functools.cache
def _load() -> _Loaded:
    """Import FFCV, which sets torch's and numba's threads for the whole process, and set them back."""
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The distutils package is deprecated", category=DeprecationWarning)
            import numba

            numba_threads = numba.get_num_threads()
            from ffcv.fields import RGBImageField
            from ffcv.memory_managers import OSCacheManager
            from ffcv.memory_managers.os_cache import OSCacheContext
            from ffcv.reader import Reader
        numba.set_num_threads(numba_threads)
    finally:
        torch.set_num_threads(threads)

    class LeanManager(OSCacheManager):  # type: ignore[misc]
        """FFCV's, without its dictionaries of every sample: 0.65 GB and 2.5 s for ImageNet, and of no use to this manager."""

        def __init__(self, reader: Any, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> None:
            self.reader, self.ptrs, self.sizes = reader, starts, lengths
            self.context = OSCacheContext(self)

    return _Loaded(Reader, RGBImageField, LeanManager)


@functools.cache
def compiled_decoder() -> Callable[..., None]:
    """Compile once a process, for every engine, geometry and file; about two seconds.

    numba's cache on disk does not take code that calls a C library by address.

    Returns:
        A function of (ids int64 (n,), boxes int32 (n, 4), flips bool (n,), destination uint8 (n, S, S, 3), scratch uint8 (m,),
        failed bool (n,), and the columns of Rows), which writes destination, or failed where a row must be made otherwise. Boxes
        outside their images end the process. It does not hold the interpreter lock.
    """
    loaded = _load()
    import numba
    from ffcv.libffcv import imdecode, resize_crop
    from ffcv.pipeline.compiler import Compiler

    nothing = np.zeros(0, np.uint64)
    manager = loaded.manager(None, nothing, nothing)
    read, decode_jpeg, resize = manager.compile_reader(), Compiler.compile(imdecode), Compiler.compile(resize_crop)
    is_complete, mirror = compile_check(Compiler.compile), Compiler.compile(_mirror)

    def decode(  # type: ignore[no-untyped-def]
        ids, boxes, flips, destination, scratch, failed, usable, modes, sizes, pointers, storage
    ):
        for at in range(len(ids)):
            sample = ids[at]
            failed[at] = True
            if not usable[sample]:
                continue
            data = read(pointers[sample], storage)
            width, height = sizes[sample, 0], sizes[sample, 1]
            if modes[sample] == JPEG:
                if not is_complete(data, width, height):
                    continue
                image = scratch[: height * width * 3].reshape(height, width, 3)
                if decode_jpeg(data, image, height, width, height, width, 0, 0, 1, 1, False, False) != 0:
                    continue  # also where it only warns, as of an early end: what it made of that is not to be trusted
            else:
                image = data.reshape(height, width, 3)
            x, y, box_width, box_height = boxes[at]
            resize(image, y, y + box_height, x, x + box_width, destination[at])
            if flips[at]:
                mirror(destination[at])
            failed[at] = False

    byte, flag, size, row = numba.uint8, numba.boolean, numba.int32, numba.int64
    of_rows = (flag[::1], byte[::1], size[:, ::1], numba.uint64[::1], manager.state_type)
    arguments = (row[::1], size[:, ::1], flag[::1], byte[:, :, :, ::1], byte[::1], flag[::1], *of_rows)
    compiled: Callable[..., None] = Compiler.compile(decode, numba.void(*arguments))
    return compiled


def _mirror(image: NDArray[np.uint8]) -> None:
    """Mirror uint8 (H, W, 3) left-right, in place; compiled."""
    last = image.shape[1] - 1
    for y in range(image.shape[0]):
        for x in range(image.shape[1] // 2):
            for channel in range(3):
                kept = image[y, x, channel]
                image[y, x, channel] = image[y, last - x, channel]
                image[y, last - x, channel] = kept
