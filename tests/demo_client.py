"""A visitor of the demo page without a browser: what its JavaScript sends, and what is sent by who means no good."""

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.conftest import ROOT

API = "/gradio_api"


class Visitor:
    """One session at a page.

    Args:
        url: of the page.
    """

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self.session = uuid.uuid4().hex[:12]
        functions = self.http.get("/config").json()["dependencies"]
        self.predict_index = next(function["id"] for function in functions if function["api_name"] == "predict")

    def upload(self, data: bytes, name: str = "x.jpg") -> httpx.Response:
        return self.http.post(f"{API}/upload", files={"files": (name, data, "application/octet-stream")})

    def ask(self, given: dict[str, Any] | None) -> dict[str, Any]:
        """Have an image predicted, and return the last event: of process_completed, or of why it is none."""
        body = {"data": [given], "fn_index": self.predict_index, "session_hash": self.session}
        joined = self.http.post(f"{API}/queue/join", json=body)
        if joined.status_code != 200:
            return {"msg": "refused", "status": joined.status_code, "text": joined.text}
        last: dict[str, Any] = {}
        with self.http.stream("GET", f"{API}/queue/data", params={"session_hash": self.session}) as events:
            for line in events.iter_lines():
                if line.startswith("data:"):
                    event = json.loads(line.removeprefix("data:"))
                    last = event if event["msg"] != "close_stream" else last
                    if event["msg"] in ("process_completed", "close_stream", "unexpected_error"):
                        break
        return last

    def answer(self, data: bytes, name: str = "x.jpg") -> str:
        """Upload an image and return the HTML of the answer."""
        uploaded = self.upload(data, name)
        assert uploaded.status_code == 200, uploaded.text
        event = self.ask({"path": uploaded.json()[0], "meta": {"_type": "gradio.FileData"}, "orig_name": name})
        assert event["msg"] == "process_completed" and event["success"], event
        return str(event["output"]["data"][0])

    def file(self, path: str) -> httpx.Response:
        return self.http.get(f"{API}/file={quote(path)}")


def shares(html: str) -> list[tuple[str, str]]:
    """Return the labels with their percentages."""
    return re.findall(r'class="label">(.*?)</span><span class="share">(.*?)<', html)


class Served:
    """A running page."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process, self.said = process, []  # type: tuple[Any, list[str]]
        self._reader = threading.Thread(target=lambda: self.said.extend(process.stderr or ()), daemon=True)
        self._reader.start()
        assert process.stdout is not None
        self.first = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", self.first)
        if found is None:
            process.wait(60)
            self._reader.join(10)
            raise AssertionError(f"it does not serve: {self.first}{''.join(self.said)}")
        self.url = found[0]

    @property
    def log(self) -> str:
        """What it wrote to stderr until now; all of it once it has ended."""
        if self.process.poll() is not None:
            self._reader.join(10)
        return "".join(self.said)

    def close(self) -> None:
        self._reader.join(10)

    def memory(self) -> int:
        """Return the most bytes that it ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]


@contextmanager
def serving(command: Sequence[str], cwd: Path = ROOT, **settings: str) -> Iterator[Served]:
    """Run a command that serves, until the block ends."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **settings}
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    served: Served | None = None
    try:
        served = Served(process)
        yield served
    finally:
        process.terminate()  # in order, so that its uploads go
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()
        if served is not None:
            served.close()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "src.demo", *arguments]
