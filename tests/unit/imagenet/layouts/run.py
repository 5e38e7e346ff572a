"""Runs a layout's units without the stages: what would stand in the target."""

from pathlib import Path

from src.config.prepare import PrepareConfig, load_prepare
from src.imagenet.layouts.recognise import find_layout
from src.imagenet.pieces import Found


def order(*settings: str) -> PrepareConfig:
    """What was typed."""
    return load_prepare(settings)


def found_in(source: Path, *settings: str) -> Found:
    """Recognise it."""
    return find_layout(source, order(*settings))


def tree_of(found: Found, side: Path, start: int = 0) -> dict[str, bytes]:
    """Path in the target to bytes, flat validation images in their classes' folders; of each unit from piece number `start` on."""
    tree: dict[str, bytes] = {}
    flat: dict[str, bytes] = {}
    for unit in found.units:
        for place, folder, name, content in unit.pieces(start):
            data = content if isinstance(content, bytes) else content.read_bytes()
            if place == "side":
                (side / name).parent.mkdir(parents=True, exist_ok=True)
                (side / name).write_bytes(data)
            elif place == "val" and not folder:
                assert name not in flat
                flat[name] = data
            else:
                path = "/".join(part for part in (place, folder, name) if part)
                assert path not in tree
                tree[path] = data
    labels = found.labels(side)
    for name, data in flat.items():
        tree[f"val/{labels[name.removesuffix('.JPEG')]}/{name}"] = data
    return dict(sorted(tree.items()))
