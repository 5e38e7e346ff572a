"""What mkdocs calls (mkdocs.yml): pages that are made from the code, and links out of docs/ that lead into the site."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # `mkdocs build` does not put the folder that it stands in there

from mkdocs.structure.files import File, Files  # noqa: E402

from scripts.docs import api, recipes, reference  # noqa: E402

_TOP = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(\[(?:[^\]\n]*)\]\()([^)\s]+)(\))")


def on_config(config: Any) -> Any:
    """Name the pages of the API in the menu: one a package."""
    for entry in config["nav"]:
        if "API" in entry:
            entry["API"] = [path for path, _ in api.pages()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand in no file of docs/."""
    made = {"configuration.md": reference.page(), "recipes.md": recipes.page(), **dict(api.pages())}
    made |= {page: (ROOT / name).read_text(encoding="utf-8") for name, page in _TOP.items()}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to README.md and its neighbours to their pages, and those to the source to nothing: the site holds no code."""
    depth = page.file.src_uri.count("/")
    top = page.file.src_uri in _TOP.values()

    def lead(match: re.Match[str]) -> str:
        target, hash_, anchor = match[2].partition("#")
        if re.match(r"[a-z]+:", target) or not target:
            return match[0]
        name = target.removeprefix("docs/") if top else target.removeprefix("../" * (depth + 1))
        if name in _TOP and (top or target.startswith("../")):
            return f"{match[1]}{'../' * depth}{_TOP[name]}{hash_}{anchor}{match[3]}"
        if top and target.startswith("docs/"):
            return f"{match[1]}{name or 'index.md'}{hash_}{anchor}{match[3]}"
        leaves = target.startswith("../" * (depth + 1)) or top
        return match[1][1:-2] if leaves else match[0]

    return _LINK.sub(lead, markdown)
