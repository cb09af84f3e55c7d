"""Files of others, changed at random: an answer or a short refusal, no traceback, no hang, nothing left behind.

`make test` tries some examples for each target, always the same ones; the slow tests try more and others each time, and
`make fuzz` goes on for as long as one likes. What was found once is tried each time, by name.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from fuzz_mutations import GONE, RECORDS, TABLES
from fuzz_targets import TARGETS, Hang, answers, contents, finished, outcome, within
from hypothesis import HealthCheck, given, settings

from hf_tuner.errors import TunerError, UsageError

QUICK = {
    "csv": 80,
    "jsonl": 80,
    "yaml": 25,
    "words": 25,
    "run": 25,
    "sealed": 25,
    "push": 40,
    "resume": 20,
    "features": 60,
}
"""Examples in `make test`: a second or two of processor time each."""
PROVES = {"csv": (48, 49), "jsonl": (50,), "yaml": (72,), "features": (27,), "resume": (4,)}
EACH = [pytest.param(name, marks=[pytest.mark.fault(*PROVES[name])] if name in PROVES else []) for name in TARGETS]


def attempt(name: str, examples: int, *, same: bool) -> None:
    """Try some examples of a target; the smallest that fails is shown."""
    how = settings(
        max_examples=examples, derandomize=same, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    how(given(TARGETS[name].strategy())(lambda example: TARGETS[name].check(example)))()


@pytest.mark.parametrize("name", EACH)
def test_any_file_is_read_or_refused(name: str) -> None:
    attempt(name, QUICK[name], same=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_many_more_files_are_read_or_refused(name: str) -> None:
    attempt(name, 40 * QUICK[name], same=False)


ROWS, LINES = TABLES[0], RECORDS[0]
FOUND: dict[str, tuple[str, Any]] = {
    "an encoding that is none": ("csv", (".csv", ROWS, {"encoding": "hex"})),
    "an encoding with a zero byte": ("jsonl", (".jsonl", LINES, {"encoding": "no\0"})),
    "a gzip file of two bytes": ("csv", (".csv.gz", b"\x1f\x8b", {})),
    "a zero byte in a header": ("csv", (".csv", b"text\0,label\na,b\n", {})),
    "a zero byte in a key": ("jsonl", (".jsonl", b'{"text": "a", "\\u0000": 1}\n' * 4, {})),
    "control characters in a message": ("csv", (".csv", b"text\x1b[31m,other\na,b\n", {})),
    "an endless name in a message": ("csv", (".csv", b"9" * 5000 + b"," + b"9" * 5000 + b"\na,b\n", {})),
    "a split that ends before it begins": ("csv", (".csv", b"text,label\na,b\n", {"train_split": "train[5:1]"})),
    "a tag of YAML": ("yaml", b"seed: !!timestamp x\n"),
    "another tag": ("yaml", b"bf16: !!bool maybe\n"),
    "a date that is none": ("yaml", b"model_revision: 2026-13-45\n"),
    "a number of 5000 digits": ("yaml", b"seed: " + b"9" * 5000),
    "a seed that is infinite": ("words", ["--seed", "1e999"]),
    "text that looks like a number": ("words", ["--model", "1e5", "--optim", "2e-5"]),
    "an unknown flag without end": ("words", ["--" + "x" * 20_000]),
    "a manifest without its base": ("run", [("manifest.json", [("set", 1, {})])]),
    "a manifest with other labels": ("run", [("manifest.json", [("set", 40_000, ["sport", "food", "weather"])])]),
    "a tokenizer without tokens": ("sealed", [("tokenizer.json", [("set", 65535, [True, None])])]),
    "a tokenizer cut short": ("sealed", [("tokenizer.json", [("cut", 30_000, None)])]),
    "no padding token": ("sealed", [("tokenizer_config.json", [GONE])]),
    "an adapter of another kind": ("sealed", [("adapter_config.json", [("set", 2134, [{}, []])])]),
    "settings that are no YAML": ("push", [("run.yaml", [("insert", 1, b",")])]),
    "a report of other types": ("push", [("report.json", [("set", 74, [])])]),
    "a list of files that lists no sizes": ("resume", [("checkpoint-4/checkpoint.json", [("set", 8701, [])])]),
    "settings with a date that is none": ("resume", [("run.yaml", [("insert", 65535, b"\nnew: 2026-13-45\n")])]),
    "an empty cache file": ("features", [(".npz", [("cut", 0, None)]), (".seal", [GONE])]),
}
"""What fuzzing found, as small as it gets; each raised something else than a TunerError, or gave a wrong answer."""


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found_stays_mended(case: str) -> None:
    name, example = FOUND[case]
    TARGETS[name].check(example)


def test_what_is_sound_is_not_refused(tmp_path: Path) -> None:
    """A refusal is allowed above: it must not be the answer to everything."""
    from hf_tuner.hub.manifest import content_digest
    from hf_tuner.hub.publish import published

    _, files, sound = finished()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert answers(tmp_path) == sound
    with published(tmp_path) as ready:
        there = contents(ready)
        assert {"manifest.json", "adapter_model.safetensors", "README.md"} <= set(there)
        written = json.loads(there["manifest.json"])
        assert written.pop("sha256") == content_digest(written)


def test_a_hang_and_an_unfit_message_would_be_found() -> None:
    def endless() -> None:
        while True:
            pass

    def raises(error: Exception) -> Any:
        raise error

    with pytest.raises(Hang), within(0.2):
        endless()
    assert isinstance(outcome(lambda: raises(UsageError("fine"))), TunerError)
    with pytest.raises(AssertionError, match="says nothing"):
        outcome(lambda: raises(UsageError(" ")))
    with pytest.raises(KeyError):
        outcome(lambda: raises(KeyError("not ours")))
