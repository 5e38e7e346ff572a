"""Compare what the LR finder suggests with the best of a grid of eight rates, each trained for one epoch on Fashion-MNIST.

python -m tests.end_to_end.lr_grid
python -m tests.end_to_end.lr_grid seed=1

Not part of the test suite: eight trainings take a quarter of an hour on one core. `make data` fetches the images.
"""

import json
import subprocess
import sys
import tempfile

import numpy as np

RATES = [float(f"{rate:.3g}") for rate in np.geomspace(0.003, 3.0, 8)]
TRAINING = ("experiment=demo", "epochs=1", "schedule.warmup_epochs=0.25", "track.log_every_steps=1000")


def last_line(module: str, *arguments: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"val_acc1": float("nan"), "said": done.stderr.splitlines()[-1]}
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        common = [*TRAINING, f"runs_dir={folder}", *overrides]
        (found,) = last_line("src.lr_finder", *common)["suggestions"]  # type: ignore[misc]
        print(f"suggested: steepest {found['steepest']:.4g}, a tenth of the minimum's {found['tenth_of_minimum']:.4g}", flush=True)
        accuracies = {}
        for rate in RATES:
            result = last_line("src.train", *common, f"optim.peak_lr={rate}", f"run_name=lr-{rate}", "resume=never")
            accuracies[rate] = float(str(result["val_acc1"]))
            print(f"peak_lr {rate:<8g} val acc1 {accuracies[rate]:.2f}  {result.get('said', '')}", flush=True)
        best = max(RATES, key=lambda rate: np.nan_to_num(accuracies[rate]))
        factor = max(found["steepest"] / best, best / found["steepest"])
        print(f"best of the grid: {best:g}; the steepest descent is within a factor {factor:.2f} of it")


if __name__ == "__main__":
    main(sys.argv[1:])
