"""From an empty account to a prepared, snapshotted, deleted volume; interrupted at every step, and typed again."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.aws.conftest import ROOT, ZONE, Account, Device

QUICK = ("--poll-seconds", "0.05", "--wait-seconds", "20")
CREATE = ("volume", "create", "--name", "imagenet", "--size-gib", "400", "--zone", ZONE, *QUICK)
TRAINING = ("torchrun", "--standalone", "-m", "src.train", "data.root=/data/Imagenet")
MANNERS = ("kill before", "kill after", "drop")


class Step(NamedTuple):
    """A command in the cloud: what must be there before it, how it is typed, and which of its calls change something."""

    before: tuple[str, ...]
    command: tuple[str, ...]
    changes: tuple[str, ...]


STEPS = {
    "create": Step((), CREATE, ("CreateVolume",)),
    "attach": Step(
        ("create",), ("volume", "attach", "--name", "imagenet", "--instance", "INSTANCE", *QUICK), ("CreateTags", "AttachVolume")
    ),
    "detach": Step(("create", "attach"), ("volume", "detach", "--name", "imagenet", *QUICK), ("DetachVolume",)),
    "snapshot": Step(("create",), ("volume", "snapshot", "--name", "imagenet", *QUICK), ("CreateSnapshot",)),
    "from-snapshot": Step(
        ("create", "snapshot"),
        ("volume", "from-snapshot", "--name", "copy", "--from", "imagenet", "--zone", ZONE, *QUICK),
        ("CreateVolume",),
    ),
    "delete": Step(
        ("create", "snapshot"),
        ("volume", "delete", "--name", "imagenet", "--confirm", "VOLUME", *QUICK),
        ("DeleteVolume",),
    ),
}
VOLUMES_AFTER = {"from-snapshot": 2, "delete": 0}


def prepare(account: Account, name: str) -> tuple[str, ...]:
    """An account in which a step is the next. Returns the step's command."""
    account.reset()
    instance = account.launch() if "attach" in (*STEPS[name].before, name) else ""

    def typed(command: tuple[str, ...]) -> tuple[str, ...]:
        volumes = account.own_volumes()
        known = {"INSTANCE": instance, "VOLUME": volumes[0]["VolumeId"] if volumes else ""}
        return tuple(known.get(word, word) for word in command)

    for earlier in STEPS[name].before:
        account.did(*typed(STEPS[earlier].command))
    return typed(STEPS[name].command)


def interrupt(account: Account, name: str, manner: str, *, at: int | None = None, call: str | None = None) -> bool:
    """Run a step broken, type it again, and look at what is there. Returns whether it was reached by the break."""
    command = prepare(account, name)
    account.proxy.breaks(manner, at=at, call=call)
    first = account.run(*command)
    if not account.proxy.broken:
        assert first.returncode == 0, first.stderr
        return False
    assert first.returncode == -9 if manner.startswith("kill") else first.returncode in (0, 1), first.stderr
    assert "Traceback" not in first.stderr
    account.did(*command)
    assert len(account.own_volumes()) == VOLUMES_AFTER.get(name, 1)
    assert len(account.snapshots()) == ("snapshot" in (*STEPS[name].before, name))
    if name == "attach":
        assert [one["State"] for one in account.own_volumes()[0]["Attachments"]] == ["attached"]
    return True


@pytest.mark.parametrize("name", STEPS)
def test_a_command_whose_changing_call_is_broken_in_any_way_continues_when_typed_again(account: Account, name: str) -> None:
    for call, manner in itertools.product(STEPS[name].changes, MANNERS):
        assert interrupt(account, name, manner, call=call)


@pytest.mark.long
@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("name", STEPS)
def test_a_command_broken_at_every_single_call_continues_when_typed_again(account: Account, name: str, manner: str) -> None:
    at = 1
    while interrupt(account, name, manner, at=at):
        at += 1
    assert at > len(STEPS[name].changes)


class Local(NamedTuple):
    """A command on the instance, and the programs that it runs."""

    command: tuple[str, ...]
    programs: tuple[str, ...]


VOLUME = "vol-0123456789abcdef0"


def local_commands(folder: Path) -> dict[str, Local]:
    which = ("--volume-id", VOLUME)
    at, fstab = str(folder / "data"), str(folder / "fstab")
    owner = f"{os.getuid()}:{os.getgid()}"
    return {
        "format": Local(
            ("volume", "format", *which, "--files", "5000", "--state-folder", str(folder / "state")),
            ("blkid", "wipefs", "lsblk", "mkfs.ext4", "dumpe2fs"),
        ),
        "mount": Local(
            ("volume", "mount", *which, "--at", at, "--fstab", fstab, "--owner", owner), ("blkid", "mkdir", "mount", "chown")
        ),
        "unmount": Local(("volume", "unmount", *which), ("sync", "umount")),
    }


def deadly(folder: Path, program: str, manner: str) -> Path:
    """A folder for PATH in which one program kills the command that calls it, the first time: before it works, or after."""
    real = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    shims, spent = folder / "shims", folder / "spent"
    shims.mkdir(exist_ok=True)
    spent.unlink(missing_ok=True)
    kill = 'kill -9 "$PPID"; exit 9'
    work = kill if manner == "before" else f'"{real}" "$@"; {kill}'
    shim = shims / program
    shim.write_text(f'#!/bin/sh\nif [ -e "{spent}" ]; then exec "{real}" "$@"; fi\n: > "{spent}"\n{work}\n')
    shim.chmod(0o755)
    return shims


@pytest.mark.parametrize("manner", ["before", "after"])
def test_a_local_command_killed_around_every_program_that_it_runs_continues(
    account: Account, device: Device, tmp_path: Path, manner: str
) -> None:
    device.plug_in(VOLUME)
    commands = local_commands(tmp_path)
    for name in ("format", "mount", "unmount"):
        for program in commands[name].programs:
            if name == "format":
                device.empty()
                shutil.rmtree(tmp_path / "state", ignore_errors=True)
            shims = deadly(tmp_path, program, manner)
            first = account.run(*commands[name].command, env={"PATH": f"{shims}:{os.environ['PATH']}"})
            assert first.returncode == -9, (name, program, first.stderr)
            shutil.rmtree(shims)
            result = account.did(*commands[name].command)
            assert account.did(*commands[name].command)["status"] == "exists", name
            if name == "format":
                assert result["status"] in ("formatted", "exists")
                assert subprocess.run(["e2fsck", "-f", "-n", str(device.path)], capture_output=True, check=False).returncode == 0
                assert not list((tmp_path / "state").iterdir())
            if name == "mount":
                assert os.path.ismount(tmp_path / "data")
                assert (tmp_path / "fstab").read_text().count("UUID=") == 1
                if program != commands[name].programs[-1]:
                    account.did(*commands["unmount"].command)
            if name == "unmount":
                assert not os.path.ismount(tmp_path / "data")
                if program != commands[name].programs[-1]:
                    account.did(*commands["mount"].command)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace kills mkfs in the middle of its writes")
def test_mkfs_killed_in_the_middle_of_its_writes_is_done_again(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(VOLUME)
    command = local_commands(tmp_path)["format"].command
    real, shims = shutil.which("mkfs.ext4") or "/usr/sbin/mkfs.ext4", tmp_path / "shims"
    shims.mkdir()
    for write in (1, 3, 6, 12, 25):
        device.empty()
        shim = shims / "mkfs.ext4"
        inject = f"inject=pwrite64,write,pwritev:signal=KILL:when={write}"
        shim.write_text(
            f'#!/bin/sh\nstrace -qq -o /dev/null -e trace=pwrite64,write,pwritev -e {inject} "{real}" "$@"; kill -9 "$PPID"\n'
        )
        shim.chmod(0o755)
        first = account.run(*command, env={"PATH": f"{shims}:{os.environ['PATH']}"})
        assert first.returncode == -9, first.stderr
        assert list((tmp_path / "state").iterdir())
        account.did(*command)
        assert subprocess.run(["e2fsck", "-f", "-n", str(device.path)], capture_output=True, check=False).returncode == 0
        assert not list((tmp_path / "state").iterdir())


def test_from_an_empty_account_to_a_deleted_volume_and_nothing_left_but_the_snapshot(
    account: Account, device: Device, tmp_path: Path
) -> None:
    from tests.scale_models import LAYOUTS, scale_model

    model = scale_model(20)
    LAYOUTS["official"](tmp_path / "download", model)
    which, at = ("--name", "imagenet"), tmp_path / "data"
    volume = account.do(*CREATE)["volume"]
    image = account.client("ec2").register_image(Name="image", RootDeviceName="/dev/sda1")["ImageId"]
    launch = ("--type", "g5.xlarge", "--image", image, "--volume", "imagenet", "--repository", "https://example.org/a.git")
    instance = account.do("instance", "launch", *which, *launch, *QUICK, "--", *TRAINING)["instance"]
    account.do("volume", "attach", *which, "--instance", instance, *QUICK)
    device.plug_in(volume)
    account.do("volume", "format", *which, "--files", "5000", "--state-folder", str(tmp_path / "state"))
    account.do("volume", "mount", *which, "--at", str(at), "--fstab", str(tmp_path / "fstab"))
    prepared = subprocess.run(
        [
            sys.executable,
            "-m",
            "src.prepare",
            f"source={tmp_path / 'download'}",
            f"target={at}/Imagenet",
            "expect=any",
            "checksum=off",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert prepared.returncode == 0, prepared.stderr
    account.do("volume", "unmount", *which)
    snapshot = account.do("volume", "snapshot", *which, *QUICK)["snapshot"]
    account.do("volume", "detach", *which, *QUICK)
    assert account.do("instance", "terminate", *which, "--confirm", instance, *QUICK)["instance"] == instance
    device.pull_out()
    assert account.do("volume", "delete", *which, "--confirm", volume, *QUICK)["status"] == "deleted"
    assert account.own_volumes() == []
    assert [(one["SnapshotId"], one["VolumeId"]) for one in account.snapshots()] == [(snapshot, volume)]
    assert account.do("volume", "delete", *which, "--confirm", volume, *QUICK)["status"] == "gone"
    # What the snapshot holds is what was on the device: it is mounted read-only, and the model is there.
    (tmp_path / "look").mkdir()
    subprocess.run(["mount", "-o", "ro", str(device.path), str(tmp_path / "look")], check=True)
    root = tmp_path / "look" / "Imagenet"
    found: dict[str, Any] = {str(path.relative_to(root)): path for path in root.glob("*/*/*.JPEG")}
    assert len(found) >= 20
    assert all(path.read_bytes() == model.files[name] for name, path in found.items())
    subprocess.run(["umount", str(tmp_path / "look")], check=True)
