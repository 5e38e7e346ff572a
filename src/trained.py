"""A trained model from wherever it lies, with what is known about it: what src.evaluate, src.export and src.demo begin with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from src.build_model import build_live_model
from src.config import Config, ConfigError, Problem, load_stored
from src.config.identity import run_name
from src.imagenet.wnids import imagenet_words
from src.model_folder import is_model_folder, read_model_folder
from src.models.weights import load_weights
from src.training.checkpoint_file import CheckpointError, load_file
from src.training.precision import Precision


class Trained(NamedTuple):
    """A model's weights, and what they mean. Nothing is on a device yet.

    Attributes:
        path: of the file or folder that was read.
        kind: "checkpoint" (a run's), "folder" (of src.export), or "state_dict" (anybody's).
        config: the run's, with what the user replaced; of a state dict what the user typed.
        classes: by label; None where only the data knows them (a state dict).
        weights: what the protocol calls them: "trained", "ema", "swa", "schedule_free", ...
        state_dict: under the bare module's names.
        step: optimizer updates done, or None.
        run: the run's name, or None.
        history: the run's recorded epochs with figures and protocols; empty where it is unknown.
    """

    path: Path
    kind: Literal["checkpoint", "folder", "state_dict"]
    config: Config
    classes: tuple[str, ...] | None
    weights: str
    state_dict: Mapping[str, Tensor]
    step: int | None
    run: str | None
    history: Sequence[dict[str, Any]]


def open_trained(path: Path, overrides: Sequence[str], *, trained: bool = False, config_dir: Path | None = None) -> Trained:
    """Read a checkpoint of a run, the run's folder (its best), a folder of src.export, or a state dict of anybody's.

    Args:
        path: a file or folder; what it is is told by its content.
        overrides: values that replace the stored ones; for a state dict all of a configuration (`model=resnet50 data=...`).
        trained: whether to leave an average of the weights aside.
        config_dir: a folder of the user's own groups, for a state dict.

    Raises:
        ConfigError: if it cannot be read, or with every problem of the overrides.
    """
    path = path.expanduser()
    if path.is_dir():
        if is_model_folder(path):
            return _from_folder(path, overrides)
        best = path / "checkpoints" / "best.ckpt"
        if not best.exists():
            fix = "is neither a run's folder with a checkpoint nor a folder of src.export. Give a .ckpt file, or one of these."
            raise ConfigError("the checkpoint", [Problem("checkpoint", str(path), fix)])
        path = best
    return _from_checkpoint(path, overrides, trained=trained)


def build_trained(trained: Trained, precision: Precision, device: torch.device, *, num_classes: int | None = None) -> nn.Module:
    """Build the model on the device with its weights, in evaluation mode.

    Args:
        trained: what was opened.
        precision: which type the weights have.
        device: where to.
        num_classes: of a state dict, whose classes the data tells.

    Raises:
        ConfigError: if the weights are of another model.
    """
    count = len(trained.classes) if trained.classes is not None else num_classes
    assert count is not None, "the classes of a state dict are the data's"
    model = build_live_model(trained.config, precision, device, num_classes=count)
    load_weights(model, trained.state_dict, path=str(trained.path))
    return model.eval()


def labels_of(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes' names for people: ImageNet's wnids in English (the first name), others as they are."""
    words = imagenet_words()
    return tuple(words[name].partition(",")[0] if name in words else name for name in classes)


def _from_checkpoint(path: Path, overrides: Sequence[str], *, trained: bool) -> Trained:
    try:
        state = load_file(path)
    except CheckpointError as error:
        raise ConfigError("the checkpoint", [Problem("checkpoint", str(path), str(error))]) from error
    config = load_stored(state["config"], overrides)
    name, weights = evaluated_weights(config, state, path, trained=trained)
    classes = tuple(state["classes"])
    return Trained(path, "checkpoint", config, classes, name, weights, state["step"], run_name(config), state["history"])


def _from_folder(path: Path, overrides: Sequence[str]) -> Trained:
    description, state_dict = read_model_folder(path)
    config = load_stored(description["config"], overrides)
    classes, weights = tuple(description["classes"]), description["weights"]
    more = (description["step"], description["run"], description["history"])
    return Trained(path, "folder", config, classes, weights, state_dict, *more)


def evaluated_weights(config: Config, state: dict[str, Any], path: Path, *, trained: bool) -> tuple[str, dict[str, Tensor]]:
    """Return the weights to evaluate, and what the protocol calls them.

    Raises:
        ConfigError: if an average is wanted and the checkpoint was saved between two evaluations, where there is none.
    """
    if trained or config.average.name == "none":
        return "trained", state["model"]
    last = state["history"][-1] if state["history"] else {}
    if last.get("step") != state["step"] or "protocol" not in last:
        fix = "was saved in mid-epoch, without the averaged weights. Take best.ckpt, or add weights=trained."
        raise ConfigError("the checkpoint", [Problem("checkpoint", str(path), fix)])
    evaluated = state["evaluation"]
    return last["protocol"]["weights"], state["model"] if evaluated is None else evaluated
