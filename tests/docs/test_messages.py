"""What a guide says that the program says, it says: each quotation stands in the source, and some are provoked."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.docs.conftest import OpenShell
from tests.docs.guides import ROOT, guides
from tests.pictures import write_files
from tests.scale_models import scale_model, write_official

HOLE = "\0"
TITLE = "the program says"
CODE = re.compile(r"`([^`]+)`")


def quoted(guide: str, text: str | None = None) -> list[str]:
    """Return the quotations in the columns headed "the program says" of a guide's tables."""
    found, column = [], None
    for line in ((ROOT / guide).read_text() if text is None else text).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.lstrip().startswith("|") else None
        if cells is None:
            column = None
        elif TITLE in cells:
            column = cells.index(TITLE)
        elif column is not None and set(cells[column]) - set("-:"):
            messages = CODE.findall(cells[column])
            assert messages, f"{guide}: a row without a quotation: {line}"
            found += messages
    return found


@cache
def said() -> tuple[str, ...]:
    """Return all strings of the source; what an f-string fills in is a hole."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    return tuple(text for file in files for text in strings_in(ast.parse(file.read_text())))


def strings_in(tree: ast.AST) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and _begins_with_text(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def _begins_with_text(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)


def stands_in(message: str, texts: tuple[str, ...]) -> bool:
    """Return whether the words of a quotation follow one another in one text; `...` stands for what is filled in or left out."""
    pieces = [piece.strip() for piece in message.split("...")]
    pattern = re.compile(".*?".join(re.escape(piece) for piece in pieces), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def all_quoted() -> list[tuple[str, str]]:
    return [(guide, message) for guide in guides() for message in quoted(guide)]


@pytest.mark.parametrize(("guide", "message"), all_quoted())
def test_the_program_has_these_words(guide: str, message: str) -> None:
    assert len(re.sub(r"[^a-z]", "", message.replace("...", ""))) >= 8, f"{guide}: too short to be looked for: {message}"
    assert stands_in(message, said()), f"{guide}: the program never says: {message}"


def test_words_that_the_program_does_not_have_are_found_out() -> None:
    texts = ("has \0 bytes, not the published \0", "plain words")
    assert stands_in("has ... bytes, not the published", texts)
    assert not stands_in("has ... bytes, not the announced", texts)
    assert not stands_in("has 3 bytes", texts)  # numbers are written as ...
    assert not stands_in("published ... plain", texts)
    found = set(strings_in(ast.parse('"""Not this."""\nx = f"a {y} " "b"')))
    assert "a \0 b" in found and "Not this." not in found
    with pytest.raises(AssertionError, match="without a quotation"):
        quoted("x.md", f"| {TITLE} | do |\n|---|---|\n| nothing | x |\n")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("python -m src.train data.pth=x", "no such key. Did you mean ...?"),
        ("python -m src.train data.path=data/nowhere", "no such folder. ..."),
        ("python -m src.train data.path=data/flat", "holds no class folders (<class>/<image>). ..."),
        (
            "python -m src.train data.path=data/tiny",
            "is more than the ... training images, so an epoch has no step. Set batch_size=...",
        ),
        ("python -m src.prepare source=data/official", "has ... bytes, not the published ..."),
    ],
)
def test_the_program_says_so_when_it_is_provoked(open_shell: OpenShell, command: str, message: str) -> None:
    assert message in quoted("docs/troubleshooting.md")
    shell = open_shell()
    data = shell.project / "data"
    write_official(data / "official", scale_model(2))
    for folder in ("flat/train", "flat/val"):
        (data / folder).mkdir(parents=True)
        write_files(data / folder, {"a.txt": b"no image"})
    picture = next(content for name, content in scale_model(2).files.items() if name.startswith("train/"))
    tiny = {f"{split}/n0144076{label}/x{label}.JPEG": picture for split in ("train", "val") for label in (4, 5)}
    write_files(data / "tiny", tiny)
    done = shell.type(f"{command}{' model=small_resnet' if 'src.train' in command else ''}")
    assert done.returncode == 2, done.stderr
    pattern = ".*?".join(re.escape(piece.strip()) for piece in message.split("..."))
    assert re.search(pattern, " ".join(done.stderr.split())), done.stderr
    assert "Traceback" not in done.stderr
