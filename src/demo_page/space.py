"""The folder of a Hugging Face Space: the page, the model as ONNX, and nothing that needs torch or this project.

README.md           what Hugging Face reads (its YAML front matter), and people
app.py              starts the page
requirements.txt    gradio, onnxruntime, Pillow, numpy
demo_page/          the page's code, copied from this package
model.onnx          float32
space.json          labels, preprocessing, limits, what the page says of the model
examples/           images, where examples=<folder> was given
"""

import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from src.config import ConfigError, Problem
from src.demo_page.onnx_answering import OnnxAnswers, Preprocessing
from src.demo_page.space_app import EXAMPLES, MODEL, SETTINGS
from src.demo_page.words import About, Limits
from src.exporting.check import ExportError
from src.exporting.onnx_file import write_onnx
from src.predictor import Predictor
from src.trained import Trained, build_trained, labels_of
from src.training.precision import choose_precision

PACKAGE = "demo_page"
COPIED = ("words", "pictures", "result", "looks", "page", "guard", "server", "onnx_answering", "space_app")
_PACKAGES = ("gradio", "onnxruntime", "pillow", "numpy")
_APP = f'''"""Starts the page. `python app.py` serves it on this machine alone, `python app.py 8000` on that port."""

import sys
from pathlib import Path

from {PACKAGE}.space_app import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent, sys.argv[1:]))
'''
_CLOSE = 1e-3  # of logits that a float32 model gives in torch and in ONNX Runtime, relative to the largest


def write_space(trained: Trained, said: About, limits: Limits, shown: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Write a new folder, whole or not at all, and compare its model with torch's.

    Args:
        trained: what was opened; its classes are known.
        said: what the page says of the model.
        limits: for visitors.
        shown: images that visitors may choose; they are copied.
        folder: where; it must not exist, or be empty.

    Returns:
        for the result: the folder, its size in bytes, the largest difference of a probability between ONNX Runtime and torch.

    Raises:
        ConfigError: a package is missing, or the folder is taken or cannot be written.
        ExportError: the ONNX model computes something else.
    """
    versions = _versions()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise _unwritable(folder, "exists already. Give a new folder, or delete it.")
    made = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        made.chmod(0o755)
        difference = _fill(made, trained, said, limits, shown, versions)
        size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
        made.rename(folder)
    except OSError as error:
        raise _unwritable(folder, f"cannot be written ({error.strerror}). Give another folder.") from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    return {"space": str(folder), "bytes": size, "largest_difference": difference}


def _fill(made: Path, trained: Trained, said: About, limits: Limits, shown: Sequence[Path], versions: dict[str, str]) -> float:
    assert trained.classes is not None
    data = trained.config.data
    flip = trained.config.test_time_augmentation == "flip"
    preprocessing = Preprocessing(data.resize_size, data.eval_image_size, data.eval_interpolation, data.mean, data.std, flip)
    labels = labels_of(trained.classes)
    (made / "README.md").write_text(_readme(said, versions["gradio"]), encoding="utf-8")
    (made / "app.py").write_text(_APP, encoding="utf-8")
    (made / "requirements.txt").write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
    settings = {
        "title": said.title,
        "lines": said.lines,
        "labels": labels,
        "preprocessing": preprocessing._asdict(),
        "limits": limits._asdict(),
    }
    (made / SETTINGS).write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    code = made / PACKAGE
    code.mkdir()
    (code / "__init__.py").write_text('"""The page, copied from the project that trained the model."""\n', encoding="utf-8")
    for name in COPIED:
        shutil.copyfile(Path(__file__).with_name(f"{name}.py"), code / f"{name}.py")
    for number, path in enumerate(shown, start=1):
        (made / EXAMPLES).mkdir(exist_ok=True)
        shutil.copyfile(path, made / EXAMPLES / f"{number:02d}{path.suffix.lower()}")
    device = torch.device("cpu")
    precision = choose_precision("fp32", device)
    model = build_trained(trained, precision, device)
    write_onnx(trained, model, made / MODEL)
    return _compare(
        OnnxAnswers(made / MODEL, labels, preprocessing, limits.max_pixels),
        Predictor(trained.config, model, precision, device),
        data.eval_image_size,
    )


def _compare(ours: OnnxAnswers, predictor: Predictor, side: int) -> float:
    """Return the largest difference of a probability on four pictures: noise, grey, and two ramps.

    Raises:
        ExportError: the logits differ by more than rounding can.
    """
    ramp = np.broadcast_to(np.linspace(0, 255, side, dtype=np.uint8)[:, None, None], (side, side, 3))
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    crops = np.stack([noise, np.full_like(noise, 128), ramp, ramp.transpose(1, 0, 2)])
    theirs = predictor.logits_of(torch.from_numpy(crops).permute(0, 3, 1, 2))
    mine = torch.from_numpy(np.stack([ours.logits(crop) for crop in crops]))
    gap = (mine - theirs).abs().max() / theirs.abs().max().clamp(min=1)
    if not gap <= _CLOSE:
        raise ExportError(f"the ONNX model's logits differ from torch's by {gap:.2g} of the largest: the Space is not written")
    return float((mine.double().softmax(1) - theirs.double().softmax(1)).abs().max())


def _versions() -> dict[str, str]:
    """Return what the Space installs: the versions that are installed here, and so known to go together."""
    try:
        return {name: importlib.metadata.version(name) for name in _PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        fix = f"a Space needs {error.name}, which is not installed: pip install -e '.[demo]'"
        raise ConfigError("the installation", [Problem(str(error.name), None, fix)]) from error


def _readme(said: About, gradio: str) -> str:
    # https://huggingface.co/docs/hub/spaces-config-reference
    front = {
        "title": said.title,
        "sdk": "gradio",
        "sdk_version": gradio,
        "app_file": "app.py",
        "colorFrom": "blue",
        "colorTo": "gray",
        "pinned": False,
        "tags": ["image-classification"],
    }
    facts = "".join(f"- {line}\n" for line in said.lines)
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {said.title}\n\n{facts}\n"
        "Upload or paste an image; the page shows the five most probable classes. The model runs in ONNX Runtime on the CPU, on\n"
        "evaluation's preprocessing. Uploads are deleted after a short while, and nothing else is kept or sent anywhere.\n\n"
        "On your own machine: `pip install -r requirements.txt`, then `python app.py`.\n"
    )


def _unwritable(folder: Path, fix: str) -> ConfigError:
    return ConfigError("the Space's folder", [Problem("space", str(folder), fix)])
