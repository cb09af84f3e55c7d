"""The stand-in asked by this very process, in alice's name."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from hub_server import Hub
from huggingface_hub import constants

from hf_tuner.hub import client, preflight, push
from hf_tuner.hub.client import bounded
from hf_tuner.hub.preflight import Destination

REPO = "alice/run"
WEIGHTS = "adapter_model.safetensors"
ALICE = "hf_alice"


def online(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """Let the libraries ask an address, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache / "datasets"))


def connect(monkeypatch: pytest.MonkeyPatch, url: str, place: Path, token: str = ALICE) -> None:
    """Point the client of this process at an address, with a token and without pauses."""
    online(monkeypatch, url, place)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HOME", str(place))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(place / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(push, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(client, "DONE", 2.0)
    bounded()


def share(run: Path, **settings: Any) -> push.Pushed:
    """Preflight and push, as the command does."""
    return push.push(run, preflight.preflight(preflight.checked(Destination(**{"repo": REPO, **settings}))))


def files_of(hub: Hub, repo: str = REPO) -> set[str]:
    """What lies on the main branch."""
    store = hub.repo("model", repo)
    return set(store.commits[store.branches["main"]].tree)
