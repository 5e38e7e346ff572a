"""Make a file system on a new volume, and on nothing else.

The file system's UUID is a function of the volume's id, so one that is there already is known as ours. mkfs that was killed leaves
a device that is neither empty nor a file system: a small file notes, before mkfs starts, that this device was found empty.
"""

import json
import math
import os
import re
import tempfile
import uuid
from argparse import Namespace
from datetime import datetime, timezone
from pathlib import Path

from scripts.aws import volumes
from scripts.aws.calls import Cloud, answer, say
from scripts.aws.commands import Machine, need_root
from scripts.aws.devices import in_use, signature, size_of, wait_for_device, why_not_empty
from scripts.aws.errors import FailedError, Problem, RefusedError, refuse

STATE_FOLDER = "/var/lib/imagenet-trainer"
IMAGENET_FILES = 1_331_167  # train and validation images; with those of the test split and folders 1,432,167
_BYTES_PER_INODE = 65536
_INODE_BYTES = 256
_SPARE = 1.1
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "imagenet-trainer:volume")


def uuid_of(volume_id: str) -> str:
    """The UUID of the file system that `format` makes on a volume."""
    return str(uuid.uuid5(_NAMESPACE, volume_id))


def format_volume(options: Namespace) -> int:
    """Make the file system, unless ours is there already."""
    machine = Machine(dry_run=options.dry_run)
    need_root("format", dry_run=options.dry_run)
    volume_id = volume_id_of(options)
    device = wait_for_device(volume_id, xen_name=options.device_name, at_most=options.wait_seconds, dry_run=options.dry_run)
    own = uuid_of(volume_id)
    marker = Path(options.state_folder) / f"formatting-{volume_id}.json"
    if not device.exists() or (options.dry_run and os.geteuid() != 0):
        say("The device cannot be looked at: it would be, and refused if it held anything.")
    elif _is_ours(machine, device, volume_id, marker):
        _forget(marker, dry_run=options.dry_run)
        return answer(dry_run=options.dry_run, status="exists", volume=volume_id, device=device, uuid=uuid_of(volume_id))
    elif not _began_empty(marker, device, volume_id) or in_use(device) or signature(machine, device).get("UUID", own) != own:
        if problems := why_not_empty(machine, device):
            fix = "only an empty one is formatted. Does it hold your data, type `volume mount`; else create another."
            raise RefusedError("volume format", [*problems, Problem("volume", volume_id, fix)])
        _note(marker, device, volume_id, dry_run=options.dry_run)
    else:
        say(f"Formatting of {device} began, and was interrupted: {marker}")
    command = mkfs(options.type, device, label=options.label, identity=uuid_of(volume_id), files=options.files)
    machine.run(command)
    if not options.dry_run:
        _check(machine, device, volume_id, options)
        _forget(marker, dry_run=False)
    return answer(dry_run=options.dry_run, status="formatted", volume=volume_id, device=device, uuid=uuid_of(volume_id))


def volume_id_of(options: Namespace) -> str:
    """The volume's id: as typed, else AWS is asked for the name's."""
    if options.volume_id:
        return str(options.volume_id)
    return str(volumes.wanted(Cloud.of(options), options)["VolumeId"])


def mkfs(kind: str, device: Path, *, label: str, identity: str, files: int) -> list[str]:
    """The command that makes the file system, with room for so many files.

    Raises:
        RefusedError: the device is too small for so many, or the label too long.
    """
    longest = {"ext4": 16, "xfs": 12}[kind]
    if len(label) > longest:
        raise refuse("volume format", "--label", label, f"is longer than the {longest} characters of {kind}.")
    if kind == "xfs":  # its inodes are made as they are needed
        return ["mkfs.xfs", "-f", "-m", f"uuid={identity}", "-L", label, str(device)]
    bytes_there = size_of(device) if device.exists() else 0
    inodes = max(math.ceil(files * _SPARE), bytes_there // _BYTES_PER_INODE)
    if bytes_there and inodes * _INODE_BYTES > bytes_there // 10:
        fix = f"the volume has {bytes_there / 2**30:.1f} GiB: too small. Make one with a greater --size-gib."
        raise refuse("volume format", "--files", files, fix)
    options = ["-F", "-q", "-t", "ext4", "-m", "0", "-I", str(_INODE_BYTES), "-N", str(inodes), "-U", identity, "-L", label]
    return ["mkfs.ext4", *options, str(device)]


def last_written(machine: Machine, device: Path) -> datetime | None:
    """When an ext4 file system was last written, by its superblock; mounting and unmounting write it. None: nobody knows."""
    if not device.exists() or (machine.dry_run and os.geteuid() != 0) or signature(machine, device).get("TYPE") != "ext4":
        return None
    header = _header(machine, device)
    when = header.get("Last write time")
    if when is None:
        return None
    return datetime.strptime(when, "%a %b %d %H:%M:%S %Y").replace(tzinfo=timezone.utc)


def _header(machine: Machine, device: Path) -> dict[str, str]:
    _, printed = machine.read(["dumpe2fs", "-h", str(device)])
    rows = (re.split(r":\s+", line, maxsplit=1) for line in printed.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _is_ours(machine: Machine, device: Path, volume_id: str, marker: Path) -> bool:
    """Whether the file system of this volume is there and whole: one whose making was noted and not ended is looked through."""
    if signature(machine, device).get("UUID") != uuid_of(volume_id):
        return False
    if not marker.exists() or signature(machine, device).get("TYPE") != "ext4":
        return True
    mounted = _header(machine, device).get("Last mount time", "n/a") != "n/a"
    code, _ = machine.read(["e2fsck", "-f", "-n", str(device)], allowed=range(256)) if not mounted else (0, "")
    return code == 0


def _check(machine: Machine, device: Path, volume_id: str, options: Namespace) -> None:
    found = signature(machine, device)
    if found.get("UUID") != uuid_of(volume_id) or found.get("TYPE") != options.type:
        raise FailedError(f"{device}: mkfs ended well, but blkid finds {found} on it.")
    if options.type == "ext4":
        inodes = int(_header(machine, device)["Inode count"])
        if inodes < options.files:
            raise FailedError(f"{device}: mkfs made {inodes} inodes only, for {options.files} files.")


def _began_empty(marker: Path, device: Path, volume_id: str) -> bool:
    """Whether this machine noted that this very device was empty before mkfs was started on it, and was not seen to end."""
    try:
        noted = json.loads(marker.read_text())
    except (OSError, ValueError):
        return False
    return bool(noted == _noted(device, volume_id))


def _noted(device: Path, volume_id: str) -> dict[str, object]:
    return {"volume": volume_id, "uuid": uuid_of(volume_id), "bytes": size_of(device)}


def _note(marker: Path, device: Path, volume_id: str, *, dry_run: bool) -> None:
    """Write the note so that it lasts: whole or not at all."""
    if dry_run:
        return
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_lasting(marker, json.dumps(_noted(device, volume_id)))


def _forget(marker: Path, *, dry_run: bool) -> None:
    if not dry_run:
        marker.unlink(missing_ok=True)


def write_lasting(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file's content, so that a crash leaves the old one: temporary file, fsync, rename, fsync of the folder."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
