"""Train small runs, honest ones and such as were tampered with, and see whether src.audit tells them apart.

    python -m tests.end_to_end.audit_trials --tampered 50 --honest 20 --seed 1

Tampered are, in turn: the rate that training really used (the log and the configuration say another), an image of the data
(missing in training, or another picture under its name), and a figure (a digit of metrics.jsonl, or a loss in the ledger and in all
rows that it is part of; seals are made to fit). Every place is random, after the first kept checkpoint, and all steps after it are
replayed.
Honest are plain runs, and runs that were stopped, killed with SIGKILL, and trained on two ranks before, and then went on.
The last line is JSON: tampered, caught, honest, passed, and which checks caught how many.
"""

import argparse
import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

import src.training.loop
from src import audit, train
from src.tracking.ledger_file import MAGIC, read_rows
from src.tracking.seal import Seal, write_seals
from src.training.stopping import StopRequests

ROOT = Path(__file__).resolve().parents[2]
CLASSES, IMAGES, PER_EPOCH, EPOCHS = 4, 330, 10, 4
SETTINGS = (
    *(
        "data=imagefolder",
        "data.image_size=16",
        "data.resize_size=18",
        "model=small_resnet",
        "model.width=4",
        "model.stem_stride=2",
    ),
    *("batch_size=32", f"epochs={EPOCHS}", "schedule.warmup_epochs=1", "eval_batch_size=30", "keep_top_k=4"),
    *("save_every_steps=7", "track.log_every_steps=4", "track.progress=false", "data.workers=1"),
)
FLAVOURS = (
    ("optim=sgd",),
    ("optim=adamw", "max_local_batch_size=16"),
    ("optim=sf_sgd", "average.recalibrate_images=64"),
    ("average=ema", "average.recalibrate_images=64", "augment.mixup_alpha=0.2"),
    ("optim=sam", "optim.sam_every_steps=2", "label_smoothing=0.1"),
)
EVERYTHING = ("windows=1000", "steps=1", "reach=null")  # every step after the first kept checkpoint
FIGURES = ("train/loss", "train/acc1", "train/acc5", "train/grad_norm", "train/lr", "val/loss", "val/acc1", "val/acc5")
TAMPERED, HONEST = ("rate", "image", "figure"), ("plain", "stopped", "killed", "elastic")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tampered", type=int, default=50)
    parser.add_argument("--honest", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # two threads for so small a net only wait for each other
    start, by_check = time.monotonic(), Counter[str]()
    kinds = [
        *(TAMPERED[n % len(TAMPERED)] for n in range(options.tampered)),
        *(HONEST[n % len(HONEST)] for n in range(options.honest)),
    ]
    right = Counter[bool]()
    for number, kind in enumerate(kinds):
        with tempfile.TemporaryDirectory() as folder:
            code, verdict, told = trial(Path(folder), kind, seed=1000 * options.seed + number)
        as_it_should = code == (1 if kind in TAMPERED else 0)
        right[kind in TAMPERED] += as_it_should
        caught_by = sorted({name.partition(" of ")[0] for name in verdict.get("differs", {})})
        by_check.update(caught_by if kind in TAMPERED else [])
        say = f"{number + 1}/{len(kinds)} {kind}: {told}: exit {code}, {verdict.get('status')} {caught_by}"
        print(say, "" if as_it_should else f"WRONG {verdict}", file=sys.stderr, flush=True)
    result = {"tampered": options.tampered, "caught": right[True], "honest": options.honest, "passed": right[False]}
    print(json.dumps({**result, "caught_by": dict(by_check), "seconds": round(time.monotonic() - start)}))
    return int(right[True] < options.tampered or right[False] < options.honest)


def trial(folder: Path, kind: str, *, seed: int, keys: tuple[str, ...] = EVERYTHING) -> tuple[int, dict[str, Any], str]:
    """Train one run and audit it; return the audit's exit code, its last line, and what was done to the run."""
    chance = random.Random(seed)
    write_images(folder / "data", seed)
    flavour = FLAVOURS[chance.randrange(len(FLAVOURS))]
    settings = (
        *SETTINGS,
        *flavour,
        f"data.path={folder}/data",
        f"data.cache_dir={folder}/cache",
        f"seed={seed}",
        f"runs_dir={folder}/runs",
    )
    told = TRIALS[kind](folder, (*settings, "run_name=r"), chance)
    code, out = quietly(lambda: audit.main([f"{folder}/runs/r", "seed=1", *keys]))
    return code, json.loads(out.splitlines()[-1]) if out.strip() else {}, f"{told} ({' '.join(flavour)})"


def write_images(root: Path, seed: int) -> None:
    """Write an ImageFolder of PNGs, 20 px, noise about a shade of the class's own."""
    for split, count in (("train", IMAGES), ("val", 60)):
        for number in range(count):
            label = number % CLASSES
            noise = np.random.default_rng([seed, number, count]).integers(0, 90, (20, 20, 3), dtype=np.uint8)
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise + np.uint8(40 * label)).save(folder / f"{number:04}.png")


def quietly(door: Callable[[], int]) -> tuple[int, str]:
    """Call a door in this process; return its exit code and stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = door()
        except SystemExit as left:
            code = int(left.code or 0)
    return code, out.getvalue()


def trained(settings: tuple[str, ...]) -> int:
    """Train in this process."""
    code, _ = quietly(lambda: train.main(settings))
    assert code in (0, train.EXIT_PREEMPTED), code
    return code


def with_another_rate(folder: Path, settings: tuple[str, ...], chance: random.Random) -> str:
    """Multiply the rate of some steps, behind the log's back."""
    first = chance.randrange(PER_EPOCH, 3 * PER_EPOCH)
    steps = range(first, first + chance.choice((1, 3, 1000)))
    factor = chance.choice((0.5, 0.9, 0.99, 1.01, 1.1, 2.0))
    real, calls = src.training.loop.set_lr, iter(range(10**9))

    def set_lr(optimizer: Any, lr: float) -> None:
        real(optimizer, lr * factor if next(calls) in steps else lr)

    with patch.object(src.training.loop, "set_lr", set_lr):
        trained(settings)
    return f"rate x {factor} at steps {steps.start}-{min(steps.stop, EPOCHS * PER_EPOCH)}"


def with_another_image(folder: Path, settings: tuple[str, ...], chance: random.Random) -> str:
    """Train without an image, or with another picture under its name; the data is as it should be afterwards."""
    files = sorted((folder / "data" / "train").rglob("*.png"))
    victim = chance.choice(files)
    content = victim.read_bytes()
    if exchanged := chance.random() < 0.5:
        victim.write_bytes(chance.choice([file for file in files if file != victim]).read_bytes())
    else:
        victim.unlink()
    trained(settings)
    victim.write_bytes(content)
    return f"{victim.parent.name}/{victim.name} {'exchanged' if exchanged else 'missing'}"


def with_another_figure(folder: Path, settings: tuple[str, ...], chance: random.Random) -> str:
    """Change a digit in metrics.jsonl, or a step's loss in the ledger with all that follows from it. Seals fit afterwards."""
    trained(settings)
    run = folder / "runs" / "r"
    file = run / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    if chance.random() < 0.3:
        told = shift_a_loss(run, rows, chance)
    else:
        row = chance.choice([row for row in rows if row["step"] > PER_EPOCH])
        key = chance.choice([key for key in FIGURES if key in row])
        before = row[key]
        row[key] = with_another_digit(before, chance)
        told = f"{key} of step {row['step']} ({row['kind']}) from {before} to {row[key]}"
    seal(file, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return told


def with_another_digit(value: float, chance: random.Random) -> float:
    """Return a number that is written with one other digit, any of them."""
    text = repr(float(value))
    digits = [place for place, letter in enumerate(text.partition("e")[0]) if letter.isdigit()]
    while True:
        place = chance.choice(digits)
        changed = float(text[:place] + str(chance.randrange(10)) + text[place + 1 :])
        if changed != value:
            return changed


def shift_a_loss(run: Path, rows: list[dict[str, Any]], chance: random.Random) -> str:
    """Lower one step's loss in the ledger, its window's row and its epoch's."""
    ledger = run / "ledger.bin"
    steps = read_rows(ledger.read_bytes()).copy()
    place = chance.randrange(PER_EPOCH, len(steps))
    less = float(steps["loss"][place]) * chance.choice((1e-6, 1e-3, 0.1))
    steps["loss"][place] -= less
    seal(ledger, MAGIC + steps.tobytes())
    step, before = place + 1, 0
    for row in rows:
        first = row["step"] - PER_EPOCH if row["kind"] == "epoch" else before
        if first < step <= row["step"]:
            row["train/loss"] -= less / (row["step"] - first)
        before = row["step"] if row["kind"] == "train" else before
    return f"the loss of step {step} lower by {less:.3g} everywhere"


def seal(file: Path, content: bytes) -> None:
    """Write a file with a seal that fits."""
    file.write_bytes(content)
    write_seals(file, [Seal.of(content)])


def plain(folder: Path, settings: tuple[str, ...], chance: random.Random) -> str:
    """Train."""
    trained(settings)
    return "as it is"


def stopped(folder: Path, settings: tuple[str, ...], chance: random.Random) -> str:
    """Stop at a random step, twice, and go on each time."""
    at = sorted(chance.sample(range(2, EPOCHS * PER_EPOCH), 2))
    done = 0
    for step in at:
        calls: Iterator[int] = iter(range(10**9))
        with patch.object(StopRequests, "pending", lambda self, wanted=step - done, calls=calls: next(calls) + 1 >= wanted):
            trained(settings)
        done = status(folder)["step"]
    assert trained(settings) == 0
    return f"stopped near steps {at}"


def killed(folder: Path, settings: tuple[str, ...], chance: random.Random, ranks: int = 1) -> str:
    """Kill with SIGKILL after a random row of metrics.jsonl, and go on."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "src.train", *settings]
    wanted = chance.randrange(3, 11)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    file = folder / "runs" / "r" / "metrics.jsonl"
    while process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < wanted):
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until_gone(settings)
    assert trained(settings) == 0
    return f"killed after {wanted} rows on {ranks} rank{'s' if ranks > 1 else ''}"


def until_gone(settings: tuple[str, ...]) -> None:
    """Wait until no process of the run is left: torchrun's ranks have sessions of their own."""
    mark = next(text for text in settings if text.startswith("runs_dir="))
    while True:
        alive = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (entry / "cmdline").read_bytes().decode(errors="replace").split("\0"):
                        alive.append(int(entry.name))
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def elastic(folder: Path, settings: tuple[str, ...], chance: random.Random) -> str:
    """Train on two ranks, kill them, and go on with one."""
    local = 16  # images a micro-batch, on two ranks as on one
    return killed(folder, (*settings, f"max_local_batch_size={local}"), chance, ranks=2)


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "runs" / "r" / "status.json").read_text())


TRIALS: dict[str, Callable[[Path, tuple[str, ...], random.Random], str]] = {
    "rate": with_another_rate,
    "image": with_another_image,
    "figure": with_another_figure,
    "plain": plain,
    "stopped": stopped,
    "killed": killed,
    "elastic": elastic,
}


if __name__ == "__main__":
    sys.exit(main())
