"""What the page says of a model, and which images it offers: from what is known of the model, nothing invented."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.config import Config, ConfigError, Problem
from src.config.identity import model_name
from src.demo_page.pictures import FORMATS, look
from src.demo_page.words import About, Limits, Refused
from src.trained import Trained

MOST_EXAMPLES = 8
_MOST_LOOKED_AT = 2000  # files of a folder


def about(trained: Trained, title: str | None) -> About:
    """Return the title and the facts."""
    config = trained.config
    assert trained.classes is not None
    lines = [f"{len(trained.classes):,} classes"]
    if trained.run is not None:
        lines.append(f"run {trained.run}" + (f", step {trained.step:,}" if trained.step is not None else ""))
    lines += _accuracy(trained)
    lines.append(_preprocessing(config))
    return About(title or f"{model_name(config)} on {config.data.name}", tuple(lines))


def _accuracy(trained: Trained) -> list[str]:
    """Return the accuracy with its protocol, where it was measured at these weights; else nothing."""
    last = trained.history[-1] if trained.history else {}
    if last.get("step") != trained.step:
        return []
    for figures, protocol in (("val/acc1", "protocol"), ("val/trained_acc1", "trained_protocol")):
        told: dict[str, Any] = last.get(protocol, {})
        if figures in last and told.get("weights") == trained.weights:
            aside = "" if told.get("test_time_augmentation", "none") == "none" else f", {told['test_time_augmentation']} averaged"
            return [
                f"top-1 {last[figures]:.2f} % of {last['images']:,} {told['split']} images at {told['image_size']} px "
                f"({told['weights']} weights, {told['precision']}{aside})"
            ]
    return []


def _preprocessing(config: Config) -> str:
    data = config.data
    cut = "" if data.resize_size == data.eval_image_size else f", centre {data.eval_image_size} px"
    return f"shorter side to {data.resize_size} px ({data.eval_interpolation}, antialiased){cut}"


def examples(config: Config, wanted: str, limits: Limits) -> list[Path]:
    """Return the images that visitors may choose.

    Args:
        config: the model's; its val folder serves where `wanted` is auto.
        wanted: "auto", "none" or a folder: of images, or of a folder of images for each class.
        limits: for visitors' images, and so for these.

    Raises:
        ConfigError: the folder is none, or holds no image.
    """
    if wanted == "none":
        return []
    if wanted == "auto":
        val = getattr(config.data, "val_path", None)
        return _one_a_class(Path(val).expanduser(), config, limits) if val is not None else []
    folder = Path(wanted).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            "the examples", [Problem("examples", wanted, "no such folder. Give a folder of images, or examples=none.")]
        )
    found = _images(sorted(folder.iterdir()), config, limits) or _one_a_class(folder, config, limits)
    if not found:
        fix = f"holds no image that the page takes ({', '.join(FORMATS)}, at most {limits.max_upload_bytes >> 20} MiB)."
        raise ConfigError("the examples", [Problem("examples", wanted, fix)])
    return found


def _one_a_class(val: Path, config: Config, limits: Limits) -> list[Path]:
    """Return the first image of up to eight classes, evenly spread. A val that is no folder of folders gives none."""
    try:
        folders = sorted(entry for entry in val.iterdir() if entry.is_dir())
        spread = [
            folders[index * len(folders) // min(MOST_EXAMPLES, len(folders))] for index in range(min(MOST_EXAMPLES, len(folders)))
        ]
        firsts = [min(folder.iterdir()) for folder in spread]
    except (OSError, ValueError):
        return []
    return _images(firsts, config, limits)


def _images(files: Sequence[Path], config: Config, limits: Limits) -> list[Path]:
    found: list[Path] = []
    for file in files[:_MOST_LOOKED_AT]:
        try:
            if not file.is_file() or file.stat().st_size > limits.max_upload_bytes:
                continue
            look(file.read_bytes(), limits.max_pixels, config.data.resize_size)
        except (OSError, Refused):
            continue
        found.append(file)
        if len(found) == MOST_EXAMPLES:
            break
    return found
