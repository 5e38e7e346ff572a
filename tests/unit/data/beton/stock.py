"""Stock FFCV, in a process of its own: importing it sets torch's threads, and its writer forks.

python stock.py write <folder>   images.npz -> <variant>.beton and, as FFCV itself reads it, <variant>.npz
python stock.py load <folder>    every *.beton -> <name>.loaded.npz, through FFCV's Loader
python stock.py read <folder>    every *.beton -> <name>.npz, through FFCV's Reader
"""

import faulthandler
import sys
from pathlib import Path

import numpy as np
from ffcv.fields import BytesField, FloatField, IntField, JSONField, NDArrayField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.memory_managers import OSCacheManager
from ffcv.reader import Reader
from ffcv.writer import DatasetWriter

VARIANTS = {
    "jpg": {"image": RGBImageField(write_mode="jpg", max_resolution=60), "label": IntField()},
    "raw": {"image": RGBImageField(write_mode="raw"), "label": IntField()},
    "smart": {"image": RGBImageField(write_mode="smart", smart_threshold=4000), "label": IntField()},
    "proportion": {"image": RGBImageField(write_mode="proportion"), "label": IntField()},
    "reversed": {"label": IntField(), "image": RGBImageField(write_mode="proportion")},
    "many": {
        "weight": FloatField(),
        "note": JSONField(),
        "image": RGBImageField(write_mode="jpg"),
        "box": NDArrayField(np.dtype("<f4"), (2, 2)),
        "label": IntField(),
        "tail": BytesField(),
    },
    "large": {"tail": BytesField(), "label": IntField(), "other": IntField(), "image": RGBImageField(write_mode="raw")},
}


class Images:
    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        stored = np.load(folder / "images.npz")
        self.labels = stored["labels"]
        self.images = [stored[f"image{number}"] for number in range(len(self.labels))]
        self.names = names

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple:
        sample = {
            "image": self.images[index],
            "label": int(self.labels[index]),
            "other": -7,
            "weight": index / 2,
            "note": {"number": int(index)},
            "box": np.full((2, 2), index, np.float32),
            # Some pages are left with a hole, as a sample of several parts may not straddle them.
            "tail": np.full(300_000 * (self.names[0] == "tail") + index % 3, index, np.uint8),
        }
        return tuple(sample[name] for name in self.names)


def write(folder: Path) -> None:
    for variant, fields in VARIANTS.items():
        images = Images(folder, tuple(fields))
        workers = 1 if variant == "raw" else 2
        writer = DatasetWriter(str(folder / f"{variant}.beton"), fields, page_size=2**21, num_workers=workers)
        writer.from_indexed_dataset(images, chunksize=3)
    for variant in VARIANTS:  # only now: reading compiles in threads, and FFCV's writer forks, which may wait for ever behind them
        read(folder / f"{variant}.beton")


def read(path: Path) -> None:
    reader = Reader(str(path))
    manager = OSCacheManager(reader)
    columns = dict(zip(reader.field_names, reader.metadata.dtype.names, strict=True))
    image = reader.metadata[columns["image"]]
    read_at = manager.compile_reader()
    context = manager.schedule_epoch([])
    with context:
        state = context.state
        data = {f"data{number}": np.array(read_at(pointer, state)) for number, pointer in enumerate(image["data_ptr"])}
    np.savez(
        path.with_suffix(".npz"),
        labels=reader.metadata[columns["label"]],
        modes=image["mode"],
        sizes=np.stack([image["width"], image["height"]], axis=1),
        **data,
    )


def load(path: Path) -> None:
    found = {}
    for os_cache in (True, False):
        pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
        loader = Loader(
            str(path),
            batch_size=4,
            num_workers=1,
            drop_last=False,
            order=OrderOption.SEQUENTIAL,
            os_cache=os_cache,
            pipelines=pipelines,
        )
        batches = [(images.copy(), labels.copy()) for images, labels in loader]
        found[f"images{os_cache}"] = np.concatenate([images for images, _ in batches])
        found[f"labels{os_cache}"] = np.concatenate([labels for _, labels in batches]).reshape(-1)
    np.savez(path.with_suffix(".loaded.npz"), **found)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(120, exit=True)  # a failure in one of FFCV's workers makes its writer wait for ever
    root = Path(sys.argv[2])
    if sys.argv[1] == "write":
        write(root)
    for beton in sorted(root.glob("*.beton")):
        if sys.argv[1] == "load":
            load(beton)
        elif sys.argv[1] == "read":
            read(beton)
