"""An exported folder is read as it was written, bit for bit, and whatever is damaged in it is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from src import model_folder
from src.config import ConfigError
from src.model_folder import (
    is_model_folder,
    read_description,
    read_model_folder,
    write_description,
    write_model_folder,
    write_weights,
)

DESCRIPTION: dict[str, Any] = {
    "config": {"a": 1}, "classes": ["ä", "b"], "weights": "trained", "history": [], "step": None, "run": None,
}  # fmt: skip
STATE = {
    "odd": torch.tensor([0.0, -0.0, float("nan"), float("inf")]),
    "half": torch.randn(3, 4).to(torch.bfloat16).T,
    "count": torch.tensor(7),
    "empty": torch.empty(0, 3),
}


def test_what_is_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    shared = {**STATE, "twice": STATE["odd"]}
    write_model_folder(tmp_path, DESCRIPTION, shared)
    description, found = read_model_folder(tmp_path)
    assert description == {"format": "imagenet-trainer", "format_version": 1, **DESCRIPTION}
    assert "ä" in (tmp_path / "config.json").read_text(encoding="utf-8"), "people read it"
    assert found.keys() == shared.keys()
    for name, tensor in shared.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].contiguous().view(-1).view(torch.uint8).equal(tensor.contiguous().view(-1).view(torch.uint8)), name
    assert is_model_folder(tmp_path)


@pytest.mark.parametrize("pruned", [None, "channels"])
def test_the_file_says_how_it_was_pruned(tmp_path: Path, pruned: Any) -> None:
    write_weights(tmp_path, STATE, pruned=pruned)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"} | ({} if pruned is None else {model_folder.METADATA_KEY: pruned})


ALTERED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a bit": lambda state: state.update(odd=torch.tensor([-0.0, -0.0, float("nan"), float("inf")])),
    "a type": lambda state: state.update(half=state["half"].view(torch.float16)),
    "a shape": lambda state: state.update(empty=torch.empty(3, 0)),
    "a name less": lambda state: state.pop("count"),
    "a name more": lambda state: state.update(more=torch.zeros(1)),
}


@pytest.mark.parametrize("what", ALTERED)
def test_a_disk_that_gives_something_else_back_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    read = model_folder.read_state_dict

    def altered(path: Path) -> dict[str, Any]:
        state = dict(read(path))
        ALTERED[what](state)
        return state

    monkeypatch.setattr(model_folder, "read_state_dict", altered)
    with pytest.raises(OSError, match="does not hold what was written"):
        write_weights(tmp_path, STATE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "was not written by src.export"),
        ({"format_version": 2}, "is of format version 2, not 1"),
        ({"format_version": None}, "is of format version None"),
        ({"config": []}, "lacks, or has damaged: config."),
        ({"classes": "ab"}, "lacks, or has damaged: classes."),
        ({"classes": ["a", 1]}, "lacks, or has damaged: classes."),
        ({"weights": 1, "history": {}}, "lacks, or has damaged: weights, history."),
        ({"step": ..., "run": ...}, "lacks, or has damaged: step, run."),
        ({"config": ..., "classes": None, "step": ...}, "lacks, or has damaged: config, classes, step."),
    ],
)
def test_a_damaged_description_is_named_with_all_that_is_wrong(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write_description(tmp_path, DESCRIPTION)
    content = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    with pytest.raises(ConfigError) as caught:
        read_description(tmp_path)
    assert words in str(caught.value)
    assert is_model_folder(tmp_path) == ("format" not in change)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_description_is_refused_and_is_no_folder_of_ours(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    assert not is_model_folder(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be read|was not written by"):
        read_description(tmp_path)


def test_a_folder_without_weights_says_so_and_numbers_that_are_none_are_not_written(tmp_path: Path) -> None:
    write_description(tmp_path, DESCRIPTION)
    with pytest.raises(ConfigError, match=r"has no model\.safetensors"):
        read_model_folder(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_description(tmp_path, {**DESCRIPTION, "history": [{"val/loss": float("nan")}]})
    assert read_description(tmp_path)["history"] == []
