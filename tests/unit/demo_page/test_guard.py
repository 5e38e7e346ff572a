"""The guard in front of an application that would do anything."""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from src.demo_page.guard import Guard
from src.demo_page.server import HERE, bind, sweep
from src.demo_page.words import Limits

LIMITS = Limits(
    max_upload_bytes=100_000, max_pixels=10**6, at_once=1, queue_size=5, keep_seconds=60, keep_bytes=250_000, max_connections=50
)
UPLOAD, FILE = "/gradio_api/upload", "/gradio_api/file="


class Behind:
    """An application that reads the whole body and answers 200 to everything, and notes that it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: str | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        if self.fails == "raises":
            raise RuntimeError("/secret/path")
        status = 500 if self.fails == "answers" else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"Traceback of /secret/path" if self.fails else b"fine"})


class Answered:
    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        self.status, self.headers, self.body = status, headers, body


def ask(guard: Guard, method: str, path: str, body: Sequence[bytes] = (b"",), **headers: str) -> Answered:
    """Send one request, its body in pieces."""
    sent: list[dict[str, Any]] = []
    pieces: Iterator[bytes] = iter(body)
    left = len(body)

    async def receive() -> dict[str, Any]:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": next(pieces), "more_body": left > 0}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {"type": "http", "method": method, "path": path, "headers": [(k.encode(), v.encode()) for k, v in given.items()]}
    asyncio.run(guard(scope, receive, send))
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answered(sent[0]["status"], told, b"".join(part["body"] for part in sent[1:]).decode())


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


@pytest.fixture
def guard(behind: Behind, folder: Path) -> Guard:
    return Guard(behind, folder, LIMITS, hosts=frozenset({"127.0.0.1", "localhost"}), framed_by="'none'")


@pytest.mark.parametrize("path", ["/", "/config", "/assets/index.js", "/gradio_api/queue/data", "/gradio_api/heartbeat/abc"])
def test_what_the_page_needs_passes_with_headers_that_keep_it_here(guard: Guard, path: str) -> None:
    answered = ask(guard, "GET", path)
    assert (answered.status, answered.body) == (200, "fine")
    policy = answered.headers["content-security-policy"]
    assert "connect-src 'self' data: blob:;" in policy and "frame-ancestors 'none'" in policy and "https:" not in policy
    assert answered.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(
            ("GET", path)
            for path in ("/docs", "/monitoring", "/gradio_api/proxy=http://a.b/", "/gradio_api/runs", "/gradio_api/deep_link")
        ),
        *(
            ("GET", path)
            for path in ("/gradio_api/vibe-code", "/gradio_api/stream/a/b/c/playlist-file", "/custom_component/x", "/login")
        ),
        *(
            ("POST", path)
            for path in ("/", "/login", "/gradio_api/run/predict", "/gradio_api/call/predict", "/gradio_api/api/predict")
        ),
        *(("POST", path) for path in ("/gradio_api/component_server", "/gradio_api/process_recording", "/gradio_api/vibe-edit")),
        ("PUT", "/"),
        ("DELETE", UPLOAD),
    ],
)
def test_what_the_page_does_not_need_is_not_there(guard: Guard, behind: Behind, method: str, path: str) -> None:
    assert ask(guard, method, path).status == 404
    assert behind.asked == []


def test_only_files_of_its_folder_are_handed_out(guard: Guard, behind: Behind, folder: Path) -> None:
    inside, outside = folder / "a" / "x.png", folder.parent / "secret"
    inside.parent.mkdir()
    inside.write_bytes(b"x")
    outside.write_bytes(b"x")
    (folder / "link").symlink_to(outside)
    answered = ask(guard, "GET", FILE + str(inside))
    assert answered.status == 200
    assert answered.headers["content-security-policy"].startswith("sandbox") and answered.headers["cache-control"] == "no-store"
    behind.asked.clear()
    for name in (
        outside,
        folder / ".." / "secret",
        folder / "link",
        folder / "missing",
        "/etc/passwd",
        "etc/passwd",
        "x\0y",
        "http://a.b/",
    ):
        assert ask(guard, "GET", f"{FILE}{name}").status == 404, name
    assert behind.asked == []


def test_a_larger_body_is_refused_by_its_header_or_while_it_arrives(guard: Guard, behind: Behind) -> None:
    assert ask(guard, "POST", UPLOAD, [b"x" * 100_000]).status == 200
    behind.asked.clear()
    told = ask(guard, "POST", UPLOAD, content_length="1000000")
    assert told.status == 413 and behind.asked == []
    for length in ({}, {"content_length": "10"}, {"content_length": "-1"}, {"content_length": "nonsense"}):
        cut = ask(guard, "POST", UPLOAD, [b"x" * 60_000] * 3, **length)
        assert cut.status == 413 and "MiB" in cut.body
    assert ask(guard, "POST", "/gradio_api/queue/join", [b"x" * 70_000]).status == 413


def test_uploads_wait_where_too_many_are_kept(guard: Guard, folder: Path) -> None:
    (folder / "x").write_bytes(bytes(150_000))
    assert ask(guard, "POST", UPLOAD, content_length="100000").status == 200
    assert ask(guard, "POST", UPLOAD, content_length="100001").status == 503
    assert ask(guard, "POST", UPLOAD).status == 503  # it does not say how much it is
    (folder / "y").write_bytes(bytes(50_000))
    answered = ask(guard, "POST", UPLOAD, content_length="100000")
    assert answered.status == 503 and "Try again" in answered.body
    assert ask(guard, "GET", "/").status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[::"])
def test_a_loopback_page_is_not_there_under_anothers_name(guard: Guard, behind: Behind, host: str) -> None:
    assert ask(guard, "GET", "/", host=host).status == 403
    assert behind.asked == []
    assert ask(guard, "GET", "/", host="localhost:7860").status == 200


@pytest.mark.parametrize("fails", ["raises", "answers"])
def test_what_fails_behind_it_shows_no_trace(guard: Guard, behind: Behind, fails: str) -> None:
    behind.fails = fails
    answered = ask(guard, "GET", "/")
    assert (answered.status, answered.body) == (500, "Something went wrong here.")


def test_old_uploads_are_swept_and_examples_and_new_ones_stay(folder: Path) -> None:
    for name in ("examples/e.png", "old/o.png", "new/n.png"):
        path = folder / name
        path.parent.mkdir()
        path.write_bytes(b"x")
        if "new" not in name:
            os.utime(path, (time.time() - 100,) * 2)
    os.utime(folder / "old", (time.time() - 100,) * 2)
    sweep(folder, 60)
    sweep(folder, 60)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png")) == ["examples/e.png", "new/n.png"]


def test_a_free_port_is_found_and_a_taken_one_refused() -> None:
    first = bind(HERE, None)
    second = bind(HERE, None)
    assert first.getsockname()[0] == "127.0.0.1" and second.getsockname()[1] > first.getsockname()[1] >= 7860
    with pytest.raises(OSError):
        bind(HERE, first.getsockname()[1])
    first.close()
    second.close()
