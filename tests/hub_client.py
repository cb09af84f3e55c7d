"""Processes that talk to the stand-in: huggingface_hub reads its variables once, at import."""

import http.client
import json
import os
import re
import subprocess
import sys
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hub_server import Hub

XET_RETRIES = {
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
    "HF_XET_CLIENT_RETRY_BASE_DELAY": "100ms",
    "HF_XET_CLIENT_RETRY_MAX_DURATION": "5s",
}
"""By default Xet tries for minutes."""

PRELUDE = """
import pathlib, random
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, ModelCard

def outcome(call):
    try:
        call()
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", "")
        return f"{type(error).__name__} {status}".strip()
    return "ok"

alice, bob, reader = HfApi(), HfApi(token="hf_bob"), HfApi(token="hf_reader")
fine, fine_write = HfApi(token="hf_fine"), HfApi(token="hf_fine_write")
nobody, wrong = HfApi(token=False), HfApi(token="hf_wrong")
"""
"""How a script for `ask` may begin: a client for everyone, and what becomes of a call, in a word or two."""


def environment(
    hub: "Hub",
    home: Path,
    token: str = "hf_alice",  # noqa: S107 (known to the stand-in only)
    xet: bool = False,
    **more: str,
) -> dict[str, str]:
    """The environment of a process whose Hub is the stand-in, with caches in `home`; without a token when it is ""."""
    taken_out = re.compile(r"(HF|HUGGING\w*)_.*|.*_OFFLINE")
    own = {name: value for name, value in os.environ.items() if not taken_out.fullmatch(name)}
    return {
        **own,
        **XET_RETRIES,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        **({"HF_TOKEN": token} if token else {}),
        **more,
    }


def ask(script: str, variables: dict[str, str], timeout: float = 120) -> Any:
    """Run a script of Python in a process of its own; what it puts into `seen` comes back, through JSON."""
    whole = f"import json\nseen = {{}}\n{script}\nprint(json.dumps(seen))"
    line = [sys.executable, "-c", whole]
    done = subprocess.run(line, env=variables, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def fetch(
    hub: "Hub", path: str, method: str = "GET", body: bytes = b"", timeout: float = 10, **headers: str
) -> tuple[int, bytes, Message]:
    """One request on a connection of its own, without a client's retries: status, body and headers."""
    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=timeout)
    try:
        connection.request(method, path, body or None, headers)
        reply = connection.getresponse()
        return reply.status, reply.read(), reply.headers
    finally:
        connection.close()
