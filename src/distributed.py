"""Who we are, and what all ranks do together. With peers.py the only file that says torch.distributed.

One plain process is a world of one: every function here works without a process group and then costs nothing.
"""

import datetime
import inspect
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from src.incarnation import agree_on_a_name

T = TypeVar("T")
_START_TIMEOUT = datetime.timedelta(minutes=60)  # compiling, indexing and copying happen before the first step
_blackboard: Any = None  # a dist.Store
_more_groups: "list[dist.ProcessGroup]" = []


class World(NamedTuple):
    """This process among all. Set by torchrun, or a world of one."""

    rank: int
    local_rank: int
    size: int
    local_size: int
    under_torchrun: bool

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    @property
    def leads_node(self) -> bool:
        """Whether this is the first rank of its node, which prepares what the node shares."""
        return self.local_rank == 0


def world_from_environment() -> World:
    """Read torchrun's variables; without them, a world of one."""
    read = os.environ.get
    return World(
        rank=int(read("RANK", "0")),
        local_rank=int(read("LOCAL_RANK", "0")),
        size=int(read("WORLD_SIZE", "1")),
        local_size=int(read("LOCAL_WORLD_SIZE", "1")),
        under_torchrun="TORCHELASTIC_RUN_ID" in os.environ,
    )


def choose_device(world: World) -> torch.device:
    """Return this rank's GPU, or the CPU where there is none."""
    if torch.cuda.is_available():
        device = torch.device("cuda", world.local_rank % torch.cuda.device_count())  # too many ranks: the preflight says so
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def start(world: World, device: torch.device) -> None:
    """Join the process group: nccl on GPUs, gloo on CPUs. A world of one joins nothing."""
    global _blackboard
    if world.size > 1:
        backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
        own_gpu = device.type == "cuda" and world.local_size <= torch.cuda.device_count()
        # What init_process_group does by itself, but for the store: a clean one, on which we want to write as well.
        store, number, size = next(iter(rendezvous("env://", timeout=_START_TIMEOUT)))
        store.set_timeout(_START_TIMEOUT)
        store = PrefixStore(agree_on_a_name(store, rank=number, world_size=size, seconds=_START_TIMEOUT.total_seconds()), store)
        gpu = device if own_gpu else None
        dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=_START_TIMEOUT, device_id=gpu)
        _blackboard = PrefixStore("blackboard", store)


def stop() -> None:
    """Leave the process group, if there is one."""
    global _blackboard
    if dist.is_initialized():
        _blackboard = None
        _more_groups.clear()
        dist.destroy_process_group()


def groups() -> "list[dist.ProcessGroup | None]":
    """Return every process group of ours; None is the default one."""
    return [None, *_more_groups] if dist.is_initialized() else []


def blackboard() -> Any:
    """Return where any rank can write at any time, and all can read; None in a world of one."""
    return _blackboard


def world_size() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's rank."""
    return dist.get_rank() if dist.is_initialized() else 0


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the elementwise sum over ranks as a new tensor. Every rank must call it."""
    total = values.clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set on any rank. Every rank must call it."""
    if not dist.is_initialized():
        return flag
    votes = torch.tensor([int(flag)])
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes.item())


def gather(value: Any) -> list[Any]:
    """Return every rank's plain value or CPU tensor, in rank order, on every rank."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def from_rank_0(make: Callable[[], T]) -> T:
    """Call it on rank 0 only, and return its value, or raise its exception, on every rank."""
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = make()
        except Exception as caught:  # noqa: BLE001 (raised again on every rank)
            outcome[1] = caught
    if dist.is_initialized():
        dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return cast(T, outcome[0])


def once_per_node(make: Callable[[], T], world: World) -> T:
    """Call it on each node's first rank, wait for all nodes, then call it on the others: they find what the first left behind.

    An exception on any node's first rank is raised on every rank.
    """
    made: list[T] = []
    error: Exception | None = None
    for turn in (world.leads_node, not world.leads_node):
        if turn:
            try:
                made.append(make())
            except Exception as caught:  # noqa: BLE001 (raised again on every rank)
                error = caught
        errors = [caught for caught in gather(error) if caught is not None]
        if errors:
            raise errors[0]
    return made[0]


class StopVote:
    """Whether any rank wants to stop, learned one step late so that nobody waits.

    The flag's all-reduce (MAX, on the CPU) is started at step s and read at s + 1: all ranks see the same answer at the same step.
    """

    def __init__(self) -> None:
        self._group = cast("dist.ProcessGroup | None", dist.new_group(backend="gloo")) if dist.is_initialized() else None
        if self._group is not None:
            _more_groups.append(self._group)
        self._votes = torch.zeros(1, dtype=torch.int32)
        self._work: dist.Work | None = None

    def ask(self, wants_to_stop: bool) -> bool:
        """Return what was voted at the step before, and start this step's vote. Alone, the answer is immediate."""
        if self._group is None:
            return wants_to_stop
        stop = self._settle()
        self._votes = torch.tensor([int(wants_to_stop)], dtype=torch.int32)
        self._work = dist.all_reduce(self._votes, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return stop

    def _settle(self) -> bool:
        if self._work is None:
            return False
        self._work.wait()
        self._work = None
        return bool(self._votes[0])

    def close(self) -> None:
        """Wait for the vote under way, so that the group can be left."""
        self._settle()


def data_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap for gradient averaging, with each rank keeping its own BatchNorm statistics; alone, return the model itself.

    By default DDP copies rank 0's running statistics at every forward. The flag that stops this was renamed in torch 2.13, and
    then syncs once at construction; on the older path we sync once here.
    """
    if not dist.is_initialized():
        return model
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters:
        flag = {"forward_sync_buffers": False}
    else:
        flag = {"broadcast_buffers": False}
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
    wrapped = DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True, **cast(Any, flag)
    )
    if device.type == "cpu" and dist.get_world_size() > 2:
        wrapped.register_comm_hook(None, _mean_in_rank_order)
    return wrapped


def _mean_in_rank_order(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Average a bucket so that the order of addition does not depend on where in the bucket an element lies.

    Gloo's ring adds each chunk in another order of ranks, and DDP lays its buckets out anew after a process's first step, so from
    three ranks on a resumed run would differ in the last bit from an undisturbed one.
    """
    own: Tensor = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    work = dist.all_gather(parts, own, async_op=True)
    assert work is not None

    def mean(_: object) -> Tensor:
        total = parts[0]
        for part in parts[1:]:
            total += part
        return own.copy_(total.div_(len(parts)))

    return cast("torch.futures.Future[Tensor]", work.get_future().then(mean))


def one_all_reduce_a_step(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Let gradients be averaged over ranks only in a step's last micro-batch."""
    if isinstance(model, DistributedDataParallel) and not last:
        return cast(AbstractContextManager[None], model.no_sync())
    return nullcontext()
