"""Checkpoints come back bit for bit, run no code, and a damaged one is passed over for the one before."""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.training.checkpoint import Checkpoints, Kept
from src.training.checkpoint_file import SCHEMA, CheckpointError, load_file, require_finite, write_state

MakeState = Callable[..., dict[str, Any]]


def top(*steps: int) -> list[Kept]:
    """Name the best checkpoints, best first."""
    return [Kept(f"net-epoch-{step:03d}-val_acc1-{step:.3f}.ckpt", step) for step in steps]


@pytest.fixture
def saved(tmp_path: Path, make_state: MakeState) -> Checkpoints:
    """Three saves, of which the second is the best."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.prepare()
    checkpoints.save(make_state(10), top(10), top(10)[0])
    checkpoints.save(make_state(20), top(20, 10), top(20)[0])
    checkpoints.save(make_state(30), top(20, 10), top(20)[0])
    return checkpoints


def reopened(checkpoints: Checkpoints) -> Checkpoints:
    """As the next process sees the folder."""
    again = Checkpoints(checkpoints.folder)
    again.prepare()
    return again


def newest_step(checkpoints: Checkpoints) -> int:
    path = reopened(checkpoints).find_newest()
    assert path is not None
    return int(load_file(path)["step"])


def damage(path: Path, how: str) -> None:
    """Damage this name's content, and no other name of the same file."""
    data = bytearray(path.read_bytes())
    if how == "flipped byte":  # in a tensor: torch.load would not see it
        data[data.index(struct.pack("<f", load_file(path)["step"]) * 12)] ^= 0xFF
    path.unlink()
    path.write_bytes({"flipped byte": data, "truncated": data[:-100], "empty": b"", "appended": data + b"x"}[how])


def assert_same(left: Any, right: Any) -> None:
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left.nan_to_num(), right.nan_to_num())
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert type(left) is type(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert type(left) is type(right)
        assert left == right


def test_a_state_comes_back_bit_for_bit(tmp_path: Path, make_state: MakeState) -> None:
    more = {
        "half": torch.randn(5, dtype=torch.bfloat16),
        "double": torch.tensor([0.1, -0.0, 5e-324], dtype=torch.float64),
        "bytes": torch.arange(256, dtype=torch.uint8),
        "layout": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "config": {"betas": (0.9, 0.999), "name": None, "on": True, "list": [1, 2.5, "x"]},
    }
    state = make_state(7, **more)
    found = load_file(write_state(state, tmp_path)[0])
    assert_same(found, state)
    assert found["layout"].stride() == state["layout"].stride()


class Malicious:
    """Runs code where it is unpickled by a loader that trusts."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("wrapped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path: Path, make_state: MakeState, *, wrapped: bool) -> None:
    proof, path = tmp_path / "executed", tmp_path / "gift.ckpt"
    if wrapped:
        torch.save(make_state(1, gift=Malicious(proof)), path)
    else:
        path.write_bytes(pickle.dumps(Malicious(proof)))
    with pytest.raises(CheckpointError, match=r"gift\.ckpt cannot be read: .*Only tensors and plain containers are loaded"):
        load_file(path)
    assert not proof.exists()
    if wrapped:  # the gift works: a loader that trusts would have run it
        torch.load(path, weights_only=False)
        assert proof.exists()


@pytest.mark.parametrize(("content", "found"), [({"schema": 99}, "99"), ({"model": {}}, "None"), ([1, 2], "list")])
def test_another_schema_is_refused_by_name(tmp_path: Path, content: Any, found: str) -> None:
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(CheckpointError, match=rf"old\.ckpt is no checkpoint of schema {SCHEMA} \(found: {found}\)"):
        load_file(tmp_path / "old.ckpt")


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.ckpt cannot be read: No such file"):
        load_file(tmp_path / "none.ckpt")


def test_what_is_kept(saved: Checkpoints) -> None:
    steps = {path.name: load_file(path)["step"] for path in saved.folder.glob("*.ckpt")}
    names = {item.step: item.name for item in top(10, 20)}
    assert steps == {"last.ckpt": 30, "previous.ckpt": 20, "best.ckpt": 20, names[10]: 10, names[20]: 20}
    assert newest_step(saved) == 30
    assert (saved.folder / "best.ckpt").stat().st_nlink == 3, "further names cost no space"


def test_what_is_no_longer_among_the_best_goes(saved: Checkpoints, make_state: MakeState, said: list[str]) -> None:
    saved.save(make_state(40), top(40, 20), top(40)[0])
    assert sorted(path.name for path in saved.folder.glob("net-*")) == sorted(item.name for item in top(20, 40))
    assert load_file(saved.folder / "best.ckpt")["step"] == 40
    register = json.loads((saved.folder / "checkpoints.json").read_text())
    assert set(register) == {path.name for path in saved.folder.glob("*.ckpt")}
    assert newest_step(saved) == 40
    assert said == []


def test_nothing_is_kept_beside_last_and_previous_if_not_wanted(tmp_path: Path, make_state: MakeState) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(make_state(step), [], None)
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["last.ckpt", "previous.ckpt"]


@pytest.mark.parametrize("how", ["flipped byte", "truncated", "empty", "appended"])
def test_a_damaged_last_gives_way_to_the_one_before_with_a_warning(
    saved: Checkpoints, make_state: MakeState, said: list[str], how: str
) -> None:
    damage(saved.folder / "last.ckpt", how)
    again = reopened(saved)
    found = again.find_newest()
    assert found is not None
    assert load_file(found)["step"] == 20
    assert said == [
        f"WARNING {saved.folder / 'last.ckpt'} is damaged: its sha256 is not in checkpoints.json. Passed over.",
        f"WARNING THE NEWEST CHECKPOINT IS LOST: it was of step 30; {found.name} of step 20 is left, and taken.",
    ]
    again.save(make_state(25), top(20, 10), top(20)[0])  # the damaged one must not become previous.ckpt
    assert load_file(saved.folder / "previous.ckpt")["step"] == 20
    said.clear()
    assert newest_step(saved) == 25
    assert said == []
    damage(saved.folder / "last.ckpt", how)
    assert newest_step(saved) == 20


def test_any_one_file_may_be_lost(saved: Checkpoints) -> None:
    for path in sorted(saved.folder.glob("*.ckpt")):
        copy = saved.folder.parent / f"without-{path.name}"
        shutil.copytree(saved.folder, copy)
        (copy / path.name).unlink()
        assert newest_step(Checkpoints(copy)) >= 20


def test_nothing_valid_is_an_error_and_never_a_fresh_start(saved: Checkpoints) -> None:
    for path in saved.folder.glob("*.ckpt"):
        damage(path, "truncated")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*checkpoints is valid.*Restore one from a copy"):
        reopened(saved).find_newest()


def test_a_new_folder_holds_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "a" / "b")
    checkpoints.prepare()
    assert checkpoints.find_newest() is None
    assert not checkpoints.has_any()


@pytest.mark.parametrize("content", [None, "", "{", "[]", "3", '{"last.ckpt": 3}', '{"last.ckpt": {"step": 30}}', "\udcff"])
def test_a_damaged_register_costs_nothing_but_a_warning(
    saved: Checkpoints, make_state: MakeState, said: list[str], content: str | None
) -> None:
    register = saved.folder / "checkpoints.json"
    register.unlink()
    if content is not None:
        register.write_bytes(content.encode(errors="surrogateescape"))
    assert newest_step(saved) == 30
    assert f"{register} is missing or damaged" in said[0]
    damage(saved.folder / "last.ckpt", "flipped byte")  # each file is still checked, by its own CRC
    again = reopened(saved)
    assert newest_step(again) == 20
    again.find_newest()
    again.save(make_state(40), top(20, 10), top(20)[0])
    said.clear()
    assert newest_step(saved) == 40
    damage(saved.folder / "last.ckpt", "flipped byte")
    assert newest_step(saved) == 20
    assert len(said) == 2  # damaged, and what is taken instead


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["weight", "momentum"])
def test_what_is_not_finite_is_never_written(saved: Checkpoints, make_state: MakeState, value: float, place: str) -> None:
    state = make_state(40)
    tensor = state["model"]["0.weight"] if place == "weight" else state["optimizer"]["state"][0]["momentum_buffer"]
    tensor[0, 1] = value
    before = {path.name: path.read_bytes() for path in saved.folder.iterdir()}
    where = "model.0.weight" if place == "weight" else "optimizer.state.0.momentum_buffer"
    with pytest.raises(FloatingPointError, match=f"^{where} is not finite"):
        saved.save(state, top(40), top(40)[0])
    assert {path.name: path.read_bytes() for path in saved.folder.iterdir()} == before


def test_integers_and_lists_are_looked_at_too() -> None:
    require_finite({"a": [torch.arange(3), (torch.ones(2),)], "b": "nan"})
    with pytest.raises(FloatingPointError, match=r"a\.1\.0 is not finite"):
        require_finite({"a": [torch.arange(3), (torch.tensor([float("nan")]),)]})


@pytest.mark.parametrize("step", ["10", "99", "-3", "1" + "0" * 30])
def test_a_step_that_is_altered_in_the_register_does_not_choose_another_file(
    saved: Checkpoints, said: list[str], step: str
) -> None:
    register = saved.folder / "checkpoints.json"
    for before in ("30", "20"):
        sound = register.read_text()
        register.write_text(sound.replace(f'"step": {before}', f'"step": {step}'))
        assert newest_step(saved) == 30
        assert f"{register} is missing or damaged" in said[-1]
        register.write_text(sound)


def test_a_newest_checkpoint_that_is_gone_is_told(saved: Checkpoints, said: list[str]) -> None:
    (saved.folder / "last.ckpt").unlink()
    assert newest_step(saved) == 20
    assert f"{saved.folder / 'last.ckpt'} is gone, though checkpoints.json names it" in said[0]
    assert "THE NEWEST CHECKPOINT IS LOST: it was of step 30; " in said[1]


def test_a_whole_but_older_file_in_its_place_is_told(saved: Checkpoints, said: list[str]) -> None:
    shutil.copy(saved.folder / "best.ckpt", saved.folder / "other")
    (saved.folder / "other").replace(saved.folder / "last.ckpt")
    assert newest_step(saved) == 20
    assert "THE NEWEST CHECKPOINT IS LOST: it was of step 30; " in said[0]


def test_checkpoints_that_are_all_gone_are_no_fresh_start(saved: Checkpoints) -> None:
    for path in saved.folder.glob("*.ckpt"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"checkpoints\.json names best\.ckpt, last\.ckpt, .*which are gone"):
        reopened(saved).find_newest()


def test_what_cannot_be_read_is_passed_over(saved: Checkpoints, said: list[str]) -> None:
    for name in ("last.ckpt", "checkpoints.json"):
        (saved.folder / name).unlink()
        (saved.folder / name).mkdir()
    assert newest_step(saved) == 20
    assert any(f"{saved.folder / 'last.ckpt'} cannot be read: Is a directory. Passed over." in line for line in said)


def test_a_damaged_file_is_refused_by_its_path_too(saved: Checkpoints) -> None:
    damage(saved.folder / "best.ckpt", "flipped byte")
    with pytest.raises(CheckpointError, match=r"best\.ckpt is damaged: .*another CRC-32 than was written"):
        load_file(saved.folder / "best.ckpt")


@pytest.mark.parametrize("step", [None, "3", -1, 2.5, [3]])
def test_a_step_that_is_none_is_refused(tmp_path: Path, make_state: MakeState, step: Any) -> None:
    torch.save({**make_state(1), "step": step}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"x\.ckpt is no checkpoint of ours: its step is "):
        load_file(tmp_path / "x.ckpt")
