"""The Hub is asked once, briefly, before anything waits for it; what it lacks is said in a line."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError
from hub_here import online
from huggingface_hub import constants

from hf_tuner.config import Run
from hf_tuner.data import sources
from hf_tuner.data.load import load_data
from hf_tuner.data.sources import _no_config
from hf_tuner.errors import EnvironmentFault, UsageError
from hf_tuner.hub import reach


class Task:
    """The columns of a text classifier."""

    columns: ClassVar = {"text": ("text",), "label": ("label",)}


def load(name: str) -> None:
    """Load a data set by name."""
    load_data(Run(dataset=name, output_dir="unused"), Task)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A server in place of the Hub, which knows nothing; yields the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path in ("", "/") else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    online(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path)
    yield asked
    server.shutdown()
    server.server_close()


@pytest.mark.fault(60)
def test_an_unreachable_hub_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A closed port: exit 3 in seconds, with the embedded alternative."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        online(monkeypatch, f"http://127.0.0.1:{free.getsockname()[1]}", tmp_path)
    start = time.monotonic()
    with pytest.raises(EnvironmentFault, match=r"cannot be reached.*--model demo --dataset demo") as caught:
        load("org/name")
    assert time.monotonic() - start < 10
    assert caught.value.exit_code == 3


@pytest.mark.fault(60)
def test_a_silent_hub_is_waited_for_a_moment_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server that takes the connection and never answers."""
    monkeypatch.setattr(reach, "SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        online(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        start = time.monotonic()
        with pytest.raises(EnvironmentFault, match=r"no answer within|timed out"):
            reach.require_hub("the model x")
        assert time.monotonic() - start < 3


@pytest.mark.fault(60)
def test_what_is_cached_needs_no_hub(hub: list[str]) -> None:
    """With a cached copy nothing is asked; without, the Hub is."""
    reach.require_hub("the model x", cached=True)
    assert hub == []
    reach.require_hub("the model x")
    assert hub == ["/"] or hub == [""]


@pytest.mark.fault(60)
def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE set and nothing in the cache: the message says both."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentFault, match=r"not in the cache.*HF_HUB_OFFLINE"):
        load("org/name")


def test_offline_is_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' switch is put back, after an error too."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def fail() -> None:
        with reach.offline():
            assert constants.is_offline_mode()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not constants.is_offline_mode()


ANSWERS = {
    "unknown": (
        DatasetNotFoundError("Dataset 'org/name' doesn't exist on the Hub"),
        EnvironmentFault,
        "the data set org/name: Dataset 'org/name' doesn't exist",
    ),
    "script": (
        RuntimeError("Dataset scripts are no longer supported, but found x.py"),
        UsageError,
        "refs/convert/parquet",
    ),
    "gated": (DatasetNotFoundError("Dataset 'org/name' is a gated dataset"), EnvironmentFault, "gated"),
    "connection": (ConnectionError("reset by peer"), EnvironmentFault, "cannot be fetched: reset by peer"),
    "configuration": (
        ValueError("Config name is missing. available configs: ['a', 'b']"),
        UsageError,
        "org/name:CONFIG",
    ),
}


@pytest.mark.parametrize("raised, kind, said", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.fault(60)
def test_what_the_hub_refuses_is_one_line(
    raised: Exception, kind: type, said: str, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each error of the library becomes one line that says what to do."""

    def refuse(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr(sources, "pin", lambda *_: "0" * 40)
    with pytest.raises(kind, match=said) as caught:
        load("org/name")
    assert "\n" not in str(caught.value)


def test_missing_configurations_are_listed() -> None:
    """Both wordings of the library become the plain list."""
    first = ValueError("BuilderConfig 'x' not found. Available: ['en', 'de']")
    second = ValueError(
        "Config name is missing.\nPlease pick one among the available configs: ['en', 'de']\nExample: …"
    )
    assert _no_config(first) == 'no configuration "x"; there are: en, de'
    assert _no_config(second) == "several configurations; there are: en, de"
