"""ImageNet's tars as they are published, and any tar of class folders: which files are samples, and their labels.

Order and labels are those of the folder that extracting the tar would make: classes sorted by name, files sorted within a class.
"""

import itertools
import re
from collections.abc import Callable, Sequence

from src.batch import DataError
from src.data.tar.devkit import Devkit
from src.data.tar.images import Arranged, Images, is_image, some

SPLITS = frozenset({"train", "val", "valid", "validation", "test"})
_VAL = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.[A-Za-z]+")
_WNID = re.compile(r"n\d{8}")


def class_tars(images: Images, shown: Callable[[int], str]) -> dict[int, str] | None:
    """Tell the tars within the tars, and the class of each: its name. None where there are none.

    Raises:
        DataError: other files stand beside them, or two are of one class.
    """
    visible = [index for index, name in enumerate(images.names) if name[0] != "." and "/." not in name]
    found = {index: _base(images.names[index])[: -len(".tar")] for index in visible if images.names[index].endswith(".tar")}
    if not found:
        return None
    other = next((index for index in visible if index not in found and is_image(images.names[index])), None)
    if other is not None:
        raise DataError(f"{shown(other)} stands beside tars of classes ({shown(next(iter(found)))}): it has no class. Remove it.")
    seen: dict[str, int] = {}
    for index, name in found.items():
        if name in seen:
            raise DataError(f"{shown(index)} and {shown(seen[name])} are of one class. Name each tar once.")
        seen[name] = index
    return found


def by_class_tar(images: Images, shown: Callable[[int], str], classes: Sequence[str], members: Sequence[int]) -> Arranged:
    """Arrange what lies in tars of classes.

    Args:
        images: the files in the inner tars.
        shown: a file's name for messages.
        classes: of the inner tars.
        members: which inner tar each file lies in, as a position in classes.
    """
    groups: dict[str, list[int]] = {name: [] for name in classes}
    for index, member in enumerate(members):
        name = images.names[index]
        if is_image(name.partition(".tar/")[2]):
            groups[classes[member]].append(index)
    empty = [name for name, group in groups.items() if not group]
    if empty:
        raise DataError(f"{len(empty)} class tars hold no image: {some(f'{name}.tar' for name in sorted(empty))}.")
    return _grouped(groups, images, shown)


def is_flat_val(images: Images) -> bool:
    """Tell whether the images are ImageNet's validation images in one folder that is no class."""
    folders = set()
    for name in images.names:
        if is_image(name):
            if not _VAL.fullmatch(name):
                return False
            folders.add(name.rpartition("/")[0])
    return len(folders) == 1 and not _WNID.fullmatch(_base(folders.pop()))


def by_devkit(images: Images, shown: Callable[[int], str], devkit: Devkit) -> Arranged:
    """Arrange ImageNet's flat validation images, by the devkit's classes."""
    groups: dict[str, list[int]] = {name: [] for name in devkit.classes}
    for index, name in enumerate(images.names):
        if (match := _VAL.fullmatch(name)) and is_image(name):
            number = int(match[1])
            if not 1 <= number <= len(devkit.labels):
                raise DataError(f"{shown(index)} is image {number:,}, and the devkit tells the classes of {len(devkit.labels):,}.")
            groups[devkit.classes[devkit.labels[number - 1]]].append(index)
    return _grouped(groups, images, shown)


def by_folder(images: Images, shown: Callable[[int], str]) -> Arranged:
    """Arrange `[prefix/]<class>/**/<image>`; the prefix is what all images have in common."""
    chosen = [index for index, name in enumerate(images.names) if is_image(name)]
    if not chosen:
        raise DataError(f"no image is in there. There are: {some(images.names) or 'no files'}.")
    flat = next((index for index in chosen if "/" not in images.names[index]), None)
    if flat is not None:
        raise DataError(
            f"{shown(flat)} lies in no class folder, and nothing else tells its class. What can be read: <class>/<image>, "
            "<class>.tar with images, WebDataset shards (x.jpg beside x.cls), and ImageNet's validation tar with its devkit."
        )
    skip = _prefix(images.names, chosen)
    groups: dict[str, list[int]] = {}
    for index in chosen:
        groups.setdefault(images.names[index].split("/", skip + 1)[skip], []).append(index)
    splits = SPLITS & groups.keys()
    if splits:
        raise DataError(
            f"the folders above the images are {some(sorted(groups))}: {', '.join(sorted(splits))} names a split, not a class. "
            "What can be read is one split a tar, <class>/<image> below at most one folder."
        )
    head = "".join(f"{part}/" for part in images.names[chosen[0]].split("/")[:skip])
    told = {name[len(head) :].split("/", 1)[0] for name in images.folders if name.startswith(head) and name != head.rstrip("/")}
    empty = sorted(name for name in told - groups.keys() if name[0] != ".")
    if empty:
        raise DataError(
            f"{len(empty)} class folders hold no image: {some(empty)}. Write the tar anew without them, or with images."
        )
    return _grouped(groups, images, shown)


def _prefix(names: Sequence[str], chosen: Sequence[int]) -> int:
    """Count the leading folders that all images share, without the class's own."""
    common = names[chosen[0]].split("/")[:-1]
    depth = len(common)
    for index in chosen:
        depth = min(depth, names[index].count("/"))
        if not names[index].startswith("/".join(common) + "/"):
            folders = names[index].split("/")[:-1]
            same = 0
            while same < min(len(common), len(folders)) and common[same] == folders[same]:
                same += 1
            common = common[:same]
            if not common:
                return 0
    return min(len(common), depth - 1)


def _grouped(groups: dict[str, list[int]], images: Images, shown: Callable[[int], str]) -> Arranged:
    classes = tuple(sorted(groups))
    order: list[int] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        group = sorted(groups[name], key=images.names.__getitem__)
        for before, after in itertools.pairwise(group):
            if images.names[before] == images.names[after]:
                raise DataError(f"{shown(after)} is there twice (the other: {shown(before)}). Which one is right cannot be told.")
        order += group
        labels += [label] * len(group)
    return Arranged(classes, order, labels)


def _base(name: str) -> str:
    return name.rpartition("/")[2]
