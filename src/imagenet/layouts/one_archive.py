"""Sources that are one archive, known by its name: the archive itself, or the folder that holds it."""

import re
from collections.abc import Iterator
from pathlib import Path

from src.config import ConfigError, Problem

STAGE = "the source"


def archives_at(source: Path, name: re.Pattern[str]) -> Iterator[Path]:
    """Yield the source, or the files in it, where they have such a name; none where it cannot be read."""
    try:
        for path in [source] if source.is_file() else source.iterdir():
            if name.fullmatch(path.name) and path.is_file():
                yield path
    except OSError:
        return


def the_archive(source: Path, name: re.Pattern[str], usual: str) -> Path:
    """Return the one archive; a source that is a file is taken whatever its name.

    Args:
        source: that the user named.
        name: what whole file names look like.
        usual: file name, for messages.

    Raises:
        ConfigError: there is none, or there are several.
    """
    paths = [source] if source.is_file() else sorted(archives_at(source, name))
    if len(paths) == 1:
        return paths[0]
    fix = f"holds {', '.join(path.name for path in paths)}: name one of them." if paths else f"holds no {usual}."
    raise ConfigError(STAGE, [Problem("source", str(source), fix)])
