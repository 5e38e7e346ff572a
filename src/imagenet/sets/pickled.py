"""The pickles of CIFAR-10's Python version, read without unpickling: nothing in them is ever called or imported.

A pickle is a program for a small stack machine; Python's own runs whatever function it names. Here only the instructions that make
dicts, lists, tuples, strings, bytes, numbers and numpy arrays of bytes are known, the last as plain values; any other is refused.
Format: the standard library's pickletools, whose parser is used, and numpy's ndarray.__reduce__.
"""

import io
import math
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST_INSTRUCTIONS = 1_000_000  # a batch of CIFAR-10 has about 50,000
_ARRAY = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_KNOWN = (*_ARRAY, "numpy ndarray", "numpy dtype")
_NUMBERS = ("BININT", "BININT1", "BININT2", "INT", "LONG1")
_TEXTS = ("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES")
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


class _Global(NamedTuple):
    """A name that the pickle asks to import; only looked at."""

    name: str


class _Unfinished:
    """An array, or its type: what was said of it."""

    def __init__(self, what: str, said: object) -> None:
        self.what, self.said, self.state = what, said, None


def read_pickle(data: bytes) -> object:
    """Return what a pickle describes, its arrays as uint8 arrays, read-only.

    Raises:
        ValueError: it holds an instruction, a name or a value that CIFAR-10's files do not, or is damaged. The message says which.
    """
    machine = _Machine()
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
            if count == _MOST_INSTRUCTIONS:
                raise ValueError("holds more instructions than a batch of CIFAR-10")
            machine.run(instruction.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise ValueError("is no sound pickle") from error
    return _finished(machine.stack[-1]) if machine.stack else None


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _NUMBERS or name in _TEXTS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(self._above_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._above_mark()
            _of(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._above_mark()
            _of(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_known(argument))
        elif name == "REDUCE":
            said = stack.pop()
            stack.append(_Unfinished(_of(stack.pop(), _Global).name, said))
        elif name == "BUILD":
            state = stack.pop()
            _of(stack[-1], _Unfinished).state = state
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"holds the instruction {name}, which no file of CIFAR-10 needs")

    def _above_mark(self) -> list[Any]:
        at = self._marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _known(name: str) -> _Global:
    if name not in _KNOWN:
        raise ValueError(
            f"asks for {name.replace(' ', '.')}, which no file of CIFAR-10 needs: it may be an attack, and was not run"
        )
    return _Global(name)


def _finished(value: object) -> object:
    """Make arrays of what was said of them, in the values of a dict."""
    if isinstance(value, dict):
        return {key: _array(item) if isinstance(item, _Unfinished) else item for key, item in value.items()}
    return value


def _array(value: _Unfinished) -> NDArray[np.uint8]:
    """Follow numpy's __setstate__: (version, shape, dtype, Fortran order, bytes)."""
    if value.what not in _ARRAY or not isinstance(value.state, tuple) or len(value.state) != 5:
        raise ValueError("holds something else than an array of bytes")
    _, shape, kind, fortran, data = value.state
    of_bytes = isinstance(kind, _Unfinished) and kind.what == "numpy dtype" and isinstance(kind.said, tuple)
    if not of_bytes or kind.said[:1] not in (("u1",), ("uint8",)) or fortran is not False:
        raise ValueError("holds an array of something else than bytes, row by row")
    # Python 2's strings are text to the parser, a character a byte.
    raw = data.encode("latin-1") if isinstance(data, str) else _of(data, bytes)
    lengths = [_of(length, int) for length in _of(shape, tuple)]
    if min(lengths, default=-1) < 0 or math.prod(lengths) != len(raw):
        raise ValueError(f"holds {len(raw):,} bytes for an array of the shape {shape}")
    return np.frombuffer(raw, np.uint8).reshape(lengths)
