"""Two ranks take two steps; then rank 1 is silent. Says what rank 0 gets to know, from the default group or from the vote's own."""

import json
import os
import sys
import time
from pathlib import Path

import torch

from src import distributed, peers


def main(folder: Path, group: str) -> None:
    world = distributed.world_from_environment()
    distributed.start(world, torch.device("cpu"))
    vote, patience = distributed.StopVote(), peers.Patience(2.0)
    for _ in range(3):
        distributed.sum_over_ranks(torch.ones(1))
        vote.ask(False)
        patience.after_step()
    if world.rank == 1:
        while not (folder / "done").exists():
            time.sleep(0.05)
        return
    start = time.monotonic()
    try:
        if group == "vote":
            for _ in range(3):  # the vote before was started while rank 1 still answered
                vote.ask(False)
        else:
            distributed.sum_over_ranks(torch.ones(1))
        raise AssertionError("nobody missed rank 1")
    except RuntimeError as error:
        told = peers.plainly(error)
        what = {"error": type(told).__name__, "text": str(told), "seconds": time.monotonic() - start}
    (folder / "rank_0.json").write_text(json.dumps(what))
    (folder / "done").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
    os._exit(0)  # as the doors do after a lost rank: gloo's threads may still wait for it
