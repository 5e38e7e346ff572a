"""How far a run was told to wandb, read from what wandb keeps of it: after a power failure that is less than was handed to it.

The .wandb file is a LevelDB log of protobuf records: blocks of 32 KiB, in them fragments with a header of checksum, length and kind
(core/pkg/leveldb in wandb's source, after doc/log_format.md of LevelDB). A header of wandb's own, 7 bytes, stands at the beginning
of the first block. wandb writes whole blocks, and what is left of the last one only now and then: a file of a multiple of 32,768
bytes ends within rows that were on their way, and they are lost if wandb is killed then.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_MARK, _FILE_HEADER = b":W&B", 7
_BLOCK, _HEADER = 32768, struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def last_step(folder: Path, run_id: str) -> int | None:
    """Return the last step in the files of a run, of all processes that have told it; None where there is no file.

    Args:
        folder: wandb's, in the run's.
        run_id: wandb's name of the run.
    """
    files = list(folder.glob(f"*run-*-{run_id}/run-{run_id}.wandb"))
    return max((max(_steps(file), default=0) for file in files), default=None)


def _steps(file: Path) -> Iterator[int]:
    """Yield the step of every row in the file that can be read, up to where it was cut off."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes with wandb
    from wandb.proto.wandb_internal_pb2 import Record

    for payload in payloads(file.read_bytes()):
        record = Record()
        try:
            record.ParseFromString(payload)
        except DecodeError:
            return
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            yield int(json.loads(items["_step"])) if "_step" in items else int(record.history.step.num)


def payloads(data: bytes) -> Iterator[bytes]:
    """Yield each whole record of a .wandb file, up to the first that is damaged or was cut off.

    What follows damage does not count: the next process sends it once more, and no step is missing.
    """
    if not data.startswith(_MARK):
        return
    at, parts, inside = _FILE_HEADER, b"", False
    while at + _HEADER.size <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER.size:  # no header fits into what is left of the block
            at += _BLOCK - at % _BLOCK
            continue
        checksum, length, kind = _HEADER.unpack_from(data, at)
        body = data[at + _HEADER.size : at + _HEADER.size + length]
        if zlib.crc32(body, zlib.crc32(bytes([kind]))) != checksum:  # also of one that was cut off
            return
        if kind not in ((_MIDDLE, _LAST) if inside else (_FULL, _FIRST)):
            return
        parts, inside = parts + body, kind in (_FIRST, _MIDDLE)
        at += _HEADER.size + length
        if not inside:
            yield parts
            parts = b""
