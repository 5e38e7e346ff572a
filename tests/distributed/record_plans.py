"""Train for real as one rank, and write down which images each slot of each step was given, and what the model saw of them.

torchrun --nproc_per_node=2 tests/distributed/record_plans.py <folder> <override> ...
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from src import distributed
from src.batch import Augmented, Batch, BatchPlan, Geometry
from src.build import Engines, build_engines, build_run
from src.config import load
from src.data.build import build_sources
from src.machine import settle_torch
from src.training.loop import fit
from src.training.stopping import StopRequests


class Recorder:
    def __init__(self, engine: object) -> None:
        self.engine, self.ids = engine, list[list[int]]()
        self.pixels = engine.pixels  # type: ignore[attr-defined]

    def batches(self, plans: Iterator[BatchPlan], *, geometry: Geometry) -> Iterator[Batch]:
        for batch in self.engine.batches(plans, geometry=geometry):  # type: ignore[attr-defined]
            self.ids.append(batch.plan.ids.tolist())
            yield batch

    def close(self) -> None:
        self.engine.close()  # type: ignore[attr-defined]


def main(folder: Path, overrides: list[str]) -> None:
    config = load(overrides)
    world = distributed.world_from_environment()
    settle_torch(threads=1, deterministic=False)
    device = distributed.choose_device(world)
    distributed.start(world, device)
    train, val = build_sources(config.data, threads=1, progress=lambda done, total: None)
    engines = build_engines(config, world, device, train, val)
    recorder = Recorder(engines.train)
    run = build_run(
        config,
        world,
        device,
        train=train,
        val=val,
        engines=Engines(recorder, engines.val),
        trackers=[],
        requests=StopRequests(folder / "STOP"),
    )
    augment, digests = run.augment, dict[str, str]()

    def recorded(batch: Batch, *, step: int, slot: int) -> Augmented:
        augmented = augment(batch, step=step, slot=slot)
        content = augmented.images.contiguous().numpy().tobytes() + augmented.targets.numpy().tobytes()
        digests[f"{step}.{slot}"] = hashlib.sha256(content).hexdigest()
        return augmented

    run.augment = recorded
    fit(run)
    slots = {}
    for number, ids in enumerate(recorder.ids):
        step, micro_batch = divmod(number, run.accumulation)
        place = f"{step}.{run.arithmetic.slot(micro_batch, world.rank)}"
        slots[place] = [ids, digests[place]]
    (folder / f"world{world.size}-rank{world.rank}.json").write_text(json.dumps(slots))
    run.close()
    engines.close()
    distributed.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
