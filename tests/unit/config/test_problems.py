"""A message names the path, shows the value as it was typed, and says what to type instead; and nothing is told twice."""

import pickle

import pytest

from src.config import ConfigError, Problem, load
from src.config.compose import compose_tree
from src.config.errors import nearest
from src.config.problems import known_keys, unknown_key


def told(*overrides: str) -> list[str]:
    """Return the message's lines below its heading."""
    with pytest.raises(ConfigError) as caught:
        load(overrides)
    heading, *lines = str(caught.value).splitlines()
    assert heading == f"{len(lines)} problem{'s' if len(lines) > 1 else ''} in the configuration:"
    return [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("epoch", "epochs"),
        ("EPOCHS", "epochs"),
        ("lr", "optim.peak_lr"),
        ("optim.lr", "optim.peak_lr"),
        ("optm", "optim"),
        ("optm.peak_lr", "optim.peak_lr"),
        ("momentum", "optim.momentum"),
        ("data.imagesize", "data.image_size"),
        ("track.log_every", "track.log_every_steps"),
        ("arch", "model.arch"),
    ],
)
def test_a_misspelt_key_is_answered_with_the_nearest(key: str, near: str) -> None:
    assert told(f"{key}=3") == [f"{key} = 3: no such key. Did you mean {near}?"]
    assert near in known_keys()


@pytest.mark.parametrize("key", ["zzz", "optim.zzz", "optim.zzz.y", "zzz.y"])
def test_a_key_like_no_other_is_answered_with_where_to_look(key: str) -> None:
    assert told(f"{key}=3") == [f"{key} = 3: no such key. See --cfg job for all there are."]


def test_a_key_of_another_choice_is_told_with_the_choices_that_have_it() -> None:
    assert told("optim.betas=[0.9,0.99]") == [
        "optim.betas = [0.9, 0.99]: no key of optim=sgd; it belongs to optim=adam, adamw, lamb, sf_adamw."
    ]
    assert told("model=resnet18", "model.depth=8") == [
        "model.depth = 8: no key of model=torchvision; it belongs to model=small_resnet."
    ]
    (line,) = told("data=synthetic", "data.cache_dir=/x")
    assert line.startswith("data.cache_dir = '/x': no key of data.source=synthetic; it belongs to data.source=folder")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("channels_last=1", "channels_last = 1: must be true or false."),
        ("batch_size=true", "batch_size = true: must be a whole number."),
        ("epochs=null", "epochs = null: must be a whole number."),
        ("max_grad_norm=0", "max_grad_norm = 0: must be more than 0 or null."),
        ("run_name=3", """run_name = 3: must be text (in quotes: 'run_name="3"') or null."""),
        ("data.subset=huge", "data.subset = 'huge': must be one of tiny, small, medium, large, full or a whole number."),
        ("data.workers=0", "data.workers = 0: must be auto or at least 1."),
        ("data.mean=[0.5,0.5]", "data.mean = [0.5, 0.5]: must have 3 items."),
        ("data.mean=[1,1,1,1]", "data.mean = [1, 1, 1, 1]: must have 3 items."),
        ("data.mean=[0.5,0.5,x]", "data.mean.2 = 'x': must be a number."),
        ("data.mean={a:1}", "data.mean = '{a:1}': is not of the shape that the key has in conf/ (see --cfg job)."),
        ("optim.name=adam", "optim.name = 'adam': comes with the group's choice. Type optim=adam."),
        (
            "augment.name=x",
            "augment.name = 'x': comes with the group's choice. Type augment=... "
            "(mix, none, rand_augment, standard, trivial_augment).",
        ),
        ("epochs=${nope}", "epochs = '${nope}': Interpolation key 'nope' not found."),
        (
            "data.path=/a(1)",
            """data.path = '/a(1)': cannot be read because of a special character. Put it in quotes: 'data.path="/a(1)"'.""",
        ),
        ("data@x=synthetic", "data@x=synthetic: a group stands in its own place only. Type data=synthetic."),
    ],
)
def test_a_wrong_value_is_told_in_a_users_words(override: str, line: str) -> None:
    assert told(override) == [line]


def test_quotes_make_text_of_a_number_and_a_path_of_special_characters() -> None:
    config = load(['run_name="3"', 'data.path="/a (1),b=c"'])
    assert config.run_name == "3"
    assert config.data.source == "folder"
    assert config.data.train_path == "/a (1),b=c/train"


def test_rules_across_fields_are_told_beside_wrong_fields() -> None:
    lines = told("data=synthetic", "data.num_train=4", "data.workers=-1", "optim=sf_sgd", "schedule=cosine", "seed=x")
    assert [line.split(" = ")[0] for line in lines] == ["seed", "data.workers", "data.num_train", "schedule"]


@pytest.mark.parametrize(
    ("overrides", "only"),
    [
        (["batch_size=-1", "data.subset=100"], "batch_size"),  # 100 is not less than a batch of -1, nor than the default's 256
        (["optim=nadam", "average=schedule_free"], "optim"),
        (["optim=nadam", "optim.betas=[0.9,0.99]"], "optim"),
        (["data=imagnet", "data.num_train=10"], "data"),
        (["debug=overfit", "batch_size=x"], "batch_size"),  # the subset is a copy of it
        (["data.image_size=0"], "data.image_size"),
        (["model=custom", "model.factory=build"], "model.factory"),
        (["epochs=0", "schedule.warmup_epochs=100"], "epochs"),
    ],
)
def test_nothing_is_told_of_a_value_that_nobody_typed(overrides: list[str], only: str) -> None:
    (line,) = told(*overrides)
    assert line.startswith(f"{only} = ")


def test_a_value_that_an_experiment_sets_is_told_with_the_experiment() -> None:
    lines = told("experiment=demo", "epochs=0.5", "optim.momentum=0")
    assert "epochs = 0.5: must be a whole number." in lines
    fix = "needs optim.momentum > 0. Set optim.momentum=0.9 or optim.nesterov=false. This comes with experiment=demo."
    assert f"optim.nesterov = true: {fix}" in lines


def test_a_wrong_choice_does_not_hide_a_wrong_value_in_its_group() -> None:
    assert len(told("optim=nadam", "optim.peak_lr=-1")) == 2


def test_two_values_for_one_rule_are_both_told() -> None:
    lines = told("augment.crop_scale=[1,0.5]", "augment.crop_ratio=[2,1]")
    assert lines == [
        "augment.crop_scale = [1.0, 0.5]: runs backwards. Write the smaller number first.",
        "augment.crop_ratio = [2.0, 1.0]: runs backwards. Write the smaller number first.",
    ]


def test_what_cannot_be_composed_is_told_before_it_is_printed() -> None:
    with pytest.raises(ConfigError) as caught:
        compose_tree(["epochs=${nope}", "optim=nadam", "data.mean={a:1}"])
    assert {problem.path for problem in caught.value.problems} == {"epochs", "optim", "data.mean"}


def test_an_error_travels_between_ranks_whole_and_tells_a_problem_once() -> None:
    error = ConfigError("the data", [Problem("a", 1, "x."), Problem("a", 1, "x."), Problem("b", None, "y.")])
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ConfigError)
    assert str(again) == str(error) == "2 problems in the data:\n  a = 1: x.\n  b: y."


def test_a_long_value_is_cut() -> None:
    assert len(str(unknown_key("zzz", "x" * 500))) < 200


@pytest.mark.parametrize(("word", "near"), [("resnet51", "ResNet50"), ("RESNET50", "ResNet50"), ("zzz", None)])
def test_the_nearest_word_is_found_whatever_its_case(word: str, near: str | None) -> None:
    assert nearest(word, ["ResNet50", "vgg11"]) == near
