"""Measures a model before anything is trained: FLOPs, what autograd keeps, the rate of a micro-batch of noise, and its layers."""

import time
from collections.abc import Iterator

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from src.build_model import build_normalise
from src.config import Config, ConfigError, Problem
from src.optim.build import build_optimizer
from src.session import Place
from src.training.precision import choose_precision

_IMAGES = {"cpu": 4, "cuda": 256}  # a micro-batch this large is representative, and still quick
_TIMED_STEPS = {"cpu": 2, "cuda": 3}  # at least
_TIMED_SECONDS = 1.0  # small models take many: on a busy machine most are disturbed, and the fastest counts


class Probe:
    """Measures one micro-batch of noise at data.image_size on a throw-away model.

    Args:
        config: the whole configuration.
        place: where this process stands.
        model: on its device; its weights move.
        local_batch_size: of the run; the probe takes fewer where that suffices.
        num_classes: of the data.
    """

    def __init__(self, config: Config, place: Place, model: nn.Module, *, local_batch_size: int, num_classes: int) -> None:
        self._model, self._device = model, place.device
        self._precision = choose_precision(config.precision, place.device)
        self.num_images, self.timed_steps = min(local_batch_size, _IMAGES[place.device.type]), _TIMED_STEPS[place.device.type]
        size = config.data.image_size
        noise = torch.randint(0, 256, (self.num_images, 3, size, size), dtype=torch.uint8, device=place.device)
        self._images = build_normalise(config, self._precision, place.device)(noise)
        self._labels = torch.randint(0, num_classes, (self.num_images,), device=place.device)
        self._optimizer = build_optimizer(config.optim, model)

    def flops_an_image(self, image_size: int, *, key: str) -> float:
        """Return forward FLOPs, two for each multiply-add.

        Raises:
            ConfigError: naming the key, if the model does not take images of this size.
        """
        image = torch.zeros(1, 3, image_size, image_size, device=self._device, dtype=next(self._model.parameters()).dtype)
        self._model.eval()
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                self._model(image)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            fix = f"the model does not take images of {image_size} px ({reason}). Set {key} to a size that it takes."
            raise ConfigError("the model", [Problem(key, image_size, fix)]) from error
        finally:
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
        steps, times = self._step_seconds(), list[float]()
        next(steps)
        while len(times) < _TIMED_STEPS[self._device.type] or sum(times) < _TIMED_SECONDS:
            times.append(next(steps))
        self.timed_steps = len(times)
        return len(self._images) / min(times)

    def _step_seconds(self) -> Iterator[float]:
        while True:
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
