"""WebDataset shards: files of one key are one sample. The key is the path up to the first dot of its last part.

Neither `.cls` nor `.json` carries a checksum: a digit that was changed in one is noticed only where it names no class.
"""

import json
from collections.abc import Callable

from src.batch import DataError
from src.data.index import EXTENSIONS
from src.data.index_cache import numbered
from src.data.tar.images import Arranged, Images, is_image, some

_MOST_CLS, _MOST_JSON = 64, 2**20  # bytes
_MOST_CLASSES = 1_000_000  # without names: a larger label is damage


def are_shards(images: Images) -> bool:
    """Tell whether labels stand beside the images: `.cls` anywhere, or a `.json` for each image of one folder."""
    if any(name.endswith(".cls") for name in images.names):
        return True
    described = {_split(name)[0] for name in images.names if name.endswith(".json")}
    pictures = [_split(name)[0] for name in images.names if is_image(name)] if described else []
    folders = {name.rpartition("/")[0] for name in pictures}
    return len(folders) == 1 and described.issuperset(pictures)


def by_key(images: Images, shown: Callable[[int], str], read: Callable[[int], bytes], names: tuple[str, ...] | None) -> Arranged:
    """Arrange the samples in the shards' own order.

    Args:
        images: all files.
        shown: a file's name for messages.
        read: reads a small file.
        names: of the classes, where they are known; else they are class_0000, ...

    Raises:
        DataError: naming the sample that has no label, or two, or two images.
    """
    pictures: dict[tuple[int, str], int] = {}
    describers: dict[tuple[int, str], int] = {}
    for index, name in enumerate(images.names):
        key, kind = _split(name)
        place = (images.files[index], key)
        if kind == ".cls" or (kind == ".json" and place not in describers):
            known = describers.get(place)
            if known is not None and images.names[known] == name:
                _twice(shown, index, known)
            describers[place] = index
        elif kind == ".json" and images.names[describers[place]] == name:
            _twice(shown, index, describers[place])
        elif kind.lower() in EXTENSIONS and is_image(name):
            if place in pictures:
                _twice(shown, index, pictures[place])
            pictures[place] = index
    if not pictures:
        raise DataError(f"no image is in there. There are: {some(images.names)}.")
    order = list(pictures.values())
    labels = [_label(place, pictures, describers, images, shown, read, len(names or ())) for place in pictures]
    return Arranged(names or numbered(max(labels) + 1), order, labels)


def _label(
    place: tuple[int, str],
    pictures: dict[tuple[int, str], int],
    describers: dict[tuple[int, str], int],
    images: Images,
    shown: Callable[[int], str],
    read: Callable[[int], bytes],
    num_classes: int,
) -> int:
    index = describers.get(place)
    if index is None:
        raise DataError(f"{shown(pictures[place])} has no label: neither a .cls nor a .json stands beside it in its shard.")
    is_json = images.names[index].endswith(".json")
    if images.lengths[index] > (_MOST_JSON if is_json else _MOST_CLS):
        raise DataError(f"{shown(index)} has {images.lengths[index]:,} bytes: that is no label.")
    text = read(index)
    try:
        found = json.loads(text)["label"] if is_json else int(text)
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if isinstance(found, bool) or not isinstance(found, int):
        holds = 'no whole number as its "label"' if is_json else f"{text[:30]!r}, which is no whole number"
        raise DataError(f"{shown(index)} holds {holds}.")
    if not 0 <= found < (num_classes or _MOST_CLASSES):
        raise DataError(f"{shown(index)} tells of class {found}, and there are {num_classes or _MOST_CLASSES:,}, counted from 0.")
    return found


def _twice(shown: Callable[[int], str], index: int, known: int) -> None:
    raise DataError(f"{shown(index)} and {shown(known)} belong to one sample. A sample has one image and one label.")


def _split(name: str) -> tuple[str, str]:
    """Split a path into key and extension, at the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    stem, dot, kind = base.partition(".")
    return folder + slash + stem, dot + kind
