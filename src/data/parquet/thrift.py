"""Thrift's compact protocol, as far as a Parquet page header needs it: structs to dictionaries, every byte bounds-checked.

Format: Apache Thrift, doc/specs/thrift-compact-protocol.md.
"""

import struct
from typing import Any

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_DEEPEST = 16

Fields = dict[int, Any]


class TooShortError(ValueError):
    """The struct goes on behind the bytes that were given."""


def read_struct(data: bytes) -> tuple[Fields, int]:
    """Read one struct from the start of these bytes.

    Returns:
        Field number to value (bool, int, float, bytes, list, or a struct's fields), and how many bytes it took.

    Raises:
        TooShortError: more bytes are needed.
        ValueError: it is no struct.
    """
    reader = _Reader(data)
    return reader.struct(0), reader.at


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, depth: int) -> Fields:
        if depth > _DEEPEST:
            raise ValueError("structs within structs within structs")
        fields: Fields = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = self._value(head & 0x0F, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind in (_I16, _I32, _I64):
            return self._zigzag()
        if kind == _DOUBLE:
            return struct.unpack("<d", self._take(8))[0]
        if kind == _BINARY:
            return self._take(self._varint())
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError(f"a field of the unknown type {kind}")  # a map stands in no page header

    def _list(self, depth: int) -> list[Any]:
        if depth > _DEEPEST:
            raise ValueError("lists within lists within lists")
        head = self._byte()
        count = head >> 4 if head >> 4 != 15 else self._varint()
        kind = head & 0x0F
        if kind in (_TRUE, _FALSE):
            return [self._byte() == 1 for _ in range(count)]
        return [self._value(kind, depth + 1) for _ in range(count)]  # each takes a byte at least: it ends with the data

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _byte(self) -> int:
        if self.at >= len(self._data):
            raise TooShortError
        self.at += 1
        return self._data[self.at - 1]

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise TooShortError
        self.at += count
        return self._data[self.at - count : self.at]
