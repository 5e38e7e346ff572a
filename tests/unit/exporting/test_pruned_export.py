"""A pruned export: fine-tuned as a run of its own, opened again as the narrower model, and refused where it costs too much."""

import json
from pathlib import Path

import pytest
import torch

from src.config import ConfigError
from src.exporting import finetune
from src.exporting.check import ExportError, require_kept
from src.models.pruned import kind_of_file, prunable
from src.trained import build_trained, open_trained
from src.training.precision import choose_precision
from tests.unit.exporting.small_runs import CPU, SMALL, Exports, write_run

FP32 = choose_precision("fp32", CPU)
TUNED = ("prune=0.5", "finetune_epochs=1", "max_drop=100", "check_images=all")


@pytest.mark.parametrize("kind", ["unstructured", "channels"])
def test_a_pruned_model_is_trained_on_exported_and_opened_again(kind: str, tmp_path: Path, run_export: Exports) -> None:
    run = write_run(tmp_path / "small", *SMALL, "batch_size=32", f"runs_dir={tmp_path}")
    formats = "formats=safetensors,onnx,int8" if kind == "channels" else "formats=safetensors"
    target = tmp_path / "out"
    result = run_export(run, target, *TUNED, f"prune_kind={kind}", formats, "calibration_images=40")
    told, whole = result["pruning"], open_trained(run, [])
    assert (told["kind"], told["share"], told["epochs"], told["images"]) == (kind, 0.5, 1, 130)
    assert told["before"]["acc1"] - told["after"]["acc1"] == pytest.approx(told["lost_points"], abs=1e-5)
    tuned = tmp_path / f"small-{kind}-0.5"
    assert told["run_dir"] == str(tuned)
    assert json.loads((tuned / "status.json").read_text())["status"] == "finished"
    assert result["pruned"] == kind == kind_of_file(target / "model.safetensors") == kind_of_file(tuned / "pruned.safetensors")

    models = [build_trained(open_trained(path, []), FP32, CPU) for path in (target, tuned / "checkpoints" / "last.ckpt")]
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    weights = {name: weight.detach() for name, weight in prunable(models[0]).items()}
    before = sum(weight.numel() for weight in prunable(build_trained(whole, FP32, CPU)).values())
    if kind == "unstructured":
        assert sum(int((weight == 0).sum()) for weight in weights.values()) == round(0.5 * before)
        assert any(not torch.equal(weight, whole.state_dict[name]) for name, weight in weights.items())
    else:
        assert 0.3 < sum(weight.numel() for weight in weights.values()) / before < 0.7
        assert result["formats"]["onnx"]["different_predictions"] == 0
        assert result["formats"]["int8"]["calibration_images"] == 40
        assert "lost_points" in result["formats"]["int8"]
    with pytest.raises(ConfigError, match="are pruned already"):
        run_export(tuned, tmp_path / "again", *TUNED)


def test_without_training_the_pruned_weights_are_exported_and_no_run_is_made(tmp_path: Path, run_export: Exports) -> None:
    run = write_run(tmp_path / "small", *SMALL, "batch_size=32", f"runs_dir={tmp_path}")
    result = run_export(run, tmp_path / "out", "prune=0.25", "finetune_epochs=0", "max_drop=100", "formats=safetensors")
    assert result["pruning"]["after"]["acc1"] == result["pruning"]["pruned"]["acc1"]
    assert result["pruning"]["run_dir"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small"]
    weights = list(prunable(build_trained(open_trained(tmp_path / "out", []), FP32, CPU)).values())
    count = sum(weight.numel() for weight in weights)
    assert sum(int((weight == 0).sum()) for weight in weights) == round(0.25 * count)


def test_an_interrupted_training_exports_nothing_and_the_same_command_goes_on(
    tmp_path: Path, run_export: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "small", *SMALL, "batch_size=32", f"runs_dir={tmp_path}")
    asked = (*TUNED, "formats=safetensors")

    class Asked(finetune.StopRequests):
        """Ctrl-C at the first step."""

        def pending(self) -> bool:
            self.interrupted = True
            return True

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune, "StopRequests", Asked)
        run_export(run, tmp_path / "out", *asked)
    assert not (tmp_path / "out").exists()
    assert json.loads((tmp_path / "small-unstructured-0.5" / "status.json").read_text())["status"] == "preempted"
    assert run_export(run, tmp_path / "out", *asked)["status"] == "finished"


def test_what_costs_too_much_accuracy_is_refused() -> None:
    require_kept("int8", 1.0, most=1.0)
    require_kept("int8", -0.5, most=0.0)
    for lost in (1.001, float("nan")):
        with pytest.raises(ExportError, match="max_drop=1 is allowed"):
            require_kept("pruning", lost, most=1.0)
