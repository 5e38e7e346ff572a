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

from loguru import logger

from src.config import Config, ConfigError, Problem
from src.config.identity import CUT_OTHERWISE, differences
from src.config.secrets import hide_in_arguments
from src.files import remove_leftovers, write_atomically
from src.tracking.config_file import read_config, write_config
from src.tracking.heartbeat import Heartbeat, HeldError

Status = Literal["running", "preempted", "failed", "finished"]
STAGE = "the run's folder"
# No other variable of the environment is written down anywhere: it is where keys and passwords are.
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "SLURM_JOB_ID",
    "SLURM_JOB_NODELIST",
    "NCCL_SOCKET_IFNAME",
    "GLOO_SOCKET_IFNAME",
)
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
        self._heartbeat: Heartbeat | None = None
        self._config_is_due = True
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / ".lock", "a+", errors="replace")  # noqa: SIM115 (held until the process ends)
        except OSError as error:
            fix = f"{error.filename} cannot be written ({error.strerror}). Set runs_dir to a folder that can."
            raise ConfigError(STAGE, [Problem("runs_dir", config.runs_dir, fix)]) from error
        try:
            self._start_heartbeat(locked=self._take_lock())
            self._check_config()
        except ConfigError:
            self.close()
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
        """Write config.yaml, command.txt and meta.json, once."""
        if not self._config_is_due:
            return
        command = f"{shlex.join([Path(sys.executable).name, *hide_in_arguments(sys.orig_argv[1:])])}\n".encode()
        meta = json.dumps(_meta(device, world_size), indent=1).encode()
        for name, content in (("command.txt", command), ("meta.json", meta)):
            if not (self.path / name).exists():
                write_atomically(self.path / name, content)
        write_config(self.path / "config.yaml", self._config)  # last: where it stands, the others do
        self._config_is_due = False

    def set_status(self, status: Status, **more: Any) -> None:
        """Replace status.json, which Slurm's script reads."""
        state = {"status": status, "pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), **more}
        try:
            write_atomically(self.path / "status.json", json.dumps(state).encode())
        except OSError as error:
            logger.warning(f"status.json not written: {error}")

    def close(self) -> None:
        """Let go of the folder."""
        if self._heartbeat is not None:
            self._heartbeat.close()
        self._lock.close()

    def _take_lock(self) -> bool:
        """Return whether there are locks here at all."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.seek(0)
            holder = self._lock.read(200).strip() or "another process"
            raise self._held_by(holder) from error
        except OSError as error:
            logger.warning(f"{self.path} is on a file system without locks ({error.strerror}): a heartbeat file guards it instead.")
            return False
        try:
            self._lock.truncate(0)
            self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._lock.flush()
        except OSError as error:  # a full disk: it is held all the same
            logger.warning(f"{self._lock.name} not written: {error}")
        return True

    def _start_heartbeat(self, *, locked: bool) -> None:
        """Show that the folder is held to whom no lock tells it: always, for a lock that stays on its node looks like any other."""
        file = self.path / ".heartbeat"
        try:
            self._heartbeat = Heartbeat(file, locked=locked)
        except HeldError as error:
            raise self._held_by(str(error)) from error
        except OSError as error:
            logger.warning(f"{file} cannot be written ({error.strerror}): take care that no second run uses this folder.")

    def _held_by(self, holder: str) -> ConfigError:
        fix = f"is in use by {holder}. Wait for it, stop it (touch {self.stop_file}), or choose another run_name."
        return ConfigError(STAGE, [Problem("run_name", self.path.name, fix)])

    def _check_config(self) -> None:
        file = self.path / "config.yaml"
        stored = read_config(file) if file.exists() else None
        self._config_is_due = stored is None
        if stored is None:
            return
        changed = differences(self._config, stored)
        for key, before, now in changed:
            if key in CUT_OTHERWISE:
                logger.warning(
                    f"OTHER MICRO-BATCHES: {key} was {before} when {self.path} was started, and is {now}: the same images in the "
                    "same steps, but not the same run bit for bit."
                )
        changed = [change for change in changed if change[0] not in CUT_OTHERWISE]
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
        "command": hide_in_arguments(sys.orig_argv),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "started": time.time(),
    }


def _git(*arguments: str) -> str | None:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
