"""The engine's contract on every engine: errors name the sample, early exits leak nothing, memory is bounded."""

import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from src.batch import BoxResize, DataError, Encoded, StaleIndex, Stuck
from src.data.sources.synthetic import SyntheticSource
from tests.contracts.engines import ENGINES, Watched, folder_of, pixels_of, plan_of
from tests.pictures import encode

pytestmark = pytest.mark.timeout(60)  # "never a hang"
GEOMETRY = BoxResize(16, "bilinear")


@pytest.fixture
def source():
    return SyntheticSource(count=400, num_classes=3, stored_size=12, split="train")


@pytest.fixture
def folder(tmp_path):
    return folder_of(tmp_path / "train", {f"ant/{n:02}.jpg": encode("jpeg", 40, 30, n) for n in range(40)}, tmp_path / "cache")


def plans_of(source, count: int, size: int = 4):
    return [plan_of(source, range(number * size, (number + 1) * size)) for number in range(count)]


def delete(file: Path) -> None:
    file.unlink()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def overwrite(file: Path) -> None:
    file.write_bytes(b"junk")


def exchange(file: Path) -> None:
    file.write_bytes(encode("jpeg", 30, 40))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("harm", "error", "words"),
    [
        (delete, DataError, ("cannot be read", "No such file")),
        (truncate, DataError, ("cannot be decoded", "truncated", "Replace or remove")),
        (overwrite, DataError, ("cannot be decoded",)),
        (exchange, StaleIndex, ("30 x 40 px", "40 x 30 px in the index", "Delete the index")),
    ],
)
def test_a_bad_file_is_told_by_its_name(tmp_path, folder, build_engine, harm, error, words, threads):
    expected = pixels_of(build_engine(folder).batches(iter(plans_of(folder, 10)), geometry=GEOMETRY))
    harm(tmp_path / "train" / "ant" / "13.jpg")
    engine = build_engine(folder, threads=threads)
    batches = engine.batches(iter(plans_of(folder, 10)), geometry=GEOMETRY)
    for good in expected[:3]:
        assert np.array_equal(next(batches).images.numpy(), good), "what comes before the bad file is still delivered"
    with pytest.raises(DataError, match=r"train/ant/13\.jpg") as failure:
        next(batches)
    assert type(failure.value) is error
    for word in words:
        assert word in str(failure.value)
    rest = pixels_of(engine.batches(iter(plans_of(folder, 10)[4:]), geometry=GEOMETRY))
    assert all(np.array_equal(a, b) for a, b in zip(rest, expected[4:], strict=True)), "the engine is still of use"


def test_an_unforeseen_error_names_the_sample_too(source, build_engine):
    class Failing(Watched):
        def read(self, index: int) -> Encoded:
            if index == 9:
                raise RuntimeError("unforeseen")
            return super().read(index)

    with pytest.raises(RuntimeError, match="unforeseen") as failure:
        list(build_engine(Failing(source)).batches(iter(plans_of(source, 5)), geometry=GEOMETRY))
    assert "synthetic-train#9" in "".join(failure.value.__notes__)


def test_an_error_of_the_plans_reaches_the_caller(source, build_engine):
    def plans():
        yield from plans_of(source, 2)
        raise ValueError("no more plans")

    with pytest.raises(ValueError, match="no more plans"):
        list(build_engine(source).batches(plans(), geometry=GEOMETRY))


def leave_loop(engine, batches) -> None:
    for _ in batches:
        break


def close_iterator(engine, batches) -> None:
    next(batches)
    batches.close()


def close_engine(engine, batches) -> None:
    next(batches)
    engine.close()


def never_start(engine, batches) -> None:
    pass


def run_out(engine, batches) -> None:
    for _ in batches:
        pass


def threads_and_descriptors() -> tuple[set[threading.Thread], set[Path]]:
    gc.collect()
    return set(threading.enumerate()), set(Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("leave", [leave_loop, close_iterator, close_engine, never_start, run_out])
def test_an_exit_leaks_no_thread_and_no_descriptor(folder, build_engine, leave):
    before = threads_and_descriptors()
    for _ in range(4):
        engine = build_engine(folder, threads=3, prefetch=3)
        batches = engine.batches(iter(plans_of(folder, 10)), geometry=GEOMETRY)
        leave(engine, batches)
        engine.close()
        engine.close()
    del batches
    assert threads_and_descriptors() == before


def resident() -> int:
    """Return this process's resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("leave", [leave_loop, close_iterator, close_engine, run_out])
def test_an_exit_leaks_no_memory(source, build_engine, leave):
    large = BoxResize(160, "bilinear")  # a batch of 12 is 0.9 MB

    def rounds(count: int) -> None:
        for _ in range(count):
            engine = build_engine(source, threads=2, prefetch=3)
            leave(engine, engine.batches(iter(plans_of(source, 5, 12)), geometry=large))
            engine.close()

    rounds(5)
    before = resident()
    rounds(25)
    assert resident() - before < 25e6, "25 rounds of 4 buffers are 92 MB"


@pytest.mark.parametrize("leave", [close_iterator, close_engine])
def test_what_is_queued_is_dropped(source, build_engine, leave):
    slow = Watched(source, lambda index: 0.002)
    engine = build_engine(slow, threads=2, prefetch=6)
    leave(engine, engine.batches(iter(plans_of(source, 8, 48)), geometry=GEOMETRY))
    reads = slow.reads
    assert reads < 48 * 4, "everything has been read before it was left"
    time.sleep(0.6)  # time enough to read all that was queued
    assert slow.reads - reads <= 48, "what was queued is still being read"


def test_a_batch_stays_valid_until_the_next_is_asked_for(source, build_engine):
    watched = Watched(source)
    batches = build_engine(watched, prefetch=2).batches(iter(plans_of(source, 6)), geometry=GEOMETRY)
    for number in range(6):
        batch = next(batches)
        images, labels = batch.images.clone(), batch.labels.clone()
        watched.wait_for(min(6, number + 3) * 4)  # the decoders have done all that they may
        assert (batch.images == images).all()
        assert (batch.labels == labels).all()


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_so_many_batches_are_decoded_ahead_and_no_more(source, build_engine, prefetch):
    watched = Watched(source)
    taken = []

    def plans():
        for plan in plans_of(source, 20):
            taken.append(plan)
            yield plan

    places = set()
    engine = build_engine(watched, prefetch=prefetch)
    for number, batch in enumerate(engine.batches(plans(), geometry=GEOMETRY), 1):
        ahead = min(20, number + prefetch)
        watched.wait_for(ahead * 4, seconds=5)
        assert watched.reads == ahead * 4, "while the caller holds a batch, the next ones are decoded"
        assert len(taken) == ahead
        places.add(batch.images.data_ptr())
    if engine.pixels.engine != "dali":  # whose memory comes from an allocator, so addresses do not tell how much there is
        assert len(places) <= prefetch + 1, "more buffers than promised"


def test_a_disk_that_does_not_answer_ends_it_with_the_names(folder, build_engine):
    answers = threading.Event()

    class Silent(Watched):
        def read(self, index: int) -> Encoded:
            if index == 9:
                answers.wait(30)
            return super().read(index)

    engine = build_engine(Silent(folder), stuck_seconds=3)
    batches = engine.batches(iter(plans_of(folder, 5)), geometry=GEOMETRY)
    assert [len(next(batches).labels) for _ in range(2)] == [4, 4]
    with pytest.raises(Stuck, match=r"has not arrived for 3 seconds: its 4 images are train/ant/08\.jpg, train/ant/09\.jpg"):
        next(batches)
    start = time.monotonic()
    engine.close()
    assert time.monotonic() - start < 5, "closing waits for the disk"
    answers.set()


def test_a_decoder_that_does_not_come_back_ends_it_with_the_names(folder, monkeypatch):
    """DALI's threads may be those that wait for the disk, where a source maps its file: DALI itself has no limit."""
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install -e '.[dali]'")
    from src.data.engines.dali_pipeline import DecodePipeline

    silent, comes_back, original = threading.Event(), threading.Event(), DecodePipeline.take

    def take(pipeline: DecodePipeline) -> object:
        if silent.is_set():
            comes_back.wait(60)
        return original(pipeline)

    monkeypatch.setattr(DecodePipeline, "take", take)
    engine = ENGINES["dali"](folder, stuck_seconds=3)
    batches = engine.batches(iter(plans_of(folder, 5)), geometry=GEOMETRY)
    assert [len(next(batches).labels) for _ in range(2)] == [4, 4]
    silent.set()
    with pytest.raises(Stuck, match=r"has not arrived for 3 seconds: its 4 images are train/ant/08\.jpg"):
        next(batches)
    start = time.monotonic()
    engine.close()
    assert time.monotonic() - start < 5, "closing waits for the decoder"
    comes_back.set()


def test_a_hundred_early_exits_leave_nothing(folder, build_engine):
    """Threads, processes and descriptors as before; memory within 2 %."""

    def leave_early(times: int) -> None:
        for number in range(times):
            engine = build_engine(folder, threads=2, prefetch=3)
            batches = engine.batches(iter(plans_of(folder, 10)), geometry=BoxResize(64, "bilinear"))
            for _ in range(number % 4):
                next(batches)
            if number % 2:
                batches.close()
            engine.close()

    def children() -> str:
        return "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))

    leave_early(20)
    before, processes, memory = threads_and_descriptors(), children(), resident()
    leave_early(100)
    assert threads_and_descriptors() == before
    assert children() == processes
    assert resident() < memory * 1.02
