"""The composition root: from the configuration to live parts. The only file that knows every room."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from src.augment.build import build_augmentation
from src.batch import Batch, Engine, Pixels, Source, Tracker
from src.build_model import begin_from_weights, build_live_model, build_normalise
from src.build_plans import crop_law, eval_geometry, recalibration_plans, train_geometry, train_plans, val_plans
from src.config import Config
from src.config.average import EvaluateTrained
from src.config.data import StoredData
from src.data.bad_images import BadImages
from src.data.build_engine import build_engine, choose_engine
from src.distributed import World, data_parallel
from src.machine import cpus_per_rank
from src.optim.build import build_optimizer
from src.training.arithmetic import plan_arithmetic
from src.training.averaging import NoAverage, build_average, evaluation_weights
from src.training.evaluation import EvalResult, Observer, Protocol, count
from src.training.losses import build_criterion
from src.training.precision import Precision, choose_precision
from src.training.run import Run
from src.training.sam import NoSam, Sam
from src.training.schedule import build_lr_at, image_size_at
from src.training.stopping import StopRequests


class Engines(NamedTuple):
    """One engine for each split."""

    train: Engine
    val: Engine

    def close(self) -> None:
        """Close both."""
        self.train.close()
        self.val.close()


def build_engines(config: Config, world: World, device: torch.device, train: Source, val: Source) -> Engines:
    """Build this rank's engines."""
    threads, limit = loader_threads(config, world), stuck_seconds(config)
    data, name = config.data, choose_engine(config.data)
    bad_images = None
    if isinstance(data, StoredData) and data.bad_image == "replace":
        bad_images = BadImages(train, crop_law(config), most=data.max_bad_images)
    return Engines(
        build_engine(data, name, train, device=device, threads=threads, stuck_seconds=limit, bad_images=bad_images),
        # Here a bad image always raises: the count must stay exact.
        build_engine(data, name, val, device=device, threads=threads, stuck_seconds=limit),
    )


def loader_threads(config: Config, world: World) -> int:
    """Return how many threads decode for this rank."""
    return config.data.workers if isinstance(config.data.workers, int) else cpus_per_rank(world)


def stuck_seconds(config: Config) -> float:
    """Return how long a rank waits for a batch: less than the others wait for the rank, so that it can name the images."""
    return config.timeout_seconds * 2 / 3


def build_run(
    config: Config,
    world: World,
    device: torch.device,
    *,
    train: Source,
    val: Source,
    engines: Engines,
    trackers: list[Tracker],
    requests: StopRequests,
    write_checkpoint: Callable[[Run], Callable[[], bool]] = lambda run: lambda: True,
    after_each_step: Callable[[], None] = lambda: None,
) -> Run:
    """Put a run together at step 0. Where nothing else is said, no checkpoint is written and nobody follows its steps."""
    arithmetic = plan_arithmetic(config, num_train=len(train), world_size=world.size)
    precision = choose_precision(config.precision, device)
    model = build_live_model(config, precision, device, num_classes=len(train.classes))
    begin_from_weights(config, model)
    optimizer = build_optimizer(config.optim, model)
    steps = {"steps_per_epoch": arithmetic.steps_per_epoch, "total_steps": arithmetic.total_steps}
    average = build_average(config.average, model=model, optimizer=optimizer, **steps)
    normalise = build_normalise(config, precision, device)
    augment = build_augmentation(
        config.augment, normalise=normalise, seed=config.seed, num_classes=len(train.classes), device=device
    )

    def train_batches(epoch: int, first_step: int) -> Iterator[Batch]:
        plans = train_plans(config, arithmetic, train, rank=world.rank, epoch=epoch, first_step=first_step)
        return engines.train.batches(plans, geometry=train_geometry(config, epoch))

    def recalibration(epoch: int) -> Iterator[Tensor]:
        plans = recalibration_plans(config, arithmetic, train, rank=world.rank, epoch=epoch, images=average.recalibrate_images)
        for batch in engines.train.batches(plans, geometry=train_geometry(config, epoch)):
            yield normalise(batch.images)

    def measured(weights: str) -> EvalResult:
        return evaluate_model(
            config, world, device, model, engines.val, val, precision, weights=weights, passing=requests.until_asked
        )

    def measure(run: Run) -> EvalResult:
        trained = NoAverage()
        run.evaluation_weights, at_trained = None, None
        if average.name != trained.name and evaluates_trained(config):
            with precision.autocast(), evaluation_weights(model, trained, iter(())):
                at_trained = measured(trained.name)
        recalibrating = requests.until_asked(recalibration(run.epoch - 1))
        with precision.autocast(), evaluation_weights(model, average, recalibrating):
            if average.name != trained.name:
                run.evaluation_weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            return measured(average.name)._replace(trained=at_trained)

    return Run(
        arithmetic=arithmetic,
        pixels=engines.train.pixels,
        rank=world.rank,
        seed=config.seed,
        device=device,
        model=model,
        parallel=data_parallel(cast(nn.Module, torch.compile(model)) if config.compile else model, device),
        optimizer=optimizer,
        scaler=GradScaler(device.type, enabled=precision.name == "fp16"),
        precision=precision,
        criterion=build_criterion(
            loss=config.loss,
            label_smoothing=config.label_smoothing,
            bce_threshold=config.bce_threshold,
            bce_sum_classes=config.bce_sum_classes,
        ),
        augment=augment,
        watched=augment.watched,
        average=average,
        sam=NoSam() if config.optim.sam_rho is None else Sam(config.optim.sam_rho, config.optim.sam_every_steps),
        lr_at=build_lr_at(config, **steps),
        image_size_at=lambda epoch: image_size_at(epoch, config.data),
        max_grad_norm=config.max_grad_norm,
        max_skipped_steps=config.max_skipped_steps,
        eval_every_epochs=config.eval_every_epochs,
        save_every_steps=config.save_every_steps,
        log_every_steps=config.track.log_every_steps,
        train_batches=train_batches,
        measure=measure,
        write_checkpoint=write_checkpoint,
        trackers=trackers,
        requests=requests,
        after_each_step=after_each_step,
        gauges=lambda rate: {},
    )


def evaluates_trained(config: Config) -> bool:
    """Return whether the trained weights are evaluated beside an average of them."""
    return not isinstance(config.average, EvaluateTrained) and config.average.evaluate_trained


def evaluate_model(
    config: Config,
    world: World,
    device: torch.device,
    model: nn.Module,
    engine: Engine,
    source: Source,
    precision: Precision,
    *,
    weights: str,
    passing: Callable[[Iterator[Batch]], Iterator[Batch]],
    observers: Sequence[Observer] = (),
) -> EvalResult:
    """Evaluate an unwrapped model in evaluation mode on the whole split, exactly. Every rank must call it.

    The batches go through `passing`, which may break the evaluation off. The observers see every batch of this rank.
    """
    return count(
        model,
        passing(eval_batches(config, world, engine, source)),
        normalise=build_normalise(config, precision, device),
        precision=precision,
        num_images=len(source),
        protocol=protocol_of(config, precision, engine.pixels, weights=weights, images=len(source)),
        device=device,
        flip=config.test_time_augmentation == "flip",
        observers=observers,
    )


def eval_batches(config: Config, world: World, engine: Engine, source: Source) -> Iterator[Batch]:
    """Yield this rank's share of a split, each image once over all ranks, prepared as evaluation does it."""
    return engine.batches(val_plans(config, source, world), geometry=eval_geometry(config))


def protocol_of(config: Config, precision: Precision, pixels: Pixels, *, weights: str, images: int) -> Protocol:
    """Return what an accuracy must be stored with, so that it can be compared."""
    data = config.data
    return {
        "split": "val",
        "subset": data.val_subset,
        "images": images,
        "resize_size": data.resize_size,
        "image_size": data.eval_image_size,
        "crop": pixels.eval_crop,
        "interpolation": pixels.interpolation or data.eval_interpolation,
        "engine": pixels.engine,
        "precision": precision.name,
        "weights": weights,
        "test_time_augmentation": config.test_time_augmentation,
    }
