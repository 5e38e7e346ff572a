"""From the configuration to plans: which images each rank sees in which order, and how they are cut."""

from collections.abc import Iterator

from src.batch import BatchPlan, BoxResize, ResizeCentreCrop, Source
from src.config import Config
from src.data.plan import CropLaw, EpochPlan, eval_plans
from src.distributed import World
from src.draws import Purpose, seed_of
from src.training.arithmetic import Arithmetic
from src.training.schedule import image_size_at


def epoch_plan(config: Config, source: Source, *, epoch: int, batch_size: int, local_batch_size: int) -> EpochPlan:
    """Return the plan of a training epoch, in steps of some size and slots of some size."""
    return EpochPlan(
        source.sizes,
        seed=config.seed,
        epoch=epoch,
        batch_size=batch_size,
        local_batch_size=local_batch_size,
        law=crop_law(config),
        repeats=config.augment.repeats,
    )


def train_plans(
    config: Config, arithmetic: Arithmetic, source: Source, *, rank: int, epoch: int, first_step: int
) -> Iterator[BatchPlan]:
    """Yield this rank's micro-batches of an epoch, from a step on."""
    sizes = {"batch_size": arithmetic.batch_size, "local_batch_size": arithmetic.local_batch_size}
    plan = epoch_plan(config, source, epoch=epoch, **sizes)
    for step in range(first_step, arithmetic.steps_per_epoch):
        for micro_batch in range(arithmetic.accumulation):
            yield plan.batch(step, arithmetic.slot(micro_batch, rank))


def recalibration_plans(
    config: Config, arithmetic: Arithmetic, source: Source, *, rank: int, epoch: int, images: int
) -> Iterator[BatchPlan]:
    """Yield this rank's share of the training images from which BatchNorm statistics are gathered: training crops, own order."""
    per_round = arithmetic.local_batch_size * arithmetic.world_size
    plan = EpochPlan(
        source.sizes,
        seed=seed_of(config.seed, int(Purpose.RECALIBRATION)),
        epoch=epoch,
        batch_size=per_round,
        local_batch_size=arithmetic.local_batch_size,
        law=crop_law(config),
    )
    rounds = min(-(-images // per_round), len(source) // per_round)
    for step in range(rounds):
        yield plan.batch(step, rank)


def val_plans(config: Config, source: Source, world: World) -> Iterator[BatchPlan]:
    """Yield this rank's share of a split, each image once over all ranks."""
    return eval_plans(source.sizes, batch_size=config.eval_batch_size, rank=world.rank, world_size=world.size)


def crop_law(config: Config) -> CropLaw:
    """Return the law of training boxes and flips."""
    return CropLaw(config.augment.crop_scale, config.augment.crop_ratio, config.augment.flip_probability)


def train_geometry(config: Config, epoch: int) -> BoxResize:
    """Return what becomes of a training box in an epoch."""
    return BoxResize(image_size_at(epoch, config.data), config.data.interpolation)


def eval_geometry(config: Config) -> ResizeCentreCrop:
    """Return how evaluation prepares an image."""
    return ResizeCentreCrop(config.data.resize_size, config.data.eval_image_size, config.data.eval_interpolation)
