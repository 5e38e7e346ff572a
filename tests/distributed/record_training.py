"""Train by the command, with faults as in tests/faults.py, and write down what each slot of each step was given, and what was seen.

torchrun --nproc_per_node=2 -m tests.distributed.record_training <folder> <fault> ... -- <override> ...
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from src import train_run
from tests import faults


def main() -> None:
    folder = Path(sys.argv.pop(1))
    own = open(folder / f"{os.environ.get('WORLD_SIZE', '1')}-{os.environ.get('RANK', '0')}-{os.getpid()}.jsonl", "w")  # noqa: SIM115
    build_run = train_run.build_run

    def recorded(*arguments: Any, **named: Any) -> Any:
        run = build_run(*arguments, **named)
        augment = run.augment

        def augmented(batch: Any, *, step: int, slot: int) -> Any:
            made = augment(batch, step=step, slot=slot)
            seen = hashlib.sha256(made.images.contiguous().numpy().tobytes() + made.targets.numpy().tobytes()).hexdigest()
            own.write(json.dumps([f"{step}.{slot}", batch.plan.ids.tolist(), seen]) + "\n")
            own.flush()
            return made

        run.augment = augmented
        return run

    train_run.build_run = recorded
    faults.main()


if __name__ == "__main__":
    main()
