"""docs/aws.md, typed from first to last: an account of moto's, a loop device as the volume, this machine as the instance."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.aws.policy import actions
from tests.aws.conftest import Account, Device, account, device, moto_server, why_no_devices
from tests.docs.conftest import OpenShell
from tests.docs.guides import ROOT, Command, blocks_of, commands_of
from tests.docs.scenarios import Added, Scenario, Swap
from tests.scale_models import LAYOUTS, scale_model

__all__ = ["account", "device", "moto_server"]  # fixtures of the tests of AWS

GUIDE = "docs/aws.md"
IDS = "the ids that the commands before have printed"
SET_UP = "9. Change the code or the command"
SECTIONS = tuple(dict.fromkeys(title for command in commands_of(GUIDE) for title in command.headings[1:2] if title != SET_UP))
SCENARIO = Scenario(
    GUIDE,
    SECTIONS,
    changes=(
        Swap("vol-0123456789abcdef0", "{volume}", IDS),
        Swap("i-0123456789abcdef0", "{instance}", IDS),
        Swap("sg-0123456789abcdef0", "{group}", "one that exists"),
        Swap("sudo .venv/bin/python", "python", "the test is root, and in the environment"),
        Swap(".venv/bin/python", "python", "the environment of the tests"),
        Swap("/data", "{data}", "a folder of the test"),
        Swap(
            "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id", "/mine/newest", "moto has no such"
        ),
        Swap(
            "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
            "/mine/newest",
            "moto has no such",
        ),
        Swap("fetch=torrent ", "", "fetching is tried by the guide to ImageNet; here the archives lie there"),
        Added("volume format", "--files 5000 --state-folder {state}", "the device has 64 MiB"),
        Added("volume mount", "--fstab {fstab}", "this machine's own stays as it is"),
        Added("delete_source=true", "expect=any checksum=off", "twenty classes, not a thousand"),
        Added("level=2", "expect=any", "twenty classes, not a thousand"),
    ),
)
SYSTEMS_PYTHON = "/usr/bin/python3"
SETTING_UP = Scenario(
    GUIDE,
    (SET_UP,),
    changes=(
        Swap("sudo .venv/bin/python", "python", "the test is root, and in the environment"),
        Swap(
            "instance setup",
            f"instance setup --dry-run --user nobody --python {SYSTEMS_PYTHON} --folder {{clone}}",
            "this machine is no instance; tests/aws/test_setup_*.py carry it out",
        ),
    ),
)
SCENARIOS = (SCENARIO, SETTING_UP)


class Reader:
    """Who types the guide: knows the ids that were printed, and does what udev does."""

    def __init__(self, account: Account, device: Device, folder: Path) -> None:
        self.account, self.device = account, device
        names = {"data": "disk", "fstab": "fstab", "state": "state"}
        self.places: dict[str, str] = {place: str(folder / name) for place, name in names.items()}
        self.places |= {"group": _account_with_what_the_guide_does_elsewhere(account), "volume": "", "instance": ""}
        self.told: dict[str, list[dict[str, Any]]] = {}
        self.calls: dict[str, set[str]] = {}

    def before(self, command: Command) -> None:
        self.account.proxy.calls.clear()
        if "src.prepare fetch=torrent" in command.text:
            LAYOUTS["official"](Path(self.places["data"]) / "download", scale_model(20))

    def after(self, command: Command, printed: str) -> None:
        """Take the ids from the last line, and plug the device in or pull it out."""
        found = re.search(r"scripts\.aws ((?:volume|instance) [\w-]+)", command.text)
        if found is None or "--dry-run" in command.text:
            return
        result = json.loads(printed.splitlines()[-1])
        self.told.setdefault(found[1], []).append(result)
        self.calls.setdefault(found[1], set()).update(self.account.proxy.calls)
        for key in ("volume", "instance"):
            if isinstance(result.get(key), str):
                self.places[key] = result[key]
        if found[1] in ("volume attach", "volume from-snapshot") or "--volume imagenet" in command.text:
            self.device.plug_in(self.places["volume"])
        elif found[1] in ("volume detach", "instance terminate"):
            self.device.pull_out()


def _account_with_what_the_guide_does_elsewhere(account: Account) -> str:
    """A key pair, a security group, a role, an image: made in the console or by AWS's client. Returns the group's id."""
    ec2, iam = account.client("ec2"), account.client("iam")
    ec2.create_key_pair(KeyName="imagenet")
    image = ec2.register_image(Name="image", RootDeviceName="/dev/sda1")["ImageId"]
    account.client("ssm").put_parameter(Name="/mine/newest", Value=image, Type="String")
    iam.create_instance_profile(InstanceProfileName="imagenet-trainer")
    return str(ec2.create_security_group(GroupName="imagenet-ssh", Description="SSH from my address")["GroupId"])


def play(reader: Reader, open_shell: OpenShell) -> Path:
    """Type every command of the guide. Returns the folder in which it was."""
    variables = {name: value for name, value in reader.account.environment().items() if name.startswith("AWS_")}
    shell = open_shell(variables | {"TMPDIR": "/tmp"})
    for command in SCENARIO.commands():
        reader.before(command)
        text = SCENARIO.typed(command, reader.places)
        done = shell.type(text)
        assert done.returncode == 0, f"{command.place}\ntyped: {text}\n{done.stdout}\n{done.stderr[-8000:]}"
        reader.after(command, done.stdout)
    return shell.project


@pytest.mark.skipif(why_no_devices() is not None, reason=f"no loop devices here: {why_no_devices()}")
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_whole_guide_ends_with_a_snapshot_and_nothing_else_of_ours(
    account: Account, device: Device, open_shell: OpenShell, tmp_path: Path
) -> None:
    reader = Reader(account, device, tmp_path)
    project = play(reader, open_shell)

    assert [one["status"] for one in reader.told["volume delete"]] == ["deleted"]
    assert len({one["instance"] for one in reader.told["instance launch"]}) == 2
    living = [
        one
        for group in account.client("ec2").describe_instances()["Reservations"]
        for one in group["Instances"]
        if one["State"]["Name"] != "terminated"
    ]
    assert living == []
    kept = [{tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in account.own_volumes()]
    assert [tags["imagenet-trainer:name"] for tags in kept] == ["again"]
    assert account.snapshots() != []
    assert json.loads((project / "policy.json").read_text())["Version"] == "2012-10-17"
    assert not os.path.ismount(reader.places["data"])

    allowed = {action.partition(":")[2] for action in actions("all")}
    made = set().union(*reader.calls.values())
    assert {"CreateVolume", "RunInstances", "CreateSnapshot", "DeleteVolume"} <= made
    assert made <= allowed, "calls that the printed policy does not allow"
    assert reader.calls["instance stop"] <= {action.partition(":")[2] for action in _json_actions(1)}, "the role cannot stop it"


@pytest.fixture
def clone() -> Iterator[Path]:
    """A clone of a repository, where another user than root may read it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        who = ("-c", "user.name=me", "-c", "user.email=me@localhost")
        for words in (
            ("init", "--quiet", "--initial-branch=main", "origin"),
            ("-C", "origin", *who, "commit", "--quiet", "--allow-empty", "--message=first"),
            ("clone", "--quiet", "origin", "clone"),
        ):
            subprocess.run(["git", *words], cwd=folder, check=True)
        subprocess.run(["chown", "-R", "nobody", str(folder)], check=True)
        yield folder / "clone"


def why_no_set_up() -> str | None:
    """Why even a dry run of the set-up cannot act for another user here."""
    if os.geteuid() != 0 or shutil.which("runuser") is None or shutil.which("git") is None:
        return "root, runuser and git are needed to act for another user"
    test = [SYSTEMS_PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    try:
        known = subprocess.run(["runuser", "-u", "nobody", "--", *test], capture_output=True, check=False).returncode == 0
    except OSError:
        known = False
    return None if known else f"{SYSTEMS_PYTHON} of 3.11 or newer is needed"


@pytest.mark.skipif(why_no_set_up() is not None, reason=str(why_no_set_up()))
def test_the_set_up_of_the_guide_would_back_up_mount_and_install_the_service(clone: Path, open_shell: OpenShell) -> None:
    (clone / "local.txt").write_text("mine")
    (done,) = SETTING_UP.play(open_shell(), clone=clone)
    told = done.stdout + done.stderr
    for part in (
        "-m venv",
        "volume mount --volume-id vol-0123456789abcdef0 --at /data",
        "systemctl enable",
        "run_name=adam",
    ):
        assert part in told, told


def _json_actions(number: int) -> list[str]:
    """The actions of the guide's n-th block of JSON."""
    blocks = ["\n".join(block.lines) for block in blocks_of((ROOT / GUIDE).read_text()) if block.language == "json"]
    read = json.loads(blocks[number])
    statements = read["Statement"] if isinstance(read, dict) else read
    named = [statement["Action"] for statement in statements]
    return [action for one in named for action in ([one] if isinstance(one, str) else one)]


def test_the_rights_that_the_guide_narrows_are_those_that_the_policy_gives_widely() -> None:
    assert set(_json_actions(0)) == {"iam:PassRole", "ssm:GetParameter"} <= actions("all")
    assert set(_json_actions(1)) <= actions("instance")


def test_messages_that_the_guide_quotes_are_printed_by_the_program() -> None:
    source = " ".join(re.sub(r'"\s*\n\s*f?"', "", file.read_text()) for file in sorted((ROOT / "scripts/aws").glob("*.py")))
    text = (ROOT / GUIDE).read_text().partition("## What goes wrong")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    quoted = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    of_aws = {"AuthFailure.ServiceLinkedRoleCreationNotPermitted", "UnauthorizedOperation"}
    assert len(quoted) >= 12
    assert [message for message in quoted if message not in source and message not in of_aws] == []


def test_the_choices_for_local_changes_are_all_told() -> None:
    from scripts.aws.repository import LOCAL_CHANGES

    text = (ROOT / GUIDE).read_text().partition("| `--local-changes` |")[2].partition("\n\n")[0]
    assert set(LOCAL_CHANGES) == set(re.findall(r"^\| `([a-z-]+)`(?: \(default\))? \|", text, re.MULTILINE))
