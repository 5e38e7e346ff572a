"""How published weights of torchvision and timm want their images prepared. Nothing is looked up outside this machine.

A state dict does not say it. Both projects put the first eight digits of a file's sha256 into its published name, so a file that
was only downloaded is known by its content.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from src.config import Config, load
from src.config.data import Interpolation
from src.config.model import ModelConfig, TimmModel, TorchvisionModel

_KEYS = ("resize_size", "eval_image_size", "eval_interpolation", "mean", "std")  # of data
_DIGEST = re.compile(r"-([0-9a-f]{8})\.(?:pth|pt|safetensors)(?:\?.*)?$")


class Preparation(NamedTuple):
    """An evaluation's preprocessing.

    Attributes:
        origin: who says so, for the log.
        certain: whether the very file is meant, not only its architecture.
        resize_size: of the shorter side, in pixels.
        image_size: of the centre square.
        interpolation: "bilinear", "bicubic", or another that is not to be had here.
        mean: of pixels in [0, 1], R, G, B.
        std: likewise.
        crop: "center", or how else timm cuts.
    """

    origin: str
    certain: bool
    resize_size: int
    image_size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: str


def published(config: ModelConfig, path: Path, num_classes: int) -> list[Preparation]:
    """Return what is known of a file: one entry if it is that of a published file, else all that differ, timm's default alone.

    Args:
        config: the architecture.
        path: of the weights.
        num_classes: that the file tells apart; others than the published ones were trained by somebody else.
    """
    match config:
        case TorchvisionModel():
            known = [*_of_torchvision(config.arch, num_classes)]
        case TimmModel():
            known = [*_of_timm(config.arch, num_classes)]
        case _:
            return []
    if not known:
        return []
    digest = _sha256(path)
    for begins, preparation in known:
        if begins is not None and digest.startswith(begins):
            return [preparation._replace(certain=True)]
    if isinstance(config, TimmModel):
        return [known[0][1]]
    different = {preparation[2:]: preparation for _, preparation in reversed(known)}
    return [*reversed(different.values())]


def prepared_as_published(known: Sequence[Preparation], config: Config, keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return overrides that prepare images as a published model wants them, and what to tell about it.

    Only what nobody has said is replaced: keys that were typed stay, sizes where one of them was typed, and what the choice of data
    has of its own.

    Args:
        known: what may be meant; several where the file does not tell.
        config: as typed.
        keys: that were typed.
    """
    if not known:
        return [], []
    now = config.data
    if len(known) > 1:
        several = "; ".join(f"{one.origin}: {one.resize_size}/{one.image_size} {one.interpolation}" for one in known)
        used = f"{now.resize_size}/{now.eval_image_size} {now.eval_interpolation}"
        return [], [f"the file is none of the published ones ({several}); {used} is used, unless data.resize_size=... is typed"]
    (one,) = known
    usual = load(["data=imagefolder"]).data
    typed = {key.lstrip("+").removeprefix("data.") for key in keys}
    said = {key for key in _KEYS if key in typed or getattr(now, key) != getattr(usual, key)}
    if said & {"resize_size", "eval_image_size"} or "image_size" in typed:
        said |= {"resize_size", "eval_image_size"}
    if "interpolation" in typed:
        said.add("eval_interpolation")
    notes = []
    if one.interpolation not in get_args(Interpolation):
        notes.append(f"{one.origin} wants {one.interpolation}, which is not to be had: {now.eval_interpolation} is used")
        said.add("eval_interpolation")
    if one.crop != "center":
        notes.append(f"{one.origin} wants crop mode {one.crop!r}, which is not to be had: the centre is cut")
    values = dict(zip(_KEYS, (one.resize_size, one.image_size, one.interpolation, one.mean, one.std), strict=True))
    changed = {key: value for key, value in values.items() if key not in said and value != getattr(now, key)}
    overrides = [f"data.{key}={_as_typed(value)}" for key, value in changed.items()]
    if overrides:
        which = "as the file is published" if one.certain else "the architecture's default, for the file does not tell"
        notes.append(f"images are prepared as {one.origin} wants it ({which}): {' '.join(overrides)}. Typed values replace these")
    return overrides, notes


def _as_typed(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _of_torchvision(arch: str, num_classes: int) -> Iterator[tuple[str | None, Preparation]]:
    import torchvision

    for weights in torchvision.models.get_model_weights(arch):
        if len(weights.meta["categories"]) != num_classes:
            continue
        images: Any = weights.transforms()
        name = str(images.interpolation.value)
        sizes = (int(images.resize_size[0]), int(images.crop_size[0]))
        origin = f"torchvision's {arch} {weights.name}"
        yield _digest_in(weights.url), Preparation(origin, False, *sizes, name, tuple(images.mean), tuple(images.std), "center")


def _of_timm(arch: str, num_classes: int) -> Iterator[tuple[str | None, Preparation]]:
    import timm

    bare, _, tag = arch.partition(".")
    tags = [name for name in timm.list_models(f"{bare}.*", pretrained=True) if name.startswith(f"{bare}.")] if not tag else []
    for name in [arch, *tags]:
        cfg = timm.get_pretrained_cfg(name)
        if cfg is None or cfg.num_classes != num_classes:
            continue
        size = (cfg.test_input_size or cfg.input_size)[-1]
        share = cfg.test_crop_pct or cfg.crop_pct
        # As timm's validate.py: the test size and crop, and the longer side of the crop's share rounded down.
        sizes = (int(size / share), size)
        origin = f"timm's {cfg.architecture}{f'.{cfg.tag}' if cfg.tag else ''}"
        crop = cfg.crop_mode or "center"
        yield _digest_in(cfg.url), Preparation(origin, False, *sizes, cfg.interpolation, tuple(cfg.mean), tuple(cfg.std), crop)


def _digest_in(url: str | None) -> str | None:
    found = _DIGEST.search(url or "")
    return found[1] if found else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
