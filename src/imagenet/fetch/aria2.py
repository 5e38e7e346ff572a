"""Run aria2c: start, follow, stop, and say in plain words why it ended."""

import collections
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from src.config import ConfigError, Problem
from src.config.secrets import is_secret
from src.imagenet.fetch.remote import AGAIN, STAGE

INSTALL = "sudo apt-get install aria2 (Debian, Ubuntu), brew install aria2 (macOS), or conda install -c conda-forge aria2"
_READOUT = re.compile(r"\[#[0-9a-f]+ (?:SEED\S*|(\d+)B/(\d+)B)")
_REASON = re.compile(r"errorCode=(\d+) (.*)")
_SAVE_SECONDS = "10"  # the control file tells what is there after a kill -9; what came since is found by its sums
_ENDS_SECONDS = 8.0  # to write the control file and tell the trackers
_STALLED = 7  # "unfinished downloads", also what --bt-stop-timeout ends with

# The exit codes of aria2c(1), section EXIT STATUS.
_CODES = {
    1: "aria2 met an error",
    2: "a server did not answer in time",
    3: "a server does not have it",
    4: "a server does not have it",
    5: "it was too slow",
    6: "the network failed",
    7: "nobody sent anything",
    8: "a server does not continue downloads",
    9: "the disk is full",
    11: "another aria2 is downloading the same file",
    12: "another aria2 is downloading the same torrent",
    13: "a file of this name is there already",
    15: "a file could not be opened",
    16: "a file could not be made",
    17: "the disk failed",
    18: "a folder could not be made",
    19: "a name could not be resolved",
    22: "a server answered unexpectedly",
    23: "a server redirects without end",
    24: "a server refuses without a login",
    25: "it is no torrent file",
    26: "the torrent file is damaged",
    27: "the magnet link is wrong",
    32: "what arrived has the wrong sum",
}


class Aria2Failed(Exception):  # noqa: N818 (what happened)
    """It ended without the file. The text says why, without any address; `code` is its exit code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def check_installed() -> None:
    """Refuse where there is no aria2c.

    Raises:
        ConfigError: says what to type.
    """
    if shutil.which("aria2c") is None:
        raise ConfigError(STAGE, [Problem("aria2c", None, f"is not installed: {INSTALL}. Then run this again.")])


def run_aria2(
    what: str, folder: Path, options: Sequence[str], told: Callable[[int], None], *, seconds: float | None = None
) -> None:
    """Download one thing, and wait for it.

    Its own process group: Ctrl-C reaches this process, which then ends it so that it saves what it has. If this process is killed,
    aria2 notices within seconds (--stop-with-process) and does the same.

    Args:
        what: a torrent file, a magnet link or an address.
        folder: to download into.
        options: besides those that every download gets.
        told: called with the bytes that are there.
        seconds: the most that it may take; None: as long as bytes come.

    Raises:
        Aria2Failed: it ended without the file.
        ConfigError: it cannot be started.
    """
    command = [
        "aria2c",
        "--no-conf",  # a user's own file may add anything: seeding, other folders, commands to be run
        "--no-netrc",
        f"--dir={folder}",
        "--continue=true",
        "--check-integrity=true",
        "--auto-file-renaming=false",
        "--file-allocation=none",
        f"--auto-save-interval={_SAVE_SECONDS}",
        f"--stop-with-process={os.getpid()}",
        "--human-readable=false",
        "--summary-interval=1",
        "--show-console-readout=false",
        "--enable-color=false",
        "--download-result=hide",
        *([f"--stop={seconds:.0f}"] if seconds is not None else []),
        *options,
        "--",
        what,
    ]
    environment = {name: value for name, value in os.environ.items() if not is_secret(name)}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(STAGE, [Problem("aria2c", None, f"cannot be started ({error.strerror}): {INSTALL}.")]) from error
    last: collections.deque[str] = collections.deque(maxlen=20)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            readout = _READOUT.match(line)
            if readout is None:
                last.append(line.strip())
            elif readout[1] is not None:
                told(int(readout[1]))
        code = process.wait()
    finally:
        _end(process)
    if code:
        raise Aria2Failed(code, _explain(code, last))


def problem_of(error: Aria2Failed, name: str) -> ConfigError:
    """Make the message of a download that ended without the file."""
    hint = {
        9: "Free some space. ",
        _STALLED: "Try again later, or look whether a firewall blocks BitTorrent; the other ways are fetch=kaggle|huggingface. ",
        13: "Move it away. ",
    }.get(error.code, "")
    return ConfigError(STAGE, [Problem(name, None, f"{error}. {hint}{AGAIN}")])


def _explain(code: int, last: Sequence[str]) -> str:
    """Say why, in our words and the last of its own that hold no address: those of private trackers hold a key."""
    text = _CODES.get(code, "aria2 failed")
    reasons = [match[2] for line in last if (match := _REASON.search(line)) and "://" not in match[2] and "?" not in match[2]]
    reason = f": {reasons[-1].rstrip('.')}" if reasons else ""
    return f"{text} (aria2's exit code {code}{reason})"


def _end(process: "subprocess.Popen[str]") -> None:
    """End it, first gently: then it writes down what it has."""
    for signal in (process.terminate, process.terminate, process.kill):  # the second one: without telling the trackers
        if process.poll() is not None:
            break
        signal()
        try:
            process.wait(_ENDS_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    if process.stdout is not None:
        process.stdout.close()
