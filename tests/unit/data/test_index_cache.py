"""The index's cache: used when it is right, rebuilt when it is old, foreign or damaged, and never written into read-only data."""

import io
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.pictures import encode, write_files

FILES = {f"{name}/{number}.png": encode("png", 5 + number, 4 + number) for name in ("ant", "bee") for number in range(3)}
SIZES = [[5, 4], [6, 5], [7, 6]] * 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "disk" / "train", FILES)


@pytest.fixture
def beside(root: Path) -> Path:
    return root.parent / ".train.index.npz"


def check(index) -> None:
    assert index.classes == ("ant", "bee")
    assert [index.relative(sample) for sample in range(len(index))] == sorted(FILES)
    assert index.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert index.sizes.tolist() == SIZES
    assert index.faults == {}


def changed(folder: Path) -> None:
    """Wait until the file system's clock, which ticks every few milliseconds, tells a change from what was before."""
    before = folder.stat().st_mtime_ns
    while True:
        probe = folder / "probe"
        probe.touch()
        probe.unlink()
        if folder.stat().st_mtime_ns != before:
            return
        time.sleep(0.002)


def test_the_second_opening_reads_no_header(root, beside, opened, headers_read, cache_dir):
    check(opened(root)[0])
    assert len(headers_read) == 6
    assert beside.is_file()
    assert not cache_dir.exists()
    written = beside.stat().st_mtime_ns
    check(opened(root)[0])
    assert len(headers_read) == 6
    assert beside.stat().st_mtime_ns == written, "nothing was learned, yet it was written again"


def test_the_second_opening_needs_no_file(root, opened):
    opened(root)
    for path in root.glob("*/*.png"):
        path.write_bytes(b"")  # in place: the class folder does not change
    check(opened(root)[0])


def test_a_new_file_is_found(root, opened):
    opened(root)
    changed(root / "bee")
    write_files(root, {"bee/9.png": encode("png", 99, 98)})
    index, _ = opened(root)
    assert index.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert index.sizes.tolist() == [*SIZES, [99, 98]]


def test_a_removed_file_is_gone(root, opened):
    opened(root)
    changed(root / "ant")
    (root / "ant/1.png").unlink()
    index, _ = opened(root)
    assert index.labels.tolist() == [0, 0, 1, 1, 1]
    assert index.sizes.tolist() == [SIZES[0], *SIZES[2:]]


def test_a_file_replaced_by_another_is_read_again(root, opened):
    opened(root)
    changed(root / "ant")
    write_files(root, {"other.png": encode("png", 50, 60)})
    (root / "other.png").rename(root / "ant/1.png")
    assert opened(root)[0].sizes.tolist() == [SIZES[0], [50, 60], *SIZES[2:]]


@pytest.mark.parametrize("change", ["added", "removed", "renamed"])
def test_changed_classes_are_found(root, opened, change):
    opened(root)
    if change == "added":
        write_files(root, {"ape/0.png": encode("png")})
    elif change == "removed":
        shutil.rmtree(root / "ant")
    else:
        (root / "ant").rename(root / "cat")
    index, _ = opened(root)
    expected = {"added": ("ant", "ape", "bee"), "removed": ("bee",), "renamed": ("bee", "cat")}[change]
    assert index.classes == expected
    assert {name.split("/")[0] for name in map(index.relative, range(len(index)))} == set(expected)
    assert (index.sizes > 0).all()


def test_a_moved_folder_does_not_trust_its_old_cache(root, beside, opened, headers_read):
    opened(root)
    root.rename(root.parent / "val")
    beside.rename(root.parent / ".val.index.npz")
    headers_read.clear()
    check(opened(root.parent / "val")[0])
    assert len(headers_read) == 6


def test_a_bad_file_replaced_in_place_is_good_at_once(root, beside, opened, headers_read):
    bad = root / "ant/1.png"
    bad.write_bytes(b"junk")
    assert set(opened(root)[0].faults) == {1}
    written = beside.stat().st_mtime_ns
    assert set(opened(root)[0].faults) == {1}, "a bad file is bad until somebody replaces it"
    assert beside.stat().st_mtime_ns == written, "nothing was learned, yet it was written again"
    assert len(headers_read) == 6, "an unchanged bad file is known at once"
    bad.write_bytes(FILES["ant/1.png"])
    check(opened(root)[0])
    check(opened(root)[0])
    assert len(headers_read) == 6, "only what was bad is looked at again, and then all of it"


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(5))
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("key.npy", "hello")
    return file.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"x" * 40, b"{}", bytes(5_000), _npy(), _zip()], ids=["", "x", "json", "zeros", "npy", "zip"]
)
def test_a_foreign_file_is_replaced(root, beside, opened, headers_read, content):
    beside.write_bytes(content)
    check(opened(root)[0])
    check(opened(root)[0])
    assert len(headers_read) == 6


def _truncations(length: int) -> list[int]:
    return [*range(0, 8), *range(8, length, length // 15), length - 33, length - 32, length - 31, length - 1]


def test_a_damaged_cache_is_rebuilt(root, beside, opened, headers_read):
    """Wherever a byte is changed, the index is right, and it is built anew: no byte is left out of the check."""
    opened(root)
    sound = beside.read_bytes()
    for number, position in enumerate(range(0, len(sound), len(sound) // 150)):
        damaged = bytearray(sound)
        damaged[position] ^= (0xFF, 1, 2, 0x20)[number % 4]
        beside.write_bytes(damaged)
        headers_read.clear()
        check(opened(root)[0])
        assert len(headers_read) == 6, f"byte {position} of {len(sound)}"
        assert beside.read_bytes() != damaged


def test_a_truncated_or_lengthened_cache_is_rebuilt(root, beside, opened, headers_read):
    opened(root)
    sound = beside.read_bytes()
    for damaged in (*(sound[:length] for length in _truncations(len(sound))), sound + b"\0", b"\0" + sound, sound + sound):
        beside.write_bytes(damaged)
        headers_read.clear()
        check(opened(root)[0])
        assert len(headers_read) == 6, f"{len(damaged)} bytes"


def test_read_only_data_are_cached_elsewhere(root, opened, headers_read, cache_dir):
    root.parent.chmod(0o555)
    try:
        check(opened(root)[0])
        assert [path.name for path in root.parent.iterdir()] == ["train"]
        assert len(list(cache_dir.iterdir())) == 1
        check(opened(root)[0])
        assert len(headers_read) == 6
    finally:
        root.parent.chmod(0o755)


def test_two_read_only_folders_of_one_name_have_caches_of_their_own(tmp_path, opened, cache_dir):
    roots = [
        write_files(tmp_path / disk / "train", {"ant/0.png": encode("png", side, side)}) for disk, side in (("a", 5), ("b", 6))
    ]
    for root in roots:
        root.parent.chmod(0o555)
    try:
        for _ in range(2):
            assert [opened(root)[0].sizes.tolist() for root in roots] == [[[5, 5]], [[6, 6]]]
        assert len(list(cache_dir.iterdir())) == 2
    finally:
        for root in roots:
            root.parent.chmod(0o755)


def test_a_poor_cache_beside_read_only_data_does_not_hide_a_richer_one(root, opened, headers_read):
    opened(root, lambda labels: np.array([0]))
    root.parent.chmod(0o555)
    try:
        check(opened(root)[0])
        assert len(headers_read) == 6
        check(opened(root)[0])
        assert len(headers_read) == 6, "what was learned was forgotten"
    finally:
        root.parent.chmod(0o755)


def test_where_nothing_can_be_written_it_works_all_the_same(root, beside, opened, cache_dir):
    cache_dir.write_text("a file, where a folder should be")
    beside.mkdir()
    for _ in range(2):
        check(opened(root)[0])
