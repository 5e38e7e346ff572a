"""Read back what wandb wrote offline, and write such files: a LevelDB log of protobuf records (core/pkg/leveldb in its source)."""

import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from src.tracking.wandb_log import payloads

BLOCK, HEADER = 32768, 7  # bytes; wandb's own header at the file's beginning is of 7 bytes as well
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def log_of(contents: Iterable[bytes]) -> bytes:
    """Return a file with these records, as doc/log_format.md of LevelDB has it."""
    data = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for content in contents:
        left, first = content, True
        while first or left:
            room = BLOCK - len(data) % BLOCK
            if room < HEADER:
                data += bytes(room)
                continue
            body, left = left[: room - HEADER], left[room - HEADER :]
            kind = (_MIDDLE if left else _LAST) if not first else (_FIRST if left else _FULL)
            data += struct.pack("<IHB", zlib.crc32(bytes([kind]) + body), len(body), kind) + body
            first = False
    return bytes(data)


def records(folder: Path) -> list[Any]:
    """Return all records of all offline runs in <run>/wandb, in the order in which they were written, as wandb's own messages."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for file in sorted(folder.glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for payload in payloads(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            found.append(record)
    return found


def history(folder: Path) -> list[dict[str, float]]:
    """Return the logged rows, with wandb's step as "step"."""
    rows = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            row = {key: value for key, value in items.items() if not key.startswith("_")}
            rows.append(row | {"step": items.get("_step", record.history.step.num)})
    return rows
