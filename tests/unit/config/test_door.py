"""What doors with keys of their own share: every problem at once, texts as they are typed, and an exit code for how it ended."""

import os
import signal
import time
from collections.abc import Iterator, Sequence

import pytest

from src.config import ConfigError, Problem
from src.config.demo import load_demo
from src.config.door import door, end_at_sigterm, load_keys, parser_of
from src.config.prepare import load_prepare
from src.config.report import ReportConfig
from src.config.writer import load_writer


def told(*overrides: str, **more: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_keys(ReportConfig, "report.yaml", overrides, **more)  # type: ignore[arg-type]
    return [str(problem) for problem in caught.value.problems]


def test_every_problem_is_told_at_once_the_doors_own_first() -> None:
    own = [Problem("runs", None, "were not given.")]
    problems = told("targt=x", "power={", "confidence=2", found=own)
    assert [problem.split(" = ")[0].split(":")[0] for problem in problems] == ["runs", "targt", "power", "confidence"]
    assert problems[1].endswith("Did you mean target?")


def test_what_two_keys_are_together_is_checked_once_each_is_right() -> None:
    def check(keys: ReportConfig) -> list[Problem]:
        return [Problem("power", keys.power, "is not that of confidence.")] if keys.power != keys.confidence else []

    assert told("power=0.5", "confidence=0.9", "x=1", check=check)[1:] == ["power = 0.5: is not that of confidence."]
    assert load_keys(ReportConfig, "report.yaml", ["power=0.9", "confidence=0.9"], check=check)[0].power == 0.9
    assert len(told("power=2", check=check)) == 1


def test_other_peoples_keys_are_handed_back_in_order() -> None:
    keys, rest = load_keys(ReportConfig, "report.yaml", ["seed=1", "+counted=best", "+data.path=x"], others=True)
    assert (keys.counted, rest) == ("best", ["seed=1", "+data.path=x"])


def test_a_text_is_taken_as_it_is_typed() -> None:
    keys, _ = load_keys(ReportConfig, "report.yaml", ["target=a,b = 'c'", "against=null"], as_typed=("target", "against"))
    assert (keys.target, keys.against) == ("a,b = 'c'", None)


@pytest.mark.parametrize(
    ("typed", "source"),
    [("2012", "2012"), ("null", None), ("'a, b'", "a, b"), ('"null"', "null"), ("'a", "'a"), ("off", "off"), ("a=b&c", "a=b&c")],
)
def test_a_source_may_stand_in_quotes(typed: str, source: str | None) -> None:
    assert load_prepare([f"source={typed}"]).source == source


def test_the_writer_says_that_the_datas_keys_are_known_too() -> None:
    with pytest.raises(ConfigError) as caught:
        load_writer(["spits=[val]", "data.subst=3"])
    own, datas = map(str, caught.value.problems)
    assert "workers, data=... and data.<key>=.... Did you mean splits?" in own
    assert datas.startswith("data.subst = 3: no such key.")


def test_the_demo_needs_a_checkpoint_and_room_for_one_upload() -> None:
    for typed in (["keep_mb=3", "max_upload_mb=4"], ["checkpoint=x", "checkpoint=null", "keep_mb=3", "max_upload_mb=4"]):
        with pytest.raises(ConfigError) as caught:
            load_demo(typed)
        missing, room = map(str, caught.value.problems)
        assert missing.startswith("checkpoint: must be given")
        assert room == "keep_mb = 3: must be at least max_upload_mb=4."
    order = load_demo(["checkpoint=a,b", "keep_mb=4", "max_upload_mb=4", "data.path=x"])
    assert (order.checkpoint, order.demo.keep_mb, order.overrides) == ("a,b", 4, ["data.path=x"])


@pytest.fixture
def sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_door_in_order(number: signal.Signals, code: int) -> None:
    left = []

    @door
    def main(arguments: Sequence[str]) -> int:
        end_at_sigterm()
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            left.append(list(arguments))
        return 0

    assert main(["a", "b"]) == code
    assert left == [["a", "b"]]


def test_what_was_typed_wrong_is_told_without_a_traceback_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    @door
    def main(arguments: Sequence[str]) -> int:
        raise ConfigError("the command line", [Problem("port", "x", "must be a number.")])

    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", "1 problem in the command line:\n  port = 'x': must be a number.\n")


def test_other_exit_codes_and_failures_pass() -> None:
    assert door(lambda arguments: 7)([]) == 7
    with pytest.raises(ZeroDivisionError):
        door(lambda arguments: 1 // 0)([])


def test_help_tells_every_key_between_what_else_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser_of("report", "About it.", before="BEFORE\n", after="AFTER", metavar="<run>", help_text="runs").parse_args(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m src.report [-h] [<run> ...]\n\nAbout it.\n")
    keys, after = out.partition("BEFORE\n")[2].rstrip("\n").rsplit("\n", 1)
    assert after == "AFTER"
    assert all(f"\n{key}:" in f"\n{keys}" for key in ReportConfig.model_fields)
