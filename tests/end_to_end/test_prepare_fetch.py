"""`python -m src.prepare fetch=...` as a user types it: killed, continued, prepared; what it refuses; no secret anywhere."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import LAUNCHER_VARIABLES, ROOT
from tests.scale_models import scale_model, write_huggingface, write_kaggle_zip, write_official
from tests.unit.imagenet.fetch.stand_ins import (
    KAGGLE_CALL,
    SIGNATURE,
    FileServer,
    everything_below,
    hugging_face,
    kaggle,
    noise,
    serving,
    write_torrent,
)

TOKEN = "hf_5ec2e75ec2e75ec2e7"
MODEL = scale_model(4)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """No credentials, no proxies, a home of its own."""
    (tmp_path / "home").mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_VARIABLES and not name.startswith(("AWS_", "HF_", "KAGGLE_"))
    }
    yield kept | {"HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def prepare(environment: dict[str, str], tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "src.prepare", *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False)


def kill_when(server: FileServer, sent: int, environment: dict[str, str], tmp_path: Path, *arguments: str) -> None:
    """Start a download, and kill -9 it when the server has sent so many bytes."""
    command = [sys.executable, "-m", "src.prepare", *arguments]
    with (tmp_path / "killed.log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while server.sent < sent and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            assert process.poll() is None, (tmp_path / "killed.log").read_text()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def assert_prepared(target: Path) -> None:
    written = {
        str(path.relative_to(target)): path.read_bytes() for split in ("train", "val") for path in (target / split).rglob("*.*")
    }
    expected = {name: content for name, content in MODEL.files.items() if not name.startswith("test/")}
    assert written == expected


def test_kaggle_killed_and_started_again_ends_in_a_prepared_set(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    write_kaggle_zip(folder, MODEL)
    content = next(folder.glob("*.zip")).read_bytes()
    environment |= {"KAGGLE_API_ENVIRONMENT": "TEST"}
    (tmp_path / ".env").write_text(f"KAGGLE_API_TOKEN={TOKEN}\n")
    order = ("fetch=kaggle", "source=down", "target=ready", "expect=any", "level=1", "checksum=off")
    with kaggle(content, TOKEN) as server:
        server.rate = len(content) / 2
        kill_when(server, len(content) // 3, environment, tmp_path, *order)
        assert not (tmp_path / "ready").exists() and not list((tmp_path / "down").glob("*.zip"))
        server.rate = None
        done = prepare(environment, tmp_path, *order)
    assert done.returncode == 0, done.stderr
    assert_prepared(tmp_path / "ready")
    (tmp_path / ".env").unlink()
    everything = done.stdout + done.stderr + (tmp_path / "killed.log").read_text() + everything_below(tmp_path).decode("latin-1")
    assert TOKEN not in everything and SIGNATURE not in everything
    assert "non-commercial" in done.stderr


def test_hugging_face_killed_and_started_again_ends_in_a_prepared_set(tmp_path: Path, environment: dict[str, str]) -> None:
    write_huggingface(tmp_path / "made", MODEL)
    files = {str(path.relative_to(tmp_path / "made")): path.read_bytes() for path in (tmp_path / "made").rglob("*.parquet")}
    files = {name if name.startswith("data/") else f"data/{name}": content for name, content in files.items()}
    total = sum(map(len, files.values()))
    order = ("fetch=huggingface", "source=down", "target=ready", "expect=any", "level=1", "workers=2")
    with hugging_face(files, TOKEN) as hub:
        environment |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
        storage: FileServer = hub.storage  # type: ignore[attr-defined]
        storage.rate = total / 4
        kill_when(storage, total // 2, environment, tmp_path, *order)
        storage.rate = None
        sent = storage.sent
        done = prepare(environment, tmp_path, *order)
        assert done.returncode == 0, done.stderr
        assert storage.sent - sent < total  # a finished shard is not sent again
        assert not any("Authorization" in headers for _, _, headers in storage.asked)  # the token stays with the hub
    assert_prepared(tmp_path / "ready")
    assert list((tmp_path / "home").rglob("*.parquet")) == []
    everything = done.stdout + done.stderr + (tmp_path / "killed.log").read_text() + everything_below(tmp_path).decode("latin-1")
    assert TOKEN not in everything and SIGNATURE not in everything


def test_hugging_face_without_the_terms_or_with_damage_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    with hugging_face({"data/train-0.parquet": noise(50_000)}, TOKEN) as hub:
        environment |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": f"{TOKEN}wrong"}
        refused = prepare(environment, tmp_path, "fetch=huggingface", "source=down", "until=fetch")
        hub.storage.files["/data/train-0.parquet"] = noise(50_000, 1)  # type: ignore[attr-defined]
        damaged = prepare(environment | {"HF_TOKEN": TOKEN}, tmp_path, "fetch=huggingface", "source=down", "until=fetch")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr and TOKEN not in refused.stderr
    for step in ("Make an account", "https://huggingface.co/datasets/ILSVRC/imagenet-1k", "settings/tokens", "HF_TOKEN", ".env"):
        assert step in refused.stderr
    assert damaged.returncode == 2 and "arrived damaged" in damaged.stderr
    assert not list((tmp_path / "down").rglob("*.parquet"))


def test_kaggle_rules_that_are_not_accepted_end_with_the_steps_and_no_traceback(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    environment |= {"KAGGLE_API_ENVIRONMENT": "TEST", "KAGGLE_API_TOKEN": TOKEN}
    with kaggle(b"", TOKEN) as server:
        server.answers[KAGGLE_CALL] = (403, {}, b'{"code": 403, "message": "You must accept the rules"}')
        done = prepare(environment, tmp_path, "fetch=kaggle", "source=down")
    assert done.returncode == 2 and "Traceback" not in done.stderr and TOKEN not in done.stderr
    assert "rules are not accepted yet" in done.stderr and "/rules" in done.stderr


def test_a_torrent_ends_in_a_prepared_set(tmp_path: Path, environment: dict[str, str]) -> None:
    made = write_official(tmp_path / "made", MODEL, test=False)
    (tmp_path / "torrents").mkdir()
    with serving() as server:
        for path in sorted(made.iterdir()):
            server.files[f"/{path.name}"] = path.read_bytes()
            write_torrent(tmp_path / f"torrents/{path.name}.torrent", path.name, path.read_bytes(), [f"{server.url}/{path.name}"])
        order = ("fetch=torrent", "origin=torrents", "source=down", "target=ready", "expect=any", "level=1", "checksum=off")
        done = prepare(environment, tmp_path, *order)
    assert done.returncode == 0, done.stderr
    assert_prepared(tmp_path / "ready")
    again = prepare(environment, tmp_path, *order)  # nobody serves any more
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("service", ["torrent", "kaggle", "huggingface", "s3"])
def test_a_machine_without_a_network_is_told_soon(tmp_path: Path, environment: dict[str, str], service: str) -> None:
    dead = "http://127.0.0.1:9"
    environment |= {f"{scheme}_proxy": dead for scheme in ("http", "https", "all")} | {"no_proxy": ""}
    environment |= {
        "HF_TOKEN": TOKEN,
        "KAGGLE_API_TOKEN": TOKEN,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    origin = ["origin=s3://some-bucket/x"] if service == "s3" else []
    started = time.monotonic()
    done = prepare(environment, tmp_path, f"fetch={service}", "source=down", "target=ready", *origin)
    assert time.monotonic() - started < 60  # 30 on a machine with nothing else to do
    assert done.returncode == 2 and "Traceback" not in done.stderr and TOKEN not in done.stderr
    assert "connected to the internet" in done.stderr
