"""docs/troubleshooting.md: its commands, on a small ImageFolder. Its messages are held by test_messages.py."""

import json

import pytest

from tests.docs.conftest import OpenShell
from tests.docs.scenarios import Added, Scenario
from tests.scale_models import scale_model, write_imagefolder

MODEL = "model=small_resnet model.width=8 data.image_size=32 data.eval_image_size=32 data.resize_size=36"
LOADERS = "torchvision/folder,torchvision-v2-dataloader"
SMALL = "a model and images for two processor cores"
ALL = Scenario(
    "docs/troubleshooting.md",
    changes=(
        Added("src.train", MODEL, SMALL),
        Added("src.lr_finder", f"{MODEL} batch_size=16", SMALL),
        Added("dry_run=true", "batch_size=16", "the set has 72 images"),
        Added("debug=profile", "batch_size=8 epochs=1 schedule.warmup_epochs=0", "the set has 72 images"),
        Added("src.benchmark", f"images=32 image_size=32 batch=8 workers=2 only={LOADERS}", "two loaders show as much as twenty"),
    ),
    long=True,
)
SCENARIOS = (ALL,)


@pytest.mark.long
def test_the_commands(open_shell: OpenShell) -> None:
    shell = open_shell()
    write_imagefolder(shell.project / "data/Imagenet", scale_model(24))
    done = ALL.play(shell)
    results = {
        command.text.split()[2] + command.text.split()[-1]: ended for command, ended in zip(ALL.commands(), done, strict=True)
    }
    rows = [json.loads(line) for line in (shell.project / "runs/by-heart/metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < losses[0] / 4  # a model of width 8; the guide's 0.1 is ResNet-50's
    assert any("trace" in file.name for file in (shell.project / "runs/profiled").rglob("*"))
    assert "suggest" in (found := results["src.lr_findernum_iter=100"]).stdout + found.stderr
