"""Means of the weights over training: exponential (EMA) and plain (SWA).

The arithmetic is torch.optim.swa_utils'. Its AveragedModel is not used, because it asks the device twice at every update whether
n_averaged is 0, and so waits for it. Here which update this is, and what it keeps, are functions of the step alone, known on the
host: a resumed run needs the averaged tensors and nothing else.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

Weights = dict[str, Tensor]


class _Mean:
    """A mean of the floating-point parameters, updated after steps that every_steps divides and that come after start_step.

    As in AveragedModel, the first update copies the weights, the further ones average. Until the first one there is no average:
    the trained weights are evaluated, and the name says so. Buffers are not averaged: BatchNorm's statistics are gathered anew.

    An update whose step the fp16 scaler skipped leaves the average as it is (the first one copies all the same), but counts as an
    update, so that no number need travel from the device to the host.
    """

    kind: str

    def __init__(self, model: nn.Module, *, start_step: int, every_steps: int, recalibrate_images: int) -> None:
        self._start_step, self._every_steps, self._recalibrate_images = start_step, every_steps, recalibrate_images
        self._trained = averaged_parameters(model)
        self._mean: Weights = {}

    @property
    def first_step(self) -> int:
        """After this step there is an average."""
        return (self._start_step // self._every_steps + 1) * self._every_steps

    @property
    def begun(self) -> bool:
        """Whether there is an average."""
        return bool(self._mean)

    @property
    def name(self) -> str:
        """The mean's kind, or "trained" as long as there is none."""
        return self.kind if self.begun else "trained"

    @property
    def recalibrate_images(self) -> int:
        """As configured, or 0 as long as the trained weights are evaluated."""
        return self._recalibrate_images if self.begun else 0

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, moved: Tensor | None) -> None:
        """Average the weights in, if an update is due at this step."""
        if step < self.first_step or step % self._every_steps:
            return
        trained = averaged_parameters(model)
        number = (step - self.first_step) // self._every_steps
        if number == 0:
            self._mean = {name: weight.clone() for name, weight in trained.items()}
        else:
            assert self.begun, "the state that this run goes on from holds no such mean"
            self._average(list(self._mean.values()), list(trained.values()), number, moved)

    def _average(self, mean: list[Tensor], trained: list[Tensor], number: int, moved: Tensor | None) -> None:
        """Take the weights into the mean, in place. `number` updates came before, the copy included."""
        raise NotImplementedError

    @torch.no_grad()
    def swap_in(self, model: nn.Module) -> None:
        """Put the mean into the model, if there is one."""
        parameters = averaged_parameters(model)
        for name, weight in self._mean.items():
            parameters[name].copy_(weight)

    def swap_out(self) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Any]:
        """Return {kind: the mean by the parameters' names}, or nothing as long as there is none."""
        return {self.kind: dict(self._mean)} if self.begun else {}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state; tensors may lie on another device."""
        saved: Weights = state.get(self.kind, {})
        self._mean = {name: torch.empty_like(self._trained[name]).copy_(weight) for name, weight in saved.items()}


class Ema(_Mean):
    """An exponential moving average: an update keeps `decay` of it (torch's get_ema_multi_avg_fn).

    Args:
        model: on its device already.
        decay: 0 to 1; with a half-life of h steps 2 ** (-every_steps / h), as Composer's EMA.
        every_steps: an update after every k-th step.
        decay_warmup: the n-th update after the copy keeps at most (1 + n) / (10 + n), as TensorFlow's ExponentialMovingAverage.
        start_step: the first update comes after it. torchvision's recipe for EMA copies the weights during the learning rate's
            warm-up, and once more at the first update after it: the same thing, without the copies that nobody reads.
        recalibrate_images: for the BatchNorm statistics of the mean.
    """

    kind = "ema"

    def __init__(
        self, model: nn.Module, *, decay: float, every_steps: int, decay_warmup: bool, start_step: int, recalibrate_images: int
    ) -> None:
        super().__init__(model, start_step=start_step, every_steps=every_steps, recalibrate_images=recalibrate_images)
        self._decay, self._decay_warmup = decay, decay_warmup

    def _average(self, mean: list[Tensor], trained: list[Tensor], number: int, moved: Tensor | None) -> None:
        decay = min(self._decay, (1 + number) / (10 + number)) if self._decay_warmup else self._decay
        if moved is None:
            get_ema_multi_avg_fn(decay)(mean, trained, number)  # type: ignore[no-untyped-call]
        else:
            _lerp(mean, trained, moved * (1 - decay))


class Swa(_Mean):
    """Stochastic weight averaging, the plain mean (Izmailov et al. 2018, arXiv:1803.05407; torch's get_swa_multi_avg_fn).

    Args:
        model: on its device already.
        start_step: steps up to it do not count.
        every_steps: which weights count; steps_per_epoch: those at each epoch's end.
        recalibrate_images: for the BatchNorm statistics of the mean.
    """

    kind = "swa"

    def _average(self, mean: list[Tensor], trained: list[Tensor], number: int, moved: Tensor | None) -> None:
        if moved is None:
            get_swa_multi_avg_fn()(mean, trained, number)  # type: ignore[no-untyped-call]
        else:
            _lerp(mean, trained, moved / (number + 1))


class EmaThenSwa:
    """An exponential moving average until the plain mean begins; from there on the plain mean."""

    def __init__(self, ema: Ema, swa: Swa) -> None:
        self._ema, self._swa = ema, swa

    @property
    def _now(self) -> Ema | Swa:
        return self._swa if self._swa.begun else self._ema

    @property
    def name(self) -> str:
        """Which of both is evaluated."""
        return self._now.name

    @property
    def recalibrate_images(self) -> int:
        """For the mean that is evaluated."""
        return self._now.recalibrate_images

    def update(self, model: nn.Module, step: int, moved: Tensor | None) -> None:
        """Average the weights in, if an update is due at this step."""
        self._swa.update(model, step, moved)
        if self._swa.begun:
            self._ema.load({})  # nobody reads it any more
        else:
            self._ema.update(model, step, moved)

    def swap_in(self, model: nn.Module) -> None:
        """Put the mean that counts now into the model."""
        self._now.swap_in(model)

    def swap_out(self) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Any]:
        """Return the mean that counts now, under its kind."""
        return self._now.state()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._ema.load(state)
        self._swa.load(state)


def averaged_parameters(model: nn.Module) -> Weights:
    """Return what is averaged, by name: the floating-point parameters, each once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.is_floating_point()}


def _lerp(mean: list[Tensor], trained: list[Tensor], share: Tensor) -> None:
    """Move the mean towards the trained weights by a share that only the device knows: bit for bit as by the same number."""
    of_type = {dtype: share.to(dtype) for dtype in {tensor.dtype for tensor in mean}}
    torch._foreach_lerp_(mean, trained, [of_type[tensor.dtype] for tensor in mean])
