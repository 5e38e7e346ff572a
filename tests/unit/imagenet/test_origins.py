"""Where the files come from, and what is said when they come from nowhere."""

import socket
from pathlib import Path

import pytest

from src.config import ConfigError
from src.imagenet.fashion.origins import find_files

NAMES = ["a.gz", "b.gz"]


def test_the_installed_package_is_taken_first(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).touch()
    assert find_files(NAMES, tmp_path / "scratch", installed=tmp_path) == tmp_path


@pytest.mark.usefixtures("offline")
def test_without_package_network_and_apt_it_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "a.gz").touch()
    with pytest.raises(ConfigError) as caught:
        find_files(NAMES, tmp_path, installed=tmp_path)
    message = str(caught.value)
    for part in (
        f"{tmp_path} lacks b.gz;",
        "torchvision's download failed: <urlopen error [Errno 111] Connection refused>;",
        "this system has no apt-get and no dpkg-deb)",
        "sudo apt-get update && sudo apt-get install dataset-fashion-mnist.",
        "put a.gz, b.gz into a folder and add source=<folder>.",
    ):
        assert part in message
    assert socket.getdefaulttimeout() is None
