"""README.md, typed in order: prepared, trained, evaluated, a rate found, on an ImageNet of four classes and a tenth of the demo."""

import json
from pathlib import Path

import pytest

from tests.docs.conftest import OpenShell
from tests.docs.guides import ROOT
from tests.docs.scenarios import Added, Scenario, Swap
from tests.docs.test_imagenet_guide import MODEL, OTHER_SUMS, SMALL, TINY, WANTED, images_of
from tests.scale_models import write_imagefolder, write_official

DEMO = ROOT / "data/fashion_mnist"
FOUR_CLASSES = "four classes stand for a thousand"
PREPARE = Scenario(
    "README.md",
    ("Prepare ImageNet",),
    (
        Swap("/datasets/download", "{source}", "scale models lie in a scratch folder"),
        Added("source=", "checksum=off", OTHER_SUMS),
    ),
)
TRAIN = Scenario(
    "README.md",
    ("Train",),
    (
        Swap("/datasets/imagenet", "{folder}", "a scale model lies in a scratch folder"),
        Swap("'runs/<run_name>/checkpoints/best.ckpt'", '"$(ls -d runs/ffcv-*)/checkpoints/best.ckpt"', "the run before"),
        Swap("'runs/<run_name>'", '"$(ls -d runs/fashion_mnist-*/)"', "the demo"),
        Added("src.audit", "windows=0", "a run of one short epoch has kept no checkpoint to replay from"),
        Swap("model=resnet50", "", SMALL),
        Added("data.path=", TINY, SMALL),
        Added("data=ffcv", TINY, SMALL),
        Added("model=resnet50", "epochs=1 schedule.warmup_epochs=0", "an epoch of three steps shows as much"),
        Added("optim=adam", "epochs=1 schedule.warmup_epochs=0", "an epoch of three steps shows as much"),
        Added("optim=sgd", "epochs=1 schedule.warmup_epochs=0", "an epoch of three steps shows as much"),
        Added("src.train experiment=demo", "data.subset=tiny data.val_subset=tiny epochs=1", "a minute instead of three"),
        Added("lr_finder", "num_iter=40 data.subset=tiny", "seconds instead of minutes"),
    ),
    long=True,
)
SCENARIOS = (PREPARE, TRAIN)


def test_the_readme_prepares(open_shell: OpenShell, tmp_path: Path) -> None:
    shell = open_shell()
    *_, verified = PREPARE.play(shell, source=write_official(tmp_path / "official", MODEL))
    assert images_of(shell.project / "data/Imagenet") == WANTED
    assert json.loads(verified.stdout.splitlines()[-1])["verified"] == 3


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DEMO.is_dir(), reason="data/fashion_mnist is not there: run `make data`")
def test_the_readme_trains(open_shell: OpenShell, tmp_path: Path) -> None:
    shell = open_shell()
    (shell.project / "data").mkdir()
    (shell.project / "data/fashion_mnist").symlink_to(DEMO)
    write_imagefolder(shell.project / "data/Imagenet", MODEL)
    done = TRAIN.play(shell, folder=write_imagefolder(tmp_path / "imagenet", MODEL))
    results = [json.loads(ended.stdout.splitlines()[-1]) for ended in done if ended.stdout.strip().endswith("}")]
    assert any(result.get("images") == 6 for result in results), results
    assert list((shell.project / "runs/lr_finder").glob("*/*.png"))
