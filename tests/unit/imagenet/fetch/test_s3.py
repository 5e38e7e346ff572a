"""S3 by the real boto3 against moto's server: parts, ETags, what is there already, names, what is replaced meanwhile."""

import io
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from moto.server import ThreadedMotoServer

from src.config import ConfigError
from src.config.prepare import load_prepare
from src.imagenet.fetch import s3
from src.imagenet.fetch.run import describe, fetch
from tests.unit.imagenet.fetch.stand_ins import everything_below, noise

SECRET = "5ec2e75ec2e7/aws"
MIB = 1 << 20
BIG = noise(13 * MIB)
# botocore's own, of Python versions to come; moto's server threads
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An account with an empty bucket called pictures."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTING")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    found = boto3.client("s3")
    if any(bucket["Name"] == "pictures" for bucket in found.list_buckets()["Buckets"]):
        for entry in found.list_objects_v2(Bucket="pictures").get("Contents", ()):
            found.delete_object(Bucket="pictures", Key=entry["Key"])
    else:
        found.create_bucket(Bucket="pictures")
    return found


def put(client: Any, files: dict[str, bytes]) -> None:
    for key, content in files.items():
        client.put_object(Bucket="pictures", Key=key, Body=content)


def put_in_parts(client: Any, key: str, content: bytes) -> None:
    parts = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    client.upload_fileobj(io.BytesIO(content), "pictures", key, Config=parts)


def get(folder: Path, origin: str = "s3://pictures/imagenet", *more: str) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    config = load_prepare(["fetch=s3", f"origin={origin}", "source=unused", *more])
    fetch(config, folder, lambda done, total: told.append((done, total)))
    return told


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ranges that are read from now on."""
    ranges: list[str] = []
    plain = s3._Bucket._reader

    def noting(self: Any, key: str, etag: str) -> Any:
        read = plain(self, key, etag)

        def noted(start: int, stop: int) -> Iterator[bytes]:
            ranges.append(f"{key} {start // MIB}")
            return read(start, stop)

        return noted

    monkeypatch.setattr(s3._Bucket, "_reader", noting)
    return ranges


FILES = {"imagenet/train/n01440764/a.JPEG": b"hello", "imagenet/empty": b"", "imagenet/folder/": b"", "imagenet-other/x": b"no"}


def test_everything_below_the_prefix_arrives_and_only_that(client: Any, tmp_path: Path, said: list[str]) -> None:
    put(client, FILES)
    put_in_parts(client, "imagenet/big.tar", BIG)
    told = get(tmp_path / "out")
    assert (tmp_path / "out/big.tar").read_bytes() == BIG
    assert (tmp_path / "out/train/n01440764/a.JPEG").read_bytes() == b"hello" and (tmp_path / "out/empty").read_bytes() == b""
    assert sorted(os.listdir(tmp_path / "out")) == [".fetch", "big.tar", "empty", "train"]
    assert told[-1] == (len(BIG) + 5, len(BIG) + 5)
    assert SECRET.encode() not in everything_below(tmp_path) + "\n".join(said).encode()


def test_a_second_start_reads_only_what_is_new(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(client, FILES)
    put_in_parts(client, "imagenet/big.tar", BIG)
    get(tmp_path / "out")
    put(client, {"imagenet/new": b"new"})
    ranges = reads(monkeypatch)
    get(tmp_path / "out")
    assert ranges == ["imagenet/new 0"] and (tmp_path / "out/new").read_bytes() == b"new"


def test_what_another_tool_copied_is_known_by_its_etag(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(client, FILES)
    put_in_parts(client, "imagenet/big.tar", BIG)
    out = tmp_path / "out"
    (out / "train/n01440764").mkdir(parents=True)
    (out / "big.tar").write_bytes(BIG)
    (out / "train/n01440764/a.JPEG").write_bytes(b"hellO")  # of the right size, and wrong
    for path in (out / "big.tar", out / "train/n01440764/a.JPEG"):
        os.utime(path, (1, 1))
    ranges = reads(monkeypatch)
    get(out)
    assert ranges == ["imagenet/train/n01440764/a.JPEG 0"]
    assert (out / "train/n01440764/a.JPEG").read_bytes() == b"hello"


def test_a_broken_download_continues_with_the_parts_that_are_missing(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_parts(client, "imagenet/big.tar", BIG)
    plain = s3._Bucket._reader

    def breaking(self: Any, key: str, etag: str) -> Any:
        read = plain(self, key, etag)

        def broken(start: int, stop: int) -> Iterator[bytes]:
            if start >= 10 * MIB:
                raise KeyboardInterrupt
            return read(start, stop)

        return broken

    with monkeypatch.context() as patch:
        patch.setattr(s3._Bucket, "_reader", breaking)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path / "out", "s3://pictures/imagenet", "workers=1")
    assert not (tmp_path / "out/big.tar").exists()
    ranges = reads(monkeypatch)
    get(tmp_path / "out")
    assert ranges == ["imagenet/big.tar 10"] and (tmp_path / "out/big.tar").read_bytes() == BIG


def test_an_object_that_is_replaced_meanwhile_is_never_mixed(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_parts(client, "imagenet/big.tar", BIG)
    newer = noise(len(BIG), 1)
    plain = s3._Bucket._reader

    def replacing(self: Any, key: str, etag: str) -> Any:
        read = plain(self, key, etag)

        def replaced(start: int, stop: int) -> Iterator[bytes]:
            if start == 5 * MIB:
                put_in_parts(client, key, newer)
            return read(start, stop)

        return replaced

    with monkeypatch.context() as patch:
        patch.setattr(s3._Bucket, "_reader", replacing)
        with pytest.raises(ConfigError, match=r"big\.tar: was replaced or deleted in the bucket"):
            get(tmp_path / "out", "s3://pictures/imagenet", "workers=1")
    get(tmp_path / "out")
    assert (tmp_path / "out/big.tar").read_bytes() == newer


def test_an_etag_that_is_no_md5_because_of_kms_is_not_held_against_an_object(client: Any, tmp_path: Path) -> None:
    client.put_object(Bucket="pictures", Key="imagenet/kms", Body=b"secret picture", ServerSideEncryption="aws:kms")
    get(tmp_path / "out")
    assert (tmp_path / "out/kms").read_bytes() == b"secret picture"
    bucket = s3._Bucket(client, s3.Place("pictures", "imagenet"))
    client.put_object(Bucket="pictures", Key="imagenet/plain", Body=b"x")
    assert bucket._is_otherwise_encrypted("imagenet/kms") and not bucket._is_otherwise_encrypted("imagenet/plain")


@pytest.mark.parametrize("key", ["imagenet/../../escape", "imagenet//x", "imagenet/.fetch/lock", f"imagenet/{'x' * 300}"])
def test_keys_that_are_no_names_below_the_folder_are_refused_before_anything(client: Any, tmp_path: Path, key: str) -> None:
    put(client, {"imagenet/good": b"good"})
    entry = {"Key": key, "Size": 1}
    assert s3._fault_of(s3._name_of(key, s3.Place("pictures", "imagenet")), entry) is not None
    put(client, {key: b"bad"})
    if any(found["Key"] == key for found in client.list_objects_v2(Bucket="pictures")["Contents"]):
        with pytest.raises(ConfigError, match="s3://pictures/imagenet/"):
            get(tmp_path / "out")
        assert not (tmp_path / "out/good").exists() and not (tmp_path / "escape").exists()


def test_what_lies_in_a_glacier_is_told_before_anything_is_read() -> None:
    assert "Restore it first" in str(s3._fault_of("a", {"StorageClass": "GLACIER"}))
    assert s3._fault_of("a", {"StorageClass": "STANDARD"}) is None


@pytest.mark.parametrize("origin", ["pictures/imagenet", "s3://", "s3://key:secret@pictures/x", "https://pictures"])
def test_what_is_no_address_of_a_bucket_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ConfigError, match=r"origin=s3://<bucket>/<prefix>"):
        s3.place_of(origin)


def test_a_bucket_or_a_prefix_that_is_not_there_is_told(client: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such bucket"):
        get(tmp_path / "out", "s3://no-such-bucket-here/x")
    with pytest.raises(ConfigError, match="nothing is there"):
        get(tmp_path / "out", "s3://pictures/nothing")


def test_a_single_object_can_be_named(client: Any, tmp_path: Path) -> None:
    put(client, {"imagenet/a.tar": b"one", "imagenet/a.tar.md5": b"two"})
    get(tmp_path / "out", "s3://pictures/imagenet/a.tar")
    assert (tmp_path / "out/a.tar").read_bytes() == b"one" and sorted(os.listdir(tmp_path / "out")) == [".fetch", "a.tar"]


def test_a_network_that_is_not_there_is_told_soon(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"S3 does not answer \(.*connected to the internet") as caught:
        get(tmp_path / "out")
    assert time.monotonic() - started < 30 and SECRET not in str(caught.value)


def test_without_credentials_a_public_bucket_is_read(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    client.put_object(Bucket="pictures", Key="imagenet/a", Body=b"public", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    get(tmp_path / "out")
    assert (tmp_path / "out/a").read_bytes() == b"public" and any("only public buckets" in line for line in said)


def test_a_dry_run_counts_and_makes_nothing(client: Any, tmp_path: Path) -> None:
    put(client, {"imagenet/a": b"12345", "imagenet/b": b"123"})
    lines = describe(load_prepare(["fetch=s3", "origin=s3://pictures/imagenet", "source=x"]), tmp_path / "out")
    assert "2 files, 8 bytes, of which 0 are there" in lines[-1] and not (tmp_path / "out").exists()
