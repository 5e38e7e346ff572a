"""No key, token or password of the environment, of .env, of a git remote or of a mistyped override is written down anywhere."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from src.config.problems import known_keys
from src.config.secrets import HIDDEN, hide_in_arguments, hide_in_tree, hide_secrets, is_secret
from tests.conftest import LAUNCHER_VARIABLES, ROOT
from tests.end_to_end.kill_harness import SYNTHETIC
from tests.wandb_file import payloads

SENTINEL = "5ec2e75ec2e7"  # in every secret; nothing else holds it
VARIABLES = {
    "WANDB_API_KEY": f"{SENTINEL}0123456789012345678901234567",
    "HF_TOKEN": f"hf_{SENTINEL}",
    "KAGGLE_KEY": SENTINEL,
    "AWS_SECRET_ACCESS_KEY": SENTINEL,
    "AWS_SESSION_TOKEN": f"{SENTINEL}/+=",
    "SOME_SITE": f"https://me:{SENTINEL}@localhost/",
}
DATA = (*SYNTHETIC, "data.num_train=64", "data.num_val=16", "batch_size=16", "epochs=1", "schedule.warmup_epochs=0", "keep_top_k=1")
LOGGED = ("track.log_every_steps=1",)
# A user's own model that holds a secret in a variable when it fails: the traceback may name the line, not the value.
BROKEN = """
import os
import torch

class Broken(torch.nn.Linear):
    steps = 0

    def forward(self, images):
        token = os.environ["HF_TOKEN"]
        self.steps += 1
        if self.steps > 2:
            raise RuntimeError("broken on purpose", len(token))
        return super().forward(images.flatten(1))

def build(num_classes):
    return Broken(3 * 16 * 16, num_classes)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a git repository whose remote's address holds a password, with a .env."""
    folder = tmp_path_factory.mktemp("project") / "trainer"
    for part in ("src", "conf"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".env").write_text(f"WANDB_API_KEY={VARIABLES['WANDB_API_KEY']}\nANOTHER={SENTINEL}\n")
    (folder / "broken.py").write_text(BROKEN)
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for command in (
        ["init", "-q"],
        [*who, "commit", "-q", "--allow-empty", "-m", "a"],
        ["remote", "add", "origin", f"https://me:{SENTINEL}@example.org/me/trainer.git"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def run(project: Path, *arguments: str, ranks: int = 1, **variables: str) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    settings = {**kept, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **VARIABLES, **variables}
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "src.train", *arguments]
    return subprocess.run(command, cwd=project, env=settings, capture_output=True, timeout=250, check=False)


def everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of every file, of every member of a zip, and of every record of wandb's."""
    for path in folder.rglob("*"):
        yield str(path), str(path).encode()
        if path.is_symlink():
            yield f"the target of {path}", str(path.readlink()).encode()
        if not path.is_file():
            continue
        yield str(path), path.read_bytes()
        if zipfile.is_zipfile(path):  # a checkpoint
            with zipfile.ZipFile(path) as archive:
                yield from ((f"{path}/{name}", archive.read(name)) for name in archive.namelist())
        if path.suffix == ".wandb":
            yield from ((f"{path}: a record", payload) for payload in payloads(path.read_bytes()))


def assert_clean(folder: Path, done: subprocess.CompletedProcess[bytes]) -> None:
    assert any(folder.rglob("meta.json")), "there is something to search"
    for name, data in [("stdout", done.stdout), ("stderr", done.stderr), *everything(folder)]:
        assert SENTINEL.encode() not in data, name


def test_the_search_finds_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", SENTINEL * 9)
    assert SENTINEL.encode() not in (tmp_path / "last.ckpt").read_bytes()
    assert [name for name, data in everything(tmp_path) if SENTINEL.encode() in data] == [f"{tmp_path}/last.ckpt/data.pkl"]


SMALL = ("model=small_resnet", "model.width=4", "model.stem_stride=2")
OFFLINE = ("track=wandb", "track.mode=offline") if find_spec("wandb") else ()


@pytest.mark.slow
def test_no_secret_in_a_run_of_two_ranks(project: Path, tmp_path: Path) -> None:
    done = run(project, *DATA, *SMALL, *LOGGED, *OFFLINE, f"runs_dir={tmp_path}", "run_name=a", ranks=2)
    assert done.returncode == 0, done.stderr.decode()
    assert_clean(tmp_path, done)
    assert len(list(tmp_path.glob("a/wandb/offline-run-*"))) == bool(OFFLINE), "rank 0 alone has it"


@pytest.mark.slow
def test_no_secret_in_a_run_that_uses_its_key_without_a_network(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    order = (*DATA, *SMALL, *LOGGED, "track=wandb", f"runs_dir={tmp_path}", "run_name=a")
    done = run(project, *order, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.count(b"WARNING") == 1 and b"wandb is switched off" in done.stderr
    assert_clean(tmp_path, done)


@pytest.mark.slow
def test_no_secret_in_the_traceback_of_one_that_fails(project: Path, tmp_path: Path) -> None:
    order = (*DATA, *LOGGED, *OFFLINE, f"runs_dir={tmp_path}", "run_name=a", "model=custom", "model.factory=broken:build")
    done = run(project, *order)
    assert done.returncode == 1 and b"Traceback" in done.stderr and b"broken on purpose" in done.stderr, done.stderr.decode()
    assert_clean(tmp_path, done)


@pytest.mark.parametrize(
    "typed",
    [
        f"wandb_api_key={SENTINEL}",
        f"+track.api_key={SENTINEL}",
        f"--hf-token={SENTINEL}",
        f"--wandb_api_key --- {SENTINEL}",
        f"track.wandb.token={SENTINEL}",
        f"x={{password: {SENTINEL}}}",
        f"track.api_key=[{SENTINEL},{SENTINEL}]",
        f"secret={SENTINEL},{SENTINEL}",
        f"wandb_api_key={SENTINEL}:%(",
        f"data.pth=s3://me:{SENTINEL}@host/a",
        "data.path=${oc.env:HF_TOKEN}",
        "data.path=${oc.decode:${oc.env:HF_TOKEN}}",
        "optim=${oc.env:HF_TOKEN}",
    ],
)
@pytest.mark.parametrize("more", [[], ["--cfg", "job"]])
def test_the_refusal_of_a_secret_does_not_repeat_it(
    typed: str, more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from src.train import main

    monkeypatch.setenv("HF_TOKEN", SENTINEL)
    with pytest.raises(SystemExit) as done:
        main([*typed.split(" --- "), "batch_size=0", *more])
    out, err = capsys.readouterr()
    assert SENTINEL not in out + err
    assert more or done.value.code == 2
    assert re.split(r"=| ", typed)[0].lstrip("+") in err or more


def test_a_group_of_ones_own_cannot_read_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from src.train import main

    monkeypatch.setenv("HF_TOKEN", SENTINEL)
    (tmp_path / "optim").mkdir()
    for text in ("peak_lr: ${oc.env:HF_TOKEN}", "defaults: ['${oc.env:HF_TOKEN}']", "defaults: [{/data: '${oc.env:HF_TOKEN}'}]"):
        (tmp_path / "optim" / "mine.yaml").write_text(f"{text}\n")
        with pytest.raises(SystemExit) as done:
            main(["--config-dir", str(tmp_path), "optim=mine"])
        out, err = capsys.readouterr()
        assert done.value.code == 2 and SENTINEL not in out + err and "Traceback" not in err


def test_no_key_of_ours_looks_like_a_secret() -> None:
    assert not [key for key in known_keys() if is_secret(key)]


@pytest.mark.parametrize(
    "name", [*[*VARIABLES][:5], "api_key", "--hf-token", "PGPASSWORD", "accesstoken", "x.secret", "credentials"]
)
def test_a_name_that_is_a_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["keep_top_k", "tokenizer", "monkey", "keyboard", "SSH_AUTH_SOCK", "PATH", "key", ""])
def test_a_name_that_is_none(name: str) -> None:
    assert not is_secret(name)


def test_what_is_hidden_and_what_stays() -> None:
    assert hide_in_arguments(["train", "--token", "a", "--token=a", "seed=1", "x=s3://me:a@host/b"]) == (
        ["train", "--token", HIDDEN, f"--token={HIDDEN}", "seed=1", f"x=s3://{HIDDEN}@host/b"]
    )
    tree = {"api_key": {"b": 1}, "c": ["https://me:a@host"], "token": ["a", 1], "d": {"password": None, "e": 0.5}}
    assert hide_in_tree(tree) == (
        {"api_key": {"b": 1}, "c": [f"https://{HIDDEN}@host"], "token": HIDDEN, "d": {"password": None, "e": 0.5}}
    )
    for text in ("seed=1, epochs: 2", "is not of the form key=value.", "https://host/a@b", "mail me@host"):
        assert hide_secrets(text) == text
    long = "a-b." * 20_000
    assert hide_secrets(long) == long, "in linear time"
