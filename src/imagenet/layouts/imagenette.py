"""Imagenette and Imagewoof (https://github.com/fastai/imagenette): ten classes of ImageNet each, as a tgz or as what it unpacks to.

The csv of noisy labels in them is passed over. Files keep their names.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from src.batch import DataError
from src.config import ConfigError, Problem
from src.config.prepare import PrepareConfig
from src.data.tar.images import is_image
from src.imagenet.layouts.imagefolder import found_in
from src.imagenet.pieces import MOST_BYTES, Archive, Found, Piece, Split
from src.imagenet.sets.archive import archive_members
from src.imagenet.sets.tree import STAGE, Tree, classes_of_train, read_tree

IMAGENETTE = frozenset(
    "n01440764 n02102040 n02979186 n03000684 n03028079 n03394916 n03417042 n03425413 n03445777 n03888257".split()  # noqa: SIM905
)
IMAGEWOOF = frozenset(
    "n02086240 n02087394 n02088364 n02089973 n02093754 n02096294 n02099601 n02105641 n02111889 n02115641".split()  # noqa: SIM905
)
# md5 sums: torchvision.datasets.Imagenette; sizes: dataset_infos.json of huggingface.co/datasets/frgfm/imagenette. Of Imagewoof's
# archives different sums are in circulation: none is checked.
PUBLISHED = {
    "imagenette2.tgz": ("fe2fc210e6bb7c5664d602c3cd71e612", 1_557_161_267),
    "imagenette2-320.tgz": ("3df6f0d01a2c9592104656642f5e78a3", 341_663_724),
    "imagenette2-160.tgz": ("e793b78cc4c9e9a4ccc0c1155377a412", 99_003_388),
}
_IMAGES = 9_469 + 3_925  # train and val; Imagewoof has 440 less
_ARCHIVE = re.compile(r"image(nette|woof)2?(-160|-320)?\b.*\.(tgz|tar\.gz|tar)")
_MEMBER = re.compile(r"(?:[^/]+/)?(train|val)/(n\d{8})/([A-Za-z0-9][A-Za-z0-9_.-]{0,200}\.(?i:jpe?g))", re.ASCII)
_AGAIN = "Get it again from where it is published"


def looks_like(source: Path) -> bool:
    """Tell whether it is one of the archives, holds some, or is a tree of exactly these ten classes."""
    try:
        return bool(_archives_at(source)) or classes_of_train(str(source)) in (IMAGENETTE, IMAGEWOOF)
    except OSError:
        return False


def find(source: Path, config: PrepareConfig) -> Found:
    """Find the archive, or the classes of the tree.

    Raises:
        ConfigError: none is there, several are, or classes are missing; every problem at once.
    """
    if config.val_fraction is not None:
        fix = "Imagenette has its validation split. Leave it out."
        raise ConfigError(STAGE, [Problem("val_fraction", config.val_fraction, fix)])
    archives = [source] if source.is_file() else _archives_at(source)
    if not archives:
        return found_in(_of_ten(read_tree(str(source))), config, layout="imagenette", words={})
    if len(archives) > 1:
        names = ", ".join(path.name for path in archives)
        raise ConfigError(STAGE, [Problem("source", str(source), f"holds {names}. Name one of them: source={archives[0]}.")])
    md5, size = PUBLISHED.get(archives[0].name, (None, None))
    state = archives[0].stat()
    return Found(
        layout="imagenette",
        units=[_ArchiveUnit(archives[0])],
        archives=[Archive(archives[0], md5, size)],
        stamp=[str(archives[0].resolve()), state.st_size, state.st_mtime_ns],
        labels=lambda side: {},
        words=lambda side: {},
        listed=lambda side: None,
        notes=[] if md5 is not None else [f"no published sum of {archives[0].name} is known: it is taken as it is"],
    )


class _ArchiveUnit:
    """A whole archive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        self.files = _IMAGES
        self.bytes = path.stat().st_size  # JPEGs hardly shrink

    def pieces(self, start: int) -> Iterator[Piece]:
        """See Unit."""
        met: set[tuple[str, ...]] = set()
        number = 0
        with archive_members(str(self._path)) as members:
            for member in members:
                if not is_image(member.path):
                    continue
                split, folder, name = _place_of(member.path, member.length)
                if (split, folder, name) in met:
                    raise DataError(f"holds {member.path} twice. {_AGAIN}.")
                met.add((split, folder, name))
                if number >= start:
                    yield Piece(split, folder, name, member.read())
                number += 1
            classes = frozenset(folder for _, folder, _ in met)
            wanted = IMAGEWOOF if classes & IMAGEWOOF else IMAGENETTE
            lacking = [f"{split}/{folder}" for split in ("train", "val") for folder in sorted(wanted)]
            lacking = [place for place in lacking if place not in {f"{split}/{folder}" for split, folder, _ in met}]
            if lacking or classes - wanted:
                what = f"lacks {', '.join(lacking[:5])}" if lacking else f"holds {', '.join(sorted(classes - wanted))} besides"
                raise DataError(f"{what}. {_AGAIN}.")


def _place_of(path: str, length: int) -> tuple[Split, str, str]:
    match = _MEMBER.fullmatch(path)
    if match is None or match[2] not in IMAGENETTE | IMAGEWOOF:
        raise DataError(f"holds {path[:300]!r}, which is no image of Imagenette by its path. {_AGAIN}.")
    if not 0 < length <= MOST_BYTES:
        raise DataError(f"holds {path[:300]!r} of {length:,} bytes: that is no image. {_AGAIN}.")
    return "train" if match[1] == "train" else "val", match[2], match[3]


def _of_ten(tree: Tree) -> Tree:
    problems = []
    train = {folder.name for folder in tree.splits.get("train", ())}
    wanted = IMAGEWOOF if len(train & IMAGEWOOF) > len(train & IMAGENETTE) else IMAGENETTE
    for split in ("train", "val"):
        have = {folder.name for folder in tree.splits.get(split, ())}
        lacking, beyond = sorted(wanted - have), sorted(have - wanted)
        for what, names in (("lacks", lacking), ("holds besides its ten classes", beyond)):
            if names:
                problems.append(Problem(f"{tree.root}/{split}", None, f"{what} {', '.join(names[:5])}. Unpack the archive again."))
    if problems:
        raise ConfigError(STAGE, problems)
    return tree


def _archives_at(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if _ARCHIVE.fullmatch(path.name) else []
    return sorted(inner for inner in path.iterdir() if _ARCHIVE.fullmatch(inner.name) and inner.is_file())
