"""Bad text data, kind by kind: what is read, what is refused, and that every refusal is short and names the cure."""

# ruff: noqa: E501 - the tables read best with one case a line

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from hf_tuner.config import Run
from hf_tuner.data import files
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError


class Task:
    """The columns of a text classifier."""

    columns: ClassVar = {
        "text": ("text", "sentence", "review"),
        "text_pair": ("text_pair",),
        "label": ("label", "stars"),
    }
    optional: ClassVar = ("text_pair",)


def body(separator: str = ",", end: str = "\n", extra: str = "") -> str:
    """A CSV of 19 good rows, and perhaps a line more."""
    lines = [f"text{separator}label"]
    lines += [f"message {'good' if i % 2 else 'bad'} {i}{separator}{'pos' if i % 2 else 'neg'}" for i in range(19)]
    return end.join([*lines, *([extra] if extra else [])]) + end


def jsonl(*extra: str) -> str:
    """19 good rows as JSON Lines, and perhaps more lines."""
    good = [json.dumps({"text": f"message {i}", "label": "pos" if i % 2 else "neg"}) for i in range(19)]
    return "\n".join([*good, *extra]) + "\n"


def load(folder: Path, name: str, content: str | bytes, **options: object) -> tuple:
    """Write a file, load it, and return all texts and labels in their order."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    data = load_data(Run(dataset=str(path), output_dir=str(folder / "run"), **options), Task)
    both = [(t, label) for split in data.values() for t, label in zip(split["text"], split["label"], strict=True)]
    return tuple(both)


# fault-matrix row, what, file name, content, what the message must hold
REFUSED: list[tuple[int, str, str, str | bytes, list[str]]] = [
    (43, "empty text", "t.csv", body(extra=",pos"), ['t.csv row 21: column "text" is empty (1 of 20 rows)', "--drop-empty"]),
    (43, "blank text", "t.csv", body(extra="  ,pos"), ["row 21", "--drop-empty"]),
    (43, "empty label", "t.csv", body(extra="hello,"), ['t.csv row 21: column "label" is empty', "--drop-empty"]),
    (43, "null text", "t.jsonl", jsonl('{"text": null, "label": "pos"}'), ['t.jsonl row 20: column "text" is empty']),
    (43, "NaN label", "t.jsonl", "\n".join(f'{{"text": "t{i}", "label": {i % 3}.5}}' for i in range(9)) + '\n{"text": "t", "label": NaN}',
     ['t.jsonl row 10: column "label" is empty']),
    (45, "ids as labels", "t.csv", "text,label\n" + "".join(f"t{i},{i}\n" for i in range(30)), ["classes", "--columns label="]),
    (46, "single class", "t.csv", "text,label\n" + "".join(f"t{i},same\n" for i in range(30)), ['one class only ("same"']),
    (47, "0 bytes", "t.csv", b"", ["t.csv is empty (0 bytes)"]),
    (47, "0 bytes of JSON", "t.jsonl", b"", ["t.jsonl is empty (0 bytes)"]),
    (47, "header only", "t.csv", "text,label\n", ["t.csv has a header but no rows"]),
    (47, "one row", "t.csv", "text,label\nhello,pos\n", ["1 training row", "too few"]),
    (47, "blank lines only", "t.jsonl", "\n\n", ["t.jsonl holds no rows"]),
    (48, "Latin-1", "t.csv", body(extra="café,pos").encode("latin-1"), ["t.csv line 21", "Latin-1", "--encoding latin-1"]),
    (48, "Windows-1252", "t.csv", body(extra="“quoted”,pos").encode("cp1252"), ["line 21", "--encoding cp1252"]),
    (48, "Latin-1 JSON", "t.jsonl", jsonl('{"text": "café", "label": "pos"}').encode("latin-1"), ["line 20", "--encoding latin-1"]),
    (48, "UTF-16", "t.csv", body().encode("utf-16"), ["t.csv line 1", "--encoding utf-16"]),
    (48, "UTF-16 without mark", "t.csv", body().encode("utf-16-le"), ["--encoding utf-16-le"]),
    (48, "half a surrogate pair", "t.jsonl", jsonl('{"text": "\\ud83d", "label": "pos"}'), ["t.jsonl line 20", "surrogate"]),
    (48, "Excel named csv", "t.csv", b"PK\x03\x04" + bytes(100), ["t.csv is not a text file", "export it as CSV"]),
    (48, "pickle named csv", "t.csv", b"\x80\x04\x95" + bytes(100), ["pickle", "Parquet"]),
    (49, "extra comma", "t.csv", body(extra="hello, world,pos"), ["t.csv line 21: 3 fields where the header has 2 (text, label)", "quotes"]),
    (49, "missing field", "t.csv", body(extra="hello"), ["t.csv line 21: 1 field where", "--separator"]),
    (49, "unbalanced quote", "t.csv", body(extra='"hello,pos\nmore,neg'), ['t.csv line 21: the quotes (") of this row do not pair up', '("")']),
    (49, "quote inside a quoted text", "t.csv", body(extra='"he said "no" to me",pos'), ["t.csv line 21", "do not pair up"]),
    (49, "missing header", "t.csv", body().partition("\n")[2], ['no column for "text" and "label"', "header missing", "--columns text="]),
    (49, "duplicate column", "t.csv", "text,label,text\na,b,c\n", ['duplicate column "text"']),
    (49, "wrong column", "t.csv", body().replace("text,", "utterance,"), ['no column for "text"; found: utterance, label', "--columns text=utterance"]),
    (50, "broken line", "t.jsonl", jsonl('{"text": "cut off'), ["t.jsonl line 20: not valid JSON"]),
    (50, "two objects in a line", "t.jsonl", jsonl('{"text": "a", "label": "b"} {"text": "c"}'), ["line 20: not valid JSON (Extra data"]),
    (50, "type change", "t.jsonl", jsonl('{"text": "a", "label": 5}'), ['t.jsonl line 20: "label" is a number (5) but text on line 1']),
    (50, "missing key", "t.jsonl", jsonl('{"label": "pos"}'), ['t.jsonl row 20: column "text" is empty']),
    (50, "not an object", "t.jsonl", jsonl('"just text"'), ["t.jsonl line 20: expected an object"]),
    (50, "nested text", "t.jsonl", '{"text": {"en": "a"}, "label": "x"}\n' * 20, ['column "text" holds {', "not text"]),
    (50, "list text", "t.jsonl", '{"text": ["a", "b"], "label": "x"}\n' * 20, ['column "text" holds List', "not text"]),
    (50, "broken array", "t.json", '[\n{"text": "a", "label": "x"},\n{"text": }\n]', ["t.json line 3: not valid JSON"]),
    (50, "deep nesting", "t.json", "[" * 100_000, ["t.json: JSON nested too deep"]),
    (52, "lists as text", "t.csv", "text,label\n" + "".join(f"\"t{i}\",\"['a', 'b{i % 2}']\"\n" for i in range(30)), ["lists written as text"]),
]  # fmt: skip


@pytest.mark.parametrize("row, what, name, content, said", REFUSED, ids=[f"{row} {what}" for row, what, *_ in REFUSED])
def test_refused(row: int, what: str, name: str, content: str | bytes, said: list[str], tmp_path: Path) -> None:
    """The message names file, place and cure in at most 15 lines, and the exit code is that of wrong data."""
    with pytest.raises(UsageError) as caught:
        load(tmp_path, name, content)
    message = str(caught.value)
    assert [words for words in said if words not in message] == [], message
    assert message.count("\n") < 15
    assert caught.value.exit_code == 2


def _labels(values: list[str]) -> Callable[[tuple], bool]:
    return lambda rows: {label for _, label in rows} == set(values)


# fault-matrix row, what, file name, content, options, what must hold of the rows, what must be printed
READ: list[tuple[int, str, str, str | bytes, dict, Callable[[tuple], bool], str]] = [
    (43, "dropped on demand", "t.csv", body(extra=",pos"), {"drop_empty": True}, lambda r: len(r) == 19, "train: 1 of 20 rows left out"),
    (44, "words that look empty", "t.csv", "text,label\n" + "".join(f"{w},{w}\n" for w in ("NA", "None", "null", "nan")) * 6, {},
     _labels(["NA", "None", "null", "nan"]), "4 classes"),
    (45, "labels of 1 to 5", "t.csv", "text,label\n" + "".join(f"t{i},{i % 5 + 1}\n" for i in range(40)), {},
     _labels(list("12345")), "5 classes (1, 2, 3, 4, 5)"),
    (45, "labels with -1", "t.csv", "text,label\n" + "".join(f"t{i},{i % 3 - 1}\n" for i in range(40)), {}, _labels(["-1", "0", "1"]), "negative ids -1"),
    (45, "true and false", "t.jsonl", "".join(f'{{"text": "t{i}", "label": {"true" if i % 2 else "false"}}}\n' for i in range(40)), {},
     lambda r: {label for _, label in r} == {True, False}, "false before true"),
    (45, "whole decimals", "t.jsonl", "".join(f'{{"text": "t{i}", "label": {i % 3}.0}}\n' for i in range(40)), {},
     lambda r: {label for _, label in r} == {0.0, 1.0, 2.0}, "--problem regression"),
    (45, "case and space", "t.csv", "text,label\n" + "".join(f"t{i},{('pos', 'Pos', 'neg')[i % 3]}\n" for i in range(40)), {},
     _labels(["pos", "Pos", "neg"]), '"Pos" / "pos"'),
    (45, "01 and 1", "t.csv", "text,label\n" + "".join(f"t{i},{('01', '1', '2')[i % 3]}\n" for i in range(40)), {}, _labels(["01", "1", "2"]), '"01" / "1"'),
    (48, "byte order mark", "t.csv", "\ufeff" + body(), {}, lambda r: len(r) == 19, "text, label"),
    (48, "carriage returns", "t.csv", body(end="\r"), {}, lambda r: len(r) == 19, ""),
    (48, "Windows line ends", "t.csv", body(end="\r\n"), {}, lambda r: _labels(["pos", "neg"])(r), ""),
    (48, "mixed line ends", "t.csv", body(end="\r\n") + "one,pos\ntwo,neg\rthree,pos\n", {}, lambda r: len(r) == 22, ""),
    (48, "NUL", "t.csv", body(extra="a\x00b,pos"), {}, lambda r: any("\x00" in t for t, _ in r), "NUL"),
    (48, "emoji and right to left", "t.csv", body(extra="👩‍👩‍👧 שלום,pos"), {}, lambda r: any("👩‍👩‍👧 שלום" in t for t, _ in r), ""),
    (48, "Latin-1 as said", "t.csv", body(extra="café,pos").encode("latin-1"), {"encoding": "latin-1"}, lambda r: any(t == "café" for t, _ in r), ""),
    (48, "UTF-16 as said", "t.csv", body(extra="café,pos").encode("utf-16"), {"encoding": "utf-16"}, lambda r: any(t == "café" for t, _ in r), ""),
    (48, "gzip named csv", "t.csv", gzip.compress(body().encode()), {}, lambda r: len(r) == 19, ""),
    (49, "semicolons", "t.csv", body(";"), {}, lambda r: len(r) == 19, "separator taken as semicolon"),
    (49, "tabs named csv", "t.csv", body("\t"), {}, lambda r: len(r) == 19, "separator taken as tab"),
    (49, "pipes", "t.csv", body("|"), {}, lambda r: len(r) == 19, "separator taken as pipe"),
    (49, "semicolons, commas inside", "t.csv", "text;label\n" + "".join(f"a, b, c{i};{'xy'[i % 2]}\n" for i in range(20)), {},
     _labels(["x", "y"]), "semicolon"),
    (49, "separator as said", "t.csv", body("^"), {"separator": "^"}, lambda r: len(r) == 19, ""),
    (49, "line break in a text", "t.csv", body(extra='"one\ntwo",pos'), {}, lambda r: any(t == "one\ntwo" for t, _ in r), ""),
    (49, "doubled quotes", "t.csv", body(extra='"he said ""no""",pos'), {}, lambda r: any(t == 'he said "no"' for t, _ in r), ""),
    (49, "plain quotes in a TSV", "t.tsv", body("\t", extra='"Hello he said\tpos'), {}, lambda r: any(t == '"Hello he said' for t, _ in r), "plain text"),
    (49, "capitals in the header", "t.csv", body().replace("text,label", "Text,LABEL"), {}, lambda r: len(r) == 19, "label <- LABEL"),
    (49, "index column", "t.csv", ",text,label\n" + "".join(f"{i},t{i},{'xy'[i % 2]}\n" for i in range(20)), {}, lambda r: len(r) == 20, ""),
    (50, "extra key", "t.jsonl", jsonl('{"text": "a", "label": "pos", "more": 1}'), {}, lambda r: len(r) == 20, ""),
    (50, "mixed types in a column not needed", "t.jsonl", jsonl('{"text": "a", "label": "pos", "id": 1}', '{"text": "b", "label": "pos", "id": "x"}'), {},
     lambda r: len(r) == 21, ""),
    (50, "array of rows", "t.json", json.dumps([{"text": f"t{i}", "label": "xy"[i % 2]} for i in range(20)], indent=1), {}, lambda r: len(r) == 20, ""),
    (50, "rows under a key", "t.json", json.dumps({"data": [{"text": f"t{i}", "label": "xy"[i % 2]} for i in range(20)]}), {}, lambda r: len(r) == 20, ""),
    (52, "numbers as text", "t.jsonl", "".join(f'{{"text": {i}, "label": "{"xy"[i % 2]}"}}\n' for i in range(20)), {},
     lambda r: ("3", "y") in r, "int64 values, read as text"),
]  # fmt: skip


@pytest.mark.parametrize("case", READ, ids=[f"{row} {what}" for row, what, *_ in READ])
def test_read(case: tuple, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """What can be read is read whole and unchanged, and what was decided is said."""
    _, _, name, content, options, holds, printed = case
    assert holds(load(tmp_path, name, content, **options))
    shown = capfd.readouterr()
    assert printed in shown.out + shown.err


def test_labels_of_test_never_seen_in_train(tmp_path: Path) -> None:
    """Row 46: the labels are listed with their counts."""
    (tmp_path / "train.csv").write_text(body())
    (tmp_path / "test.csv").write_text("text,label\na,pos\nb,weird\nc,weird\n")
    with pytest.raises(UsageError, match=r'"weird" \(2\)'):
        load_data(Run(dataset=str(tmp_path), output_dir=str(tmp_path)), Task)


def test_an_empty_split_names_its_file(tmp_path: Path) -> None:
    """Row 47: one empty file among good ones is named."""
    (tmp_path / "train.csv").write_text(body())
    (tmp_path / "test.csv").write_text("text,label\n")
    with pytest.raises(UsageError, match=r"test\.csv has a header but no rows"):
        load_data(Run(dataset=str(tmp_path), output_dir=str(tmp_path)), Task)


def test_an_endless_line_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 50: a line is read up to the limit only, in CSV and JSON Lines alike."""
    monkeypatch.setattr(files, "LINE_LIMIT", 5_000)
    for name, content in (("t.csv", body(extra="x" * 20_000)), ("t.jsonl", jsonl('{"text": "' + "x" * 20_000))):
        with pytest.raises(UsageError, match=rf"{name} line 2\d is longer than"):
            load(tmp_path, name, content)


def test_all_errors_come_together(tmp_path: Path) -> None:
    """One run shows every fault of the rows, not one after the other."""
    with pytest.raises(UsageError) as caught:
        load(tmp_path, "t.csv", body(extra=",pos\nmore,\n"))
    assert len(str(caught.value).splitlines()) == 2


def test_a_wrong_encoding_names_the_nearest(tmp_path: Path) -> None:
    """A misspelt codec is answered with the right one."""
    with pytest.raises(UsageError, match='did you mean "latin-1"'):
        load(tmp_path, "t.csv", body(), encoding="latn-1")
