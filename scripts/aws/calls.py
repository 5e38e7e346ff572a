"""The thin layer through which every call to AWS goes.

boto3 is imported at the first call, with the user's own chain of credentials (environment, ~/.aws, SSO, the instance's role): no
command takes a key. In a dry run, calls that change something are printed with their arguments instead of made; reads are made
where there are credentials. What exists is found again by the tag `imagenet-trainer:name`, so AWS itself is the state of an
interrupted command.
"""

import json
import os
import re
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from scripts.aws.errors import AnswerLostError, FailedError, NoAnswerError, refuse

NAME_TAG = "imagenet-trainer:name"
_ATTEMPTS = 8  # of a call that may be repeated: about two minutes with botocore's growing pauses
_THROTTLED = ("RequestLimitExceeded", "Throttling", "ThrottlingException", "SnapshotCreationPerVolumeRateExceeded")
_NOT_ALLOWED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
_REGION_OF_ZONE = re.compile(r"^[a-z]{2}(-[a-z]+)+-\d+")

Answer = dict[str, Any]


def say(line: str) -> None:
    """One line for people, on the error stream: the output holds the result, and in a dry run the calls."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def answer(*, dry_run: bool = False, **result: object) -> int:
    """Print the result of a command as one line of JSON (its status that of a dry run, if it was one). Returns exit code 0."""
    if dry_run:
        result["status"] = "dry run"
    sys.stdout.write(json.dumps(result, default=str) + "\n")
    sys.stdout.flush()
    return 0


class CallError(FailedError):
    """AWS refused a call. `code` is its own word, as `InvalidVolume.NotFound`."""

    def __init__(self, operation: str, code: str, message: str) -> None:
        self.code = code
        hint = " Compare `python -m scripts.aws policy` with what your role or user may do." if code in _NOT_ALLOWED else ""
        super().__init__(f"{operation}: {code}: {message}{hint}")


class Cloud:
    """Calls of one region. `region=None`: that of the environment, of ~/.aws/config, or of the instance that this is."""

    def __init__(self, *, region: str | None, dry_run: bool) -> None:
        self.region, self.dry_run = region, dry_run
        self._clients: dict[tuple[str, bool], Any] = {}

    @classmethod
    def of(cls, options: Namespace) -> "Cloud":
        """As the options --region, --zone and --dry-run say; a zone names its region."""
        region = options.region
        zone = getattr(options, "zone", None)
        if region is None and zone is not None:
            found = _REGION_OF_ZONE.match(zone)
            if found is None:
                raise refuse("the command line", "--zone", zone, "is no availability zone. One looks like us-east-1a.")
            region = found.group()
        return cls(region=region, dry_run=options.dry_run)

    def read(self, service: str, operation: str, **arguments: object) -> Answer:
        """Ask something, all pages. In a dry run without credentials or region: nothing is known, {}, and a line says so.

        Args:
            service: boto3's name, as "ec2".
            operation: boto3's name, as "describe_volumes".
            arguments: as the API names them.

        Raises:
            CallError: AWS refused.
            FailedError: it did not answer.
            RefusedError: no boto3, credentials or region.
        """
        try:
            return self._call(service, operation, arguments, repeat=True)
        except FailedError as error:
            if self.dry_run and not isinstance(error, CallError):
                say(f"{error} The dry run goes on as with an empty account.")
                return {}
            raise

    def change(
        self, service: str, operation: str, *, pretend: Mapping[str, Any] | None = None, repeat: bool = True, **arguments: object
    ) -> Answer:
        """Change something; in a dry run only print it.

        Args:
            service: boto3's name, as "ec2".
            operation: boto3's name, as "create_volume".
            pretend: the answer in a dry run.
            repeat: whether a second arrival of the same request does no harm (it has a ClientToken, or says what shall be).
                False: a lost answer is AnswerLostError.
            arguments: as the API names them.

        Raises:
            AnswerLostError: see `repeat`.
            FailedError, RefusedError: as `read`.
        """
        words = json.dumps(arguments, default=str)
        name = f"{service}:{api_name(operation)}"
        if self.dry_run:
            sys.stdout.write(f"would call {name} {words}\n")
            return dict(pretend or {})
        say(f"{name} {words if len(words) <= 400 else words[:397] + '...'}")
        return self._call(service, operation, arguments, repeat=repeat)

    def _call(self, service: str, operation: str, arguments: Mapping[str, object], *, repeat: bool) -> Answer:
        try:
            from botocore import exceptions
        except ModuleNotFoundError:
            raise refuse("AWS", "boto3", None, "is not installed. Type pip install 'imagenet-trainer[aws]'.") from None
        name = f"{service}:{api_name(operation)}"
        pauses = iter((1, 2, 4, 8, 15))
        while True:
            try:
                client = self._client(service, repeat)
                if client.can_paginate(operation):
                    return dict(client.get_paginator(operation).paginate(**arguments).build_full_result())
                return dict(getattr(client, operation)(**arguments))
            except exceptions.ClientError as error:
                code, message = error.response["Error"].get("Code", "?"), error.response["Error"].get("Message", "")
                pause = next(pauses, None)
                if code not in _THROTTLED or pause is None:
                    raise CallError(name, code, message) from None
                time.sleep(pause)
            except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError) as why:
                hint = "Credentials come from your own chain: `aws configure`, `aws configure sso`, AWS_PROFILE, a role."
                raise FailedError(f"{name}: {why}. {hint}") from None
            except exceptions.NoRegionError:
                raise FailedError(f"{name}: no region is known. Type --region us-east-1, or set AWS_DEFAULT_REGION.") from None
            except (exceptions.ParamValidationError, exceptions.ProfileNotFound) as error:
                raise FailedError(f"{name}: {error}") from None
            except (exceptions.BotoCoreError, OSError) as error:
                kind = NoAnswerError if repeat else AnswerLostError
                raise kind(f"{name}: no answer ({type(error).__name__}: {error}). Type the command again: it continues.") from None

    def _client(self, service: str, repeat: bool) -> Any:
        key = (service, repeat)
        if key not in self._clients:
            import boto3
            from botocore.config import Config

            config = Config(
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS if repeat else 1}, connect_timeout=10, read_timeout=60
            )
            region = self.region or boto3.Session().region_name or os.environ.get("AWS_REGION") or _region_of_instance()
            self._clients[key] = boto3.client(service, region_name=region, config=config)
        return self._clients[key]


def _region_of_instance() -> str | None:
    """The region of the instance that this is, by its metadata service; None: it is none."""
    from botocore.utils import InstanceMetadataRegionFetcher

    region: str | None = InstanceMetadataRegionFetcher(timeout=1, num_attempts=1).retrieve_region()
    return region


def api_name(operation: str) -> str:
    """The API's own name of boto3's operation: describe_volumes is DescribeVolumes."""
    return "".join(word.capitalize() for word in operation.split("_"))


def named(name: str, **more: str) -> list[dict[str, str]]:
    """Tags of what belongs to `name`, as the API wants them; `Name` is what the console shows."""
    tags = {NAME_TAG: name, "Name": name} | {f"imagenet-trainer:{key}": value for key, value in more.items()}
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def named_filter(name: str) -> dict[str, object]:
    """The filter of a describe call that finds what has our tag with this name."""
    return {"Name": f"tag:{NAME_TAG}", "Values": [name]}


def tags_of(thing: Mapping[str, Any]) -> dict[str, str]:
    """Tags of an answer as a dict."""
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", ())}


def wait_until(look: Callable[[], tuple[bool, str]], *, what: str, every: float, at_most: float) -> None:
    """Poll until it is so; a look that gets no answer from AWS is repeated, for hours if need be.

    Args:
        look: says whether it is so, and in what state things are, for people: told when it changes.
        what: what is waited for, for people.
        every: seconds between looks.
        at_most: seconds until it is given up.

    Raises:
        FailedError: it did not become so in time (the same command waits on), or whatever else `look` raises.
    """
    started, told = time.monotonic(), ""
    while True:
        try:
            done, state = look()
        except NoAnswerError as error:
            done, state = False, f"AWS does not answer ({error})"
        if state != told:
            say(f"{what}: {state}")
            told = state
        if done:
            return
        waited = time.monotonic() - started
        if waited > at_most:
            raise FailedError(f"{what}: still {state} after {waited:.0f} s. Type the same command again: it waits on.")
        time.sleep(every)
