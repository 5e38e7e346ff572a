"""How long a second start takes with as many images as ImageNet has, and its memory: a folder, a tar and a .beton of tiny ones.

    python -m tests.end_to_end.large_index [--images 1281167] [--folder /dev/shm]

The last line is JSON: for each source the seconds of the first and second start to the end of the first step, and the peak memory.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from src.batch import Encoded
from src.data.beton.writer import write_beton
from tests.pictures import encode

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    *("model=small_resnet", "model.width=4", "data.image_size=16", "data.resize_size=16", "schedule.warmup_epochs=1", "epochs=1"),
    *("data.val_subset=1000", "track.log_every_steps=1", "keep_top_k=0"),
)
CLASSES = 1000


class Tiny:
    """The same tiny JPEG again and again."""

    def __init__(self, count: int) -> None:
        self.jpeg = encode("jpeg", 16, 16)
        self.classes = tuple(f"n{label:08}" for label in range(CLASSES))
        self.labels = np.sort(np.arange(count) % CLASSES)
        self.sizes = np.full((count, 2), 16, np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Encoded:
        return Encoded(self.jpeg, "codestream", 16, 16)

    def name(self, index: int) -> str:
        return f"tiny#{index}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--sources", nargs="+", default=["folder", "tar", "beton"])
    options = parser.parse_args()
    found = {}
    writers = {"folder": write_folder, "tar": write_tar, "beton": write_file}
    for source, write in ((name, writers[name]) for name in options.sources):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            place = Path(name)
            settings = write(place, options.images)
            found[source] = {turn: start(place, settings) for turn in ("first_start", "second_start")}
            print(source, found[source], file=sys.stderr, flush=True)
    print(json.dumps({"images": options.images, **found}))
    return 0


def start(place: Path, settings: tuple[str, ...]) -> dict[str, float]:
    """Train until the first step is logged; return seconds from the command to there, and the process's peak memory."""
    run = f"run-{time.monotonic_ns()}"
    rows = place / "runs" / run / "metrics.jsonl"
    command = [sys.executable, "-m", "src.train", *settings, *SETTINGS, f"runs_dir={place}/runs", f"run_name={run}"]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (rows.exists() and rows.stat().st_size) and process.poll() is None:
        time.sleep(0.005)
    seconds = time.monotonic() - began
    status = Path(f"/proc/{process.pid}/status").read_text() if process.poll() is None else ""
    peak = next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), float("nan"))
    process.kill()
    _, said = process.communicate()
    assert rows.exists(), said[-2000:]
    return {"seconds": round(seconds, 2), "peak_mib": round(peak)}


def write_folder(place: Path, count: int) -> tuple[str, ...]:
    tiny = Tiny(count)
    original = place / "original"
    original.write_bytes(tiny.jpeg)
    for split, labels in (("train", tiny.labels), ("val", np.arange(CLASSES))):
        for label in tiny.classes:
            (place / split / label).mkdir(parents=True)
        for number, label in enumerate(labels.tolist()):
            path = place / split / tiny.classes[label] / f"{tiny.classes[label]}_{number}.JPEG"
            with contextlib.suppress(FileExistsError):
                os.link(original, path)
    return "data=imagefolder", f"data.path={place}"


def write_tar(place: Path, count: int) -> tuple[str, ...]:
    tiny = Tiny(count)
    for split, labels in (("train", tiny.labels), ("val", np.arange(CLASSES))):
        with tarfile.open(place / f"{split}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number, label in enumerate(labels.tolist()):
                member = tarfile.TarInfo(f"{tiny.classes[label]}/{number}.JPEG")
                member.size = len(tiny.jpeg)
                archive.addfile(member, io.BytesIO(tiny.jpeg))
    return "data=tar", f"data.train_path={place}/train.tar", f"data.val_path={place}/val.tar"


def write_file(place: Path, count: int) -> tuple[str, ...]:
    for split, images in (("train", count), ("val", CLASSES)):
        write_beton(
            Tiny(images), place / f"{split}.beton", workers=2, progress=lambda *_: None, jpeg_bytes="original", page_size=2**21
        )
    return "data=ffcv", "data.engine=auto", f"data.path={place}"


if __name__ == "__main__":
    sys.exit(main())
