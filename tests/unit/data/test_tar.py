"""Tars: every layout and every kind of header gives the samples that the extracted folder gives; what cannot be read is refused."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from src.batch import DataError
from src.data.sources.folder import FolderSource
from tests.pictures import KINDS, encode, write_files
from tests.unit.data.tars import FORMATS, contents, every, of_class_tars, open_tars, tar_bytes, write_devkit, write_tar

FILES = {
    f"{name}/{kind}_{number}.JPEG": encode(kind, 20 + at, 30 + number, seed=label)
    for label, name in enumerate(("n02", "n10", "n01", "Zoé"))
    for at, kind in enumerate(KINDS)
    for number in (10, 9)
}
LONG = {"n02/" + "a" * 120 + ".png": encode("png", 8, 9), "n01/" + "b" * 90 + "/" + "ç" * 90 + ".png": encode("png", 9, 8)}


@pytest.fixture
def folder(tmp_path):
    """The folder that extracting makes, as a source."""

    def make(files):
        root = write_files(tmp_path / "extracted" / "train", files)
        return FolderSource(root, choose=every, cache_dir=tmp_path / "cache", threads=2, progress=lambda done, total: None)

    return make


def same(tar, folder) -> None:
    assert tar.classes == folder.classes
    assert tar.labels.tolist() == folder.labels.tolist()
    assert contents(tar) == contents(folder)
    assert [tar.name(index).split("/")[-1] for index in range(len(tar))] == [
        folder.name(index).split("/")[-1] for index in range(len(folder))
    ]


@pytest.mark.parametrize("prefix", ["", "./", "train/", "./a/b/val/", "/abs/"])
@pytest.mark.parametrize("form", ["gnu", "pax", "ustar"])
def test_class_folders_give_what_the_extracted_folder_gives(tmp_path, folder, form, prefix):
    files = FILES | (LONG if form != "ustar" else {})
    noise = {"README": b"hello", "n02/._mac.JPEG": b"x", "n02/notes.txt": b"x", ".hidden/x.JPEG": b"x"}
    path = write_tar(tmp_path / "a.tar", {prefix + name: data for name, data in (files | noise).items()}, form)
    same(open_tars(path), folder(files | noise))


@pytest.mark.parametrize("form", list(FORMATS))
def test_a_tar_of_class_tars_gives_what_the_extracted_folders_give(tmp_path, folder, form):
    files = FILES | (LONG if form != "ustar" else {})
    path = write_tar(tmp_path / "train.tar", of_class_tars(files, form), form)
    source = open_tars(path)
    same(source, folder(files))
    assert source.name(0) == "train.tar/Zoé.tar/cmyk_10.JPEG"


def test_a_ustar_prefix_is_read(tmp_path, folder):
    files = {f"n01/{'p' * 90}/{'q' * 60}/x.png": encode("png"), "n02/y.png": encode("png", 5, 6)}
    path = write_tar(tmp_path / "a.tar", files, "ustar")
    with tarfile.open(path) as archive:
        assert archive.getnames() == list(files)
    same(open_tars(path), folder(files))


@pytest.mark.parametrize("layout", ["folders", "class tars"])
def test_several_tars_are_one_split(tmp_path, folder, layout):
    whole = FILES if layout == "folders" else of_class_tars(FILES)
    names = list(whole)
    paths = [write_tar(tmp_path / f"{at}.tar", {name: whole[name] for name in names[at::3]}) for at in range(3)]
    for order in (paths, paths[::-1]):
        same(open_tars(*order), folder(FILES))


def test_more_tars_than_a_process_may_hold_open(tmp_path, folder):
    files = {f"{name}/{number:03}.png": encode("png", 3, 4, seed=number) for name in ("a", "b") for number in range(150)}
    paths = [write_tar(tmp_path / f"{at:03}.tar", {name: data}) for at, (name, data) in enumerate(files.items())]
    source = open_tars(*paths)
    same(source, folder(files))
    paths[3].unlink()
    with pytest.raises(DataError, match=r"003\.tar/a/003\.png cannot be read"):
        source.read(3)


WNIDS = ["n05", "n01", "n04", "n02", "n03"]  # of ILSVRC2012_ID 1 to 5: not sorted, as ImageNet's are not
TRUTH = [3, 1, 2, 5, 4, 1, 2]
VAL = {f"ILSVRC2012_val_{number:08}.JPEG": encode("jpeg", 20 + number, 30) for number in range(1, 8)}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("prefix", ["", "val/"])
def test_the_flat_validation_tar_gets_its_classes_from_the_devkit(tmp_path, folder, prefix, packed):
    devkit = write_devkit(tmp_path / "ILSVRC2012_devkit_t12", WNIDS, TRUTH)
    if packed:
        with tarfile.open(tmp_path / "devkit.tar.gz", "w:gz") as archive:
            archive.add(devkit, arcname=devkit.name)
        devkit = tmp_path / "devkit.tar.gz"
    path = write_tar(tmp_path / "val.tar", {prefix + name: data for name, data in reversed(VAL.items())})
    source = open_tars(path, devkit=devkit)
    same(source, folder({f"{WNIDS[TRUTH[at] - 1]}/{name}": data for at, (name, data) in enumerate(VAL.items())}))
    assert [source.classes[label] for label in source.labels] == ["n01", "n01", "n02", "n03", "n04", "n05", "n05"]


def test_the_flat_validation_tar_asks_for_its_devkit(tmp_path):
    with pytest.raises(DataError, match=r"data\.devkit_path="):
        open_tars(write_tar(tmp_path / "val.tar", VAL))


def test_sorted_validation_images_need_no_devkit(tmp_path, folder):
    files = {f"n0144000{at % 2}/{name}": data for at, (name, data) in enumerate(VAL.items())}
    same(open_tars(write_tar(tmp_path / "val.tar", files)), folder(files))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda kit: (kit / "data/meta.mat").write_bytes(b"MATLAB 5.0" + bytes(300)), "meta.mat cannot be read"),
        (lambda kit: (kit / "data/meta.mat").unlink(), "meta.mat"),
        (lambda kit: (kit / "data/ILSVRC2012_validation_ground_truth.txt").write_text("1\n6\n"), "tells of a class b'6'"),
        (lambda kit: (kit / "data/ILSVRC2012_validation_ground_truth.txt").write_text(""), "is empty"),
        (lambda kit: (kit / "data/ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n"), "tells the classes of 2"),
    ],
)
def test_a_spoilt_devkit_is_refused(tmp_path, spoil, words):
    devkit = write_devkit(tmp_path / "kit", WNIDS, TRUTH)
    spoil(devkit)
    with pytest.raises(DataError, match=words):
        open_tars(write_tar(tmp_path / "val.tar", VAL), devkit=devkit)


def shard(numbers, describe) -> dict[str, bytes]:
    files = {}
    for number in numbers:
        files[f"{number:04}.jpg"] = encode("jpeg", 20, 30, seed=number)
        kind, text = describe(number)
        files[f"{number:04}.{kind}"] = text
    return files


@pytest.mark.parametrize(
    "describe",
    [lambda number: ("cls", b"%d\n" % (number % 3)), lambda number: ("json", b'{"label": %d, "x": [1]}' % (number % 3))],
    ids=["cls", "json"],
)
def test_webdataset_shards_keep_their_own_order(tmp_path, describe):
    numbers = [3, 1, 2, 9, 4, 8]
    paths = [write_tar(tmp_path / f"s-{at}.tar", shard(part, describe)) for at, part in enumerate((numbers[:4], numbers[4:]))]
    source = open_tars(*paths)
    assert source.classes == ("class_0000", "class_0001", "class_0002")
    assert source.labels.tolist() == [number % 3 for number in numbers]
    assert [bytes(source.read(at).data) for at in range(6)] == [encode("jpeg", 20, 30, seed=number) for number in numbers]
    assert source.name(4) == "s-1.tar/0004.jpg"
    assert open_tars(*paths, classes=("a", "b", "c", "d")).classes == ("a", "b", "c", "d")
    with pytest.raises(DataError, match="class 2, and there are 2"):
        open_tars(*paths, classes=("a", "b"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0001.cls": b"two"}, r"s\.tar/0001\.cls holds b'two', which is no whole number"),
        ({"0001.cls": b"-1"}, "class -1"),
        ({"0001.cls": b"1" * 65}, "65 bytes"),
        ({"0001.png": encode("png")}, "belong to one sample"),
        ({"0009.jpg": encode("jpeg")}, r"0009\.jpg has no label"),
    ],
)
def test_a_shard_with_a_doubtful_label_is_refused(tmp_path, change, words):
    path = write_tar(tmp_path / "s.tar", shard(range(3), lambda number: ("cls", b"1")) | change)
    with pytest.raises(DataError, match=words):
        open_tars(path)


def member(name: str, kind: bytes, **more) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        archive.addfile(info)
    return memory.getvalue()


GOOD = tar_bytes({"ant/a.png": encode("png"), "bee/b.png": encode("png", 5, 6)})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated"),
        (b"x" * 2000, "It is no tar"),
        (bytes(10240), "no image is in there"),
        (gzip.compress(GOOD), "compressed with gzip.*gunzip it first"),
        (b"\x28\xb5\x2f\xfd" + GOOD, "compressed with zstd"),
        (GOOD[:600], r"truncated: ant/a\.png at byte 512 should have [\d,]+ bytes, and 88 are there"),
        (GOOD + GOOD, "behind the end mark"),
        (member("ant/x.png", tarfile.SYMTYPE, linkname="b.png"), r"ant/x\.png, which is a symbolic link"),
        (member("ant/x.png", tarfile.LNKTYPE, linkname="b.png"), "hard link"),
        (member("ant/x.png", tarfile.CHRTYPE), "device"),
        (member("ant/x.png", tarfile.FIFOTYPE), "pipe"),
        (member("ant/x.png", tarfile.GNUTYPE_SPARSE), "sparsely"),
        (member("ant/x.png", b"Z"), "unknown type"),
        (tar_bytes({"ant/a.png": b"1", "./ant//a.png": b"2"}), r"ant/a\.png is there twice"),
        (tar_bytes({"ant/../a.png": b"1"}), "path"),
        (tar_bytes({"a.png": b"1", "ant/b.png": b"1"}), r"a\.png lies in no class folder"),
        (tar_bytes({"train/ant/a.png": b"1", "val/ant/a.png": b"1"}), "names a split"),
        (tar_bytes({"train/a.png": b"1", "train/b.png": b"1"}), "names a split"),
        (tar_bytes({"ant/a.png": b"1"}, folders=("ant", "bee")), "1 class folders hold no image: bee"),
        (tar_bytes({"n1.tar": GOOD, "x.png": b"1"}), "stands beside tars of classes"),
        (tar_bytes({"n1.tar": GOOD, "n2.tar": bytes(10240)}), r"hold no image: n2\.tar"),
        (tar_bytes({"n1.tar": GOOD, "n2.tar": GOOD[:-9000]}), r"x\.tar/n2\.tar .*truncated"),
        (tar_bytes({"n1.tar": GOOD, "n2.tar": gzip.compress(GOOD)}), r"n2\.tar .*gunzip"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, content, words):
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(DataError, match=words) as refusal:
            open_tars(path)
        assert str(path) in str(refusal.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.tar"], "nothing is cached of what is refused"


def test_a_large_size_is_read_from_binary_and_from_pax(tmp_path):
    data = encode("png")
    binary = bytearray(tar_bytes({"ant/a.png": data}))
    binary[124:136] = b"\x80" + len(data).to_bytes(11, "big")
    binary[148:156] = b"%06o\0 " % (sum(binary[:148]) + 8 * 32 + sum(binary[156:512]))
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("ant/a.png")
        info.size, info.pax_headers = len(data), {"size": str(len(data))}
        archive.addfile(info, io.BytesIO(data))
    for number, content in enumerate((bytes(binary), memory.getvalue())):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(content)
        assert contents(open_tars(path)) == [("ant", [40, 30], data)]


def test_bad_images_are_told_by_their_place_among_the_chosen(tmp_path):
    files = {"ant/a.jpg": b"", "ant/b.jpg": encode("jpeg"), "bee/c.jpg": encode("jpeg")[:-40], "bee/d.png": b"junk"}
    path = write_tar(tmp_path / "x.tar", files)
    assert set(open_tars(path).faults) == {0, 2, 3}
    source = open_tars(path, choose=lambda labels: np.array([1, 2]))
    assert set(source.faults) == {1}
    assert "truncated" in source.faults[1]
    assert source.ids.tolist() == [1, 2]
    assert source.name(1) == "x.tar/bee/c.jpg"
