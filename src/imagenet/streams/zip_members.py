"""Members of a zip, read in place and inflated with their sums checked; at most as many bytes as the directory tells of."""

import os
import struct
import zlib
from collections.abc import Iterator

from src.batch import DataError
from src.imagenet.streams.zip_directory import ENTRY, Entry, parse

_LOCAL = struct.Struct("<4s5H3L2H")
_EXTRA_GUESS = 128  # bytes of a local header's extra field that are read along
_FIRST_TRY = 1024
_BLOCK = 2**20
_AGAIN = "Fetch the zip again."


def entry_at(descriptor: int, at: int) -> Entry:
    """Read one entry of the central directory again.

    Raises:
        DataError: it is not there any more.
        OSError: it cannot be read.
    """
    block = os.pread(descriptor, _FIRST_TRY, at)
    if len(block) >= ENTRY.size and sum(struct.unpack_from("<3H", block, 28)) + ENTRY.size > len(block):
        block = os.pread(descriptor, ENTRY.size + 3 * 2**16, at)
    return parse(block, 0, at)


def read_member(descriptor: int, entry: Entry) -> bytes:
    """Return a member's bytes.

    Raises:
        DataError: its sum, size or header is wrong; the caller names the archive.
        OSError: it cannot be read.
    """
    block = os.pread(descriptor, _LOCAL.size + entry.names + _EXTRA_GUESS + entry.stored, entry.start)
    at = _data_at(block, entry)
    data = block[at : at + entry.stored]
    if len(data) < entry.stored:
        data += os.pread(descriptor, entry.stored - len(data), entry.start + len(block))
    if len(data) < entry.stored:
        raise DataError(f"is truncated: {entry.path} ends early. {_AGAIN}")
    if entry.deflated:
        inflater = zlib.decompressobj(wbits=-15)
        try:
            data = inflater.decompress(data, entry.size + 1)
        except zlib.error as error:
            raise DataError(f"holds {entry.path}, which is damaged ({error}). {_AGAIN}") from None
        _check_end(entry, inflater, len(data))
    _check_sum(entry, zlib.crc32(data))
    return data


def member_blocks(descriptor: int, entry: Entry) -> Iterator[bytes]:
    """Yield a large member's bytes in blocks: an archive in the archive.

    Raises:
        DataError: as read_member; a wrong sum shows at the end.
        OSError: it cannot be read.
    """
    at = entry.start + _data_at(os.pread(descriptor, _LOCAL.size + entry.names + 2**16, entry.start), entry)
    end, crc, made = at + entry.stored, 0, 0
    inflater = zlib.decompressobj(wbits=-15)
    while at < end:
        block = os.pread(descriptor, min(_BLOCK, end - at), at)
        if not block:
            raise DataError(f"is truncated: {entry.path} ends early. {_AGAIN}")
        at += len(block)
        while block:
            data = block
            if entry.deflated:
                try:
                    data = inflater.decompress(block, _BLOCK)
                except zlib.error as error:
                    raise DataError(f"holds {entry.path}, which is damaged before byte {at:,} ({error}). {_AGAIN}") from None
            block = inflater.unconsumed_tail if entry.deflated else b""
            crc, made = zlib.crc32(data, crc), made + len(data)
            if made > entry.size:
                _check_end(entry, inflater, made)
            if data:
                yield data
    if entry.deflated:
        while not inflater.eof and (data := inflater.decompress(b"", _BLOCK)):
            crc, made = zlib.crc32(data, crc), made + len(data)
            if made > entry.size:
                break
            yield data
        _check_end(entry, inflater, made)
    _check_sum(entry, crc)


def _data_at(block: bytes, entry: Entry) -> int:
    """Return where the data begin behind a local header, which must tell the same as the directory."""
    if len(block) < _LOCAL.size:
        raise DataError(f"is truncated: no member stands at byte {entry.start:,}. {_AGAIN}")
    magic, _, flags, method, _, _, _, _, _, names, extras = _LOCAL.unpack_from(block)
    own = block[_LOCAL.size : _LOCAL.size + names]
    told = entry.path.encode("utf-8", "surrogateescape")
    if magic != b"PK\3\4" or own != told or method != (8 if entry.deflated else 0) or flags & 1:
        name = own[:100].decode("utf-8", "replace") if magic == b"PK\3\4" else "no member"
        raise DataError(f"is damaged: its directory tells of {entry.path} at byte {entry.start:,}, where {name} stands. {_AGAIN}")
    return int(_LOCAL.size + names + extras)


def _check_end(entry: Entry, inflater: "zlib._Decompress", made: int) -> None:
    if made != entry.size or not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
        more = "another number of" if inflater.eof and made <= entry.size else "fewer" if made < entry.size else "more"
        raise DataError(f"holds {entry.path}, which has {more} bytes than the {entry.size:,} that its directory tells of. {_AGAIN}")


def _check_sum(entry: Entry, crc: int) -> None:
    if crc != entry.crc:
        raise DataError(f"holds {entry.path}, whose sum is wrong (CRC-32 {crc:08x}, not {entry.crc:08x}). {_AGAIN}")
