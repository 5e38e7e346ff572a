"""ImageNet in small: one set of images, from which every layout is written that people have ImageNet in.

Classes and oddities are the real ones: wnids and English names (two are called crane), the PNG that is named JPEG, the 22 CMYK
images, the one with bad XMP. Images are real JPEGs of 30 to 60 pixels, each different. The devkit counts in an order of its own.

    model = scale_model()               # 1,000 classes; scale_model(20) has fewer, with all the odd ones up to 24
    LAYOUTS["kaggle"](folder, model)    # what the user has downloaded
    model.files                         # what the target must hold, "train/n01440764/n01440764_10026.JPEG" to bytes
"""

import functools
import gzip
import io
import random
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from src.imagenet.wnids import imagenet_wnids, imagenet_words
from tests.pictures import noise, segment, with_segments

PNG, BAD_XMP = "n02105855_2933", "n04532106_1553"
CMYK = (
    "n01739381_1309",
    "n02077923_14822",
    "n02447366_23489",
    "n02492035_15739",
    "n02747177_10752",
    "n03018349_4028",
    "n03062245_4620",
    "n03347037_9675",
    "n03467068_12171",
    "n03529860_11437",
    "n03544143_17228",
    "n03633091_5218",
    "n03710637_5125",
    "n03961711_5286",
    "n04033995_2932",
    "n04258138_17003",
    "n04264628_27969",
    "n04336792_7448",
    "n04371774_5854",
    "n04596742_4225",
    "n07583066_647",
    "n13037406_4650",
)
# The classes of the first ten validation images, as in the lists that are published (val.txt of Caffe): labels 65, 970, 230, ...
FIRST_VAL = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332)
_REAL = {"n01440764": "n01440764_10026", **{name[:9]: name for name in (PNG, BAD_XMP, *CMYK)}}
_KINDS = ("jpeg", "jpeg", "progressive", "grey", "rotated")
_ALWAYS = ("n01440764", "n02012849", "n03126707", "n03710637", "n03710721")  # both cranes, both maillots


class Model(NamedTuple):
    """A small ImageNet.

    Attributes:
        wnids: sorted.
        words: wnid to English names.
        files: path in the prepared target to bytes, sorted: train/<wnid>/, val/<wnid>/, test/.
        devkit_order: wnids by ILSVRC2012_ID, from 1 on: not sorted.
    """

    wnids: tuple[str, ...]
    words: dict[str, str]
    files: dict[str, bytes]
    devkit_order: tuple[str, ...]

    def split(self, name: str) -> dict[str, bytes]:
        """Path below the split's folder to bytes."""
        return {path[len(name) + 1 :]: data for path, data in self.files.items() if path.startswith(f"{name}/")}

    @property
    def val_classes(self) -> dict[str, str]:
        """Validation image's file name to wnid, by name."""
        pairs = (path.split("/") for path in self.split("val"))
        return dict(sorted((name, wnid) for wnid, name in pairs))

    @property
    def flat_val(self) -> dict[str, bytes]:
        """File name to bytes, by name."""
        return dict(sorted((path.partition("/")[2], data) for path, data in self.split("val").items()))


@functools.cache
def scale_model(classes: int = 1000, train: int = 3, val: int = 2, test: int = 7) -> Model:
    """Make it: about 3 s for 1,000 classes. `val` is the most a class has; every other class has one less, but at least one."""
    wnids = _chosen(classes)
    rng = random.Random(classes)
    places = [wnid for at, wnid in enumerate(wnids) for _ in range(max(1, val - at % 2))]
    rng.shuffle(places)
    _settle_first(places, wnids)
    files = {}
    for wnid in wnids:
        numbers = rng.sample(range(1, 20_000), train)
        names = [f"{wnid}_{number}" for number in numbers]
        if wnid in _REAL:
            names[0] = _REAL[wnid]
        files |= {f"train/{wnid}/{name}.JPEG": _image(name, rng) for name in names}
    for number, wnid in enumerate(places, 1):
        name = f"ILSVRC2012_val_{number:08d}"
        files[f"val/{wnid}/{name}.JPEG"] = _image(name, rng)
    for number in range(1, test + 1):
        name = f"ILSVRC2012_test_{number:08d}"
        files[f"test/{name}.JPEG"] = _image(name, rng)
    order = list(wnids)
    rng.shuffle(order)
    words = {wnid: imagenet_words()[wnid] for wnid in wnids}
    return Model(wnids, words, dict(sorted(files.items())), tuple(order))


def write_official(folder: Path, model: Model, *, devkit: bool = True, test: bool = True) -> Path:
    """Tar of class tars, flat validation tar, test tar, devkit."""
    folder.mkdir(parents=True, exist_ok=True)
    inner = {f"{wnid}.tar": tar_of(files) for wnid, files in _by_class(model.split("train")).items()}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(model.flat_val))
    if test and model.split("test"):
        files = {f"test/{name}": data for name, data in model.split("test").items()}
        (folder / "ILSVRC2012_img_test_v10102019.tar").write_bytes(tar_of(files))
    if devkit:
        write_devkit(folder / "ILSVRC2012_devkit_t12.tar.gz", model)
    return folder


def write_devkit(path: Path, model: Model) -> Path:
    """The devkit: as its tar.gz, or as its folder where the path has no extension."""
    files = {f"ILSVRC2012_devkit_t12/{name}": data for name, data in devkit_files(model).items()}
    if path.suffix:
        path.write_bytes(gzip.compress(tar_of(files), 1, mtime=0))
        return path
    return _write(path, {name.partition("/")[2]: data for name, data in files.items()})


def devkit_files(model: Model) -> dict[str, bytes]:
    """meta.mat, with inner nodes of the tree behind the classes, and the ground truth in its numbers."""
    import scipy.io

    count = len(model.wnids)
    kind = [
        (name, "O")
        for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images")
    ]
    images = Counter(path.partition("/")[0] for path in model.split("train"))
    rows: list[tuple[Any, ...]] = [
        (n, wnid, model.words[wnid], "a", 0, [], 0, images[wnid]) for n, wnid in enumerate(model.devkit_order, 1)
    ]
    rows.append((count + 1, "n00001740", "entity", "a", count, list(range(1, count + 1)), 1, 0))
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)}, do_compression=True)
    numbers = {wnid: n for n, wnid in enumerate(model.devkit_order, 1)}
    truth = "".join(f"{numbers[wnid]}\n" for wnid in model.val_classes.values())
    return {
        "data/meta.mat": meta.getvalue(),
        "data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
        "readme.txt": b"devkit\n",
    }


def write_folders(folder: Path, model: Model, *, labels: str = "devkit") -> Path:
    """`train/<wnid>/`, flat `val/`, `test/`, and what tells the validation classes.

    Args:
        folder: to write.
        model: what.
        labels: "devkit", "devkit folder", "ranks" (val.txt), "wnids" (val.txt), "synset labels" (a wnid a line), "csv", or "none".
    """
    _write(folder / "train", model.split("train"))
    _write(folder / "val", model.flat_val)
    _write(folder / "test", model.split("test"))
    rank = {wnid: label for label, wnid in enumerate(model.wnids)}
    match labels:
        case "devkit":
            write_devkit(folder / "ILSVRC2012_devkit_t12.tar.gz", model)
        case "devkit folder":
            write_devkit(folder / "ILSVRC2012_devkit_t12", model)
        case "ranks":
            (folder / "val.txt").write_text("".join(f"{name} {rank[wnid]}\n" for name, wnid in model.val_classes.items()))
        case "wnids":
            (folder / "val.txt").write_text("".join(f"{name} {wnid}\n" for name, wnid in model.val_classes.items()))
        case "synset labels":
            (folder / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(model.val_classes.values()) + "\n")
        case "csv":
            (folder / "LOC_val_solution.csv").write_bytes(solution_csv(model))
        case _:
            assert labels == "none"
    return folder


def write_kaggle(folder: Path, model: Model, *, csv: bool = True, xml: bool = True) -> Path:
    """What Kaggle's zip unpacks to."""
    return _write(folder, kaggle_files(model, csv=csv, xml=xml))


def write_kaggle_zip(folder: Path, model: Model) -> Path:
    """The zip that Kaggle hands out."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(
        folder / "imagenet-object-localization-challenge.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:
        for name, data in kaggle_files(model).items():
            archive.writestr(zipfile.ZipInfo(name, (2019, 9, 12, 0, 0, 0)), data)
    return folder


def write_torrent(folder: Path, model: Model, *, csv: bool = False, compressed: bool = True) -> Path:
    """Academic Torrents' tar.gz; without csv, classes stand in Annotations."""
    folder.mkdir(parents=True, exist_ok=True)
    data = tar_of(kaggle_files(model, csv=csv))
    name = "ILSVRC2017_CLS-LOC.tar"
    (folder / (f"{name}.gz" if compressed else name)).write_bytes(gzip.compress(data, 1, mtime=0) if compressed else data)
    return folder


def write_huggingface(folder: Path, model: Model, *, compression: str = "none", shards: int = 3, row_group_size: int = 400) -> Path:
    """Parquet shards as ILSVRC/imagenet-1k has them: samples shuffled, the class in path and label, -1 in the test split."""
    import json

    import pyarrow as pa
    import pyarrow.parquet

    names = [model.words[wnid] for wnid in model.wnids]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rank = {wnid: label for label, wnid in enumerate(model.wnids)}
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = []
        for path, image in model.split(split).items():
            wnid, _, file = path.rpartition("/")
            suffixed = f"{file.removesuffix('.JPEG')}_{wnid}.JPEG" if wnid else file
            rows.append({"image": {"bytes": image, "path": suffixed}, "label": rank[wnid] if wnid else -1})
        random.Random(0).shuffle(rows)
        for shard in range(shards):
            part = pa.Table.from_pylist(rows[shard::shards], schema=schema)
            path_ = data / f"{name}-{shard:05d}-of-{shards:05d}.parquet"
            pyarrow.parquet.write_table(part, path_, compression=compression, row_group_size=row_group_size)
    return folder


def write_imagefolder(folder: Path, model: Model) -> Path:
    """`train/<wnid>/`, `val/<wnid>/`, `test/`: what a colleague has prepared already."""
    return _write(folder, model.files)


LAYOUTS: dict[str, Callable[[Path, Model], Path]] = {
    "official": write_official,
    "folders with devkit": write_folders,
    "folders with the devkit's folder": lambda folder, model: write_folders(folder, model, labels="devkit folder"),
    "folders with ranks": lambda folder, model: write_folders(folder, model, labels="ranks"),
    "folders with wnids": lambda folder, model: write_folders(folder, model, labels="wnids"),
    "folders with synset labels": lambda folder, model: write_folders(folder, model, labels="synset labels"),
    "kaggle": write_kaggle,
    "kaggle without csv": lambda folder, model: write_kaggle(folder, model, csv=False),
    "kaggle's zip": write_kaggle_zip,
    "torrent": write_torrent,
    "torrent with csv": lambda folder, model: write_torrent(folder, model, csv=True),
    "torrent as tar": lambda folder, model: write_torrent(folder, model, compressed=False),
    "huggingface": write_huggingface,
    "huggingface compressed": lambda folder, model: write_huggingface(folder, model, compression="snappy"),
    "imagefolder": write_imagefolder,
}


def kaggle_files(model: Model, *, csv: bool = True, xml: bool = True) -> dict[str, bytes]:
    """Path to bytes of the tree that Kaggle and Academic Torrents share."""
    data, lists, notes = "ILSVRC/Data/CLS-LOC", "ILSVRC/ImageSets/CLS-LOC", "ILSVRC/Annotations/CLS-LOC"
    files: dict[str, bytes] = {}
    val = model.val_classes
    train = [path.removesuffix(".JPEG") for path in model.split("train")]
    if xml:
        files |= {
            f"{notes}/val/{name.removesuffix('.JPEG')}.xml": annotation(name, wnid, n) for n, (name, wnid) in enumerate(val.items())
        }
        files |= {f"{notes}/train/{path}.xml": annotation(path.partition("/")[2], path[:9]) for path in train[::3]}
    files |= {f"{data}/train/{path}": image for path, image in model.split("train").items()}
    files |= {f"{data}/val/{name}": image for name, image in model.flat_val.items()}
    files |= {f"{data}/test/{name}": image for name, image in model.split("test").items()}
    files[f"{lists}/train_cls.txt"] = "".join(f"{path} {n}\n" for n, path in enumerate(train, 1)).encode()
    files[f"{lists}/train_loc.txt"] = "".join(f"{path} {n}\n" for n, path in enumerate(train[::3], 1)).encode()
    files[f"{lists}/val.txt"] = "".join(f"{name.removesuffix('.JPEG')} {n}\n" for n, name in enumerate(val, 1)).encode()
    test = [name.removesuffix(".JPEG") for name in model.split("test")]
    files[f"{lists}/test.txt"] = "".join(f"{name} {n}\n" for n, name in enumerate(test, 1)).encode()
    if csv:
        files["LOC_val_solution.csv"] = solution_csv(model)
        files["LOC_train_solution.csv"] = (
            "ImageId,PredictionString\n" + "".join(f"{path.partition('/')[2]},{path[:9]} 1 2 3 4 \n" for path in train[::3])
        ).encode()
        files["LOC_sample_submission.csv"] = (
            "ImageId,PredictionString\n" + "".join(f"{name},n01440764 1 2 3 4\n" for name in test)
        ).encode()
        files["LOC_synset_mapping.txt"] = "".join(f"{wnid} {model.words[wnid]}\n" for wnid in model.wnids).encode()
    return files


def solution_csv(model: Model) -> bytes:
    """LOC_val_solution.csv, in no order, some images with two boxes, as Kaggle's."""
    rows = [
        f"{name.removesuffix('.JPEG')},{f'{wnid} 1 2 30 40 ' * (1 + n % 2)}\n"
        for n, (name, wnid) in enumerate(model.val_classes.items())
    ]
    random.Random(0).shuffle(rows)
    return ("ImageId,PredictionString\n" + "".join(rows)).encode()


def annotation(name: str, wnid: str, number: int = 0) -> bytes:
    """One xml of Annotations; every other tells of two boxes."""
    box = (
        f"\t<object>\n\t\t<name>{wnid}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n"
        "\t\t<bndbox>\n\t\t\t<xmin>1</xmin>\n\t\t\t<ymin>2</ymin>\n\t\t\t<xmax>30</xmax>\n\t\t\t<ymax>20</ymax>\n\t\t</bndbox>\n\t</object>\n"
    )
    head = f"<annotation>\n\t<filename>{name.removesuffix('.JPEG')}</filename>\n\t<size>\n\t\t<width>40</width>\n\t</size>\n"
    return (head + box * (1 + number % 2) + "</annotation>\n").encode()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar as GNU tar writes it."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(data), 1_339_000_000, 0o644
            archive.addfile(member, io.BytesIO(data))
    return memory.getvalue()


def _chosen(classes: int) -> tuple[str, ...]:
    known = imagenet_wnids()
    wanted = list(
        dict.fromkeys([*_ALWAYS, PNG[:9], *(name[:9] for name in CMYK), BAD_XMP[:9], *(known[at] for at in FIRST_VAL), *known])
    )
    return tuple(sorted(wanted[:classes]))


def _settle_first(places: list[str], wnids: tuple[str, ...]) -> None:
    """Give the first ten validation images, and number 293, the classes that the real ones have."""
    known = imagenet_wnids()
    settled = {number: known[label] for number, label in enumerate(FIRST_VAL)} | {292: "n01440764"}
    for at, wnid in settled.items():
        other = next((place for place, name in enumerate(places) if name == wnid and place not in settled), None)
        if at < len(places) and places[at] != wnid and wnid in wnids and other is not None:
            places[at], places[other] = places[other], places[at]


def _image(name: str, rng: random.Random) -> bytes:
    width, height, quality = rng.randint(30, 60), rng.randint(30, 60), rng.randint(60, 95)
    picture = Image.fromarray(np.roll(_noise(rng.randrange(16)), (rng.randrange(60), rng.randrange(60)), (0, 1))[:height, :width])
    kind = "png" if name == PNG else "cmyk" if name in CMYK else _KINDS[rng.randrange(len(_KINDS))]
    file = io.BytesIO()
    match kind:
        case "png":
            picture.save(file, "PNG")
        case "cmyk":
            picture.convert("CMYK").save(file, "JPEG", quality=quality)
        case "grey":
            picture.convert("L").save(file, "JPEG", quality=quality)
        case "progressive":
            picture.save(file, "JPEG", quality=quality, progressive=True)
        case "rotated":
            exif = Image.Exif()
            exif[0x0112] = rng.choice((3, 6, 8))
            picture.save(file, "JPEG", quality=quality, exif=exif.tobytes())
        case _:
            picture.save(file, "JPEG", quality=quality)
    data = file.getvalue()
    if name == BAD_XMP:
        data = with_segments(data, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta\xff\xfe<not>xml"))
    return data


@functools.cache
def _noise(seed: int) -> Any:
    return noise(60, 60, seed)


def _by_class(files: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    grouped: dict[str, dict[str, bytes]] = {}
    for path, data in files.items():
        wnid, _, name = path.partition("/")
        grouped.setdefault(wnid, {})[name] = data
    return grouped


def _write(root: Path, files: Mapping[str, bytes]) -> Path:
    folders = {name.rpartition("/")[0] for name in files}
    for folder in sorted(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        with open(f"{root}/{name}", "wb") as file:
            file.write(data)
    return root
