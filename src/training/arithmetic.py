"""A run's numbers: who takes how many images in which slot, and how many steps there are."""

from typing import NamedTuple

from src.config import Config, ConfigError, Problem


class Arithmetic(NamedTuple):
    """Everything derived from batch_size, max_local_batch_size, epochs, the split's size and the world.

    Attributes:
        batch_size: images a step over all ranks.
        local_batch_size: images a rank and micro-batch.
        accumulation: micro-batches a step.
        world_size: ranks.
        steps_per_epoch: full batches of the training split; what is left over is dropped.
        total_steps: of the run.
    """

    batch_size: int
    local_batch_size: int
    accumulation: int
    world_size: int
    steps_per_epoch: int
    total_steps: int

    def describe_batch(self) -> str:
        """Return the batch's arithmetic for people."""
        ranks = f"{self.world_size} rank{'s' if self.world_size > 1 else ''}"
        return f"{self.batch_size} images = {ranks} x {self.local_batch_size} a micro-batch x {self.accumulation} accumulated"

    def slot(self, micro_batch: int, rank: int) -> int:
        """Return the place of a rank's micro-batch in the global batch."""
        return micro_batch * self.world_size + rank


def split_batch(config: Config, world_size: int) -> tuple[int, int]:
    """Return (local_batch_size, accumulation).

    Raises:
        ConfigError: with the nearest valid numbers, if the batch does not divide.
    """
    batch, cap = config.batch_size, config.max_local_batch_size
    if batch % world_size:
        lower = batch // world_size * world_size
        valid = f"{lower} or {lower + world_size}" if lower else f"{world_size}"
        fix = f"cannot be split over {world_size} ranks (remainder {batch % world_size}). Nearest valid: {valid}."
        raise ConfigError("the world size", [Problem("batch_size", batch, fix)])
    a_rank = batch // world_size
    accumulation = -(-a_rank // cap) if cap is not None else 1
    if a_rank % accumulation:
        divisors = [size for size in range(1, a_rank + 1) if a_rank % size == 0]
        near = sorted(
            {max(size for size in divisors if size <= (cap or a_rank)), min(size for size in divisors if size >= (cap or 1))}
        )
        fix = (
            f"does not divide the {a_rank} images a step of each of {world_size} ranks "
            f"(batch_size={batch}). Nearest valid: {' or '.join(map(str, near))}."
        )
        raise ConfigError("the world size", [Problem("max_local_batch_size", cap, fix)])
    return a_rank // accumulation, accumulation


def plan_arithmetic(config: Config, *, num_train: int, world_size: int) -> Arithmetic:
    """Lay out the run.

    Raises:
        ConfigError: if the batch does not divide over the ranks, or an epoch has no full batch.
    """
    local_batch_size, accumulation = split_batch(config, world_size)
    steps_per_epoch = num_train // config.batch_size
    if steps_per_epoch == 0:
        fix = f"is more than the {num_train} training images, so an epoch has no step. Set batch_size={num_train} or less."
        raise ConfigError("the data", [Problem("batch_size", config.batch_size, fix)])
    total_steps = steps_per_epoch * config.epochs
    return Arithmetic(config.batch_size, local_batch_size, accumulation, world_size, steps_per_epoch, total_steps)
