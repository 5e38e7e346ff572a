"""From a trained model to the folder: write each format, compare it with the model, measure it, and tell all of it in the card."""

import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor, nn

from src.batch import Source
from src.config import Config, ConfigError, Problem
from src.config.export import ExportKeys
from src.config.model import CustomModel
from src.data.subset import Subset, choose_subset
from src.exporting.about import describe, title_of
from src.exporting.calibration import calibration_of
from src.exporting.card import model_card
from src.exporting.check import Compared, ExportError, Runs, compare, require_batch_sizes, require_close, require_kept
from src.exporting.folder import new_folder, require_free
from src.exporting.images import batches_of, first_of
from src.exporting.int8 import write_int8
from src.exporting.onnx_file import opset_of, write_program_as_onnx
from src.exporting.onnx_runtime import open_onnx
from src.exporting.program import export_program, read_program, run_program, write_program
from src.exporting.prune_run import Pruning, prune_trained, pruned_name
from src.exporting.speed import speeds
from src.files import write_atomically
from src.machine import cpus_per_rank
from src.model_folder import WEIGHTS_FILE, write_description, write_weights
from src.session import Place, joined, open_val
from src.tracking.progress import counting
from src.trained import Trained, build_trained, labels_of, open_trained, other_classes
from src.training.precision import choose_precision

__all__ = ["ExportError", "export"]
CPU = torch.device("cpu")
BATCH_SIZES = (1, 3, 64)
_FILES = {"safetensors": WEIGHTS_FILE, "torch_export": "model.pt2", "onnx": "model.onnx", "int8": "model.int8.onnx"}
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def export(keys: ExportKeys, others: Sequence[str]) -> dict[str, Any]:
    """Export a trained model.

    Args:
        keys: what was typed.
        others: what replaces values of the run's configuration.

    Returns:
        the result for stdout's last line.

    Raises:
        ConfigError: for what cannot be done, before anything is written.
        ExportError: if a format does not compute what the model computes; nothing is written then.
        DataError: for an image of the check that cannot be read.
    """
    start = time.monotonic()
    assert keys.checkpoint is not None, "seen to at the door"
    _require_packages(keys)
    trained = open_trained(Path(keys.checkpoint), others, trained=keys.weights == "trained")
    title = title_of(trained) if keys.prune is None else pruned_name(title_of(trained), keys.prune_kind, keys.prune)
    target = Path(keys.target).expanduser() if keys.target is not None else Path("exports", title)
    require_free(target, overwrite=keys.overwrite)
    with joined(trained.config) as place:
        if place.world.size > 1:
            fix = "exporting is the work of one process. Type python -m src.export, without torchrun."
            raise ConfigError("the world size", [Problem("world size", place.world.size, fix)])
        source, pruning = None, None
        if keys.prune is not None:
            asked = Pruning(keys.prune, keys.prune_kind, keys.finetune_epochs, keys.finetune_lr, keys.latency)
            trained, pruning = prune_trained(trained, asked, place)
            require_kept("pruning", pruning["lost_points"], most=keys.max_drop)
        if keys.check_images != 0 or trained.classes is None:
            source, trained = _open_images(keys, trained, place)
        with new_folder(target, overwrite=keys.overwrite) as folder:
            result = _fill(folder, keys, trained, source, place, pruning)
    logger.info(f"{target} is made and checked")
    checkpoint = {"status": "finished", "checkpoint": str(trained.path), "target": str(target), "run": trained.run}
    return {**checkpoint, "step": trained.step, "weights": trained.weights, **result, "seconds": round(time.monotonic() - start, 1)}


def _require_packages(keys: ExportKeys) -> None:
    if not {"onnx", "int8"} & set(keys.formats):
        return
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        fix = f"onnx and int8 need {', '.join(missing)}. Type: pip install -e '.[onnx]', or leave these formats out."
        raise ConfigError("the command line", [Problem("formats", ",".join(keys.formats), fix)])


def _open_images(keys: ExportKeys, trained: Trained, place: Place) -> tuple[Source, Trained]:
    """Open the val split, cut down to the images that are wanted; a state dict's classes are the data's."""
    try:
        source = open_val(trained.config, place)
    except ConfigError as error:
        fix = "These are the images that the formats are compared on. check_images=0 compares on noise alone."
        raise ConfigError(error.stage, [*error.problems, Problem("check_images", keys.check_images, fix)]) from error
    if trained.classes is None:
        trained = trained._replace(classes=source.classes)
    if trained.classes != source.classes:
        raise other_classes(trained, source.classes)
    if isinstance(keys.check_images, int) and 0 < keys.check_images < len(source):
        source = Subset(source, choose_subset(source.labels, keys.check_images))
    return source, trained


def _fill(
    folder: Path, keys: ExportKeys, trained: Trained, source: Source | None, place: Place, pruning: dict[str, Any] | None
) -> dict[str, Any]:
    """Make all files of the folder. Returns what was measured."""
    config = trained.config
    model = build_trained(trained, choose_precision("fp32", CPU), CPU)
    logger.info(f"{title_of(trained)}: {trained.weights} weights of step {trained.step}")
    eager = _eager(model)
    forms = _write_formats(folder, keys, trained, model)
    quantised = _write_int8(folder, keys, config, forms, place) if "int8" in keys.formats else {}
    result: dict[str, Any] = {
        "pruned": trained.pruned,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "formats": {
            name: {"file": file, "bytes": _size(folder, file)} for name, file in _FILES.items() if (folder / file).exists()
        },
    }
    if quantised:
        result["formats"]["int8"] |= quantised
    if pruning is not None:
        result["pruning"] = pruning
    if "onnx" in forms:
        result["opset"] = opset_of(folder / _FILES["onnx"])
    result["check"] = _check(keys, config, eager, forms, source, place, result["formats"])
    if keys.latency:
        logger.info("measuring latency")
        result["latency"] = speeds({"pytorch": eager, **forms}, config.data.eval_image_size)
        if "int8" in forms:  # beside the file that it was made of, by the same runtime
            both = {name: forms[name] for name in ("onnx", "int8")}
            result["latency_int8"] = speeds(both, config.data.eval_image_size)
    description = describe(trained, model)
    write_atomically(folder / "labels.txt", "".join(f"{_line(name)}\n" for name in labels_of(trained.classes or ())).encode())
    card = model_card(title_of(trained), description, result, license_name=keys.license)
    write_atomically(folder / "README.md", card.encode())
    write_description(folder, description)
    if "safetensors" in keys.formats:
        _require_read_back(folder, model, config)
    return result


def _write_formats(folder: Path, keys: ExportKeys, trained: Trained, model: nn.Module) -> dict[str, Runs]:
    """Write every format that is wanted, and open those that run by themselves."""
    forms: dict[str, Runs] = {}
    if "safetensors" in keys.formats:
        write_weights(folder, trained.state_dict, pruned=trained.pruned)
    if set(keys.formats) <= {"safetensors"}:
        return forms
    logger.info("tracing the model")
    program = export_program(model, trained.config.data.eval_image_size)
    if "torch_export" in keys.formats:
        write_program(program, folder / _FILES["torch_export"])
        forms["torch_export"] = partial(run_program, read_program(folder / _FILES["torch_export"]))
    if {"onnx", "int8"} & set(keys.formats):
        write_program_as_onnx(program, folder / _FILES["onnx"])
        forms["onnx"] = open_onnx(folder / _FILES["onnx"], threads=torch.get_num_threads())
    return forms


def _write_int8(folder: Path, keys: ExportKeys, config: Config, forms: dict[str, Runs], place: Place) -> dict[str, Any]:
    """Quantise the ONNX file from training images. Returns how."""
    threads = torch.get_num_threads()
    with counting(place.console, "reading image headers") as progress:
        images = calibration_of(config, keys.calibration_images, threads=2 * cpus_per_rank(place.world), progress=progress)
    logger.info(f"int8: ranges from {images.ranges.images:,} training images")
    path = folder / _FILES["int8"]
    how = write_int8(folder / _FILES["onnx"], path, images.ranges, images.held_out, threads=threads)
    forms["int8"] = open_onnx(path, threads=threads)
    return {"calibration": str(how.way), "calibration_images": how.images, "tried": how.tried}


def _check(
    keys: ExportKeys,
    config: Config,
    eager: Runs,
    forms: dict[str, Runs],
    source: Source | None,
    place: Place,
    formats: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Compare every form with the model, put the figures into `formats`, and refuse what is too far away."""
    exact = {name: form for name, form in forms.items() if name != "int8"}
    size = config.data.eval_image_size
    noise = torch.randn(max(BATCH_SIZES), 3, size, size, generator=torch.Generator().manual_seed(0))
    real = source is not None and keys.check_images != 0
    pixels = first_of(config, source, place.world, noise) if real and source is not None else noise
    require_batch_sizes(eager, exact, pixels, BATCH_SIZES, most=keys.max_difference)
    if real and source is not None:
        with counting(place.console, "comparing the formats") as progress:
            compared = compare(eager, forms, batches_of(config, source, place.world, progress))
    else:
        logger.warning("check_images=0: the formats were compared on noise, not on images")
        compared = compare(eager, forms, [(noise, None)])
    for name, form in compared.forms.items():
        formats[name] |= form.figures(labelled=compared.labelled)
        if name in exact:
            require_close(name, form, most=keys.max_difference)
        _tell(name, compared)
        if name not in exact and compared.labelled:
            lost = 100 * (compared.model.hits[0] - form.hits[0]) / form.images
            formats[name]["lost_points"] = lost
            require_kept(name, lost, most=keys.max_drop)
    told: dict[str, Any] = {"images": compared.model.images, "real": real}
    told["all"] = real and source is not None and not isinstance(source, Subset)
    told |= {"batch_sizes": list(BATCH_SIZES), "smallest_margin": compared.smallest_margin}
    return told | {"model": compared.model.figures(labelled=compared.labelled)}


def _tell(name: str, compared: Compared) -> None:
    form = compared.forms[name]
    accuracy = f", top-1 {100 * form.hits[0] / form.images:.3f} %" if compared.labelled else ""
    same = "the same predictions" if not form.different else f"{form.different} other predictions"
    logger.info(f"{name}: logits differ by at most {form.max_difference:.3g}, {same} on {form.images:,} images{accuracy}")
    if form.different:
        gap = form.ties[0][1]
        logger.warning(f"{name}: where it predicts another class, the model held the two classes {gap:.3g} apart or less")


def _require_read_back(folder: Path, model: nn.Module, config: Config) -> None:
    """Open the folder as everybody will, and see that it is the model, bit for bit.

    Raises:
        ExportError: it is not.
    """
    size = config.data.eval_image_size
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    factory = [f"model.factory={config.model.factory}"] if isinstance(config.model, CustomModel) else []
    again = build_trained(open_trained(folder, factory), choose_precision("fp32", CPU), CPU)
    if not torch.equal(_eager(again)(images), _eager(model)(images)):
        raise ExportError("safetensors: the folder, read back, gives other logits than the model. Nothing was written.")


def _eager(model: nn.Module) -> Runs:
    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(images)
        return logits

    return run


def _size(folder: Path, file: str) -> int:
    """Return a file's bytes, those of ONNX's data beside it included."""
    return sum(part.stat().st_size for part in folder.glob(f"{file}*") if part.name in (file, f"{file}.data"))


def _line(name: str) -> str:
    return " ".join(name.split())
