"""Run one training for systemd: pass a stop on, see a spot interruption coming, tell by the exit code whether to start it again.

    python -m scripts.aws.run_training -- torchrun --standalone --nproc_per_node=4 -m src.train experiment=a40_adam

systemd knows exit codes only, and torchrun ends with 0 when the training was stopped and with 1 when its configuration is wrong. So
this process asks `src.train --run-dir` for the run's folder (what is wrong with the configuration is said then, exit code 2), runs
the command as its only child, and reads `status.json`. Its exit codes: 0 finished; 1 failed (systemd starts it again, a few times
an hour); 2 the configuration is wrong; 75 stopped and saved: the next boot, or `systemctl start`, goes on.

Why it looks for interruptions itself: systemd's SIGTERM comes when the machine already goes down, EC2's notice two minutes before.
Nothing but the standard library is needed.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from scripts.aws.metadata import SpotNotice, instance_id

FINISHED, FAILED, WRONG, STOPPED = 0, 1, 2, 75
LOOK_SECONDS = 0.5  # how long a stop may lie unseen


class Training:
    """The command, its folder, and whether it was asked to stop.

    Args:
        command: what the user typed.
        notice: says whether this spot instance is about to be interrupted.
    """

    def __init__(self, command: Sequence[str], notice: SpotNotice) -> None:
        self._command, self._notice = list(command), notice
        self._folder: Path | None = None
        self._stopping = False

    def run(self) -> int:
        """Run the command to its end; after an interruption that did not happen, again. Returns the exit code for systemd."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        code = self._find_folder()
        if code:
            return code
        while True:
            before, noticed = self.status_line(), False
            say(f"starting {shlex.join(self._command)}")
            process = subprocess.Popen(
                self._command, start_new_session=True
            )  # signals come to it by us alone: a second one would cut the save short
            asked = False
            while process.poll() is None:
                time.sleep(LOOK_SECONDS)
                noticed = noticed or self._notice.given
                if (self._stopping or noticed) and not asked:
                    asked = True
                    say(
                        "stopping: it saves a checkpoint"
                        if self._stopping
                        else f"EC2 interrupts this instance ({self._notice.words}): saving"
                    )
                    process.terminate()
            code = verdict(process.returncode, self.status_line(), before, stopping=asked)
            if not noticed or code != STOPPED or not self._interruption_passed():
                return code

    def status_line(self) -> str:
        """Return the run's status.json, or an empty text."""
        try:
            return "" if self._folder is None else (self._folder / "status.json").read_text()
        except OSError:
            return ""

    def _find_folder(self) -> int:
        question = question_for_folder(self._command)
        if question is None:
            say("the command holds no `-m src.train`: only its exit code tells how it ended.")
            return 0
        answer = subprocess.run(question, stdout=subprocess.PIPE, text=True, check=False)
        if answer.returncode:
            say(f"no start: {shlex.join(question)} ended with {answer.returncode}; what is wrong stands above.")
            return WRONG if answer.returncode == WRONG else FAILED
        self._folder = Path(answer.stdout.strip())
        return 0

    def _interruption_passed(self) -> bool:
        """Wait for the machine to go down; True if EC2 has taken its notice back."""
        say("saved. The instance is expected to go down now; the next boot goes on.")
        while not self._stopping and self._notice.given:
            time.sleep(LOOK_SECONDS)
        return not self._stopping

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True


def question_for_folder(command: Sequence[str]) -> list[str] | None:
    """Return the command that prints the run's folder, for `python` or `torchrun` with `-m src.train`; None for another program."""
    words = list(command)
    for at in range(len(words) - 1):
        if words[at] == "-m" and words[at + 1] == "src.train":
            return [python_for(words[0]), "-m", "src.train", "--run-dir", *words[at + 2 :]]
    return None


def python_for(program: str) -> str:
    """Return the Python that a program starts: itself, or for torchrun the one beside it."""
    if Path(program).name.startswith("python"):
        return program
    beside = Path(program).parent / "python"
    return str(beside) if "/" in program and beside.exists() else "python"


def verdict(code: int, status: str, before: str, *, stopping: bool) -> int:
    """Say how the training ended.

    Args:
        code: the command's exit code, negative for a signal.
        status: status.json now.
        before: status.json before the start; an unchanged one says nothing of this start, but that a finished run stays finished.
        stopping: whether it was asked to stop.
    """
    word = status_word(status)
    fresh = status != before
    if word == "finished" and (fresh or code == 0):
        return FINISHED
    if fresh and word == "failed":
        return WRONG if code == WRONG else FAILED
    if fresh and word == "running" and code == FINISHED and not stopping:
        return FAILED  # somebody's wrapper has hidden that it died
    if (fresh and word == "preempted") or stopping or code in (STOPPED, 130):
        return STOPPED
    return code if code in (FINISHED, WRONG) else FAILED


def status_word(status: str) -> str:
    """Return running, preempted, failed or finished; an empty text where status.json cannot be understood."""
    try:
        read = json.loads(status)
    except ValueError:
        return ""
    return str(read.get("status", "")) if isinstance(read, dict) else ""


def when_finished(action: str, name: str, region: str, status: str, memory: Path) -> None:
    """Stop or terminate this instance, once for each finished run: who starts the instance again to look at results may stay.

    Args:
        action: stop or terminate.
        name: the instance's, as given to `instance launch`.
        region: of the instance.
        status: status.json of the finished run.
        memory: a file of this service that says for which run that was done.
    """
    if status and memory.exists() and memory.read_text() == status:
        say(f"finished earlier. The instance is not asked to {action} a second time.")
        return
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(status)
    command = [sys.executable, "-m", "scripts.aws", "instance", action, "--name", name, "--region", region, "--no-wait"]
    if action == "terminate":
        command += ["--confirm", instance_id()]
    say(f"finished: {shlex.join(command)}")
    if subprocess.run(command, check=False).returncode:
        hint = "Its role needs the rights that `python -m scripts.aws policy` prints."
        say(f"THIS INSTANCE RUNS ON AND COSTS MONEY: it could not {action} itself. {hint}")


def say(text: str) -> None:
    """Write a line to the journal."""
    sys.stderr.write(f"training service: {text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    """Parse, run, and act when the training is finished."""
    parser = argparse.ArgumentParser(prog="python -m scripts.aws.run_training", description="Run one training for systemd.")
    parser.add_argument("--when-finished", choices=("nothing", "stop", "terminate"), default="nothing")
    parser.add_argument("--instance", help="the instance's name, for --when-finished")
    parser.add_argument("--region", help="the instance's region, for --when-finished")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the training's command")
    parsed = parser.parse_args(arguments)
    command = parsed.command[1:] if parsed.command[:1] == ["--"] else parsed.command
    if not command:
        parser.error("type the training's command behind --")
    if parsed.when_finished != "nothing" and not (parsed.instance and parsed.region):
        parser.error(f"--when-finished {parsed.when_finished} needs --instance and --region")
    training = Training(command, SpotNotice())
    code = training.run()
    if code == FINISHED and parsed.when_finished != "nothing":
        memory = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/imagenet-training")) / "finished"
        when_finished(parsed.when_finished, parsed.instance, parsed.region, training.status_line(), memory)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
