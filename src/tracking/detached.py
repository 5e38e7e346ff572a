"""A tracker in a process of its own, for what can fail, hang, print, or take over signals: none of that reaches the training.

The process gets its order as the first line of its standard input, and follows metrics.jsonl by itself, so nothing is queued here
and nothing can block. The end of its input tells it that the training has ended, however it ended. What it wants to be told on the
console it prints as JSON, a line each: {"say": ...}, or {"why": ...} before it fails.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from loguru import logger

from src.batch import Record
from src.config.secrets import hide_secrets, is_secret

# Both are less than the 30 seconds that torchrun and Slurm leave a process between SIGTERM and SIGKILL.
FINISH_SECONDS = 15.0  # for the process to send what is left and to end
_WAIT_SECONDS = FINISH_SECONDS + 5.0  # for us to wait for that


class DetachedTracker:
    """Starts the process, tells what it says, and warns once if it ends early.

    Args:
        title: what it is called in messages.
        module: run as `python -m <module>`.
        order: its first line of input, as JSON.
        log: takes what it and its libraries print; appended.
        own_variables: the prefix of environment variables that it may see although their name looks secret.
    """

    def __init__(self, title: str, module: str, order: Mapping[str, Any], *, log: Path, own_variables: str) -> None:
        self._title, self._said, self._why = title, b"", ""
        self._told_end: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # What is no business of this tracker's cannot leak from it.
        environment = {name: value for name, value in os.environ.items() if name.startswith(own_variables) or not is_secret(name)}
        try:
            log.parent.mkdir(exist_ok=True)
            with open(log, "ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    env=environment,
                    bufsize=0,
                    start_new_session=True,  # a terminal's Ctrl-C is the training's to answer
                )
            assert self._process.stdin is not None and self._process.stdout is not None
            os.set_blocking(self._process.stdin.fileno(), False)
            os.set_blocking(self._process.stdout.fileno(), False)
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
        except OSError as error:
            self._switch_off(str(error))

    def log(self, record: Record) -> None:
        """Look how the process is doing; it reads the record from metrics.jsonl."""
        if self._process is not None:
            self._listen()
            if self._process.poll() is not None:
                self._switch_off(f"its process ended with code {self._process.returncode}")

    def advance(self, step: int) -> None:
        """Do nothing."""

    def tell_end(self) -> None:
        """Tell the process that the training has ended, and do not wait."""
        if self._process is not None and self._told_end is None:
            assert self._process.stdin is not None
            with suppress(OSError):
                self._process.stdin.close()
            self._told_end = time.monotonic()

    def close(self) -> None:
        """Let the process send what is left, for a bounded time."""
        self.tell_end()
        if self._process is None or self._told_end is None:
            return
        try:
            code = self._process.wait(max(0.0, self._told_end + _WAIT_SECONDS - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._switch_off(f"it did not end within {_WAIT_SECONDS:g} seconds")
            return
        self._listen()
        if code:
            self._switch_off(f"its process ended with code {code}")
        else:
            self._let_go()

    def _listen(self) -> None:
        """Tell what the process has said since."""
        assert self._process is not None and self._process.stdout is not None
        with suppress(OSError):
            self._said += self._process.stdout.read(65536) or b""
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            with suppress(ValueError):
                words = json.loads(line)
                self._why = words.get("why", self._why)
                if "say" in words:
                    logger.info(f"{self._title:<9} {words['say']}")

    def _switch_off(self, reason: str) -> None:
        if self._process is not None:
            self._listen()
        logger.warning(
            f"{self._title} is switched off: {hide_secrets(self._why) or reason}. "
            "The training goes on; metrics.jsonl has every row, and the run's next start sends those that are missing."
        )
        self._let_go()

    def _let_go(self) -> None:
        """End the process if it is still there, and close the pipes."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
