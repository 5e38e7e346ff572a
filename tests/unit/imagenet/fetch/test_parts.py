"""A download in parts continues where it stopped, publishes only what is right, and says what it cannot do."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from src.config import ConfigError
from src.imagenet.fetch.notes import NOTES, Receipts, append_line, check_space, notes_in
from src.imagenet.fetch.parts import download
from src.imagenet.fetch.remote import Changed, Offer, Passing, Patience, Read, Remote, SumKind
from src.imagenet.fetch.sums import etag_of_parts
from tests.unit.imagenet.fetch.stand_ins import noise

PART = 1 << 16
SOON = Patience(tries=3, first=0.001, longest=0.002)
CONTENT = noise(5 * PART + 123)


class Stop(Exception):  # noqa: N818 (what happens)
    """Ends a download from inside, as a crash would."""


def reader(content: bytes, asked: list[tuple[int, int]], fail: Callable[[int, int], None] = lambda start, count: None) -> Read:
    """Read parts of the content; `fail` is called before every chunk with (where, chunks so far)."""
    count = 0

    def read(start: int, stop: int) -> Iterator[bytes]:
        nonlocal count
        asked.append((start, stop))
        for at in range(start, stop, 1 << 14):
            fail(at, count)
            count += 1
            yield content[at : min(at + (1 << 14), stop)]

    return read


def remote(
    read: Read, content: bytes = CONTENT, *, sum: SumKind = "none", expected: str = "", mark: str = "m", modified: int | None = None
) -> Remote:
    return Remote("data/a.bin", len(content), mark, read, sum, expected, PART, modified)


def offer_of(remotes: Sequence[Remote]) -> Offer:
    return Offer("a test", len(remotes), sum(item.bytes for item in remotes), lambda: remotes)


def get(folder: Path, *remotes: Remote, threads: int = 1) -> list[tuple[int, int]]:
    """Download, and return what the progress was told."""
    told: list[tuple[int, int]] = []
    with notes_in(folder):
        download(offer_of(remotes), folder, threads=threads, progress=lambda done, total: told.append((done, total)), patience=SOON)
    return told


def break_at(where: int, error: Exception) -> Callable[[int, int], None]:
    def fail(at: int, count: int) -> None:
        if at >= where:
            raise error

    return fail


@pytest.mark.parametrize("threads", [1, 4])
def test_a_file_arrives_whole_and_nothing_else_is_left(tmp_path: Path, threads: int) -> None:
    told = get(tmp_path, remote(reader(CONTENT, [])), threads=threads)
    assert (tmp_path / "data/a.bin").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(os.listdir(tmp_path / NOTES)) == ["lock", "receipts.jsonl"]


def test_a_broken_download_asks_only_for_the_parts_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        get(tmp_path, remote(reader(CONTENT, [], break_at(2 * PART + 1, Stop()))))
    assert not (tmp_path / "data").exists()
    asked: list[tuple[int, int]] = []
    told = get(tmp_path, remote(reader(CONTENT, asked)))
    assert [start for start, _ in asked] == [2 * PART, 3 * PART, 4 * PART, 5 * PART]
    assert (tmp_path / "data/a.bin").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_there_is_not_asked_for_again(tmp_path: Path) -> None:
    get(tmp_path, remote(reader(CONTENT, [])))
    asked: list[tuple[int, int]] = []
    get(tmp_path, remote(reader(CONTENT, asked)))
    assert asked == []


def test_a_file_that_was_altered_since_is_downloaded_anew(tmp_path: Path) -> None:
    get(tmp_path, remote(reader(CONTENT, [])))
    altered = tmp_path / "data/a.bin"
    altered.write_bytes(b"x" + CONTENT[1:])
    os.utime(altered, ns=(1, 1))
    get(tmp_path, remote(reader(CONTENT, [])))
    assert altered.read_bytes() == CONTENT


def test_parts_of_another_version_are_not_mixed_with_the_new_one(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        get(tmp_path, remote(reader(CONTENT, [], break_at(3 * PART, Stop())), mark="old"))
    newer = noise(len(CONTENT), seed=1)
    get(tmp_path, remote(reader(newer, []), newer, mark="new"))
    assert (tmp_path / "data/a.bin").read_bytes() == newer


def test_faults_that_pass_are_borne_within_a_part_without_reading_it_again(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def fail(at: int, count: int) -> None:
        if asked[-1][0] < at == PART + (1 << 14) or asked[-1][0] < at == 3 * PART + (2 << 14):
            raise Passing("the line is noisy")

    get(tmp_path, remote(reader(CONTENT, asked, fail)))
    assert (tmp_path / "data/a.bin").read_bytes() == CONTENT
    assert (PART + (1 << 14), 2 * PART) in asked and (3 * PART + (2 << 14), 4 * PART) in asked


def test_a_connection_that_ends_early_counts_as_a_fault(tmp_path: Path) -> None:
    def read(start: int, stop: int) -> Iterator[bytes]:
        yield CONTENT[start : min(start + 10_000, stop)]  # more often than patience is long: what arrives renews it

    get(tmp_path, remote(read))
    assert (tmp_path / "data/a.bin").read_bytes() == CONTENT


def test_faults_that_do_not_pass_end_in_one_message_and_lose_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the line is dead, 3 times in a row.*same command again"):
        get(tmp_path, remote(reader(CONTENT, [], break_at(4 * PART, Passing("the line is dead")))))
    asked: list[tuple[int, int]] = []
    get(tmp_path, remote(reader(CONTENT, asked)))
    assert asked[0][0] == 4 * PART


def test_more_bytes_than_asked_for_never_spoil_the_next_part(tmp_path: Path) -> None:
    def read(start: int, stop: int) -> Iterator[bytes]:
        yield CONTENT[start:stop] + b"too much"

    get(tmp_path, remote(read, sum="sha256", expected=hashlib.sha256(CONTENT).hexdigest()))
    assert (tmp_path / "data/a.bin").read_bytes() == CONTENT


def test_what_changed_meanwhile_is_refused_and_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has another content now"):
        get(tmp_path, remote(reader(CONTENT, [], break_at(3 * PART, Changed("has another content now")))))
    assert not list((tmp_path / NOTES).glob("*.part")) and not list((tmp_path / NOTES).glob("*.note"))


ETAG = etag_of_parts({number: hashlib.md5(CONTENT[number * PART : (number + 1) * PART]).hexdigest() for number in range(6)})
SUMS: list[tuple[SumKind, str]] = [
    ("sha256", hashlib.sha256(CONTENT).hexdigest()),
    ("md5", hashlib.md5(CONTENT).hexdigest()),
    ("etag", ETAG),
]


@pytest.mark.parametrize(("kind", "expected"), SUMS)
def test_a_file_with_a_wrong_sum_is_not_published_and_the_next_start_mends_it(tmp_path: Path, kind: SumKind, expected: str) -> None:
    damaged = bytearray(CONTENT)
    damaged[3 * PART + 7] ^= 1
    with pytest.raises(ConfigError, match=r"a\.bin: arrived damaged"):
        get(tmp_path, remote(reader(bytes(damaged), []), sum=kind, expected=expected))
    assert not (tmp_path / "data/a.bin").exists()
    get(tmp_path, remote(reader(CONTENT, []), sum=kind, expected=expected))
    assert (tmp_path / "data/a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(("kind", "expected"), SUMS)
def test_a_file_that_somebody_else_downloaded_is_known_by_its_sum(tmp_path: Path, kind: SumKind, expected: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.bin").write_bytes(CONTENT)
    asked: list[tuple[int, int]] = []
    get(tmp_path, remote(reader(CONTENT, asked), sum=kind, expected=expected))
    assert asked == []


def test_a_sum_that_is_none_is_not_held_against_a_file(tmp_path: Path) -> None:
    item = remote(reader(CONTENT, []), sum="md5", expected="0" * 32)._replace(doubt=lambda: True)
    get(tmp_path, item)
    assert (tmp_path / "data/a.bin").read_bytes() == CONTENT


def test_a_torn_note_loses_its_own_part_only(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        get(tmp_path, remote(reader(CONTENT, [], break_at(3 * PART, Stop()))))
    note = next((tmp_path / NOTES).glob("*.note"))
    note.write_bytes(note.read_bytes()[:-5])  # a crash in the middle of the last line
    asked: list[tuple[int, int]] = []
    with pytest.raises(Stop):
        get(tmp_path, remote(reader(CONTENT, asked, break_at(4 * PART, Stop()))))
    assert asked[0][0] == 2 * PART
    asked.clear()
    get(tmp_path, remote(reader(CONTENT, asked)))  # and what was noted behind the torn line counts
    assert asked[0][0] == 4 * PART
    assert (tmp_path / "data/a.bin").read_bytes() == CONTENT


def test_a_note_without_its_file_counts_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        get(tmp_path, remote(reader(CONTENT, [], break_at(3 * PART, Stop()))))
    next((tmp_path / NOTES).glob("*.part")).unlink()
    get(tmp_path, remote(reader(CONTENT, [])))
    assert (tmp_path / "data/a.bin").read_bytes() == CONTENT


def test_empty_and_small_files_arrive_with_the_service_s_own_time(tmp_path: Path) -> None:
    def small(name: str, content: bytes) -> Remote:
        return Remote(name, len(content), "m", reader(content, []), "md5", hashlib.md5(content).hexdigest(), PART, 1_000_000_000)

    get(tmp_path, small("train/a", b""), small("train/b", b"hello"), small("c", b"x" * PART), threads=3)
    assert (tmp_path / "train/a").read_bytes() == b"" and (tmp_path / "train/b").read_bytes() == b"hello"
    assert (tmp_path / "c").stat().st_mtime == 1_000_000_000
    assert os.listdir(tmp_path / NOTES) == ["lock"]


def test_a_download_that_does_not_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\d bytes \(9,000,000,000\.0 GB\).*are free"):
        check_space(tmp_path / "not/there/yet", 9 * 10**18)


def test_a_second_download_into_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    with notes_in(tmp_path), pytest.raises(ConfigError, match=rf"process {os.getpid()} is downloading"), notes_in(tmp_path):
        pass


def test_a_receipt_counts_as_long_as_the_file_is_as_it_was(tmp_path: Path) -> None:
    with notes_in(tmp_path):
        (tmp_path / "a").write_bytes(b"12")
        receipts = Receipts(tmp_path)
        receipts.add("a", "m")
        receipts.finish("what", ["a"])
    assert Receipts(tmp_path).finished("what") and Receipts(tmp_path).holds("a", 2, "m")
    assert not Receipts(tmp_path).finished("other") and not Receipts(tmp_path).holds("a", 2, "n")
    (tmp_path / "a").write_bytes(b"123")
    assert not Receipts(tmp_path).finished("what")


def test_lines_behind_a_torn_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"whole\ntor")
    append_line(path, "next")
    assert path.read_bytes() == b"whole\ntor\nnext\n"


def test_the_disk_full_in_the_middle_is_told_and_the_next_start_continues(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        filler = small / "another's"

        def fail(at: int, count: int) -> None:
            if at == 3 * PART:
                filler.write_bytes(b"\0" * ((1 << 20) - 3 * PART - (40 << 10)))

        with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)\. Run the same command again"):
            get(small, remote(reader(CONTENT, [], fail)))
        filler.unlink()
        asked: list[tuple[int, int]] = []
        get(small, remote(reader(CONTENT, asked)))
        assert asked[0][0] >= 2 * PART
        assert (small / "data/a.bin").read_bytes() == CONTENT
    finally:
        subprocess.run(["umount", small], check=True)
