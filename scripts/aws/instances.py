"""What AWS knows of instances and spot requests: looked up by our tag."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.aws.calls import NAME_TAG, Answer, Cloud, named, named_filter, tags_of, wait_until
from scripts.aws.errors import FailedError, refuse

ACTIONS = ("ec2:DescribeInstances", "ec2:DescribeSpotInstanceRequests")
LIVING = ("pending", "running", "stopping", "stopped")
_OPEN = ("open", "active", "disabled")  # states of a spot request from which EC2 may start an instance again
_ROOT_NAMES = ("/dev/xvda", "/dev/sda1")


@dataclass(frozen=True)
class Things:
    """All that bears one name: instances that live, and spot requests that could start one."""

    instances: list[Answer] = field(default_factory=list)
    requests: list[Answer] = field(default_factory=list)

    @property
    def instance(self) -> Answer | None:
        """The one instance, or None."""
        return self.instances[0] if self.instances else None


def find(cloud: Cloud, name: str) -> Things:
    """Return the instances with our tag, those of the name's spot requests, and the requests, of the instances too."""
    instances = {one["InstanceId"]: one for one in _instances(cloud, [named_filter(name)])}
    requests = {one["SpotInstanceRequestId"]: one for one in _requests(cloud, [named_filter(name)])}
    # An instance that EC2 started again for a request need not have the tags; and a request may have missed them.
    missing = {one["InstanceId"] for one in requests.values() if one.get("InstanceId")} - instances.keys()
    if missing:
        instances |= {one["InstanceId"]: one for one in _instances(cloud, [{"Name": "instance-id", "Values": sorted(missing)}])}
    asked = {one["SpotInstanceRequestId"] for one in instances.values() if one.get("SpotInstanceRequestId")} - requests.keys()
    if asked:
        found = _requests(cloud, [{"Name": "spot-instance-request-id", "Values": sorted(asked)}])
        requests |= {one["SpotInstanceRequestId"]: one for one in found}
    living = [one for one in instances.values() if state(one) in LIVING]
    return Things(living, [one for one in requests.values() if one["State"] in _OPEN])


def the_one(cloud: Cloud, name: str, action: str) -> Answer:
    """Return the living instance of this name.

    Raises:
        RefusedError: there is none, or there are several.
    """
    found = find(cloud, name).instances
    if len(found) == 1:
        return found[0]
    if not found:
        fix = "no living instance of this region has this name. See `instance status`, or name the region with --region."
        raise refuse(f"instance {action}", "--name", name, fix)
    ids = ", ".join(sorted(one["InstanceId"] for one in found))
    raise refuse(f"instance {action}", "--name", name, f"is the name of several instances: {ids}. Tags were changed by hand.")


def adopt(cloud: Cloud, instance: Answer, name: str) -> None:
    """Give our tag to an instance that EC2 started again for a spot request, which need not have it.

    It is what finds the instance when the request is gone, and what the policy's rights go by.
    """
    if NAME_TAG not in tags_of(instance):
        cloud.change("ec2", "create_tags", Resources=[instance["InstanceId"]], Tags=named(name))


def describe(cloud: Cloud, instance_id: str) -> Answer | None:
    """Return the instance of this id, gone ones too for about an hour; None: not known, or not shown yet."""
    return next(iter(_instances(cloud, [{"Name": "instance-id", "Values": [instance_id]}])), None)


def state(instance: Answer) -> str:
    """Return pending, running, stopping, stopped, shutting-down or terminated."""
    return str(instance["State"]["Name"])


def is_spot(instance: Answer) -> bool:
    """Return whether it is a spot instance."""
    return instance.get("InstanceLifecycle") == "spot"


def data_volumes(instance: Answer) -> list[tuple[str, bool]]:
    """Return (id, whether it goes with the instance) of every volume but the root disk."""
    root = instance.get("RootDeviceName")
    mappings = [one for one in instance.get("BlockDeviceMappings", ()) if one["DeviceName"] not in (root, *_ROOT_NAMES)]
    return [(one["Ebs"]["VolumeId"], bool(one["Ebs"].get("DeleteOnTermination"))) for one in mappings if "Ebs" in one]


def wait_for(cloud: Cloud, instance_id: str, wanted: Sequence[str], *, every: float, at_most: float) -> None:
    """Wait until the instance is in one of these states.

    Raises:
        FailedError: it went another way (terminated), or it takes too long.
    """
    if cloud.dry_run:
        return

    def look() -> tuple[bool, str]:
        instance = describe(cloud, instance_id)
        if instance is None:
            return "terminated" in wanted, "not shown"
        now = state(instance)
        if now == "terminated" and now not in wanted:
            reason = instance.get("StateReason", {}).get("Message", "no reason is given")
            raise FailedError(f"{instance_id} was terminated: {reason}")
        return now in wanted, now

    wait_until(look, what=instance_id, every=every, at_most=at_most)


def _instances(cloud: Cloud, filters: list[dict[str, Any]]) -> list[Answer]:
    found = cloud.read("ec2", "describe_instances", Filters=filters)
    return [instance for one in found.get("Reservations", ()) for instance in one["Instances"]]


def _requests(cloud: Cloud, filters: list[dict[str, Any]]) -> list[Answer]:
    return list(cloud.read("ec2", "describe_spot_instance_requests", Filters=filters).get("SpotInstanceRequests", ()))
