"""How the Hub describes repositories and files in JSON."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from hub_store import Entry, Repository, Tree, pointer

CONFIG_KEYS = ("architectures", "model_type")


def named_oid(name: str) -> str:
    """An id for what has none of its own here."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


def file_view(path: str, entry: Entry) -> dict[str, Any]:
    """A file in a listing."""
    view: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.sha256:
        view["lfs"] = {"oid": entry.sha256, **_sizes(entry)}
    if entry.xet:
        view["xetHash"] = entry.xet
    return view


def folder_view(path: str) -> dict[str, Any]:
    """A folder in a listing."""
    return {"type": "directory", "oid": named_oid(path), "size": 0, "path": path}


def tree_view(tree: Tree, folder: str, recursive: bool) -> Iterator[dict[str, Any]]:
    """What lies in a folder ("" is the whole repository), folders before what is in them."""
    base = f"{folder}/" if folder else ""
    seen = set()
    for path, entry in sorted(tree.items()):
        if not path.startswith(base):
            continue
        for parent in _folders(base, path):
            if parent not in seen and (recursive or "/" not in parent.removeprefix(base)):
                seen.add(parent)
                yield folder_view(parent)
        if recursive or "/" not in path.removeprefix(base):
            yield file_view(path, entry)


def paths_view(tree: Tree, paths: list[str]) -> Iterator[dict[str, Any]]:
    """The files and folders among some paths; the unknown are left out."""
    for path in paths:
        if path in tree:
            yield file_view(path, tree[path])
        elif any(name.startswith(path.rstrip("/") + "/") for name in tree):
            yield folder_view(path)


def info_view(repo: Repository, sha: str, blobs: bool = False) -> dict[str, Any]:
    """A repository at a commit, with its files, and their sizes if `blobs`."""
    commit = repo.commits[sha]
    card = _card(commit.tree)
    return {
        "_id": named_oid(repo.id)[:24],
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.owner,
        "sha": sha,
        "lastModified": commit.date,
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": repo.disabled,
        "downloads": 0,
        "likes": 0,
        "tags": list(card.get("tags") or []),
        "cardData": card,
        "config": _config(commit.tree),
        "library_name": card.get("library_name"),
        "pipeline_tag": card.get("pipeline_tag"),
        "spaces": [],
        "siblings": [_sibling(path, entry, blobs) for path, entry in sorted(commit.tree.items())],
    }


def front_matter(text: bytes) -> Any:
    """The YAML at the head of a card, {} when there is none. Raises yaml.YAMLError."""
    match = re.match(rb"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    return (yaml.safe_load(match[1]) or {}) if match else {}


def card_fault(text: bytes) -> str | None:
    """What the Hub refuses in a card; None when nothing."""
    try:
        data = front_matter(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"Invalid YAML in README.md: {error}"
    if isinstance(data, dict) and isinstance(data.get("license"), list):
        return '"license" must be a string'
    return None


def _sizes(entry: Entry) -> dict[str, int]:
    return {"size": entry.size, "pointerSize": len(pointer(entry.sha256 or "", entry.size))}


def _folders(base: str, path: str) -> Iterator[str]:
    """The folders between a base and a file, the outer ones first."""
    parts = path.removeprefix(base).split("/")
    return (base + "/".join(parts[:depth]) for depth in range(1, len(parts)))


def _sibling(path: str, entry: Entry, blobs: bool) -> dict[str, Any]:
    view: dict[str, Any] = {"rfilename": path}
    if blobs:
        view |= {"size": entry.size, "blobId": entry.oid}
        if entry.sha256:
            view["lfs"] = {"sha256": entry.sha256, **_sizes(entry)}
    return view


def _card(tree: Tree) -> dict[str, Any]:
    readme = tree.get("README.md")
    try:
        data = front_matter(readme.data or b"") if readme else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return data if isinstance(data, dict) else {}


def _config(tree: Tree) -> dict[str, Any]:
    file = tree.get("config.json")
    try:
        values = json.loads(file.data or b"{}") if file else {}
    except ValueError:
        return {}
    return {key: values[key] for key in CONFIG_KEYS if key in values}
