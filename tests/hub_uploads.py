"""How files get into a repository: preupload, Git LFS, and commits."""

import base64
import fnmatch
import hashlib
import json
import math
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import hub_access
from hub_discussions import address, open_discussion
from hub_messages import Place, Refusal, Reply, Request
from hub_store import Change, Entry, Repository, Tree
from hub_views import card_fault

if TYPE_CHECKING:
    from hub_server import Hub

FILES_PER_PREUPLOAD = 256
LFS_TYPE = "application/vnd.git-lfs+json"

Operation = dict[str, Any]


def preupload(hub: "Hub", request: Request, place: Place) -> Reply:
    """How each file is to be sent, whether .gitignore leaves it out, and what is there already."""
    repo = hub_access.pushable(hub, request, place)
    tree = repo.tree(place.revision)
    files = request.json["files"]
    if len(files) > FILES_PER_PREUPLOAD:
        raise Refusal(400, f"{len(files)} files at once; at most {FILES_PER_PREUPLOAD}")
    patterns = _ignored(request.json.get("gitIgnore"), tree)
    return Reply({"files": [_planned(hub, file, tree, patterns) for file in files]})


def _ignored(text: str | None, tree: Tree) -> list[str]:
    """The patterns of a .gitignore: the one that is sent, or else the one that is there."""
    if text is None and ".gitignore" in tree:
        text = (tree[".gitignore"].data or b"").decode()
    lines = (line.strip() for line in (text or "").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _planned(hub: "Hub", file: Operation, tree: Tree, patterns: Iterable[str]) -> dict[str, Any]:
    path = file["path"]
    large = hub.is_lfs(path, file["size"], base64.b64decode(file["sample"]))
    there = tree.get(path)
    return {
        "path": path,
        "uploadMode": "lfs" if large else "regular",
        "shouldIgnore": any(_matches(path, pattern) for pattern in patterns),
        "oid": (there.sha256 or there.oid) if there else None,
    }


def _matches(path: str, pattern: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    inside = path.startswith(pattern.rstrip("/") + "/")
    return inside or fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(name, pattern)


def commit(hub: "Hub", request: Request, place: Place) -> Reply:
    """A commit of operations, one a line after a header; all of them are done, or none."""
    repo = hub_access.pushable(hub, request, place)
    head, operations = _read_commit(request.body)
    ref = place.revision
    with hub.lock:
        if ref not in repo.branches and not ref.startswith("refs/pr/"):
            raise Refusal(404, f"Invalid rev id: {ref}", "RevisionNotFound")
        before = repo.resolve(ref)
        if not before.startswith(head.get("parentCommit") or ""):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        change = _change(hub, repo.commits[before].tree, operations, head, request)
        answer = {"success": True, "hookOutput": ""}
        if request.creates_pr:
            opened = open_discussion(repo, change.author, change.title, change.message, base=ref)
            ref = f"refs/pr/{opened.num}"
            answer["pullRequestUrl"] = address(hub, repo, opened)
        sha = repo.commit(ref, change)
    return Reply({**answer, "commitOid": sha, "commitUrl": f"{hub.url}/{repo.page}/commit/{sha}"})


def _read_commit(body: bytes) -> tuple[Operation, list[Operation]]:
    """The header and the operations of a commit. Raises Refusal (400)."""
    try:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
    except ValueError as error:
        raise Refusal(400, f"not a commit: {error}") from error
    if not lines or lines[0]["key"] != "header":
        raise Refusal(400, "commit header must be first")
    return lines[0]["value"], lines[1:]


def _change(hub: "Hub", tree: Tree, operations: list[Operation], head: Operation, request: Request) -> Change:
    """What the operations do to a tree. Raises Refusal (400 or 404) for one that cannot be done."""
    add: dict[str, Entry] = {}
    delete: list[str] = []
    for operation in operations:
        key, value = operation["key"], operation["value"]
        if key == "file":
            add[value["path"]] = _regular(value)
        elif key == "lfsFile":
            add[value["path"]] = _large(hub, value)
        elif key == "deletedFile":
            if value["path"] not in tree:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            delete.append(value["path"])
        elif key == "deletedFolder":
            delete += [path for path in tree if path.startswith(value["path"].rstrip("/") + "/")]
        else:
            raise Refusal(400, f"unknown operation {key}")
    return Change(head["summary"], add, delete, head.get("description") or "", request.token.user or "")


def _regular(value: Operation) -> Entry:
    encoded = value.get("encoding", "utf-8") == "base64"
    data = base64.b64decode(value["content"]) if encoded else value["content"].encode()
    fault = card_fault(data) if value["path"] == "README.md" else None
    if fault:
        raise Refusal(400, fault)
    return Entry.regular(data)


def _large(hub: "Hub", value: Operation) -> Entry:
    """A large file by its sha256, which must have been sent before; a copy leaves its size out."""
    sha256 = value["oid"]
    xet, size = hub.xet.by_sha256(sha256) if hub.xet else (None, None)
    if xet is None and hub.lfs_path(sha256).is_file():
        size = hub.lfs_path(sha256).stat().st_size
    if size is None:
        raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
    if value.get("size") not in (None, size):
        raise Refusal(400, f"{value['path']} has {size} bytes, not {value['size']}")
    return Entry.large(sha256, size, xet)


def lfs_batch(hub: "Hub", request: Request, place: Place) -> Reply:
    """Where large files are to be sent to, or fetched from."""
    asked = request.json
    if asked["operation"] == "download":
        hub_access.readable(hub, request.token, place)
        return _lfs_reply("basic", [_download(hub, wanted) for wanted in asked["objects"]])
    hub_access.proposable(hub, request.token, place)
    parts = [_is_parted(hub, wanted, asked) for wanted in asked["objects"]]
    objects = [_upload(hub, wanted, parted) for wanted, parted in zip(asked["objects"], parts, strict=True)]
    return _lfs_reply("multipart" if any(parts) else "basic", objects)


def _lfs_reply(transfer: str, objects: list[Operation]) -> Reply:
    return Reply({"transfer": transfer, "objects": objects}, headers={"Content-Type": LFS_TYPE})


def _download(hub: "Hub", wanted: Operation) -> Operation:
    link = {"href": f"{hub.cdn}/_cdn/{wanted['oid']}"}
    return {"oid": wanted["oid"], "size": wanted["size"], "authenticated": True, "actions": {"download": link}}


def _is_parted(hub: "Hub", wanted: Operation, asked: Operation) -> bool:
    big = hub.multipart_over is not None and wanted["size"] > hub.multipart_over
    return big and "multipart" in asked.get("transfers", []) and not hub.lfs_path(wanted["oid"]).is_file()


def _upload(hub: "Hub", wanted: Operation, parted: bool) -> Operation:
    """What to do with an object; no actions when it is there already."""
    oid, size = wanted["oid"], wanted["size"]
    answer = {"oid": oid, "size": size, "authenticated": True}
    if hub.lfs_path(oid).is_file():
        return answer
    where = {"href": f"{hub.cdn}/_lfs/{oid}?size={size}"}
    if parted:
        where = _parts(hub, oid, size)
    return {**answer, "actions": {"upload": where, "verify": {"href": f"{hub.url}/_lfs/verify"}}}


def _parts(hub: "Hub", oid: str, size: int) -> Operation:
    upload = uuid.uuid4().hex
    hub.parts[upload] = {}
    numbers = range(1, math.ceil(size / hub.part_size) + 1)
    parts = {str(n): f"{hub.cdn}/_lfs/{oid}/part/{n}?upload={upload}" for n in numbers}
    complete = f"{hub.url}/_lfs/{oid}/complete?upload={upload}&size={size}"
    return {"href": complete, "header": {"chunk_size": str(hub.part_size), **parts}}


def lfs_object(hub: "Hub", request: Request) -> Reply:
    """`_lfs/verify`, and for an object the whole of it, a part of it, or the word that all parts were sent."""
    oid, *rest = request.segments[1:]
    if oid == "verify":
        return _verify(hub, request.json)
    if rest[:1] == ["part"]:
        hub.parts[request.query["upload"][0]][int(rest[1])] = request.body
        return Reply(b"", headers={"ETag": _etag(request.body)})
    if rest == ["complete"]:
        return _complete(hub, oid, request)
    hub.keep(request.body, oid)
    return Reply()


def _verify(hub: "Hub", said: Operation) -> Reply:
    path = hub.lfs_path(said["oid"])
    if not path.is_file() or path.stat().st_size != said["size"]:
        raise Refusal(404, "object not found")
    return Reply()


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _complete(hub: "Hub", oid: str, request: Request) -> Reply:
    """Put the parts together; a client that lost the reply may ask again."""
    if hub.lfs_path(oid).is_file():
        return Reply()
    upload = request.query["upload"][0]
    sent = hub.parts.get(upload, {})
    for part in request.json["parts"]:
        if part["etag"] != _etag(sent.get(part["partNumber"], b"")):
            raise Refusal(400, f"part {part['partNumber']} is missing or another")
    hub.keep(b"".join(sent[part["partNumber"]] for part in request.json["parts"]), oid)
    hub.parts.pop(upload, None)
    return Reply()


def super_squash(hub: "Hub", request: Request, place: Place) -> Reply:
    """Make one commit of a branch."""
    repo: Repository = hub_access.writable(hub, request.token, place)
    branch = place.revision
    with hub.lock:
        if branch not in repo.branches:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        tree = repo.tree(branch)
        del repo.branches[branch]
        repo.commit(branch, Change(request.json["message"], tree, author=request.token.user or ""))
    return Reply()
