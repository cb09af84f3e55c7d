"""What the stand-in keeps: repositories with their commits, in memory, and large files, on disk."""

import fnmatch
import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub_messages import Refusal

LFS_PATTERNS = (
    "*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.parquet", "*.arrow", "*.onnx", "*.msgpack", "*.zip",
    "*.gz", "*.tar", "*.npz", "*.npy", "*.pkl", "*.model", "*.jpg", "*.png",
)  # fmt: skip
SAMPLE = 512
"""How many first bytes say whether a file is text."""


def now() -> str:
    """The time as the Hub writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


def blob_oid(data: bytes) -> str:
    """What git calls these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """The text that git keeps in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def pull_request(name: str) -> int | None:
    """The number in "refs/pr/1"; None for any other name."""
    match = re.fullmatch(r"refs/pr/(\d+)", name)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class Entry:
    """One file of one commit: regular with its bytes, or large with its sha256, and its Xet hash if it has one."""

    oid: str
    size: int
    sha256: str | None = None
    xet: str | None = None
    data: bytes | None = None

    @classmethod
    def regular(cls, data: bytes) -> "Entry":
        """A file kept in git."""
        return cls(blob_oid(data), len(data), data=data)

    @classmethod
    def large(cls, sha256: str, size: int, xet: str | None = None) -> "Entry":
        """A file that git has a pointer for."""
        return cls(blob_oid(pointer(sha256, size)), size, sha256, xet)


Tree = dict[str, Entry]


@dataclass(frozen=True)
class Change:
    """What a commit does to the tree before it: first it deletes, then it adds."""

    title: str
    add: Mapping[str, Entry] = field(default_factory=dict)
    delete: Iterable[str] = ()
    message: str = ""
    author: str = "alice"


@dataclass(frozen=True)
class Commit:
    """A commit with its whole tree."""

    id: str
    parent: str | None
    tree: Tree
    title: str
    message: str
    author: str
    date: str


@dataclass
class Discussion:
    """A discussion, or a pull request from `start`, where it left `base`, to `head`."""

    num: int
    title: str
    author: str
    pull_request: bool
    status: str
    base: str
    start: str
    head: str
    date: str = field(default_factory=now)
    merged: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Repository:
    """A repository: names for commits, and the commits by their id."""

    type: str
    id: str
    private: bool = False
    gated: str | bool = False
    disabled: bool = False
    allowed: set[str] = field(default_factory=set)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    prs: dict[int, Discussion] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    created: str = field(default_factory=now)

    @property
    def owner(self) -> str:
        """The user or organization it belongs to."""
        return self.id.split("/")[0]

    @property
    def page(self) -> str:
        """The path of its page, without the first slash: "datasets/alice/d"."""
        return self.id if self.type == "model" else f"{self.type}s/{self.id}"

    def head(self, name: str) -> str | None:
        """The commit that a branch, tag or pull request is at; None when there is no such name."""
        number = pull_request(name)
        if number is not None:
            return self.prs[number].head if number in self.prs else None
        branch = self.branches.get(name.removeprefix("refs/heads/"))
        return branch or self.tags.get(name.removeprefix("refs/tags/"))

    def resolve(self, revision: str) -> str:
        """The id of a commit, from any of its names or its first seven digits. Raises Refusal (404)."""
        found = self.head(revision)
        if found is None and re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = next((commit for commit in self.commits if commit.startswith(revision)), None)
        if found is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def tree(self, revision: str = "main") -> Tree:
        """The files of a revision. Raises Refusal (404)."""
        return self.commits[self.resolve(revision)].tree

    def commit(self, ref: str, change: Change) -> str:
        """Put a change on top of a branch, which is made if need be, or a pull request; the new commit's id."""
        number = pull_request(ref)
        parent = self.prs[number].head if number is not None else self.branches.get(ref)
        tree = dict(self.commits[parent].tree) if parent else {}
        for path in change.delete:
            tree.pop(path, None)
        tree.update(change.add)
        seed = json.dumps([parent, change.title, uuid.uuid4().hex, sorted((p, e.oid) for p, e in tree.items())])
        sha = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
        self.commits[sha] = Commit(sha, parent, tree, change.title, change.message, change.author, now())
        if number is not None:
            self.prs[number].head = sha
        else:
            self.branches[ref] = sha
        return sha


class Store:
    """Repositories by type and id, and the large files of all of them."""

    def __init__(self, root: str | Path, lfs_threshold: int = 10_000_000) -> None:
        self.root = Path(root)
        (self.root / "lfs").mkdir(parents=True, exist_ok=True)
        self.lfs_threshold = lfs_threshold
        self.lock = threading.RLock()
        self.repos: dict[tuple[str, str], Repository] = {}

    def repo(self, type: str, id: str) -> Repository:
        """A repository by "model", "dataset" or "space" and its id."""
        return self.repos[type, id]

    def create(
        self,
        type: str,
        id: str,
        private: bool = False,
        gated: str | bool = False,
        files: Mapping[str, bytes] | None = None,
    ) -> Repository:
        """Make a repository, in place of one of the same name, with one commit, and a second one for `files`."""
        repo = Repository(type, id, private, gated)
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
        first = {".gitattributes": Entry.regular(attributes.encode())}
        with self.lock:
            repo.commit("main", Change("initial commit", first, author=repo.owner))
            self.repos[type, id] = repo
        if files:
            self.put(repo, files)
        return repo

    def put(
        self, repo: Repository, files: Mapping[str, bytes], branch: str = "main", message: str = "add files"
    ) -> str:
        """Commit files without going through HTTP; the commit's id."""
        entries = {path: self._kept(path, data) for path, data in files.items()}
        return self.commit(repo, branch, Change(message, entries))

    def commit(self, repo: Repository, ref: str, change: Change) -> str:
        """Commit a change, one at a time."""
        with self.lock:
            return repo.commit(ref, change)

    def is_lfs(self, path: str, size: int, sample: bytes = b"") -> bool:
        """Whether a file is kept outside git: by its name, its size, or because it is not text."""
        name = path.rsplit("/", 1)[-1]
        named = any(fnmatch.fnmatch(name, pattern) for pattern in LFS_PATTERNS)
        return size > 0 and (named or size >= self.lfs_threshold or b"\0" in sample)

    def lfs_path(self, sha256: str) -> Path:
        """Where a large file lies, or would."""
        return self.root / "lfs" / sha256

    def keep(self, data: bytes, sha256: str) -> None:
        """Keep a large file; nobody sees half of it. Raises Refusal (400) when it is not what its name says."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Refusal(400, "sha256 mismatch")
        whole_later = self.root / "lfs" / f"{sha256}.{uuid.uuid4().hex}"
        whole_later.write_bytes(data)
        whole_later.rename(self.lfs_path(sha256))

    def _kept(self, path: str, data: bytes) -> Entry:
        if not self.is_lfs(path, len(data), data[:SAMPLE]):
            return Entry.regular(data)
        sha256 = hashlib.sha256(data).hexdigest()
        self.keep(data, sha256)
        return Entry.large(sha256, len(data))
