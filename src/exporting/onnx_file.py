"""ONNX: the model as a file for every other runtime, written by torch.onnx's exporter from the torch.export program.

One input `images`, float32 (batch, 3, S, S), normalised; one output `logits`, float32 (batch, K). The only file that imports onnx.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from src.config import ConfigError, Problem
from src.exporting.program import STAGE, export_program, quiet
from src.trained import Trained

OPSET = 18  # torch.onnx's own: others go through onnx's version converter. ONNX Runtime since 1.14, TensorRT since 8.6, read it.
INPUT, OUTPUT, BATCH = "images", "logits", "batch"
DATA_SUFFIX = ".data"
_EMBEDDED_BYTES = 2_000_000_000  # protobuf's limit is 2^31 bytes for the whole message


def write_onnx(trained: Trained, model: nn.Module, path: Path) -> None:
    """Write a model as ONNX.

    Args:
        trained: what was opened; its image size is read.
        model: from build_trained, on any device. Not changed.
        path: of the file. Weights above 2 GB lie beside it, in a file of its name and `.data`.

    Raises:
        ConfigError: if a package is missing, or the model cannot be exported for any number of images.
    """
    write_program_as_onnx(export_program(model, trained.config.data.eval_image_size), path)


def write_program_as_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a torch.export program as ONNX, and let onnx's own checker look at it. See `write_onnx`."""
    onnx = _import_onnx()
    size = sum(tensor.nbytes for tensor in program.state_dict.values()) + sum(
        tensor.nbytes for tensor in program.constants.values() if isinstance(tensor, torch.Tensor)
    )
    apart = size > _EMBEDDED_BYTES
    try:
        with quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                external_data=apart,
                verbose=False,
            )
            assert made is not None
            made.save(path, external_data=apart)
    except ImportError as error:
        raise _missing(error) from error
    except Exception as error:  # an operation without a translation, and what else torch.onnx raises
        first = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        fix = f"cannot be translated to ONNX: {type(error).__name__}: {first}. Leave onnx and int8 out of formats."
        raise ConfigError(STAGE, [Problem("formats", None, fix)]) from error
    model = onnx.load(path, load_external_data=False)
    _tidy(model)
    onnx.save(model, path)
    onnx.checker.check_model(path, full_check=True)  # by path: it also takes models above 2 GB


def opset_of(path: Path) -> int:
    """Return the version of ONNX's own operators that a file is written for."""
    model = _import_onnx().load(path, load_external_data=False)
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _tidy(model: Any) -> None:
    """Name the free dimension, and take out what the exporter notes about this machine's files."""
    free = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    for value in values:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == free:
                size.dim_param = BATCH
    for part in (model, model.graph, *values, *model.graph.node, *model.graph.initializer, *model.functions):
        del part.metadata_props[:]


def _import_onnx() -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError as error:
        raise _missing(error) from error
    return onnx


def _missing(error: ImportError) -> ConfigError:
    fix = f"onnx needs a package that is not installed ({error.name}). Type: pip install -e '.[onnx]', or leave onnx and int8 out."
    return ConfigError("the command line", [Problem("formats", None, fix)])
