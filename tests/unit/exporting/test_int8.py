"""int8: the file is quantised from training images, answers like the model, and is the same on every CPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from src.build_model import build_live_model
from src.config import load
from src.data.build import build_source
from src.exporting import int8
from src.exporting.calibration import calibration_of
from src.exporting.int8 import WAYS, Way, write_int8
from src.exporting.onnx_file import write_program_as_onnx
from src.exporting.onnx_runtime import open_onnx
from src.exporting.program import export_program
from src.training.precision import choose_precision

CPU = torch.device("cpu")
FP32 = choose_precision("fp32", CPU)
RANGES = [torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
HELD_OUT = [torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(9))]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A small model with settled norms, as ONNX."""
    model = build_live_model(load(["data=synthetic", "model=small_resnet"]), FP32, CPU, num_classes=10).train()
    with torch.no_grad():
        for batch in RANGES:
            model(batch)
        model.get_submodule("fc").weight.mul_(30)  # classes further apart than rounding: a trained model's are
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    write_program_as_onnx(export_program(model.eval(), 32), path)
    return path, model


def test_it_answers_like_the_model_for_any_number_of_images(source: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path, model = source
    how = write_int8(path, tmp_path / "int8.onnx", RANGES, HELD_OUT, threads=1)
    runs = open_onnx(tmp_path / "int8.onnx", threads=1)
    for count in (1, 3, 8):
        images = HELD_OUT[0][:count]
        with torch.no_grad():
            expected = model(images)
        found = runs(images)
        assert found.shape == (count, 10)
        assert (found - expected).abs().mean() < 0.05 * expected.std()
    assert how.images == 32
    assert how.way in WAYS
    assert list(tmp_path.iterdir()) == [tmp_path / "int8.onnx"]  # nothing else is left behind
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * path.stat().st_size


def test_the_same_images_make_the_same_file(source: tuple[Path, nn.Module], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_int8(source[0], tmp_path / name, RANGES, HELD_OUT, threads=1)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_weights_keep_to_seven_bits_a_scale_a_channel_so_that_no_cpu_cuts_their_sums_off(
    source: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    write_int8(source[0], tmp_path / "int8.onnx", RANGES, HELD_OUT, threads=1)
    model = onnx.load(tmp_path / "int8.onnx")
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    quantised = [array for array in weights.values() if array.dtype == np.int8 and array.ndim >= 2]
    assert len(quantised) == 10  # nine convolutions and the head
    assert max(int(np.abs(array.astype(int)).max()) for array in quantised) == 64
    assert 2 * 255 * 64 <= 2**15 - 1 < 2 * 255 * 127
    inputs = [node.input for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in weights]
    convolutions = [(weights[names[0]], weights[names[1]]) for names in inputs if weights[names[0]].ndim == 4]
    assert len(convolutions) == 9
    assert all(scale.shape == array.shape[:1] for array, scale in convolutions)
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)  # folded


def test_where_the_first_way_does_not_agree_enough_the_best_of_all_is_taken(
    source: tuple[Path, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "ENOUGH_AGREEMENT", 1.01)
    how = write_int8(source[0], tmp_path / "int8.onnx", RANGES, HELD_OUT, threads=1)
    assert list(how.tried) == [str(way) for way in WAYS]
    assert how.agreement == max(how.tried.values())
    assert how.tried[str(how.way)] == how.agreement


@pytest.mark.parametrize(
    ("figures", "taken"),
    [
        ([(0.99, 3.0)], 0),  # enough
        ([(0.98, 1.0), (0.995, 2.0)], 1),
        ([(0.5, 1.0), (0.9, 4.0), (0.9, 2.0), (0.7, 0.5)], 2),  # none is enough: most agreement, then the smaller error
    ],
)
def test_ways_are_tried_until_one_agrees_enough_else_the_best_is_taken(
    source: tuple[Path, nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: list[tuple[float, float]],
    taken: int,
) -> None:
    """The ways are really gone, on a file each; what they are said to have cost is given."""
    said, made = iter(figures), list[bytes]()
    quantise = int8._quantise

    def kept(path: Path, target: Path, ranges: Sequence[torch.Tensor], way: Way) -> None:
        quantise(path, target, ranges, way)
        made.append(target.read_bytes())

    def agreement(exact: object, quantised: object, batches: object) -> tuple[float, float]:
        assert batches is HELD_OUT
        return next(said)

    monkeypatch.setattr(int8, "_quantise", kept)
    monkeypatch.setattr(int8, "_agreement", agreement)
    how = write_int8(source[0], tmp_path / "int8.onnx", RANGES[:2], HELD_OUT, threads=1)
    assert how.tried == {str(way): share for way, (share, _) in zip(WAYS, figures, strict=False)}
    assert (how.way, how.agreement, how.mean_squared) == (WAYS[taken], *figures[taken])
    assert len(set(made)) == len(figures), "each way makes another file"
    assert (tmp_path / "int8.onnx").read_bytes() == made[taken]


def test_agreement_is_the_share_of_equal_predictions_and_the_mean_of_squares() -> None:
    batches = [torch.eye(4), torch.eye(4)[:1]]
    shift = torch.tensor([0.0, 0.0, 2.0, 0.0])  # images 0, 1 and 3 of a batch become the third class
    share, squared = int8._agreement(lambda images: images, lambda images: images + shift, batches)
    assert share == 1 / 5
    assert squared == pytest.approx(4 / 4)


def test_ranges_come_from_training_images_evenly_over_the_classes_and_the_choice_from_others() -> None:
    config = load(["data=synthetic", "data.num_train=300", "data.num_classes=10", "data.image_size=32"])
    images = calibration_of(config, 100, threads=1, progress=lambda done, total: None)
    again = calibration_of(config, 100, threads=1, progress=lambda done, total: None)
    assert (images.ranges.images, images.held_out.images) == (100, 25)
    train = build_source(config.data, "train", threads=1, progress=lambda done, total: None)
    ids = images.ranges._ids
    assert np.bincount(train.labels[ids], minlength=10).tolist() == [10] * 10
    assert not set(ids.tolist()) & set(images.held_out._ids.tolist())
    assert len(images.ranges) == 7
    assert sum(len(batch) for batch in images.ranges) == 100
    assert torch.equal(images.ranges[3], again.ranges[3])
    assert images.ranges[0].shape == (16, 3, 32, 32)
    few = calibration_of(config, 1000, threads=1, progress=lambda done, total: None)
    assert few.ranges.images + few.held_out.images == 300
    assert few.held_out.images == 60
