"""Archives with random damage, of every kind: refused with a reason, or the right files; never a crash, a hang or a wrong class."""

import gzip
import random
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from src.batch import DataError
from src.config import ConfigError
from src.imagenet.layouts.imagenette import IMAGENETTE
from tests.pictures import encode
from tests.scale_models import kaggle_files, scale_model, tar_of, write_huggingface, write_official, write_torrent
from tests.unit.imagenet.layouts.run import found_in, tree_of
from tests.unit.imagenet.streams.test_huggingface import NAMES, write_shard

MODEL = scale_model(3, train=2, val=1, test=2)
FEW, MANY = 60, 1_000
NETTE = {f"{split}/{wnid}/a.JPEG": encode("jpeg", 16, 16) for split in ("train", "val") for wnid in sorted(IMAGENETTE)}
Files = Mapping[str, bytes]


class Kind(NamedTuple):
    """A source of one file to be damaged.

    Attributes:
        write: the whole source.
        file: which is damaged.
        files: that it must give.
        exact: whether sums tell damage within an image, too: in a plain tar or parquet only published md5 sums do.
        packed: damage what is within the gzip, and pack it again.
    """

    write: Callable[[Path], object]
    file: str
    files: Files = MODEL.files
    exact: bool = False
    packed: bool = False


def write_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "imagenet-object-localization-challenge.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in kaggle_files(MODEL).items():
            archive.writestr(name, data)


def write_older_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "imagenet-object-localization-challenge.zip", "w") as archive:
        archive.writestr("imagenet_object_localization_patched2019.tar.gz", gzip.compress(tar_of(kaggle_files(MODEL)), 1))


def write_imagenette(folder: Path) -> None:
    files = {f"imagenette2/{name}": data for name, data in NETTE.items()}
    (folder / "imagenette2.tgz").write_bytes(gzip.compress(tar_of(files), 1, mtime=0))


LABELLED = [(encode("jpeg", 16, 16, seed=n), f"ILSVRC2012_val_{n:08d}.JPEG", 37 * n) for n in range(1, 25)]


def write_val_shard(folder: Path) -> None:
    """Classes by labels only."""
    write_shard(folder / "validation-00000-of-00001.parquet", LABELLED, NAMES, write_page_checksum=True)


def val_tree() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        write_val_shard(Path(folder))
        return tree_of(found_in(Path(folder)), Path(folder))


KINDS = {
    "class tars": Kind(write_official, "ILSVRC2012_img_train.tar"),
    "val tar": Kind(write_official, "ILSVRC2012_img_val.tar"),
    "devkit": Kind(write_official, "ILSVRC2012_devkit_t12.tar.gz", exact=True),
    "torrent": Kind(lambda folder: write_torrent(folder, MODEL), "ILSVRC2017_CLS-LOC.tar.gz", exact=True),
    "torrent within": Kind(lambda folder: write_torrent(folder, MODEL, csv=True), "ILSVRC2017_CLS-LOC.tar.gz", packed=True),
    "torrent as tar": Kind(lambda folder: write_torrent(folder, MODEL, compressed=False), "ILSVRC2017_CLS-LOC.tar"),
    "zip": Kind(write_zip, "imagenet-object-localization-challenge.zip", exact=True),
    "older zip": Kind(write_older_zip, "imagenet-object-localization-challenge.zip", exact=True),
    "shard": Kind(lambda folder: write_huggingface(folder, MODEL, shards=1), "data/train-00000-of-00001.parquet"),
    "shard with labels": Kind(write_val_shard, "validation-00000-of-00001.parquet", val_tree()),
    "imagenette": Kind(write_imagenette, "imagenette2.tgz", NETTE, exact=True),
    "imagenette within": Kind(write_imagenette, "imagenette2.tgz", NETTE, packed=True),
}
for _name in ("class tars", "val tar", "devkit"):
    KINDS[_name] = KINDS[_name]._replace(write=lambda folder: write_official(folder, MODEL))


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes, cut, double, move."""
    at, length = rng.randrange(len(data)), rng.choice((1, 1, 2, 8, 100, 512, 4096))
    part, rest = data[at : at + length], data[at + length :]
    match rng.randrange(8):
        case 0:
            part = bytes(byte ^ 1 << rng.randrange(8) for byte in part)
        case 1:
            part = bytes(len(part))
        case 2:
            part = rng.randbytes(len(part))
        case 3:
            part, rest = b"", b""
        case 4:
            part = b""
        case 5:
            part += part
        case 6:
            part += rng.randbytes(length)
        case 7:
            part, rest = rest[: len(part)], part + rest[len(part) :]
    return data[:at] + part + rest


@pytest.mark.parametrize(
    ("kind", "times"), [*((kind, FEW) for kind in KINDS), *(pytest.param(kind, MANY, marks=pytest.mark.long) for kind in KINDS)]
)
def test_random_damage_is_refused_or_changes_no_class(tmp_path: Path, kind: str, times: int) -> None:
    made = KINDS[kind]
    made.write(tmp_path)
    path = tmp_path / made.file
    whole = path.read_bytes()
    content = gzip.decompress(whole) if made.packed else whole
    assert tree_of(found_in(tmp_path), tmp_path / "side") == made.files
    refused = 0
    for seed in range(times):
        changed = damaged(content, random.Random(f"{kind} {seed}"))
        path.write_bytes(gzip.compress(changed, 1) if made.packed else changed)
        try:
            with tempfile.TemporaryDirectory(dir=tmp_path) as side:
                found = found_in(tmp_path)
                tree = tree_of(found, Path(side))
                listed = found.listed(Path(side))
        except (DataError, ConfigError) as error:
            assert str(error)
            refused += 1
            continue
        except KeyError as error:  # an image without a label: the arrangement names it
            assert "ILSVRC2012_val_" in str(error)
            refused += 1
            continue
        except AssertionError as error:  # an image that is there twice: writing refuses it
            assert tree_of.__code__.co_filename == error.__traceback__.tb_next.tb_frame.f_code.co_filename  # type: ignore[union-attr]
            refused += 1
            continue
        told = listed is not None and listed != set(tree)  # by the source's own lists, when it is arranged
        refused += told
        # A plain tar has no sum of its own: what was cut out at its seams is missed by counts and by the published md5.
        assert set(tree) <= set(made.files) and (told or len(tree) >= len(made.files) - 3), f"seed {seed}"
        if made.exact:
            assert told or len(tree) == len(made.files), f"seed {seed}"
            assert all(data == made.files[name] for name, data in tree.items()), f"seed {seed}"
    assert refused > times / 10, "damage that nobody sees is no test"


def test_the_damage_is_of_every_kind() -> None:
    data = bytes(range(256)) * 40
    lengths = {len(damaged(data, random.Random(seed))) - len(data) for seed in range(300)}
    assert any(more > 0 for more in lengths) and any(more < 0 for more in lengths) and 0 in lengths
