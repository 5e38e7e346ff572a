"""Kaggle by its own client against a local stand-in: credentials, rules, broken connections, a zip that changes."""

import hashlib
import json
import time
from pathlib import Path

import pytest

from src.config import ConfigError
from src.config.prepare import PrepareConfig, load_prepare
from src.imagenet.fetch import kaggle as door
from src.imagenet.fetch import parts
from src.imagenet.fetch.remote import Patience
from src.imagenet.fetch.run import describe, fetch
from tests.unit.imagenet.fetch.stand_ins import KAGGLE_CALL, SIGNATURE, everything_below, kaggle, noise

# requests leaves the socket of a connection that broke to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
TOKEN = "KGAT_5ec2e75ec2e75ec2e7"
ZIP = f"{door.COMPETITION}.zip"
CONTENT = noise(700_000)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials but a test's own, no service but the stand-in, small parts, little patience."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setattr(door, "_PART_BYTES", 1 << 17)
    monkeypatch.setattr(parts, "UNDER_WAY", Patience(4, 0.01, 0.02))


def config(*more: str) -> PrepareConfig:
    return load_prepare(["fetch=kaggle", "source=unused", *more])


def get(folder: Path, *more: str) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    fetch(config(*more), folder, lambda done, total: told.append((done, total)))
    return told


def test_the_zip_arrives_whole_and_a_second_start_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with kaggle(CONTENT, TOKEN) as server:
        told = get(tmp_path / "out")
        assert not any("Authorization" in headers for method, _, headers in server.asked if method == "GET")
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert (tmp_path / "out" / ZIP).read_bytes() == CONTENT
    get(tmp_path / "out")  # Kaggle is gone by now
    assert "non-commercial" in "\n".join(said)
    everything = "\n".join(said).encode() + everything_below(tmp_path)
    assert TOKEN.encode() not in everything and SIGNATURE.encode() not in everything


@pytest.mark.parametrize("threads", ["1", "3"])
def test_broken_connections_are_continued_where_they_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with kaggle(CONTENT, TOKEN) as server:
        server.break_after, server.breaks = 100_000, 5
        get(tmp_path / "out", f"workers={threads}")
        assert server.breaks == 0
    assert (tmp_path / "out" / ZIP).read_bytes() == CONTENT


def test_a_server_that_dies_is_told_in_one_message_and_the_next_start_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with kaggle(CONTENT, TOKEN) as server:

        def dies(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            first = int((headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            if headers.get("Range") and first < 300_000:
                last = min(first + (1 << 17), len(CONTENT)) - 1
                return 206, {"Content-Range": f"bytes {first}-{last}/{len(CONTENT)}"}, CONTENT[first : last + 1]
            return (503, {}, b"") if headers.get("Range") else (200, {"ETag": f'"{hashlib.md5(CONTENT).hexdigest()}"'}, CONTENT)

        path = f"/storage/{ZIP}"
        server.answers["GET", path] = dies
        with pytest.raises(ConfigError, match=r"status 503, 4 times in a row\. Run the same command again") as caught:
            get(tmp_path / "out", "workers=1")
        assert not (tmp_path / "out" / ZIP).exists()
        del server.answers["GET", path]
        server.asked.clear()
        get(tmp_path / "out", "workers=1")
        assert server.ranges(path)[1].startswith(f"bytes={3 << 17}-")
    assert (tmp_path / "out" / ZIP).read_bytes() == CONTENT
    assert SIGNATURE not in str(caught.value) + "\n".join(said)


def test_an_address_that_is_out_of_date_is_asked_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with kaggle(CONTENT, TOKEN) as server:
        path = f"/storage/{ZIP}"
        count = []

        def expires(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            count.append(1)
            if len(count) > 3:
                del server.answers["GET", path]
            return (403, {}, b"") if len(count) > 1 else (200, {}, CONTENT)

        server.answers["GET", path] = expires
        get(tmp_path / "out", "workers=1")
        assert sum(method == "POST" for method, _, _ in server.asked) > 1
    assert (tmp_path / "out" / ZIP).read_bytes() == CONTENT


def test_a_zip_that_changes_meanwhile_is_refused_and_then_taken_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    newer = noise(len(CONTENT), 1)
    with kaggle(CONTENT, TOKEN) as server:
        path = f"/storage/{ZIP}"
        content = server.files[path]

        def changes(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            if "Range" in headers:
                server.files[path] = newer
                del server.answers["GET", path]
                return 206, {"Content-Range": f"bytes 0-{(1 << 17) - 1}/{len(content)}"}, content[: 1 << 17]
            return 200, {"ETag": '"8f6d2a6a"'}, content

        server.answers["GET", path] = changes
        with pytest.raises(ConfigError, match="has another content now"):
            get(tmp_path / "out", "workers=1")
        get(tmp_path / "out", "workers=1")
    assert (tmp_path / "out" / ZIP).read_bytes() == newer


def test_a_server_that_sends_another_length_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with kaggle(CONTENT, TOKEN) as server:
        server.answers["GET", f"/storage/{ZIP}"] = lambda headers: (
            (206, {"Content-Range": "bytes 0-131071/131072"}, CONTENT[: 1 << 17]) if "Range" in headers else (200, {}, CONTENT)
        )
        with pytest.raises(ConfigError, match="has 131072 bytes now, not 700,000"):
            get(tmp_path / "out", "workers=1")
    assert not (tmp_path / "out" / ZIP).exists()


def assert_steps(text: str) -> None:
    for step in ("Make an account", f"competitions/{door.COMPETITION}/rules", "settings/api", "KAGGLE_API_TOKEN", ".env"):
        assert step in text
    assert TOKEN not in text


def test_without_credentials_the_steps_are_told_before_anything_is_asked(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError, match="no credentials were found") as caught:
        get(tmp_path / "out")
    assert_steps(str(caught.value))
    assert time.monotonic() - started < 10


def test_a_wrong_token_is_told_with_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with kaggle(CONTENT, "another"), pytest.raises(ConfigError, match=r"does not take the credentials \(status 401\)") as caught:
        get(tmp_path / "out")
    assert_steps(str(caught.value))


def test_rules_that_are_not_accepted_are_told_with_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with kaggle(CONTENT, TOKEN) as server:
        body = {"code": 403, "message": "You must accept this competition's rules before you can download files"}
        server.answers[KAGGLE_CALL] = (403, {}, json.dumps(body).encode())
        with pytest.raises(ConfigError, match=r"rules are not accepted yet") as caught:
            get(tmp_path / "out")
    assert_steps(str(caught.value))


def test_a_competition_that_is_not_there_is_told_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with kaggle(CONTENT, TOKEN) as server:
        server.answers[KAGGLE_CALL] = (404, {}, json.dumps({"code": 404, "message": "Not found"}).encode())
        with pytest.raises(ConfigError, match="knows no competition imagenet-of-tomorrow"):
            get(tmp_path / "out", "origin=imagenet-of-tomorrow")


def test_credentials_are_found_in_env_files_and_the_environment_counts_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text(f"KAGGLE_API_TOKEN={TOKEN}\n")
    with kaggle(CONTENT, TOKEN):
        get(tmp_path / "out")
        monkeypatch.setenv("KAGGLE_API_TOKEN", "wrong")
        with pytest.raises(ConfigError, match="status 401"):
            get(tmp_path / "other")


def test_a_name_and_a_key_are_taken_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", TOKEN)
    with kaggle(CONTENT, TOKEN) as server:
        with pytest.raises(ConfigError, match="status 401"):
            get(tmp_path / "out")
        sent = [headers["Authorization"] for method, _, headers in server.asked if method == "POST"]
    assert sent and all(text.startswith("Basic ") for text in sent)


def test_a_network_that_is_not_there_is_told_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")  # port 80, where nobody listens
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"Kaggle: does not answer \(Connection refused\)"):
        get(tmp_path / "out")
    assert time.monotonic() - started < 30


def test_a_dry_run_tells_the_size_and_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with kaggle(CONTENT, TOKEN):
        lines = describe(config("dry_run=true"), tmp_path / "out")
    assert f"{len(CONTENT):,} bytes" in lines[-1] and not (tmp_path / "out").exists()


def test_a_client_that_never_answers_is_left_behind() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within"):
        door.within(0.2, lambda: time.sleep(5))
    assert time.monotonic() - started < 3
