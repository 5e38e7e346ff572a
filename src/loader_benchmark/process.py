"""A contender's process as its parent sees it: commands and answers through pipes, CPU time and memory of all that it starts.

Each leads a session of its own: so all that it starts is known, counted and ended, and a terminal's Ctrl-C reaches only the parent.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from src.loader_benchmark.catalogue import Task

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.1
_SETTLE_SECONDS, _QUIET_SECONDS = 5.0, 0.06
_MEMORY_FILES = ("/dev/shm/", "/memfd:", "/dev/zero", "/SYSV")  # names of memory that no file on a disk holds
_REASON_LENGTH = 300


class ContenderFailed(Exception):  # noqa: N818 (what happened, not a mistake in a call)
    """A contender that cannot go on. The message says why; `absent` where something that it needs is not installed."""

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason if len(reason) <= _REASON_LENGTH else f"{reason[:_REASON_LENGTH]} ...")
        self.absent = absent


class Process:
    """One contender's process.

    Args:
        task: what it is to show.
        log: a file for what it prints.
    """

    def __init__(self, task: Task, log: Path) -> None:
        self._log, self._ended = log, False
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "src.loader_benchmark.contenders", json.dumps(task.as_dict())],
                cwd=Path(__file__).resolve().parents[1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def ask(self, command: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            ContenderFailed: it said so, died, or gave no answer in `timeout` seconds.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ContenderFailed(self._last_words()) from None
        reply: dict[str, Any] = json.loads(self._line(timeout))
        if "failed" in reply or "absent" in reply:
            raise ContenderFailed(reply.get("failed") or reply["absent"], absent="absent" in reply)
        return reply

    def cpu_seconds(self) -> float:
        """Return user and system time of all its processes, also of those that have ended."""
        ticks = 0
        for pid in self._pids():
            with contextlib.suppress(OSError, ValueError):
                ticks += sum(int(value) for value in _stat(pid)[11:15])
        return ticks / _TICKS

    def memory_mib(self, without: Path) -> float:
        """Return what its processes hold: proportional set size of memory that no file holds, so neither code nor mapped data.

        Args:
            without: a folder whose mapped files do not count, should it lie in memory.
        """
        return sum(_own_kib(pid, str(without)) for pid in self._pids()) / 1024

    def settle(self) -> None:
        """Wait until none of its processes works any more: a prefetch ends, threads stop spinning."""
        limit = time.monotonic() + _SETTLE_SECONDS
        before, now = -1.0, self.cpu_seconds()
        while now != before and time.monotonic() < limit:
            time.sleep(_QUIET_SECONDS)
            before, now = now, self.cpu_seconds()

    def end(self, *, gently: bool) -> None:
        """End it and all that it started. Gently: it may close what it has open first. May be called twice."""
        if self._ended:
            return
        self._ended = True
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if gently:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _pids(self) -> list[int]:
        """List the session's processes."""
        pids = []
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError, ValueError):
                    if int(_stat(int(name))[3]) == self._process.pid:
                        pids.append(int(name))
        return pids

    def _line(self, timeout: float) -> bytes:
        output = self._process.stdout
        assert output is not None
        line, limit = b"", time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, limit - time.monotonic())):
                    raise ContenderFailed(f"gave no answer for {timeout:.0f} s")
                part = output.read()
                if part == b"":
                    raise ContenderFailed(self._last_words())
                line += part or b""
        return line

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        code = self._process.returncode
        ended = f"ended by signal {-code}" if code is not None and code < 0 else f"ended with {code}"
        return f"{ended}: {lines[-1]}" if lines else ended


class PeakMemory:
    """Samples a process's memory while something else goes on. As this costs time, nothing is timed meanwhile.

    Attributes:
        mib: the most that was seen.
    """

    def __init__(self, process: Process, without: Path) -> None:
        self._process, self._without = process, without
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.mib = 0.0

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.mib = max(self.mib, self._process.memory_mib(self._without))
            if self._done.wait(_SAMPLE_SECONDS):
                return


def _stat(pid: int) -> list[str]:
    """Return /proc/<pid>/stat from its third field (state) on: parent is 1, session 3, utime, stime, cutime, cstime 11 to 14."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def _own_kib(pid: int, without: str) -> int:
    """Sum Pss over the mappings of /proc/<pid>/smaps that are anonymous or shared memory."""
    total, counted = 0, False
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps") as file:
        for line in file:
            if line.startswith("Pss:"):
                total += int(line.split()[1]) if counted else 0
            elif "-" in (first := line.split(maxsplit=1)[0]) and not first.endswith(":"):
                fields = line.split(maxsplit=5)  # address, rights, offset, device, inode, path
                path = fields[5].strip() if len(fields) == 6 else ""
                counted = not path.startswith(without) and (fields[4] == "0" or path.startswith(_MEMORY_FILES))
    return total
