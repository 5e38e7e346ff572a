"""A run: the live parts that build.py put together, and the questions that the loop asks about them."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from loguru import logger
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from src.batch import Augmented, Batch, Pixels, Record, Tracker
from src.distributed import StopVote, any_rank
from src.draws import Purpose, seed_of
from src.training.arithmetic import Arithmetic
from src.training.averaging import Average
from src.training.clock import Clock
from src.training.evaluation import EvalResult
from src.training.history import History, figures
from src.training.metrics import Meter
from src.training.precision import Precision, SkippedSteps
from src.training.sam import NoSam, Sam
from src.training.saving import Saving
from src.training.stopping import Preempted, StopRequests


class Augment(Protocol):
    """From an engine's pixels to what the model and the loss see: a pure function of the samples' keys, the step and the slot."""

    def __call__(self, batch: Batch, *, step: int, slot: int) -> Augmented:
        """Augment one micro-batch; the batch itself stays as it is."""


@dataclass
class Run:
    """Everything the loop uses. `step`, the number of optimizer updates done, is the only progress."""

    arithmetic: Arithmetic
    pixels: Pixels  # how the engine makes them
    rank: int
    seed: int
    device: torch.device
    model: nn.Module  # the bare module: what is evaluated and saved
    parallel: nn.Module  # the same, compiled and wrapped in DDP as configured: what is trained
    optimizer: Optimizer
    scaler: GradScaler
    precision: Precision
    criterion: Callable[[Tensor, Tensor], Tensor]
    augment: "Augment"
    watched: tuple[str, ...]  # names of the strengths that augment tells
    average: Average
    sam: Sam | NoSam
    lr_at: Callable[[int], float]
    image_size_at: Callable[[int], int]  # of training images, by epoch
    max_grad_norm: float | None
    max_skipped_steps: int
    eval_every_epochs: int
    save_every_steps: int
    log_every_steps: int
    train_batches: Callable[[int, int], Iterator[Batch]]  # (epoch, first step in it) -> this rank's micro-batches
    measure: Callable[["Run"], EvalResult]
    write_checkpoint: Callable[["Run"], Callable[[], bool]]  # begins it; what it returns waits, and tells whether it was written
    trackers: list[Tracker]
    requests: StopRequests
    after_each_step: Callable[[], None]  # the profiler's step, or nothing
    gauges: Callable[[float], dict[str, float]]  # images a second of a window -> what the machine tells besides: MFU, power
    step: int = 0
    history: History = field(default_factory=History)
    clock: Clock = field(default_factory=Clock)
    evaluation_weights: dict[str, Tensor] | None = None  # of the last evaluation, where they are not the trained ones

    def __post_init__(self) -> None:
        """Make what depends on the fields above."""
        self.accumulation = self.arithmetic.accumulation
        self.total_steps = self.arithmetic.total_steps
        # What a micro-batch's mean gradient counts for in the step's: handed to backward, which costs nothing.
        self.share_of_step = torch.tensor(1 / self.accumulation, dtype=self.precision.weights, device=self.device)
        self.meter = Meter(self.device, self.watched)
        self.skipped = SkippedSteps(self.scaler, self.device)
        self._vote = StopVote()
        self._generators = [torch.default_generator]
        if self.device.type == "cuda":
            self._generators.append(torch.cuda.default_generators[self.device.index])
        self._grad_norm: Tensor | None = None
        self.saving = Saving(lambda: self.write_checkpoint(self))

    @property
    def epoch(self) -> int:
        """The epoch of the next step, counted from 0."""
        return self.step // self.arithmetic.steps_per_epoch

    def end_of_epoch(self) -> int:
        """Return the step at which the present epoch ends."""
        return (self.epoch + 1) * self.arithmetic.steps_per_epoch

    def epoch_has_ended(self) -> bool:
        """Return whether an epoch was just finished and has not been recorded."""
        return self.step > 0 and self.step % self.arithmetic.steps_per_epoch == 0 and self.history.last_step < self.step

    def evaluation_is_due(self) -> bool:
        """Return whether to evaluate at this epoch's end: every so many epochs, and always at the last."""
        return self.epoch % self.eval_every_epochs == 0 or self.step == self.total_steps

    def epoch_batches(self) -> Iterator[Batch]:
        """Return this rank's micro-batches from run.step to the end of the epoch. The time blocked in it is counted."""
        batches = self.train_batches(self.epoch, self.step % self.arithmetic.steps_per_epoch)
        return self.clock.waiting(batches)

    def slot(self, micro_batch: int) -> int:
        """Return the place of this rank's micro-batch in the global batch."""
        return self.arithmetic.slot(micro_batch, self.rank)

    def seed_slot(self, micro_batch: int) -> None:
        """Seed what depends on the step and not on one sample, such as dropout."""
        seed = seed_of(self.seed, int(Purpose.SLOT), self.step, self.slot(micro_batch))
        for generator in self._generators:  # torch.manual_seed asks every kind of device each time: half a millisecond
            generator.manual_seed(seed)

    def log_is_due_after_step(self) -> bool:
        """Return whether the step under way will be logged."""
        step = self.step + 1
        return step % self.log_every_steps == 0 or step % self.arithmetic.steps_per_epoch == 0

    def note_grad_norm(self, norm: Tensor | None) -> None:
        """Remember the norm for the log; it stays on the device."""
        self._grad_norm = norm

    def stop_requested(self) -> bool:
        """Return whether any rank was asked to stop by the step before."""
        return self._vote.ask(self.requests.pending())

    def after_step(self, *, stopping: bool) -> None:
        """Log if due, save if due."""
        self.after_each_step()
        for tracker in self.trackers:
            tracker.advance(self.step)
        at_end = self.step % self.arithmetic.steps_per_epoch == 0
        if at_end or self.step % self.log_every_steps == 0:
            self._log_window()
        save_is_due = stopping or self.step % self.save_every_steps == 0
        if at_end or save_is_due or self.step % self.log_every_steps == 0:
            self.meter.ledger.write()  # a state that is saved knows of no steps before it that are still to be written
        if save_is_due:
            self.save(must=stopping)

    def save(self, *, must: bool = False) -> None:
        """Save the state beside training, unless this very state is saved already. Every rank must call it. See Saving.save."""
        self.saving.save((self.step, len(self.history.epochs)), must=must)

    def saved(self) -> None:
        """Learn that the present state is on disk (after a resume)."""
        self.saving.saved((self.step, len(self.history.epochs)))

    def evaluate(self) -> EvalResult:
        """Evaluate at the average's weights and at the trained ones, and leave the training state as it was.

        Raises:
            Preempted: asked to stop, on all ranks; the state before the evaluation is saved, and nothing of it is recorded.
        """
        start = time.monotonic()
        try:
            result = self.measure(self)
        except Preempted:
            self.save(must=True)
            raise
        self._eval_seconds = time.monotonic() - start
        return result

    def record_epoch(self, result: EvalResult | None) -> None:
        """Write the epoch's row, and take the evaluation into the history."""
        if result is not None and not math.isfinite(result.loss):
            raise FloatingPointError(
                f"val/loss={result.loss} at step {self.step}, while the training loss is finite: logits overflow in evaluation. "
                "The state before it is saved. Use precision=bf16 or fp32, or a lower optim.peak_lr, in a new run."
            )
        means, timing = self.meter.epoch(), self.clock.epoch()
        values: dict[str, float] = {
            **means.values(),
            "data/image_size": self.image_size_at(self.epoch - 1),
            "time/epoch_seconds": timing.seconds,
        }
        if result is not None:
            values |= figures(result)
            values["time/eval_seconds"] = self._eval_seconds
        self.history.add(step=self.step, epoch=self.epoch - 1, result=result)
        self._track(Record("epoch", self.step, self.epoch - 1, values))

    def result(self) -> EvalResult:
        """Return the last evaluation."""
        result = self.history.last_result()
        assert result is not None
        return result

    def close(self) -> None:
        """End the vote under way, so that the ranks can part."""
        self._vote.close()

    def _log_window(self) -> None:
        means, timing = self.meter.window(), self.clock.window()
        skipped, in_a_row = self.skipped.counts()
        norm = math.nan if self._grad_norm is None else float(self._grad_norm)
        scaled = self.scaler.is_enabled()  # with a scaler a gradient may overflow: that step was skipped and counted
        if any_rank(not (math.isfinite(means.loss) and (scaled or math.isfinite(norm)))):
            raise FloatingPointError(
                f"train/loss={means.loss}, train/grad_norm={norm} in the window that ends at step {self.step}. "
                "Nothing of it was saved. Lower optim.peak_lr, lengthen schedule.warmup_epochs, or set max_grad_norm=1.0."
            )
        if in_a_row >= self.max_skipped_steps:
            raise FloatingPointError(
                f"the fp16 scaler skipped {in_a_row} steps in a row up to step {self.step}: gradients overflow at any scale. "
                "Use precision=bf16 or fp32, or lower optim.peak_lr."
            )
        epoch = (self.step - 1) // self.arithmetic.steps_per_epoch
        values: dict[str, float] = {
            **means.values(),
            "train/lr": self.lr_at(self.step - 1),
            "data/image_size": self.image_size_at(epoch),
            "time/images_per_second": means.images / max(timing.seconds, 1e-9),
            "time/data_wait_fraction": timing.waited / max(timing.seconds, 1e-9),
            "time/elapsed_seconds": self.clock.elapsed_at_window,
        }
        if math.isfinite(norm):
            values["train/grad_norm"] = norm
        if scaled:
            values["train/skipped_steps"] = skipped
        if self.device.type == "cuda":
            values["memory/peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        values |= self.gauges(values["time/images_per_second"])
        self._track(Record("train", self.step, epoch, values))

    def _track(self, record: Record) -> None:
        for tracker in list(self.trackers):
            try:
                tracker.log(record)
            except Exception as error:  # noqa: BLE001 (an outage of one never stops the run)
                logger.warning(f"{type(tracker).__name__} failed and is switched off: {error}")
                self.trackers.remove(tracker)
