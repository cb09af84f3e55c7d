"""Who may do what on the stand-in: its users and tokens, and the checks that every handler begins with."""

from typing import TYPE_CHECKING, Any

from hub_messages import DISCUSS, READ, WRITE, Place, Refusal, Request, Token
from hub_store import Repository, pull_request

if TYPE_CHECKING:
    from hub_server import Hub

LOG_IN = "Invalid username or password."


def known_tokens() -> dict[str, Token]:
    """The tokens that a new stand-in knows."""
    return {
        "hf_alice": Token("alice", "write"),
        "hf_reader": Token("alice", "read"),
        "hf_bob": Token("bob", "write"),
        "hf_fine": Token("alice", "fineGrained", (_scope("alice", READ),)),
        "hf_fine_write": Token("alice", "fineGrained", (_scope("alice", READ, WRITE),)),
    }


def _scope(user: str, *permissions: str) -> dict[str, Any]:
    return {"entity": {"type": "user", "name": user}, "permissions": list(permissions)}


def who(hub: "Hub", authorization: str) -> Token:
    """The token of an Authorization header, anonymous without one. Raises Refusal (401) for one nobody has."""
    word = authorization.removeprefix("Bearer ").strip()
    if word and word not in hub.tokens:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return Token(*hub.tokens[word]) if word else Token()


def logged_in(token: Token) -> str:
    """The user. Raises Refusal (401) when there is none."""
    if token.user is None:
        raise Refusal(401, LOG_IN)
    return token.user


def is_member(hub: "Hub", token: Token, repo_id: str) -> bool:
    """Whether a name belongs to the user or to one of the user's organizations."""
    owner = repo_id.split("/")[0]
    return token.user is not None and (owner == token.user or token.user in hub.orgs.get(owner, ()))


def may(hub: "Hub", token: Token, permission: str, repo_id: str) -> bool:
    """Whether a member with a token that permits it asks."""
    return is_member(hub, token, repo_id) and token.permits(permission, repo_id)


def sees(hub: "Hub", token: Token, repo: Repository) -> bool:
    """Whether a repository exists for who asks."""
    return not repo.private or may(hub, token, READ, repo.id)


def visible(hub: "Hub", token: Token, place: Place) -> Repository:
    """The repository at a place. Raises Refusal when it is missing, private or disabled."""
    repo = hub.repos.get((place.type, place.id))
    if repo is None or not sees(hub, token, repo):
        if token.user is None:
            raise Refusal(401, LOG_IN, "RepoNotFound")
        raise Refusal(404, "Repository not found", "RepoNotFound")
    if repo.disabled:
        raise Refusal(403, "Access to this resource is disabled.")
    return repo


def readable(hub: "Hub", token: Token, place: Place) -> Repository:
    """The same, with its files. Raises Refusal also when it is gated."""
    repo = visible(hub, token, place)
    if not repo.gated or may(hub, token, READ, repo.id):
        return repo
    restricted = f"Access to {repo.type} {repo.id} is restricted"
    if token.user is None:
        raise Refusal(401, f"{restricted}. You must be authenticated to access it. Please log in.", "GatedRepo")
    if not is_member(hub, token, repo.id) and token.user not in repo.allowed:
        hint = f"Visit {hub.url}/{repo.page} to ask for access."
        raise Refusal(403, f"{restricted} and you are not in the authorized list. {hint}", "GatedRepo")
    if token.role == "fineGrained" and not token.gated:
        raise Refusal(403, "Please enable access to public gated repositories in your fine-grained token settings.")
    return repo


def writable(hub: "Hub", token: Token, place: Place) -> Repository:
    """The same, to be changed. Raises Refusal also for those who may not."""
    repo = visible(hub, token, place)
    user = logged_in(token)
    if not may(hub, token, WRITE, repo.id):
        raise Refusal(403, f"You don't have the rights to push to {repo.id} ({token.role} token of {user}).")
    return repo


def proposable(hub: "Hub", token: Token, place: Place) -> Repository:
    """The same, to open a pull request or a discussion: anyone may whose token is not for reading only."""
    repo = visible(hub, token, place)
    user = logged_in(token)
    if not token.permits(WRITE, repo.id) and not token.permits(DISCUSS, repo.id):
        raise Refusal(403, f"You don't have the rights to propose to {repo.id} ({token.role} token of {user}).")
    return repo


def pushable(hub: "Hub", request: Request, place: Place) -> Repository:
    """The same, to be committed to: by those who may write; a pull request of one's own may be opened and changed."""
    number = pull_request(place.revision)
    if request.creates_pr:
        return proposable(hub, request.token, place)
    if number is not None:
        return own_discussion(hub, request.token, place, number)
    return writable(hub, request.token, place)


def own_discussion(hub: "Hub", token: Token, place: Place, number: int) -> Repository:
    """The same, to change a discussion or pull request: for its author and those who may write."""
    repo = proposable(hub, token, place)
    if number in repo.prs and repo.prs[number].author == token.user:
        return repo
    return writable(hub, token, place)


def whoami(hub: "Hub", token: Token) -> dict[str, Any]:
    """What the Hub says about who asks. Raises Refusal (401)."""
    user = logged_in(token)
    access: dict[str, Any] = {"displayName": "test", "role": token.role}
    if token.role == "fineGrained":
        access["fineGrained"] = {"canReadGatedRepos": token.gated, "global": [], "scoped": list(token.scoped)}
    return {
        "type": "user",
        "id": user,
        "name": user,
        "fullname": user.title(),
        "email": None,
        "canPay": False,
        "isPro": False,
        "orgs": [{"type": "org", "name": o, "fullname": o} for o, members in hub.orgs.items() if user in members],
        "auth": {"type": "access_token", "accessToken": access},
    }
