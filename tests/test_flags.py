"""Settings: flags beat YAML beats defaults, and every mistake is named with its nearest neighbour."""

from pathlib import Path

import pytest

from hf_tuner import flags
from hf_tuner.errors import UsageError

BASE = ["--model", "m", "--dataset", "d"]


def parse(*words: str):
    return flags.parse([*BASE, *words], {})


def test_flags_beat_yaml_beats_defaults(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("learning_rate: 2e-5\nnum_train_epochs: 7\nlora:\n  r: 4\nseed: 1\n")
    run = flags.parse([*BASE, "--config", str(config), "--seed", "9"], {"seed": 5, "pooling": "first"})
    assert run.training == {"learning_rate": 2e-5, "num_train_epochs": 7.0}
    assert (run.seed, run.pooling, run.method_config.r) == (9, "first", 4)


def test_a_resolved_run_reads_back_as_itself(tmp_path: Path) -> None:
    import yaml

    run = parse("--method", "dora", "--r", "4", "--loss", "focal", "--focal.gamma", "3", "--bf16", "--max-steps", "3")
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(run.resolved()))
    assert flags.parse(["--config", str(config)], {}) == run


@pytest.mark.parametrize("spelling", ["--learning-rate", "--learning_rate"])
def test_both_spellings(spelling: str) -> None:
    assert parse(spelling, "0.1").training["learning_rate"] == 0.1


@pytest.mark.parametrize(("words", "value"), [(["--bf16"], True), (["--bf16", "false"], False), (["--no-bf16"], False)])
def test_booleans(words: list[str], value: bool) -> None:
    assert parse(*words).training["bf16"] is value


WRONG = [
    (["--lerning-rate", "1"], "did you mean --learning-rate"),
    (["--num-train-epochs", "many"], "--num-train-epochs 'many': expected a number"),
    (["--seed", "1.5"], "expected a whole number"),
    (["--pooling", "maen"], 'did you mean "mean"'),
    (["--method", "lorra"], 'did you mean "lora"'),
    (["--bits", "4"], "belongs to the method qlora"),
    (["--method", "qlora", "--bits", "5"], "bits"),
    (["--hub-token", "hf_secret"], "HF_TOKEN"),
    (["stray"], "unexpected word 'stray'"),
    (["--config", "nowhere.yaml"], "no such file"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_mistakes_are_explained(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(*words)
    assert said in str(error.value)
    assert "hf_secret" not in str(error.value)


def test_all_mistakes_come_together() -> None:
    with pytest.raises(UsageError) as error:
        parse("--lerning-rate", "1", "--num-train-epochs", "x", "--sead", "1")
    assert len(str(error.value).splitlines()) == 3


YAMLS = [
    ("a: !!python/object/apply:os.system ['true']\n", "not plain YAML"),
    ("seed: 1\nseed: 2\n", 'line 1: key "seed" is given twice'),
    ("learnin_rate: 1\n", "did you mean --learning-rate"),
    ("- a\n- b\n", "key: value"),
    ("a: [" * 30 + "]" * 30, "nested deeper"),
    ("x: " + "y" * 1_100_000, "over 1 MB"),
    ("seed: [1\n", "not plain YAML"),
]


@pytest.mark.fault(72)
@pytest.mark.parametrize(("text", "said"), YAMLS, ids=[said for _, said in YAMLS])
def test_a_hostile_or_broken_yaml_is_refused(text: str, said: str, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(text)
    with pytest.raises(UsageError) as error:
        flags.parse([*BASE, "--config", str(config)], {})
    assert said in str(error.value)


def test_every_field_of_training_arguments_is_known_with_its_type() -> None:
    from dataclasses import fields

    from transformers import TrainingArguments

    known = {f.name: f for f in flags.training_flags()}
    assert {f.name for f in fields(TrainingArguments) if f.init} == set(known)
    assert known["num_train_epochs"].kind is float and known["max_steps"].kind is int and known["bf16"].kind is bool


@pytest.mark.fault(72)
def test_a_value_of_a_yaml_file_is_the_word_one_would_type(tmp_path: Path) -> None:
    names = "model_revision: 0123456\ndataset: 7e12345\neval_dataset: 2026-11-24\neval_strategy: no\nbf16: no\n"
    inner = "seed: 12345678901234567\nlr_scheduler_kwargs: {num_cycles: 1e0, power: 2}\nlora: {lora_alpha: 1e1}\n"
    (tmp_path / "run.yaml").write_text(names + inner)
    run = flags.parse(["--model", "demo", "--config", str(tmp_path / "run.yaml")], {})
    assert (run.model_revision, run.dataset, run.eval_dataset) == ("0123456", "7e12345", "2026-11-24")
    assert run.training == {
        "eval_strategy": "no",
        "bf16": False,
        "lr_scheduler_kwargs": {"num_cycles": 1.0, "power": 2},
    }
    assert run.seed == 12345678901234567 and run.method_config.lora_alpha == 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("adam_beta2: .inf\n", "expected a number"),
        ("stall_timeout: .nan\n", "expected a number"),
        ("allow_changed: [seed]\n", "expected text"),
        ("loss: focal\nfocal: {gamma: null}\n", None),
        ("model: null\n", None),
        ("output_dir: [a]\n", "expected text"),
    ],
)
def test_what_a_fuzzer_put_into_a_configuration(text: str, said: str | None, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    words = ["--config", str(tmp_path / "run.yaml")]
    if said is None:
        flags.parse(words, {"model": "m", "dataset": "d"})
        return
    with pytest.raises(UsageError, match=said):
        flags.parse(words, {"model": "m", "dataset": "d"})


def test_a_list_of_words_stays_words(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("report_to: [inf, 1e999, nan, tensorboard]\n")
    run = flags.parse(["--config", str(tmp_path / "run.yaml")], {"model": "m", "dataset": "d"})
    assert run.training["report_to"] == ["inf", "1e999", "nan", "tensorboard"]


def test_a_name_of_thousands_of_characters_is_no_file() -> None:
    with pytest.raises(UsageError, match=r"no such file") as told:
        flags.parse(["--config", "9" * 5000], {})
    assert len(str(told.value)) < 400
