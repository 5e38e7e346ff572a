"""config.yaml is a record with a seal: a changed digit in it is noticed, told, and mended."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from src.config import Config, ConfigError
from src.tracking.config_file import read_config, write_config
from src.tracking.run_folder import RunFolder

Configure = Callable[..., Config]


@pytest.fixture
def file(tmp_path: Path, configure: Configure) -> Path:
    folder = RunFolder(tmp_path / "r", configure())
    folder.describe(device="cpu", world_size=1)
    folder.close()
    return folder.path / "config.yaml"


def test_it_comes_back_as_it_was_and_any_reader_of_yaml_reads_it(file: Path, configure: Configure, said: list[str]) -> None:
    assert read_config(file) == yaml.safe_load(file.read_text()) == configure().model_dump(mode="json")
    assert said == []


CHANGES: list[Callable[[bytes], bytes]] = [
    lambda data: data.replace(b"seed: 0", b"seed: 1"),
    lambda data: data[:-1],
    lambda data: data + b"\n",
    lambda data: data[: len(data) // 2],
    lambda data: data.replace(b"seed: 0\n", b""),
    lambda data: b"",
    lambda data: b"\xff\xfe",
    lambda data: b"[]",
    lambda data: data.rpartition(b"# sha256")[0],
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_one_is_told_and_written_anew(
    file: Path, configure: Configure, said: list[str], change: Callable[[bytes], bytes]
) -> None:
    sound = file.read_bytes()
    file.write_bytes(change(sound))
    assert file.read_bytes() != sound
    before = {name: (file.parent / name).read_bytes() for name in ("command.txt", "meta.json")}
    folder = RunFolder(file.parent, configure("seed=3"))  # compared with the newest checkpoint, as this file proves nothing
    assert len(said) == 1
    assert said[0].startswith(f"WARNING {file} IS NOT WHAT WAS WRITTEN: damaged, edited, or of an older version.")
    folder.describe(device="cpu", world_size=1)
    folder.close()
    assert read_config(file) == configure("seed=3").model_dump(mode="json")
    assert {name: (file.parent / name).read_bytes() for name in before} == before


def test_one_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path, configure: Configure) -> None:
    (tmp_path / "r" / "config.yaml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read \(Is a directory\)\. Move it away"):
        RunFolder(tmp_path / "r", configure())


def test_a_write_that_fails_leaves_the_one_before(file: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    sound = file.read_bytes()
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_config(file, configure("seed=3"))
    assert file.read_bytes() == sound
