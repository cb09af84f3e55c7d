"""Discussions and pull requests: opened, talked about, closed and merged."""

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import hub_access
from hub_messages import Place, Refusal, Reply, Request
from hub_store import Change, Discussion, Repository, Tree, now

if TYPE_CHECKING:
    from hub_server import Hub

OPEN = ("open", "draft")


def discussions(hub: "Hub", request: Request, place: Place) -> Reply:
    """`…/discussions`, `…/discussions/{n}` and `…/discussions/{n}/{action}`."""
    if request.method == "GET":
        return _shown(hub, request, place)
    if not place.rest:
        return _open(hub, request, place)
    return _act(hub, request, place)


def open_discussion(
    repo: Repository,
    author: str,
    title: str,
    text: str,
    pull_request: bool = True,
    status: str = "open",
    base: str = "main",
) -> Discussion:
    """A new discussion or pull request, with its first comment."""
    start = repo.resolve(base)
    opened = Discussion(len(repo.prs) + 1, title, author, pull_request, status, base, start, start)
    opened.events.append(_comment(author, text))
    repo.prs[opened.num] = opened
    return opened


def address(hub: "Hub", repo: Repository, discussion: Discussion) -> str:
    """The page of a discussion, as clients parse it."""
    return f"{hub.url}/{repo.page}/discussions/{discussion.num}"


def discussion_view(repo: Repository, discussion: Discussion) -> dict[str, Any]:
    """A discussion as the Hub describes it."""
    return {
        "num": discussion.num,
        "title": discussion.title,
        "author": {"name": discussion.author},
        "createdAt": discussion.date,
        "status": discussion.status,
        "repo": {"name": repo.id, "type": repo.type},
        "isPullRequest": discussion.pull_request,
        "events": discussion.events,
        "filesWithConflicts": conflicts(repo, discussion),
        "changes": {"base": f"refs/heads/{discussion.base}", "mergeCommitId": discussion.merged},
        "diff": "",
    }


def conflicts(repo: Repository, discussion: Discussion) -> list[str]:
    """Files that both the pull request and its base have changed since, each in its own way."""
    if discussion.status not in OPEN or discussion.base not in repo.branches:
        return []
    start, head, base = (repo.commits[sha].tree for sha in _three(repo, discussion))
    return [p for p in _changed(start, head) if start.get(p) != base.get(p) != head.get(p)]


def _three(repo: Repository, discussion: Discussion) -> tuple[str, str, str]:
    return discussion.start, discussion.head, repo.branches[discussion.base]


def _changed(old: Tree, new: Tree) -> Iterator[str]:
    return (path for path in sorted({*old, *new}) if old.get(path) != new.get(path))


def _event(author: str | None, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex[:24],
        "type": kind,
        "createdAt": now(),
        "author": {"name": author},
        "data": data,
    }


def _comment(author: str | None, text: str) -> dict[str, Any]:
    return _event(author, "comment", {"edited": False, "hidden": False, "latest": {"raw": text}})


def _shown(hub: "Hub", request: Request, place: Place) -> Reply:
    repo = hub_access.visible(hub, request.token, place)
    if place.rest:
        return Reply(discussion_view(repo, _found(repo, place)))
    views = [discussion_view(repo, d) for d in repo.prs.values() if _asked(request, d)]
    return Reply({"discussions": views, "count": len(views), "start": 0})


def _asked(request: Request, discussion: Discussion) -> bool:
    """Whether a listing asks for a discussion, by its kind, status and author."""
    kind = "pull_request" if discussion.pull_request else "discussion"
    status = "open" if discussion.status in OPEN else "closed"
    facts = {"type": (kind, "all"), "status": (status, "all"), "author": (discussion.author,)}
    return all(value in facts[name] for name in facts for value in request.query.get(name, []))


def _found(repo: Repository, place: Place) -> Discussion:
    number = place.rest[0]
    if not number.isdecimal() or int(number) not in repo.prs:
        raise Refusal(404, "Discussion not found")
    return repo.prs[int(number)]


def _open(hub: "Hub", request: Request, place: Place) -> Reply:
    repo = hub_access.proposable(hub, request.token, place)
    asked = request.json
    pull = bool(asked.get("pullRequest"))
    text = asked.get("description") or ""
    with hub.lock:
        status = "draft" if pull else "open"  # as the Hub does for those that programs open empty
        author = hub_access.logged_in(request.token)
        opened = open_discussion(repo, author, asked["title"], text, pull, status)
    return Reply({"num": opened.num, "url": address(hub, repo, opened), "pullRequest": pull})


def _act(hub: "Hub", request: Request, place: Place) -> Reply:
    repo = hub_access.visible(hub, request.token, place)
    discussion = _found(repo, place)
    action = ACTIONS.get("/".join(place.rest[1:]))
    if action is None:
        raise Refusal(404, "unknown discussion action")
    if action is _add_comment:
        hub_access.proposable(hub, request.token, place)
    elif action is _merge:
        hub_access.writable(hub, request.token, place)
    else:
        hub_access.own_discussion(hub, request.token, place, discussion.num)
    with hub.lock:
        event = action(repo, discussion, request)
        discussion.events.append(event)
    names = ("newStatus", "newMessage", "newTitle")
    return Reply(dict.fromkeys(names, event))


def _add_comment(repo: Repository, discussion: Discussion, request: Request) -> dict[str, Any]:
    return _comment(request.token.user, request.json["comment"])


def _set_title(repo: Repository, discussion: Discussion, request: Request) -> dict[str, Any]:
    change = {"from": discussion.title, "to": request.json["title"]}
    discussion.title = change["to"]
    return _event(request.token.user, "title-change", change)


def _set_status(repo: Repository, discussion: Discussion, request: Request) -> dict[str, Any]:
    status = request.json["status"]
    if status not in ("open", "closed"):
        raise Refusal(400, f"no status {status}")
    discussion.status = status
    return _event(request.token.user, "status-change", {"status": status})


def _merge(repo: Repository, discussion: Discussion, request: Request) -> dict[str, Any]:
    """Put what the pull request changed, and nothing else, on top of its base."""
    if not discussion.pull_request or discussion.status not in OPEN:
        raise Refusal(409, "This is not an open pull request")
    if files := conflicts(repo, discussion):
        raise Refusal(409, f"Merge conflicts in {', '.join(files)}")
    start, head = (repo.commits[sha].tree for sha in _three(repo, discussion)[:2])
    changed = list(_changed(start, head))
    add = {path: head[path] for path in changed if path in head}
    delete = [path for path in changed if path not in head]
    title = f"{discussion.title} (#{discussion.num})"
    change = Change(title, add, delete, author=request.token.user or "")
    discussion.merged = repo.commit(discussion.base, change)
    discussion.status = "merged"
    return _event(request.token.user, "status-change", {"status": "merged"})


ACTIONS = {"comment": _add_comment, "title": _set_title, "status": _set_status, "merge": _merge}
