"""What a process may use: its affinity, its cgroup's quota, its share among the node's ranks."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from src import machine
from src.distributed import World
from src.machine import allowed_cpus, cpus_per_rank, settle_torch


@pytest.fixture
def cpu_max(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cgroup's quota on a machine whose affinity allows eight CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(machine, "_CGROUP_QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000\n", 8),
        ("300000 100000\n", 3),
        ("350000 100000\n", 3),
        ("50000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("something else entirely", 8),
        ("", 8),
        (None, 8),
    ],
)
def test_the_quota_bounds_the_affinity(cpu_max: Path, quota: str | None, cpus: int) -> None:
    if quota is not None:
        cpu_max.write_text(quota)
    assert allowed_cpus() == cpus


@pytest.mark.parametrize(("ranks", "cpus"), [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)])
def test_the_ranks_of_a_node_share(cpu_max: Path, ranks: int, cpus: int) -> None:
    assert cpus_per_rank(World(rank=0, local_rank=0, size=2 * ranks, local_size=ranks, under_torchrun=True)) == cpus


@pytest.fixture
def as_before() -> Iterator[None]:
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if workspace is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("deterministic", [True, False])
def test_torch_is_settled(monkeypatch: pytest.MonkeyPatch, *, deterministic: bool) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    settle_torch(threads=3, deterministic=deterministic)
    assert torch.get_num_threads() == 3
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if deterministic else None)
