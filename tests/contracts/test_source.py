"""The source's contract, on every source: it tells what was written, and reads it from any thread and any process."""

import io
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.batch import DataError, Source
from src.config import ConfigError
from tests.contracts.sources import SOURCES, Entry, Written, digest, digests, digests_of

STORED = [name for name, entry in SOURCES.items() if entry.damage]


@pytest.fixture(params=list(SOURCES))
def entry(request: pytest.FixtureRequest) -> Entry:
    return SOURCES[request.param]


@pytest.fixture
def written(entry: Entry, tmp_path: Path) -> Written:
    return entry.write(tmp_path)


@pytest.fixture
def source(entry: Entry, written: Written, tmp_path: Path) -> Source:
    return entry.open(tmp_path)


def test_it_tells_what_was_written(source, written):
    count = len(written.labels)
    assert len(source) == count
    assert source.classes == written.classes
    assert source.labels.tolist() == written.labels
    assert [source.name(index) for index in range(count)] == written.names
    if written.sizes:
        assert source.sizes.tolist() == written.sizes
    assert (source.labels.dtype, source.labels.shape) == (np.int64, (count,))
    assert (source.sizes.dtype, source.sizes.shape) == (np.int32, (count, 2))


def test_it_reads_what_was_written(source, written):
    for index in range(len(source)):
        encoded = source.read(index)
        assert [encoded.width, encoded.height] == source.sizes[index].tolist()
        if encoded.kind == "raw":
            assert (encoded.data.dtype, encoded.data.shape) == (np.uint8, (encoded.height, encoded.width, 3))
        else:
            with Image.open(io.BytesIO(encoded.data)) as image:
                assert image.size == (encoded.width, encoded.height)
        if written.data is not None:
            assert bytes(encoded.data) == written.data[index]


def test_images_differ_and_reading_repeats(source):
    first = digests(source)
    assert digests(source) == first
    assert len(set(first)) == len(first)


def test_it_opens_alike_a_second_time(entry, source, tmp_path):
    again = entry.open(tmp_path)
    assert again.labels.tolist() == source.labels.tolist()
    assert again.sizes.tolist() == source.sizes.tolist()
    assert digests(again) == digests(source)


def test_eight_threads_read_what_one_reads(source):
    expected = digests(source)
    order = np.random.default_rng(0).integers(0, len(source), 600).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: digest(source.read(index)), order))
    assert found == [expected[index] for index in order]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # Python 3.12 on: that is what is tested
def test_it_survives_a_fork(source):
    expected = digests(source)
    context = multiprocessing.get_context("fork")
    receivers = []
    for _ in range(2):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=lambda sender=sender: sender.send(digests(source)))
        child.start()
        sender.close()
        receivers.append((child, receiver))
    assert digests(source) == expected, "while the children read"
    for child, receiver in receivers:
        assert receiver.poll(60)
        assert receiver.recv() == expected
        receiver.close()
        child.join(60)
        assert child.exitcode == 0


@pytest.fixture(scope="module")
def spawned():
    """One fresh process for all sources: it imports torch, which takes seconds."""
    pool = multiprocessing.get_context("spawn").Pool(1)
    yield pool
    pool.terminate()
    pool.join()


def test_a_spawned_process_opens_and_reads_it(request, source, tmp_path, spawned):
    name = request.node.callspec.params["entry"]
    assert spawned.apply(digests_of, (name, tmp_path)) == digests(source)


@pytest.mark.parametrize("entry", STORED, indirect=True)
def test_a_broken_one_is_refused_at_opening_with_the_reason(entry, written, tmp_path):
    words = entry.damage(tmp_path)
    for _ in range(2):
        with pytest.raises((ConfigError, DataError)) as refusal:
            entry.open(tmp_path)
        for word in words:
            assert word in str(refusal.value)


@pytest.mark.parametrize("entry", STORED, indirect=True)
def test_what_vanished_is_named(entry, source, tmp_path):
    expected = digests(source)
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    if entry.outlives_deletion:
        assert digests(source) == expected
    else:
        with pytest.raises(DataError, match=source.name(3)):
            source.read(3)
    with pytest.raises((ConfigError, DataError)):
        entry.open(tmp_path)
