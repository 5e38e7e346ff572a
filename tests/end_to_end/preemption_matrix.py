"""Every signal, to every process, at every moment: exit code, status, step at which it was saved, and the end compared bit for bit.

    python -m tests.end_to_end.preemption_matrix --targets plain rank0 rank1 torchrun --signals TERM USR1 INT HUP STOP

One run is stopped at all moments, one start after the other, then finished: a chain for each signal and target. The last line is
JSON: chains, stops, lost (steps), wrong (codes or status), unequal, seconds.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.end_to_end.disturbed import Disturbed, undisturbed

MOMENTS = (
    *({"at": "startup"}, {"step": 4}, {"at": "save", "step": 9}),
    *({"at": "evaluation", "step": 20}, {"at": "epoch_end", "step": 40}),
)
TARGETS = ("plain", "rank0", "rank1", "torchrun")
SIGNALS = ("TERM", "USR1", "INT", "HUP", "STOP")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    parser.add_argument("--signals", nargs="+", default=SIGNALS, choices=SIGNALS)
    options = parser.parse_args()
    begun, sums = time.monotonic(), {"chains": 0, "stops": 0, "lost": 0, "wrong": 0, "unequal": 0}
    with tempfile.TemporaryDirectory() as folder:
        whole = {
            ranks: undisturbed(Path(folder) / str(ranks), ranks=ranks)
            for ranks in {1 if target == "plain" else 2 for target in options.targets}
        }
        for target in options.targets:
            for name in options.signals:
                if name == "STOP" and target == "torchrun":
                    continue  # a file has no target
                counted = chain(Path(folder) / f"{target}-{name}", whole[1 if target == "plain" else 2], target, name)
                sums = {key: sums[key] + counted.get(key, 0) for key in sums}
    print(json.dumps(sums | {"seconds": round(time.monotonic() - begun)}))
    return int(sums["lost"] + sums["wrong"] + sums["unequal"] > 0)


def chain(runs_dir: Path, whole: Disturbed, target: str, name: str) -> dict[str, int]:
    """Stop one run at each moment, and let it end."""
    ranks = 1 if target == "plain" else 2
    options = ("--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",) if name == "USR1" and target == "torchrun" else ()
    run = Disturbed(runs_dir, "hurt", ranks=ranks, launcher=options)
    counted = {"chains": 1, "stops": 0, "lost": 0, "wrong": 0, "unequal": 0}
    for moment in MOMENTS:
        where: dict[str, Any] = {**moment, "rank": int(target == "rank1"), "to": "parent" if target == "torchrun" else "self"}
        kind = f"signal:{name}"
        if name == "STOP":
            kind, where["to"] = "touch", str(run.folder / "STOP")
            if moment.get("at") == "startup" and not run.folder.exists():
                continue  # there is no folder to put it into yet
        code, said = run.run(run.fault(kind, **where))
        status, step = run.status().get("status"), int(run.status().get("step", 0))
        asked = int(where.get("step", 0))
        early = moment.get("at") == "startup" and name != "STOP"
        good = code == expected_code(target, name, early=early) and (status is None if early else status == "preempted")
        beside = 3 if moment.get("at") == "save" else 0  # a save goes on beside training, up to the next one
        lost = not early and not asked <= step <= max(asked, 1) + beside + 2
        counted["stops"] += 1
        counted["wrong"] += not good
        counted["lost"] += lost
        print(f"{target:9}{name:5}{where.get('at', 'step'):11} exit {code:4}  {status}, step {step}", file=sys.stderr, flush=True)
        if not good or lost:
            print(said[-1500:], file=sys.stderr, flush=True)
    code, said = run.run()
    counted["unequal"] = int(code != 0 or bool(run.differences(whole)))
    if counted["unequal"]:
        print(said[-1500:], file=sys.stderr, flush=True)
    return counted


def expected_code(target: str, name: str, *, early: bool) -> int:
    """A plain process says why; torchrun ends with 1 if it was asked itself, or a worker left it before training began."""
    if target == "plain":
        return 130 if name == "INT" else 75
    return int(early or target == "torchrun")


if __name__ == "__main__":
    sys.exit(main())
