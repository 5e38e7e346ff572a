"""`python -m src.demo` as its user and its visitors meet it, and the Space that it writes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.conftest import RunDoor
from tests.demo_client import Served, Visitor, demo, serving, shares
from tests.network import reached_for, traced
from tests.pictures import encode, write_files
from tests.processes import children
from tests.shown_model import odd_images, saved, write_run

# A clean machine: neither torch nor the project can be imported.
ELSEWHERE = (
    "import runpy, sys\nfor name in ('torch', 'torchvision', 'src', 'omegaconf'):\n    sys.modules[name] = None\n"
    "sys.argv = ['app.py', '0']\nsys.path[0] = '.'\nrunpy.run_path('app.py', run_name='__main__')"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("demo") / "run")


@pytest.fixture(scope="module")
def space(run: Path) -> tuple[Path, dict[str, object]]:
    folder, pictures = run.parent / "spaces" / "fish", run.parent / "pictures"
    write_files(pictures, {"b.png": odd_images()["alpha.png"], "a.JPG": encode("jpeg"), "notes.txt": b"no image"})
    done = subprocess.run(
        demo(f"checkpoint={run}", f"space={folder}", f"examples={pictures}", "title=Fish: all kinds", "max_upload_mb=1"),
        capture_output=True, text=True, check=False, timeout=250, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def page(run: Path) -> Iterator[Served]:
    limits = ("max_upload_mb=1", "max_megapixels=1", "keep_mb=20", "queue_size=40", "keep_seconds=16")
    with serving(demo(f"checkpoint={run}", "port=auto", *limits)) as served:
        yield served


def test_twenty_visitors_at_once_get_the_right_answers(page: Served) -> None:
    images = list(odd_images().items())
    alone = {name: shares(Visitor(page.url).answer(data, name)) for name, data in images}
    assert len({tuple(answer) for answer in alone.values()}) > 10  # the images are told apart
    crowd = [images[number % len(images)] for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda one: shares(Visitor(page.url).answer(one[1], one[0])), crowd))
    assert together == [alone[name] for name, _ in crowd]


def test_visitors_who_mean_no_good_get_nothing_and_end_nothing(page: Served, run: Path) -> None:
    visitor, meta = Visitor(page.url), {"_type": "gradio.FileData"}
    secret = run.parent / "secret.png"
    secret.write_bytes(odd_images()["png.png"])
    for given in (
        {"path": str(secret), "meta": meta},
        {"path": "http://127.0.0.1:9/x.png", "meta": meta},
        {"path": "x.png", "url": "http://127.0.0.1:9/x.png", "meta": meta},
        {"path": str(secret)},
        {"path": {"path": str(secret), "meta": meta}},
        {"nonsense": [1, 2, 3]},
    ):
        told = json.dumps(visitor.ask(given))
        assert 'class="label"' not in told and "Traceback" not in told and str(run.parent) not in told, given
    for path in ("/etc/passwd", str(secret), str(run / "checkpoints/best.ckpt"), "http://127.0.0.1:9/"):
        assert visitor.file(path).status_code == 404
    assert visitor.upload(bytes(2 * 2**20)).status_code == 413
    for body in (b"", b"{", b"[]", b'{"data": "x"}', b"\xff" * 100):
        refused = visitor.http.post("/gradio_api/queue/join", content=body, headers={"content-type": "application/json"})
        assert refused.status_code in (400, 413, 422, 500) and "File" not in refused.text
    for data in (
        b"",
        b"text",
        encode("jpeg")[:500],
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        saved(Image.new("RGB", (1200, 1000)), "PNG"),
    ):
        html = visitor.answer(data, "../../../x.jpg")
        assert 'role="alert"' in html and "/" not in re.sub(r"</?\w+>", "", html)
    assert len(shares(visitor.answer(encode("jpeg")))) == 5


def test_uploads_are_not_kept(page: Served) -> None:
    visitor = Visitor(page.url)
    path = visitor.upload(encode("jpeg", 41, 41)).json()[0]
    assert visitor.file(path).content == encode("jpeg", 41, 41)
    os.utime(path, (time.time() - 17,) * 2)
    deadline = time.monotonic() + 60
    while Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not Path(path).exists() and visitor.file(path).status_code == 404


def test_ctrl_c_ends_it_without_a_trace_and_nothing_was_asked_of_the_network(run: Path, tmp_path: Path) -> None:
    log, rooms = tmp_path / "calls", tmp_path / "rooms"
    rooms.mkdir()
    with serving(traced(log, *demo(f"checkpoint={run}")), TMPDIR=str(rooms)) as served:
        assert len(shares(Visitor(served.url).answer(encode("jpeg")))) == 5
        assert [room.name[:22] for room in rooms.iterdir()] == ["imagenet-trainer-demo-"]
        (inner,) = children(served.process.pid)
        os.kill(inner, signal.SIGINT)
        assert served.process.wait(60) == 130
        assert "Traceback" not in served.log and "Error" not in served.log
    assert list(rooms.iterdir()) == []
    assert reached_for(log) == []


def test_a_start_that_cannot_be_says_what_to_type(run_door: RunDoor, run: Path) -> None:
    done = run_door("port=x", "tilte=a", "keep_mb=1", "weights=best", module="src.demo")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for words in ("port = 'x'", "weights = 'best'", "checkpoint: must be given"):
        assert words in done.stderr, done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_door(f"checkpoint={run}", f"port={port}", module="src.demo")
        assert (
            done.returncode == 2 and f"port = {port}: cannot be opened (Address already in use). Type another port=" in done.stderr
        )


def test_help_tells_every_key_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from src.demo import main; main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0 and "max_megapixels: 50" in done.stdout


def test_a_space_is_whole_and_says_what_hugging_face_reads(space: tuple[Path, dict[str, object]]) -> None:
    folder, told = space
    assert told["status"] == "finished" and told["space"] == str(folder) and float(str(told["largest_difference"])) < 1e-5
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(front)
    assert (fields["title"], fields["sdk"], fields["app_file"]) == ("Fish: all kinds", "gradio", "app.py")
    assert f"gradio=={fields['sdk_version']}\n" in (folder / "requirements.txt").read_text()
    assert "7 classes" in text
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "app.py", "demo_page", "examples", "model.onnx", "requirements.txt", "space.json")
    }
    assert sorted(path.name for path in (folder / "examples").iterdir()) == ["01.jpg", "02.png"]
    assert [path.name for path in folder.parent.iterdir()] == ["fish"]  # nothing half is left
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert str(folder.parent).encode() not in everything and str(Path.cwd()).encode() not in everything


def test_a_spaces_app_predicts_as_the_page_without_torch_or_the_project(
    space: tuple[Path, dict[str, object]], page: Served
) -> None:
    command = [sys.executable, "-c", ELSEWHERE]
    with serving(command, cwd=space[0], PYTHONPATH="", PYTHONDONTWRITEBYTECODE="1") as served:
        ours, theirs = Visitor(page.url), Visitor(served.url)
        for name, data in odd_images().items():
            expected = {label: float(share.split()[0]) for label, share in shares(ours.answer(data, name))}
            for label, share in shares(theirs.answer(data, name)):
                assert abs(float(share.split()[0]) - expected.get(label, 0)) <= 0.5, (name, label)
        assert 'role="alert"' in theirs.answer(b"text")
        assert theirs.upload(bytes(2 * 2**20)).status_code == 413  # max_upload_mb=1 came along
        assert theirs.file("/etc/passwd").status_code == 404
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(60) == 130
        assert "Traceback" not in served.log
