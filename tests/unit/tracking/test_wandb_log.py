"""The last step that wandb has kept: too high a one would leave a gap after a resume, too low a one would double steps."""

from pathlib import Path

import pytest

from src.tracking.wandb_log import last_step, payloads
from tests.wandb_file import BLOCK, HEADER, log_of

pytest.importorskip("wandb")
from wandb.proto.wandb_internal_pb2 import Record

START = 7  # wandb's own header


def row(step: int, size: int) -> bytes:
    """Return a row of so many bytes, as wandb writes it."""
    record = Record()
    for key, value in (("_step", str(step)), ("value", "")):
        item = record.history.item.add()
        item.nested_key.append(key)
        item.value_json = value
    item.value_json = "1" * max(0, size - record.ByteSize() - 40)  # lengths take one to three bytes of their own
    record.uuid = "-"
    record.uuid += "-" * (size - record.ByteSize())
    found: bytes = record.SerializeToString()
    assert len(found) == size
    return found


def kept(folder: Path, data: bytes) -> int | None:
    run = folder / "offline-run-20260101_000000-abc"
    run.mkdir(exist_ok=True)
    (run / "run-abc.wandb").write_bytes(data)
    return last_step(folder, "abc")


def test_rows_of_any_size_are_read_to_the_last(tmp_path: Path) -> None:
    rows = [row(step, size) for step, size in enumerate((100, 40_000, 40_000, 100, 3 * BLOCK, 32_761, 200_000, 100), start=1)]
    data = log_of(rows)
    assert list(payloads(data)) == rows
    assert kept(tmp_path, data) == len(rows)


@pytest.mark.parametrize("left", range(10))
def test_a_row_may_end_anywhere_before_a_blocks_end(tmp_path: Path, left: int) -> None:
    """Less than a header's 7 bytes are filled up with zeros; 7 hold the header of a fragment that is empty."""
    rows = [row(1, BLOCK - START - HEADER - left), row(2, 100), row(3, BLOCK)]
    data = log_of(rows)
    assert data[START + 6] == 1 and (data[BLOCK - left : BLOCK] == bytes(left)) == (left < HEADER)
    assert list(payloads(data)) == rows
    assert kept(tmp_path, data) == 3


def test_a_torn_tail_counts_as_far_as_its_rows_are_whole(tmp_path: Path) -> None:
    rows = [row(1, 100), row(2, 2 * BLOCK), row(3, 100)]
    ends = [len(log_of(rows[:count])) for count in range(4)]
    data = log_of(rows)
    places = {place for end in (*ends, BLOCK, 2 * BLOCK) for place in range(end - 9, end + 9) if 0 <= place <= len(data)}
    for cut in sorted(places):
        whole = sum(end <= cut for end in ends[1:])
        assert kept(tmp_path, data[:cut]) == whole, cut
        # after a power failure a file may have its length, and zeros where its last bytes never arrived
        assert kept(tmp_path, data[:cut] + bytes(len(data) - cut)) == whole, cut


def test_whole_blocks_alone_end_within_a_row_that_does_not_count(tmp_path: Path) -> None:
    """What was found of a process that was killed: a file of 9 x 32,768 bytes, of 900 rows that had been handed over."""
    rows = [row(step, 24_000) for step in range(1, 31)]
    assert kept(tmp_path, log_of(rows)[: 9 * BLOCK]) == (9 * BLOCK - START) // (24_000 + HEADER) == 12


@pytest.mark.parametrize("kind", ["checksum", "length", "kind", "a byte of a row"])
def test_nothing_counts_from_the_first_damage_on(tmp_path: Path, kind: str) -> None:
    rows = [row(step, 200) for step in (1, 2, 3)]
    data, second = bytearray(log_of(rows)), len(log_of(rows[:1]))
    data[second + {"checksum": 0, "length": 4, "kind": 6, "a byte of a row": 150}[kind]] ^= 1
    assert kept(tmp_path, bytes(data)) == 1


def test_fragments_out_of_their_order_do_not_count(tmp_path: Path) -> None:
    rows = [row(1, BLOCK - START - HEADER), row(2, 3 * BLOCK), row(3, 100)]
    data = log_of(rows)
    for without_the_first in (data[:BLOCK] + data[2 * BLOCK :], data[:BLOCK] + data[4 * BLOCK :]):
        assert list(payloads(without_the_first)) == rows[:1]
    without_the_last = data[: 3 * BLOCK] + log_of(rows[2:])[START:]
    assert list(payloads(without_the_last)) == rows[:1]
    assert kept(tmp_path, without_the_last) == 1


def test_there_is_no_step_where_there_is_no_file_and_none_in_one_that_is_not_wandbs(tmp_path: Path) -> None:
    assert last_step(tmp_path, "abc") is None
    assert kept(tmp_path, b"") == kept(tmp_path, b"\x00" * 100) == kept(tmp_path, log_of([])) == 0
    assert kept(tmp_path, log_of([row(5, 100)])[1:]) == 0
    assert kept(tmp_path, log_of([row(5, 100)])) == 5
    assert last_step(tmp_path, "other") is None
