"""Train an image classifier.

    python -m src.train experiment=demo
    torchrun --nproc_per_node=4 -m src.train data=imagefolder optim=adam

On a machine with several GPUs a plain `python -m src.train` starts itself under torchrun on all of them.
"""

import errno
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from src.config import Config, ConfigError, Problem, load
from src.config.cli import CommandLine, exit_with, parse
from src.config.compose import expand_sweep
from src.config.identity import run_dir

if TYPE_CHECKING:
    from src.training.stopping import StopRequests

MODULE = "src.train"
_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
EXIT_PREEMPTED, EXIT_INTERRUPTED = 75, 130


def main(arguments: Sequence[str]) -> int:
    """Parse, validate, and train one run or a sweep. Returns the exit code."""
    line = parse(arguments, door=MODULE, about="Train an image classifier; run the same command again to resume.", trains=True)
    if line.multirun:
        return sweep(line)
    try:
        config = load(line.overrides, config_dir=line.config_dir)
    except ConfigError as error:
        exit_with(error)
    from src.relaunch import relaunch_on_all_gpus  # torch is loaded only now: what is wrong was said at once

    relaunch_on_all_gpus(MODULE, arguments)
    return run(config)


def sweep(line: CommandLine) -> int:
    """Run every combination in turn, each as its own process. Stops at the first that does not finish."""
    import subprocess

    if "RANK" in os.environ:
        fix = "does not work under torchrun: use plain python (it starts torchrun itself on several GPUs), or a Slurm job array."
        exit_with(ConfigError("the command line", [Problem("--multirun", None, fix)]))
    try:
        points = expand_sweep(line.overrides, config_dir=line.config_dir)
    except ConfigError as error:
        exit_with(error)
    more = ["--config-dir", str(line.config_dir)] if line.config_dir is not None else []
    for number, point in enumerate(points, start=1):
        print(f"run {number} of {len(points)}: {' '.join(point)}", file=sys.stderr, flush=True)
        code = subprocess.run([sys.executable, "-m", MODULE, *more, *point], check=False).returncode
        if code:
            return code
    return 0


def run(config: Config) -> int:
    """Train in this process, which is one rank."""
    from src.training.stopping import StopRequests, leaving_at_once

    requests = StopRequests(run_dir(config) / "STOP")  # now: what is touched while the data is opened counts
    with leaving_at_once(preempted=EXIT_PREEMPTED, interrupted=EXIT_INTERRUPTED):
        return run_until_asked(config, requests)


def run_until_asked(config: Config, requests: "StopRequests") -> int:
    """Check everything, train, and turn how it ended into words and an exit code."""
    from loguru import logger

    from src import peers
    from src.memory import explained
    from src.preflight import preflight
    from src.session import exit_code_after, joined, leave_without_waiting, open_sources
    from src.tracking.console import say_result
    from src.train_run import FLIGHTS, train

    with joined(config, flights=run_dir(config) / FLIGHTS) as place:
        try:
            with preflight(config, place, open_sources) as ready:
                if config.dry_run:
                    from src.dry_run import check_and_plan

                    plan = check_and_plan(config, place, ready)
                    if place.world.leads:
                        say_result(plan)
                    return 0
                outcome = train(config, place, ready, requests)
        except ConfigError as error:
            return exit_code_after(error, place)
        except Exception as caught:  # noqa: BLE001 (the door: the last place to say what happened)
            told = explained(peers.plainly(caught), config, place)
            known = is_users(told)
            logger.opt(exception=None if known else told).error(f"{told}" if known else f"unexpected: {told}")
            peers.report(told, known=known)
            leave_without_waiting(caught, place)
            return 1
        if place.world.leads:
            say_result(outcome.as_json())
        if outcome.status == "finished" or place.world.under_torchrun:
            return 0
        return EXIT_INTERRUPTED if outcome.interrupted else EXIT_PREEMPTED


def is_users(error: Exception) -> bool:
    """Return whether the message says all there is to say, so that a traceback would only hide it."""
    from src.batch import DataError
    from src.memory import OutOfMemory
    from src.peers import LostRank
    from src.training.checkpoint_file import CheckpointError

    if isinstance(error, OSError) and error.filename is not None and error.errno in _OF_A_DISK:
        return True  # it names the file
    return isinstance(error, DataError | FloatingPointError | CheckpointError | OutOfMemory | LostRank)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
