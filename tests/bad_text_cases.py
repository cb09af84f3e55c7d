"""Text data with something wrong or unusual in it, and what `hf-tuner check` has to say.

`python tests/bad_text_cases.py` prints the table: case, lines printed, exit code, seconds.
"""

# ruff: noqa: E501 - the tables read best with one case a line

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from checking import Said, check, table


def body(separator: str = ",", end: str = "\n", extra: str = "") -> str:
    """A CSV of 19 good rows, and perhaps a line more."""
    lines = [f"text{separator}label"]
    lines += [f"message {'good' if i % 2 else 'bad'} {i}{separator}{'pos' if i % 2 else 'neg'}" for i in range(19)]
    return end.join([*lines, *([extra] if extra else [])]) + end


def jsonl(*extra: str) -> str:
    """19 good rows as JSON Lines, and perhaps more lines."""
    good = [json.dumps({"text": f"message {i}", "label": "pos" if i % 2 else "neg"}) for i in range(19)]
    return "\n".join([*good, *extra]) + "\n"


def classes(values: str, rows: int = 40) -> str:
    """A CSV whose labels are these words in turn."""
    words = values.split()
    return "text,label\n" + "".join(f"t{i},{words[i % len(words)]}\n" for i in range(rows))


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
    (49, "wrong column", "t.csv", body().replace("text,", "wording,"), ['no column for "text"; found: wording, label', "--columns text=wording"]),
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

TRAIN = body()
# fault-matrix row, what, files, flags, exit code, what must be printed
SEVERAL: list[tuple[int, str, dict[str, str | bytes], tuple[str, ...], int, list[str]]] = [
    (43, "empty label dropped", {"t.csv": body(extra="hello,")}, ("--drop-empty",), 0, ["train: 1 of 20 rows left out"]),
    (43, "null label", {"t.jsonl": jsonl('{"text": "a", "label": null}')}, (), 2, ['t.jsonl row 20: column "label" is empty', "--drop-empty"]),
    (43, "empty label among whole numbers", {"t.csv": classes("1 2 3") + "hello,\n"}, (), 2, ['t.csv row 42: column "label" is empty', "--drop-empty"]),
    (43, "every row empty", {"t.csv": "text,label\n" + ",a\n" * 20}, ("--drop-empty",), 2, ["nothing is left"]),
    (43, "empty second text", {"t.csv": "text,text_pair,label\n" + "".join(f"a{i},{'b' if i else ''},{'xy'[i % 2]}\n" for i in range(20))}, (), 0, ['row 2: column "text_pair" is empty']),
    (45, "labels of -100", {"t.csv": classes("-100 0 1")}, (), 0, ["negative ids -100"]),
    (45, "labels with a space", {"t.jsonl": "".join(f'{{"text": "t{i}", "label": "{("pos", " pos ", "neg")[i % 3]}"}}\n' for i in range(40))}, (), 0, ['" pos " / "pos"']),
    (45, "decimals", {"t.csv": "text,label\n" + "".join(f"t{i},{i / 7:.3f}\n" for i in range(40))}, (), 0, ["regression", "--problem single"]),
    (45, "words asked to be numbers", {"t.csv": TRAIN}, ("--problem", "regression"), 2, ['label "neg" is not a number']),
    (45, "words among numbers", {"train.csv": "text,label\n" + "".join(f"t{i},{i / 7:.3f}\n" for i in range(40)), "test.csv": "text,label\nx,great\n"}, (), 2, ["is not a number in 1 of 1 rows", "great"]),
    (46, "label of test never in train", {"train.csv": TRAIN, "test.csv": "text,label\na,pos\nb,weird\nc,weird\n"}, (), 2, ['1 label of column "label" never seen in train: "weird" (2)']),
    (46, "whole number never in train", {"train.csv": classes("0 1"), "test.csv": "text,label\na,2\n"}, (), 2, ['"2" (1)']),
    (47, "empty test file", {"train.csv": TRAIN, "test.csv": "text,label\n"}, (), 2, ["test.csv has a header but no rows"]),
    (47, "0 bytes of test", {"train.csv": TRAIN, "test.csv": b""}, (), 2, ["test.csv is empty (0 bytes)"]),
    (47, "empty folder", {}, (), 2, ["holds no data files; expected .bio"]),
    (47, "no such file", {"train.csv": TRAIN, "!": "trian.csv"}, (), 2, ['did you mean "']),
    (48, "UTF-16 JSON Lines", {"t.jsonl": jsonl().encode("utf-16")}, (), 2, ["t.jsonl line 1: looks like UTF-16: --encoding utf-16"]),
    (48, "byte order mark in JSON Lines", {"t.jsonl": "\ufeff" + jsonl()}, (), 0, ["train 15, test 4"]),
    (48, "misspelt encoding", {"t.csv": TRAIN}, ("--encoding", "latn-1"), 2, ['did you mean "latin-1"']),
    (48, "wrong encoding said", {"t.csv": body(extra="café,pos")}, ("--encoding", "ascii"), 2, ["cannot be read as ascii"]),
    (48, "damaged gzip", {"t.csv.gz": gzip.compress(TRAIN.encode())[:-20]}, (), 2, ["the compressed file is damaged or cut short"]),
    (49, "wrong separator said", {"t.csv": TRAIN}, ("--separator", ";"), 2, ['no column for "text" and "label"', 'is the separator "," and not what --separator says?']),
    (49, "column named that is not there", {"t.csv": TRAIN}, ("--columns", "text=txet"), 2, ['did you mean "text"']),
    (49, "test of other columns", {"train.csv": TRAIN, "test.csv": TRAIN.replace("text,", "body,")}, (), 2, ['test: no column "text"; found: body, label']),
    (50, "extra key in test", {"train.jsonl": jsonl(), "test.jsonl": '{"text": "q", "label": "pos", "more": 1}\n'}, (), 0, ["train 19, test 1"]),
    (50, "missing key in test", {"train.jsonl": jsonl(), "test.jsonl": '{"text": "q", "label": "pos"}\n{"label": "pos"}\n'}, (), 2, ['test.jsonl row 2: column "text" is empty']),
    (50, "line of 17 million characters", {"t.jsonl": jsonl('{"text": "' + "x" * 17_000_000 + '", "label": "pos"}')}, (), 2, ["t.jsonl line 20 is longer than 16 million characters"]),
    (51, "text of a million characters", {"t.csv": body(extra="word " * 210_000 + ",pos")}, (), 0, ["1 text has over a million characters"]),
    (51, "word of a million characters", {"t.csv": body(extra="x" * 1_000_001 + ",pos")}, (), 0, ["1 text has over a million characters"]),
    (52, "dates as text", {"t.csv": "text,label\n" + "".join(f"2024-01-{i + 1:02},{'xy'[i % 2]}\n" for i in range(20))}, (), 0, ["train 16, test 4"]),
    (52, "a column of numbers", {"t.csv": "text,label\n" + "".join(f"{i},{'xy'[i % 2]}\n" for i in range(20))}, (), 0, ["holds numbers only", "--columns text=COLUMN"]),
    (52, "list of labels", {"t.jsonl": "".join(json.dumps({"text": f"t{i}", "label": ["a", "b"][: i % 3]}) + "\n" for i in range(30))}, (), 0, ["lists: any number of 2 classes"]),
    (37, "repeated rows", {"t.csv": body(extra="message bad 0,neg")}, (), 0, ["rows repeat the text of another"]),
    (37, "a text with two labels", {"train.csv": body(extra="message bad 0,pos"), "test.csv": "text,label\nq,pos\n"}, (), 0, ["1 text stands there again with another label"]),
    (37, "rows of test in train", {"train.csv": TRAIN, "test.csv": "text,label\nMessage  BAD 0,neg\nq,pos\n"}, (), 0, ["1 of 2 rows (50.0 %) stand in train too", "--drop-leaked", "--fail-on-leak"]),
    (37, "rows of test in train refused", {"train.csv": TRAIN, "test.csv": "text,label\nmessage bad 0,neg\nq,pos\n"}, ("--fail-on-leak",), 2, ["stand in train too (--fail-on-leak); --drop-leaked"]),
    (37, "rows of test left out of train", {"train.csv": TRAIN, "test.csv": "text,label\nmessage bad 0,neg\nq,pos\n"}, ("--drop-leaked", "--fail-on-leak"), 0, ["1 training row left out", "train 18, test 2"]),
]  # fmt: skip


def words_of(options: dict) -> list[str]:
    """Settings of a run as they are typed."""
    return [
        w
        for k, v in options.items()
        for w in ([f"--{k.replace('_', '-')}"] if v is True else [f"--{k.replace('_', '-')}", v])
    ]


def run(files: dict[str, str | bytes], flags: tuple[str, ...], folder: Path) -> Said:
    """Write the files of a case and check the only one, or their folder."""
    place = folder / "data"
    place.mkdir()
    for name, content in files.items():
        if name != "!":
            (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
    name = str(files["!"]) if "!" in files else next(iter(files)) if len(files) == 1 else ""
    return check(place / name, "--output-dir", folder / "run", *flags)


def everything() -> Iterator[tuple[int, str, dict[str, str | bytes], tuple[str, ...], int, list[str]]]:
    """All cases in one form: row, what, files, flags, exit code, what must be printed."""
    yield from ((row, what, {name: content}, (), 2, said) for row, what, name, content, said in REFUSED)
    for row, what, name, content, options, _, printed in READ:
        yield row, what, {name: content}, tuple(words_of(options)), 0, [printed]
    yield from SEVERAL


def cases() -> Iterator[tuple[str, str, Callable[[Path], Said]]]:
    """What the table is made of."""
    for row, what, files, flags, _, _ in sorted(everything(), key=lambda case: case[0]):
        yield str(row), what, lambda folder, files=files, flags=flags: run(files, flags, folder)


if __name__ == "__main__":
    print(table(cases()))
