"""What S3's answers and boto3's errors mean, and what to do about them."""

from collections.abc import Iterator
from contextlib import contextmanager

from src.config import ConfigError, Problem
from src.imagenet.fetch.remote import STAGE, Changed, Passing, reason_of

_CREDENTIALS = (
    "has no credentials for this. Type `aws configure` or `aws sso login`, choose a profile with AWS_PROFILE, "
    "or on EC2 give the instance a role that may s3:GetObject and s3:ListBucket."
)


@contextmanager
def explained(address: str, *, first: bool = False) -> Iterator[None]:
    """Turn the SDK's errors into ConfigError, where asking again is of no use, Changed or Passing.

    Args:
        address: s3://bucket/prefix, for messages.
        first: of the first contact, where also what may pass ends the start.

    Raises:
        ConfigError, Changed, Passing: see above.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if not first and (status in (404, 412, 416) or code in ("NoSuchKey", "PreconditionFailed")):
            raise Changed(f"was replaced or deleted in the bucket ({code})") from None
        fix = _why(code, status)
        if fix is not None:
            raise ConfigError(STAGE, [Problem("origin", address, fix)]) from None
        fault: Exception = Passing(f"S3 answered {code or status}")
    except NoCredentialsError:
        raise ConfigError(STAGE, [Problem("AWS", None, _CREDENTIALS)]) from None
    except (BotoCoreError, HTTPError, OSError) as error:
        fault = Passing(f"S3 does not answer ({reason_of(error)})")
    else:
        return
    if first:
        fix = (
            f"{fault}. Is this machine connected to the internet (HTTPS_PROXY, AWS_ENDPOINT_URL and AWS_REGION as they should be)?"
        )
        raise ConfigError(STAGE, [Problem("origin", address, fix)])
    raise fault


def _why(code: str, status: int) -> str | None:
    """Say why the service refuses and what to do; None where asking again may help."""
    match code:
        case "NoSuchBucket":
            return "there is no such bucket. Correct origin=s3://<bucket>/<prefix>."
        case "AccessDenied" | "403" | "Forbidden" | "AllAccessDisabled":
            return f"access is denied. AWS {_CREDENTIALS}"
        case (
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "ExpiredToken"
            | "TokenRefreshRequired"
            | "AuthFailure"
        ):
            return f"AWS does not take the credentials ({code}). AWS {_CREDENTIALS}"
        case "RequestTimeTooSkewed":
            return "this machine's clock is wrong by more than 15 minutes. Set it."
        case "InvalidObjectState":
            return "an object lies in an archive. Restore it first (aws s3api restore-object), and wait until that is done."
        case "InvalidBucketName":
            return "that is no name of a bucket. Correct origin=s3://<bucket>/<prefix>."
        case _ if status in (400, 401, 403):
            return f"the request is refused ({code or status}). AWS {_CREDENTIALS}"
        case _:
            return None
