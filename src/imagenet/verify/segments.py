"""What a JPEG's segments before its pixels tell: channels, EXIF rotation, and whether EXIF and XMP are whole.

Formats: ITU-T T.81, B.2; CIPA DC-008 (EXIF), 4.6; Adobe XMP part 3, 1.1.3.
"""

import struct
from typing import NamedTuple
from xml.parsers import expat

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9
_EXIF, _XMP = b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"
_ORIENTATION, _SHORT = 0x0112, 3
_ENTRY = 12
BROKEN_EXIF, BROKEN_XMP = 1, 2


class Facts(NamedTuple):
    """What the segments tell.

    Attributes:
        channels: of the frame: 1 grey, 3 colour, 4 CMYK; 0 where no frame header was found.
        orientation: 1 to 8; 0 where none is told.
        odd: BROKEN_EXIF and BROKEN_XMP, added up.
        complete: whether all segments up to the pixels, or to the file's end, lay in the bytes.
    """

    channels: int = 0
    orientation: int = 0
    odd: int = 0
    complete: bool = True


def facts_of(data: bytes) -> Facts:
    """Walk the segments of a JPEG whose first bytes these are."""
    channels, orientation, odd = 0, 0, 0
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return Facts(channels, orientation, odd)
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _BARE:
            position += 2
            continue
        if marker in (_SCAN, _END):
            return Facts(channels, orientation, odd)
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if len(body) < length - 2:
            break
        if marker in _FRAMES and len(body) > 5:
            channels = body[5]
        elif marker == _APP1 and body.startswith(_EXIF):
            turned = orientation_of(body[6:])
            orientation, odd = (orientation, odd | BROKEN_EXIF) if turned is None else (turned or orientation, odd)
        elif marker == _APP1 and body.startswith(_XMP) and not _is_xml(body[len(_XMP) :]):
            odd |= BROKEN_XMP
        position += 2 + length
    return Facts(channels, orientation, odd, complete=False)


def orientation_of(tiff: bytes) -> int | None:
    """Return the rotation that an EXIF block tells, 0 where it tells none; None where its first directory is broken."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return None
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    if start + 2 + count * _ENTRY > len(tiff):
        return None
    found = 0
    for at in range(start + 2, start + 2 + count * _ENTRY, _ENTRY):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, at)
        if tag == _ORIENTATION and kind == _SHORT:
            (value,) = struct.unpack_from(f"{order}H", tiff, at + 8)
            found = value if 1 <= value <= 8 else 0
    return found


def _is_xml(packet: bytes) -> bool:
    """Parse, and give nothing to anybody: expat expands no external entity by itself, and bounds internal ones since 2.4."""
    parser = expat.ParserCreate()
    try:
        parser.Parse(packet.rstrip(b"\0 "), True)
    except expat.ExpatError:
        return False
    return True
