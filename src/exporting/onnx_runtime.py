"""ONNX Runtime on the CPU. The only file that imports it to run models."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.config import ConfigError, Problem

Runs = Callable[[Tensor], Tensor]


def import_onnxruntime() -> Any:
    """Import it so that it tells nobody: from 1.29 on, its Linux wheels report sessions to their maker unless this variable is set.

    disable_telemetry_events() comes too late: names are looked up all the same.

    Raises:
        ConfigError: if onnxruntime is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        fix = "is read by onnxruntime, which is not installed. Type: pip install -e '.[onnx]', or leave onnx and int8 out."
        raise ConfigError("the command line", [Problem("formats", None, fix)]) from error
    return onnxruntime


def open_onnx(path: Path, *, threads: int) -> Runs:
    """Open a file as a function from normalised images, float32 (N, 3, S, S), to logits, float32 (N, K), both on the CPU.

    Args:
        path: a model with one input and one output.
        threads: that compute one operation.

    Raises:
        ConfigError: if onnxruntime is not installed.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {name: np.ascontiguousarray(images.numpy())})
        return torch.from_numpy(logits)

    return run
