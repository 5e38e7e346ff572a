"""Sums of archives beside extraction: right, in one reading, never in each other's way."""

import hashlib
import threading
from pathlib import Path

import pytest

from src.imagenet import sums as module
from src.imagenet.pieces import Archive
from src.imagenet.sums import ReadAhead
from tests.unit.imagenet.made_up import MadeUp, extract, image, tree

BLOCK = 2**16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", BLOCK)


def archive(folder: Path, name: str, blocks: int) -> Archive:
    path = folder / name
    path.write_bytes(hashlib.sha256(name.encode()).digest() * (blocks * BLOCK // 32))
    return Archive(path, hashlib.md5(path.read_bytes()).hexdigest(), None)


def units(name: str, count: int) -> list[MadeUp]:
    return [MadeUp(f"{name}/{at}", [image(f"train/n{at}/{name}{at}.JPEG", bytes(1000))]) for at in range(count)]


def ahead_of(archives: list[Archive], made: list[MadeUp], ahead: int) -> ReadAhead:
    owners = {unit.name: entry.path for unit in made for entry in archives if unit.name.startswith(entry.path.name)}
    reader = ReadAhead(archives, made, owners)
    reader._ahead = ahead
    return reader


@pytest.mark.parametrize("ahead", [1, BLOCK, 5 * BLOCK, 2**32])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("order", [1, -1])
def test_sums_are_right_and_every_unit_gets_its_turn(tmp_path: Path, ahead: int, threads: int, order: int) -> None:
    archives = [archive(tmp_path, "a.tar", 40), archive(tmp_path, "b.tar", 3)]
    made = [*units("a.tar", 7), *units("b.tar", 2), *units("folder", 2)][::order]
    reader = ahead_of(archives, made, ahead)
    extract(tmp_path / "target", made, threads=threads, ahead=reader)
    reader = ahead_of(archives, made, ahead)
    for unit in made:
        reader.tell(unit.name, 1.0)  # done by an earlier start
    reader.start()
    told: list[tuple[int, int]] = []
    reader.finish(lambda done, total: told.append((done, total)))
    assert reader.found == {entry.path: entry.md5 for entry in archives}
    assert len(tree(tmp_path / "target")) == 11
    assert told[-1] == (43 * BLOCK, 43 * BLOCK)


def test_a_unit_waits_until_its_bytes_are_read_and_the_reader_keeps_near(tmp_path: Path) -> None:
    archives = [archive(tmp_path, "a.tar", 40)]
    made = units("a.tar", 4)
    reader = ahead_of(archives, made, 4 * BLOCK)
    assert [reader._spans[unit.name] for unit in made] == [(at * 10 * BLOCK, (at + 1) * 10 * BLOCK) for at in range(4)]
    reader.start()
    reader.wait_for(made[0].name)
    assert 2 * BLOCK <= reader._read <= 5 * BLOCK  # half of what it may be ahead, and no more than all of it
    waiting = threading.Thread(target=reader.wait_for, args=(made[1].name,))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    assert reader._read == 5 * BLOCK
    reader.tell(made[0].name, 1.0)
    waiting.join()
    assert 12 * BLOCK <= reader._read <= 15 * BLOCK
    reader.stop()
    assert reader.found == {}


def test_an_archive_that_cannot_be_read_is_told_and_nobody_waits_for_it(tmp_path: Path) -> None:
    broken = archive(tmp_path, "a.tar", 4)
    made = units("a.tar", 4)
    reader = ahead_of([broken], made, 2**32)
    broken.path.unlink()
    extract(tmp_path / "target", made, ahead=reader)
    assert isinstance(reader.error, FileNotFoundError)


def test_an_error_of_a_unit_ends_the_reading_too(tmp_path: Path) -> None:
    archives = [archive(tmp_path, "a.tar", 400)]
    made = [MadeUp("a.tar/0", [ZeroDivisionError()]), *units("a.tar", 3)[1:]]
    reader = ahead_of(archives, made, BLOCK)
    with pytest.raises(ZeroDivisionError):
        extract(tmp_path / "target", made, ahead=reader, threads=1)
    assert not reader._thread.is_alive()
    assert reader.found == {}
