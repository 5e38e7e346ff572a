"""How much memory a training takes: known before it begins, and what to do when it was not enough."""

import resource
from pathlib import Path
from traceback import walk_tb
from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from src.build_model import build_live_model, memory_format
from src.config import Config, ConfigError, Problem
from src.config.identity import run_name
from src.config.optim import Adam, AdamW, Lamb, Lars, OptimConfig, RmsProp, ScheduleFreeAdamW, ScheduleFreeSgd, Sgd, SgdW
from src.session import Place, device_name
from src.training.arithmetic import split_batch
from src.training.precision import choose_precision

# An average's own tensors, and the weights and statistics that were evaluated.
_AVERAGE_COPIES = {"none": 0, "schedule_free": 1, "ema": 2, "swa": 2, "ema_swa": 3}
_MUCH_OF_OTHERS = 0.1  # of a GPU's memory: so much of other processes is worth telling
_STEP_DOWN = 0.75  # at most so much of the micro-batch that did not fit is advised
_HEADROOM = 0.9  # of the memory: what is left takes fragments and workspaces


class OutOfMemory(Exception):  # noqa: N818 (the state it names)
    """A training for which the memory did not suffice. The message says how much there was, and what to do."""


class Need(NamedTuple):
    """What one rank takes, in bytes.

    Attributes:
        fixed: weights, gradients, optimizer, average.
        an_image: what autograd keeps of one image of a micro-batch for the backward.
    """

    fixed: int
    an_image: float

    def of(self, images: int) -> float:
        """Return the bytes of a micro-batch."""
        return self.fixed + images * self.an_image


def checkpoint_bytes(config: Config, num_classes: int) -> int:
    """Return the size of one checkpoint: weights, buffers, and the optimizer's state."""
    copies = 1 + optimizer_tensors(config.optim) + _AVERAGE_COPIES[config.average.name]
    return weight_bytes(config, num_classes) * copies


def weight_bytes(config: Config, num_classes: int) -> int:
    """Return the size of the weights and buffers."""
    model = _without_storage(config, num_classes)
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def fixed_bytes(config: Config, num_classes: int) -> int:
    """Return what a rank holds whatever its batch: weights, gradients, optimizer, average, SAM's weights to go back to."""
    copies = 2 if config.optim.sam_rho is not None else 1
    return checkpoint_bytes(config, num_classes) + copies * weight_bytes(config, num_classes)


def need_of(config: Config, device: torch.device, *, num_classes: int) -> Need | None:
    """Estimate without computing anything: the forward runs on torch's meta device, and what autograd would keep is counted.

    It is a lower bound: in a lower precision all activations are taken to be in it, and no workspace is counted.

    Returns:
        None where the model cannot be run without numbers.
    """
    seen: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage._cdata] = storage  # by identity: without numbers every address is 0
        return tensor

    precision, size, images = choose_precision(config.precision, device), config.data.image_size, 2
    model = _without_storage(config, num_classes).to(precision.inputs)
    noise = torch.empty((images, 3, size, size), dtype=precision.inputs, device="meta").to(memory_format=memory_format(config))
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = model(noise)
    except Exception:  # noqa: BLE001 (anybody's model; the run itself will tell)
        return None
    del kept
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved = sum(storage.nbytes() for identity, storage in seen.items() if identity not in own)
    return Need(fixed_bytes(config, num_classes), saved / images)


def gpu_problems(config: Config, place: Place, *, num_classes: int) -> list[Problem]:
    """Look whether this rank's GPU has room for its micro-batches. A CPU's memory is not looked at."""
    if place.device.type != "cuda":
        return []
    need = need_of(config, place.device, num_classes=num_classes)
    if need is None:
        return []
    free, total = torch.cuda.mem_get_info(place.device)
    others = total - free - torch.cuda.memory_reserved(place.device)
    free += torch.cuda.memory_reserved(place.device) - torch.cuda.memory_allocated(place.device)
    return room_problems(config, need, world_size=place.world.size, free=free, total=total, others=others)


def room_problems(config: Config, need: Need, *, world_size: int, free: int, total: int, others: int) -> list[Problem]:
    """Compare what a rank needs with what its device has.

    Args:
        config: the whole configuration; its batch divides.
        need: of this model.
        world_size: ranks.
        free: bytes that this process may take.
        total: bytes of the device.
        others: bytes that it holds already for other processes and for the driver.
    """
    local, _ = split_batch(config, world_size)
    if need.of(local) <= free:
        return []
    lines = (
        f"{local} images a micro-batch need at least {gib(need.of(local))} on each GPU ({gib(need.fixed)} for weights and "
        f"optimizer, {need.an_image / 2**20:.1f} MiB an image), and {gib(free)} of {gib(total)} are free."
    )
    if others > _MUCH_OF_OTHERS * total:
        lines += f" Other processes hold about {gib(others)} (nvidia-smi names them): end them, or choose another GPU."
    fits = largest_part(config.batch_size // world_size, most=(_HEADROOM * free - need.fixed) / need.an_image)
    if fits is None:
        lines += " Not even one image fits: choose a smaller model or data.image_size, or set model.gradient_checkpointing=true."
    else:
        lines += f" Set max_local_batch_size={fits}, or model.gradient_checkpointing=true."
    return [Problem("max_local_batch_size", config.max_local_batch_size, lines)]


def explained(error: Exception, config: Config, place: Place) -> Exception:
    """Return an error as it is, or, where memory ran out, what says so and names the command that goes on."""
    if not is_out_of_memory(error):
        return error
    try:
        local, accumulation = split_batch(config, place.world.size)
    except ConfigError:
        return error
    peak, total = _peak_and_total(place.device)
    told = (
        f"out of memory: up to {gib(peak)} were in use, of {gib(total)} of {device_name(place.device)}, "
        f"with {local} images a micro-batch, {accumulation} a step. {advice(error, config, world_size=place.world.size)}"
    )
    return OutOfMemory(told)


def advice(error: BaseException, config: Config, *, world_size: int) -> str:
    """Say which settings take less memory, and whether they continue the run."""
    same = f"run_name={run_name(config)}: it goes on from the last checkpoint"
    if any(frame.f_code.co_name == "evaluate_model" for frame, _ in walk_tb(error.__traceback__)):
        lower = max(1, config.eval_batch_size // 2)
        return f"It was evaluating. Start it again with eval_batch_size={lower} {same}."
    a_rank = config.batch_size // world_size
    local, _ = split_batch(config, world_size)
    fits = largest_part(a_rank, most=local * _STEP_DOWN)
    if fits is None:
        return "Choose a smaller model or data.image_size, or set model.gradient_checkpointing=true, in a new run."
    return (
        f"Start it again with max_local_batch_size={fits} {same}, with the same images in the same steps as {a_rank // fits} "
        f"micro-batches of {fits}, in which BatchNorm and dropout see other groups. In a new run, "
        "model.gradient_checkpointing=true saves memory too."
    )


def room_of(device: torch.device) -> str:
    """Return what a GPU has, for people; nothing for a CPU."""
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f"; of {gib(total)}, {gib(free)} are free"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether it says that a device's or the machine's memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ("DefaultCPUAllocator", "out of memory"))


def largest_part(a_rank: int, *, most: float) -> int | None:
    """Return the largest micro-batch up to so many images that divides a rank's images a step, or None."""
    return max((size for size in range(1, min(a_rank, int(max(most, 0))) + 1) if a_rank % size == 0), default=None)


def gib(size: float) -> str:
    """Return bytes for people."""
    return f"{size / 2**30:.2f} GiB"


def optimizer_tensors(optim: OptimConfig) -> int:
    """Return how many tensors of a weight's size the optimizer holds for each weight, at most."""
    match optim:
        case RmsProp():
            return 1 + (optim.momentum > 0) + optim.centered
        case Sgd() | SgdW() | Lars() | ScheduleFreeSgd():
            return 1
        case Adam() | AdamW() | Lamb() | ScheduleFreeAdamW():
            return 2
        case _:
            assert_never(optim)


def _without_storage(config: Config, num_classes: int) -> torch.nn.Module:
    meta = torch.device("meta")
    with meta:
        return build_live_model(config, choose_precision(config.precision, torch.device("cpu")), meta, num_classes=num_classes)


def _peak_and_total(device: torch.device) -> tuple[int, int]:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(lines["MemTotal"].split()[0]) * 1024
    return peak, total if limit == resource.RLIM_INFINITY else min(total, limit)
