"""What this process may use of the machine."""

import ctypes
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who only asks for CPUs needs no torch, which takes seconds to import
    from src.distributed import World

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_MEMORY = Path("/sys/fs/cgroup")


def cpus_per_rank(world: "World") -> int:
    """Return how many CPUs one rank may use: affinity and the cgroup's quota, shared among the node's ranks, at least 1."""
    return max(1, allowed_cpus() // world.local_size)


def allowed_cpus() -> int:
    """Return how many CPUs this process may use, by affinity and by the cgroup's quota."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def available_memory() -> int:
    """Return how many bytes this process could still take: the system's estimate, and what the cgroup leaves."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit, used = (_CGROUP_MEMORY / "memory.max").read_text().strip(), (_CGROUP_MEMORY / "memory.current").read_text()
        statistics = dict(line.split() for line in (_CGROUP_MEMORY / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return available
    if limit == "max":
        return available
    reclaimable = int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0))
    return min(available, int(limit) - int(used) + reclaimable)


def seconds_since_start() -> float:
    """Return how long this process has been there, with all that it has imported: proc(5), field 22 of stat."""
    began = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def keep_freed_memory() -> None:
    """Tell glibc not to give freed memory back to the system.

    By default a step's activations are returned at its end and faulted in again at the next: a tenth of a small model's step on a
    CPU. Other C libraries have no such knob and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the most that glibc takes


def settle_torch(*, threads: int, deterministic: bool) -> None:
    """Set torch's threads, and whether it may choose kernels by timing them."""
    import torch

    torch.set_num_threads(threads)
    keep_freed_memory()
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # before the first use of cuBLAS
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # the call imports the compiler: 0.8 s
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
