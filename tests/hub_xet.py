"""A small Xet store over HTTP for the stand-in: it keeps xorbs and shards, and answers how files are put together.

The server needs neither hashing nor decompression. A xorb is a run of chunks with headers of 8 bytes: version,
compressed length (3 bytes), compression, plain length (3 bytes). A shard has records of 48 bytes, which say for each
file of which chunks of which xorbs it consists, and its sha256.
"""

import struct
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hub_messages import Refusal, Reply, Request

CHUNK_HEADER, RECORD, HASH = 8, 48, 32
FOOTER_MARK = b"XETBLOB"
END_MARK = b"\xff" * HASH
HAS_VERIFICATION, HAS_METADATA = 1 << 31, 1 << 30
READ_TOKEN, WRITE_TOKEN = "xet_read", "xet_write"
LIFETIME = 3600


class Term(NamedTuple):
    """Chunks `first` to `end` (not included) of a xorb, which are `size` bytes of a file."""

    xorb: str
    size: int
    first: int
    end: int

    @property
    def chunks(self) -> dict[str, int]:
        """The range as Xet writes it."""
        return {"start": self.first, "end": self.end}


def hash_text(data: bytes) -> str:
    """A hash as Xet writes it: four little-endian numbers of 64 bits."""
    return "".join(data[i : i + 8][::-1].hex() for i in range(0, HASH, 8))


def connection(url: str, write: bool) -> Reply:
    """Where the store is and with which token: in headers for Python, in JSON for Rust."""
    token = WRITE_TOKEN if write else READ_TOKEN
    end = int(time.time()) + LIFETIME
    headers = {"X-Xet-Cas-Url": f"{url}/_xet", "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(end)}
    return Reply({"casUrl": f"{url}/_xet", "accessToken": token, "exp": end}, headers=headers)


def read_shard(data: bytes) -> Iterator[tuple[str, list[Term], str | None]]:
    """The files of a shard: Xet hash, terms and sha256."""
    position = RECORD  # the header: 32 bytes of magic, version, size of the footer
    while position + RECORD <= len(data):
        file = data[position : position + HASH]
        if file == END_MARK:
            return
        flags, count = struct.unpack_from("<II", data, position + HASH)
        position += RECORD
        terms = []
        for i in range(count):
            xorb, _, *numbers = struct.unpack_from("<32sIIII", data, position + RECORD * i)
            terms.append(Term(hash_text(xorb), *numbers))
        position += RECORD * count * (2 if flags & HAS_VERIFICATION else 1)
        sha256 = None
        if flags & HAS_METADATA:
            sha256 = hash_text(data[position : position + HASH])
            position += RECORD
        yield hash_text(file), terms, sha256


class XetCas:
    """Xorbs in a folder, and what the shards said about files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.files: dict[str, list[Term]] = {}
        self.hashes: dict[str, str] = {}
        self.ends: dict[str, list[int]] = {}

    def by_sha256(self, sha256: str) -> tuple[str, int] | tuple[None, None]:
        """The Xet hash and the size of a file; two times None for an unknown one."""
        file = self.hashes.get(sha256)
        if file is None:
            return None, None
        return file, sum(term.size for term in self.files[file])

    def route(self, request: Request, url: str) -> Reply:
        """Answer a request under `_xet`; xorbs are to be fetched from `url`."""
        version, *rest = request.segments[1:]
        if version == "xorb":
            return self._stored(rest[0])
        self._authorize(request)
        handlers = {"xorbs": self._put_xorb, "shards": self._put_shard, "reconstructions": self._reconstruct}
        methods = {"xorbs": "POST", "shards": "POST", "reconstructions": "GET"}
        kind = rest[0] if rest else ""
        if methods.get(kind) != request.method:
            raise Refusal(404, "not found")  # among others /v1/chunks: nothing is deduplicated
        return handlers[kind](request, version, url)

    def materialise(self, sha256: str, destination: Path, url: str) -> None:
        """Write a file's plain bytes, for clients without Xet: hf_xet reads them back from this very server."""
        import hf_xet

        file, size = self.by_sha256(sha256)
        whole_later = destination.with_name(f"{sha256}.{uuid.uuid4().hex}")
        group = hf_xet.XetSession().new_file_download_group(
            endpoint=f"{url}/_xet", token=READ_TOKEN, token_expiry_unix_secs=int(time.time()) + LIFETIME
        )
        with group as downloads:
            downloads.start_download_file(hf_xet.XetFileInfo(file, size), str(whole_later))
        whole_later.rename(destination)

    def _authorize(self, request: Request) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        allowed = (WRITE_TOKEN,) if request.method == "POST" else (READ_TOKEN, WRITE_TOKEN)
        if token not in allowed:
            raise Refusal(401, "not a token for this")

    def _stored(self, xorb: str) -> Reply:
        path = self.root / xorb
        if not path.is_file():
            raise Refusal(404, "no such xorb")
        return Reply(path, headers={"Accept-Ranges": "bytes"})

    def _put_xorb(self, request: Request, version: str, url: str) -> Reply:
        path = self.root / request.segments[-1]
        is_new = not path.exists()
        whole_later = self.root / f"{path.name}.{uuid.uuid4().hex}"
        whole_later.write_bytes(request.body)
        whole_later.rename(path)
        return Reply({"was_inserted": is_new})

    def _put_shard(self, request: Request, version: str, url: str) -> Reply:
        for file, terms, sha256 in read_shard(request.body):
            with self.lock:
                self.files[file] = terms
                if sha256:
                    self.hashes[sha256] = file
        if version == "v1":
            return Reply({"result": 1})
        return Reply(b'{"type":"result"}\n', headers={"Content-Type": "application/x-ndjson"})

    def _reconstruct(self, request: Request, version: str, url: str) -> Reply:
        """The terms that hold the bytes asked for, whole, and where in their xorbs they lie."""
        terms = self.files.get(request.segments[-1])
        if terms is None:
            raise Refusal(404, "file not found")
        low, high = _range(request.headers.get("Range"), sum(term.size for term in terms))
        needed: list[Term] = []
        offset = position = 0
        for term in terms:
            if position + term.size > low and position < high:
                offset = offset if needed else low - position
                needed.append(term)
            position += term.size
        views = [{"hash": t.xorb, "unpacked_length": t.size, "range": t.chunks} for t in needed]
        where = {"xorbs" if version == "v2" else "fetch_info": self._where(needed, version, url)}
        return Reply({"offset_into_first_range": offset, "terms": views, **where})

    def _where(self, terms: list[Term], version: str, url: str) -> dict[str, list[dict[str, Any]]]:
        """The bytes to fetch, by xorb."""
        found: dict[str, list[dict[str, Any]]] = {}
        for term in dict.fromkeys(Term(t.xorb, 0, t.first, t.end) for t in terms):
            ends = self._chunk_ends(term.xorb)
            span = {"start": ends[term.first - 1] if term.first else 0, "end": ends[term.end - 1] - 1}
            address = f"{url}/_xet/xorb/{term.xorb}"
            view: dict[str, Any] = {"range": term.chunks, "url": address, "url_range": span}
            if version == "v2":
                parted = f"{address}?r={term.first}-{term.end}"
                view = {"url": parted, "ranges": [{"chunks": term.chunks, "bytes": span}]}
            found.setdefault(term.xorb, []).append(view)
        return found

    def _chunk_ends(self, xorb: str) -> list[int]:
        """Where each chunk of a xorb ends, in bytes."""
        if xorb not in self.ends:
            data = (self.root / xorb).read_bytes()
            ends = []
            position = 0
            while position + CHUNK_HEADER <= len(data) and not data.startswith(FOOTER_MARK, position):
                position += CHUNK_HEADER + int.from_bytes(data[position + 1 : position + 4], "little")
                ends.append(position)
            self.ends[xorb] = ends
        return self.ends[xorb]


def _range(header: str | None, total: int) -> tuple[int, int]:
    """First byte and end of "bytes=0-9". Raises Refusal (416) when it begins after the file."""
    first, _, last = (header or "bytes=0-").removeprefix("bytes=").partition("-")
    low, high = int(first), min(total, int(last) + 1 if last else total)
    if low >= total and header:
        raise Refusal(416, "no such range")
    return low, high
