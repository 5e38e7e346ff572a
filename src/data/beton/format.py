"""Where things lie in a .beton of version 2 (FFCV 1.0's types.py, writer.py and memory_allocator.py): parse, check, build.

    0                   header             24 B
    24                  descriptors        1041 B a field
    24 + 1041 F         metadata           one row a sample
    next page           data pages         a sample never straddles a page
    alloc_table_ptr     allocation table   24 B a row, to the end of the file

Little-endian. There are no checksums in it: what can be noticed is what contradicts itself.
"""

from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from src.batch import DataError

VERSION = 2
HEADER = np.dtype(
    [("version", "<u2"), ("num_fields", "<u2"), ("page_size", "<u4"), ("num_samples", "<u8"), ("alloc_table_ptr", "<u8")],
    align=True,
)
DESCRIPTOR = np.dtype([("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)])
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
JPEG, RAW = 0, 1
MIN_PAGE, MAX_PAGE = 2**21, 2**31
INT_ID, IMAGE_ID = 1, 2
_CUSTOM = 255
_BYTES = np.dtype([("ptr", "<u8"), ("size", "<u8")])
_TYPES = {
    0: ("float", np.dtype("<f8")),
    INT_ID: ("int", np.dtype("<i8")),
    IMAGE_ID: ("RGB image", IMAGE),
    3: ("bytes", _BYTES),
    4: ("array", np.dtype("<u8")),
    5: ("JSON", _BYTES),
    6: ("tensor", np.dtype("<u8")),
}


class Field(NamedTuple):
    """One column of a sample."""

    name: str
    type_id: int

    def __str__(self) -> str:
        return f"{self.name} ({_TYPES[self.type_id][0] if self.type_id in _TYPES else f'type {self.type_id}'})"


class Layout(NamedTuple):
    """What the header and the descriptors say.

    Attributes:
        fields: in the order of the file.
        page_size: bytes.
        num_samples: at least 1.
        table_at: where the allocation table begins, in bytes from the file's start.
        size: of the file, in bytes.
    """

    fields: tuple[Field, ...]
    page_size: int
    num_samples: int
    table_at: int
    size: int

    @property
    def row(self) -> np.dtype[Any]:
        """One sample's metadata, fields f0, f1, ...: a C struct, as FFCV makes it."""
        return np.dtype([("", _TYPES[field.type_id][1]) for field in self.fields], align=True)

    @property
    def metadata_at(self) -> int:
        """Where the metadata begins."""
        return HEADER.itemsize + DESCRIPTOR.itemsize * len(self.fields)

    @property
    def metadata_end(self) -> int:
        """Where it ends."""
        return self.metadata_at + self.num_samples * self.row.itemsize

    @property
    def data_at(self) -> int:
        """Where a writer begins the first page."""
        return -(-self.metadata_end // self.page_size) * self.page_size


def head_size(header: bytes | bytearray) -> int:
    """Return how many bytes header and descriptors take, by the first 24 bytes, which may be less and anything."""
    whole = len(header) >= HEADER.itemsize
    return HEADER.itemsize + (DESCRIPTOR.itemsize * int(np.frombuffer(header, HEADER, 1)["num_fields"][0]) if whole else 0)


def parse_layout(head: bytes | bytearray, size: int) -> Layout:
    """Read the header and the descriptors.

    Args:
        head: the file's first bytes, up to `head_size`, or to its end.
        size: of the file, in bytes.

    Raises:
        DataError: what is wrong, without the file's name.
    """
    if len(head) < HEADER.itemsize:
        refuse(f"is only {len(head)} bytes long, shorter than the header of a .beton ({HEADER.itemsize})")
    version, num_fields, page_size, num_samples, table_at = np.frombuffer(head, HEADER, 1)[0].item()
    if version != VERSION:
        refuse(f"is no .beton that can be read: it begins with {head[:4].hex(' ')}, not with 02 00 (FFCV's version 2)")
    if table_at == 0:
        refuse("is unfinished: its alloc_table_ptr is 0, so the writer did not finish")
    if not MIN_PAGE <= page_size <= MAX_PAGE or page_size & (page_size - 1):
        refuse(f"is damaged: its pages are {page_size:,} bytes, which is no power of two from {MIN_PAGE:,} to {MAX_PAGE:,}")
    if num_fields == 0 or num_samples == 0:
        refuse(f"holds {num_fields} fields and {num_samples:,} samples: nothing to read")
    end = HEADER.itemsize + num_fields * DESCRIPTOR.itemsize
    if end > len(head):
        refuse(f"is truncated or damaged: the descriptors of its {num_fields} fields end at byte {end:,}, the file at {size:,}")
    layout = Layout(_fields(head, num_fields), page_size, num_samples, table_at, size)
    if layout.metadata_end > size:
        refuse(f"is truncated or damaged: the metadata of its {num_samples:,} samples ends at byte {layout.metadata_end:,}, "
               f"the file at {size:,}")  # fmt: skip
    if table_at > size:
        refuse(f"is truncated: its allocation table begins at byte {table_at:,}, but the file ends at {size:,}")
    if table_at < layout.metadata_end:
        refuse(f"is damaged: its allocation table (from byte {table_at:,}) overlaps its metadata (up to {layout.metadata_end:,})")
    if (size - table_at) % ALLOCATION.itemsize:
        refuse(f"is truncated or damaged: its allocation table is {size - table_at:,} bytes, "
               f"not a multiple of {ALLOCATION.itemsize}")  # fmt: skip
    return layout


def build_head(layout: Layout) -> bytes:
    """Make the header and the descriptors."""
    header = np.array((VERSION, len(layout.fields), layout.page_size, layout.num_samples, layout.table_at), HEADER)
    descriptors = np.zeros(len(layout.fields), DESCRIPTOR)
    for descriptor, field in zip(descriptors, layout.fields, strict=True):
        name = field.name.encode("ascii")
        descriptor["type_id"] = field.type_id
        descriptor["name"][: len(name)] = np.frombuffer(name, np.uint8)
    return header.tobytes() + descriptors.tobytes()


def columns(layout: Layout) -> tuple[str, str]:
    """Return the names, within a row, of the image's and of the label's column.

    Raises:
        DataError: unless exactly one field is an RGB image and at least one is an int, whose first is the label.
    """
    images = [f"f{at}" for at, field in enumerate(layout.fields) if field.type_id == IMAGE_ID]
    ints = [f"f{at}" for at, field in enumerate(layout.fields) if field.type_id == INT_ID]
    if len(images) != 1 or not ints:
        listed = ", ".join(map(str, layout.fields))
        refuse(f"has the fields {listed}. Supported are files with exactly one RGB image and an int, the label "
               "(of several ints the first)")  # fmt: skip
    return images[0], ints[0]


def locate(layout: Layout, rows: NDArray[Any], table: NDArray[Any], column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find every image's bytes, vectorised, and check everything that must agree.

    Args:
        layout: of the file.
        rows: metadata (n,), of dtype layout.row.
        table: allocations (m,), of dtype ALLOCATION, in any order. With m = 0 an image reaches to whatever begins next, or to its
            page's end.
        column: the image's.

    Returns:
        int64 (n,) first byte in the file, and int64 (n,) bytes; 0 bytes where the image has no pixels.

    Raises:
        DataError: naming the first offender, and how many there are.
    """
    image = rows[column]
    pointers = np.ascontiguousarray(image["data_ptr"])
    modes, pixels = image["mode"], image["width"].astype(np.int64) * image["height"]
    data = f"the data region ({layout.metadata_end:,} to {layout.table_at:,})"
    _refuse_samples(modes > RAW, "are neither JPEG nor raw")
    _refuse_samples((pointers < layout.metadata_end) | (pointers > layout.table_at), f"point outside {data}")
    starts = pointers.astype(np.int64)
    if len(table):
        allocated = _checked(layout, table, data)
        sizes, owners = _joined(starts, *allocated)
        _refuse_samples((owners < 0) & (pixels > 0), "start in no allocation")
        _refuse_samples((owners != np.arange(len(rows))) & (pixels > 0), "start in the allocation of another sample")
    else:
        sizes = _gaps(layout, rows, starts)
        raw = modes == RAW
        sizes[raw] = np.minimum(sizes, pixels * 3)[raw]
    sizes[pixels == 0] = 0
    _refuse_samples((modes == RAW) & (sizes != pixels * 3), "are raw, but their size is not width * height * 3")
    return starts, sizes


def refuse(text: str) -> NoReturn:
    """Raise what the opener completes with the file's name and the remedy."""
    raise DataError(text)


def _fields(head: bytes | bytearray, count: int) -> tuple[Field, ...]:
    descriptors = np.frombuffer(head, DESCRIPTOR, count, HEADER.itemsize)
    names = [bytes(name).split(b"\0")[0].decode("ascii", "backslashreplace") for name in descriptors["name"]]
    fields = tuple(Field(name, type_id) for name, type_id in zip(names, descriptors["type_id"].tolist(), strict=True))
    unknown = [field for field in fields if field.type_id not in _TYPES]
    if unknown:
        what = "custom, and the file does not tell how long they are" if unknown[0].type_id == _CUSTOM else "unknown"
        refuse(f"has the fields {', '.join(map(str, fields))}, of which {', '.join(field.name for field in unknown)} are {what}")
    return fields


def _checked(layout: Layout, table: NDArray[Any], data: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return start, size and owner of every allocation that is not empty, by start, none overlapping another."""
    table = table[table["size"] > 0]
    starts, sizes, owners = (np.ascontiguousarray(table[name]) for name in ("ptr", "size", "sample_id"))
    outside = (starts < layout.metadata_end) | (starts > layout.table_at) | (sizes > layout.table_at)
    outside |= sizes > layout.table_at - np.minimum(starts, layout.table_at)
    _refuse_rows(outside, f"reach outside {data}")
    _refuse_rows(owners >= layout.num_samples, f"belong to no sample (there are {layout.num_samples:,})")
    _refuse_rows(starts // layout.page_size != (starts + sizes - np.uint64(1)) // layout.page_size, "straddle two pages")
    order = np.argsort(starts, kind="stable")
    ordered = tuple(part[order].astype(np.int64) for part in (starts, sizes, owners))
    _refuse_rows(ordered[0][1:] < (ordered[0] + ordered[1])[:-1], "overlap the next one")
    return ordered[0], ordered[1], ordered[2]


def _joined(
    images: NDArray[np.int64], starts: NDArray[np.int64], sizes: NDArray[np.int64], owners: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return size and owner of the allocation at each image's first byte; owner -1 where there is none."""
    if not len(starts):
        return np.zeros_like(images), np.full_like(images, -1)
    at = np.minimum(np.searchsorted(starts, images), len(starts) - 1)
    found = starts[at] == images
    return np.where(found, sizes[at], 0), np.where(found, owners[at], -1)


def _gaps(layout: Layout, rows: NDArray[Any], images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bytes up to whatever begins next: another image, another field's data, a page, the table."""
    pointers = [images]
    for at, field in enumerate(layout.fields):
        if _TYPES[field.type_id][1] == _BYTES or field.type_id in (4, 6):
            other = rows[f"f{at}"]["ptr"] if _TYPES[field.type_id][1] == _BYTES else rows[f"f{at}"]
            pointers.append(np.minimum(other, layout.table_at).astype(np.int64))
    known = np.sort(images)
    if (known[1:] == known[:-1]).any():
        refuse("is damaged: two samples start at the same byte")
    marks = np.append(np.unique(np.concatenate(pointers)), layout.table_at)
    following = marks[np.searchsorted(marks[:-1], images, side="right")]
    page_end: NDArray[np.int64] = (images // layout.page_size + 1) * layout.page_size
    return np.asarray(np.minimum(following, page_end) - images, np.int64)


def _refuse_samples(wrong: NDArray[np.bool_], text: str) -> None:
    if wrong.any():
        refuse(f"is damaged: {np.count_nonzero(wrong):,} samples {text} (the first is #{int(wrong.argmax())})")


def _refuse_rows(wrong: NDArray[np.bool_], text: str) -> None:
    if wrong.any():
        refuse(f"is damaged: {np.count_nonzero(wrong):,} rows of its allocation table {text}")
