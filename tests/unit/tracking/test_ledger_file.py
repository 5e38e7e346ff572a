"""ledger.bin keeps every row through a kill, is cut back where a run goes on, and never stops a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from src.batch import StepRow
from src.tracking.appended import Appended
from src.tracking.ledger_file import MAGIC, ROW, open_ledger, read_rows
from src.tracking.seal import Seal, read_seals


def row(step: int) -> StepRow:
    return StepRow(step, 2**64 - step, 0.1 * step, 256, 2**32 - 1, 8, 4)


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "ledger.bin"
    ledger = open_ledger(file, step=0)
    assert ledger is not None
    ledger.keep([row(1), row(2)])
    ledger.keep([row(3)])
    ledger.sync()
    ledger.close()
    return file


def steps(file: Path) -> list[int]:
    return [int(step) for step in read_rows(file.read_bytes())["step"]]


def test_a_row_takes_32_bytes_and_comes_back_to_the_last_bit(path: Path, said: list[str]) -> None:
    assert path.stat().st_size == len(MAGIC) + 3 * 32
    assert ROW.itemsize == 32 and len(MAGIC) == 16
    for number, found in enumerate(read_rows(path.read_bytes()), start=1):
        assert StepRow(**{name: found[name].item() for name in StepRow._fields}) == row(number)
    assert said == []


def test_more_than_a_field_holds_is_the_most_it_holds(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "l", step=0)
    assert ledger is not None
    ledger.keep([row(1)._replace(local_batch_size=100_000, threads=70_000)])
    ledger.close()
    found = read_rows((tmp_path / "l").read_bytes())[0]
    assert (found["local_batch_size"], found["threads"]) == (65_535, 65_535)


@pytest.mark.parametrize("torn", [b"", b"\x01" * 31])
def test_a_run_that_goes_on_cuts_off_what_it_will_write_again(path: Path, said: list[str], torn: bytes) -> None:
    with open(path, "ab") as file:
        file.write(torn)
    ledger = open_ledger(path, step=2)
    assert ledger is not None
    assert steps(path) == [1, 2]
    ledger.keep([row(3), row(4)])
    ledger.sync()
    ledger.close()
    assert steps(path) == [1, 2, 3, 4]
    assert any(seal.fits(path.read_bytes()) for seal in read_seals(path))
    assert said == []


def test_what_was_changed_or_lost_is_told_and_the_run_goes_on(path: Path, said: list[str]) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    ledger = open_ledger(path, step=3)
    assert ledger is not None
    ledger.close()
    assert len(said) == 1 and "its first bytes are not those that were sealed" in said[0]
    path.unlink()
    ledger = open_ledger(path, step=3)
    assert ledger is not None
    ledger.keep([row(4)])
    ledger.close()
    assert steps(path) == [4]
    assert "it ends at step 0, and the run goes on from step 3" in said[1]


def test_what_is_no_ledger_is_begun_anew(path: Path, said: list[str]) -> None:
    path.write_bytes(b"something else")
    ledger = open_ledger(path, step=0)
    assert ledger is not None
    ledger.close()
    assert path.read_bytes() == MAGIC
    assert "it is no ledger, and begun anew" in said[0]


def test_one_that_cannot_be_written_costs_a_warning(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "ledger.bin").mkdir()
    assert open_ledger(tmp_path / "ledger.bin", step=0) is None
    assert "Is a directory" in said[0] and "cannot be audited" in said[0]


def test_rows_wait_while_the_disk_is_full(tmp_path: Path, said: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    file = Appended(tmp_path / "f")
    disk = file._file
    with open("/dev/full", "ab", buffering=0) as full:
        file._file = full
        file.append(b"a row")
    assert "wait in memory" in said[0]
    file._file = disk
    file.append(b", another")
    file.sync()
    file.close()
    assert (tmp_path / "f").read_bytes() == b"a row, another"
    assert read_seals(tmp_path / "f") == [Seal.of(b"a row, another")]
