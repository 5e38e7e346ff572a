"""What a verification found bad is known to the trainer's index at once, for as long as the file is the same."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from src.data import bad_files, index
from src.data.index import FolderIndex, open_index, teach_index
from src.data.index_cache import Names
from tests.pictures import encode
from tests.unit.imagenet.verify.conftest import Made, broken_png, offenders, problems

BAD = "train/ant/1.png"
INDEX = "the trainer's index"
REASON = "cannot be decoded"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the files that an index decodes whole, by the real function."""
    paths: list[str] = []

    def look(path: str):
        paths.append(path)
        return bad_files.look_whole(path)

    monkeypatch.setattr(index, "look_whole", look)
    return paths


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of read-only data lies in the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def opened(made: Made, split: str = "train") -> FolderIndex:
    found, _ = open_index(
        made.root / split,
        choose=lambda labels: np.arange(len(labels)),
        cache_dir=Path.home() / ".cache/imagenet-trainer",
        threads=2,
        progress=lambda done, total: None,
    )
    return found


def damaged(made: Made) -> Path:
    path = made.root / BAD
    path.write_bytes(broken_png())
    return path


def test_only_the_full_decoding_finds_it_and_the_index_knows_it_from_then_on(any_set: Made, decoded: list[str]):
    path = damaged(any_set)
    before = opened(any_set).state()
    assert any_set.verify(2, "any").ok and opened(any_set).faults == {}
    report = any_set.verify(3, "any")
    assert problems(report) == {"usable by training", INDEX}
    assert offenders(report, INDEX)[0].startswith(f"{BAD}: {REASON}")
    found = opened(any_set)
    assert list(found.faults) == [1] and found.faults[1].startswith(REASON)
    assert found.bad[1].stamp[:2] == (path.stat().st_size, path.stat().st_mtime_ns)
    assert decoded == [], "an unchanged bad file is known without looking"
    for name in ("sizes", "labels", "text", "ends"):
        np.testing.assert_array_equal(found.state()[name], before[name])  # a plan is made of these


def test_level_2_keeps_what_level_3_found_and_tells_of_it(any_set: Made):
    damaged(any_set)
    any_set.verify(3, "any")
    assert problems(any_set.verify(2, "any")) == {INDEX}
    assert list(opened(any_set).faults) == [1]


def test_a_mended_file_is_good_at_the_next_opening_and_for_good(any_set: Made, decoded: list[str]):
    path = damaged(any_set)
    any_set.verify(3, "any")
    path.write_bytes(encode("png", 77, 66))
    found = opened(any_set)
    assert found.faults == {} and found.sizes[1].tolist() == [77, 66] and decoded == [str(path)]
    assert opened(any_set).faults == {} and len(decoded) == 1
    assert any_set.verify(3, "any").ok


def test_one_replaced_by_another_bad_one_of_the_same_size_and_time_is_looked_at_and_stays_bad(any_set: Made, decoded: list[str]):
    path = damaged(any_set)
    any_set.verify(3, "any")
    state = path.stat()
    other = bytearray(broken_png())
    other[-40] ^= 0xFF
    path.write_bytes(other)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert list(opened(any_set).faults) == [1] and decoded == [str(path)]
    assert list(opened(any_set).faults) == [1] and len(decoded) == 1, "what was learned was forgotten"


def test_one_replaced_by_a_sound_one_of_the_same_size_and_time_is_good(any_set: Made):
    good = (any_set.root / BAD).read_bytes()
    path = any_set.root / BAD
    broken = bytearray(good)
    broken[len(good) // 2 : len(good) // 2 + 8] = bytes(8)
    path.write_bytes(broken)
    state = path.stat()
    assert problems(any_set.verify(3, "any")) == {"usable by training", INDEX}
    path.write_bytes(good)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert opened(any_set).faults == {}


def test_level_3_forgets_what_is_sound_again(any_set: Made):
    path = damaged(any_set)
    any_set.verify(3, "any")
    path.write_bytes(encode("png", 20, 20, 1))
    assert any_set.verify(3, "any").ok
    assert opened(any_set).faults == {}


def test_a_file_that_is_gone_is_bad_until_it_is_back(any_set: Made, decoded: list[str]):
    made = opened(any_set)
    made._look_whole([1])
    assert made.faults == {}
    away = any_set.root / "away.png"
    (any_set.root / BAD).rename(away)
    made._look_whole([1])
    assert "No such file" in made.faults[1]


def test_read_only_data_are_noted_in_the_cache_folder_and_the_newer_knowledge_counts(any_set: Made, home: Path, decoded: list[str]):
    opened(any_set)
    damaged(any_set)
    assert (any_set.root / ".train.index.npz").is_file()
    any_set.root.chmod(0o555)
    try:
        report = any_set.verify(3, "any")
        assert str(home / ".cache/imagenet-trainer") in next(one.found for one in report.findings if one.check == INDEX)
        assert list(opened(any_set).faults) == [1], "the older index beside the data hid the newer one"
        assert decoded == []
    finally:
        any_set.root.chmod(0o755)


def test_where_no_place_takes_the_index_that_is_said(any_set: Made, home: Path):
    damaged(any_set)
    (home / ".cache").mkdir(parents=True)
    (home / ".cache/imagenet-trainer").write_bytes(b"")
    any_set.root.chmod(0o555)
    try:
        report = any_set.verify(3, "any")
        assert problems(report) == {"usable by training"}
        finding = next(one for one in report.findings if one.check == INDEX)
        assert finding.verdict == "not checked" and "no place takes" in finding.found
    finally:
        any_set.root.chmod(0o755)


def test_the_index_is_not_written_where_nothing_is_new(any_set: Made):
    damaged(any_set)
    any_set.verify(3, "any")
    stamps = [(any_set.root / f".{split}.index.npz").stat().st_mtime_ns for split in ("train", "val")]
    any_set.verify(3, "any")
    opened(any_set)
    assert [(any_set.root / f".{split}.index.npz").stat().st_mtime_ns for split in ("train", "val")] == stamps


def test_an_index_of_the_former_form_is_built_anew(any_set: Made, monkeypatch: pytest.MonkeyPatch):
    of_now = FolderIndex.state
    with monkeypatch.context() as former:
        former.setattr(index, "_VERSION", 1)
        former.setattr(FolderIndex, "state", lambda it: {k: v for k, v in of_now(it).items() if not k.startswith("bad")})
        opened(any_set)
    damaged(any_set)
    assert opened(any_set).faults == {}
    shutil.copy(any_set.root / ".train.index.npz", any_set.root / "new")
    assert np.load(any_set.root / "new")["bad"].tolist() == [0]


def test_a_file_replaced_while_it_was_looked_at_is_looked_at_again(any_set: Made, monkeypatch: pytest.MonkeyPatch):
    path = damaged(any_set)
    whole = bad_files.whole_header_of

    def look(data: bytes):
        found = whole(data)
        path.write_bytes(encode("png", 20, 20, 1))
        return found

    made = opened(any_set)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(bad_files, "whole_header_of", look)
        made._look_whole([1])
    assert made.faults[1].startswith(REASON)
    made.look_again()
    assert made.faults == {}


def taught(made: Made, names: Names, *, keep_bad: bool):
    sizes = np.full((6, 2), 20, np.int32)
    places = {"cache_dir": Path.home() / "cache", "threads": 1}
    return teach_index(made.root / "train", names, sizes, {}, keep_bad=keep_bad, **places)


def test_only_who_decoded_all_files_unsays_what_was_bad(any_set: Made):
    """A disk may have failed to read a file once: it is the same file, and sound."""
    made = opened(any_set)
    made._look_whole([1])
    stamp = bad_files.stamp_of(str(any_set.root / BAD))
    bad = {1: bad_files.BadFile("cannot be read (Input/output error)", stamp)}
    cached = {"keep_bad": True, "cache_dir": Path.home() / "cache", "threads": 1}
    teach_index(any_set.root / "train", made.names, made.sizes, bad, **cached)
    assert list(taught(any_set, made.names, keep_bad=True)[0].faults) == list(opened(any_set).faults) == [1]
    assert taught(any_set, made.names, keep_bad=False)[0].faults == opened(any_set).faults == {}


def test_what_was_found_of_other_files_is_not_taken_over(any_set: Made):
    names = opened(any_set).names
    others = Names.pack([*(names[place] for place in range(5)), "bee/9.png"])
    assert taught(any_set, names, keep_bad=True) is not None
    assert taught(any_set, others, keep_bad=True) is None
    assert taught(any_set, Names.pack(names[place] for place in range(5)), keep_bad=True) is None


@pytest.mark.parametrize("bad", [[], [0], [5], [0, 1, 2, 3, 4, 5]])
def test_bits_reasons_and_stamps_survive(bad: list[int]):
    known = {place: bad_files.BadFile(f"réason {place}", (place, 10**18 + place, -1)) for place in bad}
    assert bad_files.bad_from(bad_files.state_of(known, 6), 6) == known
