"""What an instance can ask about itself: the instance metadata service, version 2 (a token first, then questions).

Facts: token by PUT /latest/api/token, https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html;
`spot/instance-action` answers 404 until EC2 has chosen the instance, then {"action": "stop", "time": "..."} two minutes before, and
is to be asked every five seconds: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html.
"""

import json
import os
import threading
import urllib.error
import urllib.request
from http import HTTPStatus

ASK_SECONDS = 5.0
ANSWER_SECONDS = 2.0  # the service is on the same host: who does not answer by then is not there
TOKEN_SECONDS = 21600


class MetadataError(RuntimeError):
    """The service did not answer: this machine is no EC2 instance, or its metadata are switched off."""


class Metadata:
    """The service, asked with a token that is renewed when it has expired."""

    def __init__(self, endpoint: str | None = None) -> None:
        # The variable is the SDKs' own; boto3 reads it too.
        chosen = endpoint or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        self._endpoint = chosen.rstrip("/")
        self._token = ""
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # never through a proxy

    def get(self, path: str) -> str | None:
        """Return the answer to /latest/meta-data/<path>, or None where there is none (404).

        Raises:
            MetadataError: if the service does not answer, or with another error.
        """
        try:
            for last_try in (False, True):
                if not self._token:
                    self._token = self._ask(
                        "/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
                    )
                try:
                    return self._ask(f"/latest/meta-data/{path}", "GET", {"X-aws-ec2-metadata-token": self._token})
                except urllib.error.HTTPError as error:
                    if error.code == HTTPStatus.NOT_FOUND:
                        return None
                    if error.code != HTTPStatus.UNAUTHORIZED or last_try:
                        raise
                    self._token = ""
        except (OSError, ValueError) as error:  # urllib's errors are OSErrors
            raise MetadataError(f"the metadata service {self._endpoint} does not answer: {error}") from error
        raise AssertionError

    def _ask(self, path: str, method: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(self._endpoint + path, method=method, headers=headers)
        with self._open(request, timeout=ANSWER_SECONDS) as answer:
            return str(answer.read(65536).decode())


class SpotNotice:
    """Watches beside the training whether EC2 is about to interrupt this instance."""

    def __init__(self, metadata: Metadata | None = None, seconds: float = ASK_SECONDS) -> None:
        self._metadata, self._seconds = metadata or Metadata(), seconds
        self.given = False
        self.words = ""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            try:
                answer = self._metadata.get("spot/instance-action")
            except MetadataError:
                pass  # no instance, or a moment's trouble: what was known holds
            else:
                self.words = _words(answer) if answer is not None else self.words
                self.given = answer is not None
            pause.wait(self._seconds)


def instance_id() -> str:
    """Return the id of the instance that this process runs on.

    Raises:
        MetadataError: if it runs on none.
    """
    answer = Metadata().get("instance-id")
    if not answer:
        raise MetadataError("the metadata service tells no instance-id")
    return answer


def _words(answer: str) -> str:
    try:
        read = json.loads(answer)
        return f"{read['action']} at {read['time']}"
    except (ValueError, KeyError, TypeError):
        return "without details"
