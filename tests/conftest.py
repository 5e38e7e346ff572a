"""What several tests need: a tiny folder of images, and the command line as the user has it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from PIL import Image

# Tests that run side by side share no core: two teams of spinning threads on one core are ten times as slow as one after the other.
if (_WORKER := os.environ.get("PYTEST_XDIST_WORKER")) is not None:
    _CORES = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_CORES[int(_WORKER.removeprefix("gw")) % len(_CORES)]})

# A shell's background job ignores Ctrl-C, and so do all that it starts; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")

MakeFolder = Callable[..., Path]
RunDoor = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run those marked long, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes and is covered by a shorter test, unless it is asked for."""
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: pytest --long"))


@pytest.fixture(scope="session")
def make_folder() -> MakeFolder:
    """Write one split of an ImageFolder: `root/<class>/<number><suffix>`, noise about a shade of the class's own."""

    def make(root: Path, classes: Sequence[str] = ("ant", "bee"), per_class: int = 4, size: int = 32, suffix: str = ".png") -> Path:
        for label, name in enumerate(classes):
            folder = root / name
            folder.mkdir(parents=True)
            shade = 40 + 150 * label // max(1, len(classes) - 1)
            for number in range(per_class):
                noise = np.random.default_rng([label, number]).integers(0, 50, (size, size, 3), dtype=np.uint8)
                Image.fromarray(noise + np.uint8(shade)).save(folder / f"{number}{suffix}")
        return root

    return make


@pytest.fixture(scope="session")
def run_door() -> RunDoor:
    """Run `python -m src.train <args>` in the project's root, on the CPU; with ranks=n, under torchrun."""

    def run(
        *arguments: str, ranks: int | None = None, env: Mapping[str, str] | None = None, module: str = "src.train"
    ) -> subprocess.CompletedProcess[str]:
        launcher = [] if ranks is None else ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        settings = kept | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | dict(env or {})
        command = [sys.executable, *launcher, "-m", module, *arguments]
        return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=250, check=False)

    return run


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Every line that is logged during the test, as `LEVEL text`."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message).rstrip("\n")), format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)
