"""What AWS knows of volumes and their snapshots: looked up by our tag or by id."""

from argparse import Namespace
from datetime import datetime
from typing import Any

from scripts.aws.calls import NAME_TAG, Answer, CallError, Cloud, named_filter, tags_of
from scripts.aws.errors import refuse

ACTIONS = ("ec2:DescribeVolumes", "ec2:DescribeSnapshots")
ATTACHED_TAG = "imagenet-trainer:attached"
_LIVING = ["creating", "available", "in-use", "error"]


def find(cloud: Cloud, name: str) -> Answer | None:
    """The living volume of this name.

    Raises:
        RefusedError: there are several.
    """
    filters = [named_filter(name), {"Name": "status", "Values": _LIVING}]
    volumes = cloud.read("ec2", "describe_volumes", Filters=filters).get("Volumes", [])
    if len(volumes) > 1:
        ids = ", ".join(sorted(volume["VolumeId"] for volume in volumes))
        raise refuse("AWS", "--name", name, f"is the name of several volumes: {ids}. Say which with --volume-id.")
    return volumes[0] if volumes else None


def describe(cloud: Cloud, volume_id: str) -> Answer | None:
    """The volume of this id; None: AWS knows none (any more)."""
    try:
        volumes = cloud.read("ec2", "describe_volumes", VolumeIds=[volume_id]).get("Volumes", [])
    except CallError as error:
        if error.code == "InvalidVolume.NotFound":
            return None
        raise
    return volumes[0] if volumes and volumes[0]["State"] not in ("deleting", "deleted") else None


def wanted(cloud: Cloud, options: Namespace) -> Answer:
    """The volume that --volume-id or --name names. In a dry run of an account without it, one that `create` would make.

    Raises:
        RefusedError: there is none.
    """
    volume = describe(cloud, options.volume_id) if options.volume_id else find(cloud, options.name)
    if volume is not None:
        return volume
    if cloud.dry_run:
        return pretended(options.volume_id or "vol-00000000000000000", options.name)
    what, value = ("--volume-id", options.volume_id) if options.volume_id else ("--name", options.name)
    raise refuse(
        "AWS",
        what,
        value,
        "there is no such volume in this region. Make it with `volume create`, or name the region with --region.",
    )


def pretended(volume_id: str, name: str | None) -> Answer:
    """A volume that a dry run goes on with."""
    tags = [{"Key": NAME_TAG, "Value": name or volume_id}]
    return {"VolumeId": volume_id, "State": "available", "Attachments": [], "Tags": tags}


def attachment(volume: Answer) -> Answer | None:
    """Where the volume is attached, or being attached or detached; None: nowhere."""
    return next((dict(one) for one in volume.get("Attachments", ()) if one.get("State") != "detached"), None)


def last_attached(volume: Answer) -> datetime | None:
    """When it was last attached, as AWS (now) or our tag (before) say; None: never by these commands."""
    times = [one["AttachTime"] for one in volume.get("Attachments", ()) if "AttachTime" in one]
    noted = tags_of(volume).get(ATTACHED_TAG)
    if noted is not None:
        times.append(datetime.fromisoformat(noted))
    return max(times, default=None)


def snapshots_of(cloud: Cloud, volume_id: str) -> list[Answer]:
    """This account's snapshots of one volume, the newest first. Those of a volume of the same name are not among them."""
    filters = [{"Name": "volume-id", "Values": [volume_id]}]
    return _newest_first(cloud.read("ec2", "describe_snapshots", OwnerIds=["self"], Filters=filters))


def snapshots_named(cloud: Cloud, name: str) -> list[Answer]:
    """This account's snapshots with our tag and this name, of whatever volume, the newest first."""
    return _newest_first(cloud.read("ec2", "describe_snapshots", OwnerIds=["self"], Filters=[named_filter(name)]))


def _newest_first(found: Answer) -> list[Answer]:
    snapshots: list[dict[str, Any]] = found.get("Snapshots", [])
    return sorted(snapshots, key=lambda snapshot: snapshot["StartTime"], reverse=True)
