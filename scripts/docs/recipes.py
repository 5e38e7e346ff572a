"""The page of recipes: each file of conf/experiment with what its header claims, and the file itself."""

import re
from pathlib import Path

from src.config.overrides import CONF_DIR

_HEADS = ("claim", "source", "command", "hardware", "hours", "ran by us", "differs")


def page() -> str:
    """Return the whole page as Markdown."""
    folder = CONF_DIR / "experiment"
    files = sorted(folder.glob("[!_]*.yaml"))
    parts = [
        "# Recipes\n",
        "Each is one file of `conf/experiment/`, typed as `experiment=<name>`; what is typed behind it replaces its parts.",
        "Figures in a claim are those of the source that is named, unless the recipe says that we ran it.\n",
        "| recipe | claim | ran by us |\n|---|---|---|",
    ]
    for file in files:
        claim, ran = (_first(header_of(file), key) for key in ("claim", "ran by us"))
        parts.append(f"| [`{file.stem}`](#{file.stem}) | {_cell(claim)} | {_cell(ran)} |")
    for file in files:
        parts.append(f"\n## {file.stem}\n")
        for key, text in header_of(file):
            bare = key == "command" and "`" not in text and "(" not in text
            parts.append(f"- **{key}**: {f'`{text}`' if bare else text}")
        parts += ["", *_folded(file)]
    parts += ["\n## Shared\n", *(line for file in sorted(folder.glob("_*.yaml")) for line in _folded(file))]
    return "\n".join(parts) + "\n"


def _folded(file: Path) -> list[str]:
    """Return a block that opens when it is clicked at, with the file in it."""
    lines = (f"    {line}" for line in file.read_text(encoding="utf-8").splitlines())
    return [f'??? example "conf/experiment/{file.name}"', "    ```yaml", *lines, "    ```", ""]


def header_of(file: Path) -> list[tuple[str, str]]:
    """Return (heading, text) of a recipe's first comment, in order; `differs` may come more than once."""
    found: list[tuple[str, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("# @package"):
            continue
        head = re.match(rf"# ({'|'.join(_HEADS)})\s+(.*)", line)
        if head:
            found.append((head[1], head[2].strip()))
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.lstrip('# ').strip()}")
    return found


def _first(header: list[tuple[str, str]], key: str) -> str:
    return next((text for name, text in header if name == key), "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
