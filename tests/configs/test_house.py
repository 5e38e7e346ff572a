"""Rules about the source that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_two_files_say_torch_distributed() -> None:
    say = [str(path.relative_to(ROOT)) for path in SOURCES if any(name.startswith("torch.distributed") for name in imported(path))]
    say += [str(path.relative_to(ROOT)) for path in SOURCES if re.search(r"torch\.distributed\.\w+\(", path.read_text())]
    assert set(say) == {"src/distributed.py", "src/peers.py"}


def test_the_loop_has_no_flags() -> None:
    text = (ROOT / "src" / "training" / "loop.py").read_text()
    for word in ("rank", "fp16", "bf16", "wandb", "ema", "schedule_free"):
        assert not re.search(rf"\bif\b[^\n]*\b{word}\b", text), word


def test_no_file_is_called_utils() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "helpers", "misc", "common"}]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(name: str) -> None:
    named = re.findall(r"`((?:src|tests|conf)/[\w./-]+)`", (ROOT / name).read_text())
    assert len(named) > 5
    assert not [path for path in named if not (ROOT / path).exists()]


def test_long_files_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """An alarm, not a goal: above 250 lines a second responsibility may hide; far above it surely does."""
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    long = {name: length for name, length in lengths.items() if length > 250}
    with capsys.disabled():
        if long:
            print(f"\nlonger than 250 lines: {long}")
    assert max(lengths.values()) <= 400, long
