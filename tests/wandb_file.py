"""Read back what wandb wrote offline: its .wandb file is a LevelDB log of protobuf records (core/pkg/leveldb in its source)."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _FILE_HEADER, _RECORD_HEADER = 32768, 7, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def payloads(path: Path) -> Iterator[bytes]:
    """Yield each record's bytes; a record that was cut off at the end is left out."""
    data, at, parts = path.read_bytes(), _FILE_HEADER, b""
    assert data[:4] == b":W&B"
    while at + _RECORD_HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _RECORD_HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        body = data[at + _RECORD_HEADER : at + _RECORD_HEADER + length]
        at += _RECORD_HEADER + length
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(body) < length:
            return
        parts = body if kind in (_FULL, _FIRST) else parts + body
        if kind in (_FULL, _LAST):
            yield parts


def records(folder: Path) -> list[Any]:
    """Return all records of all offline runs in <run>/wandb, in the order in which they were written, as wandb's own messages."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for file in sorted(folder.glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for payload in payloads(file):
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
