"""`instance launch`: one instance of a name, in the volume's zone; spot by a persistent request that stops it, not terminates."""

from argparse import Namespace
from typing import Any

from scripts.aws import instances, service, volume_life, volumes
from scripts.aws.calls import Answer, CallError, Cloud, answer, named, say
from scripts.aws.errors import FailedError, Problem, RefusedError
from scripts.aws.git import holds_credentials
from scripts.aws.once import create_once
from scripts.aws.user_data import user_data

ACTIONS = (
    *instances.ACTIONS,
    "ec2:RunInstances",
    "ec2:CreateTags",
    "ec2:DescribeImages",
    "ec2:DescribeSubnets",
    "ec2:DescribeVolumes",
    "ec2:AttachVolume",
    "ssm:GetParameter",
    "iam:PassRole",  # of the instance's profile, where one is given
)
_WHERE = "instance launch"
_PRETENDED = "i-00000000000000000"
_HINTS = {
    "MaxSpotInstanceCountExceeded": "The quota for spot instances of this family is used up, or 0: ask for more in Service Quotas.",
    "VcpuLimitExceeded": "The account's quota for this family is too small, or 0: ask for it in Service Quotas.",
    "InsufficientInstanceCapacity": "None is free in this zone now. Try later, or in another zone with a volume from a snapshot.",
    "SpotMaxPriceTooLow": "Leave --max-price away: the on-demand price is the limit then.",
    "UnsupportedOperation": "Not every type can be a spot instance that stops, and not in every zone.",
}


def launch(options: Namespace) -> int:
    """Launch it, or find it, wait until it runs, and attach the volume. Returns the exit code."""
    options.command = options.command[1:] if options.command[:1] == ["--"] else options.command
    _check(options)
    cloud = Cloud.of(options)
    volume = _volume(cloud, options)
    arguments = _arguments(cloud, options, volume)

    def create(token: str) -> Answer:
        pretend = {"Instances": [{"InstanceId": _PRETENDED, "State": {"Name": "pending"}}]}
        try:
            made = cloud.change("ec2", "run_instances", pretend=pretend, ClientToken=token, **arguments)
        except CallError as error:
            raise _explained(error) from None
        return dict(made["Instances"][0])

    def exists(made: Answer) -> bool | None:
        now = {"State": {"Name": "pending"}} if cloud.dry_run else instances.describe(cloud, made["InstanceId"])
        return None if now is None else instances.state(now) in instances.LIVING

    instance, new = create_once(
        "instance",
        options.name,
        look=lambda: _found(cloud, options),
        create=create,
        exists=exists,
        every=options.poll_seconds,
    )
    instance_id = instance["InstanceId"]
    if not new:
        _same(instance, options, volume)
    if cloud.dry_run:
        print_user_data(arguments.get("UserData"))
    if instances.state(instance) in ("stopping", "stopped"):
        say(f"{instance_id} is {instances.state(instance)}. Type `instance start --name {options.name}` to start it.")
    else:
        instances.wait_for(cloud, instance_id, ("running",), every=options.poll_seconds, at_most=options.wait_seconds)
    if volume is not None:
        _attach(cloud, volume, instance_id, options)
    return answer(
        status="launched" if new else "exists", instance=instance_id, name=options.name, volume=volume and volume["VolumeId"]
    )


def print_user_data(text: str | None) -> None:
    """Show the user data as it would be, line by line."""
    if text:
        say("\n".join(["user data:", *(f"    {line}" for line in text.splitlines())]))


def _check(options: Namespace) -> None:
    problems = []
    if bool(options.image) == bool(options.image_parameter):
        problems.append(Problem("--image and --image-parameter", None, "give one of them."))
    if options.on_demand and options.max_price:
        problems.append(Problem("--max-price", options.max_price, "is for spot instances."))
    if options.protect and not options.on_demand:
        problems.append(
            Problem("--protect", None, "is not for spot instances: EC2 refuses it. Type --on-demand, or leave it away.")
        )
    if options.command and not options.repository:
        problems.append(Problem("--repository", None, "is needed for a training's command: where the instance clones it from."))
    if holds_credentials(options.repository):
        problems.append(Problem("--repository", "***", "holds a user or password, and user data can be read by anybody there."))
    if options.user == "root":
        problems.append(Problem("--user", "root", "is not who shall train. Ubuntu's user is ubuntu, Amazon Linux's ec2-user."))
    if options.when_finished != "nothing" and not (options.profile and options.command):
        fix = "needs a training's command, and --profile with a role that may do it (`python -m scripts.aws policy`)."
        problems.append(Problem("--when-finished", options.when_finished, fix))
    if options.branch and options.commit:
        problems.append(Problem("--branch and --commit", None, "exclude each other."))
    why = service.forbidden_words(options.command)
    if why:
        problems.append(Problem("the training's command", None, why))
    if problems:
        raise RefusedError(_WHERE, problems)


def _volume(cloud: Cloud, options: Namespace) -> Answer | None:
    """The volume that will be attached. It decides the zone."""
    if options.volume is None:
        return None
    volume = volumes.find(cloud, options.volume)
    if volume is None and cloud.dry_run:
        return volumes.pretended("vol-00000000000000000", options.volume)
    if volume is None:
        fix = "is the name of no volume in this region. Make it with `volume create`, or name the region with --region."
        raise RefusedError(_WHERE, [Problem("--volume", options.volume, fix)])
    zone = volume["AvailabilityZone"]
    if options.zone not in (None, zone):
        fix = f"but the volume {volume['VolumeId']} is in {zone}, and can be attached only there."
        raise RefusedError(_WHERE, [Problem("--zone", options.zone, fix)])
    return volume


def _found(cloud: Cloud, options: Namespace) -> Answer | None:
    found = instances.find(cloud, options.name)
    if len(found.instances) > 1:
        return instances.the_one(cloud, options.name, "launch")  # refuses, and says why
    if not found.instances and found.requests:
        ids = ", ".join(one["SpotInstanceRequestId"] for one in found.requests)
        fix = f"has no instance, but spot request {ids} may start one. Type `instance terminate --name {options.name}` first."
        raise RefusedError(_WHERE, [Problem("--name", options.name, fix)])
    return found.instance


def _same(instance: Answer, options: Namespace, volume: Answer | None) -> None:
    """Refuse where the instance of this name is not what was asked for."""
    has = {"--type": instance.get("InstanceType"), "--zone": instance["Placement"]["AvailabilityZone"]}
    wish = {"--type": options.type, "--zone": (volume or {}).get("AvailabilityZone") or options.zone}
    where = f"{instance['InstanceId']} of this name"
    problems = [
        Problem(key, value, f"{where} has {has[key]}. Take another --name, or terminate it first.")
        for key, value in wish.items()
        if value not in (None, has[key])
    ]
    if instances.is_spot(instance) == options.on_demand:
        kind = "a spot instance" if options.on_demand else "no spot instance"
        problems.append(Problem("--on-demand" if options.on_demand else "--spot", None, f"{where} is {kind}. Terminate it first."))
    if problems:
        raise RefusedError(_WHERE, problems)


def _arguments(cloud: Cloud, options: Namespace, volume: Answer | None) -> dict[str, Any]:
    """The arguments of RunInstances, but the token."""
    image = options.image or _image_of(cloud, options.image_parameter)
    zone = (volume or {}).get("AvailabilityZone") or options.zone
    if options.subnet:
        zone = _zone_of_subnet(cloud, options, zone)
    root = {"VolumeType": "gp3", "VolumeSize": options.root_gib, "Encrypted": True, "DeleteOnTermination": True}
    kinds = ["instance", "volume"] + ([] if options.on_demand else ["spot-instances-request"])
    arguments = {
        "ImageId": image,
        "InstanceType": options.type,
        "MinCount": 1,
        "MaxCount": 1,
        "KeyName": options.key_name,
        "SubnetId": options.subnet,
        "SecurityGroupIds": options.security_group or None,
        "Placement": {"AvailabilityZone": zone} if zone and not options.subnet else None,
        "IamInstanceProfile": {"Name": options.profile} if options.profile else None,
        "BlockDeviceMappings": [{"DeviceName": _root_device(cloud, image), "Ebs": root}],
        # Version 2 only, and not beyond this host: a container or a tricked web client cannot fetch the role's keys.
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": [{"ResourceType": kind, "Tags": _tags(kind, options.name)} for kind in kinds],
        "InstanceMarketOptions": None if options.on_demand else _spot(options),
        "DisableApiTermination": True if options.protect else None,
        "UserData": _user_data(cloud, options, volume),
    }
    return {key: value for key, value in arguments.items() if value is not None}


def _tags(kind: str, name: str) -> list[dict[str, str]]:
    """Tags of one kind of thing. The root disk must not be taken for the data volume of the same name."""
    return named(f"{name}.root" if kind == "volume" else name)


def _spot(options: Namespace) -> dict[str, Any]:
    """A request that stays: interrupted, the instance stops with its disks, and EC2 starts it again when there is room."""
    choices = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
    return {"MarketType": "spot", "SpotOptions": choices | ({"MaxPrice": options.max_price} if options.max_price else {})}


def _user_data(cloud: Cloud, options: Namespace, volume: Answer | None) -> str | None:
    if not options.repository:
        return None
    zone = (volume or {}).get("AvailabilityZone") or options.zone or ""
    region = cloud.region or zone[:-1] or None
    if options.when_finished != "nothing" and region is None:
        raise RefusedError(_WHERE, [Problem("--region", None, f"is needed for --when-finished {options.when_finished}.")])
    return user_data(options, volume_id=volume["VolumeId"] if volume is not None else None, region=region)


def _image_of(cloud: Cloud, parameter: str) -> str:
    found = cloud.read("ssm", "get_parameter", Name=parameter)
    return str(found["Parameter"]["Value"]) if found else "ami-00000000000000000"


def _root_device(cloud: Cloud, image: str) -> str:
    """The name of the image's root disk: another name would make a second disk of it."""
    images = cloud.read("ec2", "describe_images", ImageIds=[image]).get("Images", ())
    if images:
        return str(images[0]["RootDeviceName"])
    if cloud.dry_run:
        return "/dev/sda1"
    fix = "is no image of this region that this account can see."
    raise RefusedError(_WHERE, [Problem("--image", image, fix)])


def _zone_of_subnet(cloud: Cloud, options: Namespace, zone: str | None) -> str | None:
    subnets = cloud.read("ec2", "describe_subnets", SubnetIds=[options.subnet]).get("Subnets", ())
    if not subnets:
        return zone
    lies = str(subnets[0]["AvailabilityZone"])
    if zone not in (None, lies):
        fix = f"is in {lies}, but the instance must be in {zone}, where the volume is."
        raise RefusedError(_WHERE, [Problem("--subnet", options.subnet, fix)])
    return lies


def _attach(cloud: Cloud, volume: Answer, instance_id: str, options: Namespace) -> None:
    present = None if cloud.dry_run else volumes.describe(cloud, volume["VolumeId"])
    volume_life.attach_to(cloud, present or volume, instance_id, options=options)


def _explained(error: CallError) -> Exception:
    hint = _HINTS.get(error.code)
    if hint is None:
        return error
    return FailedError(f"{error} {hint}")
