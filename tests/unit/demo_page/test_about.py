"""What the page says of a model, and which images it offers."""

from pathlib import Path

import pytest

from src.config import ConfigError
from src.demo_page.about import about, examples
from src.demo_page.space import write_space
from src.demo_page.words import Limits
from src.trained import open_trained
from tests.pictures import encode, write_files

LIMITS = Limits(100_000, 10**6, 1, 5, 60, 250_000, 50)
PROTOCOL = {"split": "val", "image_size": 32, "weights": "ema", "precision": "fp32", "test_time_augmentation": "none"}
ENTRY = {"step": 7, "val/acc1": 76.123, "images": 50_000, "protocol": PROTOCOL}


def test_accuracy_is_told_with_its_protocol_and_only_where_it_is_of_these_weights(run: Path) -> None:
    trained = open_trained(run, [])
    assert not any("top-1" in line for line in about(trained, None).lines)
    told = trained._replace(history=[ENTRY], weights="ema")
    assert "top-1 76.12 % of 50,000 val images at 32 px (ema weights, fp32)" in about(told, None).lines
    for other in (told._replace(weights="trained"), told._replace(step=8)):
        assert not any("top-1" in line for line in about(other, None).lines)
    flipped = told._replace(history=[{**ENTRY, "protocol": {**PROTOCOL, "test_time_augmentation": "flip"}}])
    assert any("fp32, flip averaged" in line for line in about(flipped, None).lines)


def test_title_and_preprocessing(run: Path) -> None:
    trained = open_trained(run, ["data.eval_interpolation=bicubic"])
    assert about(trained, None).title == "small_resnet on imagefolder" and about(trained, "Mine").title == "Mine"
    assert "shorter side to 40 px (bicubic, antialiased), centre 32 px" in about(trained, None).lines


def test_examples_are_images_by_content_and_what_a_visitor_may_upload(run: Path, tmp_path: Path) -> None:
    config = open_trained(run, []).config
    names = {f"{number:02d}.dat": encode("jpeg", seed=number) for number in range(12)}
    files = {**names, "00a.jpg": b"text", "00b.jpg": bytes(200_000), "sub/x.jpg": encode("jpeg")}
    folder = write_files(tmp_path, files)
    assert [path.name for path in examples(config, str(folder), LIMITS)] == sorted(names)[:8]
    assert examples(config, "none", LIMITS) == []
    for wrong in (tmp_path / "sub" / "none", write_files(tmp_path / "texts", {"a.txt": b"x"})):
        with pytest.raises(ConfigError, match="examples"):
            examples(config, str(wrong), LIMITS)


def test_examples_of_their_own_are_one_of_each_class_where_val_is_a_folder(run: Path, tmp_path: Path) -> None:
    classes = [f"class{number:02d}" for number in range(20)]
    write_files(tmp_path, {f"val/{name}/{letter}.png": encode("png") for name in classes for letter in "ab"})
    found = examples(open_trained(run, [f"data.path={tmp_path}"]).config, "auto", LIMITS)
    assert [path.relative_to(tmp_path).as_posix() for path in found][:3] == [
        "val/class00/a.png",
        "val/class02/a.png",
        "val/class05/a.png",
    ]
    assert len({path.parent for path in found}) == 8
    assert examples(open_trained(run, []).config, str(tmp_path / "val"), LIMITS) == found
    assert examples(open_trained(run, [f"data.path={tmp_path / 'none'}"]).config, "auto", LIMITS) == []


def test_a_space_is_not_written_over_anything(run: Path, tmp_path: Path) -> None:
    trained = open_trained(run, [])
    write_files(tmp_path, {"taken/x": b"mine"})
    with pytest.raises(ConfigError, match="exists already"):
        write_space(trained, about(trained, None), LIMITS, [], tmp_path / "taken")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_space(trained, about(trained, None), LIMITS, [], tmp_path / "taken" / "x" / "y")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"] and (tmp_path / "taken/x").read_bytes() == b"mine"
