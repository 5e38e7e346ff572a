"""The pages of the API: one a package, of its modules' docstrings."""

from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).resolve().parents[2] / "src"
_FIRST = ("batch", "build", "distributed", "draws")  # the ground that every reader needs comes first


def pages() -> Iterator[tuple[str, str]]:
    """Yield (path below docs/, Markdown) of each page."""
    single = sorted(SRC.glob("[!_]*.py"), key=lambda file: (file.stem not in _FIRST, file.stem))
    yield "api/index.md", _page("src", single)
    for folder in packages():
        files = sorted(file for file in folder.rglob("*.py") if file.name != "__init__.py")
        if files:
            yield f"api/{folder.name}.md", _page(f"src.{folder.name}", files)


def packages() -> list[Path]:
    """Return the packages of src/, sorted."""
    return sorted(folder for folder in SRC.iterdir() if (folder / "__init__.py").exists())


def _page(title: str, files: list[Path]) -> str:
    names = (".".join(["src", *file.relative_to(SRC).with_suffix("").parts]) for file in files)
    return "\n".join([f"# {title}\n", *(f"::: {name}\n" for name in names)])
