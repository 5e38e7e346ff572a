"""A world of one, and the command that starts one of several."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore

from src import distributed, relaunch
from src.incarnation import agree_on_a_name


@pytest.fixture(autouse=True)
def _plain_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_several_gpus_start_torchrun_on_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    command = relaunch.torchrun_command("src.train", ["optim=adam", "seed=1"], gpus=4, python="py")
    launcher = ["py", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
    assert command == [*launcher, "-m", "src.train", "optim=adam", "seed=1"]
    assert relaunch.torchrun_command("src.train", [], gpus=1, python="py") is None
    monkeypatch.setenv("RANK", "0")  # torchrun's own worker must not start another
    assert relaunch.torchrun_command("src.train", [], gpus=4, python="py") is None


def test_a_plain_process_is_a_world_of_one() -> None:
    world = distributed.world_from_environment()
    assert world == distributed.World(0, 0, 1, 1, under_torchrun=False)
    assert world.leads and world.leads_node
    values = torch.tensor([1.0, 2.0])
    total = distributed.sum_over_ranks(values)
    assert total.tolist() == [1.0, 2.0] and total is not values
    assert distributed.gather("x") == ["x"]
    assert distributed.from_rank_0(lambda: 3) == 3
    assert distributed.once_per_node(lambda: 4, world) == 4
    model = torch.nn.Linear(2, 2)
    assert distributed.data_parallel(model, torch.device("cpu")) is model


def test_torchruns_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "TORCHELASTIC_RUN_ID": "x",
    }.items():
        monkeypatch.setenv(name, value)
    world = distributed.world_from_environment()
    assert world == distributed.World(5, 1, 8, 4, under_torchrun=True)
    assert not world.leads and not world.leads_node


@pytest.mark.parametrize("exception", [ValueError("no"), KeyError("x")])
def test_what_goes_wrong_on_the_leader_is_raised(exception: Exception) -> None:
    def fail() -> None:
        raise exception

    with pytest.raises(type(exception)):
        distributed.from_rank_0(fail)
    with pytest.raises(type(exception)):
        distributed.once_per_node(fail, distributed.world_from_environment())


def test_alone_a_vote_is_answered_at_once() -> None:
    vote = distributed.StopVote()
    assert [vote.ask(flag) for flag in (False, True, False)] == [False, True, False]
    vote.close()


def test_every_start_has_a_name_of_its_own_on_a_store_that_outlives_it() -> None:
    store = HashStore()  # of an elastic torchrun: what the ranks of an earlier start wrote is still there
    names = []
    for _ in range(3):
        with ThreadPoolExecutor(4) as ranks:
            agreed = list(ranks.map(lambda rank: agree_on_a_name(store, rank=rank, world_size=4, seconds=60), (3, 1, 2, 0)))
        assert len(set(agreed)) == 1
        names.append(agreed[0])
    assert len(set(names)) == 3


def test_a_rank_that_never_comes_is_an_error() -> None:
    with pytest.raises(TimeoutError, match="not all of 2 ranks"):
        agree_on_a_name(HashStore(), rank=0, world_size=2, seconds=0.1)
    with pytest.raises(TimeoutError):
        agree_on_a_name(HashStore(), rank=1, world_size=2, seconds=0.1)
