"""Each check of a verification catches its own damage, at its own level, and nothing that is as it should be."""

import json
import os
import shutil
from pathlib import Path

import pytest

from src.config import ConfigError
from src.imagenet.verify import verify
from src.imagenet.verify.known import KNOWN, KNOWN_PNG
from src.imagenet.verify.official import NUMBERED, ilsvrc2012, sum_of
from tests.pictures import encode, segment, with_segments, write_files
from tests.unit.imagenet.verify.conftest import VAL, WNIDS, XMP, Made, broken_png, offenders, problems

FIRST, SECOND = WNIDS[:2]
EVERY_CMYK = [f"train/{name[:9]}/{name}" for name, what in KNOWN.items() if what == "CMYK"]
CMYK = EVERY_CMYK[0]
TEST_NAME = "ILSVRC2012_test_00000003.JPEG"
SOUND_XMP = with_segments(encode("jpeg"), segment(0xE1, XMP + b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"))
PNG = f"train/{KNOWN_PNG[:9]}/{KNOWN_PNG}"
XMP_FILE = next(f"train/{name[:9]}/{name}" for name, what in KNOWN.items() if "XMP" in what)
LIST = "the preparation's list"
INDEX = "the trainer's index"
COUNTS = "train: images a class"


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def plain(wnid: str) -> str:
    return f"train/{wnid}/{wnid}_1.JPEG"


def rename_class(root: Path) -> None:
    """In both splits, so that they agree, and the same number of files."""
    last = WNIDS[-1]
    for split in ("train", "val"):
        (root / split / last).rename(root / split / "n99999999")
    for path in (root / "train" / "n99999999").iterdir():
        path.rename(path.with_name(path.name.replace(last, "n99999999")))
    text = (root / "classes.tsv").read_text()
    (root / "classes.tsv").write_text(text.replace(last, "n99999999"))


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.unlink()
    other.unlink()
    (one.parent / other.name).write_bytes(second)
    (other.parent / one.name).write_bytes(first)


def swap_val(root: Path) -> None:
    swap(root / "val" / FIRST / val_name(VAL[FIRST][0]), root / "val" / SECOND / val_name(VAL[SECOND][0]))


def swap_train(root: Path) -> None:
    swap(root / plain(FIRST), root / plain(SECOND))


def a_name_in_two_classes(root: Path) -> None:
    (root / plain(SECOND)).rename(root / f"train/{SECOND}/{FIRST}_1.JPEG")


def empty_a_class(root: Path) -> None:
    for path in list((root / "val" / FIRST).iterdir()):
        path.rename(root / "val" / SECOND / path.name)


def replace_oddity(root: Path) -> None:
    (root / CMYK).unlink()
    (root / CMYK.replace(".JPEG", "1.JPEG")).write_bytes(encode("jpeg"))


def permute_labels(root: Path) -> None:
    lines = [line.split("\t") for line in (root / "classes.tsv").read_text().splitlines()]
    lines[0][1], lines[1][1] = lines[1][1], lines[0][1]
    (root / "classes.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))


def forget_a_class(root: Path) -> None:
    (root / "classes.tsv").write_text("".join((root / "classes.tsv").read_text().splitlines(keepends=True)[:-1]))


def put(path: str, data: bytes):
    def damage(root: Path) -> None:
        (root / path).write_bytes(data)

    return damage


def move(path: str, to: str):
    def damage(root: Path) -> None:
        (root / path).rename(root / to)

    return damage


# What was done, the first level that tells, and the checks that do so there, when the list is that of the damaged set.
DAMAGES = {
    "a class of no ImageNet": (rename_class, 0, {"class folders"}),
    "labels in another order": (permute_labels, 0, {"classes.tsv"}),
    "a class not in classes.tsv": (forget_a_class, 0, {"classes.tsv"}),
    "a train image gone": (lambda root: (root / plain(FIRST)).unlink(), 0, {"train: images"}),
    "a train image more": (put(f"train/{FIRST}/{FIRST}_9.JPEG", encode("jpeg")), 0, {"train: images"}),
    "a val image gone": (
        lambda root: (root / "val" / FIRST / val_name(VAL[FIRST][0])).unlink(),
        0,
        {"val: images", "val: images a class", "val: labels"},
    ),
    "two val images in each other's class": (swap_val, 0, {"val: labels"}),
    "a val image in another class": (
        move(f"val/{FIRST}/{val_name(VAL[FIRST][0])}", f"val/{SECOND}/{val_name(VAL[FIRST][0])}"),
        0,
        {"val: images a class", "val: labels"},
    ),
    "a val number that is none": (
        move(f"val/{FIRST}/{val_name(VAL[FIRST][0])}", f"val/{FIRST}/{val_name(50_001)}"),
        0,
        {"val: images", "val: labels"},
    ),
    "a test image gone": (lambda root: (root / "test/ILSVRC2012_test_00000003.JPEG").unlink(), 0, {"test: images"}),
    "no val": (lambda root: shutil.rmtree(root / "val"), 0, {"splits"}),
    "val lacks a class": (
        lambda root: shutil.rmtree(root / "val" / FIRST),
        0,
        {
            "train's classes are val's",
            "val: images",
        },
    ),
    "an empty class folder": (empty_a_class, 0, {"empty class folders", "val: images a class", "val: labels"}),
    "a text beside the images": (put(f"train/{FIRST}/notes.txt", b"x"), 1, {"strangers"}),
    "a file beside the classes": (put("train/loose.JPEG", encode("jpeg")), 1, {"strangers"}),
    "a broken link": (lambda root: (root / f"val/{FIRST}/x.JPEG").symlink_to("nowhere"), 1, {"strangers"}),
    "an image of another name": (move(plain(FIRST), f"train/{FIRST}/cat.JPEG"), 1, {"names"}),
    "a test image of another name": (put("test/cat.JPEG", encode("jpeg")), 0, {"test: images"}),
    "two train images in each other's class": (swap_train, 1, {"train: own folders"}),
    "a name in two classes": (a_name_in_two_classes, 1, {"train: own folders", "names in two classes"}),
    "an empty file": (put(plain(FIRST), b""), 1, {"empty files"}),
    "a GIF named .JPEG": (put(plain(FIRST), encode("GIF")), 1, {"extension against content"}),
    "junk named .JPEG": (put(plain(FIRST), b"<html>not found</html>"), 1, {"extension against content"}),
    "a PNG that is not the known one": (put(plain(FIRST), encode("png")), 1, {"extension against content"}),
    "a truncated image": (put(plain(FIRST), encode("jpeg", 200, 200)[:-300]), 2, {"usable by training", INDEX}),
    "only a header": (put(plain(FIRST), encode("jpeg")[:200]), 2, {"usable by training", INDEX}),
    "a CMYK that is not known": (put(plain(FIRST), encode("cmyk")), 2, {"known oddities"}),
    "a known CMYK that is not": (put(CMYK, encode("jpeg")), 2, {"known oddities"}),
    "the known PNG as a JPEG": (put(PNG, encode("jpeg")), 2, {"known oddities"}),
    "all known CMYK written anew": (
        lambda root: [put(path, encode("jpeg"))(root) for path in EVERY_CMYK],
        2,
        {"known oddities"},
    ),
    "a CMYK among the validation images": (
        put(f"val/{FIRST}/{val_name(VAL[FIRST][0])}", encode("cmyk")),
        2,
        {"known oddities"},
    ),
    "junk among the test images": (put(f"test/{TEST_NAME}", b"<html>not found</html>"), 1, {"extension against content"}),
    "a known oddity gone, another there": (move(CMYK, CMYK.replace(".JPEG", "1.JPEG")), 2, {"known oddities"}),
    "an ordinary image in a known oddity's place": (replace_oddity, 2, {"known oddities"}),
    "pixels that cannot be decoded": (put(PNG, broken_png()), 3, {"usable by training", INDEX}),
}


def test_the_small_imagenet_is_as_it_should_be(made: Made):
    for level in range(4):
        report = made.verify(level)
        assert report.ok, report.table()
        assert report.expected == "imagenet" and report.counts == {"train": 48, "val": 48, "test": 5}
        assert {finding.level for finding in report.findings} == set(range(level + 1))
    assert len(offenders(report, "known oddities")) == 24
    verdicts = {finding.check: finding.verdict for finding in report.findings}
    assert {check for check, verdict in verdicts.items() if verdict == "expected"} == {
        "extension against content",
        "metadata",
        "known oddities",
    }
    assert {check for check, verdict in verdicts.items() if verdict == "not checked"} == {COUNTS}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_at_its_level_by_its_checks(made: Made, name: str):
    damage, level, checks = DAMAGES[name]
    damage(made.root)
    made.list_again()
    if level:
        report = made.verify(level - 1)
        assert report.ok, f"found too early: {report.table()}"
    report = made.verify(level)
    assert problems(report) == checks, report.table()
    assert not report.ok and report.as_json()["ok"] is False


@pytest.mark.parametrize(
    ("damage", "level", "told"),
    [
        (put(plain(FIRST), encode("jpeg", seed=0) + b"\0"), 1, f"{plain(FIRST)} has "),
        (put(f"train/{FIRST}/{FIRST}_9.JPEG", encode("jpeg")), 1, f"train/{FIRST}/{FIRST}_9.JPEG is not in it"),
        (lambda root: (root / plain(FIRST)).unlink(), 1, f"{plain(FIRST)} is missing"),
        (move(plain(FIRST), plain(FIRST).replace("_1.", "_2.")), 1, f"{plain(FIRST)} is missing"),
    ],
)
def test_what_the_preparation_wrote_is_compared(made: Made, damage, level, told):
    damage(made.root)
    report = made.verify(level)
    assert LIST in problems(report) and LIST not in problems(made.verify(level - 1))
    assert any(line.startswith(told) for line in offenders(report, LIST)), offenders(report, LIST)


def test_names_that_sort_otherwise_as_bytes_or_beside_folders_are_compared_all_the_same(any_set: Made):
    for name in ("ant-eater", "ant", "ant.x", "ä", "🐜"):
        for split in ("train", "val"):
            write_files(
                any_set.root / split / name, {"deep/er.png": encode("png"), "deep.png": encode("png"), "é.png": encode("png")}
            )
    write_files(any_set.root / "test", {"b.png": encode("png"), "b/c.png": encode("png"), "a.png": encode("png")})
    any_set.list_again()
    report = any_set.verify(3, "any")
    assert report.ok, report.table()
    assert "45 names and sizes, 45 checksums agree" in next(one.found for one in report.findings if one.check == LIST)
    (any_set.root / "test/b/c.png").unlink()
    (any_set.root / "val/🐜/é.png").rename(any_set.root / "val/🐜/e.png")
    assert sorted(offenders(any_set.verify(1, "any"), LIST)) == [
        "test/b/c.png is missing",
        "val/🐜/e.png is not in it",
        "val/🐜/é.png is missing",
    ]


def test_a_flipped_bit_that_decodes_is_found_by_its_checksum_unless_the_file_was_linked(made: Made):
    path = made.root / plain(FIRST)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert made.verify(2).ok
    report = made.verify(3)
    assert LIST in problems(report) and "crc32" in offenders(report, LIST)[0]
    made.list_again(linked=(plain(FIRST),))
    assert LIST not in problems(made.verify(3))
    assert "100 checksums" in next(finding.found for finding in made.verify(3).findings if finding.check == LIST)


def test_a_damaged_list_is_a_problem_and_none_is_not(made: Made):
    path = made.root / ".prepare/manifest.tsv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert problems(made.verify(1)) == {LIST}
    path.unlink()
    assert made.verify(1).ok
    assert {finding.check: finding.verdict for finding in made.verify(1).findings}[LIST] == "not checked"


def test_a_file_that_goes_away_meanwhile_is_not_readable(made: Made):
    gone = made.root / "test/ILSVRC2012_test_00000005.JPEG"

    def remove(done: int, total: int) -> None:
        gone.unlink(missing_ok=True)

    from src.imagenet.verify.levels import verify_against
    from tests.unit.imagenet.verify.conftest import TRUTH

    for level in (1, 2, 3):
        gone.write_bytes(encode("jpeg"))
        made.list_again()
        report = verify_against(TRUTH, made.root, level=level, expect="imagenet", threads=1, progress=remove)
        assert "readable" in problems(report), level
        assert offenders(report, "readable") == ["test/ILSVRC2012_test_00000005.JPEG"]


def test_a_class_of_more_or_fewer_images_than_any_has_is_named_where_the_sum_is_right(made: Made):
    for wnid in WNIDS[1:3]:
        (made.root / plain(wnid)).rename(made.root / f"train/{FIRST}/{wnid}_1.JPEG")
    last = sorted((made.root / "train" / SECOND).iterdir())[0]
    last.rename(made.root / f"train/{WNIDS[4]}" / last.name)
    told = offenders(made.verify(0), "train: images")
    assert told == [f"train/{FIRST}: 4, and every class has 1 to 3", f"train/{SECOND}: 0, and every class has 1 to 3"]


@pytest.mark.parametrize("number", [1, 2, 25, 47, 48])
def test_every_validation_number_is_asked_for(made: Made, number: int):
    wnid = next(wnid for wnid, numbers in VAL.items() if number in numbers)
    (made.root / "val" / wnid / val_name(number)).unlink()
    assert offenders(made.verify(0), "val: images") == [f"missing: {val_name(number)}"]


def test_missing_validation_images_are_all_named(made: Made):
    gone = [VAL[WNIDS[3]][0], VAL[WNIDS[7]][1]]
    for wnid, number in ((WNIDS[3], gone[0]), (WNIDS[7], gone[1])):
        (made.root / "val" / wnid / val_name(number)).unlink()
    assert offenders(made.verify(0), "val: images") == [f"missing: {val_name(number)}" for number in sorted(gone)]
    assert offenders(made.verify(0), "val: images a class") == [f"val/{wnid}: 1" for wnid in sorted((WNIDS[3], WNIDS[7]))]


def test_the_development_kits_ids_taken_for_places_are_named_as_the_trap(made: Made):
    val = made.root / "val"
    for wnid in WNIDS:
        (val / wnid).rename(val / f"{wnid}.old")
    for wnid, other in zip(WNIDS, [*WNIDS[5:], *WNIDS[:5]], strict=True):
        (val / f"{wnid}.old").rename(val / other)
    report = made.verify(0)
    assert problems(report) == {"val: labels"}
    assert "ILSVRC2012_ID" in report.table() and len(offenders(report, "val: labels")) == 24


def test_any_set_is_held_against_itself_alone(any_set: Made):
    for level in range(4):
        assert any_set.verify(level, "any").ok and any_set.verify(level, "auto").expected == "any"
    (any_set.root / "train/ant/0.png").write_bytes(encode("jpeg"))
    assert problems(any_set.verify(1, "any")) == {"extension against content"}
    (any_set.root / "val/bee").rename(any_set.root / "val/wasp")
    assert problems(any_set.verify(0, "any")) == {"train's classes are val's"}
    (any_set.root / "train/cat").mkdir()
    (any_set.root / "val/cat").mkdir()
    assert problems(any_set.verify(0, "any")) == {"train's classes are val's", "empty class folders"}


def test_in_any_set_known_names_may_be_ordinary_and_a_known_png_is_expected(any_set: Made):
    for name in KNOWN:
        (any_set.root / "train/ant" / name).write_bytes(encode("jpeg"))
    assert any_set.verify(3, "any").ok
    (any_set.root / "train/ant" / KNOWN_PNG).write_bytes(encode("png"))
    report = any_set.verify(3, "any")
    assert report.ok and offenders(report, "extension against content") == [f"train/ant/{KNOWN_PNG} is PNG"]


def test_auto_takes_a_set_for_imagenet_from_nine_tenths_of_its_classes_on(made: Made):
    for number, wnid in enumerate(WNIDS[:3]):
        assert made.verify(0, "auto").expected == "imagenet", number
        for split in ("train", "val"):
            shutil.rmtree(made.root / split / wnid)
    assert made.verify(0, "auto").expected == "any"


def test_folders_named_by_numbers_are_told_of(any_set: Made):
    for split in ("train", "val"):
        (any_set.root / split / "ant").rename(any_set.root / split / "10")
        (any_set.root / split / "bee").rename(any_set.root / split / "9")
    finding = any_set.verify(0, "any").findings[0]
    assert (finding.check, finding.verdict) == ("class folders", "expected") and "10 is label 0" in finding.found


@pytest.mark.parametrize(
    ("damage", "known", "told", "broken"),
    [
        (put(XMP_FILE, SOUND_XMP), 23, True, 0),
        (put(XMP_FILE, encode("jpeg")), 23, True, 0),
        (move(XMP_FILE, f"{XMP_FILE[:-5]}1.JPEG"), 23, False, 1),
        (put(plain(FIRST), with_segments(encode("jpeg"), segment(0xE1, XMP + b"<broken"))), 24, False, 2),
    ],
    ids=["sound", "without a packet", "of another name", "broken elsewhere"],
)
def test_xmp_is_never_a_reason_to_doubt_imagenet(made: Made, damage, known: int, told: bool, broken: int):
    damage(made.root)
    made.list_again()
    for level in (2, 3):
        report = made.verify(level)
        assert report.ok, report.table()
        found = {finding.check: finding for finding in report.findings}
        assert found["known oddities"].verdict == "expected" and found["known oddities"].found.startswith(f"{known} of")
        assert any(XMP_FILE in line and "sound or gone" in line for line in found["known oddities"].offenders) == told
        assert f" {broken} broken XMP" in found["metadata"].found


@pytest.mark.parametrize("kind", ["cmyk", "png", "GIF"])
def test_of_the_test_split_nothing_is_known_and_oddities_are_told(made: Made, kind: str):
    put(f"test/{TEST_NAME}", encode(kind))(made.root)
    made.list_again()
    report = made.verify(3)
    assert report.ok, report.table()
    told = offenders(report, "known oddities")
    assert told[0] == f"test/{TEST_NAME} is {kind.upper()}; of the test split nothing is published" and len(told) == 25
    if kind != "cmyk":
        assert f"test/{TEST_NAME} is {kind.upper()}" in offenders(report, "extension against content")


def test_what_real_photographs_have_is_no_problem(made: Made):
    """As real ones: bytes behind the end, fill bytes, 9,000 pixels, a tiny one, 16 MB, spoilt metadata, any time."""
    whole = encode("jpeg", 60, 50)
    odd = {
        "trailing": whole + bytes(700),
        "text": whole + b"\r\nphoto of a dog",
        "fill": whole[:2] + b"\xff\xff\xff" + whole[3:],
        "wide": encode("jpeg", 9_331, 20),
        "tiny": encode("grey", 20, 17),
        "large": with_segments(whole, *[segment(0xE2, bytes(65_000))] * 250),
        "exif": with_segments(whole, segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")),
        "comment": with_segments(whole, segment(0xFE, b"\xff\xd9\xff\xda <html>")),
        "no end": whole[:-2] + bytes(700),
    }
    assert len(odd["large"]) > 16_000_000
    for (name, data), wnid in zip(odd.items(), WNIDS, strict=False):
        path = made.root / plain(wnid)
        path.write_bytes(data)
        os.utime(path, (0, 0) if name == "tiny" else (4e9, 4e9))
    made.list_again()
    for level in (1, 2, 3):
        report = made.verify(level)
        assert report.ok, report.table()
    assert "9,331 px wide" in next(finding.found for finding in report.findings if finding.check == "sizes")


def test_rotation_grey_cmyk_and_broken_metadata_are_counted(any_set: Made):
    turned = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    files = {
        "turned": with_segments(encode("jpeg"), segment(0xE1, b"Exif\0\0" + turned)),
        "turned_motorola": with_segments(
            encode("jpeg"), segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0")
        ),
        "far": with_segments(encode("jpeg"), *[segment(0xE2, bytes(60_000))] * 3, segment(0xE1, b"Exif\0\0" + turned)),
        "broken": with_segments(encode("jpeg"), segment(0xE1, b"Exif\0\0II*\0\xff\xff\0\0")),
        "grey": encode("grey"),
        "cmyk": encode("cmyk"),
    }
    for name, data in files.items():
        (any_set.root / f"train/ant/{name}.jpg").write_bytes(data)
    for level in (2, 3):
        found = {finding.check: finding.found for finding in any_set.verify(level, "any").findings}
        assert found["EXIF rotation"].startswith("3 tell")
        assert found["metadata"].startswith("1 broken EXIF blocks, 0 broken XMP")
        assert "12 PNG, 6 JPEG; of the JPEGs 1 grey, 1 CMYK" in found["formats"]


def test_the_report_stands_in_the_folder_and_names_everybody(made: Made):
    for number in range(8):
        (made.root / f"train/{FIRST}/line\nbreak{number}.txt").write_bytes(b"")
    report = made.verify(1)
    table = report.table()
    assert "and 3 more" in table and "break4" in table and "break5" not in table and "\nbreak" not in table
    told = json.loads((made.root / ".prepare/report.json").read_text())
    assert told == report.as_json()
    strangers = next(finding for finding in told["findings"] if finding["check"] == "strangers")
    assert strangers["count"] == len(strangers["offenders"]) == 8 and told["ok"] is False


def test_where_the_report_cannot_stand_that_is_said(any_set: Made):
    (any_set.root / ".prepare/report.json/x").mkdir(parents=True)
    report = any_set.verify(1, "any")
    assert report.ok and report.findings[-1].check == "report" and "cannot be written" in report.findings[-1].found


def test_what_is_no_data_set_is_refused(tmp_path: Path):
    for root, word in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "neither train nor val")):
        with pytest.raises(ConfigError, match=word):
            verify(root, level=0, expect="auto", threads=1, progress=lambda done, total: None)


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_progress_is_told_up_to_the_last_and_threads_do_not_matter(made: Made, level: int, threads: int):
    from src.imagenet.verify.levels import verify_against
    from tests.unit.imagenet.verify.conftest import TRUTH

    told: list[tuple[int, int]] = []
    report = verify_against(
        TRUTH, made.root, level=level, expect="auto", threads=threads, progress=lambda *amounts: told.append(amounts)
    )
    assert told[-1] == (101, 101) and told == sorted(told)
    assert [finding[1:] for finding in report.findings] == [finding[1:] for finding in made.verify(level).findings]


def test_the_published_truth_is_imagenets():
    from src.imagenet.wnids import imagenet_wnids

    truth = ilsvrc2012()
    assert tuple(sorted(truth.val_sums)) == imagenet_wnids()
    assert (truth.train, truth.val, truth.test, truth.val_a_class) == (1_281_167, 50_000, 100_000, 50)
    # Tench, by the ground truth: its first three and the two last images.
    assert len(set(truth.val_sums.values())) == 1000
    assert {name[:9] for name in KNOWN} <= truth.val_sums.keys()
    assert len(KNOWN) == 24 and sorted(KNOWN.values()).count("CMYK") == 22
    assert NUMBERED["val"].fullmatch("ILSVRC2012_val_00000293.JPEG") and not NUMBERED["val"].fullmatch("ILSVRC2012_val_293.JPEG")
    assert sum_of([2, 1]) == sum_of([1, 2]) != sum_of([1, 3])
