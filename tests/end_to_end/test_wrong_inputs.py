"""What a user can do wrong: every mistake is named with its place, its value and its remedy, and nothing is written over."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from src.config import ConfigError, load
from src.training.arithmetic import split_batch

ROOT = Path(__file__).resolve().parents[2]
MakeFolder = Callable[..., Path]
RunDoor = Callable[..., subprocess.CompletedProcess[str]]

# What is typed, and what the answer must hold: place and value, then the remedy.
AT_THE_DOOR = [
    ("epochs=0", "epochs = 0:", "at least 1"),
    ("epochs=3.5", "epochs = 3.5:", "whole number"),
    ("epochs=ninety", "epochs = 'ninety':", "whole number"),
    ("epoch=90", "epoch = 90:", "Did you mean epochs?"),
    ("lr=0.1", "lr = 0.1:", "Did you mean optim.peak_lr?"),
    ("optim.peak_lr=-0.1", "optim.peak_lr = -0.1:", "more than 0"),
    ("optim=nadam", "optim = 'nadam':", "There are: adam, adamw, lamb, lars, rmsprop, sam, sf_adamw, sf_sgd, sgd, sgdw"),
    ("optim=adam optim.momentum=0.9", "optim.momentum = 0.9:", "belongs to optim=sgd, sgdw, rmsprop, lars, sf_sgd"),
    ("schedule=step schedule.power=2", "schedule.power = 2:", "belongs to schedule=polynomial"),
    ("augment.magnitude=31 augment.operations=rand_augment", "augment.magnitude = 31:", "Set augment.magnitude=30 or less"),
    ("augment.erase_ratio=[3,1]", "augment.erase_ratio = [3.0, 1.0]:", "smaller number first"),
    ("average=ema average.half_life_steps=50", "average.decay = 0.9999:", "Give one of them, null for the other"),
    ("bce_threshold=0.2", "bce_threshold = 0.2:", "Set loss=bce"),
    ("data.ramp_from_size=256", "data.ramp_from_size = 256:", "Set data.ramp_from_size=224 or less"),
    ("optim.layer_decay=0", "optim.layer_decay = 0:", "more than 0"),
    ("img_size=128", "img_size = 128:", "Did you mean data.image_size?"),
    ("optim=adam optim.betas=[0.9,1.0]", "optim.betas.1 = 1.0:", "less than 1"),
    ("optim=sf_sgd schedule=cosine", "schedule = cosine:", "Leave schedule away"),
    ("optim=sf_adamw average=none", "average = none:", "Set average=schedule_free"),
    ("optim.momentum=0 optim.nesterov=true", "optim.nesterov = true:", "Set optim.momentum=0.9 or optim.nesterov=false"),
    ("schedule.warmup_epochs=100", "schedule.warmup_epochs = 100:", "Set schedule.warmup_epochs=90 or less"),
    ("model=resnet51", "model = 'resnet51':", "Did you mean resnet50?"),
    ("model=small_resnet model.depth=10", "model.depth = 10:", "Nearest: 8"),
    ("model=custom", "model.factory:", "Type model.factory="),
    ("model=custom model.factory=mine.build", "model.factory = 'mine.build':", "my_module:build"),
    ("data=imagnet", "data = 'imagnet':", "There are: "),
    ("data.resize_size=128", "data.resize_size = 128:", "Set data.resize_size=224 or more"),
    ("data.subset=100", "data.subset = 100:", "Set batch_size=100 or less"),
    ("data.std=[0.2,0.2,0]", "data.std.2 = 0:", "more than 0"),
    ("data=synthetic data.num_train=5", "data.num_train = 5:", "Set data.num_train=10 or more"),
    ("data.engine=ffcv", "data.engine = ffcv:", "python -m src.ffcv_writer and use data=ffcv"),
    ("data=ffcv data.interpolation=bicubic", "data.interpolation = bicubic:", "Set data.engine=auto"),
    ("data.engine=torchvision data.decoder=gpu", "data.decoder = gpu:", "Set data.engine=nvimgcodec or dali"),
    ("data.engine=turbo", "data.engine = 'turbo':", "auto, torchvision, nvimgcodec, dali, ffcv"),
    ("data.bad_image=skip", "data.bad_image = 'skip':", "raise, replace"),
    ("data=synthetic data.copy_to=/x", "data.copy_to = '/x':", "it belongs to data.source=folder, beton, parquet, tar"),
    ("augment.crop_scale=[1,0.1]", "augment.crop_scale = [1.0, 0.1]:", "smaller number first"),
    ("precision=float16", "precision = 'float16':", "auto, fp32, bf16, fp16, fp64"),
    ("channels_last=yes", "channels_last = 'yes':", "true or false"),
    ("seed=-1", "seed = -1:", "at least 0"),
    ("seed=0,1", "seed = '0,1':", "add --multirun"),
    ("run_name=a/b", "run_name = 'a/b':", "Set runs_dir"),
    ("hydra.run.dir=x", "hydra.run.dir:", "runs_dir and run_name"),
    ("~seed", "~seed:", "Set a key to null"),
    ("resnet18", "resnet18:", "key=value"),
]


@pytest.mark.parametrize(("typed", "place", "remedy"), AT_THE_DOOR, ids=[typed for typed, *_ in AT_THE_DOOR])
def test_a_mistake_is_one_line_with_place_value_and_remedy(typed: str, place: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(typed.split())
    heading, line = str(caught.value).splitlines()
    assert heading == "1 problem in the configuration:"
    assert line.strip().startswith(place)
    assert remedy in line


@pytest.mark.parametrize(
    ("batch_size", "ranks", "cap", "place", "valid"),
    [
        (33, 2, "null", "batch_size = 33:", "32 or 34"),
        (100, 8, "null", "batch_size = 100:", "96 or 104"),
        (3, 8, "null", "batch_size = 3:", "Nearest valid: 8."),
        (256, 2, "60", "max_local_batch_size = 60:", "32 or 64"),
    ],
)
def test_a_batch_that_does_not_divide_is_answered_with_those_that_do(
    batch_size: int, ranks: int, cap: str, place: str, valid: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        split_batch(load([f"batch_size={batch_size}", f"max_local_batch_size={cap}"]), ranks)
    assert place in str(caught.value)
    assert valid in str(caught.value)


# What only the data, the machine and the run's folder can tell, by the real command: what is typed, how many problems it has, and
# what the answer must hold. {} is the test's own folder.
BY_COMMAND = {
    "three mistakes at once": ("epochs=0 optm=adam precision=fp8", 3, ["epochs = 0:", "optm = 'adam':", "precision = 'fp8':"]),
    "missing data, and a folder that cannot be": (
        "data.path={}/none runs_dir={}/file/runs",
        3,
        ["data.train_path = '{}/none/train':", "data.val_path = '{}/none/val':", "Set data.path", "runs_dir = '{}/file/runs':"],
    ),
    "bad images": (
        "data.path={}/bad",
        5,
        [
            "{}/bad/train/ant/0.jpg: is empty. Replace or remove it.",
            "{}/bad/train/ant/1.jpg: is no image",
            "{}/bad/train/bee/0.jpg: cannot be decoded",
            "data.train_path = '{}/bad/train': 1 class folder",
            "zoo. Fill or remove",
            "data.val_path = '{}/bad/val': no such folder.",
        ],
    ),
    "other classes": ("data.path={}/other", 2, ["data.val_path", "bee", "data.train_path", "cat, dog", "make them agree"]),
    "a subset that is too large": (
        "data.path={}/good data.subset=9 data.val_subset=10",
        2,
        ["data.subset = 9:", "Set data.subset=8 or less", "data.val_subset = 10:", "Set data.val_subset=8 or less"],
    ),
    "a changed configuration": (
        "data.path={}/good run_name=first seed=2 optim.momentum=0.5",
        2,
        ["seed = 2: was 0", "optim.momentum = 0.5: was 0.9", "choose another run_name"],
    ),
    "a folder in use": ("data.path={}/good run_name=held", 1, ["run_name = 'held':", "in use by process 1 on elsewhere", "touch"]),
    "a missing checkpoint": ("data.path={}/good run_name=new resume={}/no.ckpt", 1, ["resume = '{}/no.ckpt':", "path of a .ckpt"]),
    "a run that is not to be resumed": (
        "data.path={}/good run_name=second resume=never",
        1,
        ["resume = 'never':", "{}/runs/second/checkpoints", "another run_name"],
    ),
}
SMALL = (
    "model=small_resnet data.image_size=32 data.resize_size=32 data.cache_dir={}/cache runs_dir={}/runs batch_size=4 "
    "epochs=1 schedule.warmup_epochs=0 data.workers=1"
)


# Starting Python with torch takes seconds, so only these have a process each; the others follow one another in one.
ALONE = ("three mistakes at once", "bad images")
ONE_AFTER_ANOTHER = """
import sys
from src.train import main
for line in sys.stdin:
    try:
        code = main(line.split())
    except SystemExit as left:
        code = left.code
    print(f"exit code {code}", file=sys.stderr, flush=True)
"""


class Answer(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Given(NamedTuple):
    answers: dict[str, Answer]
    before: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_folder: MakeFolder) -> Path:
    root = tmp_path_factory.mktemp("wrong")
    for name in ("good/train", "good/val", "other/train"):
        make_folder(root / name)
    make_folder(root / "other" / "val", ("ant", "cat", "dog"))
    bad = make_folder(root / "bad" / "train", suffix=".jpg")
    (bad / "ant" / "0.jpg").write_bytes(b"")
    (bad / "ant" / "1.jpg").write_bytes(b"no picture" * 40)
    (bad / "bee" / "0.jpg").write_bytes((bad / "bee" / "0.jpg").read_bytes()[:-200])
    (bad / "zoo").mkdir()
    (root / "file").write_text("not a folder")
    held = root / "runs" / "held"
    held.mkdir(parents=True)
    (held / ".lock").write_text("process 1 on elsewhere")
    return root


@pytest.fixture(scope="module")
def given(place: Path, run_door: RunDoor) -> Given:
    """Train one run, then give every command of BY_COMMAND."""

    def words(typed: str) -> list[str]:
        return f"{SMALL} {typed}".replace("{}", str(place)).split()

    first = run_door(*words("data.path={}/good run_name=first"))
    assert first.returncode == 0, first.stderr
    shutil.copytree(place / "runs" / "first", place / "runs" / "second")
    before = contents(place / "runs")
    with locked(place / "runs" / "held" / ".lock"):
        rest = [name for name in BY_COMMAND if name not in ALONE]
        answers = dict(zip(rest, one_after_another([words(BY_COMMAND[name][0]) for name in rest]), strict=True))
        for name in ALONE:
            done = run_door(*words(BY_COMMAND[name][0]))
            answers[name] = Answer(done.returncode, done.stdout, done.stderr)
    return Given(answers, before, contents(place / "runs"))


def one_after_another(commands: list[list[str]]) -> list[Answer]:
    lines = "\n".join(" ".join(command) for command in commands)
    env = {name: value for name, value in os.environ.items() if name != "RANK"} | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", ONE_AFTER_ANOTHER]
    done = subprocess.run(command, input=lines, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250, check=True)
    *parts, rest = re.split(r"exit code (\d+)\n", done.stderr)
    assert rest == ""
    return [Answer(int(code), done.stdout, text) for text, code in zip(parts[::2], parts[1::2], strict=True)]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file's bytes; a lock says who came last, and may."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("name", BY_COMMAND)
def test_a_command_is_refused_with_every_problem(given: Given, place: Path, name: str) -> None:
    _, count, fragments = BY_COMMAND[name]
    answer = given.answers[name]
    assert answer.code == 2, answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""
    heading, *problems = answer.stderr.splitlines()
    assert heading.startswith(f"{count} problem{'s' if count > 1 else ''} in the ")
    assert len(problems) == count, answer.stderr
    for fragment in fragments:
        assert fragment.replace("{}", str(place)) in answer.stderr


def test_a_refused_command_writes_over_nothing(given: Given) -> None:
    assert {path for path, bytes_before in given.before.items() if given.after.get(path) != bytes_before} == set()
    added = given.after.keys() - given.before.keys()
    assert {Path(path).parts[0] for path in added} <= {"new"}  # the run that was to start from a missing checkpoint


def test_under_torchrun_one_rank_tells_all_problems_for_both(place: Path, run_door: RunDoor) -> None:
    command = f"{SMALL} batch_size=33 data.path={{}}/none runs_dir={{}}/file/runs".replace("{}", str(place))
    answer = run_door(*command.split(), ranks=2)
    assert answer.returncode != 0
    ours = answer.stderr.partition("torch/distributed/elastic")[0]  # torchrun ends with a traceback of its own, and a report
    assert "Traceback" not in ours
    assert ours.count("4 problems in the preflight:") == 1
    for fragment in ("batch_size = 33:", "over 2 ranks", "32 or 34", "/none/train':", "/none/val':", "/file/runs':"):
        assert ours.count(fragment) == 1
    assert answer.stderr.count("exitcode  : 2") >= 1
