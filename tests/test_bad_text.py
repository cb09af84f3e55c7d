"""Bad text data, kind by kind: what is read, what is refused, and that every answer is short and names the cure."""

from pathlib import Path
from typing import ClassVar

import pytest
from bad_text_cases import READ, body, everything, jsonl, run

from hf_tuner.config import Run
from hf_tuner.data import files
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError

CASES = list(everything())


class Task:
    """The columns of a text classifier."""

    columns: ClassVar = {
        "text": ("text", "sentence", "review"),
        "text_pair": ("text_pair",),
        "label": ("label", "stars"),
    }
    optional: ClassVar = ("text_pair",)


def load(folder: Path, name: str, content: str | bytes, **options: object) -> tuple:
    """Write a file, load it, and return all texts and labels in their order."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    data = load_data(Run(dataset=str(path), output_dir=str(folder / "run"), **options), Task)
    both = [(t, label) for split in data.values() for t, label in zip(split["text"], split["label"], strict=True)]
    return tuple(both)


def test_there_are_enough_cases() -> None:
    """At least 57 of them, no two alike."""
    assert len({(case[0], case[1]) for case in CASES}) == len(CASES) >= 57


@pytest.mark.fault(37, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52)
@pytest.mark.parametrize("case", CASES, ids=[f"{row} {what}" for row, what, *_ in CASES])
def test_check_says_it(case: tuple, tmp_path: Path) -> None:
    """Exit code, file, place and cure in at most 15 lines and few seconds, without a traceback."""
    _, _, contents, flags, code, printed = case
    said = run(contents, flags, tmp_path)
    assert said.code == code, said.text
    assert [words for words in printed if words not in said.text] == [], said.text
    assert said.lines <= 15
    assert said.seconds < 10
    assert "Traceback" not in said.text


@pytest.mark.fault(43, 44, 45, 48, 49, 50, 52)
@pytest.mark.parametrize("case", READ, ids=[f"{row} {what}" for row, what, *_ in READ])
def test_read(case: tuple, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """What can be read is read whole and unchanged, and what was decided is said."""
    _, _, name, content, options, holds, printed = case
    assert holds(load(tmp_path, name, content, **options))
    shown = capfd.readouterr()
    assert printed in shown.out + shown.err


@pytest.mark.fault(50)
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
