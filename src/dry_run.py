"""`dry_run=true`: the plan of a run, without training: arithmetic, layers, FLOPs, memory, and what the loader must deliver."""

import time
from collections.abc import Iterator

import torch
from loguru import logger
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from src.batch import Source
from src.build import build_live_model, build_normalise
from src.config import Config
from src.config.identity import run_name
from src.optim.build import build_optimizer
from src.preflight import checkpoint_bytes
from src.session import Place, device_name
from src.training.arithmetic import plan_arithmetic
from src.training.precision import choose_precision
from src.training.schedule import build_lr_factor

_PROBE_IMAGES = {"cpu": 8, "cuda": 256}  # a micro-batch this large is representative, and still quick
_PROBE_STEPS = 3


def check_and_plan(config: Config, place: Place, train: Source, val: Source) -> None:
    """Print the plan of the run. The preflight has passed; nothing is written."""
    arithmetic = plan_arithmetic(config, num_train=len(train), world_size=place.world.size)
    precision = choose_precision(config.precision, place.device)
    num_classes = len(train.classes)
    model = build_live_model(config, precision, place.device, num_classes=num_classes)
    image_size = config.data.image_size
    images = min(arithmetic.local_batch_size, _PROBE_IMAGES[place.device.type])
    probe = Probe(config, place, model, images, num_classes)
    flops, saved = probe.flops_an_image(), probe.saved_bytes_an_image()
    rate = probe.images_per_second()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    fixed = checkpoint_bytes(config, num_classes) + weights  # weights, optimizer, gradients
    lr_factor = build_lr_factor(config.schedule, steps_per_epoch=arithmetic.steps_per_epoch, total_steps=arithmetic.total_steps)
    peak = config.optim.peak_lr
    middle = arithmetic.total_steps // 2

    memory = fixed + saved * arithmetic.local_batch_size
    total_rate = rate * place.world.size
    total_flops = 3 * flops * len(train) * config.epochs
    first, mid, last = (peak * lr_factor(step) for step in (0, middle, arithmetic.total_steps - 1))
    rows = {
        "run": run_name(config),
        "device": f"{place.world.size} x {device_name(place.device)}, {precision.name}",
        "images": f"{len(train):,} train, {len(val):,} val, {num_classes:,} classes",
        "batch": arithmetic.describe_batch(),
        "steps": f"{arithmetic.total_steps:,} = {config.epochs} epochs x {arithmetic.steps_per_epoch:,}",
        "learning rate": f"{first:.4g} first, {mid:.4g} at step {middle:,}, {last:.4g} last",
        "parameters": f"{parameters:,}",
        "arithmetic": f"{flops / 1e9:.3g} GFLOP an image forward at {image_size} px, two a multiply-add",
        "  in all": f"{total_flops / 1e18:.3g} EFLOP, a backward taken for two forwards",
        "memory a rank": f"about {memory / 2**30:.2f} GiB",
        "  weights and states": f"{fixed / 2**30:.2f} GiB with gradients and optimizer",
        "  activations": f"{saved / 2**20:.1f} MiB an image",
        "checkpoint": f"{checkpoint_bytes(config, num_classes) / 2**20:.0f} MiB",
        "one rank trains": f"{rate:,.0f} images/s without loading (measured: {_PROBE_STEPS} steps of {images})",
        "loader must deliver": f"{total_rate:,.0f} images/s over all ranks, not to hold training up",
        "training takes": f"about {len(train) * config.epochs / total_rate / 3600:.2f} h at that rate, evaluation apart",
    }
    plan = Table(title="plan of the run", show_header=False, title_justify="left")
    for name, value in rows.items():
        plan.add_row(name, value)
    place.console.print(layer_table(model, image_size, place.device), plan)
    logger.info("dry run: nothing was trained or written")


class Probe:
    """Measures one micro-batch of noise on a throw-away model."""

    def __init__(self, config: Config, place: Place, model: nn.Module, images: int, num_classes: int) -> None:
        self._model, self._device = model, place.device
        self._precision = choose_precision(config.precision, place.device)
        size = config.data.image_size
        noise = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, device=place.device)
        self._images = build_normalise(config, self._precision, place.device)(noise)
        self._labels = torch.randint(0, num_classes, (images,), device=place.device)
        self._optimizer = build_optimizer(config.optim, model)

    def flops_an_image(self) -> float:
        """Return forward FLOPs (two for each multiply-add)."""
        self._model.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self._model(self._images[:1].to(next(self._model.parameters()).dtype))
        self._model.train()
        return float(counter.get_total_flops())

    def saved_bytes_an_image(self) -> float:
        """Return the bytes that autograd keeps for the backward."""
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        parameters = {parameter.untyped_storage().data_ptr() for parameter in self._model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), self._precision.autocast():
            kept = self._model(self._images)
        del kept
        return sum(size for pointer, size in seen.items() if pointer not in parameters) / len(self._images)

    def images_per_second(self) -> float:
        """Return the rate of forward, backward and update."""
        times = list(self._step_seconds())
        return len(self._images) / min(times[1:])

    def _step_seconds(self) -> Iterator[float]:
        for _ in range(_PROBE_STEPS + 1):
            start = time.monotonic()
            with self._precision.autocast():
                loss = nn.functional.cross_entropy(self._model(self._images), self._labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            yield time.monotonic() - start


def layer_table(model: nn.Module, image_size: int, device: torch.device) -> Table:
    """List the model's parts down to two levels: type, output shape for one image, parameters."""
    shapes: dict[str, str] = {}
    shown = {name: module for name, module in model.named_modules() if name.count(".") <= 1}

    def note(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                shapes[name] = " x ".join(str(side) for side in output.shape[1:])

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in shown.items()]
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, image_size, image_size, device=device, dtype=next(model.parameters()).dtype))
    model.train()
    for handle in handles:
        handle.remove()
    table = Table(title=f"{type(model).__name__}, {image_size} px", title_justify="left")
    for column in ("layer", "type", "output", "parameters"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for name, module in shown.items():
        count = sum(parameter.numel() for parameter in module.parameters())
        table.add_row(name or "(whole)", type(module).__name__, shapes.get(name, ""), f"{count:,}")
    return table
