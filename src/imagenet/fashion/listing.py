"""What one split of an ImageFolder must look like, by its listing: `<split>/<class>/*.png`."""

from collections.abc import Sequence
from pathlib import Path


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, sorted.

    Raises:
        OSError: it is not there, is no folder, or cannot be read.
    """
    return sorted(entry.name for entry in folder.iterdir())


def fault_of(folder: Path, classes: Sequence[str], per_class: int) -> str | None:
    """Say what is missing from a split's folder, or too much in it; None if nothing."""
    try:
        if sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) != sorted(classes):
            return f"holds other folders than the {len(classes)} from {classes[0]} to {classes[-1]}"
        for name in classes:
            count = sum(entry.suffix == ".png" for entry in (folder / name).iterdir())
            if count != per_class:
                return f"{name} holds {count:,} images, not {per_class:,}"
    except OSError as error:
        return f"is no folder that can be read ({error.strerror})"
    return None
