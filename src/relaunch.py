"""A plain command on a machine with several GPUs starts itself under torchrun on all of them."""

import os
import sys
from collections.abc import Sequence

import torch


def torchrun_command(module: str, arguments: Sequence[str], *, gpus: int, python: str) -> list[str] | None:
    """Return the command that runs the module on all of this machine's GPUs, or None where one process is right."""
    if gpus < 2 or "RANK" in os.environ:
        return None
    launcher = [python, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}"]
    return [*launcher, "-m", module, *arguments]


def relaunch_on_all_gpus(module: str, arguments: Sequence[str]) -> None:
    """Replace this process by torchrun on every GPU of the machine, if there are several and nobody chose."""
    gpus = torch.cuda.device_count()
    command = torchrun_command(module, arguments, gpus=gpus, python=sys.executable)
    if command is not None:
        print(f"{gpus} GPUs: starting {' '.join(command)}", file=sys.stderr, flush=True)
        os.execv(command[0], command)
