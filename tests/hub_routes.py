"""Which handler answers which path, and those handlers that read repositories or make and move them."""

import base64
import re
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlencode

import hub_access
import hub_uploads
import hub_xet
from hub_discussions import discussions
from hub_messages import WRITE, Place, Refusal, Reply, Request
from hub_store import Repository, pointer
from hub_views import card_fault, info_view, paths_view, tree_view

if TYPE_CHECKING:
    from hub_server import Hub

KINDS = ("models", "datasets", "spaces", "kernels")
NOT_FOUND = "Sorry, we can't find the page you are looking for."
LFS_BATCH = re.compile(r"((?:[^/]+/)?[^/]+)\.git/info/lfs/objects/batch")

Handler = Callable[["Hub", Request, Place], Reply]


def route(hub: "Hub", request: Request) -> Reply:
    """The answer to a request. Raises Refusal."""
    roots = {"_hub": _admin, "_cdn": _cdn, "_lfs": hub_uploads.lfs_object, "_xet": _xet, "api": _api}
    return roots.get(request.segments[0], _page)(hub, request)


def _api(hub: "Hub", request: Request) -> Reply:
    name, *rest = request.segments[1:] or [""]
    if name in KINDS:
        return _repository(hub, request, name[:-1], rest) if rest else _listing(hub, request, name[:-1])
    if name == "whoami-v2":
        return Reply(hub_access.whoami(hub, request.token))
    if name == "validate-yaml":
        return _validate(request)
    if name == "repos" and rest:
        return _repos(hub, request, rest[0])
    if name in ("telemetry", "agent-harnesses"):
        return Reply()
    raise Refusal(404, NOT_FOUND)


def _validate(request: Request) -> Reply:
    fault = card_fault(request.json["content"].encode())
    if fault:
        return Reply({"errors": [{"message": fault}], "warnings": [], "error": fault}, 400)
    return Reply({"errors": [], "warnings": []})


def _listing(hub: "Hub", request: Request, kind: str) -> Reply:
    """Repositories by a part of their id and by their owner."""
    wanted, owners = request.query.get("search", []), request.query.get("author", [])
    found = [
        repo
        for repo in list(hub.repos.values())
        if repo.type == kind
        and hub_access.sees(hub, request.token, repo)
        and all(word in repo.id for word in wanted)
        and all(owner == repo.owner for owner in owners)
    ]
    views = [info_view(repo, repo.resolve("main")) for repo in found]
    return Reply([{key: value for key, value in view.items() if key != "siblings"} for view in views])


def _repository(hub: "Hub", request: Request, kind: str, parts: list[str]) -> Reply:
    """`/api/{kind}s/{id}[/{what}/…]`, where an id may have one part or two."""
    has_two = len(parts) > 1 and (parts[1] not in HANDLERS or (kind, "/".join(parts[:2])) in hub.repos)
    size = 2 if has_two else 1
    repo_id = "/".join(unquote(part) for part in parts[:size])
    what, *rest = parts[size:] or [""]
    if (new_name := _renamed(hub, kind, repo_id)) is not None:
        return _redirect(hub, request, ["api", f"{kind}s", new_name, *parts[size:]])
    methods, handler = HANDLERS.get(what, ("", _info))
    if request.method.replace("HEAD", "GET") not in methods.split():
        raise Refusal(404, f"{NOT_FOUND} ({request.method} {what})")
    return handler(hub, request, Place(kind, repo_id, tuple(rest)))


def _renamed(hub: "Hub", kind: str, repo_id: str) -> str | None:
    """The name that a missing repository goes by now."""
    return None if (kind, repo_id) in hub.repos else hub.aliases.get(repo_id)


def _redirect(hub: "Hub", request: Request, parts: list[str]) -> Reply:
    query = request.target.partition("?")[2]
    address = f"{hub.url}/{'/'.join(parts)}" + (f"?{query}" if query else "")
    return Reply(b"", 307, {"Location": address})


def _info(hub: "Hub", request: Request, place: Place) -> Reply:
    repo = hub_access.visible(hub, request.token, place)
    return Reply(info_view(repo, repo.resolve(place.revision), request.flag("blobs")))


def _tree(hub: "Hub", request: Request, place: Place) -> Reply:
    """What lies in a folder, a page at a time."""
    repo = hub_access.visible(hub, request.token, place)
    sha = repo.resolve(place.revision)
    views = list(tree_view(repo.commits[sha].tree, place.path, request.flag("recursive")))
    if place.path and not views:
        message = f'{place.path} does not exist on "{place.revision}"'
        raise Refusal(404, message, "EntryNotFound", {"X-Repo-Commit": sha})
    start = int(request.query.get("cursor", ["0"])[0])
    end = start + hub.page_size
    headers = {}
    if end < len(views):
        query = urlencode({**request.query, "cursor": [str(end)]}, doseq=True)
        headers["Link"] = f'<{hub.url}{request.path}?{query}>; rel="next"'
    return Reply(list(views[start:end]), headers=headers)


def _paths_info(hub: "Hub", request: Request, place: Place) -> Reply:
    """Some files and folders, from a form or from JSON."""
    repo = hub_access.visible(hub, request.token, place)
    if request.headers.get("Content-Type", "").startswith("application/json"):
        paths = request.json["paths"]
    else:
        paths = parse_qs(request.body.decode()).get("paths", [])
    return Reply(list(paths_view(repo.tree(place.revision), [paths] if isinstance(paths, str) else paths)))


def _commits(hub: "Hub", request: Request, place: Place) -> Reply:
    repo = hub_access.visible(hub, request.token, place)
    views = []
    sha: str | None = repo.resolve(place.revision)
    while sha:
        commit = repo.commits[sha]
        view = {"id": sha, "title": commit.title, "message": commit.message, "date": commit.date}
        views.append({**view, "authors": [{"user": commit.author}]})
        sha = commit.parent
    return Reply(views)


def _refs(hub: "Hub", request: Request, place: Place) -> Reply:
    repo = hub_access.visible(hub, request.token, place)
    answer: dict[str, Any] = {"converts": []}
    for kind, folder, table in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags)):
        views = [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": sha} for n, sha in table.items()]
        answer[kind] = views
    if "include_prs" in request.query:
        pulls = [d for d in repo.prs.values() if d.pull_request]
        views = [{"name": str(d.num), "ref": f"refs/pr/{d.num}", "targetCommit": d.head} for d in pulls]
        answer["pullRequests"] = views
    return Reply(answer)


def _auth_check(hub: "Hub", request: Request, place: Place) -> Reply:
    check = hub_access.writable if place.rest else hub_access.readable
    check(hub, request.token, place)
    return Reply()


def _settings(hub: "Hub", request: Request, place: Place) -> Reply:
    repo = hub_access.writable(hub, request.token, place)
    asked = request.json
    if "visibility" in asked or "private" in asked:
        repo.private = _is_private(asked)
    repo.gated = asked.get("gated", repo.gated)
    return Reply()


def _is_private(asked: dict[str, Any]) -> bool:
    """Newer clients say visibility="private", older ones private=True."""
    return asked.get("visibility") == "private" or bool(asked.get("private"))


def _branch(hub: "Hub", request: Request, place: Place) -> Reply:
    """POST …/branch/{name} {"startingPoint": revision}, DELETE …/branch/{name}."""
    repo = hub_access.writable(hub, request.token, place)
    name = unquote("/".join(place.rest))
    if request.method == "DELETE":
        return _drop_name(hub, repo.branches, name)
    sha = repo.resolve(request.json.get("startingPoint") or "main")
    return _give_name(hub, repo.branches, name, sha)


def _tag(hub: "Hub", request: Request, place: Place) -> Reply:
    """POST …/tag/{revision} {"tag": name}, DELETE …/tag/{name}."""
    repo = hub_access.writable(hub, request.token, place)
    named = unquote("/".join(place.rest))
    if request.method == "DELETE":
        return _drop_name(hub, repo.tags, named)
    return _give_name(hub, repo.tags, request.json["tag"], repo.resolve(named))


def _drop_name(hub: "Hub", table: dict[str, str], name: str) -> Reply:
    with hub.lock:
        if table.pop(name, None) is None:
            raise Refusal(404, f"Reference does not exist: {name}", "RevisionNotFound")
    return Reply(b"", 204)


def _give_name(hub: "Hub", table: dict[str, str], name: str, sha: str) -> Reply:
    with hub.lock:
        if name in table:
            raise Refusal(409, f"Reference already exists: {name}")
        table[name] = sha
    return Reply({"success": True})


def _xet_token(hub: "Hub", request: Request, place: Place) -> Reply:
    writes = "xet-write-token" in request.segments
    check = hub_access.pushable(hub, request, place) if writes else hub_access.readable(hub, request.token, place)
    if not hub.xet:
        raise Refusal(404, f"Xet is not enabled for {check.id}")
    return hub_xet.connection(hub.url, writes)


HANDLERS: dict[str, tuple[str, Handler]] = {
    "": ("GET", _info),
    "revision": ("GET", _info),
    "tree": ("GET", _tree),
    "paths-info": ("POST", _paths_info),
    "commits": ("GET", _commits),
    "refs": ("GET", _refs),
    "auth-check": ("GET", _auth_check),
    "settings": ("PUT", _settings),
    "branch": ("POST DELETE", _branch),
    "tag": ("POST DELETE", _tag),
    "discussions": ("GET POST", discussions),
    "preupload": ("POST", hub_uploads.preupload),
    "commit": ("POST", hub_uploads.commit),
    "super-squash": ("POST", hub_uploads.super_squash),
    "xet-read-token": ("GET", _xet_token),
    "xet-write-token": ("GET", _xet_token),
}
"""What can follow a repository's id under /api: its methods and its handler."""


def _repos(hub: "Hub", request: Request, action: str) -> Reply:
    """`/api/repos/{create,delete,move}`."""
    user = hub_access.logged_in(request.token)
    asked = request.json
    kind = asked.get("type") or "model"
    if action == "move":
        return _move(hub, request, Place(kind, asked["fromRepo"]), asked["toRepo"])
    place = Place(kind, f"{asked.get('organization') or user}/{asked['name']}")
    _owned(hub, request, place)
    if action == "delete":
        repo = hub_access.writable(hub, request.token, place)
        del hub.repos[repo.type, repo.id]
        return Reply()
    return _create(hub, place, _is_private(asked))


def _owned(hub: "Hub", request: Request, place: Place) -> None:
    """Raises Refusal (403) for a name that does not belong to who asks, or a token that may not write."""
    if not hub_access.may(hub, request.token, WRITE, place.id):
        owner = place.id.split("/")[0]
        raise Refusal(403, f'You don\'t have the rights to create a {place.type} under the namespace "{owner}"')


def _create(hub: "Hub", place: Place, private: bool) -> Reply:
    """Make a repository; one that is there already is said with its address, for `exist_ok`."""
    url = f"{hub.url}/{Repository(place.type, place.id).page}"
    with hub.lock:
        if (place.type, place.id) in hub.repos:
            there = "You already created this repo"
            return Reply({"error": there, "url": url}, 409, {"X-Error-Message": there})
        hub.create(place.type, place.id, private)
    return Reply({"url": url, "name": place.id, "id": uuid.uuid4().hex[:24]})


def _move(hub: "Hub", request: Request, place: Place, name: str) -> Reply:
    """Give a repository another name; the old one leads there from now on."""
    repo = hub_access.writable(hub, request.token, place)
    _owned(hub, request, Place(place.type, name))
    with hub.lock:
        if (place.type, name) in hub.repos:
            raise Refusal(409, f"{name} exists already")
        del hub.repos[place.type, place.id]
        repo.id = name
        hub.repos[place.type, name] = repo
        hub.aliases[place.id] = name
    return Reply()


def _page(hub: "Hub", request: Request) -> Reply:
    """Paths outside /api: `[{kind}s/]{id}/resolve/{revision}/{path}`, and Git LFS."""
    parts = request.segments
    if parts == [""]:
        return Reply()
    kind = "model"
    if parts[0] in KINDS[1:]:
        kind, parts = parts[0][:-1], parts[1:]
    if match := LFS_BATCH.fullmatch("/".join(parts)):
        return hub_uploads.lfs_batch(hub, request, Place(kind, match[1]))
    verb = next((i for i in (1, 2) if parts[i : i + 1] in (["resolve"], ["raw"])), None)
    if verb is None or len(parts) < verb + 3:
        raise Refusal(404, NOT_FOUND)
    repo_id = "/".join(unquote(part) for part in parts[:verb])
    if (new_name := _renamed(hub, kind, repo_id)) is not None:
        folder = [] if kind == "model" else [f"{kind}s"]
        return _redirect(hub, request, [*folder, new_name, *parts[verb:]])
    place = Place(kind, repo_id, tuple(parts[verb + 1 :]))
    return _resolve(hub, request, place, raw=parts[verb] == "raw")


def _resolve(hub: "Hub", request: Request, place: Place, raw: bool) -> Reply:
    """A file: its bytes, or where the CDN has them; or as git has it (`raw`)."""
    repo = hub_access.readable(hub, request.token, place)
    sha = repo.resolve(place.revision)
    headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    entry = repo.commits[sha].tree.get(place.path)
    if entry is None:
        raise Refusal(404, "Entry not found", "EntryNotFound", headers)
    if entry.sha256 is None or raw:
        data = entry.data if entry.sha256 is None else pointer(entry.sha256, entry.size)
        return Reply(data or b"", headers={**headers, "ETag": f'"{entry.oid}"', **BINARY})
    headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    if entry.xet:
        token = f"{hub.url}/api/{repo.type}s/{repo.id}/xet-read-token/{sha}"
        headers |= {"X-Xet-Hash": entry.xet, "Link": f'<{token}>; rel="xet-auth"'}
    return Reply(b"", 302, {**headers, "Location": f"{hub.cdn}/_cdn/{entry.sha256}"})


BINARY = {"Content-Type": "application/octet-stream"}


def _cdn(hub: "Hub", request: Request) -> Reply:
    path = hub.large_file(request.segments[-1])
    if path is None:
        raise Refusal(404, "NoSuchKey")
    return Reply(path, headers={"ETag": f'"{path.name}"', "Accept-Ranges": "bytes", **BINARY})


def _xet(hub: "Hub", request: Request) -> Reply:
    if not hub.xet:
        raise Refusal(404, NOT_FOUND)
    return hub.xet.route(request, hub.cdn)


def _admin(hub: "Hub", request: Request) -> Reply:
    """`/_hub/…`, for tests that have the stand-in in another process."""
    what = (request.method, request.segments[1] if len(request.segments) > 1 else "")
    if what == ("POST", "faults"):
        hub.fail(**request.json)
    elif what == ("GET", "faults"):
        return Reply([asdict(fault) for fault in hub.faults])
    elif what == ("DELETE", "faults"):
        hub.faults.clear()
    elif what == ("GET", "journal"):
        return Reply([dict(record) for record in hub.journal])
    elif what == ("DELETE", "journal"):
        hub.journal.clear()
    elif what == ("POST", "repos"):
        asked = {"type": "model", **request.json}
        files = {path: base64.b64decode(data) for path, data in asked.pop("files", {}).items()}
        hub.create(**asked, files=files)
    else:
        raise Refusal(404, "unknown admin route")
    return Reply()
