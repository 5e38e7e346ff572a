"""Archives that mean harm: refused with the archive's and the member's name, exit code 2, nothing written but below the target,
nothing published. Through the door, as a user meets them."""

import gzip
import hashlib
import io
import os
import re
import signal
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from src.imagenet.layouts.imagenette import IMAGENETTE
from src.prepare import main
from tests.scale_models import (
    Model,
    devkit_files,
    kaggle_files,
    scale_model,
    solution_csv,
    tar_of,
    write_folders,
    write_huggingface,
    write_kaggle,
    write_official,
    write_torrent,
)
from tests.security.hostile import ATTACKS, IMAGE, Place, World, member, tar_with
from tests.security.test_hostile_data import Memory
from tests.unit.imagenet.streams.test_huggingface import write_shard
from tests.unit.imagenet.streams.zips import LINK, Member, zip_of

ROOT = Path(__file__).resolve().parents[2]
MODEL = scale_model(6)
OFFICIAL = {
    "train": "ILSVRC2012_img_train.tar",
    "val": "ILSVRC2012_img_val.tar",
    "test": "ILSVRC2012_img_test_v10102019.tar",
}
TORRENT, INNER = "ILSVRC2017_CLS-LOC.tar.gz", "imagenet_object_localization_patched2019.tar.gz"
ZIP = "imagenet-object-localization-challenge.zip"
TREE = "ILSVRC/Data/CLS-LOC"
BOMB_BYTES = 600 * 2**20  # of disk and of memory


class Refusal(NamedTuple):
    """What the door said."""

    code: object
    out: str
    err: str


Door = Callable[..., Refusal]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """In memory where that can be: a preparation waits for its disk (syncfs), and with it for what others write."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield World(Path(folder))


@pytest.fixture
def door(capfd: pytest.CaptureFixture[str]) -> Iterator[Door]:
    """The door within this process: its start as a process of its own is tests/end_to_end's."""
    before = signal.getsignal(signal.SIGTERM)

    def run(world: World, *settings: str) -> Refusal:
        world.remember()
        capfd.readouterr()
        try:
            code: object = main([f"source={world.source}", f"target={world.target}", "expect=any", *settings])
        except SystemExit as left:
            code = left.code
        return Refusal(code, *capfd.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


def assert_refused(world: World, refusal: Refusal, *words: str) -> None:
    assert refusal.code == 2, refusal
    assert refusal.out == "" and "Traceback" not in refusal.err
    for word in words:
        assert re.search(word, refusal.err), (word, refusal.err)
    world.assert_untouched()


def official(folder: Path, split: str, tar: bytes) -> None:
    """The official archives, one of them replaced."""
    write_official(folder, MODEL)
    (folder / OFFICIAL[split]).write_bytes(tar)


def of_class(wnid: str) -> dict[str, bytes]:
    return {path.rpartition("/")[2]: data for path, data in MODEL.split("train").items() if path.startswith(wnid)}


def train_tar(inner: bytes) -> bytes:
    """The training tar with one class's tar replaced."""
    return tar_of({f"{wnid}.tar": inner if wnid == "n01440764" else tar_of(of_class(wnid)) for wnid in MODEL.wnids})


def inner_zip(packed: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr(INNER, packed)
        archive.writestr("LOC_val_solution.csv", solution_csv(MODEL))
    return memory.getvalue()


def imagenette_files() -> dict[str, bytes]:
    return {f"imagenette2/{split}/{wnid}/a.JPEG": IMAGE for split in ("train", "val") for wnid in sorted(IMAGENETTE)}


class Carrier(NamedTuple):
    """An archive that an attack can stand in.

    Attributes:
        archive: its file's name in messages.
        good: a path that would be taken.
        files: of the honest archive.
        write: the source, with this tar in its place.
        settings: of the door.
    """

    archive: str
    good: str
    files: Callable[[], Mapping[str, bytes]]
    write: Callable[[Path, bytes], object]
    settings: tuple[str, ...] = ("checksum=off",)


def gzipped(name: str) -> Callable[[Path, bytes], object]:
    return lambda folder, tar: (folder / name).write_bytes(gzip.compress(tar, 1))


def with_class_tar(folder: Path, tar: bytes) -> None:
    """Class folders, of which one was not unpacked."""
    write_folders(folder, MODEL)
    for path in (folder / "train" / "n01440764").iterdir():
        path.unlink()
    (folder / "train" / "n01440764").rmdir()
    (folder / "train" / "n01440764.tar").write_bytes(tar)


CARRIERS = {
    "class tar": Carrier(
        "n01440764.tar",
        "n01440764_7777.JPEG",
        lambda: of_class("n01440764"),
        lambda folder, tar: official(folder, "train", train_tar(tar)),
    ),
    "train tar": Carrier(
        OFFICIAL["train"],
        "n00007777.tar",
        lambda: {f"{wnid}.tar": tar_of(of_class(wnid)) for wnid in MODEL.wnids},
        lambda folder, tar: official(folder, "train", tar),
    ),
    "val tar": Carrier(
        OFFICIAL["val"],
        "ILSVRC2012_val_00007777.JPEG",
        lambda: MODEL.flat_val,
        lambda folder, tar: official(folder, "val", tar),
    ),
    "test tar": Carrier(
        OFFICIAL["test"],
        "test/ILSVRC2012_test_00007777.JPEG",
        lambda: {f"test/{name}": data for name, data in MODEL.split("test").items()},
        lambda folder, tar: official(folder, "test", tar),
    ),
    "torrent": Carrier(TORRENT, f"{TREE}/train/n01440764/n01440764_7777.JPEG", lambda: kaggle_files(MODEL), gzipped(TORRENT)),
    "torrent as tar": Carrier(
        "ILSVRC2017_CLS-LOC.tar",
        f"{TREE}/val/ILSVRC2012_val_00007777.JPEG",
        lambda: kaggle_files(MODEL),
        lambda folder, tar: (folder / "ILSVRC2017_CLS-LOC.tar").write_bytes(tar),
    ),
    "tar.gz in a zip": Carrier(
        INNER,
        f"{TREE}/test/ILSVRC2012_test_00007777.JPEG",
        lambda: kaggle_files(MODEL, csv=False),
        lambda folder, tar: (folder / ZIP).write_bytes(inner_zip(gzip.compress(tar, 1))),
    ),
    "imagenette": Carrier(
        "imagenette2.tgz", "imagenette2/train/n01440764/n01440764_7777.JPEG", imagenette_files, gzipped("imagenette2.tgz")
    ),
    "class tar in a folder": Carrier(
        "n01440764.tar", "n01440764_7777.JPEG", lambda: of_class("n01440764"), with_class_tar, ("link=copy",)
    ),
    "cifar10": Carrier(
        "cifar-10-binary.tar.gz", "cifar-10-batches-bin/data_batch_1.bin7777", dict, gzipped("cifar-10-binary.tar.gz")
    ),
}


def harmless(carrier: str, attack: str) -> bool:
    """What an archive of another kind may hold, for it is passed over and never written."""
    return (carrier == "cifar10" and attack in {
        "other case", "wide digits", "surrogates", "line end", "backslashes", "leading dot", "65 MiB", "empty", "twice",
        "twice, spelt otherwise", "another's image", "tar in the tar", "long name without end",
    }) or (carrier == "imagenette" and attack in {
        "leading dot", "line end", "another's image", "tar in the tar", "other case",
    })  # fmt: skip


def matrix() -> list[Any]:
    """Every attack in every archive: in two of them always, in one of the others by turns; the rest takes a minute."""
    pairs = []
    for number, attack in enumerate(ATTACKS):
        for place, carrier in enumerate(CARRIERS):
            always = carrier in ("class tar", "torrent") or (number + place) % len(CARRIERS) == 0
            if not harmless(carrier, attack):
                pairs.append(pytest.param(carrier, attack, marks=[] if always else pytest.mark.long))
    return pairs


@pytest.mark.parametrize(("carrier", "attack"), matrix())
def test_a_hostile_member_is_refused_by_name(world: World, door: Door, carrier: str, attack: str) -> None:
    kind = CARRIERS[carrier]
    kind.write(world.source, tar_with(kind.files(), ATTACKS[attack](Place(kind.good, world.outside))))
    assert_refused(world, door(world, *kind.settings), re.escape(kind.archive), "7777|evil|canary|n02012849_|@LongLink|byte")
    assert world.bytes_written() < 10**6


@pytest.mark.parametrize(("carrier", "attack"), [(c, a) for c in CARRIERS for a in ATTACKS if harmless(c, a)])
def test_what_is_no_member_of_a_set_is_passed_over_and_never_written(world: World, door: Door, carrier: str, attack: str) -> None:
    kind = CARRIERS[carrier]
    kind.write(world.source, tar_with(kind.files(), ATTACKS[attack](Place(kind.good, world.outside))))
    refusal = door(world, *kind.settings, "until=extract")
    assert "Traceback" not in refusal.err and refusal.code == (2 if carrier == "cifar10" else 0), refusal
    world.assert_untouched()


@pytest.mark.parametrize("carrier", [name for name in CARRIERS if name != "cifar10"])
def test_without_an_attack_each_of_these_is_taken(world: World, door: Door, carrier: str) -> None:
    kind = CARRIERS[carrier]
    kind.write(world.source, tar_with(kind.files(), b""))
    done = door(world, *kind.settings, "until=arrange")
    assert done.code == 0, done.err
    written = {str(path.relative_to(world.target)) for path in world.target.glob("*/**/*.JPEG") if ".prepare" not in path.parts}
    assert written == (set(MODEL.files) if carrier != "imagenette" else {n.partition("/")[2] for n in imagenette_files()})


@pytest.mark.parametrize("share", [0.0, 0.3, 0.93])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_an_archive_cut_off_is_refused_by_name(world: World, door: Door, carrier: str, share: float) -> None:
    kind = CARRIERS[carrier]
    files = kind.files() or {"cifar-10-batches-bin/data_batch_1.bin": bytes(3073)}
    tar = tar_with(files, b"").rstrip(b"\0")
    if kind.archive.endswith("gz"):
        packed = gzip.compress(tar_with(files, b""), 1)
        cut = packed[: max(2, int(len(packed) * share))]
        if carrier == "tar.gz in a zip":
            (world.source / ZIP).write_bytes(inner_zip(cut))
        else:
            (world.source / kind.archive).write_bytes(cut)
    else:
        cut = tar[: int(len(tar) * share)]
        kind.write(world.source, cut)
    refusal = door(world, *kind.settings)
    assert_refused(world, refusal, re.escape(kind.archive))
    assert share == 0.0 or "truncated" in refusal.err


@pytest.mark.parametrize("carrier", ["torrent", "imagenette", "tar.gz in a zip"])
def test_a_bomb_of_zeros_fills_neither_disk_nor_memory(world: World, door: Door, carrier: str) -> None:
    """4 GB of members, each as large as an image may be, in 4 MB."""
    kind = CARRIERS[carrier]
    piece = gzip.compress(member(kind.good.replace("7777", "6666"), bytes(2**26)), 6)
    first = member(kind.good, IMAGE)
    bomb = gzip.compress(first, 1) + piece * 64
    path = world.source / (ZIP if carrier == "tar.gz in a zip" else kind.archive)
    path.write_bytes(inner_zip(bomb) if carrier == "tar.gz in a zip" else bomb)
    memory = Memory()
    assert_refused(world, door(world, *kind.settings), re.escape(kind.archive), "is a bomb|twice")
    assert memory.peak() < BOMB_BYTES and world.bytes_written() < BOMB_BYTES


def test_millions_of_folders_in_a_small_gzip_are_not_walked_to_their_end(world: World, door: Door) -> None:
    block = b"".join(member(f"ILSVRC/{n}", kind=b"5") for n in range(2_000)) * 2
    (world.source / TORRENT).write_bytes(gzip.compress(block, 9) * 500)
    assert_refused(world, door(world), re.escape(TORRENT), "tells of more than 262,144 folders")


TREE_MEMBERS = [Member(name.encode(), data, 0) for name, data in kaggle_files(MODEL).items()]
GOOD = f"{TREE}/train/n01440764/n01440764_7777.JPEG".encode()


@pytest.mark.parametrize(
    "bad",
    [
        [Member(b"../../../../evil7777", IMAGE)],
        [Member(b"/tmp/evil7777", IMAGE)],
        [Member(GOOD, b"/etc/passwd", 0, mode=LINK)],
        [Member(GOOD, IMAGE, flags=1)],
        [Member(GOOD, IMAGE, crc=5)],
        [Member(GOOD, IMAGE, size=5)],
        [Member(GOOD, IMAGE, size=50_000)],
        [Member(GOOD, bytes(2**27), size=1000)],
        [Member(GOOD, bytes(2**27))],
        [Member(GOOD, b"")],
        [Member(GOOD, IMAGE), Member(GOOD, IMAGE)],
        [Member(GOOD, IMAGE, local_name=b"../../evil")],
        [Member(GOOD, IMAGE, at=0)],
        [Member(GOOD + b"\0.txt", IMAGE)],
        [Member(GOOD.swapcase(), IMAGE), Member(GOOD.replace(b"JPEG", b"jpeg"), IMAGE)],
        [Member(GOOD.replace(b"/n01440764_", b"/.n01440764_"), IMAGE)],
        [Member(GOOD.replace(b"/n01440764_", b"/n02012849_"), IMAGE)],
        [Member(b"LOC_val_solution.csv", b"ImageId,PredictionString\n")],
    ],
    ids=[
        "up", "absolute", "symlink", "encrypted", "crc", "size too small", "size too large", "inflates beyond", "128 MiB", "empty",
        "twice", "another local name", "overlap", "NUL", "case", "dot", "another class", "two csvs",
    ],
)  # fmt: skip
def test_a_hostile_zip_is_refused_by_name(world: World, door: Door, bad: list[Member]) -> None:
    (world.source / ZIP).write_bytes(zip_of([*TREE_MEMBERS, *bad]))
    assert_refused(world, door(world), re.escape(ZIP), "7777|LOC_val_solution|overlap")


VAL_1 = b"ILSVRC2012_val_00000001,"
CSV, MAPPING, LIST = "LOC_val_solution.csv", "LOC_synset_mapping.txt", "ILSVRC/ImageSets/CLS-LOC/train_cls.txt"
LABELS: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "csv with another class": (CSV, lambda data: data.replace(b"n01440764", b"n99999999"), "n99999999"),
    "csv without a row": (CSV, lambda data: data[: data.rstrip(b"\n").rindex(b"\n") + 1], "ILSVRC2012_val_"),
    "csv of two classes": (
        CSV,
        lambda data: data + VAL_1 + b"n01440764 1 2 3 4\n" + VAL_1 + b"n02012849 1 2 3 4\n",
        "two classes",
    ),
    "csv with a path": (CSV, lambda data: data + VAL_1 + b"../../evil 1 2 3 4\n", "evil"),
    "csv with NUL": (CSV, lambda data: data + b"\0\n", CSV),
    "csv of one field": (CSV, lambda data: b'ImageId,PredictionString\n"' + b"a" * 10**6, CSV),
    "mapping with a path": (MAPPING, lambda data: b"../../evil x\n" + data, "evil"),
    "lists of others": (LIST, lambda data: data + b"../../evil 5\n", "evil"),
}


@pytest.mark.parametrize("lie", LABELS)
@pytest.mark.parametrize("form", ["torrent", "zip", "folder"])
def test_lies_about_classes_are_refused(world: World, door: Door, form: str, lie: str) -> None:
    name, change, word = LABELS[lie]
    files = kaggle_files(MODEL)
    files[name] = change(files[name])
    if form == "torrent":
        gzipped(TORRENT)(world.source, tar_of(files))
    elif form == "zip":
        (world.source / ZIP).write_bytes(zip_of([Member(path.encode(), data, 0) for path, data in files.items()]))
    else:
        write_kaggle(world.source, MODEL)
        (world.source / name).write_bytes(files[name])
    if lie == "lists of others":  # told, as what is missing: the images that are there are right
        assert "evil" in door(world, "until=arrange").err
        assert not list(world.outside.parent.rglob("*evil*"))
    else:
        assert_refused(world, door(world, "link=copy"), word)


BILLION = b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10))
NAMED = b"<annotation><object><name>%s</name></object></annotation>"
XMLS = {
    "billion laughs": b'<!DOCTYPE a [<!ENTITY a0 "n01440764">' + BILLION + b"]>" + NAMED % b"&a9;",
    "external entity": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + NAMED % b"&x;",
    "parameter entity": b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:1/x"> %x;]>' + NAMED % b"n01440764",
    "utf-16": '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY x "n01440764">]><annotation/>'.encode("utf-16"),
    "a path": NAMED % b"../../evil",
    "two classes": NAMED.replace(b"</annotation>", b"<object><name>n02012849</name></object></annotation>") % b"n01440764",
    "no class": b"<annotation></annotation>",
    "cut off": b"<annotation><object><name>n01440764</na",
    "deep": b"<a>" * 100_000,
    "large": NAMED % (b" " * 2**20 + b"n01440764"),
}


@pytest.mark.parametrize("bomb", XMLS)
@pytest.mark.parametrize("form", ["torrent", "zip", "folder"])
def test_hostile_annotations_are_refused_by_name(world: World, door: Door, form: str, bomb: str) -> None:
    files = kaggle_files(MODEL, csv=False)
    name = "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000002.xml"
    assert name in files
    files[name] = XMLS[bomb]
    if form == "torrent":
        gzipped(TORRENT)(world.source, tar_of(files))
    elif form == "zip":
        (world.source / ZIP).write_bytes(zip_of([Member(path.encode(), data) for path, data in files.items()]))
    else:
        write_kaggle(world.source, MODEL, csv=False)
        (world.source / name).write_bytes(XMLS[bomb])
    memory = Memory()
    assert_refused(world, door(world, "link=copy"), r"ILSVRC2012_val_00000002\.xml")
    assert memory.peak() < 200 * 2**20


@pytest.mark.parametrize(
    "path",
    [
        "../../../../evil.JPEG",
        "/etc/evil.JPEG",
        "a/evil_n01440764.JPEG",
        "n01440764_1.JPEG/../evil",
        ".evil.JPEG",
        "n01440764_\x001_evil.JPEG",
    ],
)
def test_a_hostile_shard_is_refused_by_name_and_row(world: World, door: Door, path: str) -> None:
    write_huggingface(world.source, MODEL)
    shard = "train-00001-of-00003.parquet"
    rows = [(IMAGE, "n01440764_7777_n01440764.JPEG", 0), (IMAGE, path, 0)]
    write_shard(world.source / "data" / shard, rows, [MODEL.words[wnid] for wnid in MODEL.wnids])
    assert_refused(world, door(world), re.escape(shard), "row 1", "evil")


def test_one_image_in_two_shards_is_refused_naming_both(world: World, door: Door) -> None:
    write_huggingface(world.source, MODEL)
    for number in (0, 2):
        rows = [(IMAGE, "n01440764_7777_n01440764.JPEG", 0)]
        write_shard(world.source / f"data/train-{number:05d}-of-00003.parquet", rows, [MODEL.words[wnid] for wnid in MODEL.wnids])
    assert_refused(world, door(world), "train-00000-of-00003", "train-00002-of-00003", "7777")


@pytest.mark.parametrize("form", ["official", "torrent", "zip", "huggingface"])
def test_a_wrong_md5_is_refused_with_both_sums_and_nothing_published(world: World, door: Door, form: str) -> None:
    writers: dict[str, Callable[[Path, Model], object]] = {
        "official": write_official,
        "torrent": write_torrent,
        "zip": lambda folder, model: (folder / ZIP).write_bytes(zip_of(TREE_MEMBERS)),
        "huggingface": write_huggingface,
    }
    writers[form](world.source, MODEL)
    archives = sorted(path for path in world.source.rglob("*") if path.is_file())
    sums = {path: hashlib.md5(path.read_bytes()).hexdigest() for path in archives}
    wrong = archives[0]
    lines = [f"{'0' * 32 if path == wrong else told}  {path.name}\n" for path, told in sums.items()]
    (world.outside / "md5sums.txt").write_text("".join(lines))
    assert_refused(world, door(world, f"checksum={world.outside}/md5sums.txt"), re.escape(wrong.name), "0" * 32, sums[wrong])
    (world.outside / "md5sums.txt").write_text("".join(f"{told}  {path.name}\n" for path, told in sums.items()))
    assert door(world, f"checksum={world.outside}/md5sums.txt", "restart=true", "until=arrange").code == 0


@pytest.mark.parametrize("planted", [".prepare", ".prepare/tree", ".prepare/side", ".prepare/tree/train", ".prepare/journal.jsonl"])
def test_links_planted_in_the_target_are_not_written_through(world: World, door: Door, planted: str) -> None:
    write_torrent(world.source, MODEL)
    (world.target / planted).parent.mkdir(parents=True)
    (world.target / planted).symlink_to(world.outside / "canary" if planted.endswith("jsonl") else world.outside)
    done = door(world)
    assert "Traceback" not in done.err
    assert [path.name for path in world.outside.iterdir()] == ["canary"] and (world.outside / "canary").read_bytes() == b"alive"
    assert done.code == 2 or (world.target / "train").is_dir()


@pytest.mark.parametrize("planted", ["n01440764", "n01440764/n01440764_10026.JPEG"])
def test_links_planted_while_it_was_interrupted_are_not_written_through(world: World, door: Door, planted: str) -> None:
    write_torrent(world.source, MODEL)
    assert door(world, "until=extract").code == 0
    journal = (world.target / ".prepare" / "journal.jsonl").read_text().splitlines(keepends=True)
    (world.target / ".prepare" / "journal.jsonl").write_text(journal[0])  # as if all else was not noted
    folder = world.target / ".prepare/tree/train"
    path = folder / planted
    for name in sorted(folder.rglob("*"), reverse=True):
        if name == path or path in name.parents:
            name.unlink() if name.is_file() else name.rmdir()
    path.symlink_to(world.outside if planted == "n01440764" else world.outside / "canary")
    done = door(world)
    assert "Traceback" not in done.err
    assert [path.name for path in world.outside.iterdir()] == ["canary"] and (world.outside / "canary").read_bytes() == b"alive"
    assert done.code == 2 or not (world.target / "train" / planted).is_symlink()


@pytest.mark.parametrize(
    "change",
    [
        lambda files: {"../evil": b"x", **files},
        lambda files: {name: data[: len(data) // 2] for name, data in files.items()},
        lambda files: {name: (b"9" * 10**6 if "ground_truth" in name else data) for name, data in files.items()},
        lambda files: {name: (b"x" if name.endswith(".mat") else data) for name, data in files.items()},
        lambda files: {name: (b"\x80\x04cos\nsystem\n." if name.endswith(".mat") else data) for name, data in files.items()},
    ],
    ids=["up", "halved", "long number", "no mat", "a pickle"],
)
def test_a_hostile_devkit_writes_nothing(world: World, door: Door, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    write_official(world.source, MODEL)
    files = {f"ILSVRC2012_devkit_t12/{name}": data for name, data in devkit_files(MODEL).items()}
    path = world.source / "ILSVRC2012_devkit_t12.tar.gz"
    path.write_bytes(gzip.compress(tar_of(change(files)), 1))
    done = door(world, "checksum=off", "until=arrange")
    if "../evil" in change(files):  # its files are read in place, by name
        assert done.code == 0 and not list(world.outside.parent.rglob("*evil*"))
    else:
        assert_refused(world, done, re.escape(path.name))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_devkit_of_links_is_refused(world: World, door: Door, kind: bytes) -> None:
    write_official(world.source, MODEL)
    truth, meta = (f"ILSVRC2012_devkit_t12/data/{name}" for name in ("ILSVRC2012_validation_ground_truth.txt", "meta.mat"))
    bad = member(truth, kind=kind, link=f"{world.outside}/canary") + member(meta, devkit_files(MODEL)["data/meta.mat"])
    (world.source / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(bad + bytes(1024)))
    assert_refused(world, door(world, "checksum=off"), r"devkit_t12\.tar\.gz", "lacks data/ILSVRC2012_validation_ground_truth")


def test_nothing_unpacks_an_archive_by_itself() -> None:
    """Python's own extraction had escapes (CVE-2025-4517); members are bytes here, and names are held against patterns."""
    banned = re.compile(r"\.extractall\(|\.extract\(|unpack_archive")
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    assert len(files) > 100 and not [str(path) for path in files if banned.search(path.read_text())]
    assert banned.search("archive.extractall(path)") and banned.search("tarfile.open(path).extract(member)")
