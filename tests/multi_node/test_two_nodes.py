"""Two nodes, by the line of scripts/slurm/multi_node.sh: they train as two ranks on one host do, and outlive each other's death."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.kill_harness import SETTINGS, SYNTHETIC, Training, compare
from tests.multi_node.nodes import Node, torchrun, two_nodes, why_not

REASON = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON)), pytest.mark.timeout(900)]
SMALL = (*SETTINGS, *SYNTHETIC, "epochs=2")  # 40 steps, a save every 3


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    with two_nodes() as both:
        yield both


@pytest.fixture(scope="module")
def on_one_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train undisturbed, by two ranks on one host."""
    training = Training(tmp_path_factory.mktemp("one_host"), "whole", ("epochs=2", *SYNTHETIC), 2)
    training.start()
    training.finish()
    return training.folder


class Torchruns:
    """The run of both nodes, of which each can be killed and started again."""

    def __init__(self, nodes: tuple[Node, Node], runs_dir: Path, *faults: str) -> None:
        self._nodes, self.folder, self._runs_dir = nodes, runs_dir / "two", runs_dir
        module = ["-m", "tests.faults", *faults, "--"] if faults else ["-m", "src.train"]
        self._arguments = [*module, *SMALL, f"runs_dir={runs_dir}", "run_name=two"]
        self.processes = [self.start(number) for number in (0, 1)]

    def start(self, number: int) -> "subprocess.Popen[str]":
        command = torchrun(self._nodes, number, *self._arguments)
        return self._nodes[number].popen(command, log=self._runs_dir / f"node{number}.log")

    def kill(self, number: int) -> None:
        self._nodes[number].kill()

    def restart(self, number: int) -> None:
        self.processes[number].communicate()  # it has ended
        self.processes[number] = self.start(number)

    def wait_until(self, file: Path) -> None:
        while not file.exists():
            assert all(process.poll() is None for process in self.processes), self.logs()
            time.sleep(0.1)

    def finish(self) -> None:
        said = [process.communicate() for process in self.processes]
        assert [process.returncode for process in self.processes] == [0, 0], self.logs()
        assert json.loads(said[0][0].splitlines()[-1])["status"] == "finished"

    def logs(self) -> str:
        return "\n".join((self._runs_dir / f"node{number}.log").read_text()[-4000:] for number in (0, 1))


@pytest.mark.long
def test_two_nodes_train_as_two_ranks_on_one_host(nodes: tuple[Node, Node], on_one_host: Path, tmp_path: Path) -> None:
    runs = Torchruns(nodes, tmp_path)
    runs.finish()
    assert compare(on_one_host, runs.folder) == []


def test_a_node_that_died_is_started_again_and_the_others_have_waited_for_it(
    nodes: tuple[Node, Node], on_one_host: Path, tmp_path: Path
) -> None:
    """First a node; later the one where the others meet, which ends them all: both are started anew."""
    stop_1, stop_0 = tmp_path / "node 1 hangs", tmp_path / "node 0 hangs"
    runs = Torchruns(nodes, tmp_path, f"hang:rank=1,step=10,marker={stop_1}", f"hang:rank=0,step=25,marker={stop_0}")
    runs.wait_until(stop_1)
    runs.kill(1)
    runs.restart(1)
    runs.wait_until(stop_0)
    runs.kill(0)
    assert runs.processes[1].wait() != 0, "a node that waits where nobody can come"
    runs.restart(0)
    runs.restart(1)
    runs.finish()
    assert compare(on_one_host, runs.folder) == []
    assert "resuming from" in runs.logs()
