"""A snapshot of a volume, whose file system is unmounted: taken, waited for through hours, and judged by what was written since.

A mounted file system is not frozen for it (fsfreeze): killed between freeze and thaw, the command would leave everything that
writes there hanging, and a data volume is easily unmounted for the seconds that CreateSnapshot takes.
"""

import time
from argparse import Namespace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from scripts.aws import volumes
from scripts.aws.calls import NAME_TAG, Answer, CallError, Cloud, answer, named, say, tags_of, wait_until
from scripts.aws.commands import Machine, need_root
from scripts.aws.devices import find_device, in_use, mounts_of
from scripts.aws.errors import AnswerLostError, FailedError, refuse
from scripts.aws.filesystem import last_written
from scripts.aws.mounting import unmount_device

ACTIONS = (*volumes.ACTIONS, "ec2:CreateSnapshot", "ec2:CreateTags", "ec2:DescribeInstances", "cloudwatch:GetMetricStatistics")
_MINUTE_KEPT = timedelta(
    days=15
)  # CloudWatch keeps values of a minute so long, of an hour for 455 days (CloudWatch concepts, "Metrics retention")
_SHOWN_WITHIN = 120.0  # seconds: AWS may not know at once what it has just made
_MOST_VALUES = 1440  # of one GetMetricStatistics


def snapshot(options: Namespace) -> int:
    """Take a snapshot that holds all that was written, unless there is one, and wait until it is complete."""
    cloud, machine = Cloud.of(options), Machine(dry_run=options.dry_run)
    volume = volumes.wanted(cloud, options)
    volume_id = volume["VolumeId"]
    device = _quieten(cloud, machine, volume)
    written = last_written(machine, device) if device is not None else None
    chosen = _covering(cloud, volume, written)
    if chosen is None:
        last = max((when for when in (written, volumes.last_attached(volume)) if when is not None), default=None)
        if last is not None and not cloud.dry_run:  # so that the snapshot begins in a later second than what it holds
            time.sleep(min(max(0.0, last.timestamp() + 1.05 - time.time()), 1.05))
        chosen = _create(cloud, volume)
    snapshot_id = chosen["SnapshotId"]
    if cloud.dry_run:
        return answer(dry_run=True, volume=volume_id, snapshot=snapshot_id)
    if options.no_wait:
        return answer(status=chosen["State"], volume=volume_id, snapshot=snapshot_id)
    wait_for_snapshot(cloud, snapshot_id, every=options.poll_seconds, at_most=options.wait_seconds)
    return answer(status="completed", volume=volume_id, snapshot=snapshot_id)


def wait_for_snapshot(cloud: Cloud, snapshot_id: str, *, every: float, at_most: float) -> None:
    """Wait until a snapshot is complete; the SDK's own waiter gives up after ten minutes, a first snapshot of 400 GiB takes hours.

    Raises:
        FailedError: AWS could not make it, or it is gone, or it took longer than `at_most` seconds.
    """
    begun = time.monotonic()

    def look() -> tuple[bool, str]:
        try:
            found = cloud.read("ec2", "describe_snapshots", SnapshotIds=[snapshot_id]).get("Snapshots", [])
        except CallError as error:
            if error.code != "InvalidSnapshot.NotFound" or time.monotonic() - begun > _SHOWN_WITHIN:
                raise
            found = []
        if not found:
            return False, "not shown yet"
        state, progress = found[0]["State"], found[0].get("Progress") or "?"
        if state in ("error", "recoverable", "recovering"):
            why = found[0].get("StateMessage", "")
            raise FailedError(f"{snapshot_id}: {state}: {why}. Type `volume snapshot` again for another.")
        return state == "completed", f"{state}, {progress}"

    wait_until(look, what=snapshot_id, every=every, at_most=at_most)


def why_not_covered(cloud: Cloud, volume: Answer, snapshot: Answer, *, written: datetime | None = None) -> str | None:
    """Why a snapshot may not hold all that is on the volume now; None: it does.

    Three witnesses of what was written since it began: when the volume was last attached (AWS's word, or our tag), the file
    system's own note where its device is at hand, and CloudWatch's count of write operations from the next whole minute on (which
    it knows some minutes late).

    Args:
        cloud: where to ask.
        volume: as AWS describes it.
        snapshot: as AWS describes it.
        written: what the file system on the device says.
    """
    if snapshot["VolumeId"] != volume["VolumeId"]:
        return f"is of another volume, {snapshot['VolumeId']}"
    if snapshot["State"] != "completed":
        return f"is {snapshot['State']} ({snapshot.get('Progress') or '?'})"
    return _newer_than(cloud, volume, snapshot, written)


def _newer_than(cloud: Cloud, volume: Answer, snapshot: Answer, written: datetime | None) -> str | None:
    began = snapshot["StartTime"]
    second = began.replace(microsecond=0)  # all others are known to the second
    attached = volumes.last_attached(volume)
    if attached is not None and attached >= second:
        return f"began at {began:%F %T}, before the volume was last attached ({attached:%F %T})"
    if written is not None and written >= second:
        return f"began at {began:%F %T}, before the file system was last written ({written:%F %T})"
    operations = _writes_since(cloud, volume["VolumeId"], began)
    if operations:
        return f"began at {began:%F %T}; CloudWatch counts {operations:.0f} writes since"
    return None


def _covering(cloud: Cloud, volume: Answer, written: datetime | None) -> Answer | None:
    """The newest snapshot that is complete, or on its way, and began after the last writing."""
    for one in volumes.snapshots_of(cloud, volume["VolumeId"]):
        if one["State"] in ("pending", "completed") and _newer_than(cloud, volume, one, written) is None:
            say(f"{one['SnapshotId']} of {one['StartTime']:%F %T} holds all that was written: no other is needed.")
            return one
    return None


def _create(cloud: Cloud, volume: Answer) -> Answer:
    """CreateSnapshot knows no token: a request whose answer was lost is not repeated; what it made is looked for."""
    volume_id = volume["VolumeId"]
    name = tags_of(volume).get(NAME_TAG, str(volume_id))
    tags = [{"ResourceType": "snapshot", "Tags": named(name)}]
    pretend: dict[str, Any] = {"SnapshotId": "snap-00000000000000000", "State": "pending"}
    before = {one["SnapshotId"] for one in volumes.snapshots_of(cloud, volume_id)}
    try:
        return cloud.change(
            "ec2",
            "create_snapshot",
            pretend=pretend,
            repeat=False,
            VolumeId=volume_id,
            Description=f"{name} ({volume_id})",
            TagSpecifications=tags,
        )
    except AnswerLostError:
        made = next((one for one in volumes.snapshots_of(cloud, volume_id) if one["SnapshotId"] not in before), None)
        if made is None:
            raise
        return made


def _quieten(cloud: Cloud, machine: Machine, volume: Answer) -> Path | None:
    """See to it that nothing of the volume is mounted. Returns its device where it is attached to this machine.

    Raises:
        RefusedError: it is attached to a running instance that is not this machine: whether it is mounted there cannot be told.
    """
    volume_id, present = volume["VolumeId"], volumes.attachment(volume)
    device = find_device(volume_id)
    if device is not None:
        need_root("snapshot", dry_run=machine.dry_run)
        if mounts_of(device):
            unmount_device(machine, device)
        if not machine.dry_run and in_use(device):
            raise refuse(
                "volume snapshot", "device", device, "is still held by something (a container's mount, swap, LVM). Free it first."
            )
        return device
    if present is not None:
        found = cloud.read("ec2", "describe_instances", Filters=[{"Name": "instance-id", "Values": [present["InstanceId"]]}])
        states = [instance["State"]["Name"] for one in found.get("Reservations", ()) for instance in one["Instances"]]
        if any(state not in ("stopped", "terminated") for state in states):
            there = f"is attached to {present['InstanceId']} ({states[0]})."
            fix = f"{there} Type this command there, or `volume unmount` there and `volume detach` here."
            raise refuse("volume snapshot", "volume", volume_id, fix)
    return None


def _writes_since(cloud: Cloud, volume_id: str, began: datetime) -> float:
    """Write operations that CloudWatch counted on the volume after this minute; a volume that is not attached counts none."""
    now = datetime.now(timezone.utc)
    period = 60 if now - began < _MINUTE_KEPT else 3600
    start = datetime.fromtimestamp((int(began.timestamp()) // period + 1) * period, timezone.utc)
    total = 0.0
    while start < now:
        end = start + timedelta(seconds=period * _MOST_VALUES)
        metric = {"Namespace": "AWS/EBS", "MetricName": "VolumeWriteOps", "Statistics": ["Sum"], "Period": period}
        dimensions = [{"Name": "VolumeId", "Value": volume_id}]
        found = cloud.read("cloudwatch", "get_metric_statistics", StartTime=start, EndTime=end, Dimensions=dimensions, **metric)
        total += sum(point["Sum"] for point in found.get("Datapoints", ()))
        start = end
    return total
