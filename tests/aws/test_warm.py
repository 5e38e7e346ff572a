"""Every block of a volume is read once; interrupted, it is known from where to go on."""

from pathlib import Path

import pytest

from scripts.aws.warm import Reading
from tests.aws.conftest import Account, Device

VOLUME = "vol-0123456789abcdef0"


def test_the_whole_device_is_read_and_from_a_place_on_the_rest_of_it(account: Account, device: Device) -> None:
    device.plug_in(VOLUME)
    command = ("volume", "warm", "--volume-id", VOLUME, "--threads", "4")
    assert account.did(*command)["bytes"] == 64 << 20
    assert account.did(*command, "--from-gib", "0.046875")["bytes"] == 16 << 20
    assert account.did(*command, "--dry-run")["status"] == "dry run"


def test_reading_goes_to_the_last_byte_and_notes_what_is_whole(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    with volume.open("wb") as file:
        file.truncate((150 << 20) + 77)
    reading = Reading(volume, 3 << 20, (150 << 20) + 77)
    reading.run(8, every=0)
    assert reading.whole_until == (150 << 20) + 77
    assert reading.done_bytes == (147 << 20) + 77


def test_what_was_read_before_a_block_that_cannot_be_is_not_read_again(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    with volume.open("wb") as file:
        file.truncate(100 << 20)
    reading = Reading(volume, 0, 200 << 20)  # longer than it is: the second piece of 64 MiB cannot be read
    with pytest.raises(OSError, match="short read at byte 104857600"):
        reading.run(1, every=0)
    assert reading.whole_until == 64 << 20
