"""Who is measured by `python -m src.benchmark loaders`: every engine of ours on every kind of storage, and the stock peers."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

Stored = Literal["jpeg", "half raw", "raw"]


class Entry(NamedTuple):
    """One contender.

    Attributes:
        name: `<engine>/<source>` for ours, the library's part for a peer.
        ours: or a stock peer.
        stored: how the images are stored: only contenders on the same are compared.
        needs: the scratch folder's file or folder that it reads, one of PREPARED.
        note: what it does otherwise than the rest.
        ranked: whether it may be the best of its kind; not where it does less work than the others.
    """

    name: str
    ours: bool
    stored: Stored
    needs: str
    note: str = ""
    ranked: bool = True


PREPARED = {
    "folder": "images",
    "beton": "jpeg.beton",
    "beton-half-raw": "half_raw.beton",
    "beton-raw": "raw.beton",
    "tar": "images.tar",
    "parquet": "images.parquet",
}
RAW_SIDE = 256  # px; at 500 px raw images of ImageNet's number would take 700 GB, so nobody stores them
_AREA = "OpenCV's INTER_AREA, fast DCT"


def _ours(engine: str, *sources: str, note: str = "") -> list[Entry]:
    kinds: dict[str, Stored] = {"beton-half-raw": "half raw", "beton-raw": "raw"}
    return [Entry(f"{engine}/{source}", True, kinds.get(source, "jpeg"), source, note) for source in sources]


CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        *_ours("nvimgcodec", "folder", "beton", "tar", "parquet", "beton-half-raw", "beton-raw"),
        *_ours("torchvision", "folder", "beton", "beton-raw"),
        *_ours("dali", "folder", "beton", "beton-raw", note="DALI's resize"),
        *_ours("ffcv", "beton", "beton-half-raw", "beton-raw", note=_AREA),
        Entry("ffcv-loader", False, "jpeg", "beton", _AREA),
        Entry("ffcv-loader-half-raw", False, "half raw", "beton-half-raw", _AREA),
        Entry("ffcv-loader-raw", False, "raw", "beton-raw", _AREA),
        Entry("dali-pipeline", False, "jpeg", "folder", "DALI's resize"),
        Entry("dali-pipeline-aliased", False, "jpeg", "folder", "not antialiased: another task", ranked=False),
        Entry("torchvision-dataloader", False, "jpeg", "folder", "Pillow"),
        Entry("torchvision-v2-dataloader", False, "jpeg", "folder", "decode_image"),
        Entry("timm-loader", False, "jpeg", "folder", "ends in float32, normalised, as timm does"),
        Entry("spdl-pipeline", False, "jpeg", "folder", "FFmpeg"),
    )
}
# What the JSON tells first: the fast engine on FFCV's files, and each engine beside the library that it comes from.
HEADLINES = {
    "ratio_to_ffcv": ("nvimgcodec/beton", "ffcv-loader"),
    "ratio_to_ffcv_half_raw": ("nvimgcodec/beton-half-raw", "ffcv-loader-half-raw"),
    "ratio_to_ffcv_raw": ("nvimgcodec/beton-raw", "ffcv-loader-raw"),
}
OWN_PEER = {
    "ffcv": ("ffcv/beton", "ffcv-loader"),
    "dali": ("dali/folder", "dali-pipeline"),
    "torchvision": ("torchvision/folder", "torchvision-dataloader"),
}


class Task(NamedTuple):
    """What a contender's process is asked to do. Travels as JSON.

    Attributes:
        name: of the contender.
        scratch: the folder that holds what was prepared.
        images: that lie there.
        batches: an epoch, all of them full.
        image_size: pixels.
        batch: images.
        workers: threads or processes that decode: the number of CPUs.
    """

    name: str
    scratch: str
    images: int
    batches: int
    image_size: int
    batch: int
    workers: int

    @property
    def repeats(self) -> int:
        """How often an epoch shows each image, at least: on many CPUs an epoch is longer than the images."""
        return -(-self.batches * self.batch // self.images)

    @property
    def data(self) -> Path:
        """Return what this contender reads."""
        return Path(self.scratch) / PREPARED[CATALOGUE[self.name].needs]

    @property
    def clock(self) -> tuple[int, int]:
        """Return between the arrivals of which batches, counted from 0, the clock runs.

        The first batches and the last do not count: at both ends every contender is in mid-work, with as much begun as it likes to
        have ahead. Else a loader whose workers make a batch each would be given all but one of the first round for nothing.
        """
        lead = min(max(3, self.workers), (self.batches - 1) // 2)
        return lead - 1, self.batches - lead - 1

    def as_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return self._asdict()
