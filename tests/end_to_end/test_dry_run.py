"""`dry_run=true` shows the plan of a run, and trains and writes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_the_plan_of_resnet50(tmp_path: Path, run_door: Callable[..., Any]) -> None:
    data = ["data=synthetic", "data.num_classes=1000", "data.num_train=5000", "data.stored_size=64", "data.image_size=32"]
    run = [
        "model=resnet50",
        "epochs=10",
        "batch_size=500",
        "max_local_batch_size=4",
        f"runs_dir={tmp_path / 'runs'}",
        "run_name=planned",
    ]
    done = run_door("dry_run=true", *data, *run, env={"COLUMNS": "200", "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()

    def shown(name: str) -> str:
        return next(line for line in lines if line.lstrip("│ ").startswith(name))

    assert "planned" in shown("run ")
    assert "25,557,032" in shown("parameters")
    assert "500 images = 1 rank x 4 a micro-batch x 125 accumulated" in shown("batch")
    assert "100 = 10 epochs x 10" in shown("steps")
    assert "5,000 train, 1,000 val, 1,000 classes" in shown("images")
    assert "0.1 first" not in shown("learning rate")
    assert "GFLOP an image forward" in shown("arithmetic")
    assert "98 MiB" not in shown("checkpoint"), "the optimizer's momentum is in a checkpoint, too"
    assert "195 MiB" in shown("checkpoint")
    for name in ("memory a rank", "one rank trains", "loader must deliver", "training takes"):
        assert any(character.isdigit() for character in shown(name))

    assert "2048 x 1 x 1" in shown("layer4 ")
    assert "BatchNorm2d" in shown("bn1")
    assert "2,049,000" in shown("fc")
    assert "dry run: nothing was trained or written" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
