"""A thing is made once, whatever AWS does not show yet, and whatever it remembers."""

import pytest

from tests.aws.conftest import ZONE, Account

QUICK = ("--poll-seconds", "0.05", "--wait-seconds", "3")
CREATE = ("volume", "create", "--name", "imagenet", "--size-gib", "10", "--zone", ZONE, *QUICK)
NOTHING = b'<DescribeVolumesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><volumeSet/></DescribeVolumesResponse>'


def hide(account: Account, answers: int) -> None:
    """The next so many descriptions do not show what was made: AWS is eventually consistent, moto is not."""
    left = [answers]

    def rewrite(action: str, answer: bytes) -> bytes:
        if action != "DescribeVolumes" or left[0] == 0:
            return answer
        left[0] -= 1
        return NOTHING

    account.proxy.rewrite = rewrite


@pytest.mark.parametrize("manner", ["kill after", "drop"])
def test_a_volume_whose_answer_was_lost_and_that_is_not_shown_yet_is_not_made_twice(account: Account, manner: str) -> None:
    account.proxy.breaks(manner, call="CreateVolume")
    account.run(*CREATE)
    hide(account, 4)
    account.did(*CREATE)
    assert len(account.own_volumes()) == 1


def test_other_options_typed_after_a_lost_answer_do_not_make_a_second_volume(account: Account) -> None:
    account.proxy.breaks("kill after", call="CreateVolume")
    account.run(*CREATE)
    hide(account, 3)
    done = account.here(*[word if word != "10" else "20" for word in CREATE])
    assert done.code == 2
    assert "has 10" in done.err
    assert len(account.own_volumes()) == 1


def test_a_name_is_free_again_when_its_volume_was_deleted_though_aws_remembers_the_token(account: Account) -> None:
    made, soon = [], ("--wait-seconds", "0.3")
    for _ in range(3):
        volume = account.did(*CREATE, *soon)["volume"]
        account.client("ec2").delete_volume(VolumeId=volume)
        made.append(volume)
    assert len(set(made)) == 3
    size = [word if word != "10" else "20" for word in CREATE]
    assert account.did(*size, *soon)["volume"] not in made
    assert [one["Size"] for one in account.own_volumes()] == [20]


def test_two_volumes_of_one_name_are_told_apart_by_hand(account: Account) -> None:
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "imagenet-trainer:name", "Value": "imagenet"}]}]
    both = [
        account.client("ec2").create_volume(AvailabilityZone=ZONE, Size=1, TagSpecifications=tags)["VolumeId"] for _ in range(2)
    ]
    done = account.here(*CREATE)
    assert done.code == 2
    assert all(volume in done.err for volume in both)
    assert "--volume-id" in done.err
    assert account.here("volume", "status", "--volume-id", both[0]).code == 0
