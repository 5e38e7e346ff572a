"""Parquet shards: official names, classes that names and labels agree on, and a refusal by shard and row."""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.batch import DataError
from src.config import ConfigError
from src.imagenet.layouts.huggingface import are_imagenets, find, looks_like
from src.imagenet.streams.shard_names import list_shards
from src.imagenet.wnids import imagenet_wnids, imagenet_words
from tests.scale_models import scale_model, write_huggingface
from tests.security.test_hostile_data import Memory
from tests.unit.imagenet.layouts.run import order, tree_of

MODEL = scale_model(12)
NAMES = tuple(imagenet_words()[wnid] for wnid in imagenet_wnids())
ROOT = Path(__file__).resolve().parents[4]
Sample = tuple[bytes | None, str | None, int | None]


def write_shard(path: Path, rows: Sequence[Sample], names: Sequence[str] | None = NAMES, **settings: Any) -> Path:
    features: dict[str, Any] = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    told = {"huggingface": json.dumps({"info": {"features": features}})} if names is not None else None
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())], metadata=told)
    table = pa.Table.from_pylist([{"image": {"bytes": data, "path": name}, "label": label} for data, name, label in rows], schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **settings)
    return path


def tree(source: Path) -> dict[str, bytes]:
    return tree_of(find(source, order()), source)


@pytest.mark.parametrize("settings", [{}, {"compression": "snappy"}, {"compression": "zstd"}, {"row_group_size": 5}, {"shards": 1}])
def test_shards_give_the_models_tree_under_official_names(tmp_path: Path, settings: dict[str, Any]) -> None:
    source = write_huggingface(tmp_path / "in", MODEL, **settings)
    for place in (source, source / "data"):
        assert looks_like(place) and tree(place) == MODEL.files


def test_from_any_row_on_the_rest_is_the_same(tmp_path: Path) -> None:
    for unit in find(write_huggingface(tmp_path, MODEL, row_group_size=5), order()).units:
        whole = list(unit.pieces(0))
        assert len(whole) == unit.files
        for start in range(len(whole) + 1):
            assert list(unit.pieces(start)) == whole[start:]


def test_shards_are_found_by_a_glob_alone_and_in_the_hubs_own_folders(tmp_path: Path) -> None:
    source = write_huggingface(tmp_path / "in", MODEL)
    assert {shard.split for shard in list_shards(source)} == {"train", "val", "test"}
    assert {key.split("/")[0] for key in tree(source / "data" / "validation-*.parquet")} == {"val"}
    assert looks_like(source / "data" / "train-00000-of-00003.parquet")
    for split in ("train", "validation", "test"):
        (tmp_path / "hub" / split).mkdir(parents=True)
        for number, path in enumerate(sorted((source / "data").glob(f"{split}-*"))):
            path.rename(tmp_path / "hub" / split / f"{number:04d}.parquet")
    assert tree(tmp_path / "hub") == MODEL.files
    assert not looks_like(tmp_path / "nothing" / "*.parquet") and not looks_like(tmp_path / "none")


def test_shards_that_are_missing_are_all_named(tmp_path: Path) -> None:
    source = write_huggingface(tmp_path, MODEL, shards=4)
    for name in ("train-00001-of-00004", "train-00003-of-00004", "test-00000-of-00004"):
        (source / "data" / f"{name}.parquet").unlink()
    with pytest.raises(ConfigError, match=r"(?s)train: 2 of 4 shards are not there \(00001, 00003\).*test: 1 of 4 shards .*00000"):
        find(source, order())


def test_shards_of_two_writings_are_refused(tmp_path: Path) -> None:
    write_huggingface(write_huggingface(tmp_path, MODEL, shards=2), MODEL, shards=3)
    with pytest.raises(ConfigError, match="train: shards of several writings lie side by side"):
        find(tmp_path, order())


def test_a_class_comes_from_the_label_where_no_name_tells_it(tmp_path: Path) -> None:
    """By position among ImageNet's names, never by name: there are two cranes and two maillots."""
    wnids = imagenet_wnids()
    both = [wnids.index(wnid) for wnid in ("n02012849", "n03126707", "n03710637", "n03710721")]
    rows = [(b"%d" % label, f"ILSVRC2012_val_{number:08d}.JPEG", label) for number, label in enumerate(both, 1)]
    write_shard(tmp_path / "validation-00000-of-00001.parquet", rows)
    assert tree(tmp_path) == {f"val/{wnids[label]}/{name}": data for data, name, label in rows}


def test_images_without_a_name_are_numbered_through_their_split(tmp_path: Path) -> None:
    for shard in range(2):
        rows = [(b"%d" % (3 * shard + row), None, 10 * row) for row in range(3)]
        write_shard(tmp_path / f"train-0000{shard}-of-00002.parquet", rows)
    wnids = imagenet_wnids()
    found = find(tmp_path, order())
    assert tree_of(found, tmp_path) == {f"train/{wnids[10 * (n % 3)]}/train_{n:08d}.JPEG": b"%d" % n for n in range(6)}
    assert any("without a name" in note for note in found.notes)


@pytest.mark.parametrize(
    ("row", "split", "words"),
    [
        ((b"x", "n01440764_1_n01440764.JPEG", 1), "train", "is of class n01440764 by its name, and of n01443537 by its label 1"),
        ((b"x", "n01440764_1_n01443537.JPEG", 1), "train", "names two classes"),
        ((b"x", "../../n01440764_1_n01440764.JPEG", 0), "train", "names no image of the train split"),
        ((b"x", "/etc/n01440764_1.JPEG", 0), "train", "names no image"),
        ((b"x", "a/n01440764_1.JPEG", 0), "train", "names no image"),
        ((b"x", "n01440764_1.JPEG\0", 0), "train", "names no image"),
        ((b"x", ".n01440764_1.JPEG", 0), "train", "names no image"),
        ((b"x", "ILSVRC2012_val_00000001.JPEG", 0), "train", "names no image of the train split"),
        ((b"x", "ILSVRC2012_val_00000001.JPEG", -1), "test", "names no image of the test split"),
        ((b"x", "ILSVRC2012_test_00000001.JPEG", 5), "test", "has the label 5, and those of the test split are secret"),
        ((b"x", "n01440764_1.JPEG", 1000), "train", "has the label 1000, and there are 1,000 classes"),
        ((b"x", "n01440764_1.JPEG", -1), "train", "has no label"),
        ((b"x", "n01440764_1.JPEG", None), "train", "has no label"),
        ((None, "n01440764_1.JPEG", 0), "train", "holds no bytes"),
        ((b"", "n01440764_1.JPEG", 0), "train", "holds 0 bytes: that is no image"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_by_shard_and_number(tmp_path: Path, row: Sample, split: str, words: str) -> None:
    good: Sample = (b"y", f"ILSVRC2012_{split}_00000009.JPEG", -1) if split == "test" else (b"y", "n01440764_9_n01440764.JPEG", 0)
    path = write_shard(tmp_path / f"{split}-00000-of-00001.parquet", [good, good, row])
    with pytest.raises(DataError, match=f"{path}, row 2, .*{words}"):
        list(find(tmp_path, order()).units[0].pieces(0))


def test_names_tell_imagenet_by_position_only() -> None:
    names = list(NAMES)
    assert are_imagenets(names)
    cranes = [at for at, name in enumerate(names) if name == "crane"]
    assert len(cranes) == 2
    assert are_imagenets([*names[: cranes[1]], "crane2", *names[cranes[1] + 1 :]]), "as Hugging Face has it"
    names[10], names[11] = names[11], names[10]
    assert not are_imagenets(names), "two exchanged"
    assert not are_imagenets(sorted(NAMES)) and not are_imagenets(NAMES[:999]) and not are_imagenets([str(n) for n in range(1000)])


@pytest.mark.parametrize("names", [tuple(sorted(NAMES)), NAMES[:500], None])
def test_labels_that_count_otherwise_are_not_taken_for_imagenets(tmp_path: Path, names: Sequence[str] | None) -> None:
    named: Sample = (b"x", "n01443537_5_n01443537.JPEG", 77)
    write_shard(tmp_path / "train-00000-of-00001.parquet", [named], names)
    assert tree(tmp_path) == {"train/n01443537/n01443537_5.JPEG": b"x"}
    path = write_shard(tmp_path / "train-00000-of-00001.parquet", [named, (b"x", None, 77)], names)
    with pytest.raises(DataError, match=f"{path}, row 1, .*its label counts classes that are not ImageNet's"):
        tree(tmp_path)


def test_shards_that_number_classes_differently_are_refused(tmp_path: Path) -> None:
    row: Sample = (b"x", "n01440764_1.JPEG", 0)
    write_shard(tmp_path / "train-00000-of-00002.parquet", [row])
    other = write_shard(tmp_path / "train-00001-of-00002.parquet", [row], NAMES[:9])
    with pytest.raises(ConfigError, match=f"{other} numbers other classes"):
        find(tmp_path, order())


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"image": [b"x"], "label": [0]}),
        pa.table({"image": [{"bytes": "x", "path": "a"}], "label": [0]}),
        pa.table({"image": [{"bytes": b"x"}], "label": [0]}),
        pa.table({"image": [{"bytes": b"x", "path": "a"}], "label": ["0"]}),
        pa.table({"image": [[{"bytes": b"x", "path": "a"}]], "label": [0]}),
        pa.table({"pixels": [1]}),
    ],
    ids=["plain", "text", "no path", "words", "lists", "others"],
)
def test_other_columns_are_refused_with_those_that_are_expected(tmp_path: Path, table: Any) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    pq.write_table(table, path)
    with pytest.raises(ConfigError, match=f"{path} has the columns .*expected are image: struct"):
        find(tmp_path, order())


def test_damaged_files_are_named_all_at_once(tmp_path: Path) -> None:
    row: Sample = (b"x" * 5_000, "n01440764_1.JPEG", 0)
    first = write_shard(tmp_path / "train-00000-of-00002.parquet", [row])
    second = write_shard(tmp_path / "train-00001-of-00002.parquet", [row])
    first.write_bytes(first.read_bytes()[:-50])
    second.write_bytes(b"<html>")
    with pytest.raises(ConfigError, match=f"(?s){first} cannot be read as Parquet.*{second} cannot be read as Parquet"):
        find(tmp_path, order())


def test_a_page_that_claims_to_grow_beyond_reason_is_not_inflated(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "train-00000-of-00001.parquet", [(bytes(2**26), "n01440764_1.JPEG", 0)], compression="zstd")
    assert path.stat().st_size < 2**17
    unit = find(tmp_path, order()).units[0]
    memory = Memory()
    with pytest.raises(DataError, match=f"{path} .*claims that .* bytes hold"):
        list(unit.pieces(0))
    assert memory.peak() < 32 * 2**20


def test_memory_is_that_of_a_row_group_not_of_a_shard(tmp_path: Path) -> None:
    image = random.Random(0).randbytes(2**18)
    rows: list[Sample] = [(image, f"n01440764_{number}.JPEG", 0) for number in range(1_000)]
    write_shard(tmp_path / "train-00000-of-00001.parquet", rows, compression="none", row_group_size=50, use_dictionary=False)
    del rows
    unit = find(tmp_path, order()).units[0]
    memory = Memory()
    assert sum(1 for _ in unit.pieces(0)) == 1_000
    assert memory.peak() < 80 * 2**20, "of 250 MiB"


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-00000-of-00001.parquet", [(b"x", "n01440764_1.JPEG", 0)])
    script = "import sys; sys.modules['pyarrow'] = None; from src.prepare import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, f"source={tmp_path}", f"target={tmp_path / 'target'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install 'imagenet-trainer[hf]'" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("pip install") == 1
