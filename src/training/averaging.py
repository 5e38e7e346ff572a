"""Evaluate at other weights than you train at: one idea for schedule-free, EMA and SWA. It never changes training state.

Schedule-free's own eval() then train() is not bit-exact, so the training weights are kept aside and the same bits put back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, assert_never

from loguru import logger
from torch import Tensor, nn
from torch.optim import Optimizer

from src.config.average import (
    AverageConfig,
    EmaKeys,
    EvaluateEma,
    EvaluateEmaSwa,
    EvaluateScheduleFree,
    EvaluateSwa,
    EvaluateTrained,
    SwaKeys,
)
from src.distributed import gather
from src.training.batch_norm import load_buffers, mean_of_buffers, own_buffers, recalibrate_batch_norm
from src.training.weight_means import Ema, EmaThenSwa, Swa


class Average(Protocol):
    """Which weights are evaluated."""

    @property
    def name(self) -> str:
        """What is evaluated now, for the protocol of an accuracy: "trained" as long as there is no average."""

    @property
    def recalibrate_images(self) -> int:
        """From how many training images, over all ranks, statistics are gathered for these weights; 0: the trained ones serve."""

    def update(self, model: nn.Module, step: int, moved: Tensor | None) -> None:
        """Follow the weights after an optimizer step. Never waits for the device.

        Args:
            model: the unwrapped module.
            step: how many updates are done, this one included: >= 1.
            moved: float scalar on the device, 1, or 0 if the gradient scaler skipped this step; None where nothing skips.
        """

    def swap_in(self, model: nn.Module) -> None:
        """Put the evaluation weights into the model. The caller has saved the training weights."""

    def swap_out(self) -> None:
        """Undo what swap_in changed outside the model's tensors."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs beyond the optimizer's state."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class NoAverage:
    """The trained weights themselves."""

    name = "trained"
    recalibrate_images = 0

    def update(self, model: nn.Module, step: int, moved: Tensor | None) -> None:
        """Do nothing."""

    def swap_in(self, model: nn.Module) -> None:
        """Do nothing."""

    def swap_out(self) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Do nothing."""


class ScheduleFreeAverage:
    """Schedule-free's x (Defazio et al. 2024, arXiv:2405.15682): training happens at y, the average lies in the optimizer.

    A step that the fp16 scaler skips never reaches the optimizer, and so moves neither x nor y.
    """

    name = "schedule_free"

    def __init__(self, optimizer: Optimizer, *, recalibrate_images: int) -> None:
        self._optimizer, self.recalibrate_images = optimizer, recalibrate_images

    def update(self, model: nn.Module, step: int, moved: Tensor | None) -> None:
        """Do nothing: the optimizer's step averages."""

    def swap_in(self, model: nn.Module) -> None:
        """Let the optimizer compute x in place."""
        self._optimizer.eval()  # type: ignore[attr-defined]

    def swap_out(self) -> None:
        """Tell the optimizer that it trains again. Its own train() would compute y anew, with other bits."""
        for group in self._optimizer.param_groups:
            group["train_mode"] = True

    def state(self) -> dict[str, Any]:
        """Return nothing: all of it is the optimizer's."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def build_average(
    config: AverageConfig, *, model: nn.Module, optimizer: Optimizer, steps_per_epoch: int, total_steps: int
) -> Average:
    """Build the average of a model that lies on its device already. An average that never begins is warned of."""
    match config:
        case EvaluateTrained():
            return NoAverage()
        case EvaluateScheduleFree():
            return ScheduleFreeAverage(optimizer, recalibrate_images=config.recalibrate_images)
        case EvaluateEma():
            return _ema(config, model, steps_per_epoch, total_steps, config.recalibrate_images)
        case EvaluateSwa():
            return _swa(config, model, steps_per_epoch, total_steps, config.recalibrate_images)
        case EvaluateEmaSwa():
            ema = _ema(config, model, steps_per_epoch, total_steps, config.recalibrate_images)
            return EmaThenSwa(ema, _swa(config, model, steps_per_epoch, total_steps, config.recalibrate_images))
        case _:
            assert_never(config)


def _ema(config: EmaKeys, model: nn.Module, steps_per_epoch: int, total_steps: int, recalibrate_images: int) -> Ema:
    average = Ema(
        model,
        decay=config.decay_an_update(),
        every_steps=config.every_steps,
        decay_warmup=config.decay_warmup,
        start_step=round(config.start_epoch * steps_per_epoch),
        recalibrate_images=recalibrate_images,
    )
    _warn_if_late(average, f"average.start_epoch={config.start_epoch:g}", total_steps)
    return average


def _swa(config: SwaKeys, model: nn.Module, steps_per_epoch: int, total_steps: int, recalibrate_images: int) -> Swa:
    average = Swa(
        model,
        start_step=round(config.swa_start_epoch * steps_per_epoch),
        every_steps=config.swa_every_steps or steps_per_epoch,
        recalibrate_images=recalibrate_images,
    )
    _warn_if_late(average, f"average.swa_start_epoch={config.swa_start_epoch:g}", total_steps)
    return average


def _warn_if_late(average: Ema | Swa, begins: str, total_steps: int) -> None:
    """Say so if the run is over before there is an average."""
    if average.first_step > total_steps:
        logger.warning(f"{begins}: the average begins at step {average.first_step}, but the run ends at step {total_steps}")


@contextmanager
def evaluation_weights(model: nn.Module, average: Average, recalibration: Iterator[Tensor]) -> Iterator[None]:
    """Hold the weights and BatchNorm statistics to evaluate at inside, and exactly the training state again outside.

    Args:
        model: the unwrapped module.
        average: which weights.
        recalibration: normalised training images, from which an average's BatchNorm statistics are gathered. Not touched where
            average.recalibrate_images is 0, as it is for the trained weights: then the statistics are the ranks' mean.
    """
    kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    was_training = model.training
    average.swap_in(model)
    try:
        if average.recalibrate_images:
            recalibrate_batch_norm(model, recalibration)
        else:
            load_buffers(model, mean_of_buffers(gather(own_buffers(model))))
        model.eval()
        yield
    finally:
        model.load_state_dict(kept)
        average.swap_out()
        model.train(was_training)
