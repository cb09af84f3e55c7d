"""Configuration files that attack: tags, doubled keys, aliases without end, depth, size, and keys nobody knows."""

import os
from pathlib import Path

import pytest
import yaml

from hf_tuner import flags
from hf_tuner.errors import ArtifactError, UsageError
from hf_tuner.plain_yaml import read_yaml

BASE = ["--model", "demo", "--dataset", "demo"]
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = {
    "python tag": ("seed: !!python/object/apply:os.system ['touch MARKER']\n", "not plain YAML"),
    "python name": ("seed: !!python/name:os.system\n", "not plain YAML"),
    "own tag": ("seed: !env HOME\n", "not plain YAML"),
    "key twice": ("seed: 1\nmodel: demo\nseed: 2\n", 'line 1: key "seed" is given twice'),
    "key twice inside": (
        "cross-entropy:\n  smoothing: 0.1\n  smoothing: 0.2\n",
        'line 2: key "smoothing" is given twice',
    ),
    "billion laughs": (LAUGHS, "line 1: &a gives a value a name; write it without"),
    "itself": ("a: &a [*a]\n", "line 1: &a gives"),
    "merge key": ("seed: 1\na:\n  <<: {b: 2}\n", "line 3: << takes keys over"),
    "unknown name": ("seed: 1\na: *b\n", "line 2: *b repeats a value by name; write it out"),
    "name for nothing": ("seed: &a 1\n", "line 1: &a gives a value a name"),
    "deep flow": ("a: " + "[" * 300_000 + "]" * 300_000, "nested deeper than 20 levels"),
    "deep block": ("".join("  " * i + "a:\n" for i in range(500)), "nested deeper than 20 levels"),
    "10 MB": ("x: " + "y" * 10_000_000, "over 1 MB"),
    "list as key": ("? [a, b]\n: 1\n", "line 1: a key is one word"),
    "number as key": ("1: 2\n", "unknown setting --1"),
    "thirteenth month": ("seed: 2026-13-45\n", "expected a whole number"),
    "endless number": ("seed: " + "9" * 5000 + "\n", "expected a whole number"),
    "no text": ("seed: \x00\n", "not plain YAML"),
    "latin-1": (b"model: caf\xe9\n", "not plain YAML"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "not plain YAML"),
    "a word": ("seed\n", "key: value"),
    "nothing": ("", "key: value"),
    "unknown key": ("learnin_rate: 1\n", "did you mean --learning-rate"),
    "token": ("hub_token: hf_CANARY0123456789\n", "set HF_TOKEN or run `hf auth login`"),
}


@pytest.mark.fault(72)
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_configuration_is_refused(name: str, tmp_path: Path) -> None:
    """Each ends as one UsageError (exit 2) of a line or two; the payload of a tag never runs."""
    content, said = FILES[name]
    config, marker = tmp_path / "run.yaml", tmp_path / "marker"
    content = content if isinstance(content, bytes) else content.replace("MARKER", str(marker)).encode()
    config.write_bytes(content)
    with pytest.raises(UsageError) as error:
        flags.parse([*BASE, "--config", str(config)], {})
    assert said in str(error.value)
    assert len(str(error.value)) < 600 and "CANARY" not in str(error.value)
    assert not marker.exists()


def test_the_payload_would_run_in_a_reader_that_trusts(tmp_path: Path) -> None:
    """Without the strict reader the marker appears: the test above can fail."""
    marker = tmp_path / "marker"
    yaml.unsafe_load(FILES["python tag"][0].replace("MARKER", str(marker)))
    assert marker.exists()


@pytest.mark.fault(72)
def test_a_device_is_no_configuration() -> None:
    """A path that never ends is not opened."""
    with pytest.raises(UsageError, match="no such file"):
        read_yaml(Path(os.devnull).with_name("zero"), "--config ")


@pytest.mark.fault(72)
def test_settings_of_a_strangers_run_are_read_as_strictly(tmp_path: Path) -> None:
    """run.yaml of a saved run is an artifact: exit 4."""
    (tmp_path / "run.yaml").write_text(LAUGHS)
    with pytest.raises(ArtifactError, match="gives a value a name"):
        read_yaml(tmp_path / "run.yaml", wrong=ArtifactError)


@pytest.mark.fault(72)
def test_what_a_run_writes_reads_back(run: Path) -> None:
    """The settings that are written for every run pass the strict reader: no anchors, no tags."""
    assert read_yaml(run / "run.yaml")["method"] == "lora"


@pytest.mark.fault(72)
def test_json_in_a_flag_that_nests_without_end_is_refused() -> None:
    """JSON given on the command line (class weights, kwargs) ends in a line as well."""
    with pytest.raises(UsageError) as error:
        flags.parse([*BASE, "--method", "peft", "--peft-kwargs", "[" * 100_000], {})
    assert "--peft-kwargs" in str(error.value) and len(str(error.value)) < 600
