"""The stand-in of the Hub answers real clients as the Hub would, with Git LFS and with Xet."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hub_client import PRELUDE, ask, environment, fetch
from hub_server import Hub

WEIGHTS = random.Random(0).randbytes(3_000_000)
CARD = b"---\nlicense: mit\ntags:\n- a\n---\n# Model\n"


class Session(NamedTuple):
    """What a client saw, and the stand-in it talked to, as it was left."""

    hub: Hub
    seen: Any
    xet: bool


TRANSFER = """
folder = pathlib.Path("FOLDER")
(folder / "sub").mkdir()
(folder / "w.safetensors").write_bytes(random.Random(0).randbytes(3_000_000))
(folder / "sub" / "small.bin").write_bytes(b"small")
(folder / "config.json").write_text('{"model_type": "bert", "x": 1}')
(folder / "skipped.tmp").write_text("no")
(folder / ".gitignore").write_text("*.tmp")

def heads():
    return [ref.target_commit for ref in alice.list_repo_refs("alice/m").branches]

alice.create_repo("alice/m", private=True)
alice.upload_folder(repo_id="alice/m", folder_path=folder, commit_message="first")
seen["uploaded"] = sorted(alice.list_repo_files("alice/m"))
(folder / "skipped.tmp").unlink()
before = heads()
alice.upload_folder(repo_id="alice/m", folder_path=folder)
seen["nothing new, no commit"] = heads() == before
alice.create_tag("alice/m", tag="v1", tag_message="one")
alice.create_branch("alice/m", branch="dev")
alice.upload_file(repo_id="alice/m", path_or_fileobj=b"x", path_in_repo="dev.txt", revision="dev")
seen["only on its branch"] = [alice.file_exists("alice/m", "dev.txt", revision=name) for name in ("dev", "main")]
ModelCard("---\\nlicense: mit\\ntags:\\n- a\\n---\\n# Model\\n").push_to_hub("alice/m")
seen["card"] = [alice.model_info("alice/m").card_data.license, alice.model_info("alice/m").tags]
seen["bad card"] = outcome(lambda: alice.upload_file(
    repo_id="alice/m", path_or_fileobj=b"---\\n a: [\\n---\\n", path_in_repo="README.md"))
seen["tag stays"] = alice.file_exists("alice/m", "README.md", revision="v1")
alice.create_commit("alice/m", commit_message="copies", operations=[
    CommitOperationCopy("w.safetensors", "copy.safetensors"), CommitOperationCopy("config.json", "copy.json")])
alice.create_commit("alice/m", commit_message="deletes", operations=[
    CommitOperationDelete("sub/"), CommitOperationDelete("config.json")])
seen["copied and deleted"] = sorted(alice.list_repo_files("alice/m"))
seen["race"] = outcome(lambda: alice.upload_file(
    repo_id="alice/m", path_or_fileobj=b"x", path_in_repo="x", parent_commit=before[0]))
seen["commits"] = [commit.title for commit in alice.list_repo_commits("alice/m")][-2:]
seen["paths"] = [type(i).__name__ for i in alice.get_paths_info("alice/m", ["sub", "w.safetensors", "?"], revision="v1")]
seen["tree"] = sorted(item.path for item in alice.list_repo_tree("alice/m", revision="v1"))
seen["downloaded"] = alice.snapshot_download("alice/m", revision="v1")
seen["checksums"] = alice.verify_repo_checksums("alice/m", revision="v1").mismatches
alice.create_repo("acme/d", repo_type="dataset")
alice.upload_folder(repo_id="acme/d", repo_type="dataset", folder_path=folder / "sub")
seen["data set"] = alice.hf_hub_download("acme/d", "small.bin", repo_type="dataset")
bob.upload_folder(repo_id="acme/d", repo_type="dataset", folder_path=folder, create_pr=True, commit_message="more")
seen["proposed"] = bob.file_exists("acme/d", "w.safetensors", repo_type="dataset", revision="refs/pr/1")
alice.create_branch("alice/m", branch="squashed")
alice.super_squash_history("alice/m", branch="squashed", commit_message="one")
seen["squashed"] = [commit.title for commit in alice.list_repo_commits("alice/m", revision="squashed")]
"""


@pytest.fixture(scope="module", params=["basic", "multipart", "xet"])
def transfer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A client that puts files in and takes them out, in each way that large files can go."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "files").mkdir()
    xet = request.param == "xet"
    parts = 2_000_000 if request.param == "multipart" else None
    with Hub(folder / "hub", multipart_over=parts, part_size=2_000_000, xet=xet, page_size=3).serve() as hub:
        script = PRELUDE + TRANSFER.replace("FOLDER", str(folder / "files"))
        yield Session(hub, ask(script, environment(hub, folder / "home", xet=xet)), xet)


TRANSFERRED = {
    "uploaded": [".gitattributes", ".gitignore", "config.json", "sub/small.bin", "w.safetensors"],
    "nothing new, no commit": True,
    "only on its branch": [True, False],
    "card": ["mit", ["a"]],
    "bad card": "ValueError",
    "tag stays": False,
    "copied and deleted": [
        ".gitattributes",
        ".gitignore",
        "README.md",
        "copy.json",
        "copy.safetensors",
        "w.safetensors",
    ],
    "race": "HfHubHTTPError 412",
    "commits": ["first", "initial commit"],
    "paths": ["RepoFolder", "RepoFile"],
    "tree": [".gitattributes", ".gitignore", "config.json", "sub", "w.safetensors"],
    "checksums": [],
    "proposed": True,
    "squashed": ["one"],
}


@pytest.mark.parametrize("what", TRANSFERRED)
def test_a_client_sees_its_work(transfer: Session, what: str) -> None:
    assert transfer.seen[what] == TRANSFERRED[what]


def test_files_are_kept_and_downloaded_as_they_were(transfer: Session) -> None:
    assert transfer.hub.content("model", "alice/m", "copy.safetensors") == WEIGHTS
    assert transfer.hub.content("model", "alice/m", "README.md") == CARD
    assert (Path(transfer.seen["downloaded"]) / "w.safetensors").read_bytes() == WEIGHTS
    assert Path(transfer.seen["data set"]).read_bytes() == b"small"


def test_large_files_go_the_way_that_is_meant(transfer: Session, request: pytest.FixtureRequest) -> None:
    paths = [record["path"] for record in transfer.hub.journal]
    marks = {"basic": "?size=3000000", "multipart": "/part/2?", "xet": "/_xet/v1/xorbs/"}
    used = {way for way, mark in marks.items() if any(mark in path and "complete" not in path for path in paths)}
    assert used == {request.node.callspec.params["transfer"]}
    entry = transfer.hub.repo("model", "alice/m").tree("v1")["w.safetensors"]
    assert (entry.xet is not None) == transfer.xet


@pytest.mark.fault("S14")
def test_no_token_reaches_the_cdn(transfer: Session) -> None:
    notes = [record for record in transfer.hub.journal if "note" in record]
    assert notes == []
    assert any("/_cdn/" in r["path"] or "/_xet/xorb/" in r["path"] for r in transfer.hub.journal)


@pytest.mark.fault("S14")
def test_a_token_that_reaches_the_cdn_is_written_down(hub: Hub) -> None:
    fetch(hub, "/_cdn/x", Host=hub.cdn.removeprefix("http://"), Authorization="Bearer hf_alice")
    fetch(hub, "/_cdn/x", Host=hub.cdn.removeprefix("http://"))
    assert [record.get("note") for record in hub.journal] == ["AUTH LEAKED TO CDN", None]


def test_a_client_without_xet_gets_what_came_through_xet(tmp_path: Path) -> None:
    with Hub(tmp_path / "hub", xet=True).serve() as hub:
        hub.create("model", "alice/m")
        file = tmp_path / "f.bin"
        file.write_bytes(WEIGHTS)
        up = f'alice.upload_file(repo_id="alice/m", path_or_fileobj="{file}", path_in_repo="f.bin")'
        ask(PRELUDE + up, environment(hub, tmp_path / "a", xet=True))
        down = PRELUDE + 'seen["path"] = alice.hf_hub_download("alice/m", "f.bin")'
        seen = ask(down, environment(hub, tmp_path / "b"))
    assert Path(seen["path"]).read_bytes() == WEIGHTS


PEOPLE = [
    ('alice.create_repo("alice/new")', "ok"),
    ('alice.create_repo("alice/new")', "HfHubHTTPError 409"),
    ('alice.create_repo("alice/new", exist_ok=True)', "ok"),
    ('alice.create_repo("acme/new", repo_type="dataset")', "ok"),
    ('bob.create_repo("acme/other")', "HfHubHTTPError 403"),
    ('reader.create_repo("alice/other")', "HfHubHTTPError 403"),
    ('fine.create_repo("alice/other")', "HfHubHTTPError 403"),
    ('fine_write.create_repo("acme/other")', "HfHubHTTPError 403"),
    ('fine_write.create_repo("alice/fine")', "ok"),
    ('wrong.whoami()', "HfHubHTTPError 401"),
    ('nobody.whoami()', "ValueError"),
    ('put(alice)', "ok"),
    ('put(fine_write)', "ok"),
    ('put(fine)', "HfHubHTTPError 403"),
    ('put(reader)', "HfHubHTTPError 403"),
    ('put(bob)', "HfHubHTTPError 403"),
    ('put(nobody)', "HfHubHTTPError 401"),
    ('put(bob, create_pr=True)', "ok"),
    ('put(bob, revision="refs/pr/1")', "ok"),
    ('put(reader, create_pr=True)', "HfHubHTTPError 403"),
    ('put(alice, revision="none")', "RevisionNotFoundError 404"),
    ('alice.model_info("alice/private")', "ok"),
    ('fine.model_info("alice/private")', "ok"),
    ('bob.model_info("alice/private")', "RepositoryNotFoundError 404"),
    ('nobody.model_info("alice/private")', "RepositoryNotFoundError 401"),
    ('bob.hf_hub_download("alice/gated", "a")', "GatedRepoError 403"),
    ('nobody.hf_hub_download("alice/gated", "a")', "GatedRepoError 401"),
    ('alice.hf_hub_download("alice/gated", "a")', "ok"),
    ('bob.model_info("alice/gated")', "ok"),
    ('bob.auth_check("alice/gated")', "GatedRepoError 403"),
    ('bob.auth_check("alice/granted")', "ok"),
    ('alice.hf_hub_download("bob/granted", "a")', "ok"),
    ('fine.auth_check("bob/granted")', "HfHubHTTPError 403"),
    ('alice.model_info("alice/disabled")', "DisabledRepoError 403"),
    ('alice.model_info("alice/none")', "RepositoryNotFoundError 404"),
    ('alice.model_info("alice/open", revision="none")', "RevisionNotFoundError 404"),
    ('alice.hf_hub_download("alice/open", "none")', "RemoteEntryNotFoundError 404"),
    ('list(alice.list_repo_tree("alice/open", "none"))', "RemoteEntryNotFoundError 404"),
    ('alice.create_branch("alice/open", branch="main")', "HfHubHTTPError 409"),
    ('alice.create_tag("alice/open", tag="t")', "ok"),
    ('alice.create_tag("alice/open", tag="t")', "HfHubHTTPError 409"),
    ('alice.delete_tag("alice/open", tag="t")', "ok"),
    ('alice.delete_tag("alice/open", tag="t")', "RevisionNotFoundError 404"),
    ('alice.delete_file("none", repo_id="alice/open")', "RemoteEntryNotFoundError 404"),
    ('alice.model_info("short")', "ok"),
    ('alice.hf_hub_download("short", "a")', "ok"),
    ('bob.delete_repo("alice/open")', "HfHubHTTPError 403"),
    ('alice.move_repo("alice/open", "bob/open")', "HfHubHTTPError 403"),
    ('alice.move_repo("alice/open", "acme/open")', "ok"),
    ('alice.hf_hub_download("alice/open", "a")', "ok"),
    ('alice.update_repo_settings("acme/open", private=True, gated="auto")', "ok"),
    ('bob.model_info("acme/open")', "RepositoryNotFoundError 404"),
    ('alice.delete_repo("acme/open")', "ok"),
    ('alice.model_info("acme/open")', "RepositoryNotFoundError 404"),
]  # fmt: skip


PUT = """
def put(api, **more):
    data = repr((api.token, more)).encode()
    api.upload_file(repo_id="alice/open", path_or_fileobj=data, path_in_repo="b", **more)

"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Everyone tries everything, in the order of the table."""
    folder = tmp_path_factory.mktemp("people")
    with Hub(folder / "hub", aliases={"short": "alice/open"}).serve() as hub:
        for name in ("open", "private", "gated", "granted", "disabled"):
            hub.create("model", f"alice/{name}", name == "private", name in ("gated", "granted"), {"a": b"1"})
        hub.create("model", "bob/granted", gated="manual", files={"a": b"1"}).allowed = {"alice"}
        hub.repo("model", "alice/granted").allowed = {"bob"}
        hub.repo("model", "alice/disabled").disabled = True
        tries = "".join(f"seen[{i}] = outcome(lambda: {call})\n" for i, (call, _) in enumerate(PEOPLE))
        names = "seen['who'] = [api.whoami() for api in (alice, bob, reader, fine, fine_write)]"
        script = f"{PRELUDE}{PUT}{tries}{names}"
        yield Session(hub, ask(script, environment(hub, folder / "home")), False)


@pytest.mark.parametrize("number", range(len(PEOPLE)), ids=[call for call, _ in PEOPLE])
def test_everyone_may_do_what_they_may(people: Session, number: int) -> None:
    assert people.seen[str(number)] == PEOPLE[number][1]


def test_the_hub_says_who_asks_and_what_their_token_allows(people: Session) -> None:
    who = people.seen["who"]
    roles = [(w["name"], w["auth"]["accessToken"]["role"]) for w in who]
    fine = "fineGrained"
    assert roles == [("alice", "write"), ("bob", "write"), ("alice", "read"), ("alice", fine), ("alice", fine)]
    assert [org["name"] for org in who[0]["orgs"]] == ["acme"] and who[1]["orgs"] == []
    user = {"type": "user", "name": "alice"}
    for said, permissions in zip(who[3:], (["repo.content.read"], ["repo.content.read", "repo.write"]), strict=True):
        scoped = [{"entity": user, "permissions": permissions}]
        assert said["auth"]["accessToken"][fine] == {"canReadGatedRepos": False, "global": [], "scoped": scoped}


DISCUSSED = """
def add(path, data, **more):
    return bob.create_commit("alice/m", [CommitOperationAdd(path, data)], commit_message=f"add {path}", **more)

first = add("b", b"1", create_pr=True)
add("c", b"2", revision="refs/pr/1")
alice.upload_file(repo_id="alice/m", path_or_fileobj=b"later", path_in_repo="later")
seen["opened"] = [first.pr_num, first.pr_revision, alice.get_discussion_details("alice/m", 1).status]
seen["not on main"] = [alice.file_exists("alice/m", "b", revision=name) for name in ("main", "refs/pr/1")]
seen["bob merges"] = outcome(lambda: bob.merge_pull_request("alice/m", 1))
bob.comment_discussion("alice/m", 1, comment="please")
bob.rename_discussion("alice/m", 1, new_title="better")
alice.change_discussion_status("alice/m", 1, new_status="closed")
seen["closed"] = outcome(lambda: alice.merge_pull_request("alice/m", 1))
alice.change_discussion_status("alice/m", 1, new_status="open")
alice.merge_pull_request("alice/m", 1)
seen["files"] = sorted(alice.list_repo_files("alice/m"))
details = alice.get_discussion_details("alice/m", 1)
seen["merged"] = [details.status, details.title, details.merge_commit_oid == alice.model_info("alice/m").sha]
seen["events"] = [event.type for event in details.events]
add("b", b"mine", create_pr=True)
alice.upload_file(repo_id="alice/m", path_or_fileobj=b"yours", path_in_repo="b")
seen["conflict"] = [alice.get_discussion_details("alice/m", 2).conflicting_files,
                    outcome(lambda: alice.merge_pull_request("alice/m", 2))]
alice.create_discussion("alice/m", title="why not", description="because")
alice.create_pull_request("alice/m", title="empty")
seen["listed"] = [(d.num, d.status) for d in alice.get_repo_discussions("alice/m", discussion_status="open")]
seen["refs"] = [ref.ref for ref in alice.list_repo_refs("alice/m", include_pull_requests=True).pull_requests]
"""


def test_pull_requests_are_opened_discussed_and_merged(hub: Hub, tmp_path: Path) -> None:
    hub.create("model", "alice/m", files={"a": b"0"})
    seen = ask(PRELUDE + DISCUSSED, environment(hub, tmp_path / "home"))
    assert seen == {
        "opened": [1, "refs/pr/1", "open"],
        "not on main": [False, True],
        "bob merges": "HfHubHTTPError 403",
        "closed": "HfHubHTTPError 409",
        "files": [".gitattributes", "a", "b", "c", "later"],
        "merged": ["merged", "better", True],
        "events": ["comment", "comment", "title-change", "status-change", "status-change", "status-change"],
        "conflict": [["b"], "HfHubHTTPError 409"],
        "listed": [[2, "open"], [3, "open"], [4, "draft"]],
        "refs": ["refs/pr/1", "refs/pr/2", "refs/pr/4"],
    }


def test_the_stand_in_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    line = [sys.executable, str(Path(__file__).with_name("hub_server.py")), "--root", str(tmp_path / "hub"), "--xet"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            hub = Hub(tmp_path / "other")
            hub.url = process.stdout.readline().strip()
            new = json.dumps({"id": "alice/m", "files": {"a": "MQ=="}}).encode()
            assert fetch(hub, "/_hub/repos", "POST", new)[0] == 200
            assert fetch(hub, "/alice/m/resolve/main/a")[:2] == (200, b"1")
            assert [r["path"] for r in json.loads(fetch(hub, "/_hub/journal")[1])] == ["/alice/m/resolve/main/a"]
            assert fetch(hub, "/_hub/journal", "DELETE")[0] == 200
            assert json.loads(fetch(hub, "/_hub/journal")[1]) == []
        finally:
            process.terminate()
    assert process.returncode < 0
