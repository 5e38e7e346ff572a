"""The process that systemd runs: exit codes, stops, spot interruptions, and the same end after a kill -9 and a reboot."""

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.aws.run_training import FAILED, FINISHED, STOPPED, WRONG, question_for_folder, verdict
from src.training.checkpoint_file import load_file
from tests.end_to_end.kill_harness import SETTINGS, SYNTHETIC
from tests.training.conftest import differing

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = '''
"""Behaves to the outside as src.train does: --run-dir, status.json, SIGTERM, exit codes. `how` says how it ends."""
import json, os, pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
folder = pathlib.Path("runs/r").absolute()
if words["how"] == "wrong":
    print("configuration: how = wrong", file=sys.stderr)
    sys.exit(2)
if "--run-dir" in sys.argv:
    print(folder)
    sys.exit(0)
folder.mkdir(parents=True, exist_ok=True)
def status(word):
    (folder / "status.json").write_text(json.dumps({"status": word, "time": time.time()}))
with open("starts", "a") as file:
    file.write("start\\n")
signals = []
signal.signal(signal.SIGTERM, lambda *_: signals.append(1))
if words["how"] == "finished" or pathlib.Path("end").exists():
    status("finished")
    sys.exit(0)
if words["how"] == "counts":
    status("running")
    steps = pathlib.Path("steps")
    for step in range(len(steps.read_text().splitlines()) if steps.exists() else 0, 20):
        with open("steps", "a") as file:
            file.write(f"{step}\\n")
        time.sleep(0.05)
    status("finished")
    sys.exit(0)
if words["how"] == "failed":
    status("failed")
    sys.exit(int(words.get("code", 1)))
if words["how"] == "dies":
    os.kill(os.getpid(), 9)
status("running")
while not signals:
    time.sleep(0.02)
time.sleep(1.2)  # it saves; a second signal now would be seen
with open("signals", "a") as file:
    file.write(f"{len(signals)}\\n")
status("preempted")
sys.exit(int(words.get("code", 75)))
'''


class Metadata:
    """A stand-in of the instance metadata service: version 2 only, as EC2's."""

    def __init__(self) -> None:
        self.action: str | None = None
        self.asked = 0
        self.token = "t1"
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                fine = self.path == "/latest/api/token" and int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0
                self.answer(200 if fine else 400, stand_in.token)

            def do_GET(self) -> None:
                if self.headers["X-aws-ec2-metadata-token"] != stand_in.token:
                    self.answer(401, "")
                elif self.path == "/latest/meta-data/instance-id":
                    self.answer(200, "i-0abc")
                elif self.path == "/latest/meta-data/spot/instance-action" and stand_in.action:
                    stand_in.asked += 1
                    self.answer(200, stand_in.action)
                else:
                    stand_in.asked += 1
                    self.answer(404, "")

            def answer(self, code: int, text: str) -> None:
                with contextlib.suppress(OSError):
                    self.send_response(code)
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, format: str, *values: object) -> None:
                pass

        self._httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    service = Metadata()
    yield service
    service.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose src.train is the stand-in."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "__init__.py").touch()
    (tmp_path / "src" / "train.py").write_text(STAND_IN)
    return tmp_path


def start(project: Path, metadata: Metadata, *words: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url, "PYTHONPATH": str(ROOT)}
    environment |= {"STATE_DIRECTORY": str(project / "state"), "http_proxy": "http://127.0.0.1:9"}
    runner = [sys.executable, "-m", "scripts.aws.run_training", *options, "--"]
    command = [*runner, *(words if words[0].startswith("/") else (sys.executable, "-m", "src.train", *words))]
    return subprocess.Popen(
        command, cwd=project, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it said; every process of it is gone then."""
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out + err


def wait(until: Callable[[], object], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 120
    while not until():
        assert process.poll() is None, ended(process)
        assert time.monotonic() < limit
        time.sleep(0.02)


def runs(project: Path) -> bool:
    """Whether the stand-in trains, and would see a signal."""
    file = project / "runs" / "r" / "status.json"
    return file.exists() and '"running"' in file.read_text()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("how=finished",), FINISHED),
        (("how=failed",), FAILED),
        (("how=failed", "code=0"), FAILED),  # torchrun may end so
        (("how=failed", "code=2"), WRONG),  # refused in its preflight
        (("how=wrong",), WRONG),
        (("how=dies",), FAILED),
        ((sys.executable, "-c", "raise SystemExit(0)"), FINISHED),
        ((sys.executable, "-c", "raise SystemExit(3)"), FAILED),
    ],
)
def test_the_exit_code_says_what_systemd_shall_do(project: Path, metadata: Metadata, words: tuple[str, ...], code: int) -> None:
    found, said = ended(start(project, metadata, *words))
    assert found == code, said
    assert "Traceback" not in said


@pytest.mark.parametrize("torchruns", ["75", "0", "1"])
def test_a_stop_is_passed_on_once_and_ends_with_75(project: Path, metadata: Metadata, torchruns: str) -> None:
    process = start(project, metadata, "how=runs", f"code={torchruns}")
    wait(lambda: runs(project), process)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == STOPPED and "stopping" in said
    assert (project / "signals").read_text() == "1\n"


def test_an_interruption_saves_then_and_goes_on_if_it_does_not_come(project: Path, metadata: Metadata) -> None:
    process = start(project, metadata, "how=runs")
    wait(lambda: runs(project) and metadata.asked, process)
    metadata.token = "t2"  # tokens expire
    metadata.action = json.dumps({"action": "stop", "time": "2030-01-01T00:02:00Z"})
    wait(lambda: (project / "signals").exists(), process)
    time.sleep(2)
    assert (project / "starts").read_text() == "start\n", "it must not train while the machine goes down"
    (project / "end").touch()
    metadata.action = None
    code, said = ended(process)
    assert code == FINISHED and "stop at 2030-01-01T00:02:00Z" in said
    assert (project / "starts").read_text() == "start\nstart\n" and (project / "signals").read_text() == "1\n"


def test_an_interruption_and_then_systemds_stop_end_with_75(project: Path, metadata: Metadata) -> None:
    metadata.action = "{}"
    process = start(project, metadata, "how=runs")
    wait(lambda: (project / "signals").exists(), process)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == STOPPED


def test_it_trains_where_no_metadata_service_answers(project: Path, metadata: Metadata) -> None:
    metadata.close()
    code, said = ended(start(project, metadata, "how=finished"))
    assert code == FINISHED and "metadata" not in said


def test_when_finished_acts_once_for_a_run_and_never_for_another_end(project: Path, metadata: Metadata) -> None:
    """Who starts the instance again to fetch the results must not be thrown out; a failed run must stay to be looked at."""
    options = ("--when-finished", "terminate", "--instance", "trainer", "--region", "us-east-1")
    _, said = ended(start(project, metadata, "how=failed", options=options))
    assert "instance terminate" not in said
    code, said = ended(start(project, metadata, "how=finished", options=options))
    command = "-m scripts.aws instance terminate --name trainer --region us-east-1 --no-wait --confirm i-0abc"
    assert code == FINISHED and command in said and "COSTS MONEY" in said  # there is no AWS here
    finished = (project / "runs" / "r" / "status.json").read_text()
    # The trainer leaves status.json of a finished run as it is.
    stand_in = (project / "src" / "train.py").read_text()
    (project / "src" / "train.py").write_text(stand_in.replace('status("finished")', "pass"))
    code, said = ended(start(project, metadata, "how=finished", options=options))
    assert code == FINISHED and command not in said and "a second time" in said
    assert (project / "runs" / "r" / "status.json").read_text() == finished


@pytest.mark.parametrize(
    ("command", "question"),
    [
        ("torchrun --nproc_per_node=4 -m src.train a=b", "python -m src.train --run-dir a=b"),
        ("/v/bin/python -m src.train --config-dir c a=b", "/v/bin/python -m src.train --run-dir --config-dir c a=b"),
        ("python3 -m torch.distributed.run --standalone -m src.train", "python3 -m src.train --run-dir"),
        ("python train.py", None),
        ("bash -m", None),
    ],
)
def test_the_folder_is_asked_for_by_the_trainings_own_python(command: str, question: str | None) -> None:
    assert question_for_folder(command.split()) == (question.split() if question else None)


def test_an_old_status_says_nothing_about_this_start() -> None:
    old, new = '{"status": "%s", "time": 1}', '{"status": "%s", "time": 2}'
    assert verdict(1, old % "finished", old % "finished", stopping=False) == FAILED
    assert verdict(1, old % "preempted", old % "preempted", stopping=False) == FAILED
    assert verdict(0, new % "failed", old % "preempted", stopping=False) == FAILED
    assert verdict(0, new % "running", old % "preempted", stopping=False) == FAILED
    assert verdict(-9, new % "running", old % "preempted", stopping=False) == FAILED
    assert verdict(0, new % "preempted", old % "running", stopping=False) == STOPPED  # a STOP file, under torchrun
    assert verdict(0, "no json", "", stopping=False) == FINISHED


def test_killed_with_all_it_started_the_same_command_goes_on(project: Path, metadata: Metadata) -> None:
    process = start(project, metadata, "how=counts")
    steps = project / "steps"
    wait(lambda: steps.exists() and "3\n" in steps.read_text(), process)
    kill_all(process)
    code, said = ended(start(project, metadata, "how=counts"))
    assert code == FINISHED, said
    assert steps.read_text().split() == [str(step) for step in range(20)]


@pytest.mark.long
def test_killed_and_started_again_as_after_a_reboot_it_ends_equal(tmp_path: Path, metadata: Metadata) -> None:
    """The real trainer, killed with all of its processes as by a power loss, and begun again by the unit's own command."""

    def service(name: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "src.train", *SYNTHETIC, *SETTINGS, "optim=sgd", "epochs=2"]
        command = [sys.executable, "-m", "scripts.aws.run_training", "--", *words, "run_name=r", f"runs_dir={tmp_path / name}"]
        environment = {**os.environ, "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    code, said = ended(service("whole"))
    assert code == FINISHED, said
    process = service("killed")
    records = tmp_path / "killed" / "r" / "metrics.jsonl"
    wait(lambda: records.exists() and '"step": 12' in records.read_text(), process)
    kill_all(process)
    assert json.loads((tmp_path / "killed" / "r" / "status.json").read_text())["status"] == "running"
    process = service("killed")
    wait(lambda: '"step": 24' in records.read_text(), process)
    process.send_signal(signal.SIGTERM)  # the next reboot is an orderly one
    code, said = ended(process)
    assert code in (STOPPED, FINISHED), said  # it may have been quicker
    code, said = ended(service("killed"))
    assert code == FINISHED, said
    last = [load_file(tmp_path / name / "r" / "checkpoints" / "last.ckpt") for name in ("whole", "killed")]
    left, right = ({key: value for key, value in state.items() if key != "config"} for state in last)
    assert not differing(left, right)


def kill_all(process: subprocess.Popen[str]) -> None:
    """What systemd does with what is left of a unit, and a power loss with everything: SIGKILL to all processes."""
    from tests.processes import children

    family, waiting = [], [process.pid]
    while waiting:
        family.append(waiting.pop())
        waiting += children(family[-1])
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()
