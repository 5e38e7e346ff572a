"""The names of a step's parts in a profiler's trace: data, augment, forward, loss, backward, optimizer, log."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

from torch import profiler

from src.batch import Augmented, Batch
from src.training.run import Run


class _Kept(NamedTuple):
    """The run's own parts, while others stand in for them."""

    train_batches: Callable[[int, int], Iterator[Batch]]
    augment: Any
    criterion: Any
    measure: Any
    write_checkpoint: Any


class Ranges:
    """Names what a step does, in the trace: one range after the other, each opened by the part that begins it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._kept = _Kept(*(getattr(run, name) for name in _Kept._fields))
        self._open: profiler.record_function | None = None
        run.train_batches = self._batches
        run.augment = cast(Any, self._augment)
        run.criterion = self._around(self._kept.criterion, "loss", "backward")
        run.measure = self._around(self._kept.measure, "evaluation", "log")
        run.write_checkpoint = self._around(self._kept.write_checkpoint, "checkpoint", "log")
        self._hooks = [
            run.optimizer.register_step_pre_hook(lambda *_: self._begin("optimizer")),
            run.optimizer.register_step_post_hook(lambda *_: self._begin("log")),  # metrics, averages, the log itself
        ]

    def end(self) -> None:
        """Close the range that is open."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None

    def take_away(self) -> None:
        """Give the run its own parts back."""
        self.end()
        for name, part in self._kept._asdict().items():
            setattr(self._run, name, part)
        for hook in self._hooks:
            hook.remove()

    def _begin(self, name: str) -> None:
        self.end()
        self._open = profiler.record_function(name)
        self._open.__enter__()  # type: ignore[no-untyped-call]

    def _batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        batches = self._kept.train_batches(epoch, first_step)
        while True:
            self._begin("data")
            batch = next(batches, None)
            self.end()
            if batch is None:
                return
            yield batch

    def _augment(self, batch: Batch, *, step: int, slot: int) -> Augmented:
        self._begin("augment")
        augmented: Augmented = self._kept.augment(batch, step=step, slot=slot)
        self._begin("forward")
        return augmented

    def _around(self, part: Callable[..., Any], name: str, then: str) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            self._begin(name)
            result = part(*arguments)
            self._begin(then)
            return result

        return called
