"""The model card of an exported folder: README.md as Hugging Face reads it, written from config.json and what was measured."""

import shlex
import time
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from src.exporting.about import recorded
from src.exporting.loading import load_lines, preprocess_lines

_HUB = {  # data sets' names on the Hub
    "imagenet": "ILSVRC/imagenet-1k",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "imagenette": "frgfm/imagenette",
}
_GROUPS = ("model", "optim", "schedule", "augment", "average")
_KNOBS = ("seed", "epochs", "batch_size", "precision", "loss", "label_smoothing", "max_grad_norm")
_FILES = {
    "model.safetensors": "weights, bit for bit those of the checkpoint",
    "model.pt2": "torch.export program: PyTorch runs it without the model's code",
    "model.onnx": "ONNX, any batch size",
    "model.int8.onnx": "ONNX with 8-bit integers (post-training quantisation)",
    "config.json": "classes, preprocessing, the run's whole configuration and history",
    "labels.txt": "the classes' names for people, one a line",
}


def model_card(title: str, description: Mapping[str, Any], result: Mapping[str, Any], *, license_name: str) -> str:
    """Return README.md.

    Args:
        title: the model's name.
        description: what config.json holds.
        result: the door's result: files, checks, latency.
        license_name: as Hugging Face spells it.
    """
    front = yaml.safe_dump(_metadata(title, description, result, license_name), sort_keys=False, allow_unicode=True, width=1000)
    parts = [f"---\n{front}---\n\n# {title}"]
    for section in (_what, _figures, _use, _files, _training, _limits):
        parts.append("\n".join(section(description, result)).strip())
    if license_name == "unknown":
        parts.append("The license of these weights was not stated when they were exported.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(title: str, description: Mapping[str, Any], result: Mapping[str, Any], license_name: str) -> dict[str, Any]:
    data = _data_set(description)
    for_timm = "/" not in description["architecture"] and bool(description["pretrained_cfg"].get("classifier"))
    metadata: dict[str, Any] = {
        "license": license_name,
        "library_name": "timm" if for_timm else "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", *(["timm"] if for_timm else []), *(["onnx"] if "onnx" in result["formats"] else [])],
    }
    if data in _HUB:
        metadata["datasets"] = [_HUB[data]]
    metadata["metrics"] = ["accuracy"]
    figures = _best_figures(description, result)
    if figures is not None:
        entry = {
            "task": {"type": "image-classification", "name": "Image classification"},
            "dataset": {"type": _HUB.get(data, data), "name": data, "split": "val"},
            "metrics": [
                {"type": "accuracy", "name": f"top-{k} accuracy (%)", "value": round(figures[f"acc{k}"], 4)} for k in (1, 5)
            ],
        }
        metadata["model-index"] = [{"name": title, "results": [entry]}]
    return metadata


def _data_set(description: Mapping[str, Any]) -> str:
    if description["num_classes"] == 1000 and description["classes"][0] == "n01440764":
        return "imagenet"
    return str(description["config"]["data"]["name"])


def _best_figures(description: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, float] | None:
    """Return acc1 and acc5 as the run recorded them, else as they were counted here, where it was on the whole split."""
    entry = recorded(description)
    if entry is not None:
        return {"acc1": entry["val/acc1"], "acc5": entry["val/acc5"]}
    checked = result["check"]
    return checked["model"] if checked["all"] and "acc1" in checked["model"] else None


def _what(description: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    shown = ", ".join(description["labels"][:10]) + (", ..." if description["num_classes"] > 10 else "")
    size = description["preprocessing"]["image_size"]
    yield (
        f"An image classifier: `{description['architecture']}`, {result['parameters']:,} parameters, {size} x {size} px, "
        f"{description['num_classes']} classes ({shown})."
    )
    yield f"Weights: {description['weights']}, of step {_number(description['step'])} of the run `{description['run']}`."


def _figures(description: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    yield "## Figures\n"
    entry = recorded(description)
    if entry is not None:
        protocol = ", ".join(f"{key} {value}" for key, value in entry["protocol"].items())
        yield "| top-1 | top-5 | loss | images |\n|---:|---:|---:|---:|"
        yield f"| {entry['val/acc1']:.3f} % | {entry['val/acc5']:.3f} % | {entry['val/loss']:.5f} | {entry['images']:,} |\n"
        yield f"Counted by the run itself. Protocol: {protocol}.\n"
    else:
        yield "The run recorded no evaluation of these very weights.\n"
    if "pruning" in result:
        yield from _pruning(result["pruning"])
    yield from _checks(result["check"], result["formats"])
    if "latency" in result:
        yield from _latencies(result["latency"])


def _checks(check: Mapping[str, Any], formats: Mapping[str, Any]) -> Iterator[str]:
    compared = {name: form for name, form in formats.items() if "max_difference" in form}
    if not compared:
        return
    on = f"{check['images']:,} images of the validation split" if check["real"] else f"{check['images']:,} images of noise"
    yield f"Each format beside the PyTorch model, in float32 on a CPU, on {on}:\n"
    yield "| format | bytes | top-1 | largest difference of a logit | other predictions |\n|---|---:|---:|---:|---:|"
    accuracy = f"{check['model']['acc1']:.3f} %" if "acc1" in check["model"] else "-"
    yield f"| PyTorch | - | {accuracy} | - | - |"
    for name, form in compared.items():
        accuracy = f"{form['acc1']:.3f} %" if "acc1" in form else "-"
        different = f"{form['different_predictions']:,}"
        yield f"| {name} | {form['bytes']:,} | {accuracy} | {form['max_difference']:.3g} | {different} |"
    yield ""


def _pruning(told: Mapping[str, Any]) -> Iterator[str]:
    how = f"{told['share']:.0%} of the weights ({told['kind']}), then {told['epochs']} epochs of training"
    yield f"Pruned: {how}; top-1 on {told['images']:,} images of the validation split:\n"
    yield "| | top-1 | parameters | not zero | bytes | bytes, compressed |\n|---|---:|---:|---:|---:|---:|"
    for name in ("before", "after"):
        size = told[name]
        counts = " | ".join(f"{size[key]:,}" for key in ("parameters", "nonzero", "file_bytes", "compressed_bytes"))
        yield f"| {name} | {size['acc1']:.3f} % | {counts} |"
    yield ""


def _latencies(latency: Mapping[str, Any]) -> Iterator[str]:
    yield f"Milliseconds a forward on {latency['cpu']}, {latency['threads']} threads, median (95th percentile):\n"
    batches = [key for key in latency if key.startswith("batch_")]
    yield f"| format | {' | '.join(key.replace('_', ' ') for key in batches)} |\n|---|{'---:|' * len(batches)}"
    for name in latency[batches[0]]:
        cells = [f"{latency[key][name]['median_ms']:.2f} ({latency[key][name]['p95_ms']:.2f})" for key in batches]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _use(description: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    yield "## Use\n"
    lines = load_lines(description, result)
    if lines is None:
        yield "These files are read by the project that wrote them: `python -m src.evaluate checkpoint=<this folder>`."
        return
    code = "\n".join([*lines, "", *(line for line in preprocess_lines(description) if line not in lines or not line)])
    yield f"No code of the project that trained it is needed:\n\n```python\n{code}\n```"
    if "/" not in description["architecture"] and description["pretrained_cfg"].get("classifier"):
        yield "\ntimm reads the folder as well: `timm.create_model('local-dir:<this folder>', pretrained=True)`."
    if "onnx" in result["formats"]:
        yield "\nONNX Runtime, on the same `images`:\n\n```python"
        yield 'import os\n\nos.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it reports to its maker otherwise'
        yield 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("model.onnx")'
        yield 'logits = session.run(["logits"], {"images": images.numpy()})[0]\n```'


def _files(description: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    yield "## Files\n"
    made = {form["file"] for form in result["formats"].values()} | {"config.json", "labels.txt"}
    for name, what in _FILES.items():
        if name in made:
            yield f"- `{name}`: {what}"
    opset = f" The ONNX file is of opset {result['opset']}." if "opset" in result else ""
    shape = " x ".join(str(side) for side in description["input"]["shape"])
    yield f"\nEvery format takes `images`, float32, {shape}, prepared as above, and gives `logits`.{opset}"


def _training(description: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    config = description["config"]
    yield "## Training\n"
    told = description["provenance"]
    if told is not None:
        command = shlex.join(str(word) for word in told.get("command", []))
        if command:
            yield f"```\n{command}\n```\n"
        if told.get("git_commit"):
            yield f"- commit: `{told['git_commit']}`{' with uncommitted changes' if told.get('git_dirty') else ''}"
        if told.get("started"):
            yield f"- started: {time.strftime('%Y-%m-%d', time.gmtime(float(told['started'])))}"
        yield f"- device: {told.get('device')}, {told.get('world_size')} process(es)"
        packages = ", ".join(f"{name} {version}" for name, version in told.get("packages", {}).items())
        yield f"- versions: Python {told.get('python')}, {packages}"
    data = config["data"]
    sizes = f"trained at {data['image_size']} px, evaluated at {data['eval_image_size']} px"
    yield f"- data: {data['name']}, subset {data['subset']}, {sizes}"
    yield "\n| key | value |\n|---|---|"
    for key in _KNOBS:
        yield f"| {key} | {_cell(config[key])} |"
    for group in _GROUPS:
        for key, value in config[group].items():
            yield f"| {group}.{key} | {_cell(value)} |"


def _limits(description: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    yield "## Limits\n"
    yield (
        f"It answers with one of its {description['num_classes']} classes for any image, also for one that shows none of them. "
        "Its probabilities were not calibrated. The figures hold for images like those of the validation split, prepared as above; "
        "other preprocessing, other cameras and other subjects change them. "
        "It was not examined for bias, nor for use where errors harm."
    )


def _cell(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"
