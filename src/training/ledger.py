"""What a run trained on and what came of it, step by step: a hash of each step's plan, and its loss. src.audit replays it.

A step's hash is the sum, modulo 2^64, of one hash an image: of its place in the global batch, id, key, label, box and flip. So it
depends neither on ranks nor on how the batch is cut into micro-batches, and the ranks' shares are added like the losses.
"""

import platform
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.batch import BatchPlan, StepRow
from src.distributed import sum_over_ranks
from src.draws import hash_words
from src.training.arithmetic import Arithmetic

_HASHED_AT_ONCE = 8192  # images: a hundred small operations cost as much for all of them as for a few
_HALF = 2**32


class Ledger:
    """Takes every micro-batch, and hands out a row a step.

    Args:
        arithmetic: of the run.
        labels: int64 (n,), of the training source.
        device: where losses lie.
        keep: takes the rows, on the rank that writes them.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        labels: NDArray[np.int64],
        device: torch.device,
        keep: Callable[[Sequence[StepRow]], None],
    ) -> None:
        self._arithmetic, self._labels, self._device, self._keep = arithmetic, labels, device, keep
        self._mark = arithmetic_mark(device)
        self._threads = torch.get_num_threads() if device.type == "cpu" else 0
        self._hashes: dict[int, int] = {}  # by step, of what is hashed already; in order
        self._plans: list[tuple[int, int, BatchPlan]] = []  # step, first place in the global batch, and what is not hashed yet
        self._images = 0
        self._losses: list[Tensor] = []  # stay on the device

    def note(self, step: int, slot: int, loss: Tensor, plan: BatchPlan) -> None:
        """Take one micro-batch. Never waits for the device.

        Args:
            step: updates done before this one.
            slot: its place in the global batch.
            loss: scalar mean over the micro-batch, as trained on.
            plan: of what was shown.
        """
        self._losses.append(loss.detach())
        self._plans.append((step, slot * self._arithmetic.local_batch_size, plan))
        self._images += len(plan.ids)
        if self._images >= _HASHED_AT_ONCE:
            self._hash()

    def write(self) -> None:
        """Add what was noted over ranks, and hand out its rows. Waits for the device; every rank must call it."""
        self._hash()
        if not self._losses:
            return
        steps = list(self._hashes)
        # Single precision's losses add up exactly in float64, and so do halves of hashes: no order of ranks matters.
        losses = torch.stack(self._losses).double().reshape(len(steps), -1).sum(dim=1)
        halves = torch.tensor([divmod(value, _HALF) for value in self._hashes.values()], dtype=torch.float64, device=self._device)
        total = sum_over_ranks(torch.cat([losses[:, None], halves], dim=1)).tolist()
        a = self._arithmetic
        slots = a.world_size * a.accumulation
        rows = [
            StepRow(
                step=step + 1,
                plan=(int(high) * _HALF + int(low)) % 2**64,
                loss=loss / slots,
                local_batch_size=a.local_batch_size,
                arithmetic=self._mark,
                world_size=a.world_size,
                threads=self._threads,
            )
            for step, (loss, high, low) in zip(steps, total, strict=True)
        ]
        self._hashes, self._losses = {}, []
        self._keep(rows)

    def _hash(self) -> None:
        if not self._plans:
            return
        steps, firsts, plans = zip(*self._plans, strict=True)
        hashes = hash_images(
            BatchPlan(*(np.concatenate(columns) for columns in zip(*plans, strict=True))),
            np.concatenate([first + np.arange(len(plan.ids)) for first, plan in zip(firsts, plans, strict=True)]),
            self._labels,
        )
        starts = np.cumsum([0, *(len(plan.ids) for plan in plans[:-1])])
        for step, value in zip(steps, np.add.reduceat(hashes, starts).tolist(), strict=True):
            self._hashes[step] = (self._hashes.get(step, 0) + value) % 2**64
        self._plans, self._images = [], 0


class NoLedger:
    """Nothing is kept: of training for a look."""

    def note(self, *_: object) -> None:
        """Do nothing."""

    def write(self) -> None:
        """Do nothing."""


def hash_images(plan: BatchPlan, places: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return uint64 (N,): one hash an image. Their sum modulo 2^64 is the hash of all of them.

    Args:
        plan: of N images.
        places: int64 (N,), each image's place in its step's global batch.
        labels: int64 (n,), of the whole source.
    """
    crops = plan.crops.astype(np.uint64)
    half = np.uint64(32)
    corner, extent = crops[:, 0] << half | crops[:, 1], crops[:, 2] << half | crops[:, 3]
    return hash_words(places, plan.ids, plan.keys, labels[plan.ids], corner, extent, plan.flips)


def arithmetic_mark(device: torch.device) -> int:
    """Return a 32-bit mark of what decides a sum's last bit here, beside ranks and threads: torch, and the kind of processor."""
    cpu = device.type == "cpu"
    kind = torch.backends.cpu.get_cpu_capability() if cpu else torch.cuda.get_device_name(device)
    return zlib.crc32(f"{torch.__version__} {platform.machine()} {kind}".encode())
