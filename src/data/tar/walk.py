"""From a tar's headers to where its members lie. Reads 512 bytes a member, and trusts none of them.

Format: POSIX.1-1988 ustar, POSIX.1-2001 pax, and GNU tar's long names and large numbers (GNU tar's manual, "Basic Tar Format").
Every header carries a checksum, so a changed name, size or type is noticed; a name that is kept outside of the header (pax, GNU
long name) carries none. What is noticed neither: that the last members, of 1 MiB at most, were overwritten with zeros.
"""

import os
import sys
from array import array
from collections.abc import Callable, Iterator

from src.data.tar.fields import AGAIN, BLOCK, clean_path, decimal_size, is_sound, padded, pax_records, refuse, size_in

UNKNOWN = sys.maxsize  # the end of a stream
_ZEROS = bytes(BLOCK)
_MOST_EXTRA = 2**20  # bytes of one pax header or long name
_MOST_FOLDERS = 2**18  # that a tar may tell of; ImageNet-21k has 21,841 classes
_MOST_PADDING = 2**20  # bytes of zeros behind the end mark; tars are padded to 10 KiB, or to what -b says
_PIECE = 2**18
_BEHIND = "It is damaged (copy it again), or several tars were written one behind the other (name them one by one)"
_FILE, _FOLDER = (b"0", b"\0", b"7"), b"5"
_LABEL = b"V"
_REFUSED = {
    b"1": "is a hard link",
    b"2": "is a symbolic link",
    b"3": "is a device",
    b"4": "is a device",
    b"6": "is a pipe",
    b"S": "is stored sparsely",
    b"M": "continues a member of another volume",
    b"D": "is a folder of an incremental backup",
}
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
}


class Listing:
    """The files of one tar, by columns, in the tar's order.

    Attributes:
        names: paths within the tar, without "./" and doubled slashes.
        starts: where each file's bytes begin, counted from the start of the outermost file.
        lengths: bytes of each.
        folders: paths of the folders that the tar tells of.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.starts = array("q")
        self.lengths = array("q")
        self.folders: list[str] = []


def list_members(descriptor: int, start: int, end: int) -> Listing:
    """Walk a tar that lies at these bytes of an open file.

    Raises:
        DataError: what is wrong, and at which byte. The caller puts the tar's name before it.
    """
    walk = _Walk(lambda at, count: os.pread(descriptor, count, at), start, end)
    while walk.step():
        pass
    return walk.found


def each_member(read: Callable[[int, int], bytes], start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Walk a tar member by member: its path, first byte and length. Between two, its bytes may be read by the same function.

    For those who write files: absolute paths are refused, too.

    Args:
        read: called with a first byte and a count, in ascending order; returns fewer bytes at the end only.
        start: the tar's first byte.
        end: the byte behind its last; UNKNOWN of a stream, which ends where `read` returns fewer bytes.

    Raises:
        DataError: as list_members, when the walk comes to it.
    """
    walk = _Walk(read, start, end, relative=True)
    found = walk.found
    while walk.step():
        if found.names:
            yield found.names.pop(), found.starts.pop(), found.lengths.pop()
        found.folders.clear()


class _Walk:
    def __init__(self, read: Callable[[int, int], bytes], start: int, end: int, *, relative: bool = False) -> None:
        self.found, self._relative, self._streamed = Listing(), relative, end == UNKNOWN
        self._read_at, self._at, self._start, self.end = read, start, start, end
        self._folders = 0
        self._long_name: str | None = None
        self._next: dict[str, str] = {}  # pax records of the next member
        self._all: dict[str, str] = {}  # pax records of all that follow

    def step(self) -> bool:
        """Take one header; return whether there are more.

        Raises:
            DataError: what is wrong, and at which byte. The caller puts the tar's name before it.
        """
        at = self._at
        block = self._read(at, BLOCK)
        if len(block) < BLOCK:
            refuse(
                f"is truncated: it ends at byte {self.end:,}, where another member or the end mark should stand", self._hint(b"")
            )
        if block == _ZEROS:
            self._check_end()
            return False
        if not is_sound(block):
            refuse(f"holds no sound header at byte {at:,}: its checksum is wrong", self._hint(block))
        kind = block[156:157]
        size = size_in(block[124:136], at)
        if kind in b"LKxXg":
            self._extra(kind, size)
            return True
        self._member(block, kind, size)
        return True

    def _member(self, block: bytes, kind: bytes, size: int) -> None:
        described = {**self._all, **self._next}
        name = self._name(block, described)
        if any(key.startswith("GNU.sparse.") for key in described):
            kind = b"S"
        if "size" in described:
            size = decimal_size(described["size"], self._at)
        self._long_name, self._next = None, {}
        if kind in _FILE and name.endswith("/"):
            kind = _FOLDER  # as tars did before there was a type for it
        path = clean_path(name, self._at)
        if self._relative and name.startswith("/"):
            refuse(f"holds the path {name[:300]!r} (byte {self._at:,})", "Write it anew, from within its folder")
        data = self._at + BLOCK
        if kind == _FOLDER:
            if path:
                self.found.folders.append(path)
                self._folders += 1
                if self._folders > _MOST_FOLDERS:
                    refuse(f"tells of more than {_MOST_FOLDERS:,} folders", "It is no set of images")
            self._at = data
            return
        if kind not in _FILE and kind != _LABEL:
            why = _REFUSED.get(kind, f"is of the unknown type {kind!r}")
            refuse(f"holds {name}, which {why} (byte {self._at:,})", "Write the tar anew from plain files")
        if size > self.end - data:
            refuse(
                f"is truncated: {name} at byte {data:,} should have {size:,} bytes, and {max(0, self.end - data):,} are there",
                AGAIN,
            )
        if kind != _LABEL:
            if not path:
                refuse(f"holds a file without a name (byte {self._at:,})", "Write it anew")
            self.found.names.append(path)
            self.found.starts.append(data)
            self.found.lengths.append(size)
        self._at = data + padded(size)

    def _extra(self, kind: bytes, size: int) -> None:
        """Take a header whose data describe what follows."""
        if size > _MOST_EXTRA:
            refuse(f"is damaged: a header of {size:,} bytes at byte {self._at:,}", AGAIN)
        data = self._read(self._at + BLOCK, size)
        if len(data) < size:
            refuse(f"is truncated: it ends at byte {self.end:,}, within a header", AGAIN)
        if kind == b"L":
            name = data.rstrip(b"\0")
            if b"\0" in name:
                refuse(f"holds the path {os.fsdecode(name)!r} (byte {self._at:,})", "Write it anew, from within its folder")
            self._long_name = os.fsdecode(name)
        elif kind == b"g":
            self._all |= pax_records(data, self._at)
        elif kind in b"xX":
            self._next = pax_records(data, self._at)
        self._at += BLOCK + padded(size)

    def _name(self, block: bytes, described: dict[str, str]) -> str:
        if "path" in described:
            return described["path"]
        if self._long_name is not None:
            return self._long_name
        name = block[:100].split(b"\0", 1)[0]
        prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
        return os.fsdecode(prefix + b"/" + name if prefix else name)

    def _check_end(self) -> None:
        """Two blocks of zeros end a tar, and nothing but zeros may follow: else damage could hide all that comes behind it."""
        at = self._at
        if self.end != UNKNOWN and self.end - at > _MOST_PADDING:
            refuse(f"holds {self.end - at:,} bytes behind its end mark at byte {at:,}", _BEHIND)
        at += BLOCK  # which was read, and in a stream cannot be read again
        while at < self.end:
            piece = self._read(at, _PIECE)
            if not piece and self._streamed:
                return
            if at - self._at > _MOST_PADDING:
                refuse(f"holds more than {_MOST_PADDING:,} bytes behind its end mark at byte {self._at:,}", _BEHIND)
            if not piece:
                refuse(f"became shorter while it was read: it ends at byte {at:,}", "Start again")
            if piece.count(0) != len(piece):
                place = at + len(piece) - len(piece.lstrip(b"\0"))
                refuse(f"holds data at byte {place:,}, behind the end mark at byte {self._at:,}", _BEHIND)
            at += len(piece)

    def _read(self, at: int, count: int) -> bytes:
        data = self._read_at(at, max(0, min(count, self.end - at)))
        if self._streamed and len(data) < count:
            self.end = at + len(data)
        return data

    def _hint(self, block: bytes) -> str:
        block = block or self._read(self._start, BLOCK)
        if self._at == self._start:
            for magic, (name, command) in _COMPRESSED.items():
                if block.startswith(magic):
                    return f"It is compressed with {name}, and images in it cannot be read in place: {command} it first"
            return "It is no tar"
        return AGAIN
