"""The commit that a name on the Hub stands for now, so that every file of a run comes from one and the same."""

import functools
import re
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from hf_tuner.hub.client import api
from hf_tuner.hub.faults import hub_faults
from hf_tuner.hub.reach import unreachable


def pin(repo: str, kind: str = "model", revision: str | None = None) -> str | None:
    """The commit of a branch, tag or commit (None: main); what the cache last knew when the Hub cannot be asked.

    `kind` is "model" or "dataset". Raises EnvironmentFault for a repository that is missing, gated or out of reach of
    the token. (transformers 5 no longer says which commit it loaded.)
    """
    if unreachable():
        return cached_commit(repo, kind, revision)
    return _asked(constants.ENDPOINT, repo, kind, revision)


def cached_commit(repo: str, kind: str = "model", revision: str | None = None) -> str | None:
    """The commit in the client's cache, or None."""
    folder = cache_folder(repo, kind)
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision if (folder / "snapshots" / revision).is_dir() else None
    ref = folder / "refs" / (revision or "main")
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else None
    return commit if commit and (folder / "snapshots" / commit).is_dir() else None


def cache_folder(repo: str, kind: str) -> Path:
    """Where the client keeps a repository."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind)


@functools.cache
def _asked(endpoint: str, repo: str, kind: str, revision: str | None) -> str:
    """One question a process, so that main cannot move between the configuration and the weights."""
    with hub_faults(f"the {'data set' if kind == 'dataset' else kind} {repo}", repo, kind):
        info = api().repo_info(repo, repo_type=kind, revision=revision)
        api().auth_check(info.id, repo_type=kind)  # a gated repository answers the first question to everybody
    _remember(repo, kind, revision, str(info.sha))
    return str(info.sha)


def _remember(repo: str, kind: str, revision: str | None, commit: str) -> None:
    """Leave the name in the client's cache, as its own downloads by name do: offline it is asked for by name."""
    ref = cache_folder(repo, kind) / "refs" / (revision or "main")
    if revision != commit:
        with suppress(OSError):
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit, encoding="utf-8")
