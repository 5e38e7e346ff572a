"""A checkpoint of other classes, or of another configuration, is refused: labels must go on meaning what they meant."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from src.config import Config, ConfigError, load
from src.resume_run import require_fit, warn_of_other_sums

CLASSES = ("ant", "bee", "cow")
PATH = Path("runs/r/checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def config() -> Config:
    return load(["data=synthetic", "model=small_resnet"])


def state_of(*overrides: str, classes: tuple[str, ...] = CLASSES) -> dict[str, Any]:
    stored = load(["data=synthetic", "model=small_resnet", *overrides])
    return {"classes": list(classes), "config": stored.model_dump(mode="json")}


@pytest.mark.parametrize("own", [True, False])
def test_the_same_fits(config: Config, *, own: bool) -> None:
    require_fit(state_of(), PATH, config, CLASSES, own=own)


@pytest.mark.parametrize(
    "classes", [("bee", "ant", "cow"), ("ant", "bee"), ("ant", "bee", "cow", "dog"), ("ant", "bee", "cat"), ()]
)
@pytest.mark.parametrize("own", [True, False])
def test_other_classes_are_refused_even_where_only_their_order_differs(
    config: Config, classes: tuple[str, ...], *, own: bool
) -> None:
    with pytest.raises(ConfigError, match=rf"has {len(classes)} classes that are not the 3 of {PATH}: labels would differ"):
        require_fit(state_of(), PATH, config, classes, own=own)


@pytest.mark.parametrize("changed", ["seed=3", "epochs=7", "schedule.warmup_epochs=2", "max_grad_norm=1.0"])
def test_a_runs_own_checkpoint_must_be_of_this_very_configuration(config: Config, changed: str) -> None:
    """config.yaml is compared before, but may have been lost or damaged."""
    key = changed.partition("=")[0]
    with pytest.raises(ConfigError) as caught:
        require_fit(state_of(changed), PATH, config, CLASSES, own=True)
    assert [problem.path for problem in caught.value.problems] == [key]
    assert f"in {PATH}. Set it back, or train a new run." in str(caught.value)


def test_another_runs_checkpoint_may_have_been_trained_longer_from_another_seed(config: Config) -> None:
    require_fit(state_of("seed=3", "epochs=7"), PATH, config, CLASSES, own=False)
    with pytest.raises(ConfigError, match=r"model\.width = .*was 4 in"):
        require_fit(state_of("model.width=4"), PATH, config, CLASSES, own=False)


def test_bookkeeping_may_change(config: Config) -> None:
    require_fit(state_of("keep_top_k=9", "save_every_steps=7", "data.workers=3"), PATH, config, CLASSES, own=True)


@pytest.mark.parametrize(
    ("ranks", "threads", "told"),
    [(2, 0, []), (4, 0, ["trained on 4 ranks up to step 7, and goes on with 2"]), (2, 5, ["threads a rank"]), (2, None, [])],
)
def test_sums_in_another_order_are_told_of(said: list[str], ranks: int, threads: int | None, told: list[str]) -> None:
    run: Any = SimpleNamespace(arithmetic=SimpleNamespace(world_size=2), device=torch.device("cpu"))
    state: dict[str, Any] = {"step": 7, "world_size": ranks}
    if threads is not None:  # a checkpoint of before has no such entry
        state["threads"] = torch.get_num_threads() + threads
    warn_of_other_sums(run, state)
    assert len(said) == len(told) and all(words in line for words, line in zip(told, said, strict=True))
