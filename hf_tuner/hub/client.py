"""The client of the Hub with bounds: no call waits for ever, whoever makes it (huggingface_hub, transformers, peft).

huggingface_hub sets no limit on most of its calls (whoami, create_repo, model_info, list, commit), so a Hub that accepts
and never answers would hold a run for ever. `bounded` puts a ceiling on the wait for every answer and on retries; what
is downloaded or uploaded may take as long as it likes, while bytes flow.
"""

import functools
import os
import re
from typing import Any

from huggingface_hub import HfApi, constants, file_download
from huggingface_hub.utils import _http

ASKED = 10.0
"""Seconds to wait for the answer to a question (GET, HEAD)."""
DONE = 30.0
"""Seconds to wait for the answer to something the Hub has to do (create, commit, merge)."""
RETRIES = 2
"""How often the client's own loop asks again after a network error or a 5xx."""
PAUSE = 30
"""Longest pause, in seconds, that a busy Hub (429) can ask for."""
XET = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2", "HF_XET_CLIENT_CONNECT_TIMEOUT": "10s"}
"""Fewer tries of the Xet transfer. Its time limit stays: it counts the sending too, which a slow line needs."""


def api() -> HfApi:
    """The Hub's API with bounds; the token is the environment's or the login's, never ours to hold."""
    bounded()
    return HfApi(library_name="hf-tuner")


@functools.cache
def bounded() -> None:
    """Put the bounds on the client of this process, once."""
    for key, value in XET.items():
        os.environ.setdefault(key, value)
    _http.set_client_factory(functools.partial(_client, _http._GLOBAL_CLIENT_FACTORY))  # around a user's own, if any
    _http._http_backoff_base = functools.partial(_few_retries, _http._http_backoff_base)  # type: ignore[assignment]
    # Its second look for a file's metadata waits six times a minute.
    file_download._ETAG_RETRY_TIMEOUT = int(min(file_download._ETAG_RETRY_TIMEOUT, ASKED))


def token_source() -> str:
    """Where the token comes from, in words; "" when there is none."""
    from huggingface_hub import get_token

    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return "HF_TOKEN"
    return "the login" if get_token() else ""


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids asking."""
    return bool(constants.is_offline_mode())


def _client(factory: Any) -> Any:
    client = factory()
    hooks = client.event_hooks
    client.event_hooks = {
        **hooks,
        "request": [*hooks["request"], _limit],
        "response": [*hooks["response"], _short_pause],
    }
    return client


def _limit(request: Any) -> None:
    """Lower a request's time limits to ours; a limit that is lower already stays."""
    ceiling = ASKED if request.method in ("GET", "HEAD") else DONE
    given = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {
        key: min(given.get(key) or ceiling, ceiling) for key in ("connect", "read", "write", "pool")
    }


def _short_pause(response: Any) -> None:
    """A busy Hub may ask for an hour's pause; nobody waits an hour without being told."""
    asked = response.headers.get("Retry-After", "")
    if asked.isdigit() and int(asked) > PAUSE:
        response.headers["Retry-After"] = str(PAUSE)
    limit = response.headers.get("RateLimit", "")  # "api";r=0;t=290, which the client obeys first
    if limit:
        response.headers["RateLimit"] = re.sub(r"\bt=(\d+)", lambda t: f"t={min(int(t[1]), PAUSE)}", limit)


def _few_retries(original: Any, *args: Any, max_retries: int = RETRIES, **kwargs: Any) -> Any:
    return original(*args, max_retries=min(max_retries, RETRIES), **kwargs)
