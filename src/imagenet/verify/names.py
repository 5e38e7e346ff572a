"""Level 1, by names: is every file named as it should be, in its own class's folder, and there once?"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from src.imagenet.names import TRAIN
from src.imagenet.pieces import Split
from src.imagenet.verify.listing import Listing
from src.imagenet.verify.official import NUMBERED, Truth
from src.imagenet.verify.report import Finding


def check_names(listings: Mapping[Split, Listing], truth: Truth | None) -> Iterator[Finding]:
    """Yield what names alone tell.

    Args:
        listings: of the splits that are there.
        truth: what the set must hold; None: a set of any kind, whose files may be named as they like.
    """
    strangers = [path for listing in listings.values() for path in listing.strangers]
    yield _finding("strangers", strangers, "are no image and no class folder")
    hidden = [path for listing in listings.values() for path in listing.hidden]
    if hidden:
        yield Finding(1, "hidden files", "expected", f"{len(hidden):,}, which training passes over", hidden)
    if truth is None:
        return
    misnamed: list[str] = []
    misplaced: list[str] = []
    for split, listing in listings.items():
        for folder, name in listing.images():
            if split == "train":
                match = TRAIN.fullmatch(name)
                if match is None:
                    misnamed.append(listing.path(folder, name))
                elif match[1] != folder.name:
                    misplaced.append(listing.path(folder, name))
            elif NUMBERED[split].fullmatch(name) is None:
                misnamed.append(listing.path(folder, name))
    yield _finding("names", misnamed, "are not named as ImageNet's files are")
    yield _finding("train: own folders", misplaced, "lie in another class's folder than their name tells")
    yield _finding("names in two classes", _twice(listings), "lie in more than one class folder")


def _finding(check: str, offenders: list[str], what: str) -> Finding:
    if offenders:
        return Finding(1, check, "problem", f"{len(offenders):,} {what}", offenders)
    return Finding(1, check, "ok", "none wrong")


def _twice(listings: Mapping[Split, Listing]) -> list[str]:
    """Name what is in two class folders of a split. By hashes first: a million names would be a burden."""
    offenders = []
    for listing in listings.values():
        seen: set[int] = set()
        suspects: set[int] = set()
        for _, name in listing.images():
            key = hash(name)
            (suspects if key in seen else seen).add(key)
        if suspects:
            places = defaultdict(list)
            for folder, name in listing.images():
                if hash(name) in suspects:
                    places[name].append(listing.path(folder, name))
            offenders += [f"{first} and {', '.join(others)}" for first, *others in places.values() if others]
    return offenders
