"""Mount a volume by the UUID of its file system, now and at every boot, and unmount it."""

import os
import time
from argparse import Namespace
from pathlib import Path

from scripts.aws.calls import answer, say
from scripts.aws.commands import Machine, need_root
from scripts.aws.devices import in_use, mounts_of, signature, wait_for_device
from scripts.aws.errors import FailedError, Problem, RefusedError, refuse
from scripts.aws.filesystem import volume_id_of, write_lasting

_MARK = "# imagenet-trainer:"
# nofail: an instance whose volume is detached must boot all the same.
_MOUNT_OPTIONS = "defaults,noatime,nofail,x-systemd.device-timeout=60s"


def mount(options: Namespace) -> int:
    """Write the volume's line of fstab, mount it, and give its root folder to the user."""
    machine = Machine(dry_run=options.dry_run)
    need_root("mount", dry_run=options.dry_run)
    volume_id = volume_id_of(options)
    device = wait_for_device(volume_id, xen_name=options.device_name, at_most=options.wait_seconds, dry_run=options.dry_run)
    at, fstab = Path.cwd() / options.at, Path(options.fstab)
    found = {"TYPE": "ext4", "UUID": "<the file system's>"}
    if device.exists() and os.geteuid() == 0:
        found = signature(machine, device)
        _may_be_mounted(device, at, found, volume_id)
    _write_fstab(fstab, volume_id, at, found, dry_run=options.dry_run)
    mounted = device.exists() and str(at) in mounts_of(device)
    if not mounted:
        machine.run(["mkdir", "-p", str(at)])
        machine.run(["mount", "-T", str(fstab), str(at)])
        if not options.dry_run and str(at) not in mounts_of(device):
            raise FailedError(f"{at}: mount ended well, but {device} is not there. Look at {fstab}.")
    if options.owner:
        machine.run(["chown", options.owner, str(at)])
    return answer(
        dry_run=options.dry_run,
        status="exists" if mounted else "mounted",
        volume=volume_id,
        device=device,
        at=at,
        uuid=found["UUID"],
    )


def unmount(options: Namespace) -> int:
    """Unmount the volume wherever it is mounted. Its line of fstab stays: at the next boot it is mounted again, if attached."""
    machine = Machine(dry_run=options.dry_run)
    need_root("unmount", dry_run=options.dry_run)
    volume_id = volume_id_of(options)
    device = wait_for_device(volume_id, xen_name=options.device_name, at_most=0, dry_run=options.dry_run)
    at = mounts_of(device) if device.exists() else ["<where it is mounted>"]
    unmount_device(machine, device)
    return answer(dry_run=options.dry_run, status="unmounted" if at else "exists", volume=volume_id, device=device, at=at)


def unmount_device(machine: Machine, device: Path) -> None:
    """Unmount a device wherever it is mounted, the last mounted first.

    Raises:
        RefusedError: something has files open there: named.
    """
    for at in reversed(mounts_of(device)) if device.exists() else ():
        machine.run(["sync", "--file-system", at])
        if machine.run(["umount", at], allowed=(0, 32)) != 0:
            holders = _holders(at)
            who = ", ".join(holders) or "nobody that can be seen"
            raise refuse("volume unmount", "folder", at, f"is in use by {who}. Stop that first.")
    if machine.dry_run or not device.exists():
        return
    until = time.monotonic() + 5
    while in_use(device) and time.monotonic() < until:
        time.sleep(0.1)
    if in_use(device):
        raise FailedError(
            f"{device} is unmounted here but still held: by another mount namespace (a container), or as swap or LVM."
        )


def _may_be_mounted(device: Path, at: Path, found: dict[str, str], volume_id: str) -> None:
    """Refuse what would hide or mix up data.

    Raises:
        RefusedError: no file system, or the folder is not an empty one.
    """
    problems = []
    if "UUID" not in found or found.get("USAGE", "filesystem") != "filesystem":
        shown = found or "nothing"
        problems.append(Problem("volume", volume_id, f"{device} holds no file system ({shown}). Type `volume format` first."))
    if elsewhere := [place for place in mounts_of(device) if place != str(at)]:
        problems.append(Problem("volume", volume_id, f"is mounted at {', '.join(elsewhere)} already. Type `volume unmount` first."))
    if str(at) not in mounts_of(device):
        if os.path.ismount(at):
            problems.append(Problem("--at", at, "something else is mounted there. Name another folder."))
        elif at.exists() and not at.is_dir():
            problems.append(Problem("--at", at, "is no folder."))
        elif at.is_dir() and any(at.iterdir()):
            problems.append(Problem("--at", at, "is not empty: its content would be hidden. Name another folder."))
    if problems:
        raise RefusedError("volume mount", problems)


def _write_fstab(fstab: Path, volume_id: str, at: Path, found: dict[str, str], *, dry_run: bool) -> None:
    """Have exactly one line for this volume, under a comment that marks it as ours; all else stays as it is, byte for byte.

    Raises:
        RefusedError: somebody else's line is about the same folder or file system, and says otherwise.
    """
    old = fstab.read_text(encoding="utf-8", errors="surrogateescape") if fstab.exists() else ""
    place = str(at).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    line = f"UUID={found.get('UUID')} {place} {found.get('TYPE')} {_MOUNT_OPTIONS} 0 2"
    kept, skip = [], False
    for row in old.splitlines():
        if skip:
            skip = False
            if row.startswith("UUID="):
                continue
        if row == f"{_MARK} {volume_id}":
            skip = True
            continue
        kept.append(row)
    for row in kept:
        fields = row.split()
        if len(fields) < 2 or fields[0].startswith("#"):
            continue
        if fields[0] == f"UUID={found.get('UUID')}" and fields[1] == place:
            say(f"{fstab} mounts it there already: {row}")
            return
        if fields[1] == place or fields[0] == f"UUID={found.get('UUID')}":
            raise refuse("volume mount", str(fstab), row, "is about the same folder or file system, and not ours. Remove it.")
    new = "\n".join([*kept, f"{_MARK} {volume_id}", line, ""])
    if new == old:
        return
    if dry_run:
        Machine(dry_run=True).run(["sh", "-c", f"echo '{_MARK} {volume_id}' >> {fstab}; echo '{line}' >> {fstab}"])
        return
    say(f"{fstab}: {line}")
    real = fstab.resolve()
    write_lasting(real, new, mode=(real.stat().st_mode & 0o7777) if real.exists() else 0o644)


def _holders(at: str) -> list[str]:
    """Processes with a file or their working folder below a folder, as `python (1234)`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [process / "cwd", process / "root", process / "exe", *(process / "fd").iterdir()]
            held = any(f"{link.readlink()}/".startswith(f"{at.rstrip('/')}/") for link in links)
            name = (process / "comm").read_text().strip()
        except OSError:
            continue  # it ended, or it is a kernel thread
        if held:
            found.append(f"{name} ({process.name})")
    return found
