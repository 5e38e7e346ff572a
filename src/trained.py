"""A trained model from wherever it lies, with what is known about it: what src.evaluate, src.export and src.demo begin with."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from loguru import logger
from torch import Tensor, nn

from src.build_model import build_live_model
from src.config import Config, ConfigError, Problem, load, load_stored
from src.config.identity import run_name
from src.config.model import CustomModel
from src.imagenet.wnids import imagenet_wnids, imagenet_words
from src.model_folder import WEIGHTS_FILE, is_model_folder, read_model_folder
from src.models.pruned import Kind, fit_channels, kind_of_file
from src.models.published import prepared_as_published, published
from src.models.readings import classes_in, in_words, read_weights
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
    num_classes: int | None = None  # that the weights tell apart; None: as many as there are classes
    notes: tuple[str, ...] = ()  # what whoever uses it must be told: build_trained does
    pruned: Kind | None = None  # as far as it is known


def open_trained(path: Path, overrides: Sequence[str], *, trained: bool = False, config_dir: Path | None = None) -> Trained:
    """Read a checkpoint of a run, the run's folder (its best), a folder of src.export, or a state dict of anybody's.

    Args:
        path: a file or folder; what it is is told by its content.
        overrides: values that replace the stored ones, and `data=...`; for a state dict a whole configuration
            (`model=resnet50 data=...`), in which the images are prepared as the weights' publisher has it where nothing was typed.
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
    if _is_checkpoint(path):
        return _from_checkpoint(path, overrides, trained=trained)
    try:
        return _from_state_dict(path, overrides, trained=trained, config_dir=config_dir)
    except ConfigError as error:
        raise in_words(error, "checkpoint") from error


def build_trained(trained: Trained, precision: Precision, device: torch.device, *, num_classes: int | None = None) -> nn.Module:
    """Build the model on the device with its weights, in evaluation mode.

    Args:
        trained: what was opened.
        precision: which type the weights have.
        device: where to.
        num_classes: of a state dict, whose classes the data tells.

    Raises:
        ConfigError: if the weights are of another model, or tell another number of classes apart.
    """
    for note in trained.notes:  # not when it was opened: there was no console yet
        logger.warning(note)
    count = trained.num_classes if trained.classes is None else len(trained.classes)
    if count is None or (num_classes is not None and num_classes != count):
        raise other_number(trained, count, num_classes)
    model = build_live_model(trained.config, precision, device, num_classes=count)
    if trained.kind != "state_dict":  # ours may be pruned by channels: then the weights tell how narrow the layers are
        fit_channels(model, trained.state_dict)
    try:
        fresh = load_weights(model, trained.state_dict, path=str(trained.path))
    except ConfigError as error:
        raise in_words(error, "checkpoint") from error
    if fresh:
        fix = f"its {', '.join(fresh)} are of another number of classes than {count}. Give weights of this very model."
        raise ConfigError("the checkpoint", [Problem("checkpoint", str(trained.path), fix)])
    return model.eval()


def other_number(trained: Trained, of_weights: int | None, of_data: int | None) -> ConfigError:
    """Return what to raise where the weights and the data have different numbers of classes."""
    fix = f"its weights tell {of_weights} classes apart, and the data has {of_data}. Give the data that it was trained for."
    return ConfigError("the checkpoint", [Problem("checkpoint", str(trained.path), fix)])


def other_classes(trained: Trained, of_data: Sequence[str]) -> ConfigError:
    """Return what to raise where the weights and the data have different classes."""
    fix = f"its {len(of_data)} classes are not the {len(trained.classes or ())} that {trained.path} was trained on."
    return ConfigError("the data", [Problem("data", trained.config.data.name, fix)])


def assumed_classes(trained: Trained) -> tuple[str, ...] | None:
    """Return the classes by label: of a state dict with 1,000 of them ImageNet's wnids, sorted, which is the usual order.

    torchvision's and timm's weights have that order. None: nobody but the data knows them.
    """
    if trained.classes is not None:
        return trained.classes
    return imagenet_wnids() if trained.num_classes == len(imagenet_wnids()) else None


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
    begun = config.model.weights
    pruned = None if begun is None else kind_of_file(Path(begun).expanduser())
    more = (state["step"], run_name(config), state["history"])
    return Trained(path, "checkpoint", config, classes, name, weights, *more, pruned=pruned)


def _is_checkpoint(path: Path) -> bool:
    """Tell a run's checkpoint by the names in its pickle, which is not run; what cannot be looked into by its name."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickle = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    except Exception:  # noqa: BLE001 (no file, no zip, a damaged one: zipfile meets it in a dozen ways)
        return path.suffix == ".ckpt" or not path.exists()
    return all(word in pickle for word in (b"schema", b"history", b"evaluation"))


def _from_state_dict(path: Path, overrides: Sequence[str], *, trained: bool, config_dir: Path | None) -> Trained:
    reading = read_weights(path, trained=trained)
    keys = [text.partition("=")[0] for text in overrides]
    problems = []
    if "model" not in keys and "experiment" not in keys:
        fix = "is a state dict, which does not say its architecture. Type model=resnet50, or what it is, and data=... too."
        problems.append(Problem("checkpoint", str(path), fix))
    try:
        config = load(overrides, config_dir=config_dir)
    except ConfigError as error:
        raise ConfigError("the configuration", [*problems, *error.problems]) from error
    if problems:
        raise ConfigError("the command line", problems)
    count = classes_in(path, reading.state_dict, config.model)
    notes: list[str] = []
    if "experiment" not in keys:  # an experiment says how its images are prepared
        wanted, notes = prepared_as_published(published(config.model, path, count), config, keys)
        if wanted:
            config = load([*overrides, *wanted], config_dir=config_dir)
    weights, state_dict = reading
    return Trained(path, "state_dict", config, None, weights, state_dict, None, None, (), num_classes=count, notes=tuple(notes))


def _from_folder(path: Path, overrides: Sequence[str]) -> Trained:
    description, state_dict = read_model_folder(path)
    config = load_stored(description["config"], overrides)
    if isinstance(config.model, CustomModel) and not any(text.partition("=")[0] == "model.factory" for text in overrides):
        # A folder may come from anywhere, and this is code that would be imported and called.
        fix = f"its model is made by {config.model.factory}, code that the folder names. If you trust it, type model.factory=..."
        raise ConfigError("the checkpoint", [Problem("checkpoint", str(path), fix)])
    classes, weights = tuple(description["classes"]), description["weights"]
    more = (description["step"], description["run"], description["history"])
    return Trained(path, "folder", config, classes, weights, state_dict, *more, pruned=kind_of_file(path / WEIGHTS_FILE))


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
