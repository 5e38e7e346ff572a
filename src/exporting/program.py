"""torch.export: the model as a program that PyTorch runs without the model's classes, for any number of images.

The program takes float32 (N, 3, S, S), normalised, and returns float32 logits (N, K): what torchvision, timm, ONNX and TensorRT
users hand over. Resizing and normalising stay outside; config.json says how.
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from src.config import ConfigError, Problem

STAGE = "the model"


def portable(model: nn.Module) -> nn.Module:
    """Return a copy for other runtimes: float32, on the CPU, weights laid out plainly, in evaluation mode."""
    # Frozen, for an exported program keeps what is asked of gradients.
    return copy.deepcopy(model).to("cpu", torch.float32).to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def export_program(model: nn.Module, image_size: int) -> ExportedProgram:
    """Trace a copy of the model with torch.export, for every batch size from 1.

    Args:
        model: any classifier, as built for evaluation. Not changed.
        image_size: S, of its input.

    Raises:
        ConfigError: if torch.export cannot follow it for any number of images, or it returns anything but one tensor.
    """
    # Two images: torch.export takes a size of 1 for a constant.
    example = torch.zeros(2, 3, image_size, image_size)
    try:
        with torch.no_grad(), quiet():  # without gradients, checkpointed blocks are what they are in evaluation
            program = torch.export.export(portable(model), (example,), dynamic_shapes=({0: Dim("batch", min=1)},))
    except Exception as error:  # whatever a model's own code raises when it is traced
        first = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        fix = f"cannot be exported for any number of images: {type(error).__name__}: {first}. Leave {_NEEDING} out of formats."
        raise ConfigError(STAGE, [Problem("formats", None, fix)]) from error
    outputs = program.graph_signature.user_outputs
    if len(outputs) != 1 or program.call_spec.out_spec.num_leaves != 1 or not program.call_spec.out_spec.is_leaf():
        raise ConfigError(STAGE, [Problem("formats", None, "the model returns more than one tensor of logits.")])
    _forget_files(program)
    return program


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write a program as torch.export's .pt2 archive."""
    with quiet():
        torch.export.save(program, path)


def read_program(path: Path) -> nn.Module:
    """Read a .pt2 archive as a module."""
    with quiet():
        return torch.export.load(path).module()


def run_program(module: nn.Module, images: Tensor) -> Tensor:
    """Run a program's module.

    Args:
        module: from read_program.
        images: float32 (N, 3, S, S), normalised.

    Returns:
        float32 (N, K).
    """
    with torch.no_grad():
        logits: Tensor = module(images)
    return logits


_NEEDING = "torch_export, onnx and int8"


def _forget_files(program: ExportedProgram) -> None:
    """Take out where in which file of this machine each operation stood."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's own remarks off the console: what matters of an export is checked on images."""
    unread = io.StringIO()
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # torch's loggers have levels and handlers of their own
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(unread), contextlib.redirect_stderr(unread):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
