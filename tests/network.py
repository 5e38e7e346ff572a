"""Commands with the network cut, and what they tried to reach nevertheless."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

# A namespace of its own with nothing but a loopback: what connects elsewhere fails at once.
CUT = ("unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
_HERE = re.compile(r'sin_addr=inet_addr\("127\.|inet_pton\(AF_INET6, "::1"|sin6_addr.*"::1"')


def cut_off(*command: str) -> list[str]:
    """Return the command as it runs without a network. Skips the test where namespaces are not allowed."""
    if shutil.which("unshare") is None or subprocess.run([*CUT, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces here: unshare --net needs root or user namespaces")
    return [*CUT, *command]


def traced(log: Path, *command: str) -> list[str]:
    """Return the command under strace, which writes every connect and sendto of it and its children to `log`."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return ["strace", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(log), *command]


def reached_for(log: Path) -> list[str]:
    """Return the traced calls that were meant for another machine, name servers included."""
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if re.search(r"sa_family=AF_INET6?\b", line) and not _HERE.search(line)]
