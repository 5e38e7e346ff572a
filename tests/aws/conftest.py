"""An AWS account (moto's server, asked by the real boto3), a proxy before it that loses answers, and loop devices as volumes."""

import contextlib
import http.client
import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
BY_ID = Path("/dev/disk/by-id")
REGION, ZONE = "us-east-1", "us-east-1a"
_QUIET = ("AWS_", "BOTO", "SUDO_")


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Account:
    """An AWS account: moto's server, behind a proxy that records every call and, when told, breaks one."""

    def __init__(self, server: str, proxy: "Proxy", home: Path) -> None:
        self.server, self.proxy, self.home = server, proxy, home
        self._clients: dict[str, Any] = {}

    def environment(self, **more: str) -> dict[str, str]:
        """Nothing of the caller's own AWS configuration; this account's endpoint and credentials that are worth nothing."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_QUIET)}
        return kept | {
            "AWS_ENDPOINT_URL": self.proxy.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.home / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.home / "credentials"),
            **more,
        }

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start `python -m scripts.aws <arguments>`."""
        command = [sys.executable, "-m", "scripts.aws", *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment(**dict(env or {})), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `python -m scripts.aws <arguments>`, whose connections a break of the proxy may end or whose process it may kill."""
        process = self.start(*arguments, env=env)
        self.proxy.victim = process.pid
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
            self.proxy.victim = None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def here(self, *arguments: str) -> Outcome:
        """The same in this process: quicker, for what is not to be killed."""
        from scripts.aws.__main__ import main

        out, err = io.StringIO(), io.StringIO()
        old, new = dict(os.environ), self.environment()
        os.environ.clear()
        os.environ.update(new)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = main(arguments)
                except SystemExit as error:
                    code = int(error.code or 0)
        finally:
            os.environ.clear()
            os.environ.update(old)
        return Outcome(code, out.getvalue(), err.getvalue())

    def did(self, *arguments: str) -> dict[str, Any]:
        """`here`, to its good end. Returns the result."""
        done = self.here(*arguments)
        assert done.code == 0, done.err + done.out
        result: dict[str, Any] = json.loads(done.out.splitlines()[-1])
        return result

    def reset(self) -> None:
        """Make the account empty."""
        self.proxy.reset()
        urllib.request.urlopen(urllib.request.Request(f"{self.server}/moto-api/reset", method="POST"), timeout=60).close()

    def do(self, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Run it to its good end, and return its result."""
        done = self.run(*arguments, env=env)
        assert done.returncode == 0, done.stderr + done.stdout
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    def client(self, service: str) -> Any:
        """boto3 past the proxy, for what the test itself does or looks at."""
        if service not in self._clients:
            import boto3

            keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
            self._clients[service] = boto3.client(service, region_name=REGION, endpoint_url=self.server, **keys)
        return self._clients[service]

    def own_volumes(self) -> list[dict[str, Any]]:
        """Those with our tag: instances bring root disks of their own."""
        ours = [{"Name": "tag-key", "Values": ["imagenet-trainer:name"]}]
        return list(self.client("ec2").describe_volumes(Filters=ours)["Volumes"])

    def snapshots(self) -> list[dict[str, Any]]:
        """Those with our tag: moto has some of its images' own."""
        ours = [{"Name": "tag-key", "Values": ["imagenet-trainer:name"]}]
        return list(self.client("ec2").describe_snapshots(OwnerIds=["self"], Filters=ours)["Snapshots"])

    def launch(self) -> str:
        """An instance, by boto3 directly."""
        ec2 = self.client("ec2")
        made = ec2.run_instances(
            ImageId="ami-12c6146b", MinCount=1, MaxCount=1, Placement={"AvailabilityZone": ZONE}, InstanceType="t3.micro"
        )
        return str(made["Instances"][0]["InstanceId"])


class Proxy:
    """Passes requests on to moto's server, writes down which, and breaks the one it is told to.

    `break_at` numbers requests from 1; `manner` is "kill before" (the client dies, the request never arrives), "kill after" (it
    arrives, the client dies before the answer), "drop" (it arrives, the connection closes without an answer).
    `rewrite` may change the body of an answer, for states that moto does not have; `intercept` may answer itself.

    It keeps ClientTokens as EC2 says ("Ensuring idempotency"), which moto ignores: the same token gets the first answer again, with
    other parameters an IdempotentParameterMismatch.
    """

    def __init__(self, server: str) -> None:
        self.server = urllib.parse.urlsplit(server)
        self.calls: list[str] = []
        self.break_at: int | None = None
        self.break_call: str | None = None
        self.manner = ""
        self.broken = 0
        self.victim: int | None = None
        self.rewrite: Callable[[str, bytes], bytes] | None = None
        self.intercept: Callable[[str, dict[str, str]], tuple[int, bytes] | None] | None = None
        self._tokens: dict[str, tuple[dict[str, str], tuple[int, dict[str, str], bytes]]] = {}
        self._lock = threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                proxy.pass_on(self)

            do_GET = do_POST  # noqa: N815 - http.server's name

            def log_message(self, format: str, *values: object) -> None:
                pass

        self._httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def reset(self) -> None:
        self.calls, self.break_at, self.break_call, self.manner, self.broken = [], None, None, "", 0
        self.rewrite = self.intercept = None
        self._tokens.clear()

    def breaks(self, manner: str, *, at: int | None = None, call: str | None = None) -> None:
        """Break once, from now on: the at-th request, or the first of this action."""
        self.calls, self.break_at, self.break_call, self.manner, self.broken = [], at, call, manner, 0

    def close(self) -> None:
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()

    def pass_on(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        action, form = _action(handler, body)
        with self._lock:
            self.calls.append(action)
            hit = self.broken == 0 and (len(self.calls) == self.break_at or action == self.break_call)
            self.broken += hit
        if hit and self.manner == "kill before":
            self._kill(handler)
            return
        own = self.intercept(action, form) if self.intercept is not None else None
        if own is not None:
            status, headers, answer = own[0], {"Content-Type": "text/xml"}, own[1]
        else:
            status, headers, answer = self._ask_once(handler, body, form)
        if hit:
            if self.manner == "kill after":
                self._kill(handler)
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.rewrite is not None:
            answer = self.rewrite(action, answer)
        with contextlib.suppress(OSError):
            handler.send_response(status)
            for key, value in headers.items():
                handler.send_header(key, value)
            handler.send_header("Content-Length", str(len(answer)))
            handler.end_headers()
            handler.wfile.write(answer)

    def _ask_once(
        self, handler: http.server.BaseHTTPRequestHandler, body: bytes, form: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        token = form.get("ClientToken")
        if token is None:
            return self._ask(handler, body)
        with self._lock:
            known = self._tokens.get(token)
            if known is None:
                got = self._ask(handler, body)
                if got[0] == 200:
                    self._tokens[token] = (form, got)
                return got
        if known[0] == form:
            return known[1]
        return 400, {"Content-Type": "text/xml"}, error_page("IdempotentParameterMismatch")

    def _ask(self, handler: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.hostname or "", self.server.port, timeout=60)
        try:
            headers = {key: value for key, value in handler.headers.items() if key.lower() not in ("host", "connection")}
            headers["Host"] = handler.headers["Host"]
            connection.request(handler.command, handler.path, body, headers)
            got = connection.getresponse()
            answer = got.read()
            kept = {
                key: value
                for key, value in got.getheaders()
                if key.lower() in ("content-type", "smithy-protocol", "x-amzn-requestid")
            }
            return got.status, kept, answer
        finally:
            connection.close()

    def _kill(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if self.victim is not None:
            os.kill(self.victim, signal.SIGKILL)
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)


def error_page(code: str) -> bytes:
    """How EC2 says no."""
    error = f"<Code>{code}</Code><Message>Because.</Message>"
    return f"<Response><Errors><Error>{error}</Error></Errors><RequestID>1</RequestID></Response>".encode()


def _action(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[str, dict[str, str]]:
    """Which action of the API a request asks for, in each of the wire protocols that boto3 speaks, and a query's parameters."""
    target = handler.headers.get("X-Amz-Target")
    if target:
        return target.rpartition(".")[2], {}
    cbor = re.search(r"/operation/(\w+)", handler.path)
    if cbor:
        return cbor.group(1), {}
    form = dict(urllib.parse.parse_qsl(body.decode(errors="replace")))
    return form.get("Action", handler.path), form


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto's server as a process of its own."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("w+")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quick = os.environ | {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false"}  # thousands of images and snapshots, made anew at every reset
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=quick)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, Path(log.name).read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5).close()
                break
            time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture
def account(moto_server: str, tmp_path: Path) -> Iterator[Account]:
    """An empty account."""
    proxy = Proxy(moto_server)
    account = Account(moto_server, proxy, tmp_path)
    account.reset()
    yield account
    proxy.close()


class Device:
    """A loop device that stands for the NVMe device of a volume: found by the link that udev would make from its serial."""

    def __init__(self, path: Path, file: Path) -> None:
        self.path, self.file = path, file

    def plug_in(self, volume_id: str) -> None:
        """What udev does when a volume is attached."""
        BY_ID.mkdir(parents=True, exist_ok=True)
        link = BY_ID / f"nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
        link.unlink(missing_ok=True)
        link.symlink_to(self.path)

    def pull_out(self) -> None:
        """What udev does when it is detached."""
        for link in BY_ID.glob("nvme-Amazon_Elastic_Block_Store_vol*") if BY_ID.exists() else ():
            if link.readlink() == self.path:
                link.unlink()

    def empty(self) -> None:
        """All zero again."""
        subprocess.run(["blkdiscard", "--zeroout", str(self.path)], check=True, capture_output=True)

    def fill(self, place: int, content: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, content, place)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def why_no_devices() -> str | None:
    """Why loop devices cannot be used here; None: they can."""
    if os.geteuid() != 0:
        return "loop devices and mounts need root"
    missing = [tool for tool in ("losetup", "mkfs.ext4", "blkid", "wipefs", "lsblk") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    found = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    return None if found.returncode == 0 else f"no loop devices here: {found.stderr.strip()}"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A loop device of 64 MiB, all zero, as a new volume is."""
    reason = why_no_devices()
    if reason is not None:
        pytest.skip(reason)
    file = tmp_path / "volume"
    with file.open("wb") as made:
        made.truncate(64 << 20)
    shown = subprocess.run(["losetup", "--find", "--show", str(file)], capture_output=True, text=True, check=True)
    device = Device(Path(shown.stdout.strip()), file)
    try:
        yield device
    finally:
        rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        for row in rows:
            if row[0] == str(device.path):
                subprocess.run(["umount", row[1]], check=False)
        device.pull_out()
        with contextlib.suppress(OSError):
            BY_ID.rmdir()
            BY_ID.parent.rmdir()
        subprocess.run(["losetup", "--detach", str(device.path)], check=True)
