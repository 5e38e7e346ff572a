"""The journal, its lock and the manifest: what is told lasts, what was torn is forgotten, two at once take turns."""

import gzip
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from loguru import logger

from src.batch import DataError
from src.imagenet.journal import Journal, alone_at, read_state
from src.imagenet.manifest import line_of, manifest_path, read_manifest, write_manifest

UNIT = {"what": "unit", "name": "a", "pieces": 3, "rows": 40, "done": False}


def begun(target: Path) -> Journal:
    (target / ".prepare").mkdir()
    journal = Journal.begin(target, key="k", source="/s")
    journal.note([UNIT, {"what": "sum", "path": "/s/a.tar", "md5": "0" * 32}])
    journal.note([{**UNIT, "pieces": 9, "rows": 120, "done": True}])
    journal.note_stage("extract", more=1)
    return journal


def test_a_later_start_reads_what_was_noted(tmp_path: Path) -> None:
    begun(tmp_path)
    state, _ = read_state(tmp_path)
    assert state.start == {"version": 1, "key": "k", "source": "/s"}
    assert state.units == {"a": (9, 120, True)}
    assert state.sums == {"/s/a.tar": "0" * 32}
    assert state.stages == {"extract": {"stage": "extract", "more": 1}}
    assert read_state(tmp_path / "nothing")[0].start is None


def test_a_journal_torn_at_any_byte_tells_its_whole_lines_and_goes_on(tmp_path: Path) -> None:
    begun(tmp_path)
    path = tmp_path / ".prepare/journal.jsonl"
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = sum(len(line) for number, line in enumerate(lines) if len(b"".join(lines[: number + 1])) <= length)
        state, counted = read_state(tmp_path)
        assert counted == whole
        assert (state.start is None) == (whole == 0)
        journal = Journal.resume(tmp_path)
        journal.note([UNIT])
        assert path.read_bytes() == data[:whole] + json.dumps(UNIT).encode() + b"\n"


@pytest.mark.parametrize("line", [b"\0\0\0\n", b"[]\n", b'{"what": "else"}\n', b'{"what": "unit"}\n', b"{}\n", b"\xff\n"])
def test_damage_ends_what_is_believed(tmp_path: Path, line: bytes) -> None:
    begun(tmp_path)
    path = tmp_path / ".prepare/journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line, *lines[2:]]))
    state, whole = read_state(tmp_path)
    assert (state.units["a"].pieces, whole) == (3, len(lines[0]) + len(lines[1]))
    path.write_bytes(b"".join([line, *lines]))
    assert read_state(tmp_path)[0].start is None


def test_a_journal_of_another_version_is_none_of_ours(tmp_path: Path) -> None:
    begun(tmp_path)
    path = tmp_path / ".prepare/journal.jsonl"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    assert read_state(tmp_path)[0].start is None


def test_a_planted_link_in_place_of_the_journal_is_not_followed(tmp_path: Path) -> None:
    begun(tmp_path)
    path, victim = tmp_path / ".prepare/journal.jsonl", tmp_path / "victim"
    victim.write_bytes(path.read_bytes() + b"precious")
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        Journal.resume(tmp_path)
    assert victim.read_bytes().endswith(b"precious")
    Journal.begin(tmp_path, key="k")
    assert victim.read_bytes().endswith(b"precious")


def test_a_planted_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / ".prepare").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="is no folder"), alone_at(target):
        pass
    assert list((tmp_path / "outside").iterdir()) == []


def test_the_second_of_two_waits_and_names_the_first(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from src.imagenet.journal import alone_at\n"
    script += "with alone_at(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "in\n"
    told: list[str] = []
    gone = threading.Event()

    def let_go() -> None:
        gone.set()
        assert holder.stdin is not None
        holder.stdin.close()

    def soon(message: str) -> None:
        told.append(str(message))
        threading.Timer(0.3, let_go).start()

    handler = logger.add(soon)
    try:
        with alone_at(tmp_path):
            waited = gone.is_set()
    finally:
        logger.remove(handler)
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert waited
    assert f"process {holder.pid} on " in told[0]
    assert f"prepares {tmp_path} already: waiting for it" in told[0]


def test_the_manifest_is_read_back_as_written_and_its_bytes_depend_on_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".prepare").mkdir()
    assert read_manifest(tmp_path) is None
    lines = [line_of("train/n1/a.JPEG", 7, 0xAB), line_of("train/n1/é\udcff.JPEG", 2**40, -1)]
    write_manifest(tmp_path, lines)
    first = manifest_path(tmp_path).read_bytes()
    assert first[4:8] == bytes(4)  # gzip's own time
    assert gzip.decompress(first) == "train/n1/a.JPEG\t7\t000000ab\ntrain/n1/é".encode() + b"\xff.JPEG\t1099511627776\t-\n"
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert [manifest.paths[index] for index in range(2)] == ["train/n1/a.JPEG", "train/n1/é\udcff.JPEG"]
    assert (manifest.sizes.tolist(), manifest.crcs.tolist()) == ([7, 2**40], [0xAB, -1])
    manifest_path(tmp_path).unlink()
    write_manifest(tmp_path, lines)
    assert manifest_path(tmp_path).read_bytes() == first


DAMAGED = [b"\x1f\x8b", *map(gzip.compress, (b"a\t1\n", b"a\tx\t-\n")), gzip.compress(b"a\t1\t-\n")[:-4]]


@pytest.mark.parametrize("data", DAMAGED, ids=["two bytes", "two columns", "no size", "truncated"])
def test_a_damaged_manifest_is_told(tmp_path: Path, data: bytes) -> None:
    manifest_path(tmp_path).parent.mkdir()
    manifest_path(tmp_path).write_bytes(data)
    with pytest.raises(DataError, match=r"is damaged .*Delete it"):
        read_manifest(tmp_path)
