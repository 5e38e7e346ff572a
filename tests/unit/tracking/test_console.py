"""What people see: lines in a log, a bar on a terminal, a table row an epoch, and one JSON line on stdout."""

import io
import os
import pty
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger
from rich.console import Console

from src.batch import Record
from src.tracking import progress as progress_of
from src.tracking.console import ConsoleTracker, also_log_to, say_result, start_console
from src.tracking.progress import Bars, counting, counting_bytes

WINDOW = Record(
    "train",
    1500,
    2,
    {
        "train/loss": 1.23456,
        "train/acc1": 45.678,
        "train/acc5": 80.0,
        "train/lr": 0.05,
        "time/images_per_second": 12345.6,
        "time/data_wait_fraction": 0.123,
    },
)
TRAINED = {"train/loss": 1.5, "train/acc1": 40.0, "train/acc5": 70.123, "time/epoch_seconds": 3700.0}
EVALUATED = TRAINED | {"val/loss": 1.25, "val/acc1": 50.004, "val/acc5": 75.0, "time/eval_seconds": 20.4}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nothing of the surroundings force or forbid a terminal, and give loguru its default sink back."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    yield
    logger.remove()
    logger.add(lambda message: sys.stderr.write(message))


class Terminal:
    """A pseudo-terminal; inside `with`, it is stderr."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self.file = open(slave, "w")  # noqa: SIM115 (closed in close)

    def __enter__(self) -> None:
        self._old, sys.stderr = sys.stderr, self.file

    def __exit__(self, *_: object) -> None:
        sys.stderr = self._old

    def shown(self) -> str:
        """Return what was written so far, without colours."""
        self.file.flush()
        text = b""
        while True:
            try:
                text += os.read(self._master, 65536)
            except BlockingIOError:
                break
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())

    def close(self) -> None:
        self.file.close()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("COLUMNS", "200")
    made = Terminal()
    yield made
    made.close()


def tracker(console: Console, *, progress: bool = True) -> ConsoleTracker:
    return ConsoleTracker(console, total_steps=9000, first_step=0, progress=progress)


def test_lines_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    shown = tracker(start_console(speaks=True))
    shown.advance(1500)
    shown.log(WINDOW)
    shown.log(WINDOW._replace(step=2000))
    shown.close()
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 2
    text = "loss 1.2346  acc1 45.68  lr 0.05  12,346 images/s  waiting 12%"
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO +step 1,500/9,000  " + re.escape(text), lines[0])
    assert "step 2,000/9,000" in lines[1]
    assert "\x1b" not in captured.err
    assert captured.out == ""


def test_how_well_the_gpu_is_used_stands_in_the_line_where_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    shown = tracker(start_console(speaks=True))
    shown.log(WINDOW._replace(values={**WINDOW.values, "time/mfu": 0.412, "gpu/utilisation": 0.97, "gpu/power_watts": 300.0}))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("12,346 images/s  waiting 12%  MFU 41%  GPU 97%")


def test_the_table_has_one_header_and_a_row_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    shown = tracker(start_console(speaks=True))
    shown.log(Record("epoch", 100, 0, TRAINED))
    shown.log(Record("epoch", 200, 1, EVALUATED))
    header, first, second = (line.split("INFO", 1)[1] for line in capsys.readouterr().err.splitlines())
    assert header.split() == ["epoch", "time", "train", "loss", "acc1", "acc5", "val", "loss", "acc1", "acc5"]
    assert first.split() == ["0", "1:01:40", "1.5000", "40.00", "70.12", "-", "-", "-"]
    assert second.split() == ["1", "1:02:00", "1.5000", "40.00", "70.12", "1.2500", "50.00", "75.00"]
    assert len(header) == len(first) == len(second), "columns stand under each other"


def test_other_ranks_are_silent_but_for_errors(capsys: pytest.CaptureFixture[str]) -> None:
    start_console(speaks=False)
    logger.info("a step")
    logger.warning("a trifle")
    logger.error("rank 3 is lost")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("rank 3 is lost")


def test_messages_with_brackets_and_braces_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    start_console(speaks=True)
    logger.info("model.kwargs={width: [3]} [bold]not markup[/bold] " + "long " * 60)
    assert "model.kwargs={width: [3]} [bold]not markup[/bold] " + "long " * 60 in capsys.readouterr().err


def test_a_terminal_shows_a_bar_with_the_window_in_it(terminal: Terminal) -> None:
    with terminal:
        shown = tracker(start_console(speaks=True))
        shown.log(WINDOW)
        shown.advance(1500)
        shown.close()
    text = terminal.shown()
    assert "━" in text
    assert "1500/9000" in text
    assert "epoch 2  loss 1.2346  acc1 45.68" in text
    assert "step 1,500" not in text, "a bar replaces the lines"


def test_rows_and_lines_stand_above_the_bar(terminal: Terminal) -> None:
    with terminal:
        shown = tracker(start_console(speaks=True))
        shown.log(Record("epoch", 200, 1, EVALUATED))
        shown.close()
    text = terminal.shown()
    assert re.search(r"1:02:00 +1\.5000 +40\.00 +70\.12 +1\.2500 +50\.00 +75\.00", text)


def test_progress_false_gives_lines_on_a_terminal_too(terminal: Terminal) -> None:
    with terminal:
        shown = tracker(start_console(speaks=True), progress=False)
        shown.log(WINDOW)
        shown.close()
    text = terminal.shown()
    assert "━" not in text
    assert "step 1,500/9,000" in text


def test_a_long_preparation_tells_every_tenth_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    console = start_console(speaks=True)
    with counting(console, "reading") as progress:
        for done in range(0, 20_001, 500):
            progress(done, 20_000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].endswith("reading: 2,000 of 20,000")
    assert lines[-1].endswith("reading: 20,000 of 20,000")


def test_a_short_preparation_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with counting(start_console(speaks=True), "reading") as progress:
        for done in range(0, 1001, 10):
            progress(done, 1000)
    assert capsys.readouterr().err == ""


def test_a_long_preparation_is_a_bar_on_a_terminal(terminal: Terminal) -> None:
    with terminal, counting(start_console(speaks=True), "reading image headers") as progress:
        progress(250, 1000)
    text = terminal.shown()
    assert "reading image headers" in text
    assert "250/1000" in text


def test_files_and_bytes_are_a_bar_with_their_rate_on_a_terminal(terminal: Terminal) -> None:
    with terminal, Bars(start_console(speaks=True)).amounts("extracting") as show:
        show(250, 1000, 2**30, 4 * 2**30)
    text = terminal.shown()
    assert "extracting  250 of 1,000 files" in text
    assert "1.1/4.3 GB" in text


def test_files_and_bytes_are_a_line_now_and_then_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 0.0, 10.0, 40.0, 50.0])
    monkeypatch.setattr(progress_of.time, "monotonic", lambda: next(seconds))
    bars = Bars(start_console(speaks=True))
    amounts = progress_of._Amounts("extracting")
    for files, size in ((100, 1), (200, 2), (300, 5), (400, 6)):  # from what an earlier start had written, 1 GiB
        amounts(files, 1000, size * 2**30, 9 * 2**30)
    monkeypatch.undo()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("extracting: 300 of 1,000 files, 5.00 of 9.00 GiB, 102 MiB/s, 0:00:40 left")
    bars.say("as it is")
    assert capsys.readouterr().err == "as it is\n"


def test_what_is_said_is_kept_in_a_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start_console(speaks=True)
    also_log_to(tmp_path / "train.log")
    logger.info("a line")
    logger.debug("too much")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO +a line\n", (tmp_path / "train.log").read_text())


def test_a_traceback_does_not_show_values(capsys: pytest.CaptureFixture[str]) -> None:
    start_console(speaks=True)
    secret = "sentinel" + "-key"
    try:
        raise RuntimeError(len(secret) * "!")
    except RuntimeError as error:
        logger.opt(exception=error).error("unexpected")
    captured = capsys.readouterr().err
    assert "RuntimeError: !!!" in captured
    assert "sentinel-key" not in captured


def test_the_result_is_stdouts_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    say_result('{"status": "finished"}')
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ('{"status": "finished"}\n', "")


def test_writing_a_large_file_is_told_with_rate_and_size_and_reading_back_apart() -> None:
    told: list[str] = []
    handle = logger.add(lambda message: told.append(str(message)), level="INFO", format="{message}")
    with counting_bytes(Console(file=io.StringIO()), "writing train.beton") as progress:
        for done in (0, 500, 1000, 500, 1000):
            progress(done, 1000, done * 2**20)
    logger.remove(handle)
    assert [text.split(":")[0] for text in told] == ["writing train.beton"] * 2 + ["writing train.beton, reading back"] * 2
    assert all("images/s" in text and "MiB" in text for text in told)
