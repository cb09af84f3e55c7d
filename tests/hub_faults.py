"""What can go wrong between a client and the stand-in, on request."""

import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Fault:
    """One fault, for requests whose method and path match; it happens `times` times after `skip` of them."""

    method: str = ".*"
    path: str = ".*"
    skip: int = 0
    times: int = 1
    hits: int = 0
    delay: float = 0.0
    """Seconds to wait first."""
    status: int | None = None
    """Answer with this status in place of the work, with the three that follow."""
    code: str | None = None
    message: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_request_at: int | None = None
    """Read that many bytes of the body, then drop the connection."""
    cut_response_at: int | None = None
    """Send that many bytes of the body, then drop the connection."""
    lose_reply: bool = False
    """Do the work, then drop the connection without a word."""
    clean: bool = False
    """Drop connections with a FIN, as a load balancer does, and not with an RST, as a dying proxy does."""
    flip_byte: int | None = None
    """Change the byte at this offset of the body sent."""
    hang: bool = False
    """Take the request and never answer, until the stand-in stops."""

    def happens(self, method: str, path: str) -> bool:
        """Count a request; whether the fault is for it."""
        matches = re.fullmatch(self.method, method) and re.search(self.path, path)
        if not matches or self.hits >= self.skip + self.times:
            return False
        self.hits += 1
        return self.hits > self.skip


def first_fault(faults: Iterable[Fault], method: str, path: str) -> Fault | None:
    """The fault that a request meets; those after it do not count the request."""
    return next((fault for fault in faults if fault.happens(method, path)), None)


def damaged(pieces: Iterable[bytes], limit: int, flip: int | None) -> Iterator[bytes]:
    """The first `limit` bytes of a body, with the lowest bit of one byte changed."""
    sent = 0
    for whole in pieces:
        piece = whole[: limit - sent]
        if flip is not None and sent <= flip < sent + len(piece):
            i = flip - sent
            piece = piece[:i] + bytes([piece[i] ^ 1]) + piece[i + 1 :]
        sent += len(piece)
        yield piece


@contextmanager
def hanging_port() -> Iterator[int]:
    """A port of 127.0.0.1 where connections are accepted, by the kernel alone, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]
