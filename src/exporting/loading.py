"""The few lines of Python with which others load an exported folder, without this project. They stand in the model card."""

from collections.abc import Mapping
from typing import Any

_AUXILIARY = {"googlenet", "inception_v3"}  # built with auxiliary heads unless told otherwise


def load_lines(description: Mapping[str, Any], result: Mapping[str, Any]) -> list[str] | None:
    """Return lines that make `model`, in a process that stands in the folder; None where no public code can.

    Plain torchvision or timm where the weights fit their models; else the exported program.
    """
    config, classes = description["config"]["model"], description["num_classes"]
    plain = config["blur_pool"] == "none" and result.get("pruned") != "channels" and "safetensors" in result["formats"]
    if plain and config["name"] in ("timm", "torchvision"):
        if config["name"] == "timm":
            made = ["import timm", f'model = timm.create_model("{config["arch"]}", num_classes={classes})']
        else:
            more = ", aux_logits=False, init_weights=False" if config["arch"] in _AUXILIARY else ""
            built = f'torchvision.models.get_model("{config["arch"]}", num_classes={classes}{more})'
            made = ["import torchvision", f"model = {built}"]
        return [
            made[0],
            "from safetensors.torch import load_file",
            "",
            made[1],
            'model.load_state_dict(load_file("model.safetensors"))',
            "model.eval()",
        ]
    if "torch_export" in result["formats"]:
        return ["import torch", "", 'model = torch.export.load("model.pt2").module()']
    return None


def preprocess_lines(description: Mapping[str, Any]) -> list[str]:
    """Return lines that turn image.jpg into `images` as in evaluation, and print the likeliest class."""
    how = description["preprocessing"]
    return [
        "import torch",
        "from PIL import Image",
        "from torchvision.transforms import v2",
        "",
        "preprocess = v2.Compose(",
        "    [",
        "        v2.PILToTensor(),",
        f"        v2.Resize({how['resize_size']}, v2.InterpolationMode.{how['interpolation'].upper()}, antialias=True),",
        f"        v2.CenterCrop({how['image_size']}),",
        "        v2.ToDtype(torch.float32, scale=True),",
        f"        v2.Normalize({how['mean']}, {how['std']}),",
        "    ]",
        ")",
        'images = preprocess(Image.open("image.jpg").convert("RGB"))[None]',
        "with torch.no_grad():",
        "    probabilities = model(images).softmax(1)[0]",
        'labels = open("labels.txt", encoding="utf-8").read().splitlines()',
        "print(labels[int(probabilities.argmax())], float(probabilities.max()))",
    ]
