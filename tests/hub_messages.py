"""Requests as the handlers of the stand-in see them, and their replies and refusals."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

JSON_TYPE = "application/json; charset=utf-8"

READ, WRITE, DISCUSS = "repo.content.read", "repo.write", "discussion.write"
"""Permissions of fine-grained tokens, as the Hub names them."""


class Token(NamedTuple):
    """Who asks, and what the token allows; without a user, nobody has said who they are."""

    user: str | None = None
    role: str | None = None
    scoped: tuple[Mapping[str, Any], ...] = ()
    gated: bool = False

    def permits(self, permission: str, repo_id: str) -> bool:
        """Whether the token, apart from what its user may do, allows this in a repository."""
        if self.role != "fineGrained":
            return self.role == "write" or (self.role == "read" and permission == READ)
        names = (repo_id, repo_id.split("/")[0])
        return any(s["entity"]["name"] in names and permission in s["permissions"] for s in self.scoped)


class Place(NamedTuple):
    """The repository that a path names, and what follows it: still quoted, as a revision may hold slashes."""

    type: str
    id: str
    rest: tuple[str, ...] = ()

    @property
    def revision(self) -> str:
        """The revision that follows, main when none does."""
        return unquote(self.rest[0]) if self.rest else "main"

    @property
    def path(self) -> str:
        """The path in the repository that follows the revision."""
        return "/".join(unquote(part) for part in self.rest[1:]).strip("/")


@dataclass(frozen=True)
class Request:
    """One request with its whole body."""

    method: str
    target: str
    headers: Message
    token: Token = field(default_factory=Token)
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query, still quoted."""
        return urlsplit(self.target).path

    @property
    def segments(self) -> list[str]:
        """The parts of the path, still quoted."""
        return self.path.strip("/").split("/")

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The query's values by name."""
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def json(self) -> Any:
        """The body read as JSON; {} when there is none. Raises Refusal (400) when it is something else."""
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise Refusal(400, f"not JSON: {error}") from error

    @property
    def creates_pr(self) -> bool:
        """Whether a pull request is asked for."""
        return "create_pr" in self.query

    def flag(self, name: str) -> bool:
        """Whether the query says name=true or name=1."""
        return self.query.get(name, ["false"])[0].lower() in ("1", "true")


@dataclass
class Reply:
    """An answer: JSON for a dict or a list, otherwise bytes or a file as they are."""

    body: dict[str, Any] | list[Any] | bytes | Path = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> "Reply":
        """The same with a body of bytes or a file."""
        if isinstance(self.body, bytes | Path):
            return self
        return Reply(json.dumps(self.body).encode(), self.status, {"Content-Type": JSON_TYPE, **self.headers})


class Refusal(Exception):
    """An error as the Hub sends it.

    huggingface_hub goes by `code`, sent as X-Error-Code: its pattern for addresses knows https only.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})

    def reply(self) -> Reply:
        """The answer that says so."""
        message = str(self)
        headers = {**self.headers, "X-Error-Message": message.encode("ascii", "replace").decode().replace("\n", " ")}
        if self.code:
            headers["X-Error-Code"] = self.code
        return Reply({"error": message}, self.status, headers)
