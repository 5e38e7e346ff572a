"""From the configuration to a model on its device, the weights that it begins from, and what its images are normalised by."""

from collections.abc import Mapping
from pathlib import Path

import torch
from loguru import logger
from torch import Tensor, nn

from src.augment.normalise import Normalise
from src.config import Config, ConfigError, Problem
from src.models.build import build_model
from src.models.pruned import fit_channels, keep_zeros, kind_of_file
from src.models.weights import load_weights, read_state_dict
from src.training.checkpoint_file import CheckpointError, load_file
from src.training.precision import Precision


def build_live_model(config: Config, precision: Precision, device: torch.device, *, num_classes: int) -> nn.Module:
    """Build the model on the device, with weights drawn from the run's seed: the same on every rank."""
    torch.manual_seed(config.seed)
    model = build_model(config.model, num_classes=num_classes).to(device, precision.weights)
    return model.to(memory_format=memory_format(config))


def begin_from_weights(config: Config, model: nn.Module) -> None:
    """Load model.weights, if given: a checkpoint of ours at the weights that it evaluates, or a state dict of anybody's.

    With pruned weights of src.export the model becomes as narrow as they are, or keeps their zeros.

    Raises:
        ConfigError: if it cannot be read, or belongs to another model.
    """
    if config.model.weights is None:
        return
    path = Path(config.model.weights).expanduser()
    state: Mapping[str, Tensor]
    if path.suffix == ".ckpt":
        try:
            checkpoint = load_file(path)
        except CheckpointError as error:
            raise ConfigError("the model", [Problem("model.weights", str(path), str(error))]) from error
        state = checkpoint["model"] if checkpoint["evaluation"] is None else checkpoint["evaluation"]
    else:
        state = read_state_dict(path)
    pruned = kind_of_file(path)
    if pruned == "channels":
        fit_channels(model, state)
    fresh = load_weights(model, state, path=str(path))
    logger.info(f"weights from {path}" + (f"; {', '.join(fresh)} begin afresh" if fresh else ""))
    if pruned == "unstructured":
        logger.info(f"pruned: {keep_zeros(model):,} weights stay zero")


def build_normalise(config: Config, precision: Precision, device: torch.device) -> Normalise:
    """Build the one normalisation that serves every engine."""
    return Normalise(config.data.mean, config.data.std, device=device, dtype=precision.inputs, memory_format=memory_format(config))


def memory_format(config: Config) -> torch.memory_format:
    """Return the layout of images and convolution weights."""
    return torch.channels_last if config.channels_last else torch.contiguous_format
