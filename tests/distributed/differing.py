"""Two ranks that differ in one thing at a time, as two nodes may; writes down what each of them is told.

torchrun --nproc_per_node=2 tests/distributed/differing.py <folder>
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger

from src import agreement, distributed
from src.config import Config, ConfigError, Problem, load
from src.data.sources.synthetic import SyntheticSource
from src.resume_run import load_on_every_rank, require_shared
from src.training.checkpoint import Checkpoints
from src.training.checkpoint_file import SCHEMA

SETTINGS = ("data=synthetic", "model=small_resnet", "batch_size=8", "epochs=2", "schedule.warmup_epochs=0")
SECOND = os.environ["RANK"] == "1"


def config(*more: str) -> Config:
    return load([*SETTINGS, *(more if SECOND else ())])


def source(*, count: int = 20, **changed: Any) -> SyntheticSource:
    made = SyntheticSource(count=count, num_classes=3, stored_size=12, split="val")
    for name, value in changed.items() if SECOND else ():
        setattr(made, name, value)
    return made


def data(made: SyntheticSource) -> None:
    agreement.require_same_data({"train": source(), "val": made}, "synthetic")


def other_code() -> None:
    original = agreement._digest_of_code
    if SECOND:
        agreement._digest_of_code = lambda: "another"
    try:
        agreement.require_same_command(config())
    finally:
        agreement._digest_of_code = original


def other_torch() -> None:
    version = torch.__version__
    if SECOND:
        torch.__version__ = "2.99"
    try:
        agreement.require_same_command(config())
    finally:
        torch.__version__ = version


def collected() -> None:
    own = [Problem("model", "both", "is wrong"), *([Problem("data.engine", "dali", "is missing")] if SECOND else [])]
    raise ConfigError("test", agreement.problems_of_all(own))


def save(step: int, path: Path, weight: float) -> None:
    folder = path.parent / f"made-{os.environ['RANK']}"
    checkpoints = Checkpoints(folder)
    checkpoints.prepare()
    state = {"schema": SCHEMA, "step": step, "model": {"w": torch.full((3,), weight), "n": torch.tensor(1)}}
    checkpoints.save(state, [], None)
    os.replace(folder / "last.ckpt", path)


def resume(path: str) -> None:
    load_on_every_rank(Path(path), load([*SETTINGS, f"resume={path}"]))


def main(root: Path) -> None:
    world = distributed.world_from_environment()
    distributed.start(world, torch.device("cpu"))
    own = root / f"node{world.rank}"
    (own / "runs").mkdir(parents=True)
    os.chdir(own)  # so that one name is a file of its own on each
    save(7, own / "same.ckpt", 1.0)
    save(7, own / "other.ckpt", float(world.rank))
    if not SECOND:
        save(7, own / "missing.ckpt", 1.0)
    (own / "broken.ckpt").write_bytes((own / "same.ckpt").read_bytes()[: 300 if SECOND else None])
    (root / "shared").mkdir(exist_ok=True)
    cases: dict[str, Callable[[], object]] = {
        "nothing": lambda: agreement.require_same_command(config()),
        "paths": lambda: agreement.require_same_command(config("data.workers=3")),
        "settings": lambda: agreement.require_same_command(config("epochs=3", "model.width=8")),
        "code": other_code,
        "versions": other_torch,
        "same data": lambda: data(source()),
        "images": lambda: data(source(count=19 if SECOND else 20)),
        "classes": lambda: data(source(classes=("0", "2", "1"))),
        "labels": lambda: data(source(labels=np.roll(source().labels, 1))),
        "sizes": lambda: data(source(sizes=source().sizes + 1)),
        "problems": collected,
        "a shared folder": lambda: require_shared(root / "shared", config()),
        "folders": lambda: require_shared(Path("runs"), config()),
        "same checkpoint": lambda: resume("same.ckpt"),
        "another checkpoint": lambda: resume("other.ckpt"),
        "missing checkpoint": lambda: resume("missing.ckpt"),
        "broken checkpoint": lambda: resume("broken.ckpt"),
    }
    said: dict[str, list[str]] = {}
    for name, case in cases.items():
        said[name] = []
        listener = logger.add(lambda message, name=name: said[name].append(message.record["message"]), level="WARNING")
        try:
            case()
        except ConfigError as error:
            said[name].append(str(error))
        logger.remove(listener)
        distributed.gather(None)
    assert not list((root / "shared").iterdir()) or SECOND, "a mark is left"
    (root / f"rank{world.rank}.json").write_text(json.dumps(said))
    distributed.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
