"""Parquet: every way in which pyarrow may store images is read as pyarrow reads it; the rest is refused with the reason."""

import builtins
import struct

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from src.batch import DataError
from tests.pictures import encode
from tests.unit.data.parquets import IMAGE, as_pyarrow_reads, labels_of, open_parquets, pictures, table_of, write_parquet

IMAGES, LABELS = pictures(60), labels_of(60)


def check(*paths, **options) -> None:
    images, labels = as_pyarrow_reads(*paths)
    source = open_parquets(*paths, **options)
    assert source.labels.tolist() == labels
    assert [bytes(source.read(index).data) for index in range(len(source))] == images
    assert source.faults == {}
    again = open_parquets(*paths, **options)
    assert [bytes(again.read(index).data) for index in range(len(again))] == images
    assert again.sizes.tolist() == source.sizes.tolist()
    assert (source.sizes > 0).all()


@pytest.mark.parametrize("rows", [1, 7, 100])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "lz4", "brotli"])
def test_it_reads_what_pyarrow_reads(tmp_path, compression, dictionary, version, rows):
    repeated = IMAGES + IMAGES[:20]
    table = table_of(repeated, LABELS + LABELS[:20])
    options = {"compression": compression, "use_dictionary": dictionary, "data_page_version": version, "row_group_size": rows}
    check(write_parquet(tmp_path / "a.parquet", table, **options))


@pytest.mark.parametrize("compression", ["none", "snappy"])
@pytest.mark.parametrize("checksum", [False, True])
def test_many_pages_and_a_dictionary_that_is_given_up(tmp_path, compression, checksum):
    """By default pyarrow begins with a dictionary, and goes on without when that has grown to its limit."""
    path = write_parquet(
        tmp_path / "a.parquet",
        table_of(IMAGES, LABELS),
        compression=compression,
        data_page_size=2000,
        write_batch_size=3,
        dictionary_pagesize_limit=4000,
        write_page_checksum=checksum,
        write_page_index=True,
    )
    encodings = parquet.ParquetFile(path).metadata.row_group(0).column(0).encodings
    assert {"PLAIN", "RLE_DICTIONARY"} <= set(encodings)
    check(path)


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_columns_that_cannot_be_null(tmp_path, version, statistics):
    image = pa.struct([pa.field("bytes", pa.binary(), nullable=False), pa.field("path", pa.string())])
    rows = [{"bytes": data, "path": None} for data in IMAGES]
    for nullable in (False, True):
        schema = pa.schema([pa.field("image", image, nullable=nullable), pa.field("label", pa.int64(), nullable=False)])
        table = pa.table({"image": pa.array(rows, image), "label": LABELS}, schema=schema)
        options = {"data_page_version": version, "write_statistics": statistics}
        check(write_parquet(tmp_path / f"{nullable}.parquet", table, compression="none", **options))


def test_large_binary_and_other_column_names(tmp_path):
    image = pa.struct([("path", pa.string()), ("bytes", pa.large_binary())])
    table = pa.table(
        {"img": pa.array([{"bytes": data, "path": ""} for data in IMAGES], image), "fine": pa.array(LABELS, pa.int8())}
    )
    source = open_parquets(write_parquet(tmp_path / "a.parquet", table))
    assert source.labels.tolist() == LABELS
    assert [bytes(source.read(index).data) for index in range(60)] == IMAGES
    plain = pa.table({"image": pa.array(IMAGES, pa.binary()), "label": LABELS})
    source = open_parquets(write_parquet(tmp_path / "b.parquet", plain))
    assert [bytes(source.read(index).data) for index in range(60)] == IMAGES


def test_several_files_are_one_split(tmp_path):
    paths = [
        write_parquet(
            tmp_path / f"train-{at:05}-of-00003.parquet", table_of(pictures(9 + at, at + 1), labels_of(9 + at)), row_group_size=4
        )
        for at in range(3)
    ]
    check(*paths)
    source = open_parquets(*paths, choose=lambda labels: np.array([28, 3, 9, 19]))
    assert [source.name(index) for index in range(4)] == [
        "train-00002-of-00003.parquet#9",
        "train-00000-of-00003.parquet#3",
        "train-00001-of-00003.parquet#0",
        "train-00002-of-00003.parquet#0",
    ]
    assert bytes(source.read(0).data) == pictures(11, 3)[9]
    assert source.classes == ("ant", "bee", "cat")


def test_without_names_classes_are_numbered(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS, names=None))
    assert open_parquets(path).classes == ("class_0000", "class_0001", "class_0002")


def test_bad_images_are_told_by_their_place_among_the_chosen(tmp_path):
    images = [encode("jpeg"), b"", encode("jpeg")[:-40], b"junk", encode("png")]
    path = write_parquet(tmp_path / "a.parquet", table_of(images, [0] * 5))
    assert set(open_parquets(path).faults) == {1, 2, 3}
    source = open_parquets(path, choose=lambda labels: np.array([0, 2]))
    assert set(source.faults) == {1}
    assert "truncated" in source.faults[1]


def nested() -> pa.Table:
    return pa.table({"image": pa.array([[{"bytes": b"x", "path": ""}]], pa.list_(IMAGE)), "label": [0]})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (table_of(IMAGES, [*LABELS[:-1], -1]), r"a\.parquet#59 has the label -1: Hugging Face"),
        (table_of(IMAGES, [*LABELS[:-1], 3]), "label 3: there are 3 classes"),
        (table_of(IMAGES, [*LABELS[:-1], None]), "1 rows have no label"),
        (table_of([*IMAGES[:-1], None], LABELS), r"a\.parquet#59 is null"),
        (table_of(IMAGES, LABELS, names="ant"), "class names"),
        (pa.table({"image": pa.array([None], IMAGE), "label": [0]}), r"a\.parquet#0 is null"),
        (pa.table({"text": ["a"], "label": [0]}), "no column holds images.*text: string"),
        (pa.table({"image": pa.array([{"path": "x.jpg"}]), "label": [0]}), "no column holds images"),
        (pa.table({"image": ["x.jpg"], "label": [0]}), "no column holds images"),
        (nested(), "no column holds images"),
        (pa.table({"a": pa.array([None], IMAGE), "b": pa.array([None], IMAGE), "label": [0]}), "2 columns may hold the images"),
        (pa.table({"image": pa.array([None], IMAGE), "text": ["a"]}), "no column holds labels"),
        (pa.table({"image": pa.array([None], IMAGE), "a": [0], "b": [0]}), "2 columns may hold the labels"),
        (pa.table({"image": pa.array([None], IMAGE), "label": ["ant"]}), "no column holds labels"),
    ],
)
def test_a_table_that_is_no_split_is_refused(tmp_path, table, words):
    path = write_parquet(tmp_path / "a.parquet", table)
    with pytest.raises(DataError, match=words) as refusal:
        open_parquets(path)
    assert path.name in str(refusal.value)


def test_an_encoding_that_cannot_be_read_image_by_image_is_named(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet",
        table_of(IMAGES, LABELS),
        use_dictionary=False,
        column_encoding={"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"},
    )
    with pytest.raises(DataError, match=r"a\.parquet stores its images as DELTA_LENGTH_BYTE_ARRAY"):
        open_parquets(path)


def test_files_that_name_their_classes_differently_are_refused(tmp_path):
    first = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS))
    other = write_parquet(tmp_path / "b.parquet", table_of(IMAGES, LABELS, names=("bee", "ant", "cat")))
    with pytest.raises(DataError, match=r"b\.parquet and .*a\.parquet name their classes differently"):
        open_parquets(first, other)
    with pytest.raises(DataError, match="named twice"):
        open_parquets(first, first)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: b"", "does not begin with PAR1"),
        (lambda data: b"PAR1", "truncated"),
        (lambda data: b"\x89PNG" + data, "does not begin with PAR1"),
        (lambda data: data[:-1], "truncated: a Parquet file ends with PAR1"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:-8] + struct.pack("<I", len(data)) + b"PAR1", "its footer should have"),
        (lambda data: data[:-8] + bytes(4) + b"PAR1", "cannot be read as Parquet"),
        (lambda data: data[:-300] + bytes(292) + data[-8:], "cannot be read as Parquet|damaged"),
        (lambda data: b"PARE" + data[4:], "encrypted"),
    ],
)
def test_a_foreign_or_damaged_file_is_refused_with_the_reason(tmp_path, spoil, words):
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS))
    path.write_bytes(spoil(path.read_bytes()))
    for _ in range(2):
        with pytest.raises(DataError, match=words) as refusal:
            open_parquets(path)
        assert str(path) in str(refusal.value)


def test_without_pyarrow_the_message_names_the_extra(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", table_of(IMAGES, LABELS))
    real = builtins.__import__

    def refused(name, *arguments):
        if name.split(".")[0] == "pyarrow":
            raise ModuleNotFoundError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refused)
    with pytest.raises(DataError, match=r"pip install 'imagenet-trainer\[hf\]'"):
        open_parquets(path)
