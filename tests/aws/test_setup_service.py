"""User data and `instance setup` for real, but for systemd itself: in mount namespaces, with a systemctl that only writes down."""

import json
import os
import pwd
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from scripts.aws.errors import RefusedError
from scripts.aws.service import quoted
from scripts.aws.user_data import user_data

ROOT = Path(__file__).resolve().parents[2]
USER = "daemon"  # an account that every Linux has
PYTHON = "/usr/bin/python3"
FOLDER = "/mnt/imagenet-trainer"
PROBE = "import json, sys; json.dump(sys.argv[1:], open('argv.json', 'w'))"
ODD = [
    "a b",
    "it's",
    'a "quote"',
    "$HOME",
    "${HOME}",
    "$$",
    "100%",
    "%h",
    "back\\slash",
    "\\n",
    "semi;colon",
    "*",
    "ünicode",
    "",
    "~",
    "-x",
]
SYSTEMCTL = """#!/bin/bash
echo "$*" >>"${0%/*}/calls"
[[ $1 != is-active ]] || { cat "${0%/*}/state" 2>/dev/null || echo inactive; exit 3; }
"""


def why_not_here() -> str | None:
    if os.geteuid() != 0:
        return "mount namespaces and installing a service need root"
    missing = [tool for tool in ("unshare", "runuser", "git", "systemd-analyze") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "mount namespaces are not allowed here"
    probe = "import sys; raise SystemExit(sys.version_info < (3, 11))"
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", probe], check=False).returncode:
        return f"{PYTHON} is missing, or older than 3.11: another user could not run this test's own"
    return None


class Instance:
    """What an instance has of its own: unit files, programs, state, and a user's home, each bound over this machine's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.units, self.programs, self.state, self.home, self.stubs = (
            root / name for name in ("units", "bin", "state", "home", "stubs")
        )
        for folder in (self.units, self.programs, self.state, self.home, self.stubs):
            folder.mkdir()
        (self.stubs / "systemctl").write_text(SYSTEMCTL)
        (self.stubs / "systemctl").chmod(0o755)
        entry = pwd.getpwnam(USER)
        os.chown(self.home, entry.pw_uid, entry.pw_gid)
        self.folder = self.home / "imagenet-trainer"

    def run(self, *command: str, stubs: bool = True, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        places = {self.units: "/etc/systemd/system", self.programs: "/usr/local/sbin", self.state: "/var/lib", self.home: "/mnt"}
        binds = " && ".join(f"mount --bind {shlex.quote(str(here))} {there}" for here, there in places.items())
        path = f"{self.stubs}:{os.environ['PATH']}" if stubs else os.environ["PATH"]
        words = ["unshare", "--mount", "bash", "-c", f'{binds} && cd /mnt && exec "$@"', "bash", *command]
        # A user whose HOME does not exist has no gitconfig; root's must not matter.
        environment = {**os.environ, "PATH": path, "GIT_CONFIG_GLOBAL": "/dev/null", **(env or {})}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def as_user(self, *command: str) -> None:
        done = self.run("runuser", "-u", USER, "--", *command)
        assert done.returncode == 0, done.stderr

    def make_origin(self) -> None:
        origin = self.home / "origin"
        shutil.copytree(ROOT / "scripts" / "aws", origin / "scripts" / "aws", ignore=shutil.ignore_patterns("__pycache__"))
        (origin / ".gitignore").write_text(".env\n__pycache__/\nargv.json\n")
        entry = pwd.getpwnam(USER)
        for path in (origin, *origin.rglob("*")):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", "/mnt/origin")
        self.as_user("git", "init", "--quiet", "--initial-branch=main", "/mnt/origin")
        self.as_user(*git, "add", "--all")
        self.as_user(*git, "commit", "--quiet", "--message", "one")

    def calls(self) -> list[str]:
        file = self.stubs / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def setup(self, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        words = [PYTHON, "-m", "scripts.aws", "instance", "setup", "--user", USER, "--folder", FOLDER, "--environment", "none"]
        words += ["--python", PYTHON, "--repository", "/mnt/origin", *options, *(("--", *command) if command else ())]
        return self.run("env", "--chdir", str(ROOT), *words)

    def command_line(self, unit: str) -> list[str]:
        """ExecStart as systemd itself reads it, and as it would hand it on: $$ is one $."""
        verified = self.run("systemd-analyze", "verify", f"/etc/systemd/system/{unit}", stubs=False)
        assert verified.returncode == 0, verified.stderr
        assert unit not in verified.stderr, verified.stderr  # no warning of ours
        shown = self.run(
            "systemd-analyze", "verify", f"/etc/systemd/system/{unit}", stubs=False, env={"SYSTEMD_LOG_LEVEL": "debug"}
        )
        block = (shown.stdout + shown.stderr).partition("-> ExecStart:")[2]
        line = next(line for line in block.splitlines() if "Command Line:" in line).partition("Command Line: ")[2]
        shell = ["bash", "-fc", f"printf '%s\\0' {line}"]  # -f and HOME: systemd leaves * and ~ without quotes
        told = subprocess.run(shell, env={**os.environ, "HOME": "~"}, capture_output=True, text=True, check=True)
        return [word.replace("$$", "$") for word in told.stdout.split("\0")[:-1]]


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    reason = why_not_here()
    if reason:
        pytest.skip(reason)
    made = Instance(tmp_path)
    made.make_origin()
    return made


def launch_options(**more: object) -> Namespace:
    chosen = {"name": "trainer", "user": USER, "folder": FOLDER, "repository": "/mnt/origin", "branch": None, "commit": None}
    chosen |= {"python": PYTHON, "environment": "none", "extras": "aws", "when_finished": "nothing", "at": "/data"}
    return Namespace(**{**chosen, "command": [PYTHON, "-c", PROBE, *ODD], **more})


def test_user_data_sets_a_new_instance_up_and_is_done_then(instance: Instance) -> None:
    text = user_data(launch_options(), volume_id=None, region="us-east-1")
    kind, _, script = text.partition("\n")
    assert kind == "#cloud-boothook" and len(text.encode()) < 16384
    hook = instance.root / "part-001"
    hook.write_text(script)  # cloud-init takes the first line away
    hook.chmod(0o700)
    booted = instance.run(str(hook))
    assert booted.returncode == 0, booted.stderr
    assert instance.calls() == ["daemon-reload", "start --no-block imagenet-setup.service"], "the boot must not wait"
    (program, word) = instance.command_line("imagenet-setup.service")
    assert word == "work"
    (instance.home / ".imagenet-trainer.partial").mkdir()  # an interruption in the middle of the clone
    worked = instance.run(program, word)
    assert worked.returncode == 0, worked.stderr
    assert (instance.state / "imagenet-trainer" / "set-up").exists()
    assert "enable imagenet-training.service" in instance.calls() and "start imagenet-training.service" in instance.calls()
    assert {path.stat().st_uid for path in instance.folder.rglob("*") if "__pycache__" not in path.parts} == {
        pwd.getpwnam(USER).pw_uid
    }
    command = instance.command_line("imagenet-training.service")
    assert command == [PYTHON, "-m", "scripts.aws.run_training", "--", PYTHON, "-c", PROBE, *ODD]
    assert stat.S_IMODE((instance.units / "imagenet-training.service").stat().st_mode) == 0o644
    ran = instance.run("runuser", "-u", USER, "--", "env", "--chdir", FOLDER, *command)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((instance.folder / "argv.json").read_text()) == ODD
    before = instance.calls()
    assert instance.run(str(hook)).returncode == 0  # the next boot: the training is a service of its own
    assert instance.calls() == before


def test_user_data_goes_on_after_an_interruption_and_never_touches_a_clone(instance: Instance) -> None:
    hook = instance.root / "part-001"
    hook.write_text(user_data(launch_options(repository="/mnt/not-there"), volume_id=None, region=None).partition("\n")[2])
    assert instance.run("bash", str(hook), "work").returncode != 0
    assert not instance.folder.exists() and not (instance.state / "imagenet-trainer").exists()
    hook.write_text(user_data(launch_options(), volume_id=None, region=None).partition("\n")[2])
    assert instance.run("bash", str(hook), "work").returncode == 0
    (instance.state / "imagenet-trainer" / "set-up").unlink()
    (instance.folder / "mine.txt").write_text("work of hours")
    again = instance.run("bash", str(hook), "work")
    assert again.returncode == 0, again.stderr
    assert (instance.folder / "mine.txt").read_text() == "work of hours"


@pytest.mark.parametrize("command", [[], ["python", "-m", "src.train", *ODD]])
def test_user_data_is_a_script_that_shellcheck_does_not_mind(command: list[str]) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    options = launch_options(command=command, commit="v1.0", at="/data", when_finished="stop")
    script = user_data(options, volume_id="vol-0123", region="us-east-1").partition("\n")[2]
    done = subprocess.run(["shellcheck", "-"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    template = subprocess.run(["shellcheck", str(ROOT / "scripts/aws/user_data.sh")], capture_output=True, text=True, check=False)
    assert template.returncode == 0, template.stdout


def test_the_unit_waits_for_the_mount_and_holds_no_secret(instance: Instance) -> None:
    first = instance.setup("python", "-m", "src.train")
    assert first.returncode == 0, first.stderr
    (instance.folder / ".env").write_text("WANDB_API_KEY=sentinel\n")
    (instance.folder / ".env").chmod(0o644)
    assert "AssertPathIsMountPoint" not in (instance.units / "imagenet-training.service").read_text()
    dry = instance.setup("python", "-m", "src.train", options=("--volume-id", "vol-0123", "--at", "/data", "--dry-run"))
    assert dry.returncode == 0, dry.stderr
    assert "RequiresMountsFor=/data\n" in dry.stderr and "AssertPathIsMountPoint=/data\n" in dry.stderr
    assert "volume mount --volume-id vol-0123 --at /data" in dry.stderr and "would run mount" in dry.stdout
    again = instance.setup("python", "-m", "src.train")
    assert again.returncode == 0 and "chmod 600" in again.stderr
    unit = (instance.units / "imagenet-training.service").read_text()
    assert f"EnvironmentFile=-{FOLDER}/.env" in unit
    for text in (unit, first.stderr, dry.stdout + dry.stderr, again.stderr + again.stdout):
        assert "sentinel" not in text


def test_a_volume_that_does_not_come_ends_the_set_up_before_the_service(instance: Instance) -> None:
    done = instance.setup("python", options=("--volume-id", "vol-0123", "--at", "/data", "--wait-seconds", "0"))
    assert done.returncode in (1, 2) and "vol-0123" in done.stderr and "Traceback" not in done.stderr
    assert list(instance.units.iterdir()) == [] and instance.folder.exists()


def test_nothing_is_changed_under_a_running_training(instance: Instance) -> None:
    assert instance.setup("python", "-m", "src.train").returncode == 0
    (instance.folder / "mine.txt").write_text("x")
    (instance.stubs / "state").write_text("active\n")
    (instance.stubs / "calls").write_text("")
    same = instance.setup("python", "-m", "src.train", options=("--local-changes", "reset"))
    assert same.returncode == 0 and json.loads(same.stdout)["status"] == "trains", same.stderr
    other = instance.setup("python", "-m", "src.train", "epochs=1")
    assert other.returncode == 2 and "systemctl stop imagenet-training" in other.stderr
    assert (instance.folder / "mine.txt").exists()
    assert {call.split()[0] for call in instance.calls()} == {"is-active"}


def test_what_no_service_can_be_is_refused_with_every_problem(instance: Instance) -> None:
    done = instance.run(
        *(
            "env",
            "--chdir",
            str(ROOT),
            PYTHON,
            "-m",
            "scripts.aws",
            "instance",
            "setup",
            "--user",
            "root",
            "--volume-id",
            "vol-0123",
        ),
        *("--when-finished", "stop", "--", "python", "-m", "src.train", "--multirun"),
    )
    assert done.returncode == 2
    for words in ("--user = root", "belong together", "--when-finished", "sweep"):
        assert words in done.stderr
    assert list(instance.units.iterdir()) == []
    with pytest.raises(RefusedError):
        quoted("line\nbreak")


def test_two_set_ups_at_once_are_one(instance: Instance) -> None:
    import fcntl

    path = Path("/run/lock") / f"imagenet-setup-0-{Path(FOLDER).name}.lock"
    with open(path, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = instance.setup("python")
    assert done.returncode == 2 and "another set-up" in done.stderr
    assert instance.setup("python").returncode == 0


BACKEND = '''
"""A build backend that needs no other package: an editable install is one .pth file."""
import base64, hashlib, pathlib, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name, files = "tiny-1.0-py3-none-any.whl", {"tiny.pth": str(pathlib.Path.cwd())}
    files["tiny-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\nProvides-Extra: aws\\n"
    files["tiny-1.0.dist-info/WHEEL"] = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files["tiny-1.0.dist-info/RECORD"] = "".join(f"{file},,\\n" for file in files) + "tiny-1.0.dist-info/RECORD,,\\n"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    with open(pathlib.Path.cwd() / "builds.log", "a") as log:
        log.write("built\\n")
    return name
build_wheel = build_editable
'''


def test_the_environment_is_made_once_and_after_a_kill_ended(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "backend.py").write_text(BACKEND)
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    project = '[project]\nname = "tiny"\nversion = "1.0"\n[project.optional-dependencies]\naws = []\n'
    (folder / "pyproject.toml").write_text(build + project)
    (folder / "constraints.txt").write_text("boto3==0.0.0\n")
    (folder / "tiny_module.py").write_text("answer = 42\n")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    command = [sys.executable, "-m", "scripts.aws", "instance", "setup", "--folder", str(folder), "--local-changes", "keep"]
    command += ["--python", sys.executable, "--extras", "aws"]
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
        check=True,
    )
    environment = {**os.environ, "PIP_NO_INDEX": "1", "USER": pwd.getpwuid(os.geteuid()).pw_name}
    environment.pop("SUDO_USER", None)

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def end(process: subprocess.Popen[str]) -> str:
        out, err = process.communicate(timeout=250)
        assert process.returncode == 0, err
        return err + out

    process = start()
    own = folder / ".venv" / "lib"
    limit = time.monotonic() + 200
    while not list(own.glob("python*/site-packages/pip/*")):  # pip is being installed
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / ".venv" / "imagenet-trainer.json").exists()
    end(start())
    python = folder / ".venv" / "bin" / "python"
    told = subprocess.run(
        [python, "-c", "import tiny_module; print(tiny_module.answer)"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert told.stdout == "42\n" and (folder / "builds.log").read_text() == "built\n"
    assert "nothing to install" in end(start())
    (folder / "constraints.txt").write_text("")
    end(start())
    assert (folder / "builds.log").read_text() == "built\nbuilt\n"
