"""ONNX Runtime on the CPU. The only file that imports it to run models."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.config import ConfigError, Problem

Runs = Callable[[Tensor], Tensor]


def open_onnx(path: Path, *, threads: int) -> Runs:
    """Open a file as a function from normalised images, float32 (N, 3, S, S), to logits, float32 (N, K), both on the CPU.

    Args:
        path: a model with one input and one output.
        threads: that compute one operation.

    Raises:
        ConfigError: if onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        fix = "is read by onnxruntime, which is not installed. Type: pip install -e '.[onnx]', or leave onnx and int8 out."
        raise ConfigError("the command line", [Problem("formats", None, fix)]) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {name: np.ascontiguousarray(images.numpy())})
        return torch.from_numpy(logits)

    return run
