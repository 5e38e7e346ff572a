"""Every way in which a disk, a copy or a person damages a file: from its bytes, and what else lay about, to other bytes."""

import io
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

Kind = Callable[[bytes, random.Random], bytes]

WRONG_TEXTS = (
    *(b"[]", b"{}", b"null", b"3", b'"text"', b"true", b"[[[]]]", b"NaN", b"{}\n[]\n", b"- a\n- b\n", b"a: [1, 2\n"),
    *(b'{"last.ckpt": 3}', b'{"last.ckpt": {"sha256": 5, "step": "x"}}', b'{"last.ckpt": {"sha256": "", "step": -1, "check": ""}}'),
    *(b'{"kind": "train"}\n', b'{"kind": "train", "step": "x", "epoch": 0}\n', b'{"kind": "train", "step": 1e400, "epoch": []}\n'),
    *(b'{"kind": "beton-sidecar"}', b'{"kind": "beton-sidecar", "version": 1, "classes": "abc"}', b'[{"length": -3, "sha256": 1}]'),
    *(b'{"token": 1, "boot": [], "host": {}}', b"seed: 1\nbatch_size: []\n", b"[" * 100_000, b'{"a":' * 20_000),
    *(b"!!python/object:os.system x", b"? : ?\n", b"\n"),
)
WRONG_STATES = (
    *({"schema": 3}, {"schema": 3, "step": "x"}, {"schema": 3, "step": 4}, {"schema": 3, "step": -5, "model": {}}, [1, 2], {}, 7),
    *({"schema": 3, "step": 10**30, "classes": []}, {"schema": 3, "step": 4, "classes": 5, "config": [], "model": torch.ones(3)}),
    *({"schema": 3, "step": 4, "classes": ["a"], "config": {}}, {"schema": 3, "step": True, "config": {"seed": 3}, "model": None}),
)


def flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def extend(data: bytes, chance: random.Random) -> bytes:
    return data + chance.choice((b"\0" * 64, chance.randbytes(chance.randint(1, 400)), data, b"\n\n", b"}"))


def empty(data: bytes, chance: random.Random) -> bytes:
    return b""


def _block(data: bytes, chance: random.Random) -> tuple[int, int]:
    size = min(len(data), chance.choice((8, 64, 512, 4096)))
    start = chance.randrange(0, len(data) - size + 1)
    return start, start + size


def zero_block(data: bytes, chance: random.Random) -> bytes:
    start, end = _block(data, chance)
    return data[:start] + bytes(end - start) + data[end:]


def swap_blocks(data: bytes, chance: random.Random) -> bytes:
    (start, end), (other, _) = _block(data, chance), _block(data, chance)
    size, changed = min(end - start, len(data) - other), bytearray(data)
    changed[start : start + size], changed[other : other + size] = data[other : other + size], data[start : start + size]
    return bytes(changed)


def duplicate_block(data: bytes, chance: random.Random) -> bytes:
    start, end = _block(data, chance)
    return data[:end] + data[start:end] + data[end:]


def lose_block(data: bytes, chance: random.Random) -> bytes:
    start, end = _block(data, chance)
    return data[:start] + data[end:]


def bad_utf8(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice((b"\xff\xfe", b"\xc3", b"\x80\x80", b"\xed\xa0\x80")) + data[at:]


def wrong_shape(data: bytes, chance: random.Random) -> bytes:
    if data[:2] != b"PK":
        return chance.choice(WRONG_TEXTS)
    memory = io.BytesIO()
    torch.save(chance.choice(WRONG_STATES), memory)
    return memory.getvalue()


def other_number(data: bytes, chance: random.Random) -> bytes:
    """Put another number in the place of one: huge, negative, infinite, or nearly the same."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data)) if data[:2] != b"PK" else []
    if not found:
        return flip(data, chance)
    place = chance.choice(found)
    new = chance.choice(
        (b"1" + b"0" * 400, b"-" + place[0], b"-7", b"1e999", b"NaN", b"18446744073709551616", _one_digit(place[0], chance))
    )
    return data[: place.start()] + new + data[place.end() :]


def _one_digit(number: bytes, chance: random.Random) -> bytes:
    at = chance.choice([index for index, digit in enumerate(number) if chr(digit).isdecimal()])
    return number[:at] + str((int(chr(number[at])) + chance.randint(1, 9)) % 10).encode() + number[at + 1 :]


def lose_line(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    del lines[chance.randrange(len(lines))]
    return b"\n".join(lines)


def swap_lines(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


IN_PLACE: tuple[Kind, ...] = (
    *(
        flip,
        flip,
        truncate,
        extend,
        empty,
        zero_block,
        swap_blocks,
        duplicate_block,
        lose_block,
        bad_utf8,
        wrong_shape,
        other_number,
    ),
    *(other_number, lose_line, swap_lines),
)
KINDS = (*(kind.__name__ for kind in dict.fromkeys(IN_PLACE)), "delete", "other_file", "older", "folder")


def damage(path: Path, chance: random.Random, *, others: Sequence[Path], older: Sequence[Path]) -> str | None:
    """Damage one file; return how, or None if it is as it was.

    Args:
        others: files whose content may stand there instead.
        older: files with what it held at other times.
    """
    before = path.read_bytes()
    choice = chance.random()
    if choice < 0.06:
        path.unlink()
        return "delete"
    if choice < 0.075:
        path.unlink()
        path.mkdir()
        return "folder"
    if choice < 0.25 and (sources := older if choice < 0.16 else others):
        after, name = chance.choice(list(sources)).read_bytes(), "older" if choice < 0.16 else "other_file"
    else:
        kind = chance.choice(IN_PLACE if before else (extend, bad_utf8, wrong_shape))
        after, name = kind(before, chance), kind.__name__
    if after == before:
        return None
    path.unlink()  # further names of the same file stay as they are
    path.write_bytes(after)
    return name


def renew(source: Path, target: Path) -> None:
    """Make the target folder what the source is."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
