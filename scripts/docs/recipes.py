"""The page of recipes: each file of conf/experiment with what its header claims, and the file itself."""

import re
from pathlib import Path

from src.config.overrides import CONF_DIR

_HEADS = ("claim", "source", "command", "hardware", "hours", "ran by us", "differs")


def page() -> str:
    """Return the whole page as Markdown."""
    files = sorted((CONF_DIR / "experiment").glob("[!_]*.yaml"))
    parts = [
        "# Recipes\n",
        "Each is one file of `conf/experiment/`, typed as `experiment=<name>`; what is typed behind it replaces its parts. Figures in a claim are those of the source that is named, unless "
        "the recipe says that we ran it.\n",
        "| recipe | claim | ran by us |\n|---|---|---|",
        *(f"| [`{file.stem}`](#{file.stem}) | {_cell(_first(header_of(file), 'claim'))} | {_cell(_first(header_of(file), 'ran by us'))} |" for file in files),
    ]
    for file in files:
        parts.append(f"\n## {file.stem}\n")
        for key, text in header_of(file):
            parts.append(f"- **{key}**: {f'`{text}`' if key == 'command' and '`' not in text and '(' not in text else text}")
        parts += ["", f'??? example "conf/experiment/{file.name}"', "    ```yaml", *(f"    {line}" for line in file.read_text(encoding="utf-8").splitlines()), "    ```"]
    parts += ["\n## Shared\n", *_shared()]
    return "\n".join(parts) + "\n"


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


def _shared() -> list[str]:
    return [
        line
        for file in sorted((CONF_DIR / "experiment").glob("_*.yaml"))
        for line in (f'??? example "conf/experiment/{file.name}"', "    ```yaml", *(f"    {text}" for text in file.read_text(encoding="utf-8").splitlines()), "    ```", "")
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
