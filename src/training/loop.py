"""The loop: the file to edit when you try a distillation term, a second optimizer, or an idea of your own.

One integer, run.step, is all the progress there is. Order, crops, rate and image size are functions of it, so a run that is killed
at any instant goes on as if nothing had been. There are no flags here: what is off is a null object (see src/build.py).
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from torch import Tensor
from torch.optim import Optimizer

from src.batch import Batch, keep
from src.distributed import one_all_reduce_a_step
from src.training.evaluation import EvalResult
from src.training.metrics import Meter, NotMeasured
from src.training.precision import clip
from src.training.run import Run
from src.training.stopping import Preempted


def fit(run: Run) -> EvalResult:
    """Train to run.total_steps from wherever run.step stands. Safe to kill at any instant.

    Raises:
        Preempted: asked to stop; the state is saved.
        CheckpointError: the last state could not be saved.
        FloatingPointError: loss or gradient is not finite, on any rank.
    """
    while True:
        if run.epoch_has_ended():  # also right after a resume there
            if run.evaluation_is_due():
                run.save()  # the training state first, so that a kill in evaluation loses nothing
                run.record_epoch(run.evaluate())
                run.save(must=run.step == run.total_steps)
            else:
                run.record_epoch(None)
        if run.step == run.total_steps:
            return run.result()
        with run.clock.running():
            train_epoch(run)


def train_epoch(run: Run) -> None:
    """Train from run.step to the end of its epoch."""
    batches = run.epoch_batches()
    for _ in range(run.step, run.end_of_epoch()):
        train_step(run, batches)
        run.step += 1
        stop = run.stop_requested()  # voted at the step before: nobody waits for the answer
        run.after_step(stopping=stop)  # log and save where they are due: the only places that wait for the device
        if stop:
            raise Preempted


def train_step(run: Run, batches: Iterator[Batch]) -> None:
    """One optimizer update from run.accumulation micro-batches."""
    set_lr(run.optimizer, run.lr_at(run.step))
    step_batches: Iterable[Batch] = islice(batches, run.accumulation)  # each is consumed before the next is asked for
    if run.sam.is_due(run.step):  # the gradient uphill from here instead of the one here (Foret et al. 2021, arXiv:2010.01412)
        step_batches = [keep(batch) for batch in step_batches]
        forward_backward(run, step_batches, run.meter)
        with run.sam.climbed(run.model):
            forward_backward(run, step_batches, NotMeasured())
    else:
        forward_backward(run, step_batches, run.meter)
    norm = clip(run.scaler, run.optimizer, run.model, run.max_grad_norm, measure=run.log_is_due_after_step())
    run.note_grad_norm(norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.skipped.update()
    run.optimizer.zero_grad(set_to_none=True)
    run.average.update(run.model, run.step + 1, run.skipped.moved())


def forward_backward(run: Run, step_batches: Iterable[Batch], meter: Meter | NotMeasured) -> None:
    """Gather the gradient of one step's micro-batches. Called again for the same step, it sees the same images and dropout."""
    for micro_batch, batch in enumerate(step_batches):
        run.seed_slot(micro_batch)
        images, targets, strengths = run.augment(batch, step=run.step, slot=run.slot(micro_batch))
        with one_all_reduce_a_step(run.parallel, last=micro_batch == run.accumulation - 1):
            with run.precision.autocast():
                logits: Tensor = run.parallel(images)
                loss: Tensor = run.criterion(logits, targets)
            run.scaler.scale(loss).backward(run.share_of_step)  # type: ignore[no-untyped-call]
        meter.update(loss, logits, targets, batch.replaced, strengths)
        meter.note(run.step, run.slot(micro_batch), loss, batch.plan)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the rate of every parameter group for the next update; with layer-wise decay, groups learn at a share of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
