"""Two "nodes" on one machine: network namespaces joined by a virtual cable, each with one torchrun.

Both share this machine's host name, disk and cores, so what the hosts' names would tell is said to torchrun by its options
(`is_host`, `--local-addr`), and gloo is told its interface. Needs root.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
INTERFACE = "node0"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    # As scripts/slurm/job.sh. Otherwise rank 0's torchrun says only in its first round where its store is (torch 2.15), and a
    # torchrun that is started again waits for the word, and the others for it, until both have failed after a minute.
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
_NUMBERS = itertools.count()


class Node(NamedTuple):
    """One end of the cable; without a namespace, this machine's loopback."""

    namespace: str | None
    address: str
    port: int = 29500

    def popen(self, command: list[str], *, log: Path, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start a command on this node, with its errors appended to a file."""
        words = [*(["ip", "netns", "exec", self.namespace] if self.namespace else []), *command]
        settings = os.environ | ENVIRONMENT | {"GLOO_SOCKET_IFNAME": INTERFACE if self.namespace else "lo"} | dict(env or {})
        with open(log, "ab") as errors:
            return subprocess.Popen(words, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=errors, text=True)

    def pids(self) -> list[int]:
        """Return all processes that run on this node."""
        assert self.namespace is not None
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]

    def kill(self) -> None:
        """SIGKILL every process of the node, and wait until they are gone: as a power cut, but that the cable tells the other."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def torchrun(nodes: tuple[Node, Node], number: int, *arguments: str, max_restarts: int = 3) -> list[str]:
    """Return the line of scripts/slurm/multi_node.sh for one of the nodes, and what it needs where both have one name."""
    first, own = nodes[0], nodes[number]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--max-restarts={max_restarts}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={first.address}:{first.port}", "--rdzv-id=test"),
        *(f"--rdzv-conf=is_host={int(number == 0)}", f"--local-addr={own.address}", *arguments),
    ]


def why_not() -> str | None:
    """Return why there can be no namespaces here, or None."""
    try:
        with two_nodes():
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return f"network namespaces cannot be made here (they need root and iproute2): {said.strip()}"


@contextlib.contextmanager
def two_nodes() -> Iterator[tuple[Node, Node]]:
    """Make two namespaces and the cable between them; end all that runs there, and remove them."""
    mark = f"{os.getpid():x}-{next(_NUMBERS)}"
    nodes = Node(f"node-a-{mark}", "10.77.0.1"), Node(f"node-b-{mark}", "10.77.0.2")
    ends = [f"a{mark}"[:15], f"b{mark}"[:15]]
    made: list[Node] = []
    try:
        for node in nodes:
            _ip("netns", "add", node.namespace)
            made.append(node)
        ends_in = [("netns", node.namespace) for node in nodes]
        _ip("link", "add", ends[0], *ends_in[0], "type", "veth", "peer", "name", ends[1], *ends_in[1])
        for node, end in zip(nodes, ends, strict=True):
            own = ("-n", node.namespace)
            _ip(*own, "link", "set", end, "name", INTERFACE)
            _ip(*own, "address", "add", f"{node.address}/24", "dev", INTERFACE)
            for name in (INTERFACE, "lo"):
                _ip(*own, "link", "set", name, "up")
        yield nodes
    finally:
        for node in made:
            node.kill()
            _ip("netns", "delete", node.namespace)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
