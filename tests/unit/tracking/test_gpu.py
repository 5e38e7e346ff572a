"""NVIDIA's own Python package over a driver that the test plays: whose figures, which units, and what a slice does not tell."""

import ctypes
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from loguru import logger

from src.tracking import gauges as gauges_module
from src.tracking.gpu import Gpu, Identity, identity_of

pynvml: Any = pytest.importorskip("pynvml")
OURS = Identity("11111111-2222-3333-4444-555555555555", "00000000:3B:00.0")


class Driver:
    """What libnvidia-ml.so answers, of one GPU: pynvml calls these functions as those of the library.

    Args:
        uuid: that it knows; None: it knows none by a UUID.
        unsupported: functions that this GPU does not have.
    """

    def __init__(self, uuid: str | None, unsupported: tuple[str, ...] = ()) -> None:
        self.uuid, self.unsupported, self.asked = uuid, unsupported, list[str]()
        self.millijoules, self.lost = 1_000_000, False

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.asked.append(name)
            if self.lost:
                return int(pynvml.NVML_ERROR_GPU_IS_LOST)
            if name in self.unsupported:
                return int(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return self._answer(name, arguments)

        return call

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> int:
        out = getattr(arguments[-1], "_obj", None) if arguments else None
        match name:
            case "nvmlInitWithFlags" | "nvmlShutdown":
                pass
            case "nvmlDeviceGetHandleByUUID":
                if arguments[0].value != (self.uuid or "").encode():
                    return int(pynvml.NVML_ERROR_NOT_FOUND)
            case "nvmlDeviceGetHandleByPciBusId_v2":
                if arguments[0].value != OURS.bus_id.encode():
                    return int(pynvml.NVML_ERROR_NOT_FOUND)
            case "nvmlDeviceGetUtilizationRates":
                out.gpu, out.memory = 87, 40
            case "nvmlDeviceGetPowerUsage":
                ctypes.memmove(ctypes.addressof(out), ctypes.byref(ctypes.c_uint(250_500)), 4)
            case "nvmlDeviceGetTotalEnergyConsumption":
                out.value = self.millijoules
            case "nvmlDeviceGetTemperature":
                out.value = 61
            case "nvmlDeviceGetMemoryInfo":
                out.total, out.used, out.free = 80 * 2**30, 3 * 2**29, 0
            case _:
                return int(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return 0


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Put a driver under pynvml."""

    def put(driver: Driver) -> Driver:
        monkeypatch.setattr(pynvml, "nvmlLib", driver)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return driver

    yield put


@pytest.fixture
def told() -> Iterator[list[str]]:
    messages: list[str] = []
    number = logger.add(lambda message: messages.append(f"{message.record['level'].name} {message.record['message']}"))
    yield messages
    logger.remove(number)


def test_figures_in_their_units(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 104.0])
    monkeypatch.setattr("src.tracking.gpu.time.monotonic", lambda: next(clock))
    driver = play(Driver(f"GPU-{OURS.uuid}"))
    gpu = Gpu(OURS)
    driver.millijoules += 1_200_000
    figures = gpu()
    assert figures == {
        "gpu/utilisation": 0.87,
        "gpu/power_watts": 300.0,  # 1.2 kJ in 4 s: the mean of the window, not of its last moment
        "gpu/temperature_celsius": 61.0,
        "gpu/memory_used_gib": 1.5,
    }
    assert {type(value) for value in figures.values()} == {float}


@pytest.mark.parametrize("uuid", [f"GPU-{OURS.uuid}", f"MIG-{OURS.uuid}", None])
def test_it_is_found_by_its_uuid_or_as_a_slice_or_on_the_bus(play: Any, uuid: str | None) -> None:
    driver = play(Driver(uuid))
    assert Gpu(OURS)()["gpu/utilisation"] == 0.87
    assert ("nvmlDeviceGetHandleByPciBusId_v2" in driver.asked) == (uuid is None)


def test_anothers_figures_are_not_told(play: Any) -> None:
    play(Driver("GPU-99999999-2222-3333-4444-555555555555"))
    with pytest.raises(pynvml.NVMLError):
        Gpu(OURS._replace(bus_id="00000000:86:00.0"))


def test_what_a_slice_does_not_support_is_left_out(play: Any) -> None:
    missing = ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption")
    play(Driver(f"MIG-{OURS.uuid}", missing))
    assert set(Gpu(OURS)()) == {"gpu/temperature_celsius", "gpu/memory_used_gib"}


def test_without_a_counter_of_energy_the_present_power_is_told(play: Any) -> None:
    play(Driver(f"GPU-{OURS.uuid}", ("nvmlDeviceGetTotalEnergyConsumption",)))
    assert Gpu(OURS)()["gpu/power_watts"] == 250.5


def test_a_gpu_that_is_lost_costs_one_warning(play: Any, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    driver = play(Driver(f"GPU-{OURS.uuid}"))
    monkeypatch.setattr(gauges_module, "identity_of", lambda device: OURS)
    gauge = gauges_module._gpu_gauge(torch.device("cuda", 0))
    assert gauge is not None
    gauges = gauges_module.Gauges({"the GPU's state": gauge})
    assert len(gauges(1.0)) == 4
    driver.lost = True
    assert gauges(1.0) == {} == gauges(1.0)
    assert len(told) == 1 and told[0].startswith("WARNING the GPU's state cannot be measured")


def test_no_driver_is_said_once_and_no_failure(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a driver")
    monkeypatch.setattr(gauges_module, "identity_of", lambda device: OURS)
    assert gauges_module._gpu_gauge(torch.device("cuda", 0)) is None
    assert len(told) == 1 and told[0].startswith("INFO gpu") and "not recorded" in told[0]


def test_a_missing_package_is_said_once_and_no_failure(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(gauges_module, "identity_of", lambda device: OURS)
    assert gauges_module._gpu_gauge(torch.device("cuda", 0)) is None
    assert len(told) == 1 and "pip install -e '.[gpu]'" in told[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_real_driver_tells_the_device_that_computes() -> None:
    device = torch.device("cuda", 0)
    figures = Gpu(identity_of(device))()
    assert importlib.util.find_spec("pynvml") is not None
    assert 0 <= figures.get("gpu/utilisation", 0.0) <= 1 and 0 < figures["gpu/temperature_celsius"] < 120
    assert figures["gpu/memory_used_gib"] < torch.cuda.get_device_properties(device).total_memory / 2**30 + 1
