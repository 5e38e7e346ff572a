"""docs/index.md and docs/watching.md, typed in order on a tenth of the demo: trained, profiled, compared, evaluated, exported."""

import json
from pathlib import Path

import pytest
import torch
import torchvision

from tests.docs.conftest import OpenShell
from tests.docs.guides import ROOT
from tests.docs.scenarios import Added, Scenario, Swap
from tests.docs.test_imagenet_guide import MODEL, SMALL, TINY
from tests.scale_models import write_imagefolder

DEMO = ROOT / "data/fashion_mnist"
THE_RUN = "'runs/<run_name>'"
NEWEST = '"$(ls -td runs/fashion_mnist-*/ | head -1)"'
SHORT = (
    Added("src.train experiment=demo", "data.subset=tiny data.val_subset=tiny epochs=1", "seconds instead of minutes"),
    Swap(THE_RUN, NEWEST, "the run before"),
)
INDEX = Scenario(
    "docs/index.md",
    (),
    (
        *SHORT,
        Swap("/datasets/imagenet", "{folder}", "a scale model lies in a scratch folder"),
        Swap("model=resnet50", "", SMALL),
        Added("data.path=", f"{TINY} epochs=1 schedule.warmup_epochs=0", SMALL),
        Added("src.export", "check_images=50", "seconds instead of a minute"),
    ),
    long=True,
)
WATCHING = Scenario(
    "docs/watching.md",
    (),
    (
        *SHORT,
        Added("dry_run=true", "estimate_seconds=2", "seconds instead of half a minute"),
        Swap(
            "checkpoint=resnet50.pth model=resnet50 data.path=/datasets/imagenet",
            "checkpoint={weights} model=resnet18 data.path={folder}",
            SMALL,
        ),
        Swap("/datasets/imagenet/test", "{folder}/test", "a scale model lies in a scratch folder"),
    ),
    long=True,
)
SCENARIOS = (INDEX, WATCHING)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not DEMO.is_dir(), reason="data/fashion_mnist is not there: run `make data`")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_the_pages_lead_from_a_first_run_to_a_model_for_others(scenario: Scenario, open_shell: OpenShell, tmp_path: Path) -> None:
    shell = open_shell(patience=600)
    (shell.project / "data").mkdir()
    (shell.project / "data/fashion_mnist").symlink_to(DEMO)
    folder = write_imagefolder(tmp_path / "imagenet", MODEL)
    weights = tmp_path / "resnet18.pth"
    classes = len(list((folder / "train").iterdir()))
    torch.save(torchvision.models.resnet18(num_classes=classes).state_dict(), weights)
    done = scenario.play(shell, folder=folder, weights=weights)
    results = [json.loads(ended.stdout.splitlines()[-1]) for ended in done if ended.stdout.strip().endswith("}")]
    assert any(result.get("status") == "finished" for result in results)
    assert list(shell.project.rglob("report.html"))
