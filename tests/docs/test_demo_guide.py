"""docs/demo.md: each page is served and visited, and the Space is written, for a small model."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.demo_client import Visitor, serving, shares
from tests.docs.conftest import OpenShell
from tests.docs.scenarios import Scenario, Swap
from tests.pictures import encode, write_files
from tests.shown_model import write_run

GUIDE = "docs/demo.md"
SERVED = Scenario(GUIDE, ("Start it",), (Swap("port=8000", "port=auto", "another program may have that port"),))
SPACE = Scenario(GUIDE, ("A Hugging Face Space",))
SCENARIOS = (SERVED, SPACE)

pytestmark = pytest.mark.long  # test_demo.py in end_to_end does the same, once


def with_model(project: Path) -> None:
    write_run(project / "runs/demo")
    write_files(project, {"data/fashion_mnist/val/8_bag/x.png": encode("png")})


def test_pages_are_served(open_shell: OpenShell) -> None:
    shell = open_shell()
    with_model(shell.project)
    for command in SERVED.commands():
        words = shlex.split(SERVED.typed(command, {}))
        assert words[0] == "python"
        with serving([sys.executable, *words[1:]], cwd=shell.project) as page:
            assert len(shares(Visitor(page.url).answer(encode("jpeg")))) == 5


def test_a_space_is_written(open_shell: OpenShell) -> None:
    shell = open_shell()
    with_model(shell.project)
    (done,) = SPACE.play(shell)
    assert json.loads(done.stdout.splitlines()[-1])["largest_difference"] < 1e-5
    assert (shell.project / "my_space/examples/01.png").exists()
