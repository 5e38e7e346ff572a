"""Local stand-ins for what the internet has: a file server with ranges that breaks connections, Kaggle, Hugging Face, torrents."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SIGNATURE = "51617a707e"  # in every signed address: as good as a password, so it must be told nowhere
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FileServer:
    """Serves `files` with Range, remembers what it was asked, and fails as it is told.

    Attributes:
        files: path to content.
        answers: (method, path) to (status, headers, body), or to a function of the request's headers that returns these.
        break_after: bytes of content after which a connection is broken off; None: never.
        breaks: how many more are broken off.
        rate: bytes a second of one connection; None: as fast as it can.
        knows_ranges: whether it sends a part where one is asked for, else always the whole.
        asked: (method, path with query, headers) of all requests.
    """

    def __init__(self, port: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[tuple[str, str], Any] = {}
        self.break_after: int | None = None
        self.breaks = 0
        self.rate: float | None = None
        self.knows_ranges = True
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.sent = 0
        stand = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: object) -> None:
                pass

            def _any(self) -> None:
                with contextlib.suppress(OSError):
                    stand._answer(self)

        for verb in ("GET", "HEAD", "POST"):
            setattr(Handler, f"do_{verb}", Handler._any)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ranges(self, path: str) -> list[str]:
        """The ranges that were asked for of a path, without its query."""
        return [
            headers.get("Range", "") for method, asked, headers in self.asked if method == "GET" and urlsplit(asked).path == path
        ]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = dict(handler.headers.items())
        path = urlsplit(handler.path).path
        self.asked.append((handler.command, handler.path, headers))
        handler.rfile.read(int(headers.get("Content-Length", 0)))
        answer = self.answers.get((handler.command, path))
        if answer is not None:
            status, more, body = answer(headers) if callable(answer) else answer
            self._send(handler, status, more, body)
        elif path in self.files:
            self._send_file(handler, self.files[path], headers.get("Range"))
        else:
            self._send(handler, 404, {}, b"{}")

    def _send(self, handler: BaseHTTPRequestHandler, status: int, more: Mapping[str, str], body: bytes) -> None:
        handler.send_response(status)
        kind = "application/json" if body[:1] in (b"{", b"[") else "application/octet-stream"
        for name, value in {"Content-Length": str(len(body)), "Content-Type": kind, **more}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    def _send_file(self, handler: BaseHTTPRequestHandler, content: bytes, wanted: str | None) -> None:
        first, last = 0, len(content) - 1
        wanted = wanted if self.knows_ranges else None
        if wanted:
            text, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(text), min(int(end) if end else last, last)
        handler.send_response(206 if wanted else 200)
        handler.send_header("Content-Length", str(last - first + 1))
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        handler.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        handler.send_header("Accept-Ranges", "bytes")
        handler.end_headers()
        if handler.command == "HEAD":
            return
        sent = 0
        for start in range(first, last + 1, 1 << 14):
            if self.break_after is not None and sent >= self.break_after and self.breaks > 0:
                self.breaks -= 1
                handler.close_connection = True
                return
            block = content[start : min(start + (1 << 14), last + 1)]
            handler.wfile.write(block)
            sent += len(block)
            self.sent += len(block)
            if self.rate is not None:
                time.sleep(len(block) / self.rate)


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[FileServer]:
    server = FileServer(port)
    try:
        yield server
    finally:
        server.close()


KAGGLE_PORT = 7777  # the one that Kaggle's client uses where KAGGLE_API_ENVIRONMENT=TEST
KAGGLE_CALL = ("POST", "/api/v1/competitions.CompetitionApiService/DownloadDataFiles")


@contextlib.contextmanager
def kaggle(content: bytes, token: str, competition: str = "imagenet-object-localization-challenge") -> Iterator[FileServer]:
    """Kaggle for who has the token: its call redirects to a signed address on a storage server (the same, by another name)."""
    with open(Path(tempfile.gettempdir()) / "kaggle-stand-in.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # there is only one such port
        with serving(KAGGLE_PORT) as server:
            storage = f"/storage/{competition}.zip"
            server.files[storage] = content

            def call(headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
                if headers.get("Authorization") != f"Bearer {token}":
                    return 401, {}, json.dumps({"code": 401, "message": "Unauthenticated"}).encode()
                return 302, {"Location": f"{server.url}{storage}?X-Goog-Signature={SIGNATURE}"}, b""

            server.answers[KAGGLE_CALL] = call
            yield server


@contextlib.contextmanager
def hugging_face(files: Mapping[str, bytes], token: str, repository: str = "ILSVRC/imagenet-1k") -> Iterator[FileServer]:
    """A gated data set for who has the token; its files lie on another host, at signed addresses."""
    with serving() as hub, serving() as storage:
        api = f"/api/datasets/{repository}"

        def gate(then: tuple[int, dict[str, str], bytes]) -> Callable[[Mapping[str, str]], tuple[int, dict[str, str], bytes]]:
            def answer(headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
                if headers.get("Authorization", headers.get("authorization")) == f"Bearer {token}":
                    return then
                return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}, b"{}"

            return answer

        tree = []
        for path, content in files.items():
            sha256 = hashlib.sha256(content).hexdigest()
            lfs = {"oid": sha256, "size": len(content), "pointerSize": 134}
            tree.append({"type": "file", "oid": "f" * 40, "size": len(content), "path": path, "lfs": lfs})
            headers = {
                "Location": f"{storage.url}/{path}?X-Amz-Signature={SIGNATURE}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(len(content)),
                "ETag": f'"{sha256}"',
            }
            hub.answers["HEAD", f"/datasets/{repository}/resolve/{COMMIT}/{path}"] = gate((302, headers, b""))
            storage.files[f"/{path}"] = content
        info = {"id": repository, "sha": COMMIT, "siblings": [], "private": False, "gated": "manual", "tags": [], "downloads": 0}
        hub.answers["GET", f"{api}/auth-check"] = gate((200, {}, b"{}"))
        hub.answers["GET", f"{api}/revision/main"] = (200, {}, json.dumps(info).encode())
        hub.answers["GET", f"{api}/tree/{COMMIT}"] = (200, {}, json.dumps(tree).encode())
        hub.storage = storage  # type: ignore[attr-defined]
        yield hub


def bencode(value: Any) -> bytes:
    """Bencoding (BEP 3)."""
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%s" % (len(value), value)
        case str():
            return bencode(value.encode())
        case list():
            return b"l" + b"".join(map(bencode, value)) + b"e"
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


def write_torrent(path: Path, name: str, content: bytes, seeds: list[str], *, announce: str = "", private: int = 1) -> Path:
    """A torrent of one file with web seeds (BEP 19) and a tracker; private: nobody else is asked for peers."""
    piece = 1 << 16
    pieces = b"".join(hashlib.sha1(content[at : at + piece]).digest() for at in range(0, len(content), piece))
    info = {"name": name, "length": len(content), "piece length": piece, "pieces": pieces} | ({"private": 1} if private else {})
    path.write_bytes(bencode({"info": info, "url-list": seeds} | ({"announce": announce} if announce else {})))
    return path


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no server compresses, the same for the same seed."""
    import random

    return random.Random(seed).randbytes(size)


def everything_below(folder: Path) -> bytes:
    """All names and contents below a folder, to search them."""
    parts = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            parts.append(str(path).encode() + b"\n")
            with contextlib.suppress(OSError):
                parts.append(path.read_bytes())
    return b"\n".join(parts)
