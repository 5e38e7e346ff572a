"""Devices of this machine: which one a volume is, and what is on it. Never by the order of devices, which changes between boots."""

import errno
import os
import time
from pathlib import Path

from scripts.aws.calls import say
from scripts.aws.commands import Machine, program
from scripts.aws.errors import FailedError, Problem, refuse

_BY_ID = Path("/dev/disk/by-id")
_BLOCKS = Path("/sys/block")
_MIB = 1 << 20
_SAMPLES = 256
_TOOLS = ("blkid", "wipefs", "lsblk")


def serial_of(volume_id: str) -> str:
    """The serial number that EBS's NVMe devices show: the id without its dash (EBS user guide, "Identify the device")."""
    return volume_id.replace("-", "")


def find_device(volume_id: str, *, xen_name: str | None = None) -> Path | None:
    """The device of a volume on this machine; None: it is not attached here.

    Args:
        volume_id: as vol-0123.
        xen_name: on instances before Nitro, which have no NVMe, the device name of the attachment, as /dev/sdf, said by the user.

    Raises:
        RefusedError: /dev/disk/by-id and /sys disagree.
    """
    serial, found = serial_of(volume_id), set()
    for suffix in ("", "_1"):
        link = _BY_ID / f"nvme-Amazon_Elastic_Block_Store_{serial}{suffix}"
        if link.exists():
            found.add(link.resolve())
    for shown in _BLOCKS.glob("nvme*/device/serial"):
        if shown.read_text().strip() == serial:
            found.add(Path("/dev") / shown.parts[-3])
    if not found and xen_name is not None:
        device = Path("/dev") / Path(xen_name).name.replace("sd", "xvd", 1)
        if (_BLOCKS / device.name).exists():
            found.add(device)
    if len(found) > 1:
        devices = ", ".join(sorted(map(str, found)))
        fix = f"several devices have its serial: {devices}. Type `udevadm trigger`, or reboot."
        raise refuse("this machine", "volume", volume_id, fix)
    return next(iter(found), None)


def wait_for_device(volume_id: str, *, xen_name: str | None, at_most: float, dry_run: bool) -> Path:
    """The device of a volume, which appears some seconds after it was attached. In a dry run where it will be.

    Raises:
        FailedError: it did not appear.
    """
    until = time.monotonic() + at_most
    while (device := find_device(volume_id, xen_name=xen_name)) is None:
        if dry_run:
            return _BY_ID / f"nvme-Amazon_Elastic_Block_Store_{serial_of(volume_id)}"
        if time.monotonic() > until:
            hint = "Attach it with `volume attach`; on an instance without NVMe say --device-name, as the attachment has it."
            raise FailedError(f"{volume_id}: no device of this machine has its serial {serial_of(volume_id)}. {hint}")
        time.sleep(0.5)
    say(f"{volume_id} is {device}")
    return device


def size_of(device: Path) -> int:
    """Bytes of a block device."""
    descriptor = os.open(device, os.O_RDONLY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def mounts_of(device: Path) -> list[str]:
    """Where the device is mounted, as this process sees it."""
    number = os.stat(device).st_rdev
    shown = f"{os.major(number)}:{os.minor(number)}"
    rows = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [row[4].encode().decode("unicode_escape") for row in rows if row[2] == shown]


def in_use(device: Path) -> bool:
    """Whether the kernel holds the device: mounted in any namespace, swap, or part of a RAID, LVM or LUKS device."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise
    return False


def signature(machine: Machine, device: Path) -> dict[str, str]:
    """What libblkid finds on the device by looking (no cache), as {"TYPE": "ext4", "UUID": ..., "LABEL": ..., "PTTYPE": ...}.

    Raises:
        FailedError: it cannot be told, as where two file systems' signatures stand on it (blkid's exit code 8).
    """
    code, printed = machine.read(["blkid", "-p", "-o", "export", str(device)], allowed=(0, 2, 8))
    if code == 8:
        fix = "blkid finds signatures of several systems on it. Look at it: wipefs --no-act."
        raise refuse("this machine", "device", device, fix)
    return dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)


def why_not_empty(machine: Machine, device: Path) -> list[Problem]:
    """Everything that speaks against writing over a device; an empty list only if all witnesses agree that it holds nothing."""
    missing = [tool for tool in _TOOLS if program(tool) is None]
    if missing:
        return [
            Problem(tool, None, "is not installed, so what the device holds cannot be told. Install util-linux.")
            for tool in missing
        ]
    name, problems = str(device), []
    for at in mounts_of(device):
        problems.append(Problem(name, None, f"is mounted at {at}."))
    if in_use(device):
        problems.append(Problem(name, None, "is in use by the kernel (mounted, swap, RAID, LVM or encrypted)."))
    found = signature(machine, device)
    for key in ("TYPE", "PTTYPE", "USAGE"):
        if key in found:
            problems.append(Problem(name, None, f"blkid finds {key}={found[key]} on it."))
    _, listed = machine.read(["wipefs", "--no-act", "--parsable", name])
    for line in listed.splitlines():
        if not line.startswith("#"):
            problems.append(Problem(name, None, f"wipefs finds a signature on it: {line}."))
    _, shown = machine.read(["lsblk", "--noheadings", "--paths", "--list", "--output", "NAME,TYPE,FSTYPE,MOUNTPOINT", name])
    rows = [line.split() for line in shown.splitlines()]
    for row in rows[1:]:
        problems.append(Problem(name, None, f"has a part: {' '.join(row)}."))
    if rows and len(rows[0]) > 2:
        problems.append(Problem(name, None, f"lsblk sees on it: {' '.join(rows[0][2:])}."))
    written = _first_written(device)
    if written is not None:
        problems.append(Problem(name, None, f"is not empty: byte {written} is not zero, as all are of a new volume."))
    return problems


def _first_written(device: Path) -> int | None:
    """Where something other than zero stands: in the first or last MiB, or in one of many blocks between. None: nowhere."""
    size = size_of(device)
    steps = range(_MIB, max(size - _MIB, _MIB), max((size // _SAMPLES) & ~4095, 4096))
    places = [(0, _MIB), *((place, 4096) for place in steps), (max(size - _MIB, 0), _MIB)]
    with open(device, "rb", buffering=0) as file:
        for place, length in places:
            block = os.pread(file.fileno(), length, place)
            rest = block.lstrip(b"\0")
            if rest:
                return place + len(block) - len(rest)
    return None
