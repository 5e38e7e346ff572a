"""`instance launch`, stop, start, terminate, status: against moto's server, with the real boto3, interrupted at every call."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.aws.conftest import ZONE, Account

CHANGES = ("RunInstances", "CreateTags", "AttachVolume", "TerminateInstances", "CancelSpotInstanceRequests", "StopInstances")
QUICK = ("--poll-seconds", "0.05")
TRAINING = ("--", "torchrun", "--standalone", "-m", "src.train", 'data.path=/data/it\'s a $path with 100% "quotes"')


class Launches:
    """The parameters of every RunInstances."""

    def __init__(self, account: Account) -> None:
        self.forms: list[dict[str, str]] = []
        account.proxy.intercept = self

    def __call__(self, action: str, form: dict[str, str]) -> None:
        if action == "RunInstances":
            self.forms.append(form)


@pytest.fixture
def launches(account: Account) -> Launches:
    return Launches(account)


def image(account: Account) -> str:
    """An image of this account."""
    ec2 = account.client("ec2")
    found = ec2.describe_images(Owners=["self"])["Images"]
    made = found[0] if found else ec2.register_image(Name="mine", Architecture="x86_64")
    return str(made["ImageId"])


def make_volume(account: Account, name: str = "imagenet", zone: str = ZONE) -> str:
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "imagenet-trainer:name", "Value": name}]}]
    made = account.client("ec2").create_volume(AvailabilityZone=zone, Size=400, VolumeType="gp3", TagSpecifications=tags)
    return str(made["VolumeId"])


def instances(account: Account) -> list[dict[str, Any]]:
    found = account.client("ec2").describe_instances()["Reservations"]
    return [one for group in found for one in group["Instances"]]


def living(account: Account) -> list[dict[str, Any]]:
    return [one for one in instances(account) if one["State"]["Name"] not in ("terminated", "shutting-down")]


def words_to_launch(account: Account, *more: str) -> list[str]:
    return ["instance", "launch", "--name", "trainer", "--type", "g5.xlarge", "--image", image(account), *QUICK, *more]


def test_a_spot_instance_stops_instead_of_terminating_and_is_closed_and_encrypted(account: Account, launches: Launches) -> None:
    volume = make_volume(account)
    more = ("--volume", "imagenet", "--repository", "https://example.org/trainer", "--key-name", "mine", *TRAINING)
    result = account.did(*words_to_launch(account, *more))
    (form,) = launches.forms
    root = account.client("ec2").describe_images(Owners=["self"])["Images"][0]["RootDeviceName"]
    assert form["InstanceMarketOptions.MarketType"] == "spot"
    assert form["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == "persistent"
    assert form["InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior"] == "stop"
    assert "InstanceMarketOptions.SpotOptions.MaxPrice" not in form
    assert form["MetadataOptions.HttpTokens"] == "required" and form["MetadataOptions.HttpPutResponseHopLimit"] == "1"
    assert form["BlockDeviceMapping.1.DeviceName"] == root, "another name would make a second disk"
    assert form["BlockDeviceMapping.1.Ebs.Encrypted"] == "true" and form["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"
    assert "BlockDeviceMapping.2.DeviceName" not in form, "the data volume must not go with the instance"
    assert form["Placement.AvailabilityZone"] == ZONE
    kinds = {form[f"TagSpecification.{number}.ResourceType"] for number in (1, 2, 3)}
    assert kinds == {"instance", "volume", "spot-instances-request"}
    assert not any(key.startswith(("SecurityGroup", "NetworkInterface")) for key in form), "nobody is let in by us"
    (instance,) = living(account)
    assert result == {"status": "launched", "instance": instance["InstanceId"], "name": "trainer", "volume": volume}
    attached = account.client("ec2").describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"][0]
    assert attached["InstanceId"] == instance["InstanceId"]


def test_a_second_launch_finds_the_first(account: Account, launches: Launches) -> None:
    make_volume(account)
    first = account.did(*words_to_launch(account, "--volume", "imagenet"))
    again = account.did(*words_to_launch(account, "--volume", "imagenet"))
    assert again == {**first, "status": "exists"} and len(instances(account)) == 1 and len(launches.forms) == 1
    other = account.here(*words_to_launch(account, "--type", "g4dn.xlarge", "--volume", "imagenet", "--on-demand"))
    assert other.code == 2 and "--type = g4dn.xlarge" in other.err and "--on-demand" in other.err
    assert len(instances(account)) == 1


def test_a_name_may_be_used_again_after_its_instance_is_gone(account: Account, launches: Launches) -> None:
    first = account.did(*words_to_launch(account, "--on-demand"))["instance"]
    account.did("instance", "terminate", "--name", "trainer", "--confirm", first, *QUICK)
    second = account.did(*words_to_launch(account, "--on-demand"))["instance"]
    assert second != first and [one["InstanceId"] for one in living(account)] == [second]
    assert len({form["ClientToken"] for form in launches.forms}) == 2


def test_on_demand_options(account: Account, launches: Launches) -> None:
    iam = account.client("iam")
    iam.create_instance_profile(InstanceProfileName="trainers")
    group = account.client("ec2").describe_security_groups()["SecurityGroups"][0]["GroupId"]
    subnet = next(one for one in account.client("ec2").describe_subnets()["Subnets"] if one["AvailabilityZone"] == ZONE)["SubnetId"]
    more = ("--on-demand", "--protect", "--profile", "trainers", "--security-group", group, "--subnet", subnet, "--root-gib", "77")
    account.did(*words_to_launch(account, *more, "--zone", ZONE))
    (form,) = launches.forms
    assert not any(key.startswith("InstanceMarketOptions") for key in form) and form["DisableApiTermination"] == "true"
    assert form["IamInstanceProfile.Name"] == "trainers" and form["SecurityGroupId.1"] == group and form["SubnetId"] == subnet
    assert form["BlockDeviceMapping.1.Ebs.VolumeSize"] == "77" and "UserData" not in form


def test_the_newest_image_is_looked_up(account: Account, launches: Launches) -> None:
    ssm = account.client("ssm")
    ssm.put_parameter(Name="/mine/newest", Value=image(account), Type="String")
    words = words_to_launch(account, "--on-demand", "--image-parameter", "/mine/newest")
    at = words.index("--image")
    account.did(*words[:at], *words[at + 2 :])
    assert launches.forms[0]["ImageId"] == image(account)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--volume", "missing"), "--volume = missing"),
        (("--volume", "imagenet", "--zone", "us-east-1b"), "is in us-east-1a"),
        (("--protect",), "--protect"),
        (("--on-demand", "--max-price", "1"), "--max-price"),
        (("--image-parameter", "/x"), "give one of them"),
        (("--", "python", "-m", "src.train"), "--repository"),
        (("--repository", "https://me:sentinel@example.org/x"), "user or password"),
        (("--repository", "r", "--when-finished", "stop", "--", "python"), "--profile"),
        (("--repository", "r", "--", "python", "-m", "src.train", "--multirun"), "sweep"),
        (("--repository", "r", "--", "WANDB_API_KEY=sentinel"), "looks like a key"),
        (("--repository", "r", "--", "python", "-m", "src.train", "a" * 17000), "16384"),
        (("--user", "root", "--branch", "a", "--commit", "b"), "exclude each other"),
        (("--security-group", "default"), "One looks like sg-"),
        (("--at", "/da ta"), "an absolute path"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_change(account: Account, more: tuple[str, ...], words: str) -> None:
    make_volume(account)
    done = account.here(*words_to_launch(account, *more))
    assert done.code == 2 and words in done.err, done.err
    assert "sentinel" not in done.err + done.out and "Traceback" not in done.err
    assert not set(CHANGES) & set(account.proxy.calls) and instances(account) == []


def interrupted(account: Account, words: list[str], at: int | str, manner: str) -> bool:
    """Launch, broken at a call, and once more; False: there are not so many calls."""
    account.reset()
    volume = make_volume(account)
    words[words.index("--image") + 1] = image(account)
    account.proxy.breaks(manner, **({"at": at} if isinstance(at, int) else {"call": at}))
    done = account.run(*words)
    assert done.returncode in (-9, 0, 1), done.stderr
    broken = bool(account.proxy.broken)
    launched_once(account, volume, account.did(*words))
    return broken


def launched_once(account: Account, volume: str, result: dict[str, Any]) -> None:
    (instance,) = living(account)
    assert len(instances(account)) == 1 and result["instance"] == instance["InstanceId"]
    attached = account.client("ec2").describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"]
    assert [one["InstanceId"] for one in attached] == [instance["InstanceId"]]


@pytest.mark.parametrize(
    ("call", "manner"),
    [("RunInstances", "kill before"), ("RunInstances", "kill after"), ("RunInstances", "drop"), ("AttachVolume", "kill after")],
)
def test_interrupted_at_a_change_a_second_launch_ends_with_one_instance(account: Account, call: str, manner: str) -> None:
    assert interrupted(account, words_to_launch(account, "--volume", "imagenet"), call, manner)


@pytest.mark.long
@pytest.mark.parametrize("manner", ["kill before", "kill after", "drop"])
def test_interrupted_at_any_call_a_second_launch_ends_with_one_instance(account: Account, manner: str) -> None:
    words, at = words_to_launch(account, "--volume", "imagenet"), 1
    while interrupted(account, words, at, manner):
        at += 1
    assert at > 8


def test_a_launch_that_aws_does_not_show_yet_is_not_made_twice(account: Account, launches: Launches) -> None:
    """EC2 may show an instance seconds after it was made: the token answers for it."""
    words = words_to_launch(account, "--on-demand")
    first = account.did(*words)["instance"]
    hidden = iter(range(1))

    def not_yet(action: str, answer: bytes) -> bytes:
        if action == "DescribeInstances" and next(hidden, None) is not None:
            return (
                answer.replace(b"imagenet-trainer:name", b"x")
                .replace(b"<reservationSet>", b"<x>")
                .replace(b"</reservationSet>", b"</x>")
            )
        return answer

    account.proxy.rewrite = not_yet
    assert account.did(*words)["instance"] == first
    assert len(instances(account)) == 1 and len(launches.forms) == 2


def ask_for_spot(account: Account) -> tuple[str, str]:
    """moto's RunInstances makes no spot requests; this asks for one as EC2 would have it: open, with our tags and an instance."""
    tags = [{"Key": "imagenet-trainer:name", "Value": "trainer"}]
    ec2 = account.client("ec2")
    made = ec2.request_spot_instances(
        SpotPrice="1",
        InstanceCount=1,
        Type="persistent",
        LaunchSpecification={"ImageId": image(account), "InstanceType": "g5.xlarge"},
        TagSpecifications=[{"ResourceType": "spot-instances-request", "Tags": tags}],
    )
    request = str(made["SpotInstanceRequests"][0]["SpotInstanceRequestId"])
    ec2.create_tags(Resources=[request], Tags=tags)
    (instance,) = living(account)  # without tags, as one that EC2 starts again for a request
    return request, str(instance["InstanceId"])


def test_terminate_cancels_the_spot_request_first(account: Account) -> None:
    request, instance = ask_for_spot(account)
    shown = account.did("instance", "status", "--name", "trainer")
    assert [one["instance"] for one in shown["instances"]] == [instance]
    assert [one["request"] for one in shown["requests"]] == [request]
    account.proxy.calls.clear()
    unconfirmed = account.here("instance", "terminate", "--name", "trainer", *QUICK)
    wrong = account.here("instance", "terminate", "--name", "trainer", "--confirm", "i-0123", *QUICK)
    for done in (unconfirmed, wrong):
        assert done.code == 2 and f"--confirm {instance}" in done.err
    assert not set(CHANGES) & set(account.proxy.calls) and len(living(account)) == 1
    account.did("instance", "terminate", "--name", "trainer", "--confirm", instance, *QUICK)
    changes = [call for call in account.proxy.calls if call in CHANGES]
    assert changes == ["CreateTags", "CancelSpotInstanceRequests", "TerminateInstances"]
    assert living(account) == []
    states = [one["State"] for one in account.client("ec2").describe_spot_instance_requests()["SpotInstanceRequests"]]
    assert set(states) <= {"cancelled"}
    again = account.did("instance", "terminate", "--name", "trainer", "--confirm", instance, *QUICK)
    assert again["status"] == "gone"


@pytest.mark.parametrize("call", ["CancelSpotInstanceRequests", "TerminateInstances"])
@pytest.mark.parametrize("manner", ["kill before", "kill after"])
def test_terminate_interrupted_leaves_nothing_that_starts_again(account: Account, call: str, manner: str) -> None:
    _, instance = ask_for_spot(account)
    words = ("instance", "terminate", "--name", "trainer", "--confirm", instance, *QUICK)
    account.proxy.breaks(manner, call=call)
    account.run(*words)
    assert account.proxy.broken
    account.did(*words)
    assert living(account) == []
    states = [one["State"] for one in account.client("ec2").describe_spot_instance_requests()["SpotInstanceRequests"]]
    assert set(states) <= {"cancelled"}


def test_a_request_without_an_instance_is_cancelled_and_keeps_launch_from_making_a_second(account: Account) -> None:
    _, instance = ask_for_spot(account)
    account.client("ec2").terminate_instances(InstanceIds=[instance])  # by hand, in the console: EC2 would start another
    done = account.here(*words_to_launch(account))
    assert done.code == 2 and "may start one" in done.err and living(account) == []
    account.did("instance", "terminate", "--name", "trainer", *QUICK)
    assert account.client("ec2").describe_spot_instance_requests()["SpotInstanceRequests"] == []
    account.did(*words_to_launch(account))


def test_terminate_refuses_where_a_data_volume_would_go_with_the_instance(account: Account, launches: Launches) -> None:
    volume = make_volume(account)
    instance = account.did(*words_to_launch(account, "--volume", "imagenet"))["instance"]
    words = ("instance", "terminate", "--name", "trainer", "--confirm", instance, *QUICK)

    def goes_with_it(action: str, answer: bytes) -> bytes:
        if action != "DescribeInstances":
            return answer
        before, mark, after = answer.partition(f"<volumeId>{volume}</volumeId>".encode())
        assert mark, answer
        told = b"<deleteOnTermination>true</deleteOnTermination>"
        at = before.rindex(b"<item>")  # of its block device, where it stands before or behind the id
        end = after.index(b"</item>")
        item = before[at:] + mark + after[:end]
        item = re.sub(b"<deleteOnTermination>[^<]*</deleteOnTermination>", b"", item, flags=re.IGNORECASE)
        return before[:at] + item.replace(b"</ebs>", told + b"</ebs>") + after[end:]

    account.proxy.rewrite = goes_with_it
    done = account.here(*words)
    assert done.code == 2 and volume in done.err and "volume detach" in done.err and len(living(account)) == 1
    account.proxy.rewrite = None
    account.did(*words)
    assert account.client("ec2").describe_volumes(VolumeIds=[volume])["Volumes"][0]["Size"] == 400


def test_stop_and_start_may_be_repeated(account: Account, launches: Launches) -> None:
    instance = account.did(*words_to_launch(account))["instance"]
    for action, state in (("stop", "stopped"), ("stop", "stopped"), ("start", "running"), ("start", "running")):
        assert account.did("instance", action, "--name", "trainer", *QUICK) == {"status": state, "instance": instance}
        assert [one["State"]["Name"] for one in living(account)] == [state]
    missing = account.here("instance", "stop", "--name", "nobody", *QUICK)
    assert missing.code == 2 and "nobody" in missing.err


def test_a_dry_run_prints_every_call_and_makes_none_that_changes(account: Account, tmp_path: Path) -> None:
    make_volume(account)
    more = ("--volume", "imagenet", "--repository", "https://example.org/trainer", "--dry-run", *TRAINING)
    done = account.here(*words_to_launch(account, *more))
    assert done.code == 0, done.err
    told = [line.split(" ", 3) for line in done.out.splitlines() if line.startswith("would call ")]
    assert [line[2] for line in told] == ["ec2:RunInstances", "ec2:CreateTags", "ec2:AttachVolume"]
    arguments = json.loads(told[0][3])
    assert arguments["InstanceMarketOptions"]["SpotOptions"]["SpotInstanceType"] == "persistent"
    assert "    #cloud-boothook\n    #!/bin/bash\n" in done.err and "src.train" in done.err
    assert not set(CHANGES) & set(account.proxy.calls) and instances(account) == []


def test_the_actions_called_are_those_of_the_policy(account: Account, launches: Launches) -> None:
    from scripts.aws.policy import actions

    make_volume(account)
    iam = account.client("iam")
    iam.create_instance_profile(InstanceProfileName="trainers")
    subnet = next(one for one in account.client("ec2").describe_subnets()["Subnets"] if one["AvailabilityZone"] == ZONE)["SubnetId"]
    account.client("ssm").put_parameter(Name="/newest", Value=image(account), Type="String")
    words = words_to_launch(account, "--volume", "imagenet", "--profile", "trainers", "--subnet", subnet)
    words[words.index("--image")] = "--image-parameter"
    words[words.index("--image-parameter") + 1] = "/newest"
    instance = account.did(*words)["instance"]
    for action in ("status", "stop", "start"):
        account.did("instance", action, "--name", "trainer", *(QUICK if action != "status" else ()))
    account.did("instance", "terminate", "--name", "trainer", "--confirm", instance, *QUICK)
    _, other = ask_for_spot(account)
    account.did("instance", "terminate", "--name", "trainer", "--confirm", other, *QUICK)
    # PassRole is no call: EC2 asks for it when a profile is given.
    assert {action.partition(":")[2] for action in actions("instance")} - {"PassRole"} == set(account.proxy.calls)
