"""What stands between the network and gradio: few routes, bounded bodies, no way to any file but uploads, no trace, no other host.

Gradio's own limits stay on behind it. Its published vulnerabilities were mostly of routes that a page like this has no use for
(reading files, fetching addresses on a client's behalf, components' own servers), so those are not there at all:
CVE-2023-51449, CVE-2024-1561, CVE-2024-4325, CVE-2024-47167, CVE-2025-23042.
"""

import logging
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .words import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_API = "/gradio_api"
_UPLOAD, _JOIN, _FILE = f"{_API}/upload", f"{_API}/queue/join", f"{_API}/file="
_GET = {
    *("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"),
    *(
        f"{_API}/info",
        f"{_API}/app_id",
        f"{_API}/startup-events",
        f"{_API}/queue/data",
        f"{_API}/upload_progress",
        f"{_API}/theme.css",
    ),
}
_GET_BELOW = ("/assets/", "/static/", f"{_API}/heartbeat/", _FILE)
_POST = {_UPLOAD, _JOIN, f"{_API}/cancel", f"{_API}/reset", f"{_API}/reset/"}
_FORM_BYTES = 16 * 1024  # of a multipart body besides the file
_JSON_BYTES = 64 * 1024
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
_FILE_POLICY = "sandbox; default-src 'none'"


class _TooLargeError(Exception):
    """A body that goes on after its limit."""


class Guard:
    """An ASGI application around gradio's.

    Args:
        app: gradio's.
        folder: the only one of which files are handed out: uploads and examples.
        limits: for visitors.
        hosts: what a visitor may have typed as the address; None: anything. It keeps other sites' pages from a loopback server.
        framed_by: which sites may show the page within theirs.
    """

    def __init__(self, app: App, folder: Path, limits: Limits, *, hosts: frozenset[str] | None, framed_by: str) -> None:
        self._app, self._folder, self._limits, self._hosts = app, folder.resolve(), limits, hosts
        self._policy = f"{_POLICY}; frame-ancestors {framed_by}"
        self._arriving = 0  # bytes of uploads that are on their way
        self._log = logging.getLogger(__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refusal(scope)
        if refused is not None:
            await _say(send, *refused)
            return
        path = scope["path"]
        most = self._limits.max_upload_bytes + _FORM_BYTES if path == _UPLOAD else _JSON_BYTES
        claimed = self._claim(scope) if path == _UPLOAD else 0
        body = _Body(receive, most)
        begun = failed = False

        async def send_on(message: Message) -> None:
            nonlocal begun, failed
            if message["type"] == "http.response.start":
                failed = message["status"] >= 500  # what it says then is for nobody
                if not failed:
                    message = {**message, "headers": [*_kept(message["headers"]), *self._headers(path)]}
                    begun = True
            if not failed:
                await send(message)

        self._arriving += claimed
        try:
            await self._app(scope, body.receive, send_on)
        except Exception:  # noqa: BLE001 (a visitor sees no trace, whatever failed)
            failed = True
            if not body.too_large:
                self._log.exception("a request failed")
        finally:
            self._arriving -= claimed
        if failed and not begun:
            await _say(send, *((413, self._too_large()) if body.too_large else (500, "Something went wrong here.")))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and text of what is not let through."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        method, path = scope["method"], scope["path"]
        if self._hosts is not None and _host(headers.get(b"host", "")) not in self._hosts:
            return 403, "This page is served under its own address only."
        if method in ("GET", "HEAD"):
            if path not in _GET and not path.startswith(_GET_BELOW):
                return 404, "There is no such page."
            if path.startswith(_FILE) and not self._may_see(path.removeprefix(_FILE)):
                return 404, "There is no such file."
            return None
        if method != "POST" or path not in _POST:
            return 404, "There is no such page."
        length = headers.get(b"content-length", "")
        if path == _UPLOAD:
            if length.isdecimal() and int(length) > self._limits.max_upload_bytes + _FORM_BYTES:
                return 413, self._too_large()
            if self._kept_bytes() + self._arriving + self._claim(scope) > self._limits.keep_bytes:
                return 503, "Too many images are here at the moment. Try again in a minute."
        return None

    def _claim(self, scope: Scope) -> int:
        """Return the room that an upload asks for: what it says, or the most that is let through."""
        said = next((value for name, value in scope["headers"] if name.lower() == b"content-length"), b"")
        return int(said) if said.isdigit() else self._limits.max_upload_bytes + _FORM_BYTES

    def _may_see(self, name: str) -> bool:
        try:
            return Path(name).is_absolute() and Path(name).resolve(strict=True).is_relative_to(self._folder)
        except (OSError, ValueError, RuntimeError):
            return False

    def _kept_bytes(self) -> int:
        total = 0
        for where, _, names in os.walk(self._folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(where, name)).st_size
                except OSError:
                    continue  # deleted meanwhile
        return total

    def _too_large(self) -> str:
        return f"This file is larger than {self._limits.max_upload_bytes / 2**20:,.0f} MiB, which is the most that is taken."

    def _headers(self, path: str) -> list[tuple[bytes, bytes]]:
        policy = _FILE_POLICY if path.startswith(_FILE) else self._policy
        found = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]
        if path.startswith(_FILE):
            found.append((b"cache-control", b"no-store"))
        return found


def _kept(headers: Any) -> list[tuple[bytes, bytes]]:
    return [
        (name, value) for name, value in headers if name.lower() not in (b"cache-control", b"content-security-policy", b"server")
    ]


def _host(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


class _Body:
    """A request's body, which ends with an error where it is larger than it may be, whatever its header says."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left = receive, most
        self.too_large = False

    async def receive(self) -> Message:
        """Hand on the next part."""
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.too_large = True
            raise _TooLargeError
        return message


async def _say(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
