"""A trained model that is ready to be asked, with what asking takes: its engine, its classes, and a folder for the answers."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loguru import logger
from torch import Tensor, nn

from src.batch import Engine, Source
from src.build import loader_threads, stuck_seconds
from src.build_model import build_normalise
from src.config import Config, ConfigError, Problem
from src.data.build_engine import build_engine, choose_engine, engine_problems
from src.data.sources.flat import FlatSource
from src.distributed import from_rank_0
from src.imagenet.wnids import imagenet_wnids
from src.session import Place
from src.trained import Trained, build_trained, other_classes, other_number
from src.training.evaluation import logits_of
from src.training.precision import Precision, choose_precision


class ReadyModel(NamedTuple):
    """A model that is ready to be asked, and how its images are prepared."""

    module: nn.Module
    precision: Precision
    normalise: Callable[[Tensor], Tensor]
    flip: bool

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of uint8 (N, 3, S, S)."""
        with self.precision.autocast():
            return logits_of(self.module, self.normalise(images), flip=self.flip)


def make_ready(trained: Trained, place: Place) -> ReadyModel:
    """Build the model on this rank's device, and say how its images are prepared.

    Raises:
        ConfigError: if the configured engine cannot run here, or the weights do not fit the model.
    """
    config = trained.config
    if problems := engine_problems(config.data, place.device):
        raise ConfigError("the data", problems)
    precision = choose_precision(config.precision, place.device)
    module = build_trained(trained, precision, place.device)
    data = config.data
    logger.info(
        f"images: shorter side to {data.resize_size} px, centre {data.eval_image_size} px, {data.eval_interpolation}, antialiased, "
        f"on decoded tensors; mean {list(data.mean)}, std {list(data.std)}"
    )
    flip = config.test_time_augmentation == "flip"
    return ReadyModel(module, precision, build_normalise(config, precision, place.device), flip)


def engine_for(config: Config, source: Source, place: Place) -> Engine:
    """Build the engine that prepares a source's images as evaluation does. The caller closes it."""
    threads, limit = loader_threads(config, place.world), stuck_seconds(config)
    name = choose_engine(config.data)
    if isinstance(source, FlatSource) and name == "ffcv":
        name = "torchvision"  # reads any source, and its pixels are those of evaluation's definition
    return build_engine(config.data, name, source, device=place.device, threads=threads, stuck_seconds=limit)


def require_same_classes(trained: Trained, source: Source) -> None:
    """See that the data's classes are the model's; of a state dict, whose classes have no names, that there are as many.

    Raises:
        ConfigError: they are not.
    """
    count = len(source.classes)
    if trained.classes is None:
        if trained.num_classes != count:
            raise other_number(trained, trained.num_classes, count)
        usual = " (ImageNet's wnids, the usual order)" if source.classes == imagenet_wnids() else ""
        logger.info(f"labels: {count:,} classes in the sorted order of the data's{usual}: {', '.join(source.classes[:3])}, ...")
    elif tuple(trained.classes) != source.classes:
        raise other_classes(trained, source.classes)


def target_folder(target: str | None) -> Path | None:
    """Make the folder that results go to, before anything is computed. Every rank must call it.

    Raises:
        ConfigError: if it cannot be made.
    """
    if target is None:
        return None
    path = Path(target).expanduser()

    def make() -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fix = f"cannot be made a folder ({error.strerror}). Give one that can be written."
            raise ConfigError("the command line", [Problem("target", target, fix)]) from error

    from_rank_0(make)
    return path
