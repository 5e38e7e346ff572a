"""From the data's configuration to the engine that makes pixels."""

from functools import cache
from importlib.util import find_spec
from typing import TypedDict, assert_never

import torch
from loguru import logger

from src.batch import Engine, Source
from src.config import ConfigError, Problem
from src.config.data import DataConfig, EngineName
from src.data.bad_images import BadImages


class _Common(TypedDict):
    """What every engine is told."""

    device: torch.device
    threads: int
    prefetch: int
    bad_images: BadImages | None
    stuck_seconds: float


def build_engine(
    config: DataConfig,
    name: EngineName,
    source: Source,
    *,
    device: torch.device,
    threads: int,
    stuck_seconds: float,
    bad_images: BadImages | None = None,
) -> Engine:
    """Build the engine that decodes this source for this rank.

    Args:
        config: the data's.
        name: what choose_engine said.
        source: as build_source opened it.
        device: where batches end.
        threads: that decode.
        stuck_seconds: see ThreadedEngine.
        bad_images: what takes a bad image's place; None: it raises.

    Raises:
        ConfigError: if the engine is not installed.
    """
    on_gpu = config.decoder == "gpu"
    common: _Common = {
        "device": device,
        "threads": threads,
        "prefetch": config.prefetch,
        "bad_images": bad_images,
        "stuck_seconds": stuck_seconds,
    }
    match name:
        case "torchvision":
            from src.data.engines.torchvision import TorchvisionEngine

            return TorchvisionEngine(source, **common)
        case "nvimgcodec":
            if on_gpu:
                from src.data.engines.nvimgcodec_gpu import NvImageCodecGpuEngine

                return NvImageCodecGpuEngine(source, **common)
            from src.data.engines.nvimgcodec import NvImageCodecEngine

            return NvImageCodecEngine(source, **common)
        case "dali":
            from src.data.engines.dali import DaliEngine

            return DaliEngine(source, gpu_decoder=on_gpu, **common)
        case "ffcv":
            from src.data.engines.ffcv import FfcvEngine
            from src.data.sources.beton import BetonSource

            assert isinstance(source, BetonSource), "the schema lets ffcv read .beton only"
            return FfcvEngine(source, **common)
        case "auto":
            raise AssertionError("choose_engine never returns auto")
        case _:
            assert_never(name)


def choose_engine(config: DataConfig) -> EngineName:
    """Return the engine that will be used: `auto` and a missing FFCV are settled here."""
    name = config.engine
    if name == "ffcv":
        from src.data.engines.ffcv import why_not_importable

        reason = why_not_importable()
        if reason is None:
            return name
        name = "auto"
        _say_once(
            f"FFCV IS NOT USED: {reason} The same .beton is read by data.engine={_auto(config)} instead, with the same order, "
            "boxes and flips; pixels differ from FFCV's (bilinear, antialiased, instead of OpenCV's area filter)."
        )
    return _auto(config) if name == "auto" else name


def engine_problems(config: DataConfig, device: torch.device) -> list[Problem]:
    """Look for an engine that is not installed, and for a GPU that is not there. Imports the engine's package."""
    if config.decoder == "gpu" and device.type != "cuda":
        return [Problem("data.decoder", "gpu", "there is no GPU here. Set data.decoder=cpu.")]
    try:
        match choose_engine(config):
            case "nvimgcodec":
                from src.data.engines.nvimgcodec import load_codec

                load_codec()
            case "dali":
                from src.data.engines.dali_pipeline import load_dali

                load_dali()
            case "torchvision" | "ffcv" | "auto":
                pass  # always there; imported by choose_engine; never returned
    except ConfigError as error:
        return list(error.problems)
    return []


@cache
def _say_once(text: str) -> None:
    logger.warning(text)


def _auto(config: DataConfig) -> EngineName:
    if config.decoder == "gpu":
        return "nvimgcodec"
    try:
        return "nvimgcodec" if find_spec("nvidia.nvimgcodec") is not None else "torchvision"
    except ModuleNotFoundError:  # nothing of NVIDIA's is installed
        return "torchvision"
