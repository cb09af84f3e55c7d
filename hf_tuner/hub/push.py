"""Push a finished run: one commit or none, safe to repeat, compared with the local files before it is called done."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from hf_tuner.console import say
from hf_tuner.errors import ArtifactError, EnvironmentFault
from hf_tuner.hub.checksums import git_blob
from hf_tuner.hub.client import api
from hf_tuner.hub.faults import HUB_ERRORS, explain, hub_faults, is_transient, moved
from hf_tuner.hub.files import PUBLIC
from hf_tuner.hub.manifest import sha256
from hf_tuner.hub.preflight import Destination
from hf_tuner.hub.publish import published

AT_ONCE = 100
"""Files of one commit on main; more go to a pull request in several, which is then merged: main changes all at once."""
ATTEMPTS = 3
PAUSES = (1.0, 3.0)
"""Seconds before the second and the third attempt at a commit."""


@dataclass(frozen=True)
class Pushed:
    """What a push did: the repository's address, the commit its files are at, and how many were sent."""

    url: str
    commit: str
    sent: int
    pull_request: str | None = None


def push(folder: Path, to: Destination) -> Pushed:
    """Push a finished run and compare what the Hub then holds with what was sent, file by file.

    `to` comes from `preflight`. Files that are there already are not sent again, so that running it again resumes or
    does nothing. Raises EnvironmentFault when it cannot be done; the local run is never touched.
    """
    with published(folder, repo=to.repo, revision=to.revision, subfolder=to.subfolder, **_about_base(folder)) as ready:
        if not _is_there(ready, to):
            require_same(folder, ready)
        files = {p.relative_to(ready).as_posix(): p for p in sorted(ready.rglob("*")) if p.is_file()}
        say(
            f"  push      {len(files)} files, {_megabytes(files):.1f} MB → {to.repo}{'@' + to.revision if to.revision else ''}"
        )
        done = send(files, to, title=f"{folder.resolve().name} ({_digest(files)})")
    if to.tag:
        _tag(to.repo, to.tag, done.commit)
        say(f"  tagged    {to.tag} names commit {done.commit[:8]}")
    what = f"{done.sent} files sent" if done.sent else "nothing to send: it is there already"
    say(f"  pushed    {done.pull_request or done.url} ({what}; the Hub's files are the local ones)")
    return done


def _is_there(ready: Path, to: Destination) -> bool:
    """Whether the repository holds these very files already, so that nothing has to be proved or sent."""
    place = f"{to.subfolder}/" if to.subfolder else ""
    files = {place + p.relative_to(ready).as_posix(): p for p in ready.rglob("*") if p.is_file()}
    try:
        return not to.create_pr and not differing(files, to.repo, to.revision or "main")
    except HUB_ERRORS:
        return False


def _tag(repo: str, tag: str, commit: str) -> None:
    """Name the commit. Raises EnvironmentFault when the tag names another one already."""
    with hub_faults(f"the tag {tag} of {repo}"):
        tags = {t.name: t.target_commit for t in api().list_repo_refs(repo).tags}
        if tag not in tags:
            api().create_tag(repo, tag=tag, revision=commit)
        elif tags[tag] != commit:
            raise EnvironmentFault(f"the files are pushed (commit {commit[:8]}), but the tag {tag} names another commit of {repo} "
                                   f"({tags[tag][:8]}); choose another tag")  # fmt: skip


def require_same(folder: Path, ready: Path) -> None:
    """Reload what is about to be pushed in a fresh process. Raises ArtifactError when it does not answer as the run does."""
    from hf_tuner.evaluation.predict import kept_of
    from hf_tuner.evaluation.verify import same_predictions, sample_rows
    from hf_tuner.models.restore import restore

    saved = restore(folder)
    rows = sample_rows(saved.task)
    tolerance = 0.0 if saved.model.device.type == "cpu" else 1e-3
    base = str(saved.manifest.base["id"]) if saved.manifest.saves == "adapter" else None
    proof = same_predictions(
        kept_of(saved, rows, alone=True)[0], ready, rows, tolerance, "pushed = saved", base, saved.task.roughly
    )
    say(f"  {'✓' if proof.passed else '✗'} {proof.name}: {proof.detail}")
    if not proof.passed:
        raise ArtifactError(
            f"what would be pushed does not answer as {folder} does ({proof.detail}); nothing was pushed"
        )


def send(files: Mapping[str, Path], to: Destination, title: str) -> Pushed:
    """Make the run's place in the repository hold exactly `files` (path there: file here) of what we publish.

    Our own files that are there and not in `files` are removed; anything else in the repository is left alone. When
    somebody else commits at the same moment, it is looked at anew. Raises EnvironmentFault.
    """
    place = f"{to.subfolder}/" if to.subfolder else ""
    wanted = {place + name: path for name, path in files.items()}
    for attempt in range(ATTEMPTS):
        with hub_faults(f"pushing to {to.repo}", to.repo):
            head = _ready(to)
            there = remote_files(to.repo, head)
        add = [CommitOperationAdd(name, path) for name, path in wanted.items() if not _same(path, there.get(name))]
        stale = sorted(name for name in there if _ours(name, place) and name not in wanted)
        operations = [*add, *(CommitOperationDelete(name) for name in stale)]
        url = f"{api().endpoint}/{to.repo}" + (f"/tree/{quote(to.revision, safe='')}" if to.revision else "")
        if not operations:
            return Pushed(url, head, 0)
        if to.create_pr or (to.revision is None and len(operations) > AT_ONCE):
            return _through_pull_request(to, operations, title, wanted)
        try:
            return Pushed(url, _commit(to.repo, operations, title, to.revision or "main", head, wanted), len(add))
        except EnvironmentFault as error:
            if attempt + 1 == ATTEMPTS or not moved(error):
                raise
            time.sleep(PAUSES[attempt])
    raise EnvironmentFault(f"{to.repo} changes all the time; push again later")


def remote_files(repo: str, revision: str) -> dict[str, RepoFile]:
    """What a repository holds at a revision, by path."""
    listed = api().list_repo_tree(repo, recursive=True, revision=revision)
    return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}


def differing(wanted: Mapping[str, Path], repo: str, revision: str) -> list[str]:
    """Paths whose remote content is not that of the local file."""
    there = remote_files(repo, revision)
    return [name for name, path in wanted.items() if not _same(path, there.get(name))]


def _ready(to: Destination) -> str:
    """Make repository and branch where they are missing; the commit that the push starts from."""
    try:
        info = api().model_info(to.repo)
    except RepositoryNotFoundError:
        if to.create_pr:
            raise
        # A token that may not create "succeeds" with exist_ok; preflight has looked at that.
        api().create_repo(to.repo, private=to.private, exist_ok=True)
        info = api().model_info(to.repo)
    if to.revision is None:
        return str(info.sha)
    branches = {b.name: b.target_commit for b in api().list_repo_refs(to.repo).branches}
    if to.revision not in branches:
        api().create_branch(to.repo, branch=to.revision, exist_ok=True)
        branches = {b.name: b.target_commit for b in api().list_repo_refs(to.repo).branches}
    return str(branches[to.revision])


def _commit(
    repo: str, operations: list[Any], title: str, revision: str, parent: str, wanted: Mapping[str, Path]
) -> str:
    """One commit, tried again while that may help; a commit whose answer was lost counts as made.

    Raises EnvironmentFault when the files did not arrive.
    """
    for attempt in range(ATTEMPTS):
        try:
            info: CommitInfo = api().create_commit(
                repo, _anew(operations), commit_message=title, revision=revision, parent_commit=parent
            )
        except HUB_ERRORS as error:
            arrived = _arrived(wanted, operations, repo, revision)
            if arrived:
                say("  hub       the answer was lost, but the commit is there")
                return arrived
            if attempt + 1 == ATTEMPTS or not is_transient(error):
                raise explain(error, f"pushing to {repo}", repo) from error
            time.sleep(PAUSES[attempt])
        else:
            _compared(wanted, repo, info.oid)
            return str(info.oid)
    raise EnvironmentFault(f"{repo} could not be pushed to")


def _through_pull_request(to: Destination, operations: list[Any], title: str, wanted: Mapping[str, Path]) -> Pushed:
    """Commit in parts to a pull request and merge it, unless the pull request itself was asked for."""
    url = f"{api().endpoint}/{to.repo}"
    with hub_faults(f"pushing to {to.repo}", to.repo):
        request = _open_request(to.repo, title)
        branch = str(request.git_reference)
        left = set(differing(wanted, to.repo, branch))
        there = remote_files(to.repo, branch)
        operations = [o for o in operations if o.path_in_repo in (left if o.path_in_repo in wanted else there)]
        parent = str(api().repo_info(to.repo, revision=branch).sha)
        parts = [operations[i : i + AT_ONCE] for i in range(0, len(operations), AT_ONCE)]
        for number, part in enumerate(parts, 1):
            expected = {o.path_in_repo: wanted[o.path_in_repo] for o in part if o.path_in_repo in wanted}
            parent = _commit(to.repo, part, f"{title}, part {number} of {len(parts)}", branch, parent, expected)
        _compared(wanted, to.repo, branch)
        if request.status == "draft":
            api().change_discussion_status(to.repo, request.num, "open")
        if to.create_pr:
            return Pushed(url, parent, len(left), request.url)
        api().merge_pull_request(to.repo, request.num, comment="Complete: every file was compared with the local one.")
        merged = str(api().model_info(to.repo).sha)
        _compared(wanted, to.repo, merged)
        return Pushed(url, merged, len(left))


def _open_request(repo: str, title: str) -> Any:
    """Our open pull request of this title (it names the files' digest), or a new one: a second try goes on in the first."""
    who = api().whoami()["name"]
    for found in api().get_repo_discussions(repo, author=who, discussion_type="pull_request"):
        if found.title == title and found.status in ("open", "draft"):
            return api().get_discussion_details(repo, found.num)
    return api().create_pull_request(repo, title=title, description="Pushed by hf-tuner.")


def _anew(operations: list[Any]) -> list[Any]:
    """The operations as they were before an attempt: the client marks files that it has uploaded."""
    return [
        CommitOperationAdd(o.path_in_repo, o.path_or_fileobj) if isinstance(o, CommitOperationAdd) else o
        for o in operations
    ]


def _arrived(wanted: Mapping[str, Path], operations: list[Any], repo: str, revision: str) -> str:
    """The commit that holds all that was to be sent, or "" when it does not or cannot be asked."""
    gone = {o.path_in_repo for o in operations if isinstance(o, CommitOperationDelete)}
    try:
        head = str(api().repo_info(repo, revision=revision).sha)
        there = remote_files(repo, head)
    except HUB_ERRORS:
        return ""
    whole = all(_same(path, there.get(name)) for name, path in wanted.items()) and not gone & set(there)
    return head if whole else ""


def _compared(wanted: Mapping[str, Path], repo: str, revision: str) -> None:
    with hub_faults(f"comparing {repo} with the local files"):
        wrong = differing(wanted, repo, revision)
    if wrong:
        raise EnvironmentFault(f"{repo} does not hold what was sent ({', '.join(wrong[:3])} differ); push again")


def _same(path: Path, entry: RepoFile | None) -> bool:
    """Whether a remote file is this local one, by the hash the Hub keeps of it."""
    if entry is None or entry.size != path.stat().st_size:
        return False
    if entry.lfs is not None:
        return bool(entry.lfs.sha256 == sha256(path))
    return bool(entry.blob_id == git_blob(path))


def _ours(name: str, place: str) -> bool:
    """Whether a remote path is a file that a push to this place may replace."""
    inside = name.removeprefix(place)
    return name.startswith(place) and any(
        fnmatchcase(inside, pattern) and inside.count("/") == pattern.count("/") for pattern in PUBLIC
    )


def _about_base(folder: Path) -> dict[str, Any]:
    """Licence and languages of the base model, where its card on the Hub tells them."""
    from hf_tuner.hub.manifest import read_manifest

    base = read_manifest(folder).base
    if not base.get("revision"):
        return {}  # a local folder
    try:
        data = api().model_info(base["id"], revision=base["revision"]).card_data
    except HUB_ERRORS:
        return {}
    languages = getattr(data, "language", None) or ()
    return {"licence": getattr(data, "license", None),
            "languages": (languages,) if isinstance(languages, str) else tuple(languages)}  # fmt: skip


def _digest(files: Mapping[str, Path]) -> str:
    """8 digits for the content of all files."""
    whole = hashlib.sha256("".join(f"{name} {sha256(path)}\n" for name, path in sorted(files.items())).encode())
    return whole.hexdigest()[:8]


def _megabytes(files: Mapping[str, Path]) -> float:
    return sum(p.stat().st_size for p in files.values()) / 1e6
