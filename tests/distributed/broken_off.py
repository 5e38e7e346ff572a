"""Two ranks evaluate different numbers of batches; one is asked to stop. Says how it ended on each, and after how many seconds.

Started without torchrun, which would cost more than the test: the address and the ranks are in the environment.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from src import distributed, peers
from src.training.stopping import Preempted, StopRequests

BATCHES = {0: 600, 1: 1}  # of a tenth of a second: rank 1 soon waits for rank 0


def batches(rank: int, share: float) -> Iterator[int]:
    for number in range(int(BATCHES[rank] * share) or 1):
        yield number
        time.sleep(0.1)


def main(folder: Path) -> None:
    world = distributed.world_from_environment()
    distributed.start(world, torch.device("cpu"))
    requests = StopRequests(folder / "STOP")
    told = {}
    with requests.listening():
        seen = len(list(requests.until_asked(batches(world.rank, 0.02))))
        told["undisturbed"] = [seen, seen == (12 if world.rank == 0 else 1)]
        if world.rank == 1:  # asked while it waits for rank 0 in the meeting
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        start = time.monotonic()
        try:
            seen = len(list(requests.until_asked(batches(world.rank, 1))))
            told["asked"] = ["went on", seen, time.monotonic() - start]
        except Preempted:
            told["asked"] = ["preempted", -1, time.monotonic() - start]
        told["both know"] = [peers.told("stop"), requests.pending()]
        distributed.gather(None)  # nothing is left in a wrong order: collectives still match
    distributed.stop()
    (folder / f"rank_{world.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
