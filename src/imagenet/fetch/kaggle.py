"""Kaggle: the competition's zip, by the Kaggle client (its kagglesdk). The client finds the address; the zip is read in parts."""

import concurrent.futures
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from src.config import ConfigError, Problem
from src.imagenet.fetch.credentials import installed_or_explain, secrets_named
from src.imagenet.fetch.remote import STAGE, Offer, Passing, Remote, first_contact, reason_of
from src.imagenet.fetch.web import Address, part_reader, reach

T = TypeVar("T")
COMPETITION = "imagenet-object-localization-challenge"
_PART_BYTES = 32 * 2**20
_ANSWER_SECONDS = 60.0  # the client itself waits for ever
_FILES = ("kaggle.json", "access_token", "access_token.txt")  # in ~/.kaggle, where the client looks itself


def steps(competition: str) -> str:
    """Say what a person has to do once before Kaggle gives the data."""
    return (
        "1. Make an account at https://www.kaggle.com (its phone number verified). "
        f"2. Accept the rules at https://www.kaggle.com/competitions/{competition}/rules. "
        "3. Make an API token at https://www.kaggle.com/settings/api. "
        "4. Set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, in the environment or in a file .env in this folder; "
        "or keep Kaggle's own file in ~/.kaggle."
    )


def offer(origin: str | None, folder: Path) -> Offer:
    """Ask Kaggle for the competition's zip.

    Raises:
        ConfigError: the client or the credentials are missing, Kaggle refuses, or it does not answer.
    """
    competition = (origin or COMPETITION).rstrip("/").rpartition("/")[2]
    installed_or_explain("kagglesdk", "fetch")
    from kagglesdk.kaggle_env import get_endpoint, get_env

    client = _client(competition)
    reach(get_endpoint(get_env()), "Kaggle")
    try:
        response = first_contact(lambda: _locate(client, competition))
    except Passing as fault:
        raise ConfigError(STAGE, [Problem("Kaggle", None, f"{fault}. Run this again later.")]) from None
    size = response.headers.get("Content-Length", "")
    if not size.isdigit():
        fix = "Kaggle does not tell the size of its zip: what arrives could not be checked. Try again later."
        raise ConfigError(STAGE, [Problem(competition, None, fix)])
    etag = response.headers.get("ETag")
    mark = (etag or response.headers.get("Last-Modified") or "").removeprefix("W/").strip('"')
    name = f"{competition}.zip"
    addresses = [Address(response.url, None)]  # the first is at hand

    def find() -> Address:
        return addresses.pop() if addresses else Address(_locate(client, competition).url, None)

    read = part_reader(name, int(size), mark if etag else None, _one_at_a_time(find))
    remote = Remote(name, int(size), mark, read, "none", "", _PART_BYTES, None)
    return Offer(f"Kaggle's competition {competition}", 1, int(size), lambda: [remote])


def _client(competition: str) -> Any:
    from kagglesdk import KaggleClient

    secrets = secrets_named("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")
    token = secrets.get("KAGGLE_API_TOKEN")
    if token is not None and Path(token).is_file():  # Kaggle allows the name of a file as well
        token = Path(token).read_text().strip()
    pair = "KAGGLE_USERNAME" in secrets and "KAGGLE_KEY" in secrets
    if token is None and not pair and not any((Path.home() / ".kaggle" / name).is_file() for name in _FILES):
        raise ConfigError(STAGE, [Problem("Kaggle", None, f"no credentials were found. {steps(competition)}")])
    return KaggleClient(username=secrets.get("KAGGLE_USERNAME"), password=secrets.get("KAGGLE_KEY"), api_token=token)


def _locate(client: Any, competition: str) -> Any:
    """Ask for the zip; return the response at the end of its redirections, its content not read.

    Raises:
        ConfigError: Kaggle refuses.
        Passing: it does not answer.
    """
    import requests
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

    request = ApiDownloadDataFilesRequest()
    request.competition_name = competition

    def ask() -> Any:
        with client:
            response = client.competitions.competition_api_client.download_data_files(request)
            response.close()
            return response

    try:
        return within(_ANSWER_SECONDS, ask)
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        redirected = error.response is not None and error.response.history  # then it is the storage that refuses, not Kaggle
        if status in (400, 401, 403, 404) and not redirected:
            raise ConfigError(STAGE, [Problem("Kaggle", None, _why(status, competition))]) from None
        who = "Kaggle's storage" if redirected else "Kaggle"
        raise Passing(f"{who} answered with status {status}") from None
    except (requests.RequestException, OSError) as error:
        raise Passing(f"Kaggle does not answer ({reason_of(error)})") from None


def _why(status: int, competition: str) -> str:
    match status:
        case 401:
            return f"does not take the credentials (status 401): mistyped, withdrawn or out of date. {steps(competition)}"
        case 403:
            return (
                f"refuses the download (status 403): most often the competition's rules are not accepted yet. {steps(competition)}"
            )
        case 404:
            return f"knows no competition {competition} (status 404). Correct origin=<competition>; usually it is {COMPETITION}."
        case _:
            return f"refuses the request (status {status}). {steps(competition)}"


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns.

    Raises:
        TimeoutError: it did not in that time; its thread is left behind.
    """
    result: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return result.result(timeout=seconds)
    except concurrent.futures.TimeoutError:
        if result.done():
            raise
        raise TimeoutError(110, f"no answer within {seconds:g} s") from None


def _one_at_a_time(find: Callable[[], Address]) -> Callable[[], Address]:
    lock = threading.Lock()

    def locked() -> Address:
        with lock:
            return find()

    return locked
