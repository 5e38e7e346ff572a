"""A run's folder belongs to one process and one configuration, and says how the run stands."""

import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from src.config import Config, ConfigError, load
from src.config.stored import load_stored
from src.tracking import run_folder
from src.tracking.run_folder import RunFolder

Configure = Callable[..., Config]
ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys
from pathlib import Path
from src.config import load
from src.tracking.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]), load(["data=synthetic", "model=small_resnet"]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, configure: Configure) -> Iterator[RunFolder]:
    held = RunFolder(tmp_path / "runs" / "r", configure())
    yield held
    held.close()


def test_a_folder_held_by_another_process_is_refused_and_the_holder_named(tmp_path: Path, configure: Configure) -> None:
    path = tmp_path / "r"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError) as caught:
            RunFolder(path, configure())
        assert f"run_name = 'r': is in use by process {holder.pid} on {socket.gethostname()}" in str(caught.value)
        assert f"touch {path / 'STOP'}" in str(caught.value)
        holder.kill()
    RunFolder(path, configure()).close()  # a dead process holds nothing


def test_within_one_process_it_is_held_until_closed(folder: RunFolder, configure: Configure) -> None:
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        RunFolder(folder.path, configure())
    folder.close()
    RunFolder(folder.path, configure()).close()


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_folder.fcntl, "flock", refuse)
    RunFolder(tmp_path / "r", configure()).close()
    assert len(said) == 1
    assert said[0].startswith(f"WARNING {tmp_path / 'r'} is on a file system without locks (Function not implemented)")


def test_another_configuration_is_refused_with_every_changed_key(folder: RunFolder, configure: Configure) -> None:
    folder.describe(device="cpu", world_size=1)
    folder.close()
    with pytest.raises(ConfigError) as caught:
        RunFolder(folder.path, configure("optim.momentum=0.8", "seed=3", "model.depth=14"))
    problems = {problem.path: problem for problem in caught.value.problems}
    assert set(problems) == {"optim.momentum", "seed", "model.depth"}
    assert problems["seed"].value == 3
    assert f"was 0 when {folder.path} was started. Set it back, or choose another run_name." in problems["seed"].fix
    RunFolder(folder.path, configure()).close()  # the refused one did not keep the lock


def test_what_cannot_change_a_result_may_change(folder: RunFolder, configure: Configure) -> None:
    folder.describe(device="cpu", world_size=1)
    folder.close()
    other = configure("data.workers=3", "save_every_steps=7", "keep_top_k=9", "track.log_every_steps=3", "runs_dir=elsewhere")
    RunFolder(folder.path, other).close()


def test_the_description_is_written_once_and_can_be_loaded_again(folder: RunFolder, configure: Configure) -> None:
    folder.describe(device="cpu", world_size=2)
    assert load_stored(yaml.safe_load((folder.path / "config.yaml").read_text()), []) == configure()
    assert shlex.split((folder.path / "command.txt").read_text())[1:] == sys.orig_argv[1:]
    meta = json.loads((folder.path / "meta.json").read_text())
    assert (meta["device"], meta["world_size"], meta["packages"]["torch"].split("+")[0]) == ("cpu", 2, _torch_version())
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    folder.describe(device="cuda", world_size=4)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


def _torch_version() -> str:
    import torch

    return torch.__version__.split("+")[0]


def test_config_yaml_is_written_last(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    real, order = os.replace, []

    def note(source: str, target: Path) -> None:
        order.append(Path(target).name)
        real(source, target)

    monkeypatch.setattr(os, "replace", note)
    folder.describe(device="cpu", world_size=1)
    assert order == ["command.txt", "meta.json", "config.yaml"]


def test_the_status_tells_who_and_how(folder: RunFolder) -> None:
    folder.set_status("running")
    folder.set_status("preempted", step=17)
    status = json.loads((folder.path / "status.json").read_text())
    assert (status["status"], status["step"], status["pid"], status["host"]) == (
        "preempted",
        17,
        os.getpid(),
        socket.gethostname(),
    )


def test_a_status_that_cannot_be_written_is_a_warning(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_atomically", full)
    folder.set_status("running")
    assert said == ["WARNING status.json not written: [Errno 28] No space left on device"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config = load(["data=synthetic", "model=small_resnet", f"runs_dir={tmp_path / 'file'}"])
    with pytest.raises(ConfigError, match=r"runs_dir = .*cannot be written \(Not a directory\)\. Set runs_dir"):
        RunFolder(tmp_path / "file" / "r", config)


def test_temporary_files_of_a_dead_process_are_cleared(tmp_path: Path, configure: Configure) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".writing-abc").write_text("half")
    RunFolder(tmp_path / "r", configure()).close()
    assert not (tmp_path / "r" / ".writing-abc").exists()


def test_no_secret_of_the_environment_is_written(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "sentinel-key-123")
    folder.describe(device="cpu", world_size=1)
    folder.set_status("running")
    assert all(b"sentinel-key-123" not in path.read_bytes() for path in folder.path.iterdir() if path.is_file())
