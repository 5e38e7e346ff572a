"""Tars that mean harm, header by header, and a world around a preparation in which nothing else may change."""

import hashlib
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

IMAGE = b"\xff\xd8" + bytes(700)
Make = Callable[["Place"], bytes]


class Place(NamedTuple):
    """Where an attack stands.

    Attributes:
        good: a path that would be taken.
        outside: a folder that does not concern the preparation; it holds a file `canary`.
    """

    good: str
    outside: Path


def member(
    name: str, data: bytes = b"", kind: bytes = b"0", *, link: str = "", size: int | None = None, form: str = "gnu"
) -> bytes:
    """One member as Python's tarfile writes its header, which may lie about its size."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data) if size is None else size
    if kind in (b"3", b"4"):
        info.devmajor, info.devminor = 1, 3
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return header + data + bytes(-len(data) % 512)


def pax(records: Mapping[str, str], name: str, data: bytes = IMAGE, kind: bytes = b"x") -> bytes:
    """A member behind a pax header."""
    lines = b""
    for key, value in records.items():
        line = f" {key}={value}\n".encode("utf-8", "surrogateescape")
        length = len(line) + 1
        while len(str(length)) + len(line) != length:
            length = len(str(length)) + len(line)
        lines += str(length).encode() + line
    return member("PaxHeader/x", lines, kind) + member(name, data)


def long_name(name: bytes, data: bytes = IMAGE) -> bytes:
    """A member behind a GNU long name."""
    return member("././@LongLink", name, b"L") + member("short", data)


def elsewhere(place: Place) -> str:
    """A path from deep in the target to the folder outside."""
    return f"{'../' * 12}{str(place.outside).lstrip('/')}/evil.JPEG"


def folder(place: Place) -> str:
    return place.good.rpartition("/")[0] or "folder"


ATTACKS: dict[str, Make] = {
    "up": lambda place: member(elsewhere(place), IMAGE),
    "up from a folder": lambda place: member(f"{folder(place)}/../../../../evil.JPEG", IMAGE),
    "absolute": lambda place: member(f"{place.outside}/evil.JPEG", IMAGE),
    "absolute, else good": lambda place: member(f"/{place.good}", IMAGE),
    "symlink": lambda place: member(place.good, kind=b"2", link=f"{place.outside}/canary"),
    "hard link": lambda place: member(place.good, kind=b"1", link=f"{place.outside}/canary"),
    "hard link up": lambda place: member(place.good, kind=b"1", link=elsewhere(place)),
    "write through a symlink": lambda place: (
        member(place.good, kind=b"2", link=f"{place.outside}/canary") + member(place.good, IMAGE)
    ),
    "write through a linked folder": lambda place: (
        member(f"{folder(place)}/7777", kind=b"2", link=str(place.outside)) + member(f"{folder(place)}/7777/evil.JPEG", IMAGE)
    ),
    "character device": lambda place: member(place.good, kind=b"3"),
    "block device": lambda place: member(place.good, kind=b"4"),
    "fifo": lambda place: member(place.good, kind=b"6"),
    "sparse": lambda place: member(place.good, kind=b"S"),
    "sparse by pax": lambda place: pax({"GNU.sparse.major": "1", "GNU.sparse.name": place.good}, place.good),
    "continued volume": lambda place: member(place.good, kind=b"M"),
    "unknown type": lambda place: member(place.good, kind=b"Z"),
    "pax path up": lambda place: pax({"path": elsewhere(place)}, place.good),
    "pax path absolute": lambda place: pax({"path": f"{place.outside}/evil.JPEG"}, place.good),
    "pax path with NUL": lambda place: pax({"path": f"{place.good}\0/evil"}, place.good),
    "pax path for all": lambda place: pax({"path": "../evil.JPEG"}, place.good, kind=b"g"),
    "pax size": lambda place: pax({"size": str(2**60)}, place.good),
    "pax size negative": lambda place: pax({"size": "-7777"}, place.good),
    "long name with NUL": lambda place: long_name(f"{place.good}\0../../evil".encode()),
    "long name up": lambda place: long_name(elsewhere(place).encode() + b"\0"),
    "long name without end": lambda place: long_name(f"{place.good}{'a' * 5000}7777".encode()),
    "other case": lambda place: member(f"{folder(place)}/{place.good.rpartition('/')[2].swapcase()}", IMAGE),
    "wide digits": lambda place: member(place.good.replace("7777", "7777\N{FULLWIDTH DIGIT ONE}"), IMAGE),
    "surrogates": lambda place: member(place.good.replace("7777", "7777\udcff"), IMAGE),
    "line end": lambda place: member(place.good + "\n", IMAGE),
    "backslashes": lambda place: member(place.good.replace("7777", "..\\..\\7777"), IMAGE),
    "leading dot": lambda place: (
        member(f"{folder(place)}/.{place.good.rpartition('/')[2]}", IMAGE) if "/" in place.good else member(f".{place.good}", IMAGE)
    ),
    "claims 8 GiB": lambda place: member(place.good, b"", size=2**33),
    "claims 2^70": lambda place: member(place.good, b"", size=2**70),
    "65 MiB": lambda place: member(place.good, bytes(65 * 2**20)),
    "empty": lambda place: member(place.good),
    "twice": lambda place: member(place.good, IMAGE) + member(place.good, IMAGE),
    "twice, spelt otherwise": lambda place: member(place.good, IMAGE) + member("./" + place.good.replace("/", "//"), IMAGE),
    "another's image": lambda place: member(place.good.rpartition("/")[0] + "/n02012849_7777.JPEG", IMAGE),
    "tar in the tar": lambda place: member(f"{folder(place)}/n77770000.tar.tar", member("n77770000_1.JPEG", IMAGE) + bytes(1024)),
}


def tar_with(files: Mapping[str, bytes], attack: bytes) -> bytes:
    """A tar whose attack stands between honest members."""
    honest = [member(name, data) for name, data in files.items()]
    middle = len(honest) // 2
    return b"".join([*honest[:middle], attack, *honest[middle:], bytes(10_240)])


class World:
    """A folder with source, target and what concerns neither.

    Attributes:
        source: where downloads lie.
        target: where the data set would go.
        outside: holds a file `canary`.
    """

    def __init__(self, root: Path) -> None:
        self.source, self.target, self.outside = root / "a" / "source", root / "a" / "target", root / "outside"
        self.source.mkdir(parents=True)
        self.outside.mkdir()
        (self.outside / "canary").write_bytes(b"alive")
        self._root = root
        self._before: dict[str, object] = {}

    def remember(self) -> None:
        """Take down what is there, but for the target."""
        self._before = self._state()

    def assert_untouched(self) -> None:
        """Nothing outside of the target changed; nothing is published in it; nothing in it leads elsewhere."""
        assert self._state() == self._before
        assert not [name for name in ("train", "val", "test") if os.path.lexists(self.target / name)]
        for place, folders, files in os.walk(self.target):
            for name in [*folders, *files]:
                path = Path(place) / name
                assert not path.is_symlink() and (path.is_dir() or path.is_file()), path
                assert not path.is_file() or path.stat().st_nlink == 1, path
                assert "evil" not in name, path

    def bytes_written(self) -> int:
        return sum(path.stat().st_size for path in self.target.rglob("*") if path.is_file())

    def _state(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for place, folders, files in os.walk(self._root):
            folders[:] = [name for name in folders if Path(place) / name != self.target]
            for name in [*folders, *files]:
                path = Path(place) / name
                state = path.lstat()
                kept = path != self.target.parent
                content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
                found[str(path)] = (state.st_mode, state.st_size, state.st_mtime_ns, state.st_nlink, content) if kept else None
        return found
