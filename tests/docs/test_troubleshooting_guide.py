"""docs/troubleshooting.md: its commands, on a small ImageFolder. Its messages are held by test_messages.py."""

import json
from pathlib import Path

import pytest

from tests.docs.conftest import OpenShell
from tests.docs.scenarios import Added, Scenario
from tests.scale_models import scale_model, write_imagefolder

GUIDE = "docs/troubleshooting.md"
MODEL = "model=small_resnet model.width=8 data.image_size=32 data.eval_image_size=32 data.resize_size=36"
SMALL = "a model and images for two processor cores"
FEW = "the set has 72 images"
LOADERS = "torchvision/folder,torchvision-v2-dataloader"
LOOK = Scenario(GUIDE, ("Let the program look first",), (Added("src.train", f"{MODEL} batch_size=16", SMALL),), long=True)
SLOW = Scenario(
    GUIDE,
    ("Slow",),
    (
        Added("src.train", f"{MODEL} batch_size=8 epochs=1 schedule.warmup_epochs=0", FEW),
        Added("src.benchmark", f"images=32 image_size=32 batch=8 workers=2 only={LOADERS}", "two loaders show as much as twenty"),
    ),
    long=True,
)
LEARN = Scenario(
    GUIDE,
    ("It does not learn",),
    (Added("src.train", MODEL, SMALL), Added("src.lr_finder", f"{MODEL} batch_size=16", SMALL)),
    long=True,
)
SCENARIOS = (LOOK, SLOW, LEARN)

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def with_images(shell_folder: Path) -> None:
    write_imagefolder(shell_folder / "data/Imagenet", scale_model(24))


def test_the_program_looks_first(open_shell: OpenShell) -> None:
    shell = open_shell()
    with_images(shell.project)
    (looked,) = LOOK.play(shell)
    assert "images/s" in looked.stdout + looked.stderr
    assert not list((shell.project / "runs").glob("*/checkpoints"))


def test_slow_loading_is_looked_into(open_shell: OpenShell) -> None:
    shell = open_shell()
    with_images(shell.project)
    *_, compared = SLOW.play(shell)
    assert any("trace" in file.name for file in (shell.project / "runs/profiled").rglob("*"))
    assert all(name in compared.stdout + compared.stderr for name in LOADERS.split(","))


def test_a_batch_by_heart_and_a_rate(open_shell: OpenShell) -> None:
    shell = open_shell()
    with_images(shell.project)
    *_, searched = LEARN.play(shell)
    rows = [json.loads(line) for line in (shell.project / "runs/by-heart/metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < 0.75 * losses[0]  # a model of width 8 in 60 steps; the guide's 0.1 is ResNet-50's
    assert "suggest" in searched.stdout + searched.stderr
