"""The 1,000 classes of ILSVRC2012 and their English names, from timm's data files; timm, and torch with it, is not imported.

A label is a place in this order, the lexicographic one. English names are for people only: two classes are called "crane", and both
"maillot" and "maillot, tank suit" there are.
"""

import functools
import importlib.util
from pathlib import Path

from src.config import ConfigError, Problem


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the 1,000 wnids, sorted.

    Raises:
        ConfigError: timm is not installed, or is without its lists.
    """
    return tuple(sorted(_read("imagenet_synsets.txt").split()))


@functools.cache
def imagenet_words() -> dict[str, str]:
    """Return wnid to English names, separated by a comma and a space, of the 1,000 classes.

    Raises:
        ConfigError: see imagenet_wnids.
    """
    wanted = set(imagenet_wnids())
    lines = (line.partition("\t") for line in _read("imagenet_synset_to_lemma.txt").splitlines())
    return {wnid: words.strip() for wnid, _, words in lines if wnid in wanted}


def _read(name: str) -> str:
    found = importlib.util.find_spec("timm")  # of a package that is not below another: found, not imported
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    try:
        return Path(folders[0], "data/_info", name).read_text(encoding="utf-8")
    except (IndexError, OSError) as error:
        fix = f"timm's list of ImageNet's classes ({name}) is not there. Run pip install 'timm>=1.0.20'."
        raise ConfigError("the installation", [Problem("timm", None, fix)]) from error
