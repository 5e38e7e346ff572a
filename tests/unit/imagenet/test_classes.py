"""The class list: by folder, never by name; and ImageNet's own names without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from src.batch import DataError
from src.imagenet.classes import order_warning, read_classes, write_classes
from src.imagenet.wnids import imagenet_wnids, imagenet_words


def test_labels_are_places_among_the_sorted_folders(tmp_path: Path) -> None:
    write_classes(tmp_path / "classes.tsv", ["n03126707", "n02012849", "a"], {"a": "one\tname\nor two", "n02012849": "not this"})
    assert (tmp_path / "classes.tsv").read_text() == "0\ta\tone name or two\n1\tn02012849\tcrane\n2\tn03126707\tcrane\n"
    assert read_classes(tmp_path / "classes.tsv") == (("a", "n02012849", "n03126707"), ("one name or two", "crane", "crane"))


def test_a_folder_of_any_name_comes_back(tmp_path: Path) -> None:
    folders = ["ça", "\udcff", "white space", "1"]
    write_classes(tmp_path / "classes.tsv", folders, {})
    assert read_classes(tmp_path / "classes.tsv") == (tuple(sorted(folders)), ("",) * 4)


@pytest.mark.parametrize(
    "text", ["0\ta\n", "0 a x\n", "1\ta\tx\n", "0\t\tx\n", "0\tb\tx\n1\ta\tx\n", "0\ta\tx\n1\ta\tx\n", "0\ta\tx\n\n", "x\ta\tx\n"]
)
def test_a_list_that_is_not_ours_is_refused_by_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "classes.tsv").write_text(text)
    with pytest.raises(DataError, match=r"classes.tsv, line \d"):
        read_classes(tmp_path / "classes.tsv")


def test_the_thousand_classes_are_sorted_and_two_are_called_crane() -> None:
    wnids, words = imagenet_wnids(), imagenet_words()
    assert len(wnids) == 1000 and list(wnids) == sorted(set(wnids)) and set(words) == set(wnids)
    assert wnids[0] == "n01440764" and wnids[999] == "n15075141" and wnids[65] == "n01751748"
    assert words["n01440764"] == "tench, Tinca tinca"
    assert sorted(wnid for wnid in wnids if words[wnid] == "crane") == ["n02012849", "n03126707"]


def test_numbers_as_class_names_are_warned_of_where_they_sort_otherwise_than_they_count() -> None:
    warning = order_warning(map(str, range(1, 11)))
    assert warning is not None
    assert "1 is label 0, 10 is label 1, 2 is label 2" in warning and "(1 to 01)" in warning
    assert order_warning(["01", "02", "10"]) is None
    assert order_warning(["1", "2", "9"]) is None
    assert order_warning(["1", "10", "2", "a"]) is None
    assert order_warning([]) is None


def test_layouts_classes_and_names_are_read_without_torch_timm_or_pillow() -> None:
    code = (
        "import sys\n"
        "from src.imagenet.layouts import recognise\n"
        "import src.imagenet.classes, src.imagenet.wnids\n"
        "from src.imagenet.layouts.recognise import LAYOUTS, modules_of\n"
        "assert len(src.imagenet.wnids.imagenet_words()) == 1000\n"
        "[modules_of(name) for name in ('official', 'folders', 'kaggle', 'torrent', 'huggingface')]\n"
        "print([name for name in ('torch', 'timm', 'scipy', 'pyarrow', 'boto3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
