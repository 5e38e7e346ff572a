"""How long a step takes on one host, and over the cable between two nodes, with accumulation: a table, and a line of JSON.

    python -m tests.multi_node.step_times [--rounds 3] [--steps 12] [--local 32] [--accumulation 1 4 16]

Two ranks, a core each, in both: the same torchrun line, through the loopback or through the cable, in turns. ResNet-18 at 32 px is
11.2 million weights, so 45 MB a step cross, whatever the accumulation. This cable is memory of the same machine: no slower than the
loopback, and no word about a real network. Needs root.
"""

import argparse
import contextlib
import itertools
import json
import os
import socket
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.multi_node.nodes import Node, torchrun, two_nodes

SETTINGS = (
    *("data=synthetic", "data.image_size=32", "data.stored_size=36", "data.resize_size=36", "data.num_val=8", "data.workers=1"),
    *("model=torchvision", "model.arch=resnet18", "epochs=1", "schedule.warmup_epochs=0", "eval_every_epochs=1"),
    *("track.log_every_steps=1", "track.progress=false", "precision=fp32", "keep_top_k=0", "save_every_steps=1000000"),
)
WARM_UP = 3  # steps that are not counted
PLACES = ("one host", "over the link")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="a run")
    parser.add_argument("--local", type=int, default=32, help="images in a micro-batch")
    parser.add_argument("--accumulation", type=int, nargs="+", default=[1, 4, 16])
    options = parser.parse_args()
    seconds: dict[tuple[str, int], list[float]] = {}
    waited: dict[tuple[str, int], list[float]] = {}
    for number in range(options.rounds):
        order = list(itertools.product(options.accumulation, PLACES))
        for accumulation, place in order if number % 2 == 0 else reversed(order):
            rows = train(place, accumulation, local=options.local, steps=options.steps)
            batch = 2 * options.local * accumulation
            seconds.setdefault((place, accumulation), []).extend(batch / row["time/images_per_second"] for row in rows)
            waited.setdefault((place, accumulation), []).extend(row["time/data_wait_fraction"] for row in rows)
    print(table(seconds, options.accumulation))
    figures = [
        {
            "place": place,
            "accumulation": accumulation,
            "steps": len(values),
            "step_ms": round(1000 * statistics.median(values), 1),
            "quartiles_ms": [round(1000 * value, 1) for value in statistics.quantiles(values, n=4)[::2]],
            "micro_batch_ms": round(1000 * statistics.median(values) / accumulation, 1),
            "data_wait_fraction": round(statistics.median(waited[place, accumulation]), 3),
        }
        for (place, accumulation), values in sorted(seconds.items())
    ]
    print(json.dumps({"local": options.local, "rounds": options.rounds, "load": os.getloadavg()[0], "figures": figures}))


def train(place: str, accumulation: int, *, local: int, steps: int) -> list[dict[str, Any]]:
    """Train so many steps; return the rows of all that count."""
    batch = 2 * local * accumulation
    own = (f"batch_size={batch}", f"max_local_batch_size={local}", f"data.num_train={batch * (steps + WARM_UP)}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        nodes = stack.enter_context(two_nodes()) if place == "over the link" else (Node(None, "127.0.0.1", free_port()),) * 2
        arguments = ("-m", "src.train", *SETTINGS, *own, f"runs_dir={folder}", "run_name=timed")
        processes = []
        for number, core in enumerate(sorted(os.sched_getaffinity(0))[:2]):
            command = ["taskset", "-c", str(core), *torchrun(nodes, number, *arguments, max_restarts=0)]
            processes.append(nodes[number].popen(command, log=Path(folder) / f"log{number}"))
        for process in processes:
            process.communicate()
        if any(process.returncode for process in processes):
            sys.exit((Path(folder) / "log0").read_text()[-3000:])
        rows = [json.loads(line) for line in (Path(folder) / "timed" / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "train" and row["step"] > WARM_UP]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def table(seconds: dict[tuple[str, int], list[float]], accumulations: list[int]) -> str:
    """Return Markdown: medians over all steps of all rounds."""
    lines = [
        "| accumulation | ms a step: one host | over the link | ms a micro-batch: one host | over the link |",
        "|---|---|---|---|---|",
    ]
    for accumulation in accumulations:
        steps = [1000 * statistics.median(seconds[place, accumulation]) for place in PLACES]
        cells = [f"{step:,.0f}" for step in steps] + [f"{step / accumulation:,.0f}" for step in steps]
        lines.append(f"| {accumulation} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
