"""A real Slurm on this machine alone, with one node of four pretended A40, to run the job scripts as they are.

    sudo python -m tests.slurm.cluster start          (Debian: apt-get install slurm-wlm munge)
    export SLURM_CONF=/run/trainer-slurm/slurm.conf
    sbatch scripts/slurm/4xA40.sh experiment=demo
    sudo python -m tests.slurm.cluster stop

Everything it has stands in one folder: configuration, spool, logs, and a munge of its own with its own key and socket. A Slurm that
is configured here already is left alone. Three partitions: `main`, whose jobs are killed when `urgent` wants the node;
`grace`, whose jobs are told and have a minute; `urgent`.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SITES_OWN = Path("/etc/slurm/slurm.conf")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
FOLDER = Path("/run/trainer-slurm")
GPUS = 4

CONFIGURATION = """\
ClusterName=trainer-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd.pid
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait={kill_wait}
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 Boards=1 SocketsPerBoard=1 CoresPerSocket=64 ThreadsPerCore=1 RealMemory=4000 \
Gres=gpu:a40:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=0
PartitionName=grace Nodes=ALL State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL State=UP PriorityTier=10 PreemptMode=OFF
"""


class NoCluster(Exception):  # noqa: N818 (the reason to skip)
    """Why no Slurm can be started here."""


def why_not() -> str | None:
    """Return what this machine lacks for a Slurm of its own."""
    if os.geteuid() != 0:
        return "not root"
    missing = [program for program in PROGRAMS if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)"
    if SITES_OWN.exists():
        return f"this machine has a Slurm already: {SITES_OWN}"
    return None


def start(folder: Path, *, kill_wait: int = 30) -> dict[str, str]:
    """Start the daemons, wait until the node is idle, and return the variables that choose this Slurm.

    Args:
        folder: made; it must not hold a cluster that runs.
        kill_wait: seconds between SIGTERM and SIGKILL of a job that Slurm ends.

    Raises:
        NoCluster: with the reason.
    """
    reason = why_not()
    if reason is not None:
        raise NoCluster(reason)
    if any(is_alive(pid) for pid in pids(folder)):
        raise NoCluster(f"{folder} holds a cluster that runs: stop it first")
    shutil.rmtree(folder, ignore_errors=True)
    for inner in ("state", "spool"):
        (folder / inner).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    for gpu in range(GPUS):
        (folder / f"gpu{gpu}").touch()  # a device's file must exist; what it is, nobody asks
    (folder / "gres.conf").write_text(f"Name=gpu Type=a40 File={folder}/gpu[0-{GPUS - 1}]\n")
    controller_port, node_port = free_ports(2)
    text = CONFIGURATION.format(
        folder=folder,
        host=socket.gethostname().split(".")[0],
        controller_port=controller_port,
        node_port=node_port,
        kill_wait=kill_wait,
        gpus=GPUS,
    )
    (folder / "slurm.conf").write_text(text)
    variables = {"SLURM_CONF": str(folder / "slurm.conf")}
    files = {
        "key-file": "munge.key",
        "socket": "munge.socket",
        "pid-file": "munged.pid",
        "log-file": "munged.log",
        "seed-file": "seed",
    }
    try:
        daemon("munged", *(f"--{option}={folder / name}" for option, name in files.items()), variables=variables)
        daemon("slurmctld", variables=variables)
        daemon("slurmd", variables=variables)
        wait_until_idle(variables)
    except NoCluster:
        stop(folder)
        raise
    return variables


def stop(folder: Path) -> None:
    """End all jobs and daemons of the folder's cluster, and delete the folder."""
    if not (folder / "slurm.conf").exists():
        return
    variables = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listed = ask("squeue", "--noheader", "--format=%A", variables=variables).split()
        if listed:
            ask("scancel", "--signal=KILL", "--full", *listed, variables=variables)
            ask("scancel", *listed, variables=variables)
        deadline = time.monotonic() + 40
        while ask("squeue", "--noheader", variables=variables).strip() and time.monotonic() < deadline:
            time.sleep(0.2)
    for pid in pids(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while (alive := [pid for pid in pids(folder) if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def pids(folder: Path) -> Iterator[int]:
    """Yield the daemons' process ids, nodes first, and munge last."""
    for name in ("slurmd", "slurmctld", "munged"):
        with contextlib.suppress(OSError, ValueError):
            yield int((folder / f"{name}.pid").read_text())


def is_alive(pid: int) -> bool:
    """Return whether the process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]


def daemon(*command: str, variables: dict[str, str]) -> None:
    """Start a daemon, which goes into the background by itself."""
    paths = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    done = subprocess.run(command, env=os.environ | paths | variables, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise NoCluster(f"{command[0]} does not start: {done.stderr.strip()}")


def wait_until_idle(variables: dict[str, str]) -> None:
    """Wait until the node takes jobs."""
    deadline = time.monotonic() + 60
    while "idle" not in (state := ask("sinfo", "--noheader", "--format=%T", variables=os.environ | variables)):
        if time.monotonic() > deadline:
            raise NoCluster(f"the node does not become idle: {state.strip() or 'no answer'}")
        time.sleep(0.1)


def ask(*command: str, variables: dict[str, str]) -> str:
    """Return what one of Slurm's commands prints; nothing if it fails."""
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False).stdout


def main() -> int:
    """Start or stop the cluster by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["start", "stop"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    if options.what == "stop":
        stop(options.folder)
        return 0
    try:
        variables = start(options.folder)
    except NoCluster as reason:
        print(reason, file=sys.stderr)
        return 1
    print(f"export SLURM_CONF={variables['SLURM_CONF']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
