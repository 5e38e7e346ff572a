"""The evaluation's door: what it opens, what it writes, what it refuses, and predictions of images without labels."""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.config import ConfigError, load, load_stored
from src.config.evaluate import load_evaluate
from src.evaluate import main
from src.predictor import Predictor, encoded
from src.trained import build_trained, open_trained
from src.training.precision import choose_precision
from tests.pictures import encode
from tests.unit.data.tars import write_tar

RunDoor = Callable[..., subprocess.CompletedProcess[str]]
CLASSES = ("ant", "bee", "cow", "dog", "elk", "fox")
MODEL = ("model=small_resnet", "model.width=4", "model.stem_stride=2")
DATA = ("data=imagefolder", "data.resize_size=18", "data.image_size=16", "eval_batch_size=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of 6 classes as a folder and as a tar, 21 without labels, and weights that are not trained."""
    root = tmp_path_factory.mktemp("evaluate")
    files = {f"{CLASSES[at % 6]}/{at:03}.JPEG": encode("jpeg", 20 + at % 9, 30 - at % 7, at) for at in range(40)}
    for split in ("train", "val"):
        for name, data in files.items():
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    write_tar(root / "val.tar", files)
    (root / "test").mkdir()
    for at in range(21):
        kind = "jpeg" if at % 3 else "png"
        (root / "test" / f"ILSVRC2012_test_{at + 1:08}.{'JPEG' if at % 3 else 'png'}").write_bytes(
            encode(kind, 25, 20 + at, 99 + at)
        )
    (root / "test" / "readme.txt").write_text("no image")
    torch.manual_seed(3)
    from src.models.build import build_model

    model = build_model(load(MODEL).model, num_classes=6)
    torch.nn.init.normal_(next(p for name, p in model.named_parameters() if name.endswith("fc.weight") or p.ndim == 2), std=1.0)
    torch.save(model.state_dict(), root / "weights.pth")
    return root


def typed(folder: Path, *more: str) -> list[str]:
    return [f"checkpoint={folder}/weights.pth", *MODEL, *DATA, f"data.path={folder}", f"data.cache_dir={folder}/cache", *more]


def answered(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, object]:
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_agree_with_the_figures_and_with_the_logits(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = answered(capsys, typed(folder, f"target={tmp_path}/t", "logits=true", "compare=pillow"))
    assert json.loads((tmp_path / "t" / "result.json").read_text()).items() <= said.items()
    with np.load(tmp_path / "t" / "logits.npz", allow_pickle=False) as found:
        logits, labels, images = found["logits"], found["labels"], found["images"]
    assert images[0] == "val/ant/000.JPEG" and (labels == [CLASSES.index(name.split("/")[1]) for name in images]).all()
    with np.load(tmp_path / "t" / "confusion.npz", allow_pickle=False) as found:
        confusion = found["counts"]
    assert all(
        confusion[label, other] == ((labels == label) & (logits.argmax(1) == other)).sum() for label, other in np.ndindex(6, 6)
    )
    assert said["val_acc1"] == 100 * confusion.trace() / 40
    table = rows(tmp_path / "t" / "per_class.csv")
    assert [int(row["images"]) for row in table] == np.bincount(labels).tolist()
    hits = [float(row["acc5"]) * int(row["images"]) / 100 for row in table]
    assert said["val_acc5"] == pytest.approx(100 * sum(hits) / 40)
    losses = [float(row["loss"]) * int(row["images"]) for row in table]
    assert said["val_loss"] == pytest.approx(sum(losses) / 40, rel=1e-9)
    pairs = rows(tmp_path / "t" / "confused.csv")
    assert sum(int(row["images"]) for row in pairs) == 40 - confusion.trace()
    with Image.open(tmp_path / "t" / "confusion.png") as picture:
        assert picture.width > 1000
    pillow = said["pillow"]
    assert isinstance(pillow, dict) and 0 < pillow["mean_abs_pixel"] < 1 and 0 < pillow["mean_abs_logit"] <= pillow["max_abs_logit"]


def test_another_loader_gives_the_same_and_keeps_how_images_are_prepared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = answered(capsys, typed(folder))
    tar = ("data=tar", f"data.val_path={folder}/val.tar", *DATA[1:], f"data.cache_dir={folder}/cache")
    second = answered(capsys, [f"checkpoint={folder}/weights.pth", *MODEL, *tar])
    assert second["val_loss"] == first["val_loss"] and second["protocol"] == first["protocol"]


def test_a_stored_configuration_takes_another_data_and_keeps_the_runs_own() -> None:
    stored = load(["data=fashion_mnist", "data.eval_interpolation=bicubic", "data.val_subset=tiny"]).model_dump(mode="json")
    data = load_stored(stored, ["data=tar", "data.path=/t", "eval_batch_size=7"]).data
    assert (data.name, data.resize_size, data.eval_image_size, data.mean) == ("tar", 28, 28, (0.286, 0.286, 0.286))
    assert (data.eval_interpolation, data.val_subset) == ("bicubic", "tiny")
    assert getattr(data, "val_path") == "/t/ILSVRC2012_img_val.tar"  # noqa: B009 (of one alternative of the union)
    assert load_stored(stored, ["data=imagefolder", "data.resize_size=40"]).data.resize_size == 40
    with pytest.raises(ConfigError) as caught:
        load_stored(stored, ["data=imagefodler", "model=resnet18", "data.resize_size=0"])
    assert "Did you mean imagefolder?" in str(caught.value) and "model = 'resnet18': cannot be exchanged" in str(caught.value)


def test_predictions_are_the_models_for_every_image_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = answered(capsys, typed(folder, f"test={folder}/test", f"target={tmp_path}"))
    assert (said["images"], said["status"]) == (21, "finished")
    found = rows(tmp_path / "predictions.csv")
    assert [row["file"] for row in found] == sorted(path.name for path in (folder / "test").glob("ILSVRC*"))
    trained = open_trained(folder / "weights.pth", typed(folder)[1:])
    device = torch.device("cpu")
    precision = choose_precision("fp32", device)
    predictor = Predictor(trained.config, build_trained(trained, precision, device), precision, device)
    for row in found:
        shares = predictor.logits([encoded((folder / "test" / row["file"]).read_bytes())]).double().softmax(1)[0]
        order = shares.sort(descending=True)
        assert [int(row[f"label_{place}"]) for place in range(1, 6)] == order.indices[:5].tolist()
        assert [row[f"class_{place}"] for place in range(1, 6)] == [CLASSES[label] for label in order.indices[:5]]
        assert [float(row[f"probability_{place}"]) for place in range(1, 6)] == pytest.approx(order.values[:5].tolist(), abs=2e-6)


@pytest.mark.long
def test_any_number_of_ranks_writes_the_same(folder: Path, tmp_path: Path, run_door: RunDoor) -> None:
    names = ("predictions.csv", "confusion.npz", "confused.csv", "logits.npz")
    for ranks in (None, 2, 3):
        for more in ([], [f"test={folder}/test"]):
            done = run_door(*typed(folder, *more, f"target={tmp_path}/{ranks}", "logits=true"), ranks=ranks, module="src.evaluate")
            assert done.returncode == 0, done.stderr
    for ranks in (2, 3):
        for name in names:
            assert (tmp_path / str(ranks) / name).read_bytes() == (tmp_path / "None" / name).read_bytes(), name
        for now, alone in zip(*(rows(tmp_path / at / "per_class.csv") for at in (str(ranks), "None")), strict=True):
            assert float(now.pop("loss")) == pytest.approx(float(alone.pop("loss")), rel=1e-12) and now == alone


def test_two_ranks_predict_and_count_as_one(folder: Path, tmp_path: Path, run_door: RunDoor) -> None:
    """In short: two ranks with a last batch that only one of them has."""
    assert main(typed(folder, f"test={folder}/test", f"target={tmp_path}/1")) == 0
    done = run_door(*typed(folder, f"test={folder}/test", f"target={tmp_path}/2"), ranks=2, module="src.evaluate")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "2" / "predictions.csv").read_bytes() == (tmp_path / "1" / "predictions.csv").read_bytes()
    assert len(done.stdout.splitlines()) == 1  # one rank speaks


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        code = main(arguments)
    except SystemExit as left:
        assert isinstance(left.code, int)
        code = left.code
    said = capsys.readouterr().err
    assert code == 2 and "Traceback" not in said, said
    return said


def test_bad_images_without_labels_are_all_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / "test", tmp_path / "test")
    whole = (tmp_path / "test" / "ILSVRC2012_test_00000002.JPEG").read_bytes()
    (tmp_path / "test" / "ILSVRC2012_test_00000002.JPEG").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "test" / "text.jpg").write_text("this is a text")
    said = refused(typed(folder, f"test={tmp_path}/test", f"target={tmp_path}/t"), capsys)
    assert "2 problems in the data" in said and "ILSVRC2012_test_00000002.JPEG: cannot be decoded" in said
    assert "text.jpg: is no image of a known format" in said
    assert not (tmp_path / "t" / "predictions.csv").exists()
    assert "holds no images" in refused(typed(folder, f"test={folder}/val", f"target={tmp_path}/t"), capsys)
    assert "No such file" in refused(typed(folder, f"test={folder}/nowhere", f"target={tmp_path}/t"), capsys)


def test_wrong_classes_architectures_and_places_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "val", tmp_path / "d" / "val")
    shutil.rmtree(tmp_path / "d" / "val" / "fox")
    said = refused([*typed(folder), f"data.path={tmp_path}/d"], capsys)
    assert "tell 6 classes apart, and the data has 5" in said
    said = refused([f"checkpoint={folder}/weights.pth", "data=imagefodler"], capsys)
    assert "2 problems" in said and "does not say its architecture" in said and "Did you mean imagefolder?" in said
    assert "lacks heads.head.weight" in refused([f"checkpoint={folder}/weights.pth", "model=vit_b_16"], capsys)
    wider = [text for text in typed(folder) if not text.startswith("model.width")]
    assert "has other shapes than the model" in refused(wider, capsys) and wider[1] == MODEL[0]
    (tmp_path / "file").write_text("")
    assert "cannot be made a folder" in refused(typed(folder, f"target={tmp_path}/file/t"), capsys)
    submission = typed(folder, f"test={folder}/test", f"target={tmp_path}", "submission=kaggle")
    assert "is about ImageNet's 1,000 classes, and these are 6 others" in refused(submission, capsys)
    assert "No such file" in refused([f"checkpoint={tmp_path}/nowhere.ckpt"], capsys)
    assert "neither a run's folder" in refused([f"checkpoint={tmp_path}"], capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["checkpoint: must be given"]),
        (["checkpoint=a", "weights=best"], ["weights = 'best': must be one of evaluated, trained"]),
        (["checkpoint=a", "checkpoint=b"], ["checkpoint: was given more than once"]),
        (["checkpoint=a", "test=b", "compare=pillow"], ["target: must be given with test", "compare = 'pillow'"]),
        (["checkpoint=a", "submission=kaggle", "logits=true"], ["submission = 'kaggle'", "logits = true: needs a place"]),
    ],
)
def test_every_mistake_at_the_door_is_told_at_once(arguments: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_evaluate(arguments)
    assert len(caught.value.problems) == len(said)
    assert all(any(str(problem).startswith(words) for problem in caught.value.problems) for words in said)


def test_paths_are_taken_as_typed_and_the_trainers_keys_are_handed_on() -> None:
    evaluate, rest = load_evaluate(["checkpoint=a=b,c.pth", "model=resnet18", "weights=trained", "data.path=x"])
    assert (evaluate.checkpoint, evaluate.weights, rest) == ("a=b,c.pth", "trained", ["model=resnet18", "data.path=x"])
