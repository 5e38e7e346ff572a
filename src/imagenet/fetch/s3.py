"""S3: everything below s3://bucket/prefix, by boto3; credentials and region come from the SDK's own chain, never from arguments."""

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from loguru import logger

from src.config import ConfigError, Problem
from src.imagenet.fetch.credentials import installed_or_explain
from src.imagenet.fetch.notes import NOTES
from src.imagenet.fetch.remote import STAGE, Offer, Read, Remote, SumKind
from src.imagenet.fetch.s3_errors import explained

_PART_BYTES = 32 * 2**20
_MOST_PART_BYTES = 512 * 2**20
_CHUNK = 1 << 16
_FROZEN = ("GLACIER", "DEEP_ARCHIVE")


class Place(NamedTuple):
    """A bucket, and the prefix of its keys: "" or ending in a slash, but for the key of a single object."""

    bucket: str
    prefix: str

    @property
    def address(self) -> str:
        """As people type it."""
        return f"s3://{self.bucket}/{self.prefix}"


def place_of(origin: str | None) -> Place:
    """Read s3://bucket/prefix.

    Raises:
        ConfigError: it is none.
    """
    text = origin or ""
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket or any(character in bucket for character in "@:?#"):
        fix = "name the bucket: origin=s3://<bucket>/<prefix>. Credentials come from the environment or ~/.aws, never from here."
        raise ConfigError(STAGE, [Problem("origin", origin, fix)])
    return Place(bucket, prefix)


def offer(origin: str | None, folder: Path) -> Offer:
    """List the objects below the prefix, into a temporary file: there may be a million.

    Raises:
        ConfigError: boto3 is missing, the bucket refuses or is not there, a key could not be a file below the folder.
    """
    installed_or_explain("boto3", "aws")
    place = place_of(origin)
    client = _client()
    bucket = _Bucket(client, place)
    listing = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the offer)
    try:
        count, size = _list(client, place, listing)
        if not count:
            raise ConfigError(STAGE, [Problem("origin", origin, "nothing is there. Correct the prefix (capitals count).")])
    except BaseException:
        listing.close()
        raise
    listing.flush()

    def each() -> Iterator[Remote]:
        with open(f"/proc/self/fd/{listing.fileno()}", "rb") as lines:  # opened anew: a place of its own for every walk
            for line in lines:
                yield bucket.remote(*json.loads(line))

    return Offer(place.address, count, size, each, listing.close)


def _list(client: Any, place: Place, listing: IO[bytes]) -> tuple[int, int]:
    """Write a line an object. Returns the number of objects, and of their bytes.

    Raises:
        ConfigError: the bucket does not tell, or an object could not be a file below the folder.
    """
    count = size = 0
    problems: list[Problem] = []
    with explained(place.address, first=True):
        for entry in _objects(client, place):
            name = _name_of(entry["Key"], place)
            fault = _fault_of(name, entry)
            if fault is not None:
                problems.append(Problem(f"s3://{place.bucket}/{entry['Key']}", None, fault))
            modified = int(entry["LastModified"].timestamp())
            listing.write(json.dumps([name, entry["Key"], entry["Size"], entry["ETag"].strip('"'), modified]).encode() + b"\n")
            count, size = count + 1, size + entry["Size"]
    if problems:
        raise ConfigError(STAGE, [*problems[:5], *_more(problems)])
    return count, size


def _client() -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.session.Session()
        unsigned = session.get_credentials() is None
        if unsigned:
            logger.info("no AWS credentials were found: asking as anyone may, which only public buckets answer")
        settings: dict[str, Any] = {"signature_version": UNSIGNED} if unsigned else {}
        config = Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 2}, max_pool_connections=64, **settings)
        return session.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        fix = f"cannot be used ({type(error).__name__}). See AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL and ~/.aws/config."
        raise ConfigError(STAGE, [Problem("the AWS settings", None, fix)]) from None


def _objects(client: Any, place: Place) -> Iterator[dict[str, Any]]:
    """Yield what lies below the prefix as a folder; or the one object of that key."""
    prefix = place.prefix if not place.prefix or place.prefix.endswith("/") else f"{place.prefix}/"
    for wanted in dict.fromkeys((prefix, place.prefix)):
        found = False
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=wanted):
            for entry in page.get("Contents", ()):
                if entry["Key"].endswith("/") and entry["Size"] == 0:
                    continue  # how consoles show an empty folder
                if wanted == prefix or entry["Key"] == place.prefix:
                    found = True
                    yield entry
        if found:
            return


def _name_of(key: str, place: Place) -> str:
    if key == place.prefix:
        return key.rpartition("/")[2]
    prefix = place.prefix if not place.prefix or place.prefix.endswith("/") else f"{place.prefix}/"
    return key[len(prefix) :]


def _fault_of(name: str, entry: dict[str, Any]) -> str | None:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name or parts[0] == NOTES or len(name.encode()) > 4000:
        return "is no name that a file below the folder could have. Choose another prefix, or rename the object."
    if any(len(part.encode()) > 255 for part in parts):
        return "has a part longer than 255 bytes, which no file system takes. Rename the object."
    if entry.get("StorageClass") in _FROZEN:
        return f"lies in {entry['StorageClass']}. Restore it first (aws s3api restore-object), and wait until that is done."
    return None


def _more(problems: list[Problem]) -> list[Problem]:
    return [Problem("more of these", None, f"{len(problems) - 5:,} other objects.")] if len(problems) > 5 else []


class _Bucket:
    """Reads objects; remembers what it asked of those that were sent in parts."""

    def __init__(self, client: Any, place: Place) -> None:
        self._client, self._place = client, place
        self._part_bytes: dict[str, int] = {}

    def remote(self, name: str, key: str, size: int, etag: str, modified: int) -> Remote:
        kind: SumKind = "none"
        part_bytes = _PART_BYTES
        if "-" in etag:
            told = self._part_bytes_of(key, etag)
            if told and -(-size // told) == int(etag.rpartition("-")[2]):
                kind, part_bytes = "etag", told
        elif len(etag) == 32:
            kind = "md5"
        doubt = partial(self._is_otherwise_encrypted, key)
        return Remote(name, size, etag, self._reader(key, etag), kind, etag, part_bytes, modified, doubt)

    def _part_bytes_of(self, key: str, etag: str) -> int:
        """Return the size of an object's parts, 0 where it cannot be had: the size of the first one."""
        if key not in self._part_bytes:
            with explained(self._place.address):
                head = self._client.head_object(Bucket=self._place.bucket, Key=key, PartNumber=1)
            size = head["ContentLength"] if head.get("PartsCount", 1) > 1 or etag.endswith("-1") else 0
            self._part_bytes[key] = size if size <= _MOST_PART_BYTES else 0
        return self._part_bytes[key]

    def _is_otherwise_encrypted(self, key: str) -> bool:
        """Return whether an object's ETag is no md5: it is encrypted with a key of KMS or of the customer (S3 API, Object)."""
        with explained(self._place.address):
            head = self._client.head_object(Bucket=self._place.bucket, Key=key)
        return str(head.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in head

    def _reader(self, key: str, etag: str) -> Read:
        def read(start: int, stop: int) -> Iterator[bytes]:
            # IfMatch: an object that was replaced since the listing is noticed, not mixed with the old one
            with explained(self._place.address):
                answer = self._client.get_object(
                    Bucket=self._place.bucket, Key=key, Range=f"bytes={start}-{stop - 1}", IfMatch=f'"{etag}"'
                )
                yield from answer["Body"].iter_chunks(_CHUNK)

        return read
