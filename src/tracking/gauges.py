"""What the machine tells beside the training's own figures, once a window on rank 0: FLOP/s and MFU, the host's memory, the GPU.

A gauge that fails is told of once and is off from then on; the run goes on. None touches the run.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from loguru import logger
from torch import nn

from src.tracking.flops import forward_flops, forwards_a_step
from src.tracking.gpu import Gpu, identity_of
from src.tracking.peaks import PrecisionName, peak_flops

Gauge = Callable[[float], Mapping[str, float]]  # images a second of the window, over all ranks -> figures


class Gauges:
    """Several gauges as one.

    Args:
        gauges: by what they are called in messages.
    """

    def __init__(self, gauges: Mapping[str, Gauge]) -> None:
        self._gauges = dict(gauges)

    def __call__(self, images_per_second: float) -> dict[str, float]:
        """Return all figures as plain floats. Never raises."""
        values: dict[str, float] = {}
        for name, gauge in list(self._gauges.items()):
            try:
                values |= {key: float(value) for key, value in gauge(images_per_second).items() if math.isfinite(value)}
            except Exception as error:  # noqa: BLE001 (what is measured beside a run never stops it)
                del self._gauges[name]
                logger.warning(f"{name} cannot be measured and is left out from now on: {type(error).__name__}: {error}")
        return values


class Compute:
    """FLOP/s that training achieves over all ranks, and the share of what the devices could do (MFU, Chowdhery et al. 2022,
    arXiv:2204.02311, appendix B).

    Args:
        flops_an_image: of training, by the side of its images; asked once a size.
        image_size: returns the side of the window's images.
        peak: FLOP/s of all devices together; None where it is unknown.
    """  # noqa: D205

    def __init__(self, flops_an_image: Mapping[int, float], image_size: Callable[[], int], peak: float | None) -> None:
        self._flops_an_image, self._image_size, self._peak = flops_an_image, image_size, peak

    def __call__(self, images_per_second: float) -> dict[str, float]:
        """Return what was achieved at this rate."""
        achieved = images_per_second * self._flops_an_image[self._image_size()]
        values = {"time/tflops_per_second": achieved / 1e12}
        if self._peak is not None:
            values["time/mfu"] = achieved / self._peak
        return values


def build_gauges(
    *,
    model: nn.Module,
    device: torch.device,
    precision: PrecisionName,
    world_size: int,
    gradient_checkpointing: bool,
    sam_every_steps: int | None,
    image_sizes: Iterable[int],
    image_size: Callable[[], int],
) -> Gauges:
    """Build what rank 0 measures. FLOPs are counted here, once for each size of images, so that no window takes longer for it.

    Args:
        model: bare; it stays as it is.
        device: this rank's; the others' are taken for alike.
        precision: what is trained in.
        world_size: number of ranks, a device each.
        gradient_checkpointing: whether the forward is computed twice.
        sam_every_steps: None without SAM.
        image_sizes: sides of training images that the run will see.
        image_size: returns that of the window that was just measured.
    """
    gauges: dict[str, Gauge] = {"memory": lambda _: {"memory/peak_host_gib": peak_host_bytes() / 2**30}}
    try:
        forwards = forwards_a_step(gradient_checkpointing=gradient_checkpointing, sam_every_steps=sam_every_steps)
        flops = {size: forwards * forward_flops(model, size) for size in set(image_sizes)}
        peak = peak_flops(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None
        gauges["FLOP/s"] = Compute(flops, image_size, None if peak is None else peak * world_size)
    except Exception as error:  # noqa: BLE001 (whatever a model's own code raises)
        logger.warning(f"FLOP/s are left out, for the model's cannot be counted: {type(error).__name__}: {str(error)[:200]}")
    if device.type == "cuda":
        gauge = _gpu_gauge(device)
        if gauge is not None:
            gauges["the GPU's state"] = gauge
    return Gauges(gauges)


def peak_host_bytes() -> int:
    """Return the most memory that this process has had on the host (VmHWM, proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status tells no VmHWM")


def _gpu_gauge(device: torch.device) -> Gauge | None:
    try:
        gpu = Gpu(identity_of(device))
    except ImportError:
        logger.info("gpu       its utilisation and power are not recorded: pip install -e '.[gpu]'")
        return None
    except Exception as error:  # noqa: BLE001 (no driver, another one, a container without it)
        logger.info(f"gpu       its utilisation and power are not recorded: {error}")
        return None
    return lambda _: gpu()
