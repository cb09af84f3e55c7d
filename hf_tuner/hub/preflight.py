"""Before training: would the push work? In seconds, instead of a failure after six hours."""

import re
from dataclasses import dataclass, replace
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import HFValidationError, validate_repo_id

from hf_tuner.config import Run
from hf_tuner.console import say
from hf_tuner.errors import EnvironmentFault, UsageError
from hf_tuner.hub.client import api, token_source
from hf_tuner.hub.faults import LOGIN, hub_faults
from hf_tuner.hub.manifest import FILE
from hf_tuner.hub.reach import unreachable

STRATEGIES = ("every_save", "checkpoint", "all_checkpoints", "end")
HARMLESS = (".gitattributes", "README.md", "LICENSE", "LICENSE.md", ".gitignore")
"""Files of a repository that was just made by hand."""
IN_PROGRESS = "Training in progress"
"""What commits of an unfinished run are called, as the Trainer calls them."""
TAG = "hf-tuner"
"""The tag in the card by which a repository is known as ours before its run is finished."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a run goes on the Hub, and how."""

    repo: str
    """user/name; a name alone stands for the token's own user."""
    revision: str | None = None
    private: bool | None = None
    create_pr: bool = False
    subfolder: str = ""
    tag: str | None = None
    strategy: str = "every_save"


def destination_of(run: Run) -> Destination | None:
    """Where a run is to be pushed, or None. Raises UsageError for settings that cannot work together."""
    given = run.training
    if not given.get("push_to_hub"):
        lonely = [k for k in ("hub_model_id", "hub_revision", "hub_strategy", "hub_private_repo") if given.get(k)]
        lonely += ["create_pr"] if run.create_pr else []
        if lonely:
            raise UsageError(f"--{lonely[0].replace('_', '-')} without --push-to-hub pushes nothing; add --push-to-hub")
        return None
    strategy = str(given.get("hub_strategy") or "every_save").lower()
    if strategy not in STRATEGIES:
        raise UsageError(f"--hub-strategy {strategy}: expected one of {', '.join(STRATEGIES)}")
    return checked(Destination(
        repo=given.get("hub_model_id") or re.sub(r"[^\w.-]+", "-", run.folder.name),
        revision=given.get("hub_revision"),
        private=given.get("hub_private_repo"),
        create_pr=run.create_pr,
        strategy="end" if run.create_pr else strategy,  # one pull request, not one for every save
    ))  # fmt: skip


def ready_to_push(run: Run) -> Run:
    """The run, with the full name of where it will be pushed; preflight is done here. Nothing to push: the run itself."""
    to = destination_of(run)
    if to is None:
        return run
    to = preflight(to)
    return replace(run, training={**run.training, "hub_model_id": to.repo, "hub_private_repo": to.private})


def checked(to: Destination) -> Destination:
    """The same destination. Raises UsageError for a name that no repository can have."""
    if to.create_pr and to.revision:
        raise UsageError("--create-pr opens a branch of its own; it cannot be combined with --hub-revision")
    if to.subfolder and not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", to.subfolder):
        raise UsageError(
            f'--subfolder "{to.subfolder}": expected names of letters, digits, ., - and _, such as en or v1/large'
        )
    try:
        validate_repo_id(to.repo)
    except HFValidationError as error:
        raise UsageError(f'"{to.repo}" is not a name a repository can have: {error}') from error
    return to


def preflight(to: Destination) -> Destination:
    """The destination under its full name, once it is certain that a push can work.

    Asks the Hub who the token belongs to, whether it may write there, and whether the repository is free or holds a
    run. Raises EnvironmentFault with what to do (exit 3).
    """
    reason = unreachable()
    if reason:
        raise EnvironmentFault(f"{to.repo} cannot be pushed to: the Hub ({constants.ENDPOINT}) cannot be reached ({reason}). "
                               "A finished run can be pushed later: hf-tuner push RUN")  # fmt: skip
    if not token_source():
        raise EnvironmentFault(f"pushing to the Hub needs a token, and there is none: {LOGIN}")
    with hub_faults(f"pushing to {to.repo}"):
        who = api().whoami()
    full = to if "/" in to.repo else replace(to, repo=f"{who['name']}/{to.repo}")
    if not full.create_pr:  # whoever sees a repository may open a pull request there
        _may_write(full.repo, who)
    return replace(full, private=_as_it_is(full))


def _may_write(repo: str, who: dict[str, Any]) -> None:
    """Raise EnvironmentFault when the token cannot write into the namespace."""
    owner = repo.split("/")[0]
    spaces = [who["name"], *(o["name"] for o in who.get("orgs", []) if o.get("roleInOrg") != "read")]
    token = who.get("auth", {}).get("accessToken") or {}
    role, source = token.get("role"), token_source()
    if owner not in spaces:
        raise EnvironmentFault(f"{repo}: {who['name']} (the token from {source}) cannot write to {owner}; "
                               f"use one of: {', '.join(spaces)}")  # fmt: skip
    if role == "read":
        raise EnvironmentFault(
            f"{repo}: the token from {source} may only read; make one with write access, then {LOGIN}"
        )
    if role == "fineGrained" and not _scoped(token.get("fineGrained") or {}, repo):
        raise EnvironmentFault(f"{repo}: the fine-grained token from {source} has no write permission for {owner} or this "
                               f'repository; give it "Write access to contents" there, then {LOGIN}')  # fmt: skip


def _scoped(fine: dict[str, Any], repo: str) -> bool:
    owner = repo.split("/")[0]
    for scope in fine.get("scoped", []):
        entity = scope.get("entity") or {}
        if entity.get("name") in (owner, repo) and {"repo.write", "repo.content.write"} & set(
            scope.get("permissions", [])
        ):
            return True
    return False


def _as_it_is(to: Destination) -> bool | None:
    """Whether the repository is private: as asked when it is to be made, as it is when it exists and is ours.

    Raises EnvironmentFault when it holds something else, or is of another visibility than asked.
    """
    try:
        with hub_faults(f"pushing to {to.repo}"):
            info = api().model_info(to.repo)
            api().auth_check(to.repo, write=not to.create_pr)
    except EnvironmentFault as error:
        if isinstance(error.__cause__, RepositoryNotFoundError) and not to.create_pr:
            seen = {True: "private", False: "public", None: "visible as its owner's new repositories are"}[to.private]
            say(f"  hub       {to.repo} will be made ({seen})")
            return to.private
        if isinstance(error.__cause__, RepositoryNotFoundError):
            raise EnvironmentFault(
                f"{to.repo}: --create-pr needs a repository that exists and that you may see"
            ) from error
        raise
    names = [s.rfilename for s in info.siblings or []]
    foreign = [n for n in names if n not in HARMLESS]
    ours = FILE in {n.rsplit("/", 1)[-1] for n in names} or TAG in (info.tags or [])
    if foreign and not ours:
        raise EnvironmentFault(f"{to.repo} exists and holds what is not a run of hf-tuner ({', '.join(foreign[:3])} …); "
                               "choose another name: --hub-model-id")  # fmt: skip
    if to.private is not None and bool(info.private) != to.private:
        is_now, asked = ("private", "public") if info.private else ("public", "private")
        raise EnvironmentFault(f"{to.repo} exists and is {is_now}, not {asked} as asked; change it in its settings, or "
                               "choose another name: --hub-model-id")  # fmt: skip
    now, what = "private" if info.private else "public", "gets a pull request" if to.create_pr else "will be updated"
    say(f"  hub       {to.repo} exists ({now}) and {what}")
    return bool(info.private)
