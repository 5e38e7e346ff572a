"""What a member of Kaggle's and Academic Torrents' tree is, by its path."""

import pytest

from src.batch import DataError
from src.imagenet.pieces import MOST_BYTES
from src.imagenet.streams.tree import Seen, member_of

DATA = "ILSVRC/Data/CLS-LOC"


@pytest.mark.parametrize("prefix", ["", "ILSVRC/"])
def test_images_have_their_place(prefix: str) -> None:
    member = member_of(f"{prefix}Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG", 1)
    assert member is not None and member[:3] == ("train", "n01440764", "n01440764_10026.JPEG")
    for split in ("val", "test"):
        member = member_of(f"{prefix}Data/CLS-LOC/{split}/ILSVRC2012_{split}_00000293.JPEG", 1)
        assert member is not None and member[:3] == (split, "", f"ILSVRC2012_{split}_00000293.JPEG")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (
            "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml",
            "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml",
        ),
        ("ImageSets/CLS-LOC/train_cls.txt", "ILSVRC/ImageSets/CLS-LOC/train_cls.txt"),
        ("LOC_val_solution.csv", "LOC_val_solution.csv"),
        ("imagenet/LOC_synset_mapping.txt", "LOC_synset_mapping.txt"),
    ],
)
def test_files_of_labels_have_theirs(path: str, name: str) -> None:
    assert member_of(path, 10) == ("side", "", name, -1)


@pytest.mark.parametrize(
    "path",
    [
        "ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_1.xml",
        "LOC_train_solution.csv",
        "readme.txt",
        "a/b/c/LOC_val_solution.csv",
    ],
)
def test_the_rest_is_passed_over(path: str) -> None:
    assert member_of(path, 10) is None


@pytest.mark.parametrize(
    "path",
    [
        f"{DATA}/train/n01440764/n01443537_1.JPEG",
        f"{DATA}/train/n01440764/n01440764_01.JPEG",
        f"{DATA}/train/n01440764/n01440764_1.jpeg",
        f"{DATA}/train/n01440764/N01440764_1.JPEG",
        f"{DATA}/train/n01440764/n01440764_\N{FULLWIDTH DIGIT ONE}.JPEG",
        f"{DATA}/train/n01440764/.n01440764_1.JPEG",
        f"{DATA}/train/n01440764/a/n01440764_1.JPEG",
        f"{DATA}/train/n01440764_1.JPEG",
        f"{DATA}/train/n01440764/n01440764_1234567890.JPEG",
        f"{DATA}/val/ILSVRC2012_test_00000001.JPEG",
        f"{DATA}/val/n01440764/ILSVRC2012_val_00000001.JPEG",
        f"{DATA}/val/ILSVRC2012_val_00000001.JPEG\n",
        f"{DATA}/other/a.JPEG",
        "ILSVRC/Data/DET/train/a.JPEG",
    ],
)
def test_a_stranger_among_the_images_is_refused_by_name(path: str) -> None:
    with pytest.raises(DataError) as caught:
        member_of(path, 1)
    assert path.strip() in str(caught.value) or repr(path) in str(caught.value)


@pytest.mark.parametrize("size", [0, MOST_BYTES + 1, 2**50])
def test_what_is_no_image_by_its_size_is_refused(size: int) -> None:
    with pytest.raises(DataError, match="that is no image"):
        member_of(f"{DATA}/val/ILSVRC2012_val_00000001.JPEG", size)
    if size:
        with pytest.raises(DataError, match="no file of labels"):
            member_of("LOC_val_solution.csv", size)


@pytest.mark.parametrize(
    "name",
    [
        f"{DATA}/train/n01440764/n01440764_0.JPEG",
        f"{DATA}/val/ILSVRC2012_val_00000001.JPEG",
        f"{DATA}/test/ILSVRC2012_test_99999999.JPEG",
    ],
)
def test_an_image_met_twice_is_named(name: str) -> None:
    seen = Seen()
    others = [f"{DATA}/train/n01440764/n01440764_{number}.JPEG" for number in range(1, 50)]
    for path in (name, *others, name):
        member = member_of(path, 1)
        assert member is not None
        seen.add(member)
    with pytest.raises(DataError, match=f"holds .*{name.rpartition('/')[2]} twice"):
        seen.check()


def test_images_of_one_number_in_other_places_are_others() -> None:
    seen = Seen()
    paths = [
        f"{DATA}/train/{wnid}/{wnid}_{n}.JPEG" for wnid in ("n00000001", "n00000002", "n99999999") for n in (0, 1, 999_999_999)
    ]
    paths += [f"{DATA}/{split}/ILSVRC2012_{split}_{n:08d}.JPEG" for split in ("val", "test") for n in (0, 1, 99_999_999)]
    for path in paths:
        member = member_of(path, 1)
        assert member is not None
        seen.add(member)
    seen.check()


def test_a_file_of_labels_met_twice_is_named() -> None:
    seen = Seen()
    member = member_of("LOC_val_solution.csv", 5)
    assert member is not None
    seen.add(member)
    with pytest.raises(DataError, match=r"holds LOC_val_solution\.csv twice"):
        seen.add(member)
