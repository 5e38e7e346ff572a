"""A volume from its creation to its deletion, as AWS sees it. Every step looks first, so it can be repeated."""

from argparse import Namespace
from datetime import datetime, timedelta, timezone

from scripts.aws import volumes
from scripts.aws.calls import NAME_TAG, Answer, CallError, Cloud, answer, named, say, tags_of, wait_until
from scripts.aws.devices import find_device, mounts_of
from scripts.aws.errors import FailedError, Problem, RefusedError, refuse
from scripts.aws.once import create_once
from scripts.aws.snapshot import why_not_covered

ACTIONS = (
    *volumes.ACTIONS,
    "ec2:DescribeInstances",
    "ec2:CreateVolume",
    "ec2:CreateTags",
    "ec2:AttachVolume",
    "ec2:DetachVolume",
    "ec2:DeleteVolume",
)
_DEVICE_NAMES = tuple(f"/dev/sd{letter}" for letter in "fghijklmnop")  # EC2's advice for data volumes (device naming on Linux)
_FORGOTTEN = timedelta(minutes=10)  # a volume that old is shown, if it lives


def create(options: Namespace) -> int:
    """Make the volume of this name, empty or from a snapshot, and wait until it is there."""
    cloud, name = Cloud.of(options), options.name
    snapshot = options.snapshot
    if options.action == "from-snapshot" and snapshot is None:
        snapshot = _newest_complete(cloud, options.from_name or options.name)
    wish = {"AvailabilityZone": options.zone, "VolumeType": options.type, "Encrypted": options.encrypted or None}
    wish |= {"Size": options.size_gib, "Iops": options.iops, "Throughput": options.throughput, "SnapshotId": snapshot}
    arguments = {key: value for key, value in wish.items() if value is not None}

    def make(token: str) -> Answer:
        tags = [{"ResourceType": "volume", "Tags": named(options.name)}]
        pretend = volumes.pretended("vol-00000000000000000", options.name)
        return cloud.change("ec2", "create_volume", pretend=pretend, ClientToken=token, TagSpecifications=tags, **arguments)

    def exists(made: Answer) -> bool | None:
        if cloud.dry_run or volumes.describe(cloud, made["VolumeId"]) is not None:
            return True
        old = "CreateTime" in made and datetime.now(timezone.utc) - made["CreateTime"] > _FORGOTTEN
        return False if old else None

    volume, new = create_once(
        "volume",
        name,
        look=lambda: volumes.find(cloud, name),
        create=make,
        exists=exists,
        every=options.poll_seconds,
        patience=min(90.0, options.wait_seconds),
    )
    if not new:
        _same(volume, arguments)
    wait_for_state(cloud, volume["VolumeId"], "available", "in-use", options=options)
    return answer(dry_run=options.dry_run, status="created" if new else "exists", volume=volume["VolumeId"], name=options.name)


def attach(options: Namespace) -> int:
    """Attach the volume to an instance, and wait until it is."""
    cloud = Cloud.of(options)
    volume = volumes.wanted(cloud, options)
    attach_to(cloud, volume, options.instance, options=options)
    return answer(dry_run=options.dry_run, status="attached", volume=volume["VolumeId"], instance=options.instance)


def attach_to(cloud: Cloud, volume: Answer, instance_id: str, *, options: Namespace) -> None:
    """Attach a volume, and note in its tag when.

    Raises:
        RefusedError: it is attached elsewhere, or the instance is gone or in another zone.
    """
    volume_id, present = volume["VolumeId"], volumes.attachment(volume)
    if present is None:
        device = _free_device_name(cloud, volume, instance_id)
        # Noted before it can be written to: a snapshot that is older than this does not hold what was written since.
        _note_attached(cloud, volume_id, datetime.now(timezone.utc))
        try:
            cloud.change("ec2", "attach_volume", VolumeId=volume_id, InstanceId=instance_id, Device=device)
        except CallError as error:
            if error.code != "VolumeInUse":  # a lost answer's attachment, or somebody else's: looked at below
                raise
            present = volumes.attachment(volumes.describe(cloud, volume_id) or {})
    if present is not None and present["InstanceId"] != instance_id:
        fix = f"is attached to {present['InstanceId']} ({present['State']}). Type `volume detach` first."
        raise refuse("volume attach", "volume", volume_id, fix)
    if cloud.dry_run:
        return

    def look() -> tuple[bool, str]:
        now = volumes.attachment(volumes.describe(cloud, volume_id) or {})
        state = now["State"] if now is not None else "not attached yet"
        return state == "attached", state

    wait_until(look, what=f"{volume_id} at {instance_id}", every=options.poll_seconds, at_most=options.wait_seconds)
    attached = volumes.describe(cloud, volume_id) or {}
    when = (volumes.attachment(attached) or {}).get("AttachTime")
    if when is not None and tags_of(attached).get(volumes.ATTACHED_TAG) != when.isoformat():
        _note_attached(cloud, volume_id, when)  # by AWS's own clock, that snapshots go by, too


def detach(options: Namespace) -> int:
    """Detach the volume from its instance, and wait until it is free."""
    cloud = Cloud.of(options)
    volume = volumes.wanted(cloud, options)
    volume_id, present = volume["VolumeId"], volumes.attachment(volume)
    device = find_device(volume_id)
    if device is not None and (at := mounts_of(device)):
        raise refuse("volume detach", "volume", volume_id, f"is mounted here at {', '.join(at)}. Type `volume unmount` first.")
    if present is not None and present["State"] != "detaching":
        if present.get("Device") in ("/dev/xvda", "/dev/sda1"):
            raise refuse("volume detach", "volume", volume_id, "is the root disk of its instance.")
        try:
            cloud.change("ec2", "detach_volume", VolumeId=volume_id, InstanceId=present["InstanceId"])
        except CallError as error:
            if error.code != "IncorrectState":  # it was detached in between
                raise
    wait_for_state(cloud, volume_id, "available", options=options)
    return answer(dry_run=options.dry_run, status="detached", volume=volume_id)


def delete(options: Namespace) -> int:
    """Delete the volume, if a complete snapshot holds all that was ever written to it and its id was typed."""
    cloud = Cloud.of(options)
    volume = volumes.describe(cloud, options.volume_id) if options.volume_id else volumes.find(cloud, options.name)
    if volume is None:
        say("AWS knows no such volume (any more): nothing to delete.")
        return answer(dry_run=options.dry_run, status="gone", volume=options.volume_id or options.confirm)
    volume_id = volume["VolumeId"]
    problems = []
    if options.confirm != volume_id:
        problems.append(Problem("--confirm", options.confirm, f"type --confirm {volume_id}: it is gone for ever then."))
    if (present := volumes.attachment(volume)) is not None:
        fix = f"is attached to {present['InstanceId']} ({present['State']}). Type `volume detach` first, or terminate the instance."
        problems.append(Problem("volume", volume_id, fix))
    elif NAME_TAG not in tags_of(volume):
        problems.append(Problem("volume", volume_id, "was not made by these commands (it has no tag of theirs)."))
    snapshots = volumes.snapshots_of(cloud, volume_id)
    reasons = {snapshot["SnapshotId"]: why_not_covered(cloud, volume, snapshot) for snapshot in snapshots}
    covered = next((snapshot for snapshot, reason in reasons.items() if reason is None), None)
    if covered is None:
        told = "; ".join(f"{snapshot} {reason}" for snapshot, reason in reasons.items()) or "there is none"
        problems.append(Problem("snapshot", None, f"none holds what is on {volume_id}: {told}. Type `volume snapshot` first."))
    if problems:
        raise RefusedError("volume delete", problems)
    try:
        cloud.change("ec2", "delete_volume", VolumeId=volume_id)
    except CallError as error:
        if error.code != "InvalidVolume.NotFound":
            raise
    if not cloud.dry_run:
        wait_until(
            lambda: (volumes.describe(cloud, volume_id) is None, "being deleted"),
            what=volume_id,
            every=options.poll_seconds,
            at_most=options.wait_seconds,
        )
    return answer(dry_run=options.dry_run, status="deleted", volume=volume_id, snapshot=covered)


def wait_for_state(cloud: Cloud, volume_id: str, *states: str, options: Namespace) -> None:
    """Wait until the volume is in one of these states.

    Raises:
        FailedError: it is in error, gone, or not there in time.
    """
    if cloud.dry_run:
        return

    def look() -> tuple[bool, str]:
        volume = volumes.describe(cloud, volume_id)
        state = volume["State"] if volume is not None else "not shown yet"
        if state == "error":
            raise FailedError(f"{volume_id}: AWS could not make it (state error). Delete it in the console, and create it again.")
        return state in states, state

    wait_until(look, what=volume_id, every=options.poll_seconds, at_most=options.wait_seconds)


def _newest_complete(cloud: Cloud, name: str) -> str:
    for snapshot in volumes.snapshots_named(cloud, name):
        if snapshot["State"] == "completed":
            return str(snapshot["SnapshotId"])
    if cloud.dry_run:
        return "snap-00000000000000000"
    raise refuse(
        "volume from-snapshot", "--name", name, "no complete snapshot has this name. Name one with --snapshot, or another --from."
    )


def _same(volume: Answer, wish: dict[str, object]) -> None:
    """Refuse if the volume of this name is another than was asked for."""
    problems = [
        Problem(
            key,
            value,
            f"{volume['VolumeId']} of this name has {volume.get(key)}. Take another --name, or ask for that.",
        )
        for key, value in wish.items()
        if volume.get(key) != value
    ]
    if problems:
        raise RefusedError("volume create", problems)


def _free_device_name(cloud: Cloud, volume: Answer, instance_id: str) -> str:
    """A device name for the attachment. Only a name: the device is found by its serial."""
    found = cloud.read("ec2", "describe_instances", Filters=[{"Name": "instance-id", "Values": [instance_id]}])
    instances = [instance for one in found.get("Reservations", ()) for instance in one["Instances"]]
    if not instances:
        if cloud.dry_run:
            return _DEVICE_NAMES[0]
        raise refuse("volume attach", "--instance", instance_id, "there is no such instance in this region.")
    instance, problems = instances[0], []
    state, zone = instance["State"]["Name"], instance["Placement"]["AvailabilityZone"]
    if state not in ("pending", "running", "stopping", "stopped"):
        problems.append(Problem("--instance", instance_id, f"is {state}. Launch one with `instance launch`."))
    if volume.get("AvailabilityZone", zone) != zone:
        fix = f"is in {zone}, the volume in {volume['AvailabilityZone']}: a volume can be attached in its own zone only. "
        problems.append(Problem("--instance", instance_id, fix + "Launch one there, or make a volume `from-snapshot` here."))
    if problems:
        raise RefusedError("volume attach", problems)
    taken = {mapping["DeviceName"] for mapping in instance.get("BlockDeviceMappings", ())}
    free = [device for device in _DEVICE_NAMES if device not in taken]
    if not free:
        raise refuse("volume attach", "--instance", instance_id, "has no free device name from /dev/sdf to /dev/sdp.")
    return free[0]


def _note_attached(cloud: Cloud, volume_id: str, when: datetime) -> None:
    tags = [{"Key": volumes.ATTACHED_TAG, "Value": when.isoformat()}]
    cloud.change("ec2", "create_tags", Resources=[volume_id], Tags=tags)
