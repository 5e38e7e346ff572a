"""Pruning takes what it says, the rest stays as it was, and training keeps what is gone away."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.build_model import begin_from_weights, build_live_model
from src.config import Config, ConfigError, load
from src.exporting.finetune import finetune_config, put_weights
from src.exporting.pruning import prune_channels, prune_weights, pruned_file, size_of
from src.models.pruned import fit_channels, keep_zeros, kind_of_file, prunable
from src.optim.build import build_optimizer
from src.training.precision import choose_precision

CPU = torch.device("cpu")
FP32 = choose_precision("fp32", CPU)
IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(*overrides: str, num_classes: int = 10) -> nn.Module:
    return build_live_model(load(["data=synthetic", *overrides]), FP32, CPU, num_classes=num_classes).eval()


def small() -> nn.Module:
    return build("model=small_resnet")


def zeros(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach() == 0 for name, weight in prunable(model).items()}


def test_half_of_the_weights_become_zero_and_they_are_the_smallest_of_all_layers_together() -> None:
    model = small()
    before = copy.deepcopy(model)
    prune_weights(model, 0.5)
    gone = torch.cat([mask.flatten() for mask in zeros(model).values()])
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in prunable(before).values()])
    assert int(gone.sum()) == round(0.5 * len(gone))
    assert magnitudes[gone].max() <= magnitudes[~gone].min()
    assert len({round(float(mask.float().mean()), 2) for mask in zeros(model).values()}) > 1  # not the same share of every layer
    for name, tensor in before.state_dict().items():
        found = model.state_dict()[name]
        assert torch.equal(found, torch.where(found == 0, 0, tensor) if name in prunable(before) else tensor)


def test_the_first_and_the_last_layer_take_part_and_norms_do_not() -> None:
    model = small()
    names = list(prunable(model))
    assert names[0] == "stem.0.weight"
    assert names[-1] == "fc.weight"
    assert not any(isinstance(model.get_submodule(name.rpartition(".")[0]), nn.BatchNorm2d) for name in names)
    assert list(prunable(nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2)}))) == [
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    ]


@pytest.mark.parametrize("optim", ["sgd", "adam", "adamw", "rmsprop", "lamb", "lars", "sgdw", "sf_sgd", "sf_adamw"])
def test_zeros_stay_zero_under_every_optimizer_while_the_others_move(optim: str) -> None:
    config = load(["data=synthetic", "model=small_resnet", *f"optim={optim}".split()])
    model = build_live_model(config, FP32, CPU, num_classes=10).train()
    prune_weights(model, 0.5)
    expected, before = zeros(model), copy.deepcopy(model)
    assert keep_zeros(model) == sum(int(mask.sum()) for mask in expected.values())
    optimizer = build_optimizer(config.optim, model)
    for step in range(3):
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        model(images).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, weight in prunable(model).items():
        assert bool((weight[expected[name]] == 0).all())
        assert not torch.equal(weight, prunable(before)[name])
    held = torch.cat([weight.detach().flatten() for weight in prunable(model).values()]) == 0
    assert int(held.sum()) == sum(int(mask.sum()) for mask in expected.values())


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("small_resnet", id="small_resnet"),
        pytest.param("resnet18 model.blur_pool=convs model.drop_path=0.1", id="blurred resnet18", marks=pytest.mark.long),
        pytest.param("mobilenet_v3_small", id="depthwise, gates", marks=pytest.mark.long),
        pytest.param("resnext50_32x4d", id="groups", marks=pytest.mark.long),
        pytest.param("convnext_tiny", id="layer norms, scales", marks=pytest.mark.long),
        pytest.param("timm/resnet50d", id="timm", marks=pytest.mark.long),
    ],
)
def test_cutting_channels_leaves_half_of_the_weights_and_the_weights_alone_tell_the_model(model: str) -> None:
    overrides = f"model={model}".split()
    whole = build(*overrides)
    smaller = prune_channels(whole, 0.5, IMAGE, lambda: build(*overrides))
    left = size_of(smaller, IMAGE).weights / size_of(whole, IMAGE).weights
    assert abs(left - 0.5) < 0.04
    assert size_of(smaller, IMAGE).flops < 0.7 * size_of(whole, IMAGE).flops
    again = build(*overrides)
    assert fit_channels(again, smaller.state_dict()) > 0
    again.load_state_dict(smaller.state_dict())
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again.eval()(images), smaller(images))
    assert again.state_dict()["fc.weight"].shape[0] == 10 if "fc.weight" in again.state_dict() else True


def test_a_model_of_its_own_width_is_left_as_it_is() -> None:
    model = small()
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    assert fit_channels(model, small().state_dict()) == 0
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before


class _Fixed(nn.Module):
    """Counts on its own width where no layer tells it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 10)."""
        logits: Tensor = self.fc(self.second(self.first(images)).mean((2, 3)).reshape(-1, 16))
        return logits


def test_an_architecture_that_cannot_be_cut_is_refused_with_the_other_kind() -> None:
    with pytest.raises(ConfigError, match="prune_kind=unstructured"):
        prune_channels(_Fixed().eval(), 0.5, IMAGE, lambda: _Fixed().eval())


class _Scaled(nn.Module):
    """Has a number that stands in no state dict."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.first, self.second, self.fc, self.scale = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 10), scale

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 10)."""
        logits: Tensor = self.fc(self.second(self.first(images)).mean((2, 3)))
        return self.scale * logits


def test_a_smaller_model_that_its_weights_alone_do_not_tell_is_refused() -> None:
    prune_channels(_Scaled(1).eval(), 0.5, IMAGE, lambda: _Scaled(1).eval())
    with pytest.raises(ConfigError, match="its weights alone do not tell the smaller model"):
        prune_channels(_Scaled(1).eval(), 0.5, IMAGE, lambda: _Scaled(2).eval())


def test_a_pruned_file_says_so_and_training_begins_pruned(tmp_path: Path) -> None:
    whole = small()
    for kind, prune in dict[str, Callable[[], nn.Module]](
        unstructured=lambda: _zeroed(whole), channels=lambda: prune_channels(whole, 0.5, IMAGE, small)
    ).items():
        path = tmp_path / f"{kind}.safetensors"
        path.write_bytes(pruned_file(prune(), kind))  # type: ignore[arg-type]
        assert kind_of_file(path) == kind
        config = load(["data=synthetic", "model=small_resnet", f"model.weights={path}"])
        model = build_live_model(config, FP32, CPU, num_classes=10).train()
        begin_from_weights(config, model)
        sizes = size_of(model.eval(), IMAGE)
        assert (sizes.weights < 0.55 * size_of(whole, IMAGE).weights) == (kind == "channels")
        expected = zeros(model)
        optimizer = build_optimizer(config.optim, model)
        model.train()(IMAGE.expand(4, -1, -1, -1)).square().sum().backward()
        optimizer.step()
        if kind == "unstructured":
            assert sizes.nonzero == sizes.weights - round(0.5 * sizes.weights)
            assert all(torch.equal(mask, zeros(model)[name]) for name, mask in expected.items())
    assert kind_of_file(tmp_path / "none") is None
    (tmp_path / "plain.safetensors").write_bytes(pruned_file(whole, None))
    assert kind_of_file(tmp_path / "plain.safetensors") is None


def test_pruned_channels_begin_a_training_on_other_classes(tmp_path: Path) -> None:
    path = tmp_path / "channels.safetensors"
    path.write_bytes(pruned_file(prune_channels(small(), 0.5, IMAGE, small), "channels"))
    config = load(["data=synthetic", "model=small_resnet", f"model.weights={path}"])
    model = build_live_model(config, FP32, CPU, num_classes=7)
    begin_from_weights(config, model)
    assert model(IMAGE.expand(2, -1, -1, -1)).shape == (2, 7)


def _zeroed(whole: nn.Module) -> nn.Module:
    model = copy.deepcopy(whole)
    prune_weights(model, 0.5)
    return model


def test_sizes_are_counted() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 6 * 6, 5)).eval()
    with torch.no_grad():
        model[0].weight[0] = 0
    size = size_of(model, torch.zeros(1, 3, 8, 8))
    assert size.parameters == 4 * 27 + 8 + 5 * 144 + 5
    assert size.weights == 4 * 27 + 5 * 144
    assert size.nonzero == size.weights - 27
    assert size.flops == 2 * (36 * 4 * 27 + 5 * 144)


def test_zeros_save_bytes_only_where_the_file_is_compressed() -> None:
    before, after = size_of(small(), IMAGE), size_of(_zeroed(small()), IMAGE)
    assert after.file_bytes == before.file_bytes
    assert after.flops == before.flops
    assert after.compressed_bytes < 0.75 * before.compressed_bytes


def test_fine_tuning_is_the_runs_own_training_at_a_low_rate() -> None:
    config = load(["experiment=demo", "optim.lr_scaling=linear", "optim.reference_batch_size=32", "average=ema", "run_name=x"])
    tuned = finetune_config(config, name="x-channels-0.5", epochs=3, lr=None)
    assert (tuned.epochs, tuned.run_name, tuned.schedule.name, tuned.average.name) == (3, "x-channels-0.5", "cosine", "none")
    assert tuned.optim.lr_for(tuned.batch_size) == pytest.approx(0.1 * 2 / 10)  # a tenth of what the run reached
    assert tuned.schedule.warmup_epochs == 0
    assert tuned.model.weights == "runs/x-channels-0.5/pruned.safetensors"
    assert (tuned.augment, tuned.batch_size, tuned.loss) == (config.augment, config.batch_size, config.loss)
    assert tuned.data.model_dump() == config.data.model_dump()
    assert finetune_config(config, name="x", epochs=3, lr=0.25).optim.lr_for(64) == 0.25


def test_schedule_free_runs_stay_schedule_free() -> None:
    tuned: Config = finetune_config(load(["data=synthetic", "optim=sf_sgd"]), name="x", epochs=2, lr=None)
    assert (tuned.schedule.name, tuned.average.name) == ("constant", "schedule_free")


def test_a_folder_of_another_pruning_is_not_written_over(tmp_path: Path) -> None:
    config = finetune_config(load(["data=synthetic", "model=small_resnet", f"runs_dir={tmp_path}"]), name="x", epochs=1, lr=None)
    model = small()
    path = put_weights(config, pruned_file(model, "unstructured"))
    assert str(path) == config.model.weights
    for _ in range(8):  # the same weights, whatever the order of the file's metadata
        assert put_weights(config, pruned_file(model, "unstructured")) == path
    with pytest.raises(ConfigError, match="holds weights of another pruning"):
        put_weights(config, pruned_file(_zeroed(model), "unstructured"))
