"""int8: static post-training quantisation of the ONNX file, by ONNX Runtime's own tools. The only file that imports them.

Bytes for the activations (unsigned, a scale a tensor) and for the weights (signed, a scale a channel), written as
QuantizeLinear/DequantizeLinear pairs (QDQ), which every runtime reads. Weights keep to 7 of their 8 bits: x86 CPUs without VNNI add
pairs of byte products in 16 bits, and 2 x 255 x 64 = 32,640 still fits where 2 x 255 x 127 would be cut off at 32,767. So the file
gives the same answers on those CPUs as where its accuracy was measured.

torch's own way, torchao's pt2e, ends in a program for PyTorch (fast where it is compiled), not in a file for other runtimes.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.config import ConfigError, Problem
from src.exporting.onnx_file import INPUT
from src.exporting.onnx_runtime import Runs, import_onnxruntime, open_onnx

ENOUGH_AGREEMENT = 0.99
_PERCENTILE = 99.99


class Way(NamedTuple):
    """One way to quantise.

    Attributes:
        calibration: minmax takes the whole range that was seen; percentile cuts off one in ten thousand values.
        operators: "all" that ONNX Runtime can, or only those with "weights".
    """

    calibration: str
    operators: str

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.calibration}, {self.operators} operators" if self.operators == "all" else f"{self.calibration}, weights only"


class Quantised(NamedTuple):
    """How a file was quantised.

    Attributes:
        way: which was taken.
        agreement: share of the held-out training images on which its prediction is the float file's.
        mean_squared: of the differences of logits, on these.
        images: from which the ranges come.
        tried: every way that was tried, with its agreement.
    """

    way: Way
    agreement: float
    mean_squared: float
    images: int
    tried: dict[str, float]


# In this order, until one agrees with the float model on enough held-out images; else the one that agrees on most. The whole range
# loses least where a model has no outliers, as ResNets have none; where it has, cutting them off helps, or leaving what has no
# weights (additions, gates, poolings) as it is.
WAYS = (Way("minmax", "all"), Way("percentile", "all"), Way("minmax", "weights"), Way("percentile", "weights"))


def write_int8(source: Path, target: Path, ranges: Sequence[Tensor], held_out: Sequence[Tensor], *, threads: int) -> Quantised:
    """Quantise an ONNX file.

    Args:
        source: from write_onnx.
        target: the file to write.
        ranges: normalised images, float32 (N, 3, S, S), on the CPU, from which the ranges of activations are taken.
        held_out: other images, on which the way is chosen. Neither is of the split on which accuracy is told.
        threads: of one operation.

    Raises:
        ConfigError: if a package is missing, or the file cannot be quantised.
    """
    images = sum(len(batch) for batch in ranges)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".int8-") as scratch, _quiet():
        folder = Path(scratch)
        try:
            prepared = _prepare(source, folder / "prepared.onnx")
            exact = open_onnx(source, threads=threads)
            tried: list[tuple[float, float, Way, Path]] = []
            for number, way in enumerate(WAYS):
                made = folder / f"{number}.onnx"
                _quantise(prepared, made, ranges, way)
                agreement, squared = _agreement(exact, open_onnx(made, threads=threads), held_out)
                tried.append((agreement, -squared, way, made))
                if agreement >= ENOUGH_AGREEMENT:
                    break
        except (ConfigError, ImportError) as error:
            raise error if isinstance(error, ConfigError) else _refused(f"needs {error.name}: pip install -e '.[onnx]'") from error
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise _refused(str(error).strip().partition("\n")[0]) from error
        agreement, negative, way, made = max(tried, key=lambda one: one[:2])
        made.replace(target)
    return Quantised(way, agreement, -negative, images, {str(one[2]): one[0] for one in tried})


def _prepare(source: Path, target: Path) -> Path:
    """Infer shapes and fold BatchNorm into convolutions, which quantisation is said to need."""
    import_onnxruntime()
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Symbolic shape inference is for transformers' free dimensions; here only the batch is free.
    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    return target


def _quantise(source: Path, target: Path, ranges: Sequence[Tensor], way: Way) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
    # A stride of one batch: else the activations of all images would be held at once.
    options: dict[str, Any] = {"CalibStridedMinMax": 1}
    if way.calibration == "percentile":
        options["CalibPercentile"] = _PERCENTILE
    quantize_static(
        str(source),
        str(target),
        _Reader(ranges),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=None if way.operators == "all" else ["Conv", "Gemm", "MatMul"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=methods[way.calibration],
        extra_options=options,
    )


class _Reader:
    """Batches as ONNX Runtime's CalibrationDataReader asks for them: it knows one by its methods."""

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self._batches = batches
        self.set_range(0, len(batches))

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, Any] | None:
        index = next(self._left, None)
        return None if index is None else {INPUT: self._batches[index].numpy()}


def _agreement(exact: Runs, quantised: Runs, batches: Sequence[Tensor]) -> tuple[float, float]:
    """Return the share of equal predictions, and the mean squared difference of logits."""
    same, images, squares, logits = 0, 0, 0.0, 0
    for batch in batches:
        expected, found = exact(batch), quantised(batch)
        same += int((expected.argmax(1) == found.argmax(1)).sum())
        squares += float((expected.double() - found.double()).square().sum())
        images, logits = images + len(batch), logits + expected.numel()
    return same / max(images, 1), squares / max(logits, 1)


def _refused(reason: str) -> ConfigError:
    return ConfigError("the model", [Problem("formats", "int8", f"cannot be quantised: {reason}. Leave int8 out of formats.")])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' own remarks off the console."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            yield
    finally:
        root.setLevel(level)
