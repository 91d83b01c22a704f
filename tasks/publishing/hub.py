"""One commit to a repository of the hub, private unless asked otherwise, and what may keep it from getting there."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tasks.config.errors import ConfigurationError
from tasks.store.artifacts import Content


class HubError(OSError):
    """The hub could not be reached, or failed; what was asked may work later."""


def check_repo(repo: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        ConfigurationError: Says what a name looks like.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigurationError(f"{repo!r} is no name of a repository, such as owner/name: {error}") from error


def push(repo: str, files: Mapping[str, Content], public: bool, message: str) -> str:
    """Make the repository where it is not there, commit all files at once, and return the commit's address.

    Raises:
        ConfigurationError: There is no token, it may not write there, or the repository is public and should not be,
            or the other way round.
        HubError: The hub could not be reached, or failed.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise ConfigurationError("no token for the hub: run `hf auth login`, or set HF_TOKEN to one that may write")
    api = HfApi(library_name="rs-dpo")
    with _explained(repo, api.endpoint):
        repo = api.create_repo(repo, private=not public, exist_ok=True).repo_id
        _check_visibility(repo, bool(api.model_info(repo).private), public)
        operations = [CommitOperationAdd(name, data) for name, data in sorted(files.items())]
        return str(api.create_commit(repo, operations, commit_message=message).commit_url)


def _check_visibility(repo: str, is_private: bool, public: bool) -> None:
    """Refuse a repository that was there before with another visibility; nothing is uploaded."""
    if is_private == public:
        found, remedy = ("private", "leave --public out") if is_private else ("public", "give --public")
        raise ConfigurationError(f"{repo} exists and is {found}: {remedy}, or take another name")


@contextmanager
def _explained(repo: str, endpoint: str) -> Iterator[None]:
    """Turn the hub's errors into messages that say what to do."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ConfigurationError("HF_HUB_OFFLINE is set, so nothing is sent: unset it to publish") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ConfigurationError(
                f"the hub refused ({status}): the token must be valid and may write to {repo}; `hf auth whoami` says "
                "whose it is"
            ) from error
        raise HubError(f"the hub at {endpoint} failed ({status}): {error.server_message or error}") from error
    except HTTPError as error:
        raise HubError(
            f"the hub at {endpoint} cannot be reached ({type(error).__name__}): check the network, proxies and "
            "HF_ENDPOINT, and run again"
        ) from error
    except (RuntimeError, ValueError) as error:  # of an upload, or of the card
        if isinstance(error, ConfigurationError):
            raise
        raise HubError(f"the hub at {endpoint} did not take it: {error} {error.__cause__ or ''}".strip()) from error
