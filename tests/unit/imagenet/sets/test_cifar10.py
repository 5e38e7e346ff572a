"""CIFAR-10: every published form gives the same files; damaged and hostile ones give a reason."""

import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.batch import DataError
from src.config import ConfigError
from src.config.prepare import load_prepare
from src.imagenet.layouts import cifar10
from src.imagenet.pieces import Found, Piece
from src.imagenet.sets.cifar import CLASSES
from src.imagenet.sets.pickled import read_pickle
from tests.pictures import write_files
from tests.unit.imagenet.sets.small_sets import (
    Batches,
    batch_pickle,
    batches,
    binary_files,
    expected_pngs,
    pickled_files,
    write_tar,
)


@pytest.fixture(scope="module")
def made() -> Batches:
    return batches(12)


def find(source: Path, *overrides: str) -> Found:
    return cifar10.find(source, load_prepare([f"source={source}", "checksum=off", *overrides]))


def pieces_of(found: Found) -> list[Piece]:
    return [piece for unit in found.units for piece in unit.pieces(0)]


def files_of(found: Found) -> dict[str, bytes]:
    pieces = pieces_of(found)
    files = {f"{piece.place}/{piece.folder}/{piece.name}": piece.content for piece in pieces}
    assert len(files) == len(pieces)
    return files  # type: ignore[return-value]


def write_form(form: str, folder: Path, made: Batches) -> Path:
    match form:
        case "binary archive":
            return write_tar(folder / "cifar-10-binary.tar.gz", binary_files(made))
        case "python archive":
            return write_tar(folder / "cifar-10-python.tar.gz", pickled_files(made))
        case "unzipped archive":
            return write_tar(folder / "cifar-10-binary.tar", binary_files(made))
        case "binary folder":
            return write_files(folder, binary_files(made)) / "cifar-10-batches-bin"
        case "python folder":
            return write_files(folder, pickled_files(made)) / "cifar-10-batches-py"
        case _:
            return write_files(folder, pickled_files(made))


FORMS = ("binary archive", "python archive", "unzipped archive", "binary folder", "python folder", "the folder above")


def test_all_forms_give_the_same_bytes_and_they_are_the_images(tmp_path: Path, made: Batches) -> None:
    trees = []
    for form in FORMS:
        source = write_form(form, tmp_path / form, made)
        assert cifar10.looks_like(source)
        trees.append(files_of(find(source)))
    assert all(tree == trees[0] for tree in trees)
    expected = expected_pngs(made)
    assert trees[0].keys() == expected.keys()
    for name, image in expected.items():
        path = tmp_path / "image.png"
        path.write_bytes(trees[0][name])
        with Image.open(path) as opened:
            assert (opened.format, opened.mode) == ("PNG", "RGB")
            np.testing.assert_array_equal(np.asarray(opened), image)


def test_the_classes_sort_like_the_labels() -> None:
    from torchvision.datasets import CIFAR10

    names = "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
    assert list(CLASSES) == sorted(CLASSES) == [f"{label}_{name}" for label, name in enumerate(names)]
    assert cifar10.PUBLISHED["python"][0] == CIFAR10.tgz_md5
    assert list(cifar10._BATCH_MD5.items()) == [tuple(pair) for pair in CIFAR10.train_list + CIFAR10.test_list]


def test_rows_and_their_labels_are_torchvisions(tmp_path: Path, made: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision unpickles what we only read: the pickles written here are real ones."""
    from torchvision.datasets import CIFAR10

    write_files(tmp_path, {**pickled_files(made), "cifar-10-batches-py/batches.meta": pickle.dumps({"label_names": list(CLASSES)})})
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    theirs = {
        f"{split}/{CLASSES[label]}/{place:05d}.png"
        for split, train in (("train", True), ("val", False))
        for place, label in enumerate(CIFAR10(tmp_path, train=train).targets)
    }
    ours = expected_pngs(made)
    in_order = {  # batches of 12 rows lie 10,000 apart in names: number them through
        f"{name.rpartition('/')[0]}/{12 * (int(name[-9:-4]) // 10_000) + int(name[-9:-4]) % 10_000:05d}.png" for name in ours
    }
    assert theirs == in_order


@pytest.mark.parametrize("form", ["binary archive", "python archive", "binary folder"])
def test_pieces_go_on_at_any_number(tmp_path: Path, made: Batches, form: str) -> None:
    for unit in find(write_form(form, tmp_path, made)).units:
        whole = list(unit.pieces(0))
        for start in (0, 1, 11, 12, 13, 30, len(whole) - 1, len(whole)):
            assert list(unit.pieces(start)) == whole[start:]


def test_the_binary_form_is_taken_where_both_are(tmp_path: Path, made: Batches) -> None:
    write_form("python archive", tmp_path, made)
    write_form("binary archive", tmp_path, made)
    (archive,) = find(tmp_path).archives
    assert archive == (tmp_path / "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170_052_171)


def test_pickled_batches_have_their_published_sums(tmp_path: Path, made: Batches) -> None:
    archives = find(write_form("python folder", tmp_path, made)).archives
    assert [archive.md5 for archive in archives] == list(cifar10._BATCH_MD5.values())


def test_a_validation_fraction_is_refused(tmp_path: Path, made: Batches) -> None:
    with pytest.raises(ConfigError, match="CIFAR-10 has its validation split"):
        find(write_form("binary folder", tmp_path, made), "val_fraction=0.1")


def test_missing_and_cut_batches_of_a_folder_are_all_named(tmp_path: Path, made: Batches) -> None:
    folder = write_form("binary folder", tmp_path, made)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(ConfigError) as caught:
        cifar10.find(folder, load_prepare([f"source={folder}"]))
    assert str(caught.value).startswith("6 problems in the source:")
    assert f"{folder}/data_batch_3.bin: is missing" in str(caught.value)
    assert f"{folder}/test_batch.bin: has 36,876 bytes, not 30,730,000" in str(caught.value)
    with pytest.raises(ConfigError, match="1 problem in"):
        find(folder)


def test_an_empty_folder_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    assert not cifar10.looks_like(tmp_path)
    assert not cifar10.looks_like(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"neither cifar-10-binary\.tar\.gz nor cifar-10-python\.tar\.gz"):
        find(tmp_path)


def bad_label(data: bytes) -> bytes:
    return b"\x0a" + data[1:]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (lambda data: data[:-1], "36,875 bytes, which is no number of images of 3,073 bytes each"),
    "empty": (lambda data: b"", "has 0 bytes"),
    "a label beyond": (bad_label, "holds the label 10: they go from 0 to 9"),
    "too many": (lambda data: b"\0" * (3073 * 10_001), "holds 10,001 images, not 10,000"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_a_damaged_batch_is_named_with_its_reason(tmp_path: Path, made: Batches, damage: str, form: str) -> None:
    break_it, message = DAMAGES[damage]
    files = binary_files(made)
    files["cifar-10-batches-bin/data_batch_2.bin"] = break_it(files["cifar-10-batches-bin/data_batch_2.bin"])
    source = write_files(tmp_path, files) if form == "folder" else write_tar(tmp_path / "cifar-10-binary.tar.gz", files)
    with pytest.raises(DataError) as caught:
        pieces_of(find(source))
    assert "data_batch_2.bin" in str(caught.value)
    assert str(source) in str(caught.value)
    assert message in str(caught.value)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_is_refused_and_nothing_is_run(tmp_path: Path, made: Batches) -> None:
    hostile = pickle.dumps({"data": Evil(tmp_path / "pwned"), "labels": []}, protocol=2)
    pickle.loads(hostile)  # it would
    (tmp_path / "pwned").rmdir()
    files = {**pickled_files(made), "cifar-10-batches-py/data_batch_1": hostile}
    for source in (write_tar(tmp_path / "a" / "cifar-10-python.tar.gz", files), write_files(tmp_path / "b", files)):
        with pytest.raises(DataError, match=r"data_batch_1.* asks for posix\.mkdir"):
            pieces_of(find(source))
    assert not (tmp_path / "pwned").exists()


PIXELS = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "builtins": (b"\x80\x02cbuiltins\neval\nU\x011\x85R.", "asks for builtins.eval"),
    "os.system": (b"\x80\x02cos\nsystem\nU\x04true\x85R.", "asks for os.system"),
    "a name of numpy's": (b"\x80\x02cnumpy\nload\nU\x01x\x85R.", "asks for numpy.load"),
    "an object array": (batch_pickle([1, 2], PIXELS, dtype="O8"), "something else than bytes"),
    "numbers of four bytes": (batch_pickle([1, 2], PIXELS, dtype="i4"), "something else than bytes"),
    "a stacked name": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL"),
    "an instance": (b"(ios\nsystem\n.", "INST"),
    "a new object": (b"\x80\x02cnumpy\ndtype\n)\x81.", "NEWOBJ"),
    "a persistent name": (b"\x80\x02U\x01xQ.", "BINPERSID"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "a shape without its bytes": (
        batch_pickle([1, 2], PIXELS).replace(b"M\x02\0M\0\x0c\x86", b"M\x03\0M\0\x0c\x86"),
        "the shape (3, 3072)",
    ),
    "a shape of negatives": (batch_pickle([1, 2], PIXELS).replace(b"M\x02\0M", b"J\xff\xff\xff\xffM"), "the shape (-1, 3072)"),
    "columns before rows": (batch_pickle([1, 2], PIXELS).replace(b"tb\x89T", b"tb\x88T"), "row by row"),
    "no type of numbers": (
        batch_pickle([1, 2], PIXELS).replace(b"cnumpy\ndtype\n", b"cnumpy\nndarray\n"),
        "something else than bytes",
    ),
    "labels that lack": (batch_pickle([1], PIXELS), "holds 1 labels for 2 images"),
    "labels beyond": (batch_pickle([1, 10], PIXELS), "labels beyond 0 to 9"),
    "pixels that lack": (batch_pickle([1, 2], PIXELS[:, :100].copy()), "no batch of CIFAR-10"),
    "a text": (b"\x80\x02U\x01x.", "no batch of CIFAR-10"),
    "a build of a list": (b"\x80\x02]}b.", "no sound pickle"),
    "a call of a text": (b"\x80\x02U\x01x)R.", "no sound pickle"),
    "a mark too few": (b"\x80\x02}u.", "no sound pickle"),
    "memory that is not there": (b"\x80\x02h\x07.", "no sound pickle"),
    "a list as a key": (b"\x80\x02}]]s.", "no sound pickle"),
    "a huge claim": (b"\x80\x02T\xff\xff\xff\x7fx.", "expected 2147483647 bytes"),
    "a huge place in memory": (b"\x80\x02]r\xff\xff\xff\x7f.", "no batch of CIFAR-10"),
    "too long": (b"\x80\x02" + b"K\x01" * 1_000_001 + b".", "more instructions"),
    "nothing": (b"", "pickle exhausted"),
    "cut": (batch_pickle([1, 2], PIXELS)[:-500], "pickle"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_pickles_with_anything_else_are_refused(tmp_path: Path, made: Batches, case: str) -> None:
    data, message = HOSTILE[case]
    write_files(tmp_path, {**pickled_files(made), "cifar-10-batches-py/data_batch_1": data})
    with pytest.raises(DataError) as caught:
        pieces_of(find(tmp_path))
    assert f"{tmp_path}/cifar-10-batches-py/data_batch_1 " in str(caught.value)
    assert message in str(caught.value)


def test_pickles_of_later_pythons_are_read_as_python_reads_them() -> None:
    value = {"labels": [1, 2, 255, 300, 70_000, -1], "b": b"x", "t": (1, (2,), ()), "n": None, "f": [True, False]}
    for protocol in (2, 3, 4, 5):
        text = {key: item for key, item in value.items() if protocol > 2 or key != "b"}
        assert read_pickle(pickle.dumps(text, protocol=protocol)) == text


def test_random_damage_gives_a_reason_or_the_right_images(tmp_path: Path) -> None:
    """600 seeded damages of a pickle: bytes changed, cut out, doubled."""
    right = batch_pickle([1, 2], PIXELS)
    head = [*range(120), *range(len(right) - 60, len(right))]  # where instructions are, not pixels
    path = write_files(tmp_path, pickled_files(batches(2))) / "cifar-10-batches-py/data_batch_1"
    reasons = 0
    for seed in range(600):
        random = np.random.default_rng(seed)
        data = bytearray(right)
        at = int(random.choice(head))
        match seed % 3:
            case 0:
                data[at] = int(random.integers(256))
            case 1:
                del data[at : at + int(random.integers(1, 30))]
            case _:
                data[at:at] = data[at : at + int(random.integers(1, 30))]
        path.write_bytes(data)
        try:
            found = list(find(tmp_path).units[0].pieces(0))
        except DataError:
            reasons += 1
            continue
        assert len(found) == 2
    assert reasons > 300


def test_archives_that_lack_or_repeat_a_batch_are_refused(tmp_path: Path, made: Batches) -> None:
    files = binary_files(made)
    lacking = {name: data for name, data in files.items() if "batch_4" not in name and "test" not in name}
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz lacks data_batch_4, test_batch\."):
        pieces_of(find(write_tar(tmp_path / "a" / "cifar-10-binary.tar.gz", lacking)))
    twice = {**files, "other/data_batch_1.bin": files["cifar-10-batches-bin/data_batch_1.bin"]}
    with pytest.raises(DataError, match=r"holds data_batch_1\.bin twice \(other/data_batch_1\.bin\)"):
        pieces_of(find(write_tar(tmp_path / "b" / "cifar-10-binary.tar.gz", twice)))


def test_archives_with_links_paths_and_cut_ones_are_refused(tmp_path: Path, made: Batches) -> None:
    def member(name: str, kind: bytes) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        return info

    archive = tmp_path / "cifar-10-binary.tar.gz"
    for info, message in (
        (member("../data_batch_1.bin", tarfile.REGTYPE), r"\.\./data_batch_1"),
        (member("/etc/data_batch_1.bin", tarfile.REGTYPE), "the path '/etc/data_batch_1.bin'"),
        (member("x/data_batch_1.bin", tarfile.SYMTYPE), "symbolic link"),
        (member("x/data_batch_1.bin", tarfile.LNKTYPE), "hard link"),
        (member("x/pipe", tarfile.FIFOTYPE), "pipe"),
    ):
        write_tar(archive, binary_files(made), extra=[info])
        with pytest.raises(DataError, match=message):
            pieces_of(find(archive))
    whole = write_tar(archive, binary_files(made)).read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"{archive} is truncated"):
        pieces_of(find(archive))
