"""`python -m src.prepare source=...` as a process: its stages, what it refuses, a full disk, signals, two at once, deleting."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src.imagenet.journal import read_state
from src.imagenet.manifest import read_manifest
from tests.end_to_end.prepare_kills import listing
from tests.scale_models import scale_model, write_folders, write_huggingface, write_imagefolder, write_official

ROOT = Path(__file__).resolve().parents[2]
RunDoor = Callable[..., subprocess.CompletedProcess[str]]
MODEL = scale_model(24)
LAYOUTS = {"official": write_official, "folders": write_folders, "huggingface": write_huggingface, "imagefolder": write_imagefolder}
QUICK = ("level=1", "expect=any")
MANY = 20_000  # files of one class: its extraction takes a second, and is noted meanwhile


@pytest.fixture
def prepare(run_door: RunDoor) -> RunDoor:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_door(*arguments, module="src.prepare")

    return run


def result(done: subprocess.CompletedProcess[str], status: str = "finished") -> dict[str, object]:
    assert done.returncode == (status == "failed"), done.stderr
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    assert told["status"] == status, done.stderr
    return told


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


def images(target: Path) -> dict[str, bytes]:
    found = [path for split in ("train", "val", "test") for path in (target / split).rglob("*") if path.is_file()]
    return dict(sorted((str(path.relative_to(target)), path.read_bytes()) for path in found))


def official(folder: Path) -> tuple[Path, str]:
    """The official archives in small, and the key that says which sums they have: the published ones are of the large."""
    source = write_official(folder / "source", MODEL)
    lines = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n" for path in source.glob("*.tar")]
    (folder / "md5sums").write_text("".join(lines))
    return source, f"checksum={folder / 'md5sums'}"


def test_stage_by_stage_and_at_once_come_to_the_same(prepare: RunDoor, tmp_path: Path) -> None:
    source, sums = official(tmp_path)
    before, target = listing(source), tmp_path / "target"
    keys = (f"source={source}", f"target={target}", sums, *QUICK)
    assert result(prepare(*keys), "finished") | {"seconds": 0} == {
        "status": "finished",
        "target": str(target),
        **{split: len(MODEL.split(split)) for split in ("train", "val", "test")},
        "layout": "official",
        "verified": 1,
        "report": str(target / ".prepare/report.json"),
        "seconds": 0,
    }
    whole = listing(target)
    assert images(target) == MODEL.files
    assert set(read_state(target)[0].sums) == {str(path) for path in source.glob("*.tar")}
    os.replace(target, tmp_path / "whole")
    for stage, there in (("plan", None), ("extract", [".prepare"]), ("arrange", None), ("index", None)):
        assert result(prepare(*keys, f"until={stage}"), "stopped")["stage"] == stage
        if stage == "plan":
            assert not target.exists()
        elif there is not None:
            assert os.listdir(target) == there
    assert result(prepare(*keys))["verified"] == 1
    assert listing(target) == whole
    again = prepare(*keys)
    assert result(again)["train"] == len(MODEL.split("train"))
    assert f"{target} is complete already: nothing to do." in again.stderr
    assert listing(target) == whole
    assert listing(source) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dry_run_says_what_would_be_done_and_makes_nothing(prepare: RunDoor, tmp_path: Path, layout: str) -> None:
    source = LAYOUTS[layout](tmp_path / "source", MODEL)
    before = listing(tmp_path)
    done = prepare(f"source={source}", f"target={tmp_path}/a/target", "dry_run=true", "checksum=off")
    told = result(done, "planned")
    assert (told["target"], told["layout"]) == (f"{tmp_path}/a/target", layout)
    linked = "hard links to the source's files" if layout in ("folders", "imagefolder") else "written from"
    for part in (f"layout   {layout} (recognised in {source})", linked, "space ", " needed, ", "inodes ", "sums ", "time "):
        assert part in done.stderr
    assert listing(tmp_path) == before


def test_no_torch_is_imported_for_a_whole_preparation(tmp_path: Path) -> None:
    source, sums = official(tmp_path)
    script = "import atexit, runpy, sys; atexit.register(lambda: print('torch' in sys.modules)); "
    script += f"sys.argv[1:] = ['source={source}', 'target={tmp_path}/target', '{sums}', 'expect=any']; "
    script += "runpy.run_module('src.prepare', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert images(tmp_path / "target") == MODEL.files


def test_image_files_are_linked_and_take_no_room(prepare: RunDoor, tmp_path: Path) -> None:
    source = write_imagefolder(tmp_path / "source", MODEL)
    before = listing(source)
    result(prepare(f"source={source}", f"target={tmp_path}/target", *QUICK))
    assert images(tmp_path / "target") == MODEL.files
    for path in MODEL.files:
        assert (tmp_path / "target" / path).stat().st_nlink == 2
    assert listing(source) == before
    manifest = read_manifest(tmp_path / "target")
    assert manifest is not None and set(manifest.crcs.tolist()) == {-1}


def test_targets_that_cannot_be_are_refused_all_at_once(prepare: RunDoor, tmp_path: Path) -> None:
    source = write_imagefolder(tmp_path / "source", MODEL)
    inside = source / "train" / "prepared"
    refused(prepare(f"source={source}", f"target={inside}"), f"target = '{inside}': lies in the source ({source})")
    assert not inside.exists()
    stranger = tmp_path / "thesis"
    stranger.mkdir()
    (stranger / "thesis.tex").touch()
    (stranger / ".hidden").touch()
    (stranger / "lost+found").mkdir()
    (stranger / "train").mkdir()
    done = prepare(f"source={source}", f"target={stranger}")
    refused(
        done, "2 problems in the preparation", "already holds something else (thesis.tex).", "already holds train from somewhere"
    )
    refused(prepare(f"source={source}", f"target={stranger}/thesis.tex"), "is no folder that can be written")
    mine = prepare(f"source={source}/train", "layout=imagefolder", "val_fraction=0.5", f"target={source}")
    refused(mine, f"source = '{source}/train': lies in the target's own train.")


def test_another_source_is_never_mixed_with_an_unfinished_one(prepare: RunDoor, tmp_path: Path) -> None:
    one, target = write_imagefolder(tmp_path / "one", MODEL), tmp_path / "target"
    other = write_huggingface(tmp_path / "other", MODEL)
    result(prepare(f"source={one}", f"target={target}", "until=extract"), "stopped")
    before = listing(target / ".prepare")
    refused(prepare(f"source={other}", f"target={target}"), f"holds an unfinished preparation of {one}", "restart=true")
    assert listing(target / ".prepare") == before
    result(prepare(f"source={other}", f"target={target}", "restart=true", *QUICK))
    assert images(target) == MODEL.files
    assert {(target / path).stat().st_nlink for path in MODEL.files} == {1}
    refused(prepare(f"source={one}", f"target={target}"), f"already holds train, val, test prepared from {other}")


def test_sums_that_are_wrong_and_archives_that_are_short_publish_nothing(prepare: RunDoor, tmp_path: Path) -> None:
    source, sums = official(tmp_path)
    keys = (f"source={source}", f"target={tmp_path}/target", *QUICK)
    short = prepare(*keys)
    refused(short, f"{source}/ILSVRC2012_img_val.tar: has ", "not the published ", "are missing. Download it again")
    assert not (tmp_path / "target").exists()
    right = (tmp_path / "md5sums").read_text()
    wrong = "".join(f"{'0' * 32}  {line[34:]}\n" if "val" in line else f"{line}\n" for line in right.splitlines())
    (tmp_path / "md5sums").write_text(wrong)
    md5 = hashlib.md5((source / "ILSVRC2012_img_val.tar").read_bytes()).hexdigest()
    refused(prepare(*keys, sums), f"{source}/ILSVRC2012_img_val.tar: has the md5 {md5}, not {'0' * 32}", "checksum=off")
    assert os.listdir(tmp_path / "target") == [".prepare"]
    (tmp_path / "md5sums").write_text(right)
    result(prepare(*keys, sums))
    assert images(tmp_path / "target") == MODEL.files
    (tmp_path / "md5sums").write_text(f"{'0' * 32}  something_else.tar\n")
    refused(prepare(f"source={source}", f"target={tmp_path}/new", sums), "names none of the source's archives")
    (tmp_path / "md5sums").write_text("hello\n")
    refused(prepare(f"source={source}", f"target={tmp_path}/new", sums), "cannot be read as md5sum's output (a line reads 'hello')")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system in memory of a size that the test names."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        command = ["mount", *(["-o", f"remount,{options}"] if mounted else ["-t", "tmpfs", "-o", options, "tmpfs"]), str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing may be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


def test_too_little_room_is_told_before_anything_is_made(
    prepare: RunDoor, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    source, sums = official(tmp_path)
    target = small_disk("size=40k") / "target"
    keys = (f"source={source}", f"target={target}", sums, *QUICK)
    refused(prepare(*keys), f"target = '{target}': ", " are needed, ", " are free: ", "too little. Make room there")
    small_disk("size=100m,nr_inodes=50")
    refused(prepare(*keys), "files and folders (inodes) are needed", "mkfs.ext4 -i 16384")
    assert not target.exists()
    small_disk("size=100m,nr_inodes=5000")
    result(prepare(*keys))
    assert images(target) == MODEL.files


def many(folder: Path) -> Path:
    """An ImageFolder whose extraction takes a second or two, with copies, and is noted meanwhile."""
    for split, count in (("train", MANY), ("val", 2)):
        (folder / split / "ant").mkdir(parents=True)
        for number in range(count):
            descriptor = os.open(f"{folder}/{split}/ant/{number:06d}.jpg", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, b"%d" % number)
            os.close(descriptor)
    return folder


def start(*keys: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "src.prepare", *keys]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def when_noted(process: "subprocess.Popen[str]", target: Path) -> None:
    """Wait until the journal tells of a part of the large class."""
    deadline = time.monotonic() + 200
    while not any(0 < told.pieces < MANY for told in read_state(target)[0].units.values()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)


def ended(process: "subprocess.Popen[str]") -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=200)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def fill(path: Path) -> None:
    """Write until nothing more goes in."""
    with open(path, "ab", buffering=0) as file:
        for block in (2**20, 2**12):
            try:
                while file.write(bytes(block)):
                    pass
            except OSError:
                continue


def test_a_disk_that_fills_up_meanwhile_is_told_and_the_same_command_goes_on(
    prepare: RunDoor, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    source, disk = many(tmp_path / "source"), small_disk("size=400m")
    target, ballast = disk / "target", disk / "ballast"
    keys = (f"source={source}", f"target={target}", "link=copy", *QUICK[1:], "level=0")
    before = listing(source)
    process = start(*keys)
    when_noted(process, target)
    fill(ballast)
    done = ended(process)
    assert result(done, "failed")["target"] == str(target)
    assert f"{target}: the disk is full, " in done.stderr and "still to be written" in done.stderr, done.stderr
    assert "Nothing is lost: make room, and the same command goes on." in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(target) == [".prepare"]
    refused(prepare(*keys), " are free: ", " too little.")

    noted = max(told.pieces for told in read_state(target)[0].units.values())
    assert 0 < noted < MANY
    ballast.unlink()
    result(prepare(*keys, "until=extract"), "stopped")
    for stage, last in (("arrange", "extract"), ("index", "arrange")):
        fill(ballast)
        os.truncate(ballast, ballast.stat().st_size - 2**16)  # enough for what can be foreseen, too little for the lists
        done = prepare(*keys, f"until={stage}")
        result(done, "failed")
        assert "the disk is full" in done.stderr or "could not be written" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert list(read_state(target)[0].stages)[-1] == last
        ballast.unlink()
        result(prepare(*keys, f"until={stage}"), "stopped")
    result(prepare(*keys))
    assert images(target) == images(source)
    assert (target / ".train.index.npz").is_file()
    assert listing(source) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_notes_what_is_written_and_the_next_start_goes_on_from_there(
    prepare: RunDoor, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    source, target = many(tmp_path / "source"), tmp_path / "target"
    keys = (f"source={source}", f"target={target}", "link=copy", "until=arrange")
    process = start(*keys)
    when_noted(process, target)
    process.send_signal(number)
    done = ended(process)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    noted = sum(told.pieces for told in read_state(target)[0].units.values())
    there = {path.name: path.stat().st_ino for path in (target / ".prepare/tree/train/ant").iterdir()}
    assert noted > 0 and len(there) in (noted, noted - 2)  # all that was written is noted; val has two
    done = prepare(*keys)
    result(done, "stopped")
    assert "are written again" not in done.stderr
    assert images(target) == images(source)
    now = {path.name: path.stat().st_ino for path in (target / "train/ant").iterdir()}
    assert there.items() <= now.items()


def test_the_second_of_two_waits_and_finds_all_done(tmp_path: Path) -> None:
    source, target = many(tmp_path / "source"), tmp_path / "target"
    keys = (f"source={source}", f"target={target}", "link=copy", "expect=any", "level=0")
    first = start(*keys)
    when_noted(first, target)
    second = start(*keys)
    codes = [ended(process) for process in (first, second)]
    for done in codes:
        result(done)
    assert f"process {first.pid} on " in codes[1].stderr
    assert "prepares" in codes[1].stderr and "waiting for it" in codes[1].stderr
    assert images(target) == images(source)


def test_what_was_read_is_deleted_only_when_told_and_only_after_a_good_verification(prepare: RunDoor, tmp_path: Path) -> None:
    source, sums = official(tmp_path)
    keys = (f"source={source}", f"target={tmp_path}/target", sums, "level=1", "delete_source=true")
    result(prepare(*keys, "expect=imagenet"), "failed")
    assert len(list(source.glob("*.tar"))) == 3
    done = prepare(*keys, "expect=any")
    result(done)
    assert [path.name for path in source.iterdir()] == ["ILSVRC2012_devkit_t12.tar.gz"]
    assert all(f"delete_source: deleting {source}/ILSVRC2012_img_{name}" in done.stderr for name in ("train", "val", "test"))
    again = prepare(*keys, "expect=any")
    result(again)
    assert "is complete already: nothing to do." in again.stderr
    assert images(tmp_path / "target") == MODEL.files

    folders = write_imagefolder(tmp_path / "folders", MODEL)
    (folders / "train/notes.txt").touch()
    done = prepare(f"source={folders}", f"target={tmp_path}/linked", *QUICK, "delete_source=true")
    result(done)
    assert [str(path.relative_to(folders)) for path in folders.rglob("*") if path.is_file()] == ["train/notes.txt"]
    assert "delete_source: deleted the 3 files of train/n01440764" in done.stderr
    assert images(tmp_path / "linked") == MODEL.files


def test_a_split_that_is_gone_is_prepared_again_with_restart_only(prepare: RunDoor, tmp_path: Path) -> None:
    source = write_imagefolder(tmp_path / "source", MODEL)
    keys = (f"source={source}", f"target={tmp_path}/target", *QUICK)
    result(prepare(*keys))
    for split in ("train", "val", "test"):
        subprocess.run(["rm", "-r", str(tmp_path / "target" / split)], check=True)
    done = prepare(*keys)
    result(done, "failed")
    assert "is gone. Begin anew with restart=true." in done.stderr
    result(prepare(*keys, "restart=true"))
    assert images(tmp_path / "target") == MODEL.files


def test_verify_is_a_command_of_its_own(prepare: RunDoor, tmp_path: Path) -> None:
    source = write_imagefolder(tmp_path / "source", MODEL)
    target, report = tmp_path / "target", tmp_path / "report.json"
    keys = ("verify", f"target={target}", "level=2", "expect=any", f"report={report}")
    refused(prepare(*keys), f"target = '{target}': no such folder.")
    result(prepare(f"source={source}", f"target={target}", *QUICK, "link=copy"))
    done = prepare(*keys)
    assert result(done) | {"seconds": 0} == {
        "status": "finished",
        "target": str(target),
        "verified": 2,
        "report": str(report),
        "seconds": 0,
    }
    assert json.loads(report.read_text())["ok"] is True
    next((target / "val").rglob("*.JPEG")).write_bytes(b"")
    done = prepare(*keys)
    result(done, "failed")
    assert "problem" in done.stderr
    assert json.loads(report.read_text())["ok"] is False
