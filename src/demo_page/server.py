"""From the page to visitors: a folder that goes away, a socket, and a web server that ends in order."""

import fcntl
import os
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .guard import Guard
from .page import build_app
from .words import About, Answering, Limits

HERE, EVERYWHERE = "127.0.0.1", "0.0.0.0"
FIRST_PORT, PORTS = 7860, 100
EXAMPLES = "examples"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_ROOM = "imagenet-trainer-demo-"
_PATIENCE = 1  # seconds for open connections at the end: pages hold theirs open for ever


def bind(host: str, port: int | None) -> socket.socket:
    """Take a port.

    Args:
        host: HERE or EVERYWHERE.
        port: which; None: the first free one.

    Raises:
        OSError: it is taken, or not allowed.
    """
    for candidate in range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else (port,):
        taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((host, candidate))
            taken.listen(128)
        except OSError:
            taken.close()
            if port is not None:
                raise
            continue
        return taken
    raise OSError(f"no port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} is free")


@contextmanager
def room() -> Iterator[Path]:
    """Give a folder of this process alone for uploads, tell gradio of it, and delete it at the end. Before gradio is imported.

    What killed processes of this user left of theirs is deleted first.
    """
    parent = Path(tempfile.gettempdir())
    remove_leftovers(parent)
    folder, held = _make_room(parent)
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def remove_leftovers(parent: Path) -> None:
    """Delete the rooms of this user's processes that are gone. A living one holds a lock on its room, which ends with it."""
    for path in parent.glob(f"{_ROOM}*"):
        with suppress(OSError):  # gone meanwhile, held, or a file system without locks, where nobody can tell
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                found = os.fstat(held)
                if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(held)


def _make_room(parent: Path) -> tuple[Path, int]:
    """Return a new folder, and what holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=_ROOM))
        try:
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # before it was locked, another process took it for a leftover: once more
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # the same, a moment later
            os.close(held)
            continue
        except OSError:  # a file system without locks, where nobody deletes it either
            return folder, held
        if folder.exists():
            return folder, held
        os.close(held)


def sweep(folder: Path, older_than: float) -> None:
    """Delete what was uploaded longer ago than so many seconds, half uploads among it. Examples stay."""
    for path in folder.rglob("*"):
        if path.relative_to(folder).parts[0] == EXAMPLES:
            continue
        with suppress(OSError):  # gone meanwhile, or a folder that is not empty
            if time.time() - path.lstat().st_mtime > older_than:
                path.rmdir() if path.is_dir() else path.unlink()


@contextmanager
def _sweeping(folder: Path, keep_seconds: int) -> Iterator[None]:
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(min(10, keep_seconds / 4)):
            sweep(folder, keep_seconds)

    thread = threading.Thread(target=work, name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run(
    about: About,
    limits: Limits,
    answering: Answering,
    examples: Sequence[Path],
    taken: socket.socket,
    *,
    framed_by: str,
    ready: Callable[[], None],
) -> None:
    """Serve until the process is told to end; then the signal's usual consequence follows (KeyboardInterrupt after Ctrl-C).

    Args:
        about: what the page says of the model.
        limits: for visitors.
        answering: from an image's bytes to what the model says of it.
        examples: images that visitors may choose.
        taken: the socket of `bind`.
        framed_by: which sites may show the page within theirs.
        ready: called when visitors may come.

    Raises:
        ImportError: gradio is not installed.
    """
    with room() as folder:
        import uvicorn

        copies = []
        for number, path in enumerate(examples, start=1):  # under names of ours: a visitor sees them
            copies.append(folder / EXAMPLES / f"example {number}{path.suffix.lower()}")
            copies[-1].parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copies[-1])
        hosts = _LOOPBACK if taken.getsockname()[0] == HERE else None
        app = Guard(build_app(about, limits, answering, copies, folder), folder, limits, hosts=hosts, framed_by=framed_by)
        config = uvicorn.Config(
            app,
            log_level="critical",
            access_log=False,
            server_header=False,
            limit_concurrency=limits.max_connections,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=_PATIENCE,
        )
        server = uvicorn.Server(config)
        with _sweeping(folder, limits.keep_seconds):
            ready()
            server.run(sockets=[taken])
