"""What is never formatted, and never deleted."""

import datetime
import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.aws import commands
from scripts.aws.calls import wait_until
from scripts.aws.devices import mounts_of
from scripts.aws.errors import NoAnswerError
from scripts.aws.filesystem import uuid_of
from tests.aws.conftest import ZONE, Account, Device, Outcome

QUICK = ("--poll-seconds", "0.05", "--wait-seconds", "2")
VOLUME = "vol-0123456789abcdef0"
OTHER = "vol-0fedcba9876543210"


def form(account: Account, folder: Path, *more: str, volume: str = VOLUME) -> Outcome:
    state = ("--state-folder", str(folder / "state"))
    return account.here("volume", "format", "--volume-id", volume, "--files", "5000", *state, *QUICK, *more)


def ext4(device: Device) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-F", str(device.path)], check=True)


def xfs(device: Device) -> None:
    if shutil.which("mkfs.xfs") is None:
        device.fill(0, b"XFSB" + struct.pack(">IQ", 4096, 65536) + bytes(496))
    else:
        subprocess.run(["mkfs.xfs", "-q", "-f", str(device.path)], check=True)


def mbr(device: Device) -> None:
    entry = struct.pack("<B3sB3sII", 0, b"\0\0\0", 0x83, b"\0\0\0", 2048, 100000)
    device.fill(440, b"\x12\x34\x56\x78\0\0" + entry + bytes(48) + b"\x55\xaa")


def luks(device: Device) -> None:
    device.fill(0, b"LUKS\xba\xbe\0\1" + b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0") + bytes(440))


def lvm(device: Device) -> None:
    device.fill(512, b"LABELONE" + struct.pack("<QII", 1, 0, 32) + b"LVM2 001" + b"a" * 32)


def swap(device: Device) -> None:
    subprocess.run(["mkswap", str(device.path)], check=True, capture_output=True)


def data_at_the_start(device: Device) -> None:
    device.fill(4096, b"somebody's data")


def data_in_the_middle(device: Device) -> None:
    device.fill(30 << 20, b"x" * (4 << 20))


def data_at_the_end(device: Device) -> None:
    device.fill((64 << 20) - 600, b"the last bytes of an old RAID")


@pytest.mark.parametrize("content", [ext4, xfs, mbr, luks, lvm, swap, data_at_the_start, data_in_the_middle, data_at_the_end])
def test_a_device_that_holds_anything_is_not_formatted(
    account: Account, device: Device, tmp_path: Path, content: Callable[[Device], None]
) -> None:
    device.plug_in(VOLUME)
    content(device)
    before = device.file.read_bytes()
    done = form(account, tmp_path)
    assert done.code == 2
    assert str(device.path) in done.err
    assert "Traceback" not in done.err
    assert device.file.read_bytes() == before
    assert not (tmp_path / "state").exists()


def test_a_device_in_use_is_not_formatted(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(VOLUME)
    held = os.open(device.path, os.O_RDONLY | os.O_EXCL)  # as device mapper, md or a mount holds it
    try:
        done = form(account, tmp_path)
    finally:
        os.close(held)
    assert done.code == 2
    assert "in use by the kernel" in done.err


def test_a_mounted_file_system_of_our_own_is_left_as_it_is(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(VOLUME)
    assert form(account, tmp_path).code == 0
    at = tmp_path / "data"
    mount = ("volume", "mount", "--volume-id", VOLUME, "--at", str(at), "--fstab", str(tmp_path / "fstab"))
    assert account.here(*mount).code == 0
    (at / "kept").write_text("kept")
    assert '"exists"' in form(account, tmp_path).out
    assert (at / "kept").read_text() == "kept"


def test_our_file_system_of_another_volume_is_a_file_system_like_any(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(OTHER)
    assert form(account, tmp_path, volume=OTHER).code == 0
    device.pull_out()
    device.plug_in(VOLUME)
    done = form(account, tmp_path)
    assert done.code == 2
    assert "ext4" in done.err


def test_a_note_that_formatting_began_does_not_cover_data_that_came_later(account: Account, device: Device, tmp_path: Path) -> None:
    """Killed after mkfs ended, mounted and filled by hand: the file system is found whole, or left alone."""
    device.plug_in(VOLUME)
    assert form(account, tmp_path).code == 0
    note = {"volume": VOLUME, "uuid": uuid_of(VOLUME), "bytes": 64 << 20}
    (tmp_path / "state" / f"formatting-{VOLUME}.json").write_text(str(note).replace("'", '"'))
    at = tmp_path / "by-hand"
    at.mkdir()
    subprocess.run(["mount", str(device.path), str(at)], check=True)
    (at / "kept").write_text("kept")
    subprocess.run(["umount", str(at)], check=True)
    wrong = ["debugfs", "-w", "-R", "set_inode_field <11> links_count 9", str(device.path)]  # so that e2fsck complains
    subprocess.run(wrong, check=True, capture_output=True)
    assert '"exists"' in form(account, tmp_path).out
    subprocess.run(["mount", str(device.path), str(at)], check=True)
    assert (at / "kept").read_text() == "kept"


def test_a_note_does_not_cover_another_file_system(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(VOLUME)
    assert form(account, tmp_path).code == 0
    note = {"volume": VOLUME, "uuid": uuid_of(VOLUME), "bytes": 64 << 20}
    (tmp_path / "state" / f"formatting-{VOLUME}.json").write_text(str(note).replace("'", '"'))
    device.empty()
    ext4(device)
    before = device.file.read_bytes()
    assert form(account, tmp_path).code == 2
    assert device.file.read_bytes() == before


def test_without_a_tool_that_tells_nothing_is_formatted(
    account: Account, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.plug_in(VOLUME)
    tools = tmp_path / "tools"
    tools.mkdir()
    for program in ("blkid", "lsblk", "mkfs.ext4"):
        (tools / program).symlink_to(shutil.which(program) or f"/usr/sbin/{program}")
    monkeypatch.setattr(commands, "_FOLDERS_OF_ROOT", ())
    monkeypatch.setenv("PATH", str(tools))
    done = form(account, tmp_path)
    assert done.code == 2
    assert "wipefs: is not installed" in done.err


def test_no_device_of_that_serial_is_told_and_no_other_device_is_taken(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(OTHER)
    done = form(account, tmp_path)
    assert done.code == 1
    assert "no device of this machine has its serial vol0123456789abcdef0" in done.err
    assert device.file.read_bytes() == bytes(64 << 20)


def test_the_file_system_has_inodes_for_all_of_imagenet(account: Account, device: Device, tmp_path: Path) -> None:
    """On a sparse device of 200 GiB, with the defaults."""
    device.plug_in(VOLUME)
    os.truncate(device.file, 200 << 30)
    subprocess.run(["losetup", "--set-capacity", str(device.path)], check=True)
    done = account.here("volume", "format", "--volume-id", VOLUME, "--state-folder", str(tmp_path / "state"), *QUICK)
    assert done.code == 0, done.err
    shown = subprocess.run(["dumpe2fs", "-h", str(device.path)], capture_output=True, text=True, check=True).stdout
    header = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line)
    assert int(header["Inode count"]) >= 2 * 1_331_167
    assert header["Filesystem UUID"].strip() == uuid_of(VOLUME)
    assert header["Filesystem volume name"].strip() == "imagenet"
    assert header["Reserved block count"].strip() == "0"


def test_a_device_too_small_for_so_many_files_is_refused(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(VOLUME)
    done = account.here("volume", "format", "--volume-id", VOLUME, "--state-folder", str(tmp_path / "state"), *QUICK)
    assert done.code == 2
    assert "too small" in done.err
    assert device.file.read_bytes() == bytes(64 << 20)


def test_fstab_gets_one_line_and_everything_else_in_it_stays(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(VOLUME)
    assert form(account, tmp_path).code == 0
    fstab = tmp_path / "fstab"
    old = "# /etc/fstab\nUUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\n\ntmpfs  /scratch tmpfs size=1g 0 0\n"
    fstab.write_text(old)
    fstab.chmod(0o640)

    def mount(at: Path) -> Outcome:
        return account.here("volume", "mount", "--volume-id", VOLUME, "--at", str(at), "--fstab", str(fstab))

    at = tmp_path / "a folder"
    assert mount(at).code == 0
    assert mount(at).code == 0
    line = f"UUID={uuid_of(VOLUME)} {tmp_path}/a\\040folder ext4 defaults,noatime,nofail,x-systemd.device-timeout=60s 0 2"
    assert fstab.read_text() == f"{old}# imagenet-trainer: {VOLUME}\n{line}\n"
    assert fstab.stat().st_mode & 0o777 == 0o640
    assert mounts_of(device.path) == [str(at)]
    assert account.here("volume", "unmount", "--volume-id", VOLUME).code == 0
    assert fstab.read_text().count("UUID=") == 2
    assert mount(tmp_path / "elsewhere").code == 0
    assert fstab.read_text().count(uuid_of(VOLUME)) == 1
    assert "elsewhere" in fstab.read_text()


@pytest.mark.parametrize("wrong", ["not empty", "a file", "another's line", "no file system"])
def test_a_mount_that_would_hide_or_mix_up_something_is_refused(
    account: Account, device: Device, tmp_path: Path, wrong: str
) -> None:
    device.plug_in(VOLUME)
    at, fstab = tmp_path / "data", tmp_path / "fstab"
    if wrong != "no file system":
        assert form(account, tmp_path).code == 0
    if wrong == "not empty":
        at.mkdir()
        (at / "mine").touch()
    if wrong == "a file":
        at.touch()
    if wrong == "another's line":
        fstab.write_text(f"/dev/sdz {at} ext4 defaults 0 0\n")
    before = fstab.read_text() if fstab.exists() else None
    done = account.here("volume", "mount", "--volume-id", VOLUME, "--at", str(at), "--fstab", str(fstab))
    assert done.code == 2
    assert mounts_of(device.path) == []
    assert (fstab.read_text() if fstab.exists() else None) == before


def test_unmounting_names_the_process_that_still_works_there(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(VOLUME)
    assert form(account, tmp_path).code == 0
    at = tmp_path / "data"
    assert account.here("volume", "mount", "--volume-id", VOLUME, "--at", str(at), "--fstab", str(tmp_path / "fstab")).code == 0
    worker = subprocess.Popen(["sleep", "100"], cwd=at)
    try:
        done = account.here("volume", "unmount", "--volume-id", VOLUME)
        assert done.code == 2
        assert f"sleep ({worker.pid})" in done.err
    finally:
        worker.kill()
        worker.wait()
    assert account.here("volume", "unmount", "--volume-id", VOLUME).code == 0


# Deleting


def kept(account: Account) -> str:
    """A volume of ours that is in no use. Returns its id."""
    made = account.did("volume", "create", "--name", "imagenet", "--size-gib", "1", "--zone", ZONE, *QUICK)
    return str(made["volume"])


def delete(account: Account, volume: str, *more: str) -> Outcome:
    return account.here("volume", "delete", "--name", "imagenet", "--confirm", volume, *QUICK, *more)


def still_there(account: Account) -> bool:
    return len(account.own_volumes()) == 1 and "DeleteVolume" not in account.proxy.calls


def test_a_volume_without_a_snapshot_is_not_deleted(account: Account) -> None:
    volume = kept(account)
    done = delete(account, volume)
    assert done.code == 2
    assert "there is none" in done.err
    assert still_there(account)


@pytest.mark.parametrize("state", ["pending", "error"])
def test_a_volume_whose_snapshot_is_not_complete_is_not_deleted(account: Account, state: str) -> None:
    volume = kept(account)
    account.did("volume", "snapshot", "--name", "imagenet", *QUICK)
    account.proxy.rewrite = _states(state, "41%")
    done = delete(account, volume)
    assert done.code == 2
    assert f"is {state} (41%)" in done.err
    assert still_there(account)


def test_a_snapshot_of_another_volume_of_the_same_name_does_not_count(account: Account) -> None:
    other = kept(account)
    account.did("volume", "snapshot", "--name", "imagenet", *QUICK)
    assert delete(account, other).code == 0
    account.proxy.calls = []
    volume = kept(account)
    assert volume != other
    done = delete(account, volume)
    assert done.code == 2
    assert still_there(account)
    # And where a snapshot of another volume is among the answers all the same.
    account.did("volume", "snapshot", "--name", "imagenet", *QUICK)
    shown = f"<volumeId>{other}<".encode()
    account.proxy.rewrite = lambda action, answer: re.sub(rb"<volumeId>[^<]*<", shown, answer) if "Snapshots" in action else answer
    done = delete(account, volume)
    assert done.code == 2
    assert f"is of another volume, {other}" in done.err
    assert still_there(account)


def test_a_snapshot_from_before_the_last_attachment_does_not_count(account: Account) -> None:
    volume, instance = kept(account), account.launch()
    account.did("volume", "snapshot", "--name", "imagenet", *QUICK)
    account.did("volume", "attach", "--name", "imagenet", "--instance", instance, *QUICK)
    account.did("volume", "detach", "--name", "imagenet", *QUICK)
    done = delete(account, volume)
    assert done.code == 2
    assert "before the volume was last attached" in done.err
    assert still_there(account)
    account.did("volume", "snapshot", "--name", "imagenet", *QUICK)
    assert len(account.snapshots()) == 2
    assert delete(account, volume).code == 0


def test_a_snapshot_older_than_writes_that_cloudwatch_counted_does_not_count(account: Account) -> None:
    volume = kept(account)
    account.did("volume", "snapshot", "--name", "imagenet", *QUICK)
    hours_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=5)
    account.proxy.rewrite = _started(hours_ago)
    dimensions = [{"Name": "VolumeId", "Value": volume}]
    value = {
        "MetricName": "VolumeWriteOps",
        "Value": 7.0,
        "Dimensions": dimensions,
        "Timestamp": hours_ago + datetime.timedelta(hours=2),
    }
    account.client("cloudwatch").put_metric_data(Namespace="AWS/EBS", MetricData=[value])
    done = delete(account, volume)
    assert done.code == 2
    assert "CloudWatch counts 7 writes since" in done.err
    assert "GetMetricStatistics" in account.proxy.calls
    assert still_there(account)


@pytest.mark.parametrize("typed", ["vol-0000000000000000", "imagenet", ""])
def test_a_volume_whose_id_was_not_typed_is_not_deleted(account: Account, typed: str) -> None:
    volume = kept(account)
    account.did("volume", "snapshot", "--name", "imagenet", *QUICK)
    done = delete(account, typed)
    assert done.code == 2
    assert f"type --confirm {volume}" in done.err
    assert still_there(account)


def test_an_attached_volume_and_one_that_is_not_ours_are_not_deleted(account: Account) -> None:
    volume, instance = kept(account), account.launch()
    account.did("volume", "attach", "--name", "imagenet", "--instance", instance, *QUICK)
    done = delete(account, volume)
    assert done.code == 2
    assert f"is attached to {instance}" in done.err
    strange = account.client("ec2").create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    account.client("ec2").create_snapshot(VolumeId=strange)
    done = account.here("volume", "delete", "--volume-id", strange, "--confirm", strange, *QUICK)
    assert done.code == 2
    assert "was not made by these commands" in done.err
    assert "DeleteVolume" not in account.proxy.calls


def test_a_snapshot_while_the_volume_is_at_work_on_another_machine_is_refused(account: Account) -> None:
    kept(account)
    instance = account.launch()
    account.did("volume", "attach", "--name", "imagenet", "--instance", instance, *QUICK)
    done = account.here("volume", "snapshot", "--name", "imagenet", *QUICK)
    assert done.code == 2
    assert "CreateSnapshot" not in account.proxy.calls
    account.client("ec2").stop_instances(InstanceIds=[instance])
    assert account.here("volume", "snapshot", "--name", "imagenet", *QUICK).code == 0


def test_a_snapshot_unmounts_first_and_another_is_made_only_after_another_mount(
    account: Account, device: Device, tmp_path: Path
) -> None:
    volume, instance = kept(account), account.launch()
    account.did("volume", "attach", "--name", "imagenet", "--instance", instance, *QUICK)
    device.plug_in(volume)
    assert form(account, tmp_path, volume=volume).code == 0
    at = tmp_path / "data"
    mount = ("volume", "mount", "--name", "imagenet", "--at", str(at), "--fstab", str(tmp_path / "fstab"))
    account.did(*mount)
    first = account.did("volume", "snapshot", "--name", "imagenet", *QUICK)["snapshot"]
    assert not os.path.ismount(at)
    assert account.did("volume", "snapshot", "--name", "imagenet", *QUICK)["snapshot"] == first
    account.client("ec2").delete_tags(Resources=[volume], Tags=[{"Key": "imagenet-trainer:attached"}])
    account.proxy.rewrite = _attached(datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1))
    time.sleep(1.1)  # the file system knows the time of its last writing in whole seconds
    assert account.did("volume", "snapshot", "--name", "imagenet", *QUICK)["snapshot"] == first
    account.did(*mount)
    account.did("volume", "unmount", "--name", "imagenet")
    assert account.did("volume", "snapshot", "--name", "imagenet", *QUICK)["snapshot"] != first


def test_a_snapshot_is_waited_for_through_hours_of_pending_and_lost_answers(account: Account) -> None:
    kept(account)
    answers = iter(["0%", "0%", "17%", "99%"])

    def slowly(action: str, answer: bytes) -> bytes:
        if action != "DescribeSnapshots" or b"<snapshotId>" not in answer:
            return answer
        progress = next(answers, None)
        if progress == "17%":
            return b"<html>502 Bad Gateway</html>"
        return answer if progress is None else _states("pending", progress)(action, answer)

    account.proxy.rewrite = slowly
    done = account.here("volume", "snapshot", "--name", "imagenet", *QUICK)
    assert done.code == 0, done.err
    assert "pending, 0%" in done.err
    assert "pending, 99%" in done.err
    assert len(account.snapshots()) == 1


def test_waiting_outlasts_a_network_that_is_gone() -> None:
    looks = iter([NoAnswerError("no network"), (False, "pending, 3%"), NoAnswerError("no network"), (True, "completed, 100%")])

    def look() -> tuple[bool, str]:
        seen = next(looks)
        if isinstance(seen, NoAnswerError):
            raise seen
        return seen

    wait_until(look, what="snap-1", every=0.01, at_most=10)
    assert next(looks, None) is None


def test_a_snapshot_that_failed_is_told_and_the_next_start_takes_another(account: Account) -> None:
    kept(account)
    account.proxy.rewrite = _states("error", "3%")
    done = account.here("volume", "snapshot", "--name", "imagenet", *QUICK)
    assert done.code == 1
    assert "error" in done.err
    assert account.here("volume", "snapshot", "--name", "imagenet", *QUICK).code == 1
    assert len(account.snapshots()) == 2


def test_waiting_for_a_snapshot_ends_with_a_reason_and_goes_on_when_typed_again(account: Account) -> None:
    kept(account)
    account.proxy.rewrite = _states("pending", "5%")
    done = account.here("volume", "snapshot", "--name", "imagenet", "--poll-seconds", "0.05", "--wait-seconds", "0.2")
    assert done.code == 1
    assert "still pending, 5%" in done.err
    account.proxy.rewrite = None
    account.did("volume", "snapshot", "--name", "imagenet", *QUICK)
    assert len(account.snapshots()) == 1


def _states(state: str, progress: str) -> Callable[[str, bytes], bytes]:
    """Answers in which every snapshot is in this state: moto's are complete at once."""

    def rewrite(action: str, answer: bytes) -> bytes:
        if action != "DescribeSnapshots":
            return answer
        answer = answer.replace(b"<status>completed<", f"<status>{state}<".encode())
        return answer.replace(b"<progress>100%<", f"<progress>{progress}<".encode())

    return rewrite


def _attached(when: datetime.datetime) -> Callable[[str, bytes], bytes]:
    """Answers in which every attachment is from this time."""
    shown = f"<attachTime>{when:%Y-%m-%dT%H:%M:%S.000Z}<".encode()
    return lambda action, answer: re.sub(rb"<attachTime>[^<]*<", shown, answer)


def _started(when: datetime.datetime) -> Callable[[str, bytes], bytes]:
    """Answers in which every snapshot began at this time."""
    shown = f"<startTime>{when:%Y-%m-%dT%H:%M:%S.000Z}<".encode()

    def rewrite(action: str, answer: bytes) -> bytes:
        return re.sub(rb"<startTime>[^<]*<", shown, answer) if action == "DescribeSnapshots" else answer

    return rewrite
