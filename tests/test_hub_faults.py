"""The stand-in of the Hub goes wrong when it is told to, and only then; and what else a client may do to a server."""

import http.client
import json
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hub_client import PRELUDE, ask, environment, fetch
from hub_server import Hub, hanging_port

WEIGHTS, SENT = (random.Random(seed).randbytes(3_000_000) for seed in (0, 1))

UPLOAD = (
    'alice.upload_file(path_or_fileobj=random.Random(1).randbytes(3_000_000), path_in_repo="f.bin", repo_id="alice/m")'
)
DOWNLOAD = 'alice.hf_hub_download("alice/m", "w.bin")'
MISHAPS = [
    ("listing", False, {"path": "/tree/", "status": 503}, 'alice.list_repo_files("alice/m")', "ok"),
    ("upload", False, {"path": "/_lfs/", "method": "PUT", "cut_request_at": 1_000_000}, UPLOAD, "ok"),
    ("xorb", True, {"path": "/v1/xorbs", "method": "POST", "cut_request_at": 1_000_000}, UPLOAD, "ok"),
    ("commit", False, {"path": "/commit/", "lose_reply": True}, UPLOAD, "ReadError"),
    ("end", False, {"path": "/_cdn/", "cut_response_at": 1_000_000, "clean": True}, DOWNLOAD, "ok"),
    ("reset", False, {"path": "/_cdn/", "cut_response_at": 1_000_000}, DOWNLOAD, "ReadError"),
]


@pytest.mark.parametrize("xet, fault, call, expected", [m[1:] for m in MISHAPS], ids=[m[0] for m in MISHAPS])
def test_clients_meet_faults_as_they_do_elsewhere(
    tmp_path: Path, xet: bool, fault: dict[str, Any], call: str, expected: str
) -> None:
    with Hub(tmp_path / "hub", xet=xet).serve() as hub:
        repo = hub.create("model", "alice/m", files={"w.bin": WEIGHTS})
        scripted = hub.fail(**fault)
        seen = ask(f"{PRELUDE}seen['it'] = outcome(lambda: {call})", environment(hub, tmp_path / "home", xet=xet))
        assert seen["it"] == expected
        assert scripted.hits == 1
        if call == UPLOAD:
            assert hub.content("model", "alice/m", "f.bin") == SENT
            assert len(repo.commits) == 3


def test_a_changed_byte_is_downloaded_and_found_by_its_checksum(hub: Hub, tmp_path: Path) -> None:
    hub.create("model", "alice/m", files={"w.bin": WEIGHTS})
    hub.fail("/_cdn/", flip_byte=1_000_000)
    script = (
        PRELUDE
        + 'alice.snapshot_download("alice/m")\nseen["wrong"] = len(alice.verify_repo_checksums("alice/m").mismatches)'
    )
    assert ask(script, environment(hub, tmp_path / "home")) == {"wrong": 1}


@pytest.mark.parametrize("wanted, status, body, said", [
    ("bytes=0-3", 206, b"0123", "bytes 0-3/10"), ("bytes=7-", 206, b"789", "bytes 7-9/10"),
    ("bytes=-2", 206, b"89", "bytes 8-9/10"), ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
    ("bytes=10-", 416, b"", "bytes */10"), ("lines=1-2", 200, b"0123456789", None),
])  # fmt: skip
@pytest.mark.parametrize("name", ["a.txt", "a.bin"])
def test_ranges_of_files(hub: Hub, name: str, wanted: str, status: int, body: bytes, said: str | None) -> None:
    hub.create("model", "alice/m", files={name: b"0123456789"})
    path = f"/alice/m/resolve/main/{name}"
    if name == "a.bin":
        reply = fetch(hub, path, "HEAD")
        assert reply[0] == 302 and reply[2]["X-Linked-Size"] == "10" and "//localhost:" in reply[2]["Location"]
        path = reply[2]["Location"].removeprefix(hub.cdn)
    reply = fetch(hub, path, Range=wanted)
    assert (*reply[:2], reply[2]["Content-Range"]) == (status, body, said)


FAULTS = [
    ({"status": 429, "code": "Busy", "headers": {"Retry-After": "1"}}, "429 Busy 1"),
    ({"lose_reply": True}, "ConnectionResetError"),
    ({"lose_reply": True, "clean": True}, "RemoteDisconnected"),
    ({"cut_response_at": 3, "clean": True}, "IncompleteRead"),
    ({"cut_response_at": 3}, "ConnectionResetError"),
    ({"cut_request_at": 0}, "ConnectionResetError"),
    ({"cut_request_at": 0, "clean": True}, "RemoteDisconnected"),
    ({"flip_byte": 0}, "other"),
    ({"flip_byte": -1, "cut_response_at": 3, "clean": True}, "IncompleteRead"),
    ({"method": "POST", "status": 500}, "ok"),
    ({"path": "/elsewhere", "status": 500}, "ok"),
]


def met(hub: Hub) -> str:
    """What happens to a request for a small file."""
    try:
        status, body, headers = fetch(hub, "/alice/m/resolve/main/a")
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    if status != 200:
        return f"{status} {headers['X-Error-Code']} {headers['Retry-After']}"
    return "ok" if body == b"0123456789" else "other"


@pytest.mark.parametrize("fault, expected", FAULTS, ids=[" ".join(map(str, fault)) for fault, _ in FAULTS])
def test_a_fault_happens_once_and_then_no_more(hub: Hub, fault: dict[str, Any], expected: str) -> None:
    hub.create("model", "alice/m", files={"a": b"0123456789"})
    status, *_ = fetch(hub, "/_hub/faults", "POST", json.dumps({"path": "/resolve/", **fault}).encode())
    assert status == 200
    assert met(hub) == expected
    assert met(hub) == "ok"


def test_a_fault_may_come_later_and_more_than_once(hub: Hub) -> None:
    hub.create("model", "alice/m", files={"a": b"0123456789"})
    hub.fail("/resolve/", status=500, skip=1, times=2)
    assert [met(hub)[:3] for _ in range(4)] == ["ok", "500", "500", "ok"]


def test_a_delay_comes_before_the_answer(hub: Hub) -> None:
    hub.create("model", "alice/m", files={"a": b"0123456789"})
    hub.fail("/resolve/", delay=0.3)
    start = time.monotonic()
    assert met(hub) == "ok"
    assert time.monotonic() - start >= 0.3


def test_a_hanging_request_ends_when_the_stand_in_stops_and_another_start_goes_on(tmp_path: Path) -> None:
    hub = Hub(tmp_path).start()
    hub.create("model", "alice/m", files={"a": b"0123456789"})
    hub.fail("/resolve/", hang=True)
    with pytest.raises(TimeoutError):
        fetch(hub, "/alice/m/resolve/main/a", timeout=0.5)
    hub.fail("/resolve/", hang=True)
    with socket.create_connection(("127.0.0.1", hub.port)) as client:
        client.sendall(b"GET /alice/m/resolve/main/a HTTP/1.1\r\n\r\n")
        while hub.journal[-1].get("status") != "hang" or len(hub.journal) < 2:
            time.sleep(0.01)
        start = time.monotonic()
        hub.stop()
        assert time.monotonic() - start < 3
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        fetch(hub, "/alice/m/resolve/main/a")
    with hub.serve(hub.port):
        assert met(hub) == "ok"


def test_stopping_ends_connections_that_are_kept_alive(tmp_path: Path) -> None:
    with Hub(tmp_path).serve() as hub:
        connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=5)
        for body in (b"{}", b"x" * 100_000, None):  # what is refused is read all the same, or the next would be garbled
            connection.request("POST", "/api/models/alice/m/commit/main", body)
            reply = connection.getresponse()
            assert (reply.status, reply.headers["X-Error-Code"]) == (401, "RepoNotFound")
            reply.read()
    assert connection.sock.recv(1) == b""


def test_half_an_upload_is_not_kept(tmp_path: Path) -> None:
    with Hub(tmp_path, xet=True).serve() as hub:
        for head in ("PUT /_lfs/0?size=9", "POST /_xet/v1/xorbs/default/0", "POST /api/repos/create"):
            with socket.create_connection(("127.0.0.1", hub.port)) as client:
                client.sendall(f"{head} HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf".encode())
                client.shutdown(socket.SHUT_WR)
                assert client.recv(100) == b""
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_hanging_port_takes_requests_and_says_nothing() -> None:
    with hanging_port() as port:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), timeout=0.2) as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with pytest.raises(TimeoutError):
                    client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
