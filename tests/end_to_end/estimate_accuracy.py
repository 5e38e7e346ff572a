"""How well `dry_run=true` foretells a run: estimates and whole real runs in turn, so that a machine's moods meet both.

    python -m tests.end_to_end.estimate_accuracy --repeats 3
    python -m tests.end_to_end.estimate_accuracy --repeats 3 --scratch /dev/shm/estimate epochs=2

Each real run stands between two estimates and is compared with their mean. Ratios are real / foretold: 1.05 took 5 % longer.
Exit code 1 where a ratio of the training time is off by more than --within.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TRAIN = (sys.executable, "-m", "src.train")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="real runs")
    parser.add_argument("--within", type=float, default=0.15, help="how far the training time may be off")
    parser.add_argument("--scratch", type=Path, help="folder for the runs; they are deleted (default: the system's)")
    parser.add_argument("overrides", nargs="*", help="of the training, after experiment=demo: epochs=2")
    options = parser.parse_args(arguments)
    overrides = ["experiment=demo", *options.overrides]
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        rows = measure(overrides, Path(folder), repeats=options.repeats)
    ratios = {name: [row[name] for row in rows] for name in ("training", "evaluation", "whole")}
    for name, values in ratios.items():
        spread = f" ± {2 * statistics.stdev(values):.3f} (2 deviations)" if len(values) > 1 else ""
        print(f"{name:<11}real / foretold: mean {statistics.fmean(values):.3f}{spread}, {', '.join(f'{v:.3f}' for v in values)}")
    inside = sum(row["inside"] for row in rows)
    print(f"{inside} of {len(rows)} whole runs took between the least and the most that was foretold")
    worst = max(abs(value - 1) for value in ratios["training"])
    print(json.dumps({"ratios": ratios, "inside": inside, "runs": len(rows), "worst_training": worst, "within": options.within}))
    return 0 if worst <= options.within else 1


def measure(overrides: list[str], folder: Path, *, repeats: int) -> list[dict[str, float]]:
    """Estimate, run, estimate, run, ..., estimate."""
    rows = []
    before = foretell(overrides, folder)
    for number in range(repeats):
        real = train(overrides, folder / f"{number}", seed=number)
        after = foretell(overrides, folder)
        row: dict[str, float] = {}
        for name, key in (("training", "training_seconds"), ("evaluation", "evaluation_seconds"), ("whole", "total_seconds")):
            row[name] = real[name] / statistics.fmean([before[key]["expected"], after[key]["expected"]])
        least, most = before["total_seconds"]["least"], before["total_seconds"]["most"]
        row["inside"] = least <= real["whole"] <= most
        told = before["training_seconds"]
        print(
            f"run {number + 1}: foretold {told['expected']:.1f} s of training ({told['least']:.1f} to {told['most']:.1f}), then "
            f"{after['training_seconds']['expected']:.1f}; it took {real['training']:.1f}; the whole {real['whole']:.1f} s, "
            f"foretold {before['total_seconds']['expected']:.1f}",
            flush=True,
        )
        rows.append(row)
        before = after
    return rows


def foretell(overrides: list[str], folder: Path) -> dict[str, Any]:
    """Return what a dry run expects."""
    plan = json.loads(run([*overrides, "dry_run=true", f"runs_dir={folder}/plans"]))
    if plan["expected"] is None:
        sys.exit(f"nothing was measured: {plan['not_measured']}")
    expected: dict[str, Any] = plan["expected"]
    return expected


def train(overrides: list[str], folder: Path, *, seed: int) -> dict[str, float]:
    """Train to the end and return the seconds of training, of evaluation, and of the whole command."""
    start = time.monotonic()
    run([*overrides, f"seed={seed}", f"runs_dir={folder}", "run_name=real"])
    whole = time.monotonic() - start
    rows = [json.loads(line) for line in (folder / "real" / "metrics.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    shutil.rmtree(folder)
    return {
        "training": sum(row["time/epoch_seconds"] for row in epochs),
        "evaluation": sum(row.get("time/eval_seconds", 0.0) for row in epochs),
        "whole": whole,
    }


def run(arguments: list[str]) -> str:
    """Run the trainer and return stdout's last line."""
    done = subprocess.run([*TRAIN, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return done.stdout.splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
