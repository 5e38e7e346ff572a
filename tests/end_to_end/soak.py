"""Kill trainings for as long as told, at instants aimed at everything a run does; each must end equal to an undisturbed one.

    make soak SECONDS=1800
    python -m tests.end_to_end.soak --seconds 1800 --seed 0

Loaders, optimizers, 1 and 2 ranks, accumulation and all features at once are mixed at random. One training runs on each core.
No run is started after the time is up; those under way come to their end. A run that comes back further behind what it had logged
than a save under way explains counts as lost. The last line is JSON: `runs`, `kills`, `lost`, `unequal`, `moments` (of the
kills), `killed` (who was killed first), `engines` (of the runs) and `seconds`. It exits 1 if a run was lost or unequal, and keeps
its folder.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from src.training.checkpoint import Checkpoints
from src.training.checkpoint_file import CheckpointError, load_file
from tests.end_to_end.kill_harness import SAVE_EVERY, SYNTHETIC, Training, compare
from tests.end_to_end.small_data import available, settings_of, write_small_data
from tests.everything import EVERYTHING

OPTIMIZERS = ("sgd", "adam", "adamw", "lamb", "lars", "rmsprop", "sam", "sf_adamw", "sf_sgd", "sgdw")
OF_EVERYTHING = ("sam", "lamb", "adamw", "sgd")  # EVERYTHING has an average, which schedule-free ones bring themselves
AIMS = ("in start-up", "any instant", "in a save", "in an evaluation", "at an epoch's end", "any instant", "in a save")
FEWER_AIMS = len(AIMS) - 2  # of a run that is slow to start
LONGER = "epochs=8"  # long enough that most kills come before the end
WAYS = ("one rank", "torchrun", "all", "all")  # who is killed; the others are killed when they did not end by themselves
REST_ENDS_WITHIN = 60.0  # seconds: torchrun gives its workers 30


class Case(NamedTuple):
    """What is trained, and from which seed its kills are drawn."""

    number: int
    ranks: int
    loader: str
    settings: tuple[str, ...]
    seed: str


class Outcome(NamedTuple):
    """What became of one run."""

    moments: list[str]
    killed: list[str]
    lost: list[str]
    unequal: list[str]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    cases = cases_from(options.seed, write_small_data(place / "data", train=650, val=100))
    runs, totals = 0, Counter[str]()
    moments, killed, engines = Counter[str](), Counter[str](), Counter[str]()
    lock = threading.Lock()

    def work(core: int) -> None:
        nonlocal runs
        os.sched_setaffinity(0, {core})  # of this thread, and of what it starts
        while time.monotonic() - start < options.seconds:
            with lock:
                case = next(cases)
            folder = place / f"run-{case.number}"
            folder.mkdir()
            outcome = hurt_and_compare(folder, case)
            with lock:
                runs += 1
                totals.update(kills=len(outcome.moments), lost=bool(outcome.lost), unequal=bool(outcome.unequal))
                moments.update(outcome.moments)
                killed.update(outcome.killed)
                engines[case.loader] += 1
                said = f"{case.number}: {case.loader}, {' '.join(case.settings[-3:])} on {case.ranks}: {len(outcome.moments)} kills"
                print(said, *outcome.lost, *outcome.unequal, sep="\n    ", file=sys.stderr, flush=True)
            if not outcome.lost and not outcome.unequal:
                shutil.rmtree(folder)

    cores = sorted(os.sched_getaffinity(0))
    with ThreadPoolExecutor(len(cores)) as pool:
        for done in [pool.submit(work, core) for core in cores]:
            done.result()
    bad = totals["lost"] + totals["unequal"]
    if bad:
        print(f"what was lost or unequal is kept in {place}", file=sys.stderr)
    else:
        shutil.rmtree(place)
    counts = {"runs": runs, "kills": totals["kills"], "lost": totals["lost"], "unequal": totals["unequal"]}
    counters = {"moments": moments, "killed": killed, "engines": engines}
    print(json.dumps({**counts, **counters, "seconds": round(time.monotonic() - start)}))
    return int(bad > 0)


def cases_from(seed: int, data: Path) -> Iterator[Case]:
    """Yield cases without end: every loader once, then again in another order; optimizers likewise; 1 and 2 ranks in turn."""
    chance = random.Random(seed)
    loaders = shuffled_again_and_again(chance, ("synthetic", "everything", *available()))
    optimizers, of_everything = (shuffled_again_and_again(chance, names) for names in (OPTIMIZERS, OF_EVERYTHING))
    number = 0
    while True:
        number += 1
        loader = next(loaders)
        optimizer = next(of_everything if loader == "everything" else optimizers)
        more = (f"optim={optimizer}", f"max_local_batch_size={chance.choice((8, 32))}")
        match loader:
            case "everything":
                settings = (*EVERYTHING, "data.num_train=650", *more)
            case "synthetic":
                settings = (*SYNTHETIC, LONGER, *more)
            case _:
                settings = (*settings_of(loader, data), LONGER, *more)
        yield Case(number, 1 + number % 2, loader, (*settings, f"seed={number}"), f"{seed} {number}")


def shuffled_again_and_again(chance: random.Random, names: tuple[str, ...]) -> Iterator[str]:
    """Yield every name once, then every name again in another order, without end."""
    while True:
        yield from chance.sample(names, len(names))


def hurt_and_compare(folder: Path, case: Case) -> Outcome:
    """Train once undisturbed and once killed at each of the aims."""
    chance, outcome = random.Random(case.seed), Outcome([], [], [], [])
    whole, hurt = (Training(folder, name, case.settings, case.ranks) for name in ("whole", "hurt"))
    try:
        began = time.monotonic()
        whole.start()
        whole.wait_until_it_trains()
        start_up = time.monotonic() - began
        seconds = whole.finish()
        aims = chance.sample(AIMS, FEWER_AIMS if case.ranks > 1 else len(AIMS))
        for aim in aims:
            hurt.start()
            if aim == "in start-up":
                time.sleep(chance.uniform(0, start_up))
            else:
                hurt.wait_until_it_trains()
                time.sleep(chance.uniform(0, seconds / len(AIMS) / 4))
                if aim != "any instant":
                    hurt.wait_for(aim)
            if not hurt.is_running():
                hurt.finish()
                break
            outcome.moments.append(hurt.moment())
            outcome.killed.append(kill(hurt, chance.choice(WAYS) if case.ranks > 1 else "all", chance))
            outcome.lost.extend(lost_by(hurt))
        hurt.start()
        hurt.finish()
    except (AssertionError, subprocess.TimeoutExpired) as error:
        outcome.lost.append(str(error))
        for training in (whole, hurt):
            if training.log.exists():  # it was started
                training.kill()
        return outcome
    outcome.unequal.extend(compare(whole.folder, hurt.folder))
    return outcome


def kill(run: Training, way: str, chance: random.Random) -> str:
    """Kill the run whole, or one part of it first. Returns who was killed first."""
    if way == "all":
        run.kill()
        return way
    ranks = {rank: pid for pid, rank in run.pids().items() if rank is not None}
    if not ranks:  # torchrun has started none yet
        way = "all"
    elif way == "one rank":
        victim = chance.choice(sorted(ranks))
        with contextlib.suppress(ProcessLookupError):
            os.kill(ranks[victim], signal.SIGKILL)
        run.wait(REST_ENDS_WITHIN)  # torchrun notices, ends the other rank, and ends
    else:
        run.kill_launcher()
        time.sleep(chance.uniform(0, 0.3))  # its ranks train on, for they have each other
    run.kill()
    return way


def lost_by(run: Training) -> list[str]:
    """Say what a kill cost beyond the steps since the last save that was due."""
    rows = run.rows()
    try:
        newest = Checkpoints(run.folder / "checkpoints").find_newest()
        saved = 0 if newest is None else int(load_file(newest)["step"])
    except CheckpointError as error:
        return [str(error)]
    reached = rows[-1]["step"] if rows else 0
    # One save is written beside training, and the next one waits for it: what was logged lies less than two intervals ahead.
    return [f"logged step {reached}, but saved only {saved}"] if reached - saved > 2 * SAVE_EVERY else []


if __name__ == "__main__":
    sys.exit(main())
