"""Level 0: are all classes and images there, and is every label what it should be? By names alone, in seconds."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from src.batch import DataError
from src.imagenet.classes import CLASSES_FILE, order_warning, read_classes
from src.imagenet.pieces import Split
from src.imagenet.train_counts import read_train_counts
from src.imagenet.verify.listing import Listing
from src.imagenet.verify.official import NUMBERED, Truth, sum_of
from src.imagenet.verify.report import SHOWN, Finding

Listings = Mapping[Split, Listing]


def check_counts(root: Path, listings: Listings, truth: Truth | None) -> Iterator[Finding]:
    """Yield the findings of level 0.

    Args:
        root: the data set's folder.
        listings: of the splits that are there.
        truth: what the set must hold; None: whatever it is, it must agree with itself.
    """
    absent = [split for split in ("train", "val") if split not in listings]
    if absent:
        yield Finding(0, "splits", "problem", f"no folder {' and no folder '.join(absent)} in {root}", absent)
    yield _classes(listings, truth)
    if not absent:
        yield _agreement(listings["train"].classes, listings["val"].classes)
    yield _label_map(root, listings)
    yield _empty_folders(listings)
    if "train" in listings:
        yield _train_images(listings["train"], truth)
        yield from _train_a_class(root, listings["train"], truth)
    if "val" in listings:
        yield _val_a_class(listings["val"], truth)
        if truth is not None:
            yield _numbered_images(listings["val"], truth.val)
            yield _val_labels(listings["val"], truth)
    if "test" in listings and truth is not None:
        yield _numbered_images(listings["test"], truth.test)


def _classes(listings: Listings, truth: Truth | None) -> Finding:
    """Compare train's class folders (val's where there is no train) with ImageNet's."""
    name = "class folders"
    listing = listings.get("train") or listings.get("val")
    if listing is None:
        return Finding(0, name, "not checked", "there are none")
    has = listing.classes
    if truth is None:
        if not has:
            return Finding(0, name, "problem", f"{listing.split} holds no class folder")
        warning = order_warning(has)
        return Finding(0, name, "ok" if warning is None else "expected", warning or f"{len(has):,}, labelled in the order of text")
    missing, beyond = sorted(truth.val_sums.keys() - set(has)), sorted(set(has) - truth.val_sums.keys())
    if not missing and not beyond:
        return Finding(0, name, "ok", f"{listing.split} holds ImageNet's {len(has):,}")
    offenders = [f"missing: {folder}" for folder in missing] + [f"not of ImageNet: {folder}" for folder in beyond]
    return Finding(
        0, name, "problem", f"of {listing.split}: {len(missing):,} are missing, {len(beyond):,} are not ImageNet's", offenders
    )


def _agreement(train: Sequence[str], val: Sequence[str]) -> Finding:
    name = "train's classes are val's"
    offenders = [f"val has no {folder}" for folder in sorted(set(train) - set(val))]
    offenders += [f"train has no {folder}" for folder in sorted(set(val) - set(train))]
    if offenders:
        return Finding(0, name, "problem", "a label would mean two things", offenders)
    return Finding(0, name, "ok", f"{len(train):,} in both")


def _label_map(root: Path, listings: Listings) -> Finding:
    """Compare classes.tsv, line by line, with the sorted folders."""
    path = root / CLASSES_FILE
    try:
        told = read_classes(path).folders
    except FileNotFoundError:
        return Finding(0, CLASSES_FILE, "not checked", "there is none; labels are the places of the sorted folders all the same")
    except (OSError, DataError) as error:
        return Finding(0, CLASSES_FILE, "problem", str(error), [CLASSES_FILE])
    listing = listings.get("train") or listings.get("val")
    has = tuple(listing.classes) if listing is not None else ()
    if told == has:
        return Finding(0, CLASSES_FILE, "ok", f"label = place of the sorted folder, {len(told):,} times")
    offenders = [
        f"label {label}: {CLASSES_FILE} says {one or 'nothing'}, the folder is {other or 'not there'}"
        for label, (one, other) in enumerate(_side_by_side(told, has))
        if one != other
    ]
    return Finding(0, CLASSES_FILE, "problem", "does not tell the labels that the folders give", offenders)


def _side_by_side(one: Sequence[str], other: Sequence[str]) -> Iterator[tuple[str, str]]:
    for place in range(max(len(one), len(other))):
        yield (one[place] if place < len(one) else ""), (other[place] if place < len(other) else "")


def _empty_folders(listings: Listings) -> Finding:
    offenders = [f"{split}/{folder.name}" for split, listing in listings.items() for folder in listing.folders if folder.size == 0]
    if offenders:
        return Finding(0, "empty class folders", "problem", f"{len(offenders):,} hold no image", offenders)
    return Finding(0, "empty class folders", "ok", "none")


def _train_images(listing: Listing, truth: Truth | None) -> Finding:
    """Count. For every set holds the range of images a class that is published."""
    name = "train: images"
    if truth is None:
        return Finding(0, name, "ok" if listing.size else "problem", f"{listing.size:,}")
    difference = listing.size - truth.train
    fewest, most = truth.train_a_class
    offenders = [
        f"train/{folder.name}: {folder.size:,}, and every class has {fewest:,} to {most:,}"
        for folder in listing.folders
        if not fewest <= folder.size <= most
    ]
    if not difference and not offenders:
        return Finding(0, name, "ok", f"{listing.size:,}, {fewest:,} to {most:,} a class")
    many = f"{-difference:,} are missing" if difference < 0 else f"{difference:,} too many" if difference else "moved about"
    return Finding(0, name, "problem", f"{listing.size:,} of {truth.train:,}: {many}", offenders)


def _train_a_class(root: Path, listing: Listing, truth: Truth | None) -> Iterator[Finding]:
    """Compare each class with the devkit's table, where the preparation kept it. Any set may hold fewer classes."""
    name = "train: images a class"
    try:
        told = read_train_counts(root)
    except (DataError, OSError) as error:
        yield Finding(0, name, "problem", str(error))
        return
    if told is None:
        if truth is not None:
            yield Finding(0, name, "not checked", "no development kit told how many each has; level 1 compares all names")
        return
    if truth is not None and sum(told.values()) != truth.train:
        found = f"the development kit's table adds up to {sum(told.values()):,}, and not to {truth.train:,}: of another set"
        yield Finding(0, name, "not checked", found)
        return
    has = {folder.name: folder.size for folder in listing.folders}
    classes = sorted(told.keys() & has.keys() if truth is None else told.keys())
    offenders = [f"train/{each}: {has.get(each, 0):,} of {told[each]:,}" for each in classes if has.get(each, 0) != told[each]]
    if offenders:
        yield Finding(0, name, "problem", f"{len(offenders):,} classes have not what the development kit tells", offenders)
    else:
        yield Finding(0, name, "ok", f"{len(classes):,} classes have what the development kit tells")


def _val_a_class(listing: Listing, truth: Truth | None) -> Finding:
    name = "val: images a class"
    counts = {folder.size for folder in listing.folders} or {0}
    if truth is None:
        few, many = min(counts), max(counts)
        return Finding(0, name, "ok" if listing.size else "problem", f"{few:,}" if few == many else f"{few:,} to {many:,}")
    wanted = truth.val_a_class
    offenders = [f"val/{folder.name}: {folder.size:,}" for folder in listing.folders if folder.size != wanted]
    if offenders:
        return Finding(0, name, "problem", f"{len(offenders):,} classes have not {wanted}", offenders)
    return Finding(0, name, "ok", f"{wanted} each")


def _numbered_images(listing: Listing, wanted: int) -> Finding:
    """Name every image whose number is missing from 1 to so many, and every one beyond."""
    split = listing.split
    numbers = set(_numbers(listing))
    missing = sorted(set(range(1, wanted + 1)) - numbers)
    beyond = sorted(number for number in numbers if not 1 <= number <= wanted)
    offenders = [f"missing: ILSVRC2012_{split}_{number:08d}.JPEG" for number in missing]
    offenders += [f"beyond: ILSVRC2012_{split}_{number:08d}.JPEG" for number in beyond]
    if offenders:
        found = f"{listing.size:,}, {len(missing):,} of the numbers 1 to {wanted:,} are missing"
        return Finding(0, f"{split}: images", "problem", found, offenders)
    if listing.size != wanted:
        return Finding(0, f"{split}: images", "problem", f"{listing.size:,}, of {wanted:,}: some numbers are there twice")
    return Finding(0, f"{split}: images", "ok", f"{listing.size:,}, numbered 1 to {wanted:,}")


def _numbers(listing: Listing) -> Iterator[int]:
    pattern = NUMBERED[listing.split]
    for _, name in listing.images():
        match = pattern.fullmatch(name)
        if match:
            yield int(match[1])


def _val_labels(listing: Listing, truth: Truth) -> Finding:
    """Compare which images each class holds with the published ground truth: the development kit's ids, misread, fail it."""
    name = "val: labels"
    pattern = NUMBERED["val"]
    wrong = []
    for folder in listing.folders:
        if folder.name in truth.val_sums:
            numbers = [int(match[1]) for match in map(pattern.fullmatch, folder.names()) if match]
            if sum_of(numbers) != truth.val_sums[folder.name]:
                wrong.append(folder.name)
    if not wrong:
        return Finding(0, name, "ok", "every class holds its own images")
    found = f"{len(wrong):,} classes do not hold exactly their own images"
    if len(wrong) > len(truth.val_sums) // 2 > SHOWN:
        found += ". Were the development kit's ids (ILSVRC2012_ID) taken for places in the sorted list?"
    return Finding(0, name, "problem", found, [f"val/{folder}" for folder in wrong])
