"""`kill -9` at random instants, and the same command again: the end is equal bit for bit. The long version is kill_harness.py."""

from pathlib import Path

import pytest

from tests.end_to_end.kill_harness import SYNTHETIC, kill_and_compare
from tests.end_to_end.small_data import COMBINATIONS, settings_of, write_small_data
from tests.everything import EVERYTHING


@pytest.mark.parametrize(("optimizer", "ranks", "kills"), [("sgd", 1, 3), pytest.param("sf_adamw", 2, 2, marks=pytest.mark.long)])
def test_killed_at_random_instants_ends_equal(tmp_path: Path, optimizer: str, ranks: int, kills: int) -> None:
    outcome = kill_and_compare(tmp_path, (*SYNTHETIC, f"optim={optimizer}"), ranks=ranks, kills=kills, seed=0)
    assert outcome["unequal"] == []
    assert outcome["lost"] == 0
    assert outcome["kills"] >= 1


OF_LONG = ("torchvision/folder", "torchvision/tar", "nvimgcodec/beton", "dali/folder", "ffcv/beton")  # `make soak` has them all


@pytest.mark.parametrize(
    "loader",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in OF_LONG else [])
        for name in COMBINATIONS
        if name != "torchvision/synthetic"
    ],
)
def test_so_it_does_with_every_source_and_engine(tmp_path: Path, loader: str) -> None:
    data = settings_of(loader, write_small_data(tmp_path / "data", train=650, val=60))
    outcome = kill_and_compare(tmp_path, (*data, "optim=sgd", "epochs=3"), ranks=1, kills=2, seed=1)
    assert outcome["unequal"] == []
    assert outcome["lost"] == 0
    assert outcome["kills"] >= 1


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_so_it_does_with_every_feature_of_the_recipes_on(tmp_path: Path, ranks: int) -> None:
    settings = (*EVERYTHING, "data.num_train=650", "max_local_batch_size=8")
    outcome = kill_and_compare(tmp_path, settings, ranks=ranks, kills=2, seed=2)
    assert outcome["unequal"] == []
    assert outcome["lost"] == 0
    assert outcome["kills"] >= 1
