"""The fields of a tar's headers: checksum, sizes, pax records, paths. Each is read as if an enemy had written it.

Format: see walk.py. `at` is always the byte at which the header stands, for messages.
"""

import os
from typing import NoReturn

from src.batch import DataError

BLOCK = 512
_MOST_NAME = 4096  # bytes of a path, as Linux's PATH_MAX
AGAIN = "Copy it again from where it came from"


def refuse(reason: str, remedy: str) -> NoReturn:
    """Raise what the caller completes with the tar's name.

    Raises:
        DataError: always.
    """
    raise DataError(f"{reason}. {remedy}.")


def is_sound(block: bytes) -> bool:
    """Compare the header's checksum: the sum of its bytes, with spaces in the checksum's own place."""
    field = block[148:156]
    told, found = _octal(field), sum(block) - sum(field) + 8 * 32
    if told == found:
        return True
    return told == found - 256 * sum(byte > 127 for byte in block[:148] + block[156:])  # signed, as some old tars counted


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        return None
    return int(digits, 8)


def size_in(field: bytes, at: int) -> int:
    """Read a size: octal digits, or binary behind a set bit (GNU, star).

    Raises:
        DataError: it is neither.
    """
    size = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big") if field[0] == 0x80 else _octal(field)
    if size is None:
        refuse(f"is damaged: the header at byte {at:,} tells of a size {field!r}", AGAIN)
    return size


def decimal_size(text: str, at: int) -> int:
    """Read a size of a pax record.

    Raises:
        DataError: it is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        refuse(f"is damaged: the header before byte {at:,} tells of a size {text[:30]!r}", AGAIN)
    return int(text)


def pax_records(data: bytes, at: int) -> dict[str, str]:
    """Parse pax records: `<length> <key>=<value>` and a line's end, the length counting all of it.

    Raises:
        DataError: a record is broken.
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(data) and data[position]:
        space = data.find(b" ", position, position + 10)
        digits = data[position:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        line = data[space + 1 : position + length]
        key, equals, value = line.partition(b"=")
        if length > len(data) - position or not line.endswith(b"\n") or not equals:
            refuse(f"is damaged: the pax header at byte {at:,} holds a bad record", AGAIN)
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):  # others are not looked at, and could fill the memory
            found[os.fsdecode(key)] = os.fsdecode(value[:-1])
        position += length
    return found


def clean_path(name: str, at: int) -> str:
    """Leave "./" and doubled slashes out of a path.

    Raises:
        DataError: it leads upwards, or is no path.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name or len(name) > _MOST_NAME:
        refuse(f"holds the path {name[:300]!r} (byte {at:,})", "Write it anew, from within its folder")
    return "/".join(parts)


def padded(size: int) -> int:
    """Round up to whole blocks."""
    return -(-size // BLOCK) * BLOCK
