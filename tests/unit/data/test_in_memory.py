"""Images in memory: the same images, one copy a node, nothing left behind, and a refusal where the memory does not suffice."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from src.batch import DataError, Encoded
from src.config import ConfigError
from src.data.sources import in_memory
from src.data.sources.in_memory import InMemory, load_file, pack
from src.data.sources.synthetic import SyntheticSource
from tests.contracts.engines import Watched, folder_of
from tests.contracts.sources import digests
from tests.pictures import KINDS, encode


def quiet(done: int, total: int) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path):
    files = {f"ant/{kind}{n}.JPEG": encode(kind, 20 + n, 30, n) for kind in KINDS for n in range(40)}
    return folder_of(tmp_path / "train", files, tmp_path / "cache")


@pytest.mark.parametrize("threads", [1, 4])
def test_it_is_the_source(folder, threads):
    packed = pack(folder, threads=threads, progress=quiet)
    near = InMemory(folder, packed.place)
    packed.close()  # what is mapped stays
    assert digests(near) == digests(folder)
    assert (near.classes, len(near), near.name(7)) == (folder.classes, len(folder), folder.name(7))
    assert near.labels is folder.labels
    assert near.sizes is folder.sizes


def test_raw_images_too():
    source = SyntheticSource(count=150, num_classes=3, stored_size=9, split="train")
    packed = pack(source, threads=2, progress=quiet)
    assert digests(InMemory(source, packed.place)) == digests(source)
    packed.close()


def read_all(sender, source, place) -> None:
    sender.send(digests(InMemory(source, place)))


def test_another_process_maps_the_same_memory(folder, tmp_path):
    packed = pack(folder, threads=2, progress=quiet)
    expected = digests(folder)
    for file in (tmp_path / "train" / "ant").iterdir():
        file.unlink()
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=read_all, args=(sender, folder, packed.place))
    child.start()
    assert receiver.poll(60)
    assert receiver.recv() == expected
    child.join()
    receiver.close()
    sender.close()
    packed.close()


def test_nothing_is_left_behind(folder):
    before = set(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))
    packed = pack(folder, threads=2, progress=quiet)
    near = InMemory(folder, packed.place)
    packed.close()
    near.read(0)
    del near
    assert (set(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))) == before


def test_progress_is_told_to_the_end(folder):
    told: list[tuple[int, int]] = []
    pack(folder, threads=1, progress=lambda done, total: told.append((done, total))).close()
    assert told[-1] == (240, 240)


@pytest.mark.parametrize("load", [pack, lambda source, **options: load_file(Path(__file__), progress=options["progress"])])
def test_too_little_memory_is_told_with_both_figures(folder, monkeypatch, load):
    monkeypatch.setattr(in_memory, "available_memory", lambda: in_memory._RESERVE + 100)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match=r"data\.in_memory.*take about .* GiB, but 0\.0 GiB.*data\.in_memory=false"):
        load(folder, threads=1, progress=quiet)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_memory_that_runs_out_on_the_way_is_noticed(folder, monkeypatch):
    answers = iter([2**50, in_memory._RESERVE - 1])
    monkeypatch.setattr(in_memory, "available_memory", lambda: next(answers))
    with pytest.raises(ConfigError, match=r"data\.in_memory"):
        pack(folder, threads=1, progress=quiet)


def test_an_image_that_cannot_be_read_ends_it_with_its_name(folder):
    class Failing(Watched):
        def read(self, index: int) -> Encoded:
            if index == 77:
                raise DataError("train/ant/77 cannot be read")
            return super().read(index)

    with pytest.raises(DataError, match="ant/77"):
        pack(Failing(folder), threads=2, progress=quiet)


def test_a_file_is_loaded_byte_for_byte(tmp_path):
    file = tmp_path / "train.beton"
    file.write_bytes(np.random.default_rng(0).bytes(20_000_000))
    packed = load_file(file, progress=quiet)
    assert Path(packed.place.path).read_bytes() == file.read_bytes()
    packed.close()
