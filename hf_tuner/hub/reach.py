"""Is the Hub there? Asked once, with a short limit, before a library spends minutes on retries."""

import functools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from hf_tuner.errors import EnvironmentFault
from hf_tuner.hub.client import bounded

SECONDS = 5.0
"""Longest wait for an answer. A name server that never answers is covered too."""
REMEMBERED = 60.0
"""Seconds that an answer counts for."""
ALTERNATIVE = (
    "use a local copy (--model FOLDER, --dataset FILE), or the embedded alternative: --model demo --dataset demo"
)


def require_hub(what: str, cached: bool = False) -> None:
    """Return when `what` ("the model bert-base-uncased") can be had: it is in the cache, or the Hub answers.

    Raises EnvironmentFault within SECONDS otherwise, naming the reason and the alternatives.
    """
    if cached:
        return
    if constants.is_offline_mode():
        raise EnvironmentFault(
            f"{what} is not in the cache ({constants.HF_HOME}), and HF_HUB_OFFLINE forbids fetching it; "
            f"unset HF_HUB_OFFLINE, or {ALTERNATIVE}"
        )
    reason = unreachable()
    if reason:
        raise EnvironmentFault(
            f"the Hub ({constants.ENDPOINT}) cannot be reached ({reason}) to fetch {what}; {ALTERNATIVE}"
        )


def require_answer() -> None:
    """Return when the Hub answers, for what only it can tell. Raises EnvironmentFault."""
    reason = unreachable()
    if reason:
        raise EnvironmentFault(f"the Hub ({constants.ENDPOINT}) cannot be reached: {reason}")


def unreachable() -> str | None:
    """Why the Hub does not answer, in a few words; None when it does."""
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    return _answer(constants.ENDPOINT, int(time.monotonic() // REMEMBERED))


@functools.cache
def _answer(endpoint: str, period: int) -> str | None:
    """One question in a while: a Hub that hangs must not cost SECONDS for every file."""
    bounded()
    answers: list[str | None] = []
    # The client's own limits leave name resolution out, so the wait is bounded from outside.
    asking = threading.Thread(target=lambda: answers.append(_ask()), daemon=True)
    asking.start()
    asking.join(SECONDS)
    return answers[0] if answers else f"no answer within {SECONDS:g} s"


def _ask() -> str | None:
    try:
        # The libraries' own client: same proxies, same certificates as the download that follows.
        status = get_session().head(constants.ENDPOINT, timeout=0.8 * SECONDS).status_code
    except Exception as error:  # every kind of failure means the same here, and nothing may escape a thread
        return " ".join(str(error).split())[:120] or type(error).__name__
    return f"it answers with status {status}" if status >= 500 or status == 407 else None


@contextmanager
def offline() -> Iterator[None]:
    """Keep the Hugging Face libraries from asking the network: what is local or cached is read as it lies."""
    import datasets

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
