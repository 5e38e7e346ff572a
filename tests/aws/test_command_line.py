"""`python -m scripts.aws`: what is refused as typed, what a dry run prints, what it needs installed, what it is allowed to call."""

import ast
import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aws.conftest import ROOT, ZONE, Account, Device, error_page

QUICK = ("--poll-seconds", "0.05", "--wait-seconds", "20")
CREATE = ("volume", "create", "--name", "imagenet", "--size-gib", "10", "--zone", ZONE, *QUICK)
VOLUME = "vol-0123456789abcdef0"
FILES = sorted((ROOT / "scripts" / "aws").glob("*.py"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--access-key", "AKIAIOSFODNN7EXAMPLE"),
        ("--aws-secret-access-key=wJalrXUtnFEMI",),
        ("--session-token", "x"),
        ("--name", "AKIAIOSFODNN7EXAMPLE"),
        ("--", "env", "WANDB_API_KEY=0123456789abcdef", "python"),
        ("--", "HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz0123456789", "python"),
    ],
)
def test_a_key_on_the_command_line_is_refused_and_not_repeated(account: Account, arguments: tuple[str, ...]) -> None:
    done = account.here(*CREATE, *arguments)
    assert done.code == 2
    assert "looks like a key" in done.err
    for secret in ("AKIA", "wJalr", "0123456789abcdef", "hf_"):
        assert secret not in done.err + done.out
    assert account.proxy.calls == []


def test_credentials_of_the_environment_appear_nowhere(account: Account) -> None:
    secret = {"AWS_SECRET_ACCESS_KEY": "sentinel-of-a-secret", "AWS_SESSION_TOKEN": "sentinel-of-a-token"}
    for arguments in (CREATE, (*CREATE, "--dry-run"), ("volume", "attach", "--name", "nothing", "--instance", "i-1", *QUICK)):
        done = account.run(*arguments, env=secret)
        assert "sentinel" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "usage"),
        (("volum",), "invalid choice"),
        (("volume", "create", "--name", "a b", "--size-gib", "1", "--zone", ZONE), "is no name"),
        (("volume", "create", "--nam", "a", "--size-gib", "1", "--zone", ZONE), "--name"),
        (("volume", "create", "--name", "a", "--size-gib", "1", "--zone", "mars"), "is no availability zone"),
        (("volume", "format", "--volume-id", "i-0123"), "is no such id. One looks like vol-"),
        (("volume", "mount", "--name", "a", "--volume-id", VOLUME, "--at", "/x"), "not allowed with"),
        (("volume", "attach", "--name", "nothing", "--instance", "i-1"), "there is no such volume"),
    ],
)
def test_what_is_wrong_as_typed_is_told_with_exit_code_2(account: Account, arguments: tuple[str, ...], told: str) -> None:
    done = account.here(*arguments)
    assert done.code == 2
    assert told in done.err or told == "usage"
    assert "Traceback" not in done.err


def test_another_size_for_a_name_that_exists_is_refused(account: Account) -> None:
    account.did(*CREATE)
    done = account.here(*[word if word != "10" else "20" for word in CREATE])
    assert done.code == 2
    assert "has 10" in done.err
    assert len(account.own_volumes()) == 1


def test_an_instance_of_another_zone_or_that_is_gone_is_refused(account: Account) -> None:
    account.did(*[word if word != ZONE else "us-east-1b" for word in CREATE])
    instance = account.launch()
    attach = ("volume", "attach", "--name", "imagenet", "--instance")
    assert "in its own zone only" in account.here(*attach, instance, *QUICK).err
    account.client("ec2").terminate_instances(InstanceIds=[instance])
    assert "is terminated" in account.here(*attach, instance, *QUICK).err
    assert account.here(*attach, "i-0123456789abcdef0", *QUICK).code == 2
    assert "AttachVolume" not in account.proxy.calls


def test_a_volume_that_is_attached_elsewhere_is_not_taken_away(account: Account) -> None:
    account.did(*CREATE)
    first, second = account.launch(), account.launch()
    account.did("volume", "attach", "--name", "imagenet", "--instance", first, *QUICK)
    done = account.here("volume", "attach", "--name", "imagenet", "--instance", second, *QUICK)
    assert done.code == 2
    assert f"is attached to {first}" in done.err


def test_a_dry_run_prints_every_changing_call_that_the_real_run_makes_and_makes_none(account: Account) -> None:
    instance = account.launch()
    steps: list[tuple[str, ...]] = [
        CREATE,
        ("volume", "attach", "--name", "imagenet", "--instance", instance, *QUICK),
        ("volume", "detach", "--name", "imagenet", *QUICK),
        ("volume", "snapshot", "--name", "imagenet", *QUICK),
        ("volume", "from-snapshot", "--name", "copy", "--from", "imagenet", "--zone", ZONE, *QUICK),
        ("volume", "delete", "--name", "imagenet", "--confirm", "", *QUICK),
    ]
    for step in steps:
        volumes = account.own_volumes()
        typed = [word or volumes[0]["VolumeId"] for word in step]
        account.proxy.calls = []
        dry = account.here(*typed, "--dry-run")
        assert dry.code == 0, dry.err
        assert all(call.startswith(("Describe", "Get")) for call in account.proxy.calls)
        assert account.own_volumes() == volumes
        account.proxy.calls = []
        account.did(*typed)
        made = [call for call in account.proxy.calls if not call.startswith(("Describe", "Get"))]
        printed = re.findall(r"^would call \w+:(\w+) \{", dry.out, re.MULTILINE)
        # The second CreateTags puts right the clock of the first, after the answer of AWS.
        assert list(dict.fromkeys(made)) == printed, typed
        assert '"status": "dry run"' in dry.out


def test_a_dry_run_needs_no_credentials_and_no_account(account: Account) -> None:
    arguments = [*CREATE, "--dry-run"]
    kept = {name: value for name, value in account.environment().items() if not name.startswith("AWS_")}
    kept |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(account.home)}
    command = [sys.executable, "-m", "scripts.aws", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "would call ec2:CreateVolume" in done.stdout
    assert "credentials" in done.stderr


def test_a_dry_run_of_local_commands_prints_them_and_runs_none(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(VOLUME)
    fstab, at = tmp_path / "fstab", tmp_path / "data"
    state = tmp_path / "state"
    form = ("volume", "format", "--volume-id", VOLUME, "--files", "5000", "--state-folder", str(state))
    mount = ("volume", "mount", "--volume-id", VOLUME, "--at", str(at), "--fstab", str(fstab), "--owner", "0:0")
    dry = account.here(*form, "--dry-run")
    assert dry.code == 0, dry.err
    assert dry.out.startswith("would run mkfs.ext4 ")
    assert device.file.read_bytes() == bytes(64 << 20)
    assert not state.exists()
    account.did(*form)
    dry = account.here(*mount, "--dry-run")
    printed = [line.split()[2] for line in dry.out.splitlines() if line.startswith("would run")]
    assert printed == ["sh", "mkdir", "mount", "chown"]
    assert not fstab.exists()
    assert not at.exists()
    account.did(*mount)
    dry = account.here("volume", "unmount", "--volume-id", VOLUME, "--dry-run")
    assert f"would run umount {at}" in dry.out
    assert os.path.ismount(at)


def test_local_commands_need_no_boto3_and_others_say_how_to_install_it(account: Account, device: Device, tmp_path: Path) -> None:
    device.plug_in(VOLUME)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for package in ("boto3", "botocore"):
        (hidden / f"{package}.py").write_text(f"raise ModuleNotFoundError('No module named {package}', name='{package}')")
    env = {"PYTHONPATH": str(hidden)}
    state = ("--state-folder", str(tmp_path / "state"))
    account.do("volume", "format", "--volume-id", VOLUME, "--files", "5000", *state, env=env)
    account.do(
        "volume", "mount", "--volume-id", VOLUME, "--at", str(tmp_path / "data"), "--fstab", str(tmp_path / "fstab"), env=env
    )
    account.do("volume", "unmount", "--volume-id", VOLUME, env=env)
    assert account.proxy.calls == []
    done = account.run(*CREATE, env=env)
    assert done.returncode == 2
    assert "pip install 'imagenet-trainer[aws]'" in done.stderr


def test_help_of_every_command_is_instant_and_imports_neither_boto3_nor_torch(account: Account) -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['scripts.aws', *sys.argv[1:]]\n"
        "try:\n    runpy.run_module('scripts.aws', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "assert not {'boto3', 'botocore', 'torch', 'src'} & set(sys.modules)\n"
    )
    for arguments in (["--help"], ["volume", "--help"], ["volume", "format", "--help"], ["cost", "--help"], ["policy"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_imports_the_trainer_and_all_are_python_3_10(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 10))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name.split(".")[0] in ("src", "torch", "tests")]
    assert not [name for name in imported if name.split(".")[0] in ("tomllib",)]  # of 3.11


def test_the_policy_of_volumes_is_exactly_what_the_commands_call(account: Account) -> None:
    instance = account.launch()
    volume = account.did(*CREATE)["volume"]
    account.did("volume", "status", "--name", "imagenet")
    account.did("volume", "attach", "--name", "imagenet", "--instance", instance, *QUICK)
    account.did("volume", "detach", "--name", "imagenet", *QUICK)
    account.did("volume", "snapshot", "--name", "imagenet", *QUICK)
    long_ago = f"<startTime>{datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1):%Y-%m-%dT%H:%M:%S.000Z}<".encode()
    account.client("ec2").delete_tags(Resources=[volume], Tags=[{"Key": "imagenet-trainer:attached"}])
    account.proxy.rewrite = lambda action, answer: re.sub(rb"<startTime>[^<]*<", long_ago, answer)
    account.did("volume", "delete", "--name", "imagenet", "--confirm", volume, *QUICK)
    called = {("cloudwatch:" if call == "GetMetricStatistics" else "ec2:") + call for call in account.proxy.calls}
    policy = json.loads(account.here("policy", "--for", "volume").out)
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert allowed == called
    for statement in policy["Statement"]:
        looks_or_makes = re.compile(r":(Describe|Get|Create(Volume|Snapshot)$)")
        assert "Condition" in statement or all(looks_or_makes.search(action) for action in statement["Action"])


def test_a_call_that_is_not_allowed_is_told_with_its_name_and_the_policy(account: Account) -> None:
    def deny(action: str, form: dict[str, str]) -> tuple[int, bytes] | None:
        return (403, error_page("UnauthorizedOperation")) if action == "CreateVolume" else None

    account.proxy.intercept = deny
    done = account.here(*CREATE)
    assert done.code == 1
    assert "ec2:CreateVolume: UnauthorizedOperation" in done.err
    assert "python -m scripts.aws policy" in done.err


def test_costs_are_reckoned_from_the_prices_given(account: Account) -> None:
    volume = ("--size-gib", "400", "--price-gib-month", "0.1", "--days", "36.5")
    speed = ("--iops", "4000", "--price-iops-month", "0.01", "--throughput", "125")
    hours = ("--hours", "20", "--instances", "2", "--price-hour", "1", "--price-spot-hour", "0.25", "--lost-percent", "10")
    done = account.here("cost", *volume, *speed, *hours)
    assert done.code == 0
    assert json.loads(done.out) == {
        "volume": 48.0,  # 400 GiB x 0.1 x 36.5 days x 24 / 730 = 1.2 months
        "iops": 12.0,
        "on demand": 40.0,
        "spot": 11.0,
        "total on demand": 100.0,
        "total spot": 71.0,
    }
    assert "400 x 0.1 x 36.5 x 24 / 730 = 48.00" in done.err


def test_an_amount_without_its_price_is_refused_with_every_missing_one(account: Account) -> None:
    done = account.here("cost", "--size-gib", "400", "--throughput", "500", "--snapshot-gib", "150", "--hours", "3")
    assert done.code == 2
    for option in (
        "--price-gib-month",
        "--days",
        "--price-mibps-month",
        "--price-snapshot-gib-month",
        "--snapshot-days",
        "--price-hour",
    ):
        assert f"{option}: is missing" in done.err
    assert account.here("cost").code == 2
    assert account.here("cost", "--size-gib", "-1").code == 2
