"""Extraction: everything is written once, what lasts is noted, a second start does only the rest, and errors name their place."""

import zlib
from pathlib import Path

import pytest

from src.batch import DataError
from src.config import ConfigError
from src.imagenet import extract as module
from src.imagenet.journal import read_state
from src.imagenet.space import StoppedError
from tests.unit.imagenet.made_up import MadeUp, extract, image, tree

TRAIN = [f"train/n{number % 3}/{number:04d}.JPEG" for number in range(60)]


def units(*, of: int = 20) -> list[MadeUp]:
    return [MadeUp(f"a.tar/{start}", [image(path) for path in TRAIN[start : start + of]]) for start in range(0, len(TRAIN), of)]


@pytest.mark.parametrize("threads", [1, 5])
def test_every_piece_is_written_and_told_of_in_its_units_rows(tmp_path: Path, threads: int) -> None:
    made = units()
    journal, rows = extract(tmp_path, made, threads=threads)
    assert tree(tmp_path) == {path: path.encode() for path in TRAIN}
    assert [journal.state.units[unit.name].done for unit in made] == [True] * 3
    for unit, start in zip(made, (0, 20, 40), strict=True):
        expected = [f"{path}\t{len(path)}\t{zlib.crc32(path.encode()):08x}\n".encode() for path in TRAIN[start : start + 20]]
        assert rows.of_unit(unit.name) == expected
    assert rows.sorted() == sorted(row for unit in made for row in rows.of_unit(unit.name))


def test_a_second_start_does_only_what_is_not_done_and_goes_on_within_a_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OFFER_PIECES", 4)
    first = [MadeUp("whole", [image(path) for path in TRAIN[:20]])]
    broken = MadeUp("broken", [*(image(path) for path in TRAIN[20:33]), OSError(5, "Input/output error", "/dev/sdb")])
    with pytest.raises(StoppedError, match=r"/dev/sdb: Input/output error. Nothing is lost: the same command goes on."):
        extract(tmp_path, [*first, broken], threads=1)
    state, _ = read_state(tmp_path)
    assert (state.units["whole"].done, state.units["broken"].pieces, state.units["broken"].done) == (True, 13, False)
    whole, mended = MadeUp("whole", []), MadeUp("broken", [image(path) for path in TRAIN[20:]])
    journal, rows = extract(tmp_path, [whole, mended])
    assert (whole.starts, mended.starts) == ([], [13])
    assert tree(tmp_path) == {path: path.encode() for path in TRAIN}
    assert [row.split(b"\t")[0].decode() for row in rows.of_unit("broken")] == TRAIN[20:]
    assert journal.state.units["broken"] == (40, sum(map(len, rows.of_unit("broken"))), True)


def test_what_a_killed_attempt_wrote_and_did_not_note_is_written_again(tmp_path: Path) -> None:
    extract(tmp_path, units()[:1])
    folder = tmp_path / ".prepare"
    (folder / "tree/train/n1/0021.JPEG").write_bytes(b"torn")
    (folder / "tree/val").mkdir()
    (folder / "tree/val/half").symlink_to("/etc/passwd")
    (folder / "tree/train/n9").symlink_to(tmp_path)
    (folder / "rows/of nobody").touch()
    with open(next(path for path in (folder / "rows").iterdir() if path.suffix), "ab") as file:
        file.write(b"train/n0/not noted\t1\t-\n")
    with open(folder / "journal.jsonl", "ab") as file:
        file.write(b'{"what": "unit", "name": "a.tar/20", "pi')
    journal, rows = extract(tmp_path, units())
    assert tree(tmp_path) == {path: path.encode() for path in TRAIN}
    assert len(rows.sorted()) == 60
    assert (journal.state.units, journal.state.start) == (read_state(tmp_path)[0].units, read_state(tmp_path)[0].start)
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_a_file_that_was_noted_and_is_gone_stops_the_next_start(tmp_path: Path) -> None:
    extract(tmp_path, units()[:1])
    (tmp_path / ".prepare/tree" / TRAIN[5]).unlink()
    with pytest.raises(StoppedError, match=rf"{TRAIN[5]} was written and is not there any more. Begin anew with restart=true."):
        extract(tmp_path, units())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_path_that_comes_twice_is_refused_by_the_names_of_both_sources(tmp_path: Path, threads: int) -> None:
    made = [*units(), MadeUp("b.tar/other", [image(TRAIN[7], b"another content")])]
    with pytest.raises(ConfigError) as caught:
        extract(tmp_path, made, threads=threads)
    message = str(caught.value)
    assert f"{TRAIN[7]} comes from " in message
    assert "a.tar/0" in message and "b.tar/other" in message
    twice = MadeUp("c.tar", [image("val/n1/x.JPEG"), image("val/n1/x.JPEG")])
    with pytest.raises(ConfigError, match=r"val/n1/x.JPEG comes from c.tar, twice"):
        extract(tmp_path / "other", [twice])


def test_what_is_damaged_is_told_by_the_units_own_words_all_at_once(tmp_path: Path) -> None:
    made = [MadeUp(name, [DataError(f"{name} is truncated. Copy it again.")]) for name in ("a.tar", "b.tar")]
    with pytest.raises(ConfigError) as caught:
        extract(tmp_path, made, threads=2)
    told = {f"source: {name} is truncated. Copy it again." for name in ("a.tar", "b.tar")}
    assert {str(problem) for problem in caught.value.problems} <= told
    assert tree(tmp_path) == {}


def test_a_bug_in_a_layout_is_not_taken_for_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        extract(tmp_path, [MadeUp("a", [ZeroDivisionError()]), *units()])
