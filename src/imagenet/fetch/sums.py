"""The sums that services tell of their files: md5, sha256, and S3's own of a file that was sent in parts."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from src.imagenet.fetch.remote import Remote, md5

_BLOCK = 1 << 20


def etag_of_parts(digests: Mapping[int, str]) -> str:
    """Return S3's ETag of a file sent in these parts: the md5 of the md5s one behind the other, a dash, and their number."""
    joined = md5(b"".join(bytes.fromhex(digests[number]) for number in range(len(digests))))
    return f"{joined.hexdigest()}-{len(digests)}"


def is_right(path: Path, remote: Remote, digests: Mapping[int, str]) -> bool:
    """Return whether a file that was downloaded in these parts has the sum that its service tells, or that it tells none.

    Args:
        path: of the file; read only where the parts' md5s do not tell.
        remote: what it should be.
        digests: md5 of every part.
    """
    match remote.sum:
        case "none":
            return True
        case "etag":
            right = etag_of_parts(digests) == remote.expected
        case "md5" if len(digests) == 1:
            right = digests[0] == remote.expected
        case "md5" | "sha256":
            right = has_sum(path, remote)
    return right or (remote.doubt is not None and remote.doubt())


def has_sum(path: Path, remote: Remote) -> bool:
    """Read a file, and return whether it has the sum that its service tells (there must be one).

    Raises:
        OSError: it cannot be read.
    """
    if remote.sum == "etag":
        return etag_of_parts(dict(enumerate(_part_digests(path, remote.part_bytes)))) == remote.expected
    with path.open("rb") as file:
        kind = "sha256" if remote.sum == "sha256" else md5
        return hashlib.file_digest(file, kind).hexdigest() == remote.expected


def _part_digests(path: Path, part_bytes: int) -> Iterator[str]:
    with path.open("rb") as file:
        while True:
            digest, left = md5(), part_bytes
            while left and (block := file.read(min(_BLOCK, left))):
                digest.update(block)
                left -= len(block)
            if left == part_bytes:
                return
            yield digest.hexdigest()
            if left:
                return
