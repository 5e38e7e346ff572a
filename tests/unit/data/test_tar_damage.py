"""A damaged tar is refused, or read without an image under another's label; an index of another state of the tar is not used."""

import io
import os
import resource

import numpy as np
import pytest
from PIL import Image

from src.batch import DataError
from src.data.tar import index as index_module
from tests.pictures import KINDS, encode
from tests.unit.data.tars import contents, of_class_tars, open_tars, tar_bytes, write_tar

FILES = {
    f"{name}/{kind}.JPEG": encode(kind, 20 + at, 12 + label)
    for label, name in enumerate(("ant", "bee", "cat", "dog"))
    for at, kind in enumerate(KINDS)
}
CLASS_OF = {data: name.split("/")[0] for name, data in FILES.items()}


def damaged(sound: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, cut, insert, zero a range, or move a range."""
    data = bytearray(sound)
    at = int(rng.integers(len(data)))
    length = int(rng.choice([1, 3, 60, 512, 2048]))
    match rng.integers(6):
        case 0:
            data[at] ^= 1 << int(rng.integers(8))
        case 1:
            data[at // 512 * 512 + int(rng.integers(512))] ^= 0xFF
        case 2:
            del data[at:]
        case 3:
            data[at:at] = rng.bytes(length)
        case 4:
            data[at : at + length] = bytes(len(data[at : at + length]))
        case 5:
            piece = data[at // 512 * 512 :][:length]
            other = int(rng.integers(len(data) - len(piece))) // 512 * 512
            data[other : other + len(piece)] = piece
    return bytes(data)


@pytest.mark.parametrize("layout", ["folders", "class tars"])
def test_random_damage_ends_in_a_refusal_or_in_true_labels(tmp_path, layout):
    sound = tar_bytes(FILES if layout == "folders" else of_class_tars(FILES))
    path = tmp_path / "x.tar"
    refused = read = 0
    for seed in range(500):
        path.write_bytes(damaged(sound, np.random.default_rng(seed)))
        try:
            source = open_tars(path)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        read += 1
        for index in range(len(source)):
            name, folder = source.name(index), source.classes[source.labels[index]]
            assert name.replace(".tar/", "/").split("/")[1] == folder
            data = bytes(source.read(index).data)
            # A piece of the tar that lies whole upon another image is the one thing that no checksum tells; nothing here does that.
            assert CLASS_OF.get(data, folder) == folder, f"seed {seed}: {name}"
            if index not in source.faults:
                width, height = source.sizes[index].tolist()
                assert width > 0
                assert height > 0
    assert refused > 150
    assert read > 50


def test_a_tar_cut_anywhere_is_refused(tmp_path):
    sound = tar_bytes(FILES)
    end = len(sound.rstrip(b"\0")) // 512 * 512 + 512
    path = tmp_path / "x.tar"
    for length in [*range(0, end + 1, 256), end - 1, end + 511]:
        path.write_bytes(sound[:length])
        with pytest.raises(DataError, match="truncated"):
            open_tars(path)
    path.write_bytes(sound[: end + 1024])
    assert len(open_tars(path)) == len(FILES)


@pytest.mark.parametrize("field", [b"\x80" + b"\x7f" * 11, b"77777777777\0", b"\xff" * 12])
def test_a_header_that_claims_any_size_costs_no_memory(tmp_path, field):
    """The checksum is right: this is malice, not damage."""
    for kind in (b"0", b"L", b"x", b"g"):
        data = bytearray(tar_bytes({"ant/a.png": encode("png")}))
        data[124:136], data[156:157] = field, kind
        data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
        path = tmp_path / "x.tar"
        path.write_bytes(data)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(DataError, match=r"truncated|damaged"):
            open_tars(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_bad_pax_records_are_refused(tmp_path):
    for record in (b"0 path=a\n", b"99 path=a\n", b"x path=a\n", b"10 pathaaa\n", b" 9 path=a", b"12 size=-10\n", b"\xff" * 9):
        head = bytearray(tar_bytes({"PaxHeader": record})[:1024])
        head[156:157] = b"x"
        head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:512]))
        path = tmp_path / "x.tar"
        path.write_bytes(bytes(head) + tar_bytes({"ant/a.png": encode("png")}))
        with pytest.raises(DataError, match="damaged"):
            open_tars(path)


@pytest.fixture
def walks(monkeypatch):
    """Count the walks over a tar's headers, by the real function."""
    done = []
    real = index_module.list_members

    def counted(*arguments):
        done.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(index_module, "list_members", counted)
    return done


def test_the_second_opening_walks_over_nothing(tmp_path, walks):
    path = write_tar(tmp_path / "x.tar", of_class_tars(FILES))
    first = open_tars(path)
    assert len(walks) == 5
    again = open_tars(path)
    assert len(walks) == 5
    assert contents(again) == contents(first)
    assert [again.name(index) for index in range(len(again))] == [first.name(index) for index in range(len(first))]
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "x.tar"] == [".x.tar.index.npz"]


def test_a_tar_in_another_state_is_walked_again(tmp_path):
    path = write_tar(tmp_path / "x.tar", FILES)
    open_tars(path)
    os.utime(path, ns=(0, 1))
    write_tar(path, {"eel/0.png": encode("png", 3, 4)})
    assert contents(open_tars(path)) == [("eel", [3, 4], encode("png", 3, 4))]
    state = path.stat()
    write_tar(path, {"eel/0.png": encode("png", 4, 3)})  # of the same length
    assert path.stat().st_size == state.st_size
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert open_tars(path).sizes.tolist() == [[4, 3]]


def test_a_damaged_index_is_built_anew(tmp_path, walks):
    path = write_tar(tmp_path / "x.tar", FILES)
    first = contents(open_tars(path))
    cache = tmp_path / ".x.tar.index.npz"
    sound = cache.read_bytes()
    for position in range(0, len(sound), len(sound) // 40):
        spoilt = bytearray(sound)
        spoilt[position] ^= 0x10
        cache.write_bytes(spoilt)
        walks.clear()
        assert contents(open_tars(path)) == first
        assert len(walks) == 1
    for length in (0, 10, len(sound) - 1):
        cache.write_bytes(sound[:length])
        assert contents(open_tars(path)) == first


def test_the_index_of_read_only_data_stands_elsewhere(tmp_path, walks):
    path = write_tar(tmp_path / "disk" / "x.tar", FILES)
    path.parent.chmod(0o555)
    try:
        for _ in range(2):
            assert len(open_tars(path, cache_dir=tmp_path / "cache")) == len(FILES)
        assert len(walks) == 1
        assert [entry.name for entry in path.parent.iterdir()] == ["x.tar"]
        assert len(list((tmp_path / "cache").iterdir())) == 1
    finally:
        path.parent.chmod(0o755)


def test_headers_are_read_of_the_chosen_only(tmp_path):
    path = write_tar(tmp_path / "x.tar", FILES)
    read = []
    open_tars(path, choose=lambda labels: np.arange(5), progress=lambda done, total: read.append(total))
    open_tars(path, choose=lambda labels: np.arange(8), progress=lambda done, total: read.append(total))
    assert read == [5, 3]


@pytest.mark.parametrize("change", ["cut", "written over"])
def test_a_tar_that_changes_while_it_is_open_is_named(tmp_path, change):
    path = write_tar(tmp_path / "x.tar", FILES)
    source = open_tars(path)
    if change == "cut":
        os.truncate(path, 1000)
    else:
        os.utime(path, ns=(0, 1))
    with pytest.raises(DataError, match=r"x\.tar/ant/cmyk\.JPEG cannot be read: .* was changed after it was opened"):
        source.read(0)


def test_what_is_read_decodes(tmp_path):
    source = open_tars(write_tar(tmp_path / "x.tar", of_class_tars(FILES)))
    for index in range(len(source)):
        with Image.open(io.BytesIO(source.read(index).data)) as image:
            image.load()
            assert image.size == tuple(source.sizes[index])
