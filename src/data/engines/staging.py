"""From host buffers to the device: pinned, overlapped, and never rewritten while somebody still reads.

A host slot is rewritten only after the copy out of it is done, a device slot only after the consumer's work on it.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.batch import Batch, BatchPlan

_DEVICE_SLOTS = 3  # one in use, one ready, one being filled


class HostSlot:
    """One batch's memory on the host.

    Attributes:
        images: uint8 (N, S, S, 3), pinned where there is a GPU.
        copied: the event after which it may be rewritten; None where nobody copies.
    """

    def __init__(self, capacity: int, image_size: int, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self.images = torch.empty((capacity, image_size, image_size, 3), dtype=torch.uint8, pin_memory=pinned)
        self.copied: torch.cuda.Event | None = None

    def wait_until_free(self) -> None:
        """Block until the copy out of this slot is done."""
        if self.copied is not None:
            self.copied.synchronize()
            self.copied = None


class HostBatch:
    """A decoded batch in a host slot, valid until the next is asked for, or on a GPU until `slot.copied`."""

    def __init__(self, slot: HostSlot, labels: Tensor, plan: BatchPlan) -> None:
        self.slot, self.labels, self.plan, self.replaced = slot, labels, plan, 0

    def replace(self, plan: BatchPlan, labels: NDArray[np.int64], count: int) -> None:
        """Learn what is shown instead of the plan: `count` of its images were bad. `labels` are all of the source's."""
        self.plan, self.labels, self.replaced = plan, torch.from_numpy(labels[plan.ids]), count

    @property
    def images(self) -> Tensor:
        """uint8 (N, 3, S, S), channels_last, a view of the slot."""
        return self.slot.images[: len(self.labels)].permute(0, 3, 1, 2)


def to_device(hosts: Iterator[HostBatch], device: torch.device) -> Iterator[Batch]:
    """Yield each batch on the device: on a CPU the host's memory itself, on a GPU a copy that was started one batch ahead."""
    if device.type == "cpu":
        return (Batch(host.images, host.labels, host.plan, host.replaced) for host in hosts)
    return _copied_ahead(hosts, device)


def _copied_ahead(hosts: Iterator[HostBatch], device: torch.device) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    free: deque[_DeviceSlot] = deque()
    ready: deque[tuple[_DeviceSlot, Batch, torch.cuda.Event]] = deque()
    slots = 0
    try:
        for host in hosts:
            if slots < _DEVICE_SLOTS:
                free.append(_DeviceSlot(host, device))
                slots += 1
            slot = free.popleft()
            if len(slot.images) < len(host.labels):
                slot = _DeviceSlot(host, device)
            ready.append((slot, *slot.fill(host, stream)))
            if len(ready) == _DEVICE_SLOTS - 1:
                yield from _hand_over(ready.popleft(), free, device)
        while ready:
            yield from _hand_over(ready.popleft(), free, device)
    finally:
        stream.synchronize()  # the slots' memory is given back only when nothing copies into it


def _hand_over(
    staged: "tuple[_DeviceSlot, Batch, torch.cuda.Event]", free: "deque[_DeviceSlot]", device: torch.device
) -> Iterator[Batch]:
    slot, batch, copied = staged
    torch.cuda.current_stream(device).wait_event(copied)
    yield batch
    slot.consumed.record(torch.cuda.current_stream(device))
    free.append(slot)


class _DeviceSlot:
    def __init__(self, host: HostBatch, device: torch.device) -> None:
        self.images = torch.empty_like(host.slot.images, device=device, pin_memory=False)
        self.labels = torch.empty(len(host.slot.images), dtype=torch.int64, device=device)
        self.consumed = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.consumed.record(torch.cuda.current_stream(device))

    def fill(self, host: HostBatch, stream: torch.cuda.Stream) -> tuple[Batch, torch.cuda.Event]:
        count = len(host.labels)
        with torch.cuda.stream(stream):
            stream.wait_event(self.consumed)
            self.images[:count].copy_(host.slot.images[:count], non_blocking=True)
            self.labels[:count].copy_(host.labels.pin_memory(), non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(stream)
        host.slot.copied = copied
        return Batch(self.images[:count].permute(0, 3, 1, 2), self.labels[:count], host.plan, host.replaced), copied
