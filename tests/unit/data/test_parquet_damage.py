"""A damaged Parquet file is refused, or read without an image under another's label; an old index is not used."""

import os
import resource

import numpy as np
import pytest

from src.batch import DataError
from src.data.parquet import index as index_module
from tests.unit.data.parquets import labels_of, open_parquets, pictures, table_of, write_parquet

IMAGES, LABELS = pictures(40), labels_of(40)
LABEL_OF = dict(zip(IMAGES, LABELS, strict=True))
STYLES = {
    "plain": {"compression": "none", "use_dictionary": False, "data_page_size": 3000, "write_batch_size": 4},
    "snappy, checksums": {"compression": "snappy", "row_group_size": 15, "write_page_checksum": True},
    "zstd, version 2": {"compression": "zstd", "data_page_version": "2.0", "data_page_size": 3000, "write_batch_size": 4},
    "dictionary": {"compression": "none", "dictionary_pagesize_limit": 4000, "write_batch_size": 4, "write_page_checksum": True},
}


def damaged(sound: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, cut, insert, zero or repeat a range; half of the time in the last bytes, where the footer lies."""
    data = bytearray(sound)
    at = int(rng.integers(len(data))) if rng.random() < 0.5 else int(rng.integers(max(0, len(data) - 2500), len(data)))
    length = int(rng.choice([1, 3, 20, 300]))
    match rng.integers(6):
        case 0 | 1:
            data[at] ^= 1 << int(rng.integers(8))
        case 2:
            del data[at : at + length if rng.random() < 0.7 else None]
        case 3:
            data[at:at] = rng.bytes(length)
        case 4:
            data[at : at + length] = bytes(len(data[at : at + length]))
        case 5:
            data[at : at + length] = rng.bytes(len(data[at : at + length]))
    return bytes(data)


@pytest.mark.parametrize("style", list(STYLES))
def test_random_damage_ends_in_a_refusal_or_in_true_labels(tmp_path, style):
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS), **STYLES[style])
    sound = path.read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = read = unreadable = 0
    for seed in range(250):
        path.write_bytes(damaged(sound, np.random.default_rng(seed)))
        try:
            source = open_parquets(path)
        except DataError as error:
            assert path.name in str(error)
            refused += 1
            continue
        read += 1
        checksums = "write_page_checksum" in STYLES[style]
        for index in range(len(source)):
            try:
                data = bytes(source.read(index).data)
            except DataError as error:
                assert source.name(index) in str(error)
                assert index in source.faults
                unreadable += 1
                continue
            if index not in source.faults:
                assert (source.sizes[index] > 0).all()
            # Without checksums nothing tells that a label was changed in place: then the image must at least be in its own row.
            row = source.ids.item(index)
            if data in LABEL_OF and len(source) == len(IMAGES):
                assert data == IMAGES[row], f"seed {seed}: row {row}"
                assert not checksums or source.labels[index] == LABEL_OF[data], f"seed {seed}: row {row}"
    assert refused > 50
    assert read > 30
    assert unreadable > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_a_page_whose_checksum_is_wrong_is_told_image_by_image(tmp_path):
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True, "row_group_size": 10}
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS), **options)
    data = bytearray(path.read_bytes())
    at = data.index(IMAGES[23]) + len(IMAGES[23]) // 2
    data[at] ^= 1
    path.write_bytes(data)
    source = open_parquets(path)
    assert set(source.faults) == set(range(20, 30))
    assert "checksum" in source.faults[23]
    assert bytes(source.read(19).data) == IMAGES[19]
    with pytest.raises(DataError, match=r"a\.parquet#23 cannot be read: .*checksum"):
        source.read(23)


def test_a_page_header_that_disagrees_with_its_page_is_noticed(tmp_path):
    """Two pages that trade a row would shift every label between them: the counts still add up, the pages do not."""
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS), write_statistics=False, **STYLES["plain"])
    table = open_parquets(path)._index.state()["table"]
    data = bytearray(path.read_bytes())
    moved = 0
    for page, change in ((0, 1), (1, -1)):
        values_at, rows = int(table[page, 1]), int(table[page, 6])
        header_at = data.rindex(bytes([0x2C, 0x15, 2 * rows]), 0, values_at)  # field 5, a struct; its field 1, an i32, as a zigzag
        data[header_at + 2] = 2 * (rows + change)
        moved += 1
    assert moved == 2
    path.write_bytes(data)
    source = open_parquets(path)
    assert set(source.faults) == set(range(int(table[0, 6]) + int(table[1, 6])))
    assert all("page" in fault or "levels" in fault for fault in source.faults.values())


def test_a_file_in_another_state_is_read_again(tmp_path, monkeypatch):
    reads = []
    real = index_module.read_table
    monkeypatch.setattr(index_module, "read_table", lambda path: reads.append(path) or real(path))
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS))
    for _ in range(2):
        open_parquets(path)
    assert len(reads) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".a.parquet.index.npz", "a.parquet"]
    other = pictures(7, 9)
    write_parquet(path, table_of(other, [0] * 7))
    source = open_parquets(path)
    assert [bytes(source.read(index).data) for index in range(7)] == other
    assert len(reads) == 2


def test_a_damaged_index_is_built_anew(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS))
    open_parquets(path)
    cache = tmp_path / ".a.parquet.index.npz"
    sound = cache.read_bytes()
    for position in range(0, len(sound), len(sound) // 25):
        spoilt = bytearray(sound)
        spoilt[position] ^= 0x10
        cache.write_bytes(spoilt)
        source = open_parquets(path)
        assert [bytes(source.read(index).data) for index in range(40)] == IMAGES


def test_the_index_of_read_only_data_stands_elsewhere(tmp_path):
    path = write_parquet(tmp_path / "disk" / "a.parquet", table_of(IMAGES, LABELS))
    path.parent.chmod(0o555)
    try:
        open_parquets(path, cache_dir=tmp_path / "cache")
        assert [entry.name for entry in path.parent.iterdir()] == ["a.parquet"]
        assert len(list((tmp_path / "cache").iterdir())) == 1
    finally:
        path.parent.chmod(0o755)


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_pages_are_read_of_the_chosen_only_and_what_was_learned_stays(tmp_path, compression):
    options = {"compression": compression, "use_dictionary": False, "row_group_size": 10}
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS), **options)
    told = []
    for chosen in ([3, 4, 25], [3, 4, 5, 39], [25, 39]):
        ids = np.array(chosen)
        source = open_parquets(path, choose=lambda labels, ids=ids: ids, progress=lambda done, total: told.append(total))
        assert [bytes(source.read(index).data) for index in range(len(chosen))] == [IMAGES[row] for row in chosen]
        assert source.labels.tolist() == [LABELS[row] for row in chosen]
    assert told == [3, 3, 2, 2]


def test_a_file_that_changes_while_it_is_open_is_named(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS), compression="none")
    source = open_parquets(path)
    os.truncate(path, 100)
    with pytest.raises(DataError, match=r"a\.parquet#7 cannot be read: .* was changed after it was opened"):
        source.read(7)


def test_a_label_outside_what_the_footer_tells_of_is_noticed(tmp_path):
    options = {"compression": "none", "use_dictionary": False}
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, [0, 1] * 20), **options)
    data = path.read_bytes()
    labels = np.array([0, 1] * 20, np.int64).tobytes()
    assert data.count(labels) == 1
    path.write_bytes(data.replace(labels, labels[:-8] + b"\x02" + bytes(7)))
    with pytest.raises(DataError, match="a label lies outside 0 to 1"):
        open_parquets(path)
