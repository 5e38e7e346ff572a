"""What the GPU's driver tells: utilisation, power, temperature, memory. The only file that imports pynvml (nvidia-ml-py).

See NVIDIA's NVML API reference, "Device Queries". All calls are cheap, and made once a window.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch


class Identity(NamedTuple):
    """Which GPU it is, whatever CUDA_VISIBLE_DEVICES calls it.

    Attributes:
        uuid: as CUDA tells it: without NVML's prefix "GPU-", or "MIG-" of a slice.
        bus_id: PCI domain, bus and device, such as "00000000:3B:00.0".
    """

    uuid: str
    bus_id: str


def identity_of(device: torch.device) -> Identity:
    """Return a CUDA device's identity."""
    properties: Any = torch.cuda.get_device_properties(device)
    bus_id = f"{properties.pci_domain_id:08X}:{properties.pci_bus_id:02X}:{properties.pci_device_id:02X}.0"
    return Identity(str(properties.uuid), bus_id)


class Gpu:
    """One GPU, asked through NVML.

    Args:
        identity: which.

    Raises:
        ImportError: nvidia-ml-py is not installed.
        pynvml.NVMLError: there is no driver, or it does not know the GPU.
    """

    def __init__(self, identity: Identity) -> None:
        import pynvml

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        self._handle = self._find(identity)
        self._joules_before = self._joules()
        self._asked = time.monotonic()

    def __call__(self) -> dict[str, float]:
        """Return what the driver tells now; power is the mean since the last call. A figure that the GPU has not is left out.

        Raises:
            pynvml.NVMLError: the driver refused otherwise.
        """
        nvml, handle = self._nvml, self._handle
        asked: dict[str, Callable[[], float | None]] = {
            "gpu/utilisation": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            "gpu/power_watts": self._watts,
            "gpu/temperature_celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "gpu/memory_used_gib": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**30,
        }
        figures = {key: self._ask(call) for key, call in asked.items()}
        return {key: float(value) for key, value in figures.items() if value is not None}

    def _find(self, identity: Identity) -> Any:
        """Return NVML's handle: of the GPU or its slice by their UUID, else by the place on the bus."""
        for prefix in ("GPU-", "MIG-"):
            with suppress(self._nvml.NVMLError_NotFound, self._nvml.NVMLError_InvalidArgument):
                return self._nvml.nvmlDeviceGetHandleByUUID(prefix + identity.uuid.removeprefix(prefix))
        return self._nvml.nvmlDeviceGetHandleByPciBusId(identity.bus_id)

    def _ask(self, call: Callable[[], float | None]) -> float | None:
        """Return a figure, or None where this GPU has none: utilisation and power are not told of a slice (MIG)."""
        try:
            return call()
        except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_FunctionNotFound, self._nvml.NVMLError_NoPermission):
            return None

    def _watts(self) -> float:
        """Return the mean power since the last call, from the energy that the GPU counts (since Volta), else the present power."""
        joules, now = self._joules(), time.monotonic()
        before, since = self._joules_before, self._asked
        self._joules_before, self._asked = joules, now
        if joules is None or before is None or joules <= before or now <= since:
            return float(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1e3
        return (joules - before) / (now - since)

    def _joules(self) -> float | None:
        millijoules = self._ask(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if millijoules is None else millijoules / 1e3
