"""What a guide shows: its commands, in order, with the reason where the guide says that one is not run here.

A command stands in a fenced block: in ```bash every line that is neither empty nor a comment, in ```console every line that begins
with "$ "; the lines below that one are what the reader sees. A backslash at the end of a line continues the command.
A reason is given where the reader sees it, for one command behind it or in a comment above it, for a whole block in the line above:

    python -m scripts.aws launch        # not run here: needs an account

    Not run here: it needs a GPU.
    ```bash
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(\s*)(```+|~~~+)\s*(\S*)")
MARK = re.compile(r"#\s*not run here:?(.*)$", re.IGNORECASE)
MARK_ABOVE = re.compile(r"^\W*not run here:?(.*)$", re.IGNORECASE)
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
COMMAND_WORDS = (
    "python ",
    "python3 ",
    "torchrun ",
    "sbatch ",
    "make ",
    "pip ",
    "source ",
    "git ",
    "squeue",
    "scancel ",
    "aws ",
    "nohup ",
)


class Block(NamedTuple):
    """A block of code.

    Attributes:
        language: what stands behind the fence; "" without, "indented" where four spaces make the block.
        line: number of its first line of content, from 1.
        above: the last line of text before it.
        headings: the titles it stands under, outermost first.
    """

    language: str
    line: int
    lines: tuple[str, ...]
    above: str
    headings: tuple[str, ...]


class Command(NamedTuple):
    """One command of a guide.

    Attributes:
        reason: why it is not run here; None where it must be run, "" where the guide gives none.
        shown: what the guide says is seen, of a console block.
    """

    guide: str
    line: int
    text: str
    headings: tuple[str, ...]
    reason: str | None
    shown: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.guide}:{self.line}: {self.text}"


def guides() -> list[str]:
    """Return README.md and all guides, as paths below the project's root."""
    return ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]


def blocks_of(text: str) -> Iterator[Block]:
    """Yield a guide's blocks of code."""
    headings: list[tuple[int, str]] = []
    above, opened, content, started = "", None, [], 0
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        titles = tuple(title for _, title in headings)
        if opened is not None:
            if opened[1] == "indented" and line.startswith("    "):
                content.append(line[4:])
            elif opened[1] == "indented" or line.strip() == opened[0]:
                yield Block(opened[1], started, tuple(content), above, titles)
                above, opened = "", None
            else:
                content.append(line.removeprefix(opened[2]))
            if opened is not None or line.strip() in ("```", "~~~"):
                continue
        if fence := FENCE.match(line):
            opened, content, started = (fence[2], fence[3], fence[1]), [], number + 1
        elif line.startswith("    ") and line.strip() and not above.lstrip().startswith(("-", "*", "|")):
            opened, content, started = ("", "indented", ""), [line[4:]], number
        elif heading := HEADING.match(line):
            headings = [*((depth, title) for depth, title in headings if depth < len(heading[1])), (len(heading[1]), heading[2])]
            above = ""
        elif line.strip():
            above = line
    assert opened is None, f"the block that begins in line {started} has no end"


def commands_of(guide: str, text: str | None = None) -> list[Command]:
    """Return the commands of a guide (or of a text, for the tests of this module)."""
    text = (ROOT / guide).read_text() if text is None else text
    return [
        command for block in blocks_of(text) if block.language in ("bash", "sh", "console") for command in _of_block(guide, block)
    ]


def commands_elsewhere(guide: str, text: str | None = None) -> list[str]:
    """Return what looks like a command, and stands in a block of which nobody would check it."""
    text = (ROOT / guide).read_text() if text is None else text
    others = [block for block in blocks_of(text) if block.language in ("", "indented", "shell", "text", "zsh")]
    return [
        f"{guide}:{block.line + number}: {line}"
        for block in others
        for number, line in enumerate(block.lines)
        if line.removeprefix("$ ").startswith(COMMAND_WORDS)
    ]


def _of_block(guide: str, block: Block) -> Iterator[Command]:
    whole = MARK_ABOVE.match(block.above)
    next_reason, shown, waiting = None, [], None
    lines = iter(enumerate(block.lines, start=block.line))
    for number, line in lines:
        text = line.strip()
        if block.language == "console" and not text.startswith(("$ ", "#")):
            shown.append(text)
            continue
        if waiting is not None:
            yield waiting._replace(shown=tuple(shown))
            waiting = None
        text = text.removeprefix("$ ")
        if text.startswith("#") or not text:
            next_reason = found[1].strip() if (found := MARK.search(text)) else next_reason if text else None
            continue
        while text.endswith("\\"):
            text = text[:-1].rstrip() + " " + next(lines)[1].strip()
        assert "<<" not in text, f"{guide}:{number}: a here-document is not understood by the tests"
        behind = MARK.search(text)
        reason = behind[1].strip() if behind else next_reason if next_reason is not None else whole[1].strip() if whole else None
        plain = re.sub(r"\s+#\s.*$", "", text)
        shown, next_reason, waiting = [], None, Command(guide, number, plain, block.headings, reason)
    if waiting is not None:
        yield waiting._replace(shown=tuple(shown))
