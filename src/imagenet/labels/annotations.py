"""Annotations/CLS-LOC/val/*.xml: an image's boxes, and with them its class: <annotation><object><name>n01751748</name>.

Read by expat, and refused is what such a file never has: a document type, and with it entities that grow to gigabytes or name
other files (CWE-776, CWE-611).
"""

import os
from pathlib import Path
from xml.parsers import expat

from src.batch import DataError
from src.imagenet.names import WNID

MOST_XML = 2**20  # bytes of one file; the largest published have a few kB
_ENTRY = ["annotation", "object", "name"]


def read_annotations(folder: Path) -> dict[str, str]:
    """Return stem of the validation image to wnid, of all files in a folder.

    Raises:
        DataError: naming the first file that tells no class, or two.
        OSError: one cannot be read.
    """
    labels = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith("ILSVRC2012_val_") and name.endswith(".xml"):
            path = f"{folder}/{name}"
            with open(path, "rb") as file:
                labels[name[: -len(".xml")]] = class_of(file.read(MOST_XML + 1), path)
    return labels


def class_of(data: bytes, where: str) -> str:
    """Return the wnid that one annotation names.

    Args:
        data: the file.
        where: its name, for messages.

    Raises:
        DataError: it tells no class, or two, or is no such file.
    """
    if len(data) > MOST_XML:
        raise DataError(f"{where} has more than {MOST_XML:,} bytes: that is no annotation of an image.")
    reader = _Reader()
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DataError(f"{where} cannot be read as XML ({error}). Get it again.") from error
    except _RefusedError as error:
        raise DataError(f"{where} holds a document type, which annotations never have: it is refused. Get it again.") from error
    names = reader.names
    if len(set(names)) != 1 or not WNID.fullmatch(names[0]):
        told = f"names {', '.join(map(repr, sorted(set(names))[:3]))}" if names else "names no object"
        raise DataError(f"{where} {told}: one class, such as n01440764, was expected. Get it again.")
    return names[0]


class _RefusedError(Exception):
    pass


class _Reader:
    """The text of every annotation/object/name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._path: list[str] = []
        self.parser = expat.ParserCreate(
            "utf-8"
        )  # whatever the file says: another encoding could hide a document type from a filter
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._refuse

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        if self._path == _ENTRY:
            self.names.append("")

    def _end(self, name: str) -> None:
        self._path.pop()

    def _text(self, text: str) -> None:
        if self._path == _ENTRY:
            self.names[-1] += text.strip()

    def _refuse(self, *about: object) -> None:
        raise _RefusedError
