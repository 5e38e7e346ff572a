"""Torrent files (BEP 3): the names, sizes and sums that they tell, read without trust."""

import hashlib
from pathlib import Path
from typing import NamedTuple

_MOST_BYTES = 64 * 2**20
_MOST_DEPTH = 32


class Torrent(NamedTuple):
    """What a torrent file tells.

    Attributes:
        info_hash: SHA-1 of its part `info`, in hex: its name everywhere.
        files: places below the download's folder, with "/" between their parts, and their sizes in bytes.
        hosts: of its trackers and web seeds.
    """

    info_hash: str
    files: tuple[tuple[str, int], ...]
    hosts: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for _, size in self.files)


def read_torrent(path: Path) -> Torrent:
    """Read a torrent file.

    Raises:
        ValueError: it is none, or a name in it would lie outside the folder.
        OSError: it cannot be read.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError("is too large for a torrent file")
    data = path.read_bytes()
    tree, end, spans = _Reader(data).whole()
    if end != len(data) or not isinstance(tree, dict) or not isinstance(tree.get(b"info"), dict):
        raise ValueError("is no torrent file")
    info = tree[b"info"]
    name = _name(info.get(b"name"))
    if b"files" in info:
        listed = info[b"files"]
        if not isinstance(listed, list) or not listed:
            raise ValueError("names no files")
        files = tuple(_file(name, entry) for entry in listed)
    else:
        files = ((name, _size(info.get(b"length"))),)
    start, stop = spans[b"info"]
    return Torrent(hashlib.sha1(data[start:stop], usedforsecurity=False).hexdigest(), files, _hosts(tree))


def _file(name: str, entry: object) -> tuple[str, int]:
    parts = entry.get(b"path") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(parts, list) or not parts:
        raise ValueError("has a file without a name")
    return "/".join([name, *(_name(part) for part in parts)]), _size(entry.get(b"length"))


def _name(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
    if text in ("", ".", "..") or "/" in text or "\0" in text or text.startswith(".fetch"):
        raise ValueError(f"names a file {text!r}, which could not lie below the folder")
    return text


def _size(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("has a file without a size")
    return value


def _hosts(tree: dict[bytes, object]) -> tuple[str, ...]:
    from urllib.parse import urlsplit

    found: dict[str, None] = {}
    pending = [tree.get(b"announce"), tree.get(b"announce-list"), tree.get(b"url-list"), tree.get(b"httpseeds")]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, bytes):
            try:
                host = urlsplit(value.decode("utf-8", "replace")).hostname
            except ValueError:
                continue
            if host:
                found[host] = None
    return tuple(found)


class _Reader:
    """Bencoding."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def whole(self) -> tuple[object, int, dict[bytes, tuple[int, int]]]:
        """Return the value, where it ends, and the spans of the outermost dictionary's values."""
        spans: dict[bytes, tuple[int, int]] = {}
        value, end = self._value(0, 0, spans)
        return value, end, spans

    def _value(self, at: int, depth: int, spans: dict[bytes, tuple[int, int]] | None = None) -> tuple[object, int]:
        if depth > _MOST_DEPTH:
            raise ValueError("is nested too deeply for a torrent file")
        kind = self._data[at : at + 1]
        if kind == b"i":
            end = self._find(b"e", at)
            return self._number(at + 1, end), end + 1
        if kind in (b"l", b"d"):
            return self._container(at + 1, depth, kind == b"d", spans)
        return self._text(at)

    def _container(self, at: int, depth: int, named: bool, spans: dict[bytes, tuple[int, int]] | None) -> tuple[object, int]:
        items: list[object] = []
        entries: dict[bytes, object] = {}
        while self._data[at : at + 1] != b"e":
            key = b""
            if named:
                key, at = self._text(at)
            start = at
            value, at = self._value(at, depth + 1)
            if named:
                entries[key] = value
                if spans is not None:
                    spans[key] = (start, at)
            else:
                items.append(value)
        return (entries if named else items), at + 1

    def _text(self, at: int) -> tuple[bytes, int]:
        colon = self._find(b":", at)
        start = colon + 1
        end = start + self._number(at, colon)
        if end > len(self._data) or end < start:
            raise ValueError("is no whole torrent file")
        return self._data[start:end], end

    def _find(self, mark: bytes, at: int) -> int:
        end = self._data.find(mark, at, at + 24)
        if end < 0:
            raise ValueError("is no whole torrent file")
        return end

    def _number(self, start: int, end: int) -> int:
        text = self._data[start:end]
        if not text.removeprefix(b"-").isdigit():
            raise ValueError("is no torrent file")
        return int(text)
