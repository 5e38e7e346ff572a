"""Who takes how many images, how many steps there are, and what to type where the numbers do not divide."""

from collections.abc import Callable

import pytest

from src.config import Config, ConfigError
from src.training.arithmetic import plan_arithmetic, split_batch

Configure = Callable[..., Config]


@pytest.mark.parametrize(
    ("batch", "cap", "world", "local", "accumulation"),
    [
        (256, "null", 1, 256, 1),
        (256, "null", 8, 32, 1),
        (256, 256, 1, 256, 1),
        (256, 300, 1, 256, 1),
        (256, 64, 1, 64, 4),
        (256, 64, 2, 64, 2),
        (256, 64, 8, 32, 1),
        (100, 30, 1, 25, 4),  # the cap is an upper bound
        (96, 16, 3, 16, 2),
        (7, "null", 7, 1, 1),
    ],
)
def test_every_image_of_the_batch_has_one_place(
    configure: Configure, batch: int, cap: int | str, world: int, local: int, accumulation: int
) -> None:
    config = configure(f"batch_size={batch}", f"max_local_batch_size={cap}")
    assert split_batch(config, world) == (local, accumulation)
    plan = plan_arithmetic(config, num_train=1000, world_size=world)
    slots = sorted(plan.slot(micro_batch, rank) for micro_batch in range(accumulation) for rank in range(world))
    assert slots == list(range(batch // local))


def test_a_step_takes_the_same_slots_however_it_is_spread(configure: Configure) -> None:
    config = configure("batch_size=64", "max_local_batch_size=16")
    alone, two = (plan_arithmetic(config, num_train=640, world_size=world) for world in (1, 2))
    assert [alone.slot(k, 0) for k in range(4)] == [0, 1, 2, 3]
    assert [two.slot(k, rank) for k in range(2) for rank in range(2)] == [0, 1, 2, 3]


def test_steps_are_full_batches(configure: Configure) -> None:
    plan = plan_arithmetic(configure("batch_size=64", "epochs=7"), num_train=64 * 5 + 63, world_size=2)
    assert (plan.steps_per_epoch, plan.total_steps) == (5, 35)
    assert plan_arithmetic(configure("batch_size=64"), num_train=64, world_size=1).steps_per_epoch == 1


@pytest.mark.parametrize(("batch", "world", "nearest"), [(256, 3, "255 or 258"), (2, 4, "4"), (10, 8, "8 or 16")])
def test_a_batch_that_ranks_cannot_share_is_refused_with_valid_ones(
    configure: Configure, batch: int, world: int, nearest: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        split_batch(configure(f"batch_size={batch}"), world)
    message = str(caught.value)
    assert f"batch_size = {batch}: cannot be split over {world} ranks (remainder {batch % world})" in message
    assert f"Nearest valid: {nearest}." in message
    for valid in nearest.split(" or "):
        split_batch(configure(f"batch_size={valid}"), world)


@pytest.mark.parametrize(("batch", "cap", "nearest"), [(10, 4, "2 or 5"), (14, 3, "2 or 7"), (22, 5, "2 or 11")])
def test_a_cap_that_leaves_uneven_micro_batches_is_refused_with_valid_ones(
    configure: Configure, batch: int, cap: int, nearest: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        split_batch(configure(f"batch_size={batch}", f"max_local_batch_size={cap}"), 1)
    message = str(caught.value)
    assert f"max_local_batch_size = {cap}: does not divide the {batch} images" in message
    assert f"Nearest valid: {nearest}." in message
    for valid in nearest.split(" or "):
        local, _ = split_batch(configure(f"batch_size={batch}", f"max_local_batch_size={valid}"), 1)
        assert local == int(valid)


def test_an_epoch_without_a_full_batch_is_refused(configure: Configure) -> None:
    with pytest.raises(ConfigError, match=r"batch_size = 64: is more than the 63 training images.*Set batch_size=63 or less"):
        plan_arithmetic(configure("batch_size=64"), num_train=63, world_size=1)


def test_the_batch_is_told_in_words(configure: Configure) -> None:
    config = configure("batch_size=64", "max_local_batch_size=16")
    alone, two = (plan_arithmetic(config, num_train=640, world_size=world).describe_batch() for world in (1, 2))
    assert alone == "64 images = 1 rank x 16 a micro-batch x 4 accumulated"
    assert two == "64 images = 2 ranks x 16 a micro-batch x 2 accumulated"
