"""A stand-in of the Hugging Face Hub on the loopback, for real clients over HTTP; the standard library and PyYAML only.

    with Hub(tmp_path).serve() as hub: ...                  # in this process
    python tests/hub_server.py --port 0 --root DIR --xet    # in its own; prints its address

Regular files come in with the commit, large ones through Git LFS (basic or multipart), or through Xet (`xet=True`).
`Hub.fail` and POST /_hub/faults script what goes wrong; `Hub.journal` and GET /_hub/journal say what was asked.
Not modelled: rate limits, webhooks, Spaces that run, scans, git over HTTP, the dataset viewer, buckets, copies between
repositories.
"""

import argparse
import re
import socket
import struct
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hub_access
from hub_faults import Fault, damaged, first_fault, hanging_port
from hub_messages import Refusal, Reply, Request, Token
from hub_routes import route
from hub_store import Store
from hub_xet import XetCas

__all__ = ["Fault", "Hub", "Token", "hanging_port"]

PIECE = 1 << 20


class Hub(Store):
    """Repositories, users and faults, served on 127.0.0.1; its CDN is the same server under another name.

    Large files are those of `lfs_threshold` bytes, of certain names, or not text. They are sent in parts of `part_size`
    when they are over `multipart_over` bytes. `aliases` are names of repositories that lead to others.
    """

    def __init__(
        self,
        root: str | Path,
        lfs_threshold: int = 10_000_000,
        multipart_over: int | None = None,
        part_size: int = 5_000_000,
        xet: bool = False,
        page_size: int = 1000,
        aliases: dict[str, str] | None = None,
    ) -> None:
        super().__init__(root, lfs_threshold)
        self.multipart_over = multipart_over
        self.part_size = part_size
        self.page_size = page_size
        self.aliases = dict(aliases or {})
        self.xet = XetCas(self.root / "xet") if xet else None
        self.tokens = hub_access.known_tokens()
        self.orgs = {"acme": {"alice"}}
        self.faults: list[Fault] = []
        self.journal: list[dict[str, Any]] = []
        self.parts: dict[str, dict[int, bytes]] = {}
        self.stopping = threading.Event()
        self.port = 0
        self.url = self.cdn = ""

    def fail(self, path: str = ".*", method: str = ".*", **more: Any) -> Fault:
        """Script a fault for requests whose path contains, and whose method is, a pattern; see `Fault`."""
        fault = Fault(method, path, **more)
        with self.lock:
            self.faults.append(fault)
        return fault

    def content(self, type: str, id: str, path: str, revision: str = "main") -> bytes:
        """The bytes of a file as a download would have them."""
        entry = self.repo(type, id).tree(revision)[path]
        if entry.sha256 is None:
            return entry.data or b""
        return (self.large_file(entry.sha256) or self.lfs_path(entry.sha256)).read_bytes()

    def large_file(self, sha256: str) -> Path | None:
        """Where a large file lies, put together first if it came through Xet; None for an unknown one."""
        path = self.lfs_path(sha256)
        if not path.is_file() and self.xet and self.xet.by_sha256(sha256)[0]:
            self.xet.materialise(sha256, path, self.url)
        return path if path.is_file() else None

    def start(self, port: int = 0) -> "Hub":
        """Serve in a thread, on a free port when none is given. A stopped stand-in may start again, as it was."""
        self.stopping = threading.Event()
        self._server = Server(self, port)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.cdn = f"http://localhost:{self.port}"  # another origin for clients, as the CDN of the Hub is
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop serving, and drop every connection, also those that hang."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.drop_connections()

    @contextmanager
    def serve(self, port: int = 0) -> Iterator["Hub"]:
        """Serve inside a `with` block."""
        self.start(port)
        try:
            yield self
        finally:
            self.stop()

    def admit(self, record: dict[str, Any]) -> Fault:
        """Write a request down, unless it is a test's own; what is to go wrong with it."""
        path = urlsplit(record["path"]).path
        if path.startswith("/_hub/"):
            return Fault()
        with self.lock:
            self.journal.append(record)
            fault = first_fault(self.faults, record["method"], path)
        if fault is None:
            return Fault()
        record["fault"] = fault.hits
        return fault


class Server(ThreadingHTTPServer):
    """A thread for each connection; connections are known, so that they can be dropped."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: Hub, port: int) -> None:
        self.hub = hub
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Exchange)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection and remember it."""
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """End a connection and forget it."""
        self.connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        """End those that clients keep alive."""
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Exchange(BaseHTTPRequestHandler):
    """The requests of one connection, one after the other, and their faults."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def answer(self) -> None:
        """Answer one request, or let happen to it what was scripted."""
        hub = self.server.hub
        start = time.monotonic()
        record = self._record()
        fault = hub.admit(record)
        hub.stopping.wait(fault.delay)
        if fault.cut_request_at is not None:
            record["status"] = "cut-request"
            self._read(fault.cut_request_at)
            self._drop(fault.clean)
            return
        body = self._read()
        record["in"] = len(body)
        if fault.hang:
            record["status"] = "hang"
            hub.stopping.wait()
            self._drop()
            return
        reply = self._reply(body, record, fault).encoded()
        record |= {"status": reply.status, "ms": round(1000 * (time.monotonic() - start))}
        if fault.lose_reply:
            record["status"] = f"lost-{reply.status}"
            self._drop(fault.clean)
            return
        self._send(reply, fault, record)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def log_message(self, *_: object) -> None:
        """Say nothing; the journal does."""

    def handle_one_request(self) -> None:
        """Serve one request; a client that leaves is no error."""
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def finish(self) -> None:
        """Close the connection, also one that is closed already."""
        with suppress(OSError, ValueError):
            super().finish()

    def _record(self) -> dict[str, Any]:
        """The request as the journal has it, with a note when a token came to the CDN."""
        record = {
            "t": round(time.time(), 3),
            "method": self.command,
            "path": self.path,
            "user": None,
            "ua": self.headers.get("User-Agent", "")[:60],
            "range": self.headers.get("Range"),
        }
        if "Authorization" in self.headers and self.headers.get("Host") == urlsplit(self.server.hub.cdn).netloc:
            record["note"] = "AUTH LEAKED TO CDN"
        return record

    def _read(self, limit: int | None = None) -> bytes:
        """The body, or its first `limit` bytes. Raises ConnectionError when the client leaves before its end."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self._read_chunks(limit)
        size = int(self.headers.get("Content-Length") or 0)
        wanted = size if limit is None else min(limit, size)
        body = self.rfile.read(wanted)
        if len(body) < wanted:
            raise ConnectionAbortedError
        return body

    def _read_chunks(self, limit: int | None) -> bytes:
        body = b""
        while limit is None or len(body) < limit:
            size = self.rfile.readline().split(b";")[0].strip()
            if not size:
                raise ConnectionAbortedError
            body += self.rfile.read(int(size, 16))
            self.rfile.readline()
            if int(size, 16) == 0:
                break
        return body

    def _reply(self, body: bytes, record: dict[str, Any], fault: Fault) -> Reply:
        """The answer to a request, an error among them; a bug of the stand-in is printed."""
        hub = self.server.hub
        try:
            if fault.status:
                message = fault.message or f"injected {fault.status}"
                raise Refusal(fault.status, message, fault.code, fault.headers)
            token = Token()
            if not record["path"].startswith(("/_xet/", "/_hub/")):  # Xet has tokens of its own
                token = hub_access.who(hub, self.headers.get("Authorization", ""))
            record["user"] = token.user
            return route(hub, Request(self.command, self.path, self.headers, token, body))
        except Refusal as refusal:
            return refusal.reply()
        except Exception as error:
            traceback.print_exc()
            return Reply({"error": f"stand-in bug: {type(error).__name__}: {error}"}, 500)

    def _send(self, reply: Reply, fault: Fault, record: dict[str, Any]) -> None:
        """Send a reply or the range of it that was asked for, as damaged as the fault says."""
        reply, start, size = sliced(reply, self.headers.get("Range"))
        record |= {"status": reply.status, "out": 0 if self.command == "HEAD" else size}
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("X-Request-Id", uuid.uuid4().hex)
        if reply.status != 204:
            self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command == "HEAD" or not size:
            return
        limit = size if fault.cut_response_at is None else min(size, fault.cut_response_at)
        flip = None if fault.flip_byte is None else fault.flip_byte % size
        for piece in damaged(pieces(reply.body, start, size), limit, flip):
            self.wfile.write(piece)
        if limit < size:
            record["status"] = f"cut-{reply.status}"
            self._drop(fault.clean)

    def _drop(self, clean: bool = False) -> None:
        """End the connection in the middle, with an RST unless `clean`."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            if clean:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def sliced(reply: Reply, header: str | None) -> tuple[Reply, int, int]:
    """A reply for a Range header, where in its body to begin, and how many bytes to send."""
    size = reply.body.stat().st_size if isinstance(reply.body, Path) else len(reply.body)
    wanted = re.fullmatch(r"bytes=(?:(\d+)-(\d*)|-(\d+))", header or "")
    if not wanted or not size or reply.status != 200 or "Accept-Ranges" not in reply.headers:
        return reply, 0, size
    first, last, tail = wanted.groups()
    start = max(0, size - int(tail)) if tail else int(first)
    end = min(size - 1, int(last)) if last else size - 1
    if start > end:
        return Reply(b"", 416, {"Content-Range": f"bytes */{size}"}), 0, 0
    partial = Reply(reply.body, 206, {**reply.headers, "Content-Range": f"bytes {start}-{end}/{size}"})
    return partial, start, end - start + 1


def pieces(body: Any, start: int, size: int) -> Iterator[bytes]:
    """Some bytes of bytes or of a file, bit by bit."""
    if not isinstance(body, Path):
        yield body[start : start + size]
        return
    with body.open("rb") as file:
        file.seek(start)
        while size > 0:
            piece = file.read(min(PIECE, size))
            size -= len(piece)
            yield piece


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="Serve a stand-in of the Hugging Face Hub until killed.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--root", required=True, help="folder for large files")
    parser.add_argument("--xet", action="store_true", help="take large files through Xet as well")
    parser.add_argument("--multipart-over", type=int, help="size in bytes from which LFS files are sent in parts")
    given = parser.parse_args()
    hub = Hub(given.root, multipart_over=given.multipart_over, xet=given.xet).start(given.port)
    print(hub.url, flush=True)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    main()
