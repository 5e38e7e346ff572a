"""Train a run for a look, and have it afterwards as it was before, bit for bit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from src.training.averaging import NoAverage
from src.training.clock import Clock
from src.training.metrics import Meter
from src.training.precision import SkippedSteps
from src.training.resume import host_copy
from src.training.run import Run


@contextmanager
def untouched(run: Run) -> Iterator[None]:
    """Let the run be trained inside, and put everything back outside, also after an exception or when the weights are not finite.

    Kept and put back: weights, every buffer, gradients, the optimizer with its groups, the gradient scaler, the random generators,
    the step, the course of the rate. The meter, the clock, the average and the count of skipped steps are not touched at all:
    others stand in for them inside, and no step depends on an average.

    The copies lie in the host's memory: as much as weights, buffers and the optimizer's state.
    """
    tensors = [*run.model.parameters(), *run.model.buffers()]  # those too that no state dict holds
    kept = host_copy(tensors)
    gradients = [parameter.grad for parameter in run.model.parameters()]
    training = [module.training for module in run.model.modules()]
    optimizer, scaler = host_copy(run.optimizer.state_dict()), run.scaler.state_dict()
    fields = {name: getattr(run, name) for name in ("step", "lr_at", "meter", "clock", "average", "skipped")}
    run.meter, run.clock, run.average = Meter(run.device, run.watched), Clock(), NoAverage()
    run.skipped = SkippedSteps(run.scaler, run.device)
    for parameter in run.model.parameters():
        parameter.grad = None
    try:
        with torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)
        for parameter, gradient in zip(run.model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for module, was_training in zip(run.model.modules(), training, strict=True):
            module.training = was_training
        run.optimizer.load_state_dict(optimizer)
        if run.scaler.is_enabled():
            run.scaler.load_state_dict(scaler)
            run.scaler._per_optimizer_states.clear()  # a step that was broken off has unscaled its gradients already
        for name, value in fields.items():
            setattr(run, name, value)
        run.note_grad_norm(None)
