"""Damage what stands beside data: the indexes of folders, tars and Parquet files, and the sidecar of a .beton."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from src.batch import DataError, Source
from src.config import Config, ConfigError, load
from src.data.build import build_sources
from tests.end_to_end.damage import damage
from tests.end_to_end.small_data import write_small_data

FORMS = {"folder": "data=imagefolder", "beton": "data=ffcv", "tar": "data=tar", "parquet": "data=hf"}


class Indexes:
    """The same images in every form, with what is found in them when nothing is damaged."""

    def __init__(self, root: Path) -> None:
        self.root = write_small_data(root, train=24, val=9)
        self.forms = [form for form in FORMS if (root / form).is_dir()]
        self.configs = {form: self._config(form) for form in self.forms}
        self.older: dict[str, list[Path]] = {}
        fewer = write_small_data(root / "older", train=12, val=6)
        for form in self.forms:  # what the index would be of other data
            opened(self._config(form, fewer))
            self.older[form] = [path for path in (fewer / form).rglob("*") if _is_index(path)]
        self.known = {form: opened(config) for form, config in self.configs.items()}
        self.sound = {path: path.read_bytes() for form in self.forms for path in (root / form).rglob("*") if _is_index(path)}
        logger.remove()

    def trial(self, chance: random.Random) -> tuple[dict[str, str], str, list[str]]:
        """Damage one or two, open, judge. Returns what was done, the outcome, and what is wrong."""
        form = chance.choice(self.forms)
        mine = [path for path in self.sound if path.is_relative_to(self.root / form)]
        others = [*(path for path in self.sound if path not in mine), self.root / "tar" / "train.tar"]
        done = {}
        for path in chance.sample(mine, chance.choice((1, 1, 2))):
            older = [found for found in self.older[form] if found.name == path.name]
            how = damage(path, chance, others=others, older=older)
            if how is not None:
                done[f"{form}/{path.name}"] = how
        try:
            return done, *self._judge(form, done)
        finally:
            for path in mine:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                path.write_bytes(self.sound[path])

    def _judge(self, form: str, done: dict[str, str]) -> tuple[str, list[str]]:
        try:
            for _ in range(2):  # what the first one writes anew is read by the second
                found = opened(self.configs[form])
                for split, known in self.known[form].items():
                    wrong = [name for name in known if not _equal(known[name], found[split][name])]
                    gone = done.get(f"{form}/{split}.beton.json") == "delete"  # classes have numbers then, as is documented
                    if wrong and not (gone and wrong == ["classes"]):
                        return "resumed", [f"{split}: other {', '.join(wrong)}"]
        except (DataError, ConfigError) as error:
            named = any(Path(path).name in str(error) or how == "delete" for path, how in done.items())
            return "refused", [] if named and ". " in str(error) else [f"names no file, or no remedy: {error}"]
        except Exception as error:  # noqa: BLE001 (whatever it is, a user would see a traceback)
            return "wrong", [f"{type(error).__name__}: {error}"]
        return "resumed", []

    def _config(self, form: str, root: Path | None = None) -> Config:
        folder = (root or self.root) / form
        ends = {"tar": ".tar", "parquet": ".parquet"}
        paths = [f"data.{split}_path={folder / split}{ends[form]}" for split in ("train", "val")] if form in ends else []
        engine = ["data.engine=torchvision"] if form == "beton" else []
        return load([FORMS[form], *(paths or [f"data.path={folder}"]), *engine, f"data.cache_dir={self.root / 'cache'}"])


def opened(config: Config) -> dict[str, dict[str, Any]]:
    """Open both splits, and return all that training would use."""
    sources = build_sources(config.data, threads=1, progress=lambda done, total: None)
    return {split: told(source) for split, source in zip(("train", "val"), sources, strict=True)}


def told(source: Source) -> dict[str, Any]:
    encoded = [source.read(index) for index in range(len(source))]
    return {
        "classes": source.classes,
        "labels": source.labels.copy(),
        "sizes": source.sizes.copy(),
        "names": [source.name(index) for index in range(len(source))],
        "bytes": [bytes(image.data) for image in encoded],
        "faults": dict(getattr(source, "faults", {})),
    }


def _equal(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


def _is_index(path: Path) -> bool:
    return path.name.endswith((".index.npz", ".beton.json"))
