"""Choices, shorthands, groups and grids become one validated configuration."""

from pathlib import Path

import pytest
import torchvision
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from src.config import ConfigError, load, load_stored
from src.config.compose import expand_sweep
from src.config.identity import model_name
from src.config.model import TorchvisionModel
from src.config.overrides import groups, rewrite
from src.config.torchvision_models import CLASSIFIERS


def test_the_defaults_are_the_imagenet_recipe() -> None:
    config = load([])
    assert (config.data.name, config.model.name, config.optim.name, config.schedule.name) == (
        "imagefolder",
        "torchvision",
        "sgd",
        "cosine",
    )
    assert (config.epochs, config.batch_size, config.optim.peak_lr, config.data.image_size) == (90, 256, 0.1, 224)


def test_a_value_is_replaced_and_what_refers_to_it_follows() -> None:
    config = load(["data.path=/pictures", "data.image_size=160", "optim.peak_lr=0.5", "run_name=null", "data.workers=3"])
    assert config.data.source == "folder"
    assert (config.data.train_path, config.data.val_path) == ("/pictures/train", "/pictures/val")
    assert (config.data.eval_image_size, config.optim.peak_lr, config.data.workers) == (160, 0.5, 3)


def test_the_list_of_classifiers_is_torchvisions() -> None:
    assert list(CLASSIFIERS) == torchvision.models.list_models(torchvision.models)


def test_every_classifier_is_chosen_by_its_bare_name() -> None:
    for arch in CLASSIFIERS:
        assert rewrite([f"model={arch}"], None) == (["model=torchvision", f"++model.arch={arch}"], [])
    for arch in ("resnet18", "vit_b_16"):
        model = load([f"model={arch}"]).model
        assert isinstance(model, TorchvisionModel)
        assert model.arch == arch
    assert load(["model=resnet18", "model.arch=resnet34"]) == load(["model=resnet34"])


def test_timms_models_are_chosen_behind_its_name() -> None:
    config = load(["model=timm/resnet50d.ra2_in1k"])
    assert (config.model.name, config.model.arch) == ("timm", "resnet50d.ra2_in1k")
    assert model_name(config) == "timm_resnet50d.ra2_in1k"


@pytest.mark.parametrize(
    ("command", "as_if"),
    [
        ("experiment=a40_adam optim=sgd", "optim=sgd"),
        ("experiment=a40_adam optim=sf_sgd", "optim=sf_sgd"),
        ("experiment=a40_sf_sgd optim=adamw", "optim=adamw"),
        ("optim=lamb experiment=a40_sf_sgd optim.eps=1.0e-3", "optim=lamb optim.eps=1.0e-3"),
    ],
)
def test_an_exchanged_optimizer_leaves_the_experiments_behind(command: str, as_if: str) -> None:
    config, alone = load(command.split()), load(as_if.split())
    assert (config.optim, config.schedule.name, config.average) == (alone.optim, alone.schedule.name, alone.average)
    assert (config.epochs, config.batch_size, config.data.image_size) == (90, 1024, 176)


def test_the_experiments_own_choice_typed_again_changes_nothing() -> None:
    assert load(["experiment=a40_adam", "optim=adam", "schedule=cosine"]) == load(["experiment=a40_adam"])


def test_exchanged_schedules_augmentations_and_averages_are_their_own() -> None:
    config = load(["experiment=composer_90", "schedule=step", "augment=none", "average=ema", "average.decay=0.9"])
    alone = load(["schedule=step", "augment=none", "average=ema", "average.decay=0.9"])
    assert (config.schedule, config.augment, config.average) == (alone.schedule, alone.augment, alone.average)
    assert config.optim == load(["experiment=composer_90"]).optim


def test_exchanged_data_and_models_keep_what_the_experiment_says_of_any() -> None:
    own = load(["experiment=ffcv_16"])
    config = load(["experiment=ffcv_16", "data=imagefolder", "model=small_resnet"])
    assert (config.data.name, config.data.image_size, config.data.ramp_from_size) == ("imagefolder", 192, 160)
    assert (config.model.name, config.model.blur_pool) == ("small_resnet", own.model.blur_pool)
    assert load(["experiment=demo", "model=resnet18"]).model == load(["model=resnet18"]).model


@pytest.mark.parametrize("optim", ["sf_sgd", "sf_adamw"])
def test_schedule_free_brings_its_schedule_and_its_average(optim: str) -> None:
    config = load([f"optim={optim}"])
    assert (config.schedule.name, config.average.name) == ("constant", "schedule_free")


@pytest.mark.parametrize("order", [["optim=sf_sgd", "schedule=cosine"], ["schedule=cosine", "optim=sf_sgd"]])
def test_an_explicit_choice_against_schedule_free_is_refused_in_any_order(order: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(order)
    assert [problem.path for problem in caught.value.problems] == ["schedule"]
    assert "optim=sf_sgd sets schedule=constant" in str(caught.value)


def test_debug_fast_shortens_any_recipe() -> None:
    config = load(["optim=sf_adamw", "debug=fast"])
    assert (config.epochs, config.data.subset, config.data.val_subset, config.optim.name) == (2, "tiny", "tiny", "sf_adamw")


def test_debug_overfit_removes_all_that_regularises_and_takes_one_batch() -> None:
    config = load(["debug=overfit", "batch_size=16"])
    assert (config.optim.weight_decay, config.label_smoothing, config.model.drop_path) == (0, 0, 0)
    plain = load(["augment=none"]).augment
    assert config.augment.model_dump(exclude={"name"}) == plain.model_dump(exclude={"name"})
    assert config.data.subset == config.data.val_subset == config.batch_size == 16


def test_a_value_beside_an_experiment_wins_over_it() -> None:
    config = load(["experiment=demo", "epochs=3", "data=synthetic"])
    assert (config.data.name, config.model.name, config.epochs) == ("synthetic", "small_resnet", 3)


@pytest.mark.parametrize("group", ["experiment", "debug"])
def test_null_takes_an_earlier_choice_back(group: str) -> None:
    assert load([f"{group}={groups()[group][0]}", f"{group}=null"]) == load([])


def test_a_users_own_groups_stand_beside_ours(tmp_path: Path) -> None:
    own = tmp_path / "my groups, old (1)"
    (own / "experiment").mkdir(parents=True)
    (own / "optim").mkdir()
    (own / "optim" / "hot.yaml").write_text("defaults: [sgd, _self_]\npeak_lr: 2.0\n")
    (own / "experiment" / "mine.yaml").write_text("# @package _global_\ndefaults: [override /optim: hot]\nepochs: 7\n")
    config = load(["experiment=mine", "optim.momentum=0.5"], config_dir=own)
    assert (config.epochs, config.optim.name, config.optim.peak_lr) == (7, "sgd", 2.0)
    assert load(["optim=hot"], config_dir=own).optim.peak_lr == 2.0
    with pytest.raises(ConfigError, match="optim = 'hot': no such choice"):
        load(["optim=hot"])


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("# @package _global_\nepochs: [1\n", "experiment = 'mine': its file is not YAML"),
        ("epochs: 3\n", "must begin with the line: # @package _global_"),
        ("# @package _global_\ndefaults: [override /optim: nadam]\n", "Could not find 'optim/nadam'"),
        ("# @package _global_\nepoch: 3\n", "epoch = 3: no such key. Did you mean epochs?"),
        ("# @package _global_\nepochs: ${nothing}\n", "experiment = 'mine': Interpolation key 'nothing' not found."),
    ],
)
def test_a_users_own_broken_file_is_told_in_a_line(tmp_path: Path, text: str, fragment: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(["experiment=mine", "seed=-1"], config_dir=tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert fragment in lines[1] + lines[2]
    assert "seed = -1" in lines[1] + lines[2]


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=0,1,2", "optim=sgd,adam"],
        ["optim=adam,sf_sgd", "epochs=30", "seed=range(2)", "label_smoothing=0,0.1"],
        ["augment.crop_scale=[0.1,1],[0.5,1]", "seed=choice(7,5)"],
        ["model=resnet18,small_resnet"],
        ["data.path='/a,b','/c'"],
        ["seed=4"],
    ],
)
def test_a_grid_has_hydras_points_in_hydras_order(overrides: list[str]) -> None:
    (hydras,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), max_batch_size=None)
    assert expand_sweep(overrides) == [list(point) for point in hydras]


def test_all_mistakes_of_a_grid_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        expand_sweep(["optim=sgd,nadam", "seed=0,-1", "model=glob(*)", "epochs"])
    assert [problem.path for problem in caught.value.problems] == ["model", "epochs", "seed", "optim"]


@pytest.mark.parametrize("source", groups()["data"])
def test_a_stored_configuration_comes_back_whole_and_takes_values(source: str) -> None:
    config = load([f"data={source}", "model=small_resnet", "optim=sf_sgd"])
    stored = config.model_dump(mode="json")
    assert load_stored(stored, []) == config
    assert load_stored(stored, ["eval_batch_size=7"]).eval_batch_size == 7


def test_what_an_older_version_stored_without_a_later_key_of_bookkeeping_comes_back_with_what_conf_says() -> None:
    config = load(["data=synthetic", "track=wandb", "track.log_every_steps=7"])
    stored = config.model_dump(mode="json")
    del stored["track"]["tensorboard"], stored["profile_steps"]
    assert load_stored(stored, []) == config
    del stored["seed"]
    with pytest.raises(ConfigError) as caught:
        load_stored(stored, [])
    assert [problem.path for problem in caught.value.problems] == ["seed"], "what is computed is not guessed"


def test_a_stored_folder_moves_with_its_path() -> None:
    moved = load_stored(load(["data.path=/old"]).model_dump(mode="json"), ["data.path=/new"])
    assert moved.data.source == "folder"
    assert (moved.data.path, moved.data.train_path, moved.data.val_path) == ("/new", "/new/train", "/new/val")


def test_what_does_not_fit_a_stored_configuration_is_told_at_once() -> None:
    stored = load(["data=synthetic"]).model_dump(mode="json")
    with pytest.raises(ConfigError) as caught:
        load_stored(stored, ["model=resnet18", "seed=1,2", "epochs", "data.path=/x", "eval_batch_size=0"])
    assert [problem.path for problem in caught.value.problems] == ["model", "seed", "epochs", "eval_batch_size", "data.path"]
    assert "seed = '1,2': several values" in str(caught.value)
