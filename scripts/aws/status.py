"""What there is of a name: its volume, its snapshots, and its device on this machine."""

from argparse import Namespace
from typing import Any

from scripts.aws import volumes
from scripts.aws.calls import Answer, Cloud, answer, say
from scripts.aws.devices import find_device, mounts_of

ACTIONS = volumes.ACTIONS
_OF_VOLUME = ("VolumeId", "State", "Size", "VolumeType", "Iops", "Throughput", "AvailabilityZone")
_OF_SNAPSHOT = ("SnapshotId", "State", "Progress", "StartTime", "VolumeId")


def status(options: Namespace) -> int:
    """Tell it as a table, and as one line of JSON."""
    cloud = Cloud.of(options)
    volume = volumes.describe(cloud, options.volume_id) if options.volume_id else volumes.find(cloud, options.name)
    if volume is not None:
        told = _tell(volume)
        snapshots = volumes.snapshots_of(cloud, volume["VolumeId"])
    else:
        say("volume     none")
        told = {"volume": None}
        snapshots = volumes.snapshots_named(cloud, options.name) if options.name else []
    for one in snapshots:
        words = [one["SnapshotId"], one["State"], one.get("Progress") or "?", f"{one['StartTime']:%F %T}", f"of {one['VolumeId']}"]
        say(f"snapshot   {'  '.join(words)}")
    return answer(**told, snapshots=[{key: one.get(key) for key in _OF_SNAPSHOT} for one in snapshots])


def _tell(volume: Answer) -> dict[str, Any]:
    present, device = volumes.attachment(volume), find_device(volume["VolumeId"])
    mounted = mounts_of(device) if device is not None else []
    shown = {key: volume.get(key) for key in _OF_VOLUME}
    say(f"volume     {'  '.join(f'{value}' for value in shown.values() if value is not None)}")
    say("attached   " + (f"{present['InstanceId']}  {present['State']}" if present is not None else "no"))
    say(
        "device     "
        + (f"{device}  mounted at {', '.join(mounted) or 'no folder'}" if device is not None else "not on this machine")
    )
    attached = {"instance": present["InstanceId"], "state": present["State"]} if present is not None else None
    return {"volume": shown, "attached": attached, "device": str(device) if device else None, "mounted": mounted}
