"""What went wrong with the Hub, in one sentence that says what to do.

The libraries hide causes from each other (peft turns every failure into "Can't find 'adapter_config.json'", the download
into "check your connection"), so the whole chain of an exception is searched for the one that knows.
"""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_tuner import catalog
from hf_tuner.errors import EnvironmentFault, TunerError, UsageError
from hf_tuner.hub.client import api, token_source

HUB_ERRORS = (HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError, ValueError)
"""What calls of the Hub may raise: HTTP errors, raw network errors, and Xet's ConnectionError and RuntimeError."""
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
LOGIN = "log in (`hf-tuner login`) or set HF_TOKEN"


@contextmanager
def hub_faults(what: str, repo: str = "", kind: str = "model") -> Iterator[None]:
    """Turn whatever the Hub's libraries raise into one EnvironmentFault about `what` ("the model user/name")."""
    try:
        yield
    except TunerError:
        raise
    except HUB_ERRORS as error:
        raise explain(error, what, repo, kind) from error


def explain(error: BaseException, what: str, repo: str = "", kind: str = "model") -> TunerError:
    """The error to show for `error`: an EnvironmentFault (exit 3), or a UsageError for a name no Hub can have.

    `repo` is the repository asked for, whose nearest names are looked up when it is missing.
    """
    cause = root_cause(error)
    if isinstance(cause, HFValidationError):
        return UsageError(f"{what}: {_brief(cause)}")
    return EnvironmentFault(f"{what}: {_sentence(cause, repo, kind)}")


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: the network, a time-out, a busy or failing Hub."""
    cause = root_cause(error)
    status = _status(cause)
    if status is not None:
        return status in TRANSIENT
    return isinstance(cause, httpx2.TransportError | ConnectionError | TimeoutError)


def moved(error: BaseException) -> bool:
    """Whether a commit was refused because the branch had moved on (412)."""
    return _status(root_cause(error.__cause__ or error)) == 412


def is_transfer(error: BaseException) -> bool:
    """Whether an error was raised inside the Hub's client: Xet raises bare RuntimeErrors."""
    frames = traceback.walk_tb(error.__traceback__)
    return any("huggingface_hub" in frame.f_code.co_filename for frame, _ in frames)


def root_cause(error: BaseException) -> BaseException:
    """The exception in the chain that says most: an answer of the Hub, else a network error, else the first one."""
    chain = list(_chain(error))
    for kinds in ((HfHubHTTPError,), (httpx2.HTTPError,), (OfflineModeIsEnabled, HFValidationError)):
        for link in chain:
            if isinstance(link, kinds):
                return link
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _sentence(error: BaseException, repo: str, kind: str) -> str:
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{'' if kind == 'model' else kind + 's/'}{repo}"
        who = "ask for access on its page" if token_source() else f"accept its terms on its page and {LOGIN}"
        return f"it is gated: {who} ({page})"
    if isinstance(error, RevisionNotFoundError):
        return f"there is no such branch, tag or commit; {_revisions(repo, kind)}"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"the repository has no such file ({_brief(error, 120)})"
    if isinstance(error, RepositoryNotFoundError) and _status(error) != 401:
        return f"there is no such repository, or this token cannot see it{_nearest(repo, kind)}"
    if isinstance(error, RepositoryNotFoundError):
        if token_source() and "Invalid" in str(error) and "token" in str(error).lower():
            return _refused_token()
        return f"there is no such repository, or it is private: {LOGIN}{_nearest(repo, kind)}"
    if isinstance(error, LocalTokenNotFoundError):
        return f"no token: {LOGIN}"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids asking the Hub, and it is not in the cache; unset HF_HUB_OFFLINE"
    return _http_sentence(error)


def _http_sentence(error: BaseException) -> str:
    status = _status(error)
    if status is None:
        return _network_sentence(error)
    said = _brief(error, 200)
    known = {
        401: _refused_token() if token_source() else f"the Hub wants to know who asks: {LOGIN}",
        403: f"the token from {token_source() or 'nowhere'} may not do this ({said}); use one with write access",
        404: f"it is not there ({said})",
        409: f"the Hub reports a conflict ({said}); run the command again",
        412: "somebody else changed the repository at the same moment; run the command again",
        429: "the Hub is busy and asks to come back later (429: rate limit); run the command again in a few minutes",
    }
    if status in known:
        return known[status]
    if status >= 500:
        return f"the Hub has trouble of its own (it answers {status}); run the command again later"
    return f"the Hub answers {status}: {said}"


def _network_sentence(error: BaseException) -> str:
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        return f"the Hub ({constants.ENDPOINT}) does not answer; run the command again later"
    if isinstance(error, httpx2.TransportError):
        return f"the connection to the Hub ({constants.ENDPOINT}) failed ({_brief(error, 120) or type(error).__name__})"
    if isinstance(error, LocalEntryNotFoundError):
        return f"it is not in the cache and the Hub ({constants.ENDPOINT}) cannot be asked"
    said = _brief(error, 300) or type(error).__name__
    # What Xet raises, up and down, are bare built-in errors.
    broken = isinstance(error, ConnectionError) or (isinstance(error, RuntimeError) and is_transfer(error))
    return f"{said}; run the command again (HF_HUB_DISABLE_XET=1 avoids Xet)" if broken else said


def _refused_token() -> str:
    return f"the Hub does not accept the token from {token_source()}: it is mistyped or expired; {LOGIN}"


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return int(response.status_code) if response is not None else None


def _nearest(repo: str, kind: str) -> str:
    """The nearest names of the same owner, or anywhere, where the Hub can tell in time."""
    if "/" not in repo:
        return ""
    owner, name = repo.split("/", 1)
    listing = api().list_models if kind == "model" else api().list_datasets
    found: list[str] = []
    try:
        found += [str(r.id) for r in listing(author=owner, limit=100)]
        found += [str(r.id) for r in listing(search=name, limit=20)]
    except HUB_ERRORS:
        return ""
    by_name = {f.rsplit("/", 1)[-1]: f for f in reversed(found) if f != repo}  # the owner's own come first
    close = catalog.nearest(name, list(by_name))
    return f'; did you mean "{by_name[close]}"?' if close else ""


def _revisions(repo: str, kind: str) -> str:
    try:
        refs = api().list_repo_refs(repo, repo_type=kind)
    except HUB_ERRORS:
        return "look at the repository's page for what there is"
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    slash = " (a slash is written %2F in an address)" if any("/" in name for name in names) else ""
    return f"there are: {', '.join(names[:12])}{slash}"


def _brief(error: BaseException, length: int = 200) -> str:
    """The first telling line of an error, without addresses of requests and their numbers."""
    server = getattr(error, "server_message", None)
    lines = [line.strip() for line in (server or str(error)).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(("Request ID", "Cannot access")))
    text = re.sub(r"\(Request ID: [^)]*\)\s*", "", text)
    return text if len(text) <= length else text[: length - 1] + "…"
