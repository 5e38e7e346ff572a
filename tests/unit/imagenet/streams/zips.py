"""Zips byte by byte: what Python's zipfile would not write."""

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

REGULAR, LINK, DEVICE = 0o100644, 0o120777, 0o020666


class Member(NamedTuple):
    """One member, honest unless told otherwise.

    Attributes:
        name: in the directory.
        data: its content.
        method: 8 deflates.
        local_name: in the local header; None: as in the directory.
        crc: None: the true one.
        size: that the directory tells of; None: the true one.
        stored: likewise, in the zip.
        flags: of the format.
        mode: of Unix.
        at: where the directory says that it lies; None: where it does.
        zip64: sizes and place in the zip64 field.
        extra: of the local header.
        comment: of its entry.
    """

    name: bytes
    data: bytes
    method: int = 8
    local_name: bytes | None = None
    crc: int | None = None
    size: int | None = None
    stored: int | None = None
    flags: int = 0
    mode: int = REGULAR
    at: int | None = None
    zip64: bool = False
    extra: bytes = b""
    comment: bytes = b""


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(6, wbits=-15)
    return packer.compress(data) + packer.flush()


def zip_of(
    members: Sequence[Member], *, comment: bytes = b"", count: int | None = None, zip64: bool = False, gap: bytes = b""
) -> bytes:
    """Write a zip; `count` is what its end tells, `gap` stands between directory and end."""
    body, directory = bytearray(), bytearray()
    for member in members:
        content = deflate(member.data) if member.method == 8 else member.data
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        size = len(member.data) if member.size is None else member.size
        stored = len(content) if member.stored is None else member.stored
        at = len(body) if member.at is None else member.at
        own = member.name if member.local_name is None else member.local_name
        body += struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, member.flags, member.method, 0, 0, crc, stored & 0xFFFFFFFF, size & 0xFFFFFFFF,
            len(own), len(member.extra),
        )  # fmt: skip
        body += own + member.extra + content
        field = struct.pack("<HH3Q", 1, 24, size, stored, at) if member.zip64 else b""
        told = (0xFFFFFFFF,) * 3 if member.zip64 else (stored, size, at)
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 0x031E, 20, member.flags, member.method, 0, 0, crc, told[0], told[1], len(member.name),
            len(field), len(member.comment), 0, 0, member.mode << 16, told[2],
        )  # fmt: skip
        directory += member.name + field + member.comment
    number = len(members) if count is None else count
    start, end = len(body), len(body) + len(directory)
    if zip64:
        wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, number, number, len(directory), start)
        wide += struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
        last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        return bytes(body + directory) + gap + wide + last
    return bytes(body + directory) + gap + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, number, number, len(directory), start, 0)
