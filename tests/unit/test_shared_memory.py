"""NCCL passes data between ranks of a node in /dev/shm: where that cannot be, the preflight says so and how to mend it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from src.preflight import shared_memory_problems

MIB = 2**20


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    def found(free: int, ranks: int, *, reach: bool = False, environment: Mapping[str, str] | None = None) -> list[str]:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
        problems = shared_memory_problems(ranks, reach_each_other=reach, folder=tmp_path, environment=environment or {})
        return [str(problem) for problem in problems]

    return found


def test_a_containers_64_mib_do_for_two_ranks_and_not_for_four(found, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert found(64 * MIB, 2) == []
    assert found(64 * MIB, 4) == [
        f"{tmp_path}: has 64 MiB free, and NCCL needs 74 MiB in it between 4 ranks. In a container: "
        "docker run --shm-size=1g (or --ipc=host). Or set NCCL_SHM_DISABLE=1 in the environment: slower, over sockets."
    ]
    assert found(1024 * MIB, 4) == []


def test_it_does_not_matter_where_it_is_not_used(found) -> None:  # type: ignore[no-untyped-def]
    assert found(0, 1) == []
    assert found(0, 4, reach=True) == [], "GPUs that reach each other's memory"
    assert found(0, 4, reach=True, environment={"NCCL_P2P_DISABLE": "1"}) != []
    assert found(0, 4, environment={"NCCL_SHM_DISABLE": "1"}) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    [problem] = shared_memory_problems(2, reach_each_other=False, folder=tmp_path / "none", environment={})
    assert "cannot be written, and NCCL passes data between 2 ranks in it. Or set NCCL_SHM_DISABLE=1" in str(problem)
