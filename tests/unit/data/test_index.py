"""The index: what it finds in a folder, whose headers it reads, and what it says of bad files."""

import os
import time

import numpy as np
import pytest

from src.data import headers as header_module
from src.data import index as index_module
from src.data.headers import read_header
from tests.pictures import KINDS, encode, write_files


def names_of(index) -> list[str]:
    return [index.relative(sample) for sample in range(len(index))]


def test_classes_labels_names_and_sizes(tmp_path, opened):
    files = {f"bee/{kind}.JPEG": encode(kind, 20 + number, 30) for number, kind in enumerate(KINDS)}
    files |= {"ant/b.png": encode("png", 9, 8), "ant/a.jpg": encode("jpeg", 7, 6), "cat/only.jpeg": encode("jpeg", 500, 3)}
    index, ids = opened(write_files(tmp_path / "train", files))
    assert index.classes == ("ant", "bee", "cat")
    assert names_of(index) == sorted(files)
    assert ids.tolist() == list(range(9))
    assert index.labels.tolist() == [0, 0, *[1] * 6, 2]
    assert index.labels.dtype == np.int64
    bees = [[20 + KINDS.index(kind), 30] for kind in sorted(KINDS)]
    assert index.sizes.tolist() == [[7, 6], [9, 8], *bees, [500, 3]]
    assert index.sizes.dtype == np.int32
    assert index.faults == {}
    assert [index.path(sample) for sample in ids.tolist()] == [str(tmp_path / "train" / name) for name in sorted(files)]


NAMES = [*map(str.encode, ("äö.png", "日本語.png", "🐜 a b.png", "new\nline.png", "'\".png")), b"\xff\xfe.png"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_survives_the_cache(tmp_path, opened, headers_read, name):
    root = write_files(tmp_path / "träin", {f"klässe/{os.fsdecode(name)}": encode("png", 6, 5)})
    for _ in range(2):
        index, _ = opened(root)
        assert index.classes == ("klässe",)
        assert index.sizes.tolist() == [[6, 5]]
        assert os.fsencode(index.path(0)) == os.fsencode(root / "klässe") + b"/" + name
        assert read_header(index.path(0)) == (6, 5, "")
    assert len(headers_read) == 1


def test_a_root_whose_name_is_no_utf8(tmp_path, opened, headers_read):
    root = tmp_path / os.fsdecode(b"\xff-train")
    write_files(root, {"ant/0.png": encode("png", 6, 5)})
    assert [opened(root)[0].sizes.tolist() for _ in range(2)] == [[[6, 5]]] * 2
    assert len(headers_read) == 1


def test_nested_folders_belong_to_their_class(tmp_path, opened):
    files = {"ant/x/y/deep.png": encode("png"), "ant/top.png": encode("png"), "bee/x/b.png": encode("png")}
    index, _ = opened(write_files(tmp_path / "train", files))
    assert names_of(index) == ["ant/top.png", "ant/x/y/deep.png", "bee/x/b.png"]
    assert index.labels.tolist() == [0, 0, 1]


def test_what_is_hidden_or_no_image_is_ignored(tmp_path, opened):
    junk = {
        ".hidden/a.png": b"junk",
        "ant/.a.png": b"junk",
        "ant/._0.png": b"junk",
        "ant/.thumbs/a.png": b"junk",
        "ant/notes.txt": b"junk",
        "ant/png": b"junk",
        "loose.png": b"junk",
    }
    index, _ = opened(write_files(tmp_path / "train", junk | {"ant/0.PNG": encode("png"), "bee/0.JpEg": encode("jpeg")}))
    assert index.classes == ("ant", "bee")
    assert names_of(index) == ["ant/0.PNG", "bee/0.JpEg"]
    assert index.faults == {}


def test_links_are_followed(tmp_path, opened):
    store = write_files(tmp_path / "store", {"0.png": encode("png", 6, 5), "bees/1.png": encode("png", 8, 7)})
    (tmp_path / "train" / "ant").mkdir(parents=True)
    (tmp_path / "train" / "ant" / "0.png").symlink_to(store / "0.png")
    (tmp_path / "train" / "ant" / "more").symlink_to(store / "bees")
    (tmp_path / "train" / "bee").symlink_to(store / "bees")
    index, _ = opened(tmp_path / "train")
    assert index.classes == ("ant", "bee")
    assert names_of(index) == ["ant/0.png", "ant/more/1.png", "bee/1.png"]
    assert index.sizes.tolist() == [[6, 5], [8, 7], [8, 7]]


def test_an_empty_class_keeps_its_label(tmp_path, opened):
    root = write_files(tmp_path / "train", {"ant/0.png": encode("png"), "cat/0.png": encode("png")})
    (root / "bee").mkdir()
    index, _ = opened(root)
    assert index.classes == ("ant", "bee", "cat")
    assert index.labels.tolist() == [0, 2]


def test_a_folder_without_classes_is_empty(tmp_path, opened):
    index, ids = opened(write_files(tmp_path / "train", {"loose.png": encode("png")}))
    assert (index.classes, len(index), len(ids)) == ((), 0, 0)


def test_only_chosen_headers_are_read(tmp_path, opened, headers_read):
    root = write_files(tmp_path / "train", {f"ant/{number:02}.png": encode("png", 5 + number, 4) for number in range(20)})
    index, ids = opened(root, lambda labels: np.array([3, 17, 8]))
    assert ids.tolist() == [3, 17, 8]
    assert sorted(headers_read) == [str(root / "ant" / f"{number:02}.png") for number in (3, 8, 17)]
    assert index.sizes[ids].tolist() == [[8, 4], [22, 4], [13, 4]]
    assert (np.delete(index.sizes, ids, axis=0) == 0).all()


def test_a_second_subset_reads_only_what_is_new(tmp_path, opened, headers_read):
    root = write_files(tmp_path / "train", {f"ant/{number:02}.png": encode("png", 5 + number, 4) for number in range(20)})
    for chosen, new in ((range(5), range(5)), (range(12), range(5, 12)), (range(3, 9), ()), (range(20), range(12, 20))):
        headers_read.clear()
        index, ids = opened(root, lambda labels, chosen=chosen: np.array(chosen))
        assert sorted(headers_read) == [str(root / "ant" / f"{number:02}.png") for number in new]
        assert index.sizes[ids].tolist() == [[5 + number, 4] for number in chosen]


@pytest.mark.parametrize("chunk", [1, 3, 512])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_number_of_threads_does_not_matter(tmp_path, opened, monkeypatch, threads, chunk):
    monkeypatch.setattr(header_module, "_CHUNK", chunk)
    files = {f"{name}/{number}.png": encode("png", 5 + number, 4) for name in ("ant", "bee", "cat") for number in range(9)}
    index, ids = opened(write_files(tmp_path / "train", files | {"bee/5.png": b"junk"}), threads=threads)
    assert names_of(index) == sorted(files)
    assert index.sizes.tolist() == [[5 + number, 4] if sample != 14 else [0, 0] for sample, number in enumerate([*range(9)] * 3)]
    assert index.faults == {14: "is no image of a known format"}
    assert len(ids) == 27


def test_progress_is_told_from_the_first_to_the_last(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(header_module, "_CHUNK", 4)
    root = write_files(tmp_path / "train", {f"ant/{number}.png": encode("png", 3, 3) for number in range(10)})
    told: list[tuple[int, int]] = []
    opened(root, progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]
    opened(root, progress=lambda done, total: told.append((done, total)))
    assert len(told) == 3, "there was nothing to read"


def test_an_interruption_stops_the_reading(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(header_module, "_CHUNK", 1)
    read = []

    def slow(path: str):
        read.append(path)
        time.sleep(0.02)
        return read_header(path)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(index_module, "read_header", slow)
    root = write_files(tmp_path / "train", {f"ant/{number:03}.png": encode("png", 3, 3) for number in range(60)})
    with pytest.raises(KeyboardInterrupt):
        opened(root, progress=interrupt)
    assert len(read) < 20


def test_bad_files_are_known_by_their_reason(tmp_path, opened):
    good = encode("jpeg")
    files = {"ant/0.jpg": b"", "ant/1.jpg": good, "ant/2.jpg": good[:-40], "bee/0.jpg": b"junk", "bee/1.png": encode("png")}
    index, _ = opened(write_files(tmp_path / "train", files))
    assert set(index.faults) == {0, 2, 3}
    assert index.faults[0] == "is empty"
    assert "truncated" in index.faults[2]
    assert index.faults[3] == "is no image of a known format"
    assert index.sizes.tolist() == [[0, 0], [40, 30], [0, 0], [0, 0], [40, 30]]


def test_a_bad_file_that_was_not_chosen_is_not_known(tmp_path, opened):
    root = write_files(tmp_path / "train", {"ant/0.jpg": b"junk", "ant/1.jpg": encode("jpeg")})
    index, _ = opened(root, lambda labels: np.array([1]))
    assert index.faults == {}
    index, _ = opened(root)
    assert set(index.faults) == {0}
