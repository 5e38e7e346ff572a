"""What a verification found goes into the trainer's index: which images are bad is then known before training, without decoding."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from src.config.overrides import CONF_DIR
from src.data.index import teach_index
from src.data.index_cache import Names
from src.imagenet.pieces import Split
from src.imagenet.verify.listing import Listing
from src.imagenet.verify.looking import Looks
from src.imagenet.verify.report import Finding

_CHECK = "the trainer's index"
_PIXELS = 3  # the level that decodes


def tell_index(root: Path, listings: Mapping[Split, Listing], looks: Looks, level: int, threads: int) -> Finding:
    """Write sizes and bad images of train and val into their indexes.

    At level 2, which decodes nothing, images stay bad that an earlier level 3 found to be, as long as their files are the same.
    """
    sizes = np.stack([looks.column("width"), looks.column("height")], axis=1).astype(np.int32)
    cache_dir = _cache_dir()
    places, problems, flagged = [], [], []
    for split, listing in listings.items():
        if split == "test":
            continue
        span = looks.span(split)
        bad = {place - span.start: found for place, found in looks.bad.items() if span.start <= place < span.stop}
        names = Names.pack(f"{folder.name}/{name}" for folder, name in listing.images())
        taught = teach_index(root / split, names, sizes[span], bad, keep_bad=level < _PIXELS, cache_dir=cache_dir, threads=threads)
        if taught is None:
            problems.append(f"{split} holds other files than when the verification began: verify it again")
            continue
        index, where = taught
        flagged += [f"{split}/{index.relative(place)}: {reason}" for place, reason in sorted(index.faults.items())]
        if where is None:
            problems.append(f"no place takes the index of {split}: neither beside it nor in {cache_dir}")
        else:
            places.append(str(where))
    if problems:
        return Finding(2, _CHECK, "not checked", "; ".join(problems))
    if flagged:
        return Finding(2, _CHECK, "problem", f"{len(flagged):,} images are noted as bad in {', '.join(places)}", flagged)
    return Finding(2, _CHECK, "ok", f"no bad image is noted in {', '.join(places)}")


def _cache_dir() -> Path:
    """Return where the trainer looks for indexes of read-only data, if nothing else is set for it."""
    stored = yaml.safe_load((CONF_DIR / "data" / "_stored.yaml").read_text())
    return Path(stored["cache_dir"]).expanduser()
