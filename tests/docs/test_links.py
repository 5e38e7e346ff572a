"""Where a guide points, there is something: files, headings, keys of the configuration, recipes."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from src.config.problems import known_keys
from tests.docs.guides import ROOT, commands_of, guides

TEXTS = [*guides(), "CONTRIBUTING.md"]
FENCED = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w.-]+(/[\w.*{},-]+)*/?\.?[\w{},*]*")
TOP = ("src/", "scripts/", "tests/", "conf/", "docs/")
MADE = {"configuration.md", "recipes.md"}
OWN_DOORS = ("prepare", "ffcv_writer", "lr_finder", "evaluate", "report", "export", "demo", "audit")
# Of doors that read their arguments without a file in conf/: python -m src.benchmark.
OTHER_KEYS = {
    *("steps", "saves", "pairs", "images", "size", "data", "image_size", "batch", "seconds", "only", "plot", "folder", "quality"),
    *("checkpoint", "weights", "max_resolution", "workers"),
}


def prose(text: str) -> str:
    return FENCED.sub("", text)


def anchors(file: Path) -> set[str]:
    """Return the names by which GitHub makes headings known."""
    titles = re.findall(r"^#{1,6}\s+(.*)$", prose(file.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def wrong_links(name: str, text: str) -> Iterator[str]:
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        if name.startswith("docs/") and (path in MADE or path.startswith("api/")):
            continue  # made for the site: mkdocs build --strict looks there
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in anchors(file):
            yield f"{target}: no such heading; there are {', '.join(sorted(anchors(file)))}"


def wrong_files(text: str) -> Iterator[str]:
    """Files of the project that are named in backticks; reliability.md's are below tests/."""
    for code in CODE.findall(prose(text)):
        if FILE.fullmatch(code) and "/" in code and (code.startswith(TOP) or code.endswith((".py", ".sh"))):
            roots = (ROOT, ROOT / "tests", ROOT / "src")
            if not all(any([*root.glob(one)] for root in roots) for one in braces(code.rstrip("/"))):
                yield code


def braces(text: str) -> list[str]:
    found = re.search(r"\{([^{}]*)\}", text)
    if found is None:
        return [text]
    return [one for word in found[1].split(",") for one in braces(text[: found.start()] + word + text[found.end() :])]


@cache
def keys() -> dict[str, set[str]]:
    """Return what each door reads."""
    own = {door: set(yaml.safe_load((ROOT / f"conf/{door}.yaml").read_text())) for door in OWN_DOORS}
    groups = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()}
    trainer = {*known_keys(), *groups}
    return {"train": trainer, **{door: own[door] | (set() if door == "prepare" else trainer) for door in OWN_DOORS}}


def wrong_keys(text: str) -> Iterator[str]:
    """Keys in backticks: `data.path`, `batch_size=64`, `experiment=demo`."""
    every = set().union(*keys().values(), OTHER_KEYS)
    for code in CODE.findall(prose(text)):
        for word in code.split() if "(" not in code else ():
            key, equals, value = word.partition("=")
            if not re.fullmatch(r"[a-z][a-z_]*(\.[a-z_]+)*", key):
                continue
            dotted = "." in key and key.partition(".")[0] in {known.partition(".")[0] for known in keys()["train"] if "." in known}
            if (
                (equals and not key.startswith("val_acc"))
                or (dotted and not key.endswith((".yaml", ".py", ".safetensors", ".onnx")))
            ) and key not in every:
                yield f"{key} (in `{code}`)"
            if key == "experiment" and value and "|" not in value and "<" not in value:
                yield from (name for name in value.split(",") if not (ROOT / f"conf/experiment/{name}.yaml").exists())


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    assert list(wrong_links(name, (ROOT / name).read_text())) == []


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_named_exist(name: str) -> None:
    assert list(wrong_files((ROOT / name).read_text())) == []


@pytest.mark.parametrize("name", TEXTS)
def test_keys_that_are_named_exist(name: str) -> None:
    assert list(wrong_keys((ROOT / name).read_text())) == []


@pytest.mark.parametrize("guide", guides())
def test_commands_name_keys_that_their_door_reads(guide: str) -> None:
    """Also where a command is not run here."""
    wrong = []
    for command in commands_of(guide):
        if door := re.search(r"-m src\.(\w+) (.*)", command.text):
            words = [word.partition("=")[0] for word in door[2].split() if re.match(r"[a-z_.]+=", word)]
            known = keys().get(door[1], keys()["train"] | OTHER_KEYS)
            wrong += [f"{command.place}: {word}" for word in words if word not in known]
    assert wrong == []


def test_what_points_nowhere_is_found_out() -> None:
    links = "[a](nowhere.md) [b](imagenet.md#no-such) [c](#here)"
    text = f"{links} `src/no_such.py` `data.pth` `batchsize=3` `experiment=no_such`\n# Here\n"
    assert [one.partition(":")[0] for one in wrong_links("docs/imagenet.md", text)] == [
        "nowhere.md",
        "imagenet.md#no-such",
        "#here",
    ]
    assert list(wrong_files(text)) == ["src/no_such.py"]
    assert [one.partition(" ")[0] for one in wrong_keys(text)] == ["data.pth", "batchsize", "no_such"]
    assert list(wrong_keys("`data.path` `batch_size=3` `source=x` `experiment=demo` `python -m src.train optim.peak_lr=1`")) == []
