"""Pushing when the Hub, the network or the token misbehaves: what is said, and what is left behind."""

import shutil
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_here import REPO, WEIGHTS, connect, files_of, share
from hub_server import Hub, hanging_port
from safetensors.torch import load_file, save_file

from hf_tuner.cli import push as push_verb
from hf_tuner.errors import ArtifactError, EnvironmentFault, TunerError, UsageError
from hf_tuner.hub import client, preflight, push, reach
from hf_tuner.hub.files import public_files
from hf_tuner.hub.manifest import FILE, file_digests, read_manifest
from hf_tuner.hub.preflight import Destination
from hf_tuner.hub.publish import published
from hf_tuner.training.pushing import push_command

TOKENS = {
    "no token": ("", "needs a token, and there is none"),
    "unknown token": ("hf_wrong", "does not accept the token from HF_TOKEN"),
    "read-only token": ("hf_reader", "may only read"),
    "fine-grained without write": ("hf_fine", "no write permission for alice"),
    "somebody else": ("hf_bob", "bob .* cannot write to alice; use one of: bob"),
}


@pytest.mark.parametrize("token, said", TOKENS.values(), ids=TOKENS)
def test_a_token_that_cannot_push_is_found_before_training(
    token: str, said: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connect(monkeypatch, hub.url, tmp_path, token)
    with pytest.raises(EnvironmentFault, match=said) as caught:
        preflight.preflight(Destination(repo=REPO))
    assert caught.value.exit_code == 3 and ("model", REPO) not in hub.repos
    assert not token or token not in str(caught.value)


def test_a_fine_grained_token_with_write_permission_passes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connect(monkeypatch, hub.url, tmp_path, "hf_fine_write")
    assert preflight.preflight(Destination(repo=REPO)).repo == REPO


def test_a_name_alone_is_the_users_own(there: Hub) -> None:
    assert preflight.preflight(Destination(repo="run")).repo == "alice/run"


def test_organizations_are_namespaces_too(there: Hub) -> None:
    assert preflight.preflight(Destination(repo="acme/run")).repo == "acme/run"


def test_a_repository_that_holds_something_else_is_refused(there: Hub) -> None:
    there.create("model", REPO, files={"model.safetensors": b"mine"})
    with pytest.raises(EnvironmentFault, match=r"holds what is not a run of hf-tuner \(model.safetensors"):
        preflight.preflight(Destination(repo=REPO))


def test_a_new_empty_repository_is_taken_and_its_visibility_kept(there: Hub) -> None:
    there.create("model", REPO, private=True)
    assert preflight.preflight(Destination(repo=REPO)).private is True
    with pytest.raises(EnvironmentFault, match="is private, not public as asked"):
        preflight.preflight(Destination(repo=REPO, private=False))


@pytest.mark.parametrize("name", ["a/b/c", "-x", "alice/na me", "alice/" + "x" * 100])
def test_a_name_no_repository_can_have_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="is not a name a repository can have"):
        preflight.checked(Destination(repo=name))


@pytest.mark.fault(61)
def test_a_push_arrives_and_a_second_sends_nothing(there: Hub, run: Path) -> None:
    first = share(run)
    assert {WEIGHTS, FILE, "README.md"} <= files_of(there) and first.sent > 5
    second = share(run)
    assert second.sent == 0 and second.commit == first.commit


def test_a_private_push_is_private(there: Hub, run: Path) -> None:
    share(run, private=True)
    assert there.repo("model", REPO).private


PASSING = {
    "busy once (429)": {"path": "/commit/", "status": 429},
    "500 once": {"path": "/commit/", "status": 500},
    "503 once": {"path": "/preupload/", "status": 503},
    "upload cut by a reset": {"path": "/_lfs/", "method": "PUT", "cut_request_at": 2000},
    "upload cut by a close": {"path": "/_lfs/", "method": "PUT", "cut_request_at": 2000, "clean": True},
    "the commit hangs once": {"path": "/commit/", "delay": 3.0},
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.fault(60, 61)
def test_what_passes_is_tried_again(fault: dict[str, Any], there: Hub, run: Path) -> None:
    there.create("model", REPO)
    scripted = there.fail(**fault)
    share(run)
    assert scripted.hits == 1 and FILE in files_of(there)


@pytest.mark.fault(61)
def test_a_lost_answer_makes_one_commit(there: Hub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there.create("model", REPO)
    there.fail(path="/commit/", lose_reply=True)
    share(run)
    assert len(there.repo("model", REPO).commits) == 2  # the first, and ours, once
    assert "the answer was lost, but the commit is there" in capsys.readouterr().out


LASTING = {
    "403": ({"path": "/commit/", "status": 403}, "may not do this"),
    "404": ({"path": "/preupload/", "status": 404, "code": "RepoNotFound"}, "no such repository"),
    "409": ({"path": "/commit/", "status": 409}, "conflict"),
    "412": ({"path": "/commit/", "status": 412}, "somebody else changed the repository"),
    "429": ({"path": "/commit/", "status": 429}, "rate limit"),
    "500": ({"path": "/commit/", "status": 500}, "trouble of its own"),
    "503": ({"path": "/commit/", "status": 503}, "it answers 503"),
    "hanging": ({"path": "/commit/", "hang": True}, "does not answer"),
}


@pytest.mark.fault(60, 61)
@pytest.mark.parametrize("fault, said", LASTING.values(), ids=LASTING)
def test_what_lasts_ends_with_exit_3_and_harms_nothing(fault: dict[str, Any], said: str, there: Hub, run: Path) -> None:
    there.create("model", REPO)
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    there.fail(**fault, times=99)
    start = time.monotonic()
    with pytest.raises(EnvironmentFault, match=said):
        share(run)
    assert time.monotonic() - start < 30
    assert files_of(there) == {".gitattributes"}
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


@pytest.mark.fault(60)
def test_no_hub_at_all(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid"):
        connect(monkeypatch, url, tmp_path)
        with pytest.raises(EnvironmentFault, match=r"cannot be reached .* hf-tuner push RUN"):
            share(run)


@pytest.mark.fault(60)
def test_a_hub_that_hangs_from_the_start(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reach, "SECONDS", 1.0)
    with hanging_port() as port:
        connect(monkeypatch, f"http://127.0.0.1:{port}", tmp_path)
        start = time.monotonic()
        with pytest.raises(EnvironmentFault, match="cannot be reached"):
            share(run)
        assert time.monotonic() - start < 5


def test_no_call_of_the_client_waits_longer_than_the_bound(there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """model_info passes timeout=None on purpose; the bound holds all the same."""
    monkeypatch.setattr(client, "ASKED", 0.5)
    there.fail(path="/api/models/", delay=5.0, times=99)
    start = time.monotonic()
    with pytest.raises(TunerError, match="does not answer"):
        preflight.preflight(Destination(repo=REPO))
    assert time.monotonic() - start < 4


def test_more_files_than_one_commit_takes_change_main_once(there: Hub, run: Path, tmp_path: Path) -> None:
    there.create("model", REPO)
    many = {f"figures/f{n}.png": _file(tmp_path / f"{n}", b"%d" % n) for n in range(600)}
    heads = _heads_of_main(there, lambda: push.send(many, Destination(repo=REPO), "many"))
    assert len(files_of(there)) == 601
    assert len(heads) == 2  # before and after: never a half


@pytest.mark.fault(61)
def test_a_failure_between_the_parts_leaves_main_as_it_was(there: Hub, tmp_path: Path) -> None:
    there.create("model", REPO)
    many = {f"figures/f{n}.png": _file(tmp_path / f"{n}", b"%d" % n) for n in range(250)}
    there.fail(path="/commit/", status=403, skip=1, times=99)
    with pytest.raises(EnvironmentFault):
        push.send(many, Destination(repo=REPO), "many")
    assert files_of(there) == {".gitattributes"}


def test_foreign_files_are_left_alone_and_our_stale_ones_go(there: Hub, run: Path) -> None:
    repo = there.create("model", REPO)
    there.put(
        repo, {"notes.txt": b"mine", "model.safetensors": b"old", FILE: b"{}", "other/adapter_config.json": b"{}"}
    )
    share(run)
    assert {"notes.txt", "other/adapter_config.json", WEIGHTS} <= files_of(there)
    assert "model.safetensors" not in files_of(there)


@pytest.mark.fault(61)
def test_a_branch_that_moved_once_is_looked_at_anew(there: Hub, run: Path) -> None:
    there.create("model", REPO)
    there.fail(path="/commit/", status=412)
    share(run)
    assert FILE in files_of(there)


def test_a_tag_that_names_another_commit_is_refused(there: Hub, run: Path) -> None:
    store = there.create("model", REPO)
    store.tags["v1"] = store.branches["main"]
    with pytest.raises(EnvironmentFault, match="the tag v1 names another commit"):
        share(run, tag="v1")
    assert share(run, tag="v2").commit == store.tags["v2"]
    share(run, tag="v2")  # again, and nothing is wrong


def test_a_pull_request_is_opened_once(there: Hub, run: Path) -> None:
    there.create("model", REPO, files={FILE: b"{}"})
    first, second = share(run, create_pr=True), share(run, create_pr=True)
    assert first.pull_request == second.pull_request and second.sent == 0
    requests = there.repo("model", REPO).prs
    assert len(requests) == 1 and FILE in files_of(there)


def test_the_real_hubs_way_of_saying_wait_is_shortened_too() -> None:
    reply = SimpleNamespace(headers={"RateLimit": '"api";r=0;t=290', "Retry-After": "3600"})
    client._short_pause(reply)
    assert reply.headers == {"RateLimit": '"api";r=0;t=30', "Retry-After": "30"}


def test_the_private_names_that_bound_the_client_are_there_and_bite(
    there: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    assert file_download._ETAG_RETRY_TIMEOUT <= client.ASKED
    waits: list[float] = []
    monkeypatch.setattr(_http.time, "sleep", waits.append)
    there.create("model", REPO)
    there.fail(path="/tree/", status=503, times=99)
    with pytest.raises(Exception, match="503"):
        list(client.api().list_repo_tree(REPO))
    assert len(waits) == client.RETRIES


def test_members_who_may_only_read_are_told(there: Hub) -> None:
    who = {"name": "alice", "orgs": [{"name": "acme", "roleInOrg": "read"}], "auth": {"accessToken": {"role": "write"}}}
    with pytest.raises(EnvironmentFault, match="cannot write to acme; use one of: alice"):
        preflight._may_write("acme/run", who)


@pytest.mark.parametrize("subfolder", ["my run", "../x", "/x", "a//b"])
def test_a_subfolder_no_address_can_name_is_a_usage_error(subfolder: str) -> None:
    with pytest.raises(UsageError, match="--subfolder"):
        preflight.checked(Destination(repo=REPO, subfolder=subfolder))


def test_the_command_keeps_to_what_the_run_was_told(there: Hub, run: Path, tmp_path: Path) -> None:
    copy = _copy(run, tmp_path / "copy")
    with (copy / "run.yaml").open("a") as file:
        file.write("hub_model_id: alice/told\nhub_private_repo: true\nhub_revision: dev\n")
    push_verb.main([str(copy)])
    told = there.repo("model", "alice/told")
    assert told.private and FILE in told.commits[told.branches["dev"]].tree
    assert FILE not in told.commits[told.branches["main"]].tree


def test_files_of_an_unusual_processor_are_published_too(there: Hub, run: Path, tmp_path: Path) -> None:
    copy = _copy(run, tmp_path / "copy")
    (copy / "entity_vocab.json").write_text("{}")
    manifest = read_manifest(copy)
    (copy / FILE).write_text(replace(manifest, files=file_digests(copy, [*manifest.files, "entity_vocab.json"])).text())
    share(copy)
    assert "entity_vocab.json" in files_of(there)


def test_a_damaged_run_is_not_pushed(there: Hub, run: Path, tmp_path: Path) -> None:
    copy = _copy(run, tmp_path / "copy")
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (copy / WEIGHTS).write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        share(copy)
    assert WEIGHTS not in (files_of(there) if ("model", REPO) in there.repos else set())


def test_what_would_answer_differently_is_not_pushed(run: Path, tmp_path: Path) -> None:
    with published(run, repo=REPO) as ready:
        push.require_same(run, ready)
        tensors = {k: v * 1.5 for k, v in load_file(ready / WEIGHTS).items()}
        save_file(tensors, ready / WEIGHTS, metadata={"format": "pt"})
        manifest = read_manifest(ready)
        (ready / FILE).write_text(replace(manifest, files=file_digests(ready, manifest.files)).text())
        with pytest.raises(ArtifactError, match="does not answer as"):
            push.require_same(run, ready)


@pytest.mark.fault(62, "S8")
def test_the_token_in_any_file_stops_the_push(
    there: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_CANARY12345")
    copy = _copy(run, tmp_path / "copy")
    report = copy / "report.json"
    report.write_text(report.read_text().replace('"command": "', '"command": "HF_TOKEN=hf_CANARY12345 '))
    with (
        pytest.raises(ArtifactError, match=r"contains the token: nothing was pushed") as caught,
        published(copy, repo=REPO),
    ):
        pass
    assert "hf_CANARY12345" not in str(caught.value)


@pytest.mark.fault(62, "S9")
def test_planted_files_are_not_public(run: Path, tmp_path: Path) -> None:
    copy = _copy(run, tmp_path / "copy")
    for name in (".env", "training_args.bin", "optimizer.pt", "train.csv", "adapter_model.bin", "notes.md"):
        (copy / name).write_text("secret")
    (copy / "vocab.txt").symlink_to("/etc/hostname")
    names = {p.as_posix() for p in public_files(copy)}
    assert WEIGHTS in names and not names & {".env", "training_args.bin", "optimizer.pt", "train.csv", "adapter_model.bin",
                                             "notes.md", "vocab.txt"}  # fmt: skip


@pytest.mark.fault(62, "S9")
def test_a_link_is_not_pushed_whatever_the_list_says(run: Path, tmp_path: Path) -> None:
    """A file of the processor that is a link to another one of this machine, well listed."""
    copy = _copy(run, tmp_path / "copy")
    (tmp_path / "secret.txt").write_text("secret")
    (copy / "words.txt").symlink_to(tmp_path / "secret.txt")
    manifest = read_manifest(copy)
    (copy / FILE).write_text(replace(manifest, files=file_digests(copy, [*manifest.files, "words.txt"])).text())
    with (
        pytest.raises(ArtifactError, match=r"words.txt of .* is a link: nothing was pushed"),
        published(copy, repo=REPO),
    ):
        pass


@pytest.mark.fault(61)
def test_a_failing_push_after_training_says_the_command_that_tries_again(run: Path) -> None:
    to = Destination(repo=REPO, private=True, revision="dev")
    assert (
        push_command(run, to) == f"hf-tuner push {run} --hub-model-id alice/run --hub-private-repo --hub-revision dev"
    )


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _copy(run: Path, target: Path) -> Path:
    shutil.copytree(run, target)
    return target


def _heads_of_main(hub: Hub, work: Any) -> set[str]:
    """Every commit that main pointed at while `work` was done, watched from outside."""
    store, seen, done = hub.repo("model", REPO), set(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(store.branches["main"])
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return seen | {store.branches["main"]}
