"""Hugging Face: a dataset's parquet files, found by huggingface_hub, read in parts straight into the folder.

Not by its own download: that keeps nothing of a file that is broken off (since 2.0), and its caches take the space a second time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.config import ConfigError, Problem
from src.imagenet.fetch.credentials import installed_or_explain, secrets_named
from src.imagenet.fetch.remote import STAGE, Offer, Passing, Remote, first_contact, reason_of
from src.imagenet.fetch.web import Address, part_reader

REPOSITORY = "ILSVRC/imagenet-1k"
_PART_BYTES = 32 * 2**20
_ANSWER_SECONDS = 10.0


def steps(repository: str) -> str:
    """Say what a person has to do once before Hugging Face gives the data."""
    return (
        "1. Make an account at https://huggingface.co. "
        f"2. Accept the terms at https://huggingface.co/datasets/{repository}. "
        "3. Make a token of type read at https://huggingface.co/settings/tokens. "
        "4. Set HF_TOKEN in the environment or in a file .env in this folder, or type `hf auth login`."
    )


def offer(origin: str | None, folder: Path) -> Offer:
    """List the dataset's parquet files: of its folder data, or of all where it has none.

    Args:
        origin: owner/name, or owner/name@revision; None: REPOSITORY.
        folder: to download into.

    Raises:
        ConfigError: the package is missing, the terms are not accepted, or there is no answer.
    """
    installed_or_explain("huggingface_hub", "fetch")
    installed_or_explain("requests", "fetch")
    repository, _, revision = (origin or REPOSITORY).partition("@")
    token = secrets_named("HF_TOKEN").get("HF_TOKEN")
    try:
        files, commit = first_contact(lambda: _list(repository, revision or "main", token))
    except Passing as fault:
        raise ConfigError(STAGE, [Problem("Hugging Face", None, f"{fault}. {_CONNECTED}")]) from None
    if not files:
        fix = "has no parquet files. Correct origin=<owner>/<name>."
        raise ConfigError(STAGE, [Problem(repository, None, fix)])
    remotes = [_remote(repository, commit, token, file) for file in files]
    size = sum(remote.bytes for remote in remotes)
    return Offer(f"Hugging Face's data set {repository}", len(remotes), size, lambda: remotes)


_CONNECTED = "Is this machine connected to the internet (HTTPS_PROXY set, where it needs one)?"


def _list(repository: str, revision: str, token: str | None) -> tuple[list[Any], str]:
    """Return the parquet files, and the commit that they are of: all are read from the same one."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(token=token)
    with _explained(repository, token):
        api.auth_check(repository, repo_type="dataset")
        commit = api.repo_info(repository, repo_type="dataset", revision=revision, timeout=_ANSWER_SECONDS).sha or revision
        tree = list(api.list_repo_tree(repository, recursive=True, repo_type="dataset", revision=commit))
    found = [entry for entry in tree if isinstance(entry, RepoFile) and entry.path.endswith(".parquet")]
    inside = [entry for entry in found if entry.path.startswith("data/")]
    return inside or found, commit


def _remote(repository: str, commit: str, token: str | None, file: Any) -> Remote:
    sha256 = file.lfs.sha256 if file.lfs is not None else ""
    mark = sha256 or file.blob_id
    read = part_reader(file.path, file.size, None, _finder(repository, commit, token, file.path))
    return Remote(file.path, file.size, mark, read, "sha256" if sha256 else "none", sha256, _PART_BYTES, None)


def _finder(repository: str, commit: str, token: str | None, path: str) -> Callable[[], Address]:
    """Make what asks where a file is: most often a signed address on another host, which gets no token."""

    def find() -> Address:
        from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url

        url = hf_hub_url(repository, path, repo_type="dataset", revision=commit)
        with _explained(repository, token):
            location = get_hf_file_metadata(url, token=token, timeout=_ANSWER_SECONDS).location
        here = _host_of(location) == _host_of(url)
        return Address(location, (token or get_token()) if here else None)

    return find


def _host_of(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(url).netloc


@contextmanager
def _explained(repository: str, token: str | None) -> Iterator[None]:
    """Turn the library's errors into ConfigError, where asking again is of no use, or Passing."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        fix = f"Hugging Face gives it only to those who accepted its terms{_with_token(token)}. {steps(repository)}"
        raise ConfigError(STAGE, [Problem(repository, None, fix)]) from None
    except errors.RepositoryNotFoundError:
        fix = f"is not there, or not for you{_with_token(token)}: correct origin=<owner>/<name>, or get access. {steps(repository)}"
        raise ConfigError(STAGE, [Problem(repository, None, fix)]) from None
    except errors.RevisionNotFoundError:
        raise ConfigError(
            STAGE, [Problem(repository, None, "has no such revision. Correct origin=<owner>/<name>@<revision>.")]
        ) from None
    except errors.OfflineModeIsEnabled:
        raise ConfigError(STAGE, [Problem("HF_HUB_OFFLINE", None, "is set: nothing can be downloaded. Unset it.")]) from None
    except errors.HFValidationError:
        fix = "is no name of a data set. Type origin=<owner>/<name>."
        raise ConfigError(STAGE, [Problem("origin", repository, fix)]) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            fix = f"Hugging Face refuses (status {status}){_with_token(token)}. {steps(repository)}"
            raise ConfigError(STAGE, [Problem(repository, None, fix)]) from None
        raise Passing(f"Hugging Face answered with status {status}") from None
    except (OSError, errors.FileMetadataError) as error:
        raise Passing(f"Hugging Face does not answer ({reason_of(error)})") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests"):
            raise Passing(f"Hugging Face does not answer ({reason_of(error)})") from None
        raise


def _with_token(token: str | None) -> str:
    return "" if token is not None else " (no HF_TOKEN was found)"
