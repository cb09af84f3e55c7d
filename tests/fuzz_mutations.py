"""What fuzzing feeds: valid files, changed a little at a time, and a few files that are nothing at all."""

import json
from typing import Any

import yaml
from hypothesis import strategies as st

Op = tuple
"""One change of a file: its name, where (0 to 65535, as a share of the file), and what."""
GONE: Op = ("delete", 0, None)

PLACES = st.integers(0, 65535)
TOKENS = [
    b'"', b'""', b"'", b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b"\0", b"\\", b"{", b"}", b"[", b"]", b":", b" ",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff", b"\xe9", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8",
    b"\x1a", b"\x85", b"\x1f\x8b", b"PK\x03\x04", b"NA", b"NaN", b"Infinity", b"null", b"true", b"-1", b"01", b"1e999",
    b"9" * 5000, b"-0.0", b"a" * 200_000, b"[" * 3000, b'{"a":' * 3000, b"\\ud800", b"\\u0000", b"text", b"label",
    b"\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7",
]  # fmt: skip
YAML_TOKENS = [
    b"!!python/object/apply:os.system ['true']", b"!!timestamp x", b"!!binary x", b"!!set {a}", b"!!int x", b"!!float", b"&a ",
    b"*a", b"<<: *a", b"<<: 1", b"? ", b"? [a, b]\n: 1", b"---\n", b"...\n", b"- ", b"  ", b"2026-13-45", b"2026-11-24",
    b"12:30:45", b"0x1F", b"0o17", b"1_000", b".inf", b".nan", b"~", b"yes", b"|\n  a\n", b">-\n  a\n", b"%YAML 9.9\n",
    b"%TAG ! x\n", b"\xc2\x85", b"=", b"{}", b"[]", b"{a: {a: {a: 1}}}", b'"\\0"', b'"\\ud800"', b"x" * 5000, b"lora:", b"focal:",
    b"!!bool maybe", b"!!null x", b"!!omap [a]", b"!!pairs [a]", b"!!str", b"!!map [", b"!!seq {}", b"!<tag:yaml.org,2002:int> 0b",
]  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.sampled_from([2**31, -(2**63), 10**30, 1e308, 0.5, -1.0]),
    st.floats(allow_nan=True), st.text(max_size=12), st.sampled_from(["../../etc/passwd", "/", "", "a\0b", "\ud800", "x" * 3000]),
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TOKEN = st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=6)
YAML_TOKEN = st.sampled_from(YAML_TOKENS) | TOKEN


def byte_ops(tokens: st.SearchStrategy[bytes] = TOKEN) -> st.SearchStrategy[Op]:
    """Changes of bytes: a bit flipped, the rest cut off, a piece taken out, doubled, or a token put in."""
    return st.one_of(
        st.tuples(st.just("insert"), PLACES, tokens),
        st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
        st.tuples(st.just("cut"), PLACES, st.none()),
        st.tuples(st.just("drop"), PLACES, st.integers(1, 40)),
        st.tuples(st.just("double"), PLACES, st.integers(1, 400)),
    )


JSON_OPS: st.SearchStrategy[Op] = st.one_of(
    st.tuples(st.just("set"), PLACES, VALUES), st.tuples(st.just("unset"), PLACES, st.none())
)
"""Changes of a JSON document that stays JSON: one value replaced, one key taken out."""


def changed(content: bytes, ops: list[Op]) -> bytes | None:
    """The content after the changes; None when the file is deleted."""
    for name, at, what in ops:
        place = at * len(content) >> 16
        if name == "delete":
            return None
        if name == "insert":
            content = content[:place] + what + content[place:]
        elif name == "flip" and content:
            content = content[:place] + bytes([content[place] ^ 1 << what]) + content[place + 1 :]
        elif name == "cut":
            content = content[:place]
        elif name == "drop":
            content = content[:place] + content[place + what :]
        elif name == "double":
            content = content[: place + what] + content[place:]
        elif name in ("set", "unset"):
            content = _json_changed(content, name, at, what)
    return content


def _json_changed(content: bytes, name: str, at: int, what: Any) -> bytes:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return content
    spots = list(_spots(document))
    if not spots:
        return content
    holder, key = spots[at * len(spots) >> 16]
    if name == "set":
        holder[key] = what
    else:
        del holder[key]
    return json.dumps(document, indent=2).encode()  # escapes: half a surrogate pair is written as \\ud800


def _spots(value: Any) -> Any:
    """Every (container, key) of a document."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _spots(value[key])


def table(separator: str, rows: int = 12, quoted: bool = False) -> str:
    """A sound CSV file of two columns."""
    mark = '"' if quoted else ""
    lines = [f"text{separator}label"]
    for i in range(rows):
        said = 'says ""hello""' if quoted else "says hello"
        lines.append(f"{mark}message {i} {said}{mark}{separator}{'pos' if i % 2 else 'neg'}")
    return "\n".join(lines) + "\n"


TABLES = [
    table(",").encode(), table(";").encode(), table("\t").encode(), table("|").encode(), table(",", quoted=True).encode(),
    table(",").replace("\n", "\r\n").encode("utf-8-sig"), table(",").replace("hello", "Grüße").encode("cp1252"),
    table(",").encode("utf-16"), table(",").encode("utf-16-le"),
    b"text,text_pair,label\n" + b"".join(b"a %d,b %d,%d\n" % (i, i, i % 2) for i in range(8)),
    b"text,label\n" + b"".join(b"a %d,%d.5\n" % (i, i) for i in range(8)),
]  # fmt: skip
_RECORDS = [{"text": f"message {i}", "label": "pos" if i % 2 else "neg"} for i in range(12)]
RECORDS = [
    "".join(json.dumps(r) + "\n" for r in _RECORDS).encode(),
    "".join(json.dumps({**r, "label": [i % 2, 1]}) + "\n" for i, r in enumerate(_RECORDS)).encode(),
    "".join(json.dumps({**r, "label": i / 3, "more": {"a": [i, None]}}) + "\n" for i, r in enumerate(_RECORDS)).encode(),
    json.dumps(_RECORDS, indent=1).encode(), json.dumps({"data": _RECORDS}).encode(),
    json.dumps({"text": ["a", "b"] * 4, "label": [0, 1] * 4}).encode(),
]  # fmt: skip
READING = st.fixed_dictionaries(
    {},
    optional={
        "encoding": st.sampled_from(
            ["utf-8", "latin-1", "utf-16", "cp1252", "utf-7", "hex", "idna", "punycode", "", "no\0", "undefined"]
        ),
        "separator": st.sampled_from([",", ";", "tab", "|", '"', "\n", "\r", "\0", "é", "ab", "", " "]),
        "drop_empty": st.booleans(),
        "problem": st.sampled_from(["auto", "single", "multi", "regression"]),
        "columns": st.sampled_from(["text=text", "label=label,text=text", "text=label", "=", "text=", ",", "label=nothing"]),
        "eval_split": st.sampled_from(["10%", "0%", "100%", "train", "nothing", "5", ""]),
        "train_split": st.sampled_from(["train[:50%]", "train[5:1]", "train[", "train[:0]", "train[a:b]", "test"]),
    },
)  # fmt: skip


def data_files(kinds: list[str], sound: list[bytes]) -> st.SearchStrategy[tuple[str, bytes, dict[str, Any]]]:
    """(ending of the name, content, settings of the run): a sound file with changes, or bytes and text of any kind."""
    mutated = st.builds(
        lambda content, ops: changed(content, ops) or b"", st.sampled_from(sound), st.lists(byte_ops(), max_size=4)
    )
    noise = st.binary(max_size=300) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))
    pieces = st.lists(TOKEN, max_size=12).map(b"".join)
    return st.tuples(st.sampled_from(kinds), st.one_of(mutated, mutated, mutated, noise, pieces), READING)


def yaml_files(sound: list[bytes], names: list[str]) -> st.SearchStrategy[bytes]:
    """A configuration with changes, one made of known settings with odd values, or tokens in a row."""
    mutated = st.builds(
        lambda content, ops: changed(content, ops) or b"",
        st.sampled_from(sound),
        st.lists(byte_ops(YAML_TOKEN), min_size=1, max_size=4),
    )
    known = st.dictionaries(
        st.sampled_from(names) | st.text(max_size=6), VALUES | st.dates() | st.binary(max_size=4), max_size=5
    )
    written = known.map(lambda d: yaml.safe_dump(d, allow_unicode=True).encode("utf-8", "surrogatepass"))
    lines = st.lists(
        st.tuples(st.sampled_from(names), YAML_TOKEN).map(lambda p: p[0].encode() + b": " + p[1] + b"\n"), max_size=5
    )
    return st.one_of(mutated, written, lines.map(b"".join), st.lists(YAML_TOKEN, max_size=8).map(b"".join))


def command_lines(names: list[str]) -> st.SearchStrategy[list[str]]:
    """Flags of either spelling, values of every kind, stray words."""
    flag = st.sampled_from(names).map(lambda n: f"--{n.replace('_', '-')}") | st.sampled_from(
        [
            "--",
            "-",
            "--no-verify",
            "--no-",
            "---",
            "-x",
            "--=",
            "--seed=",
            "--config=",
            "--config",
            "--loss=focal",
            "--é",
            "-1",
        ]
    )
    words = "1 -1 1e3 1e999 nan inf none true {} [ lora focal ../x a=b 1.5 0x1 1_0 ١".split()
    odd = ['{"a": 1}', "{" * 50, "", " ", "9" * 5000, "\udc80"]
    value = st.sampled_from(words + odd) | st.text(max_size=6)
    return st.lists(flag | flag | value, max_size=7)


def folder_changes(names: list[str]) -> st.SearchStrategy[list[tuple[str, list[Op]]]]:
    """Changes of one to three files of a folder; files that are JSON are mostly changed as JSON."""

    def of(name: str) -> st.SearchStrategy[tuple[str, list[Op]]]:
        ops = byte_ops() if not name.endswith(".json") else st.one_of(JSON_OPS, JSON_OPS, byte_ops())
        return st.tuples(st.just(name), st.lists(st.one_of(ops, ops, ops, st.just(GONE)), min_size=1, max_size=3))

    return st.lists(st.sampled_from(names).flatmap(of), min_size=1, max_size=3, unique_by=lambda change: change[0])
