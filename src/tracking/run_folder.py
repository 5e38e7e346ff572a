"""runs/<run_name>: who holds it, what it was told to do, and how it stands."""

import fcntl
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import yaml
from loguru import logger

from src.config import Config, ConfigError, Problem
from src.config.identity import differences
from src.files import remove_leftovers, write_atomically

Status = Literal["running", "preempted", "failed", "finished"]
STAGE = "the run's folder"
_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "hydra-core", "pydantic", "schedulefree")


class RunFolder:
    """The folder, held by this process until it ends.

    Args:
        path: made if it does not exist.
        config: compared with what is stored; any difference that could change a result is refused.

    Raises:
        ConfigError: if another process holds the folder, or it belongs to another configuration.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self._config = path, config
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / ".lock", "a+")  # noqa: SIM115 (held until the process ends)
        except OSError as error:
            fix = f"cannot be written ({error.strerror}). Set runs_dir to a folder that can."
            raise ConfigError(STAGE, [Problem("runs_dir", config.runs_dir, fix)]) from error
        self._take_lock()
        try:
            self._check_config()
        except ConfigError:
            self._lock.close()
            raise
        remove_leftovers(path)

    @property
    def stop_file(self) -> Path:
        """The file that asks the run to stop."""
        return self.path / "STOP"

    @property
    def metrics_file(self) -> Path:
        """The file of all records."""
        return self.path / "metrics.jsonl"

    def describe(self, *, device: str, world_size: int) -> None:
        """Write config.yaml, command.txt and meta.json, once; a STOP of an earlier process is taken away."""
        self.stop_file.unlink(missing_ok=True)
        config_file = self.path / "config.yaml"
        if config_file.exists():
            return
        write_atomically(self.path / "command.txt", f"{shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]])}\n".encode())
        write_atomically(self.path / "meta.json", json.dumps(_meta(device, world_size), indent=1).encode())
        text = yaml.safe_dump(self._config.model_dump(mode="json"), sort_keys=False)
        write_atomically(config_file, text.encode())  # last: where it stands, the others do

    def set_status(self, status: Status, **more: Any) -> None:
        """Replace status.json, which Slurm's script reads."""
        state = {"status": status, "pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), **more}
        try:
            write_atomically(self.path / "status.json", json.dumps(state).encode())
        except OSError as error:
            logger.warning(f"status.json not written: {error}")

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            self._lock.close()
            fix = f"is in use by {holder}. Wait for it, stop it (touch {self.stop_file}), or choose another run_name."
            raise ConfigError(STAGE, [Problem("run_name", self.path.name, fix)]) from error
        except OSError as error:
            logger.warning(
                f"{self.path} is on a file system without locks ({error.strerror}): take care that no second run uses it."
            )
            return
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()

    def _check_config(self) -> None:
        file = self.path / "config.yaml"
        if not file.exists():
            return
        stored = yaml.safe_load(file.read_text())
        changed = differences(self._config, stored)
        if changed:
            fix = f"was {{}} when {self.path} was started. Set it back, or choose another run_name."
            raise ConfigError(STAGE, [Problem(key, now, fix.format(before)) for key, before, now in changed])


def _meta(device: str, world_size: int) -> dict[str, Any]:
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device": device,
        "world_size": world_size,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "command": sys.orig_argv,
        "started": time.time(),
    }


def _git(*arguments: str) -> str | None:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
