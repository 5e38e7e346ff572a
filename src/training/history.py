"""What a run has achieved so far: one entry an epoch, and which checkpoints that makes the best ones."""

from collections.abc import Sequence
from typing import Any

from src.training.checkpoint import Kept, kept_name
from src.training.evaluation import EvalResult


class History:
    """Recorded epochs in order, as plain containers, so that it travels in the checkpoint."""

    def __init__(self, epochs: Sequence[dict[str, Any]] = ()) -> None:
        self.epochs = list(epochs)

    @property
    def last_step(self) -> int:
        """The step of the last recorded epoch's end, or -1."""
        return int(self.epochs[-1]["step"]) if self.epochs else -1

    def add(self, *, step: int, epoch: int, result: EvalResult | None) -> None:
        """Append an epoch, with its evaluation if there was one."""
        entry: dict[str, Any] = {"step": step, "epoch": epoch}
        if result is not None:
            entry |= figures(result) | {"images": result.images, "protocol": dict(result.protocol)}
            if result.trained is not None:
                entry["trained_protocol"] = dict(result.trained.protocol)
        self.epochs.append(entry)

    def evaluated(self) -> list[dict[str, Any]]:
        """Return the epochs that were evaluated."""
        return [entry for entry in self.epochs if "val/acc1" in entry]

    def last_result(self) -> EvalResult | None:
        """Return the last evaluation."""
        evaluated = self.evaluated()
        if not evaluated:
            return None
        last = evaluated[-1]
        trained = None
        if "trained_protocol" in last:
            figures = (last["val/trained_loss"], last["val/trained_acc1"], last["val/trained_acc5"])
            trained = EvalResult(*figures, last["images"], last["trained_protocol"])
        return EvalResult(last["val/loss"], last["val/acc1"], last["val/acc5"], last["images"], last["protocol"], trained)

    def top(self, count: int, model: str) -> list[Kept]:
        """Return the best `count` checkpoints, best first; of equals the earlier."""
        ranked = sorted(self.evaluated(), key=lambda entry: (-entry["val/acc1"], entry["step"]))
        return [Kept(kept_name(model, entry["epoch"], entry["val/acc1"]), entry["step"]) for entry in ranked[:count]]


def figures(result: EvalResult) -> dict[str, float]:
    """Return what was measured, by the metrics' names."""
    values = {"val/loss": result.loss, "val/acc1": result.acc1, "val/acc5": result.acc5}
    if result.trained is not None:
        trained = result.trained
        values |= {"val/trained_loss": trained.loss, "val/trained_acc1": trained.acc1, "val/trained_acc5": trained.acc5}
    return values
