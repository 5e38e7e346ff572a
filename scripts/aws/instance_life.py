"""`instance status`, `stop`, `start`, `terminate`: each looks first, so each may be repeated."""

from argparse import Namespace
from pathlib import Path

from scripts.aws import instances, service
from scripts.aws.calls import Answer, CallError, Cloud, answer, say
from scripts.aws.errors import Problem, RefusedError

ACTIONS = (
    *instances.ACTIONS,
    "ec2:StopInstances",
    "ec2:StartInstances",
    "ec2:TerminateInstances",
    "ec2:CancelSpotInstanceRequests",
)


def status(options: Namespace) -> int:
    """Show what there is of this name, as a table for people and JSON for programs."""
    found = instances.find(Cloud.of(options), options.name)
    rows = [_row(one) for one in found.instances]
    requests = [
        {"request": one["SpotInstanceRequestId"], "state": one["State"], "why": one.get("Status", {}).get("Code")}
        for one in found.requests
    ]
    training = training_here()
    for row in [*rows, *requests, *([training] if training else [])]:
        say("  ".join(f"{key} {value}" for key, value in row.items() if value not in (None, [])))
    if not rows and not requests:
        say(f"no living instance and no open spot request has the name {options.name}")
    return answer(name=options.name, instances=rows, requests=requests, training=training)


def stop(options: Namespace) -> int:
    """Stop the instance. A spot instance that its owner stopped is not started by EC2."""
    cloud = Cloud.of(options)
    instance = instances.the_one(cloud, options.name, "stop")
    instances.adopt(cloud, instance, options.name)
    instance_id = instance["InstanceId"]
    if instances.state(instance) != "stopped":
        cloud.change("ec2", "stop_instances", InstanceIds=[instance_id])
    _wait(cloud, instance_id, "stopped", options)
    return answer(status="stopping" if options.no_wait else "stopped", instance=instance_id)


def start(options: Namespace) -> int:
    """Start the instance again."""
    cloud = Cloud.of(options)
    instance = instances.the_one(cloud, options.name, "start")
    instances.adopt(cloud, instance, options.name)
    instance_id = instance["InstanceId"]
    if instances.state(instance) == "stopping":
        _wait(cloud, instance_id, "stopped", options)
    if instances.state(instance) in ("stopping", "stopped"):
        try:
            cloud.change("ec2", "start_instances", InstanceIds=[instance_id])
        except CallError as error:
            if error.code == "IncorrectSpotRequestState":
                say("EC2 interrupted this spot instance, so only EC2 can start it: it does when there is room again.")
            raise
    _wait(cloud, instance_id, "running", options)
    return answer(status="starting" if options.no_wait else "running", instance=instance_id)


def terminate(options: Namespace) -> int:
    """Cancel the spot request first, for EC2 would start another instance, then terminate."""
    cloud = Cloud.of(options)
    found = instances.find(cloud, options.name)
    _check(found, options)
    if found.instance is not None:
        instances.adopt(cloud, found.instance, options.name)  # before its request is gone: a killed command must find it again
    if found.requests:
        ids = sorted(one["SpotInstanceRequestId"] for one in found.requests)
        cloud.change("ec2", "cancel_spot_instance_requests", SpotInstanceRequestIds=ids)
    if found.instance is None:
        say(f"no living instance has the name {options.name}: nothing to terminate.")
        return answer(status="gone", name=options.name)
    instance_id = found.instance["InstanceId"]
    for volume, _ in instances.data_volumes(found.instance):
        say(f"{volume} stays: it is detached when the instance has shut down.")
    cloud.change("ec2", "terminate_instances", InstanceIds=[instance_id])
    _wait(cloud, instance_id, "terminated", options)
    return answer(status="terminating" if options.no_wait else "terminated", instance=instance_id)


def training_here() -> Answer | None:
    """Return how the training of this machine stands, if it is one that `instance setup` has set up."""
    unit = service.installed_text()
    if unit is None:
        return None
    folder = next((line.partition("=")[2] for line in unit.splitlines() if line.startswith("WorkingDirectory=")), "")
    states = sorted(Path(folder).glob("runs/*/status.json"), key=lambda path: path.stat().st_mtime)
    newest = states[-1] if states else None
    return {
        "service": "active" if service.is_active() else "inactive",
        "run": newest and newest.parent.name,
        "status": newest and newest.read_text(errors="replace"),
    }


def _check(found: instances.Things, options: Namespace) -> None:
    problems = []
    ids = sorted(one["InstanceId"] for one in found.instances)
    if len(ids) > 1:
        problems.append(
            Problem("--name", options.name, f"is the name of several instances: {', '.join(ids)}. Tags were changed by hand.")
        )
    elif ids and options.confirm != ids[0]:
        problems.append(
            Problem("--confirm", options.confirm, f"type --confirm {ids[0]}, the id of the instance that goes for ever.")
        )
    for instance in found.instances:
        for volume, goes in instances.data_volumes(instance):
            if goes:
                fix = (
                    "would be deleted with the instance (DeleteOnTermination). Type `volume unmount` there and "
                    f"`volume detach --volume-id {volume}` first."
                )
                problems.append(Problem("volume", volume, fix))
    if problems:
        raise RefusedError("instance terminate", problems)


def _wait(cloud: Cloud, instance_id: str, state: str, options: Namespace) -> None:
    if not options.no_wait:
        instances.wait_for(cloud, instance_id, (state,), every=options.poll_seconds, at_most=options.wait_seconds)


def _row(instance: Answer) -> Answer:
    return {
        "instance": instance["InstanceId"],
        "state": instances.state(instance),
        "type": instance.get("InstanceType"),
        "zone": instance["Placement"]["AvailabilityZone"],
        "kind": "spot" if instances.is_spot(instance) else "on demand",
        "address": instance.get("PublicIpAddress") or instance.get("PrivateIpAddress"),
        "since": instance.get("LaunchTime") and str(instance["LaunchTime"]),
        "volumes": [volume for volume, _ in instances.data_volumes(instance)],
    }
