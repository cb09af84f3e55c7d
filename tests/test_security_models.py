"""Models and tokenizers of strangers: code is never run, kernels never fetched, memory never filled."""

import json
import os
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import hostile
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_tuner.cli.main import main
from hf_tuner.config import Run
from hf_tuner.errors import ArtifactError, TunerError
from hf_tuner.models import safety
from hf_tuner.models.foreign import sketch_of, tokenizer_of
from hf_tuner.models.load import load_base, load_config, resolve_model
from hf_tuner.models.processors import check_vocabulary, load_processor
from hf_tuner.tasks._labels import Labels
from hf_tuner.tasks.text_classification import TextClassification

TASK = TextClassification(labels=Labels(problem="single", names=("a", "b"), note="a test"))


@pytest.fixture(autouse=True)
def said_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes are given once a process: here once a test. Nobody answers questions."""
    safety._say_once.cache_clear()
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115 - closed with the process


def loaded(folder: Path) -> Any:
    """Configuration, tokenizer and model of a folder, as training loads them."""
    run = Run(model=str(folder), output_dir="unused", pooling="first")
    tokenizer, config = load_processor(run), load_config(run)
    check_vocabulary(tokenizer, config)
    from hf_tuner import catalog

    return load_base(run, TASK, catalog.load("methods", "lora"))[0]


@pytest.mark.fault(66, "S4")
@pytest.mark.parametrize("kind", ["own", "bert"])
def test_code_of_a_model_is_not_imported(
    kind: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown architecture is refused with the way to allow it; a known one is loaded without the code, and says so."""
    marker = tmp_path / "marker"
    references = {name: f"own.Own{name.removeprefix('Auto')}" for name in ("AutoConfig", "AutoModel", "AutoTokenizer")}
    references["AutoModelForSequenceClassification"] = "own.OwnModel"
    folder = hostile.copied(
        tiny_model,
        tmp_path / "model",
        config={"auto_map": references, "model_type": kind},
        tokenizer_config={"auto_map": {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}},
    )
    (folder / "own.py").write_text(hostile.code_that_marks(marker))
    if kind == "own":
        with pytest.raises(ArtifactError, match="needs code from its repository") as error:
            loaded(folder)
        assert "--trust-remote-code --model-revision COMMIT" in str(error.value)
    else:
        assert type(loaded(folder)).__module__.startswith("transformers.")
        err = capsys.readouterr().err
        assert "asks for auto_map" in err and "tokenizer_config.json of" in err and "is not run" in err
    assert not marker.exists()


def test_the_code_would_run_when_trusted(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded as its author wants the marker appears: the test above can fail."""
    from transformers import AutoConfig, dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = hostile.copied(
        tiny_model, tmp_path / "model", config={"auto_map": {"AutoConfig": "own.OwnConfig"}, "model_type": "own"}
    )
    (folder / "own.py").write_text(hostile.code_that_marks(tmp_path / "marker"))
    AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert (tmp_path / "marker").exists()


@pytest.mark.fault(66, "S4")
def test_a_tokenizer_that_is_code_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Where nothing built in can read it."""
    folder = hostile.copied(
        tiny_model,
        tmp_path / "model",
        config={"model_type": "own"},
        tokenizer_config={"auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}, "tokenizer_class": "OwnTokenizer"},
    )
    (folder / "own.py").write_text(hostile.code_that_marks(tmp_path / "marker"))
    with pytest.raises(TunerError):
        tokenizer_of(str(folder))
    assert not (tmp_path / "marker").exists()


KEYS: dict[str, tuple[Any, str]] = {
    "auto_map": ({"AutoModel": "evil.Model"}, "code in a model's folder is not run"),
    "custom_pipelines": ({"text-classification": {"impl": "evil.Pipe"}}, "code in a model's folder is not run"),
    "quantization_config": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "--method qlora"),
    "_attn_implementation": ("stranger/kernel", "how it is computed is chosen here"),
    "attn_implementation": ("stranger/kernel:forward", "how it is computed is chosen here"),
    "experts_implementation": ("stranger/kernel", "how it is computed is chosen here"),
    "_attn_implementation_internal": ("stranger/kernel", "how it is computed is chosen here"),
    "use_kernels": (True, "how it is computed is chosen here"),
    "_commit_hash": ("0" * 40, "the commit is the one that was asked for"),
    "use_pretrained_backbone": (True, "weights come from the model's own files"),
    "transformers_weights": ("x.safetensors.index.json", "weights come from the model's own files"),
    "dtype": ("load", "not a type of weights"),
}


@pytest.mark.fault(66, "S5")
@pytest.mark.parametrize("key", KEYS)
def test_what_would_do_more_than_load_is_left_out_and_said(
    key: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is the one that was saved; one line tells the key, its value and the reason, once."""
    value, why = KEYS[key]
    config = load_config(Run(model=str(hostile.copied(tiny_model, tmp_path / "model", config={key: value}))))
    said = [line for line in capsys.readouterr().err.splitlines() if f"asks for {key} = " in line]
    assert len(said) == 1 and why in said[0]
    assert getattr(config, key, None) != value
    load_config(Run(model=str(tmp_path / "model")))
    assert "asks for" not in capsys.readouterr().err


@pytest.mark.fault(66, "S5")
def test_a_kernel_of_a_stranger_is_never_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    """The whole model loads with the built-in attention; nested keys are left out too."""
    folder = hostile.copied(tiny_model, tmp_path / "model", config={"_attn_implementation": "stranger/kernel"})
    assert loaded(folder).config._attn_implementation in ("sdpa", "eager")
    inside = {"a": 1, "_attn_implementation": "stranger/kernel"}
    nested = safety.clean_config({"text_config": inside, "parts": [[inside], 2]}, "x")
    assert nested == {"text_config": {"a": 1}, "parts": [[{"a": 1}], 2]}


NUMBERS = {
    "vocab_size": 400_000_000,
    "hidden_size": 10**9,
    "num_hidden_layers": 10**6,
    "num_labels": 10**9,
    "intermediate_size": 2**62,
    "type_vocab_size": 10**8,
    "max_position_embeddings": 10**13,
    "num_attention_heads": 10**8,
    "text_config": {"layers": [1, {"n_layers": 10**7}]},
}


@pytest.mark.fault(70)
@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_no_model_has_are_refused_before_memory_is_taken(key: str, tiny_model: Path, tmp_path: Path) -> None:
    """From the text of config.json alone."""
    folder = hostile.copied(tiny_model, tmp_path / "model", config={key: NUMBERS[key]})
    with pytest.raises(ArtifactError, match=r"config.json of .* is believed: refused") as error:
        load_config(Run(model=str(folder)))
    assert error.value.exit_code == 4


@pytest.mark.fault(70)
@pytest.mark.parametrize(
    "changes", [{"vocab_size": 9_000_000}, {"max_position_embeddings": 10**10}, {"intermediate_size": 9_999_999}]
)
def test_a_model_far_larger_than_its_weights_is_refused(
    changes: dict[str, int], tiny_model: Path, tmp_path: Path
) -> None:
    """Numbers that are each believed, but make a model that is not in the files: nothing is made up in memory."""
    folder = hostile.copied(tiny_model, tmp_path / "model", config=changes)
    with pytest.raises(ArtifactError, match="they do not belong together"):
        loaded(folder)


@pytest.mark.fault(70)
def test_a_model_that_grows_while_it_is_laid_out_is_stopped(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes multiply: what counts is how many modules are made."""
    config = load_config(Run(model=str(tiny_model)))
    monkeypatch.setattr(safety, "MODULES", 10)
    with pytest.raises(ArtifactError, match="more than 10 modules"):
        sketch_of(AutoModelForSequenceClassification, config, "x")
    monkeypatch.undo()
    assert sketch_of(AutoModelForSequenceClassification, config, "x").config is not None


@pytest.mark.parametrize(
    "changes",
    [{"num_attention_heads": 0}, {"hidden_size": -1}, {"hidden_size": "32"}, {"hidden_act": "__import__"}],
)
def test_values_that_make_no_sense_end_in_one_sentence(
    changes: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    """No traceback of a library, whatever it raises."""
    folder = hostile.copied(tiny_model, tmp_path / "model", config=changes)
    with pytest.raises(ArtifactError) as error:
        loaded(folder)
    assert len(str(error.value).splitlines()) <= 3


TEXTS = {
    "9 MB": ('{"a": "' + "x" * 9_000_000 + '"}', "at most 8,000,000"),
    "deep": ('{"a": ' + "[" * 100 + "]" * 100 + "}", "at most 32 levels"),
    "very deep": ('{"a": ' + "[" * 500_000 + "]" * 500_000 + "}", "at most 32 levels"),
    "no JSON": ("{", "is not JSON"),
    "no object": ("[1]", "an object is expected"),
    "endless number": ('{"vocab_size": ' + "9" * 5000 + "}", "is not JSON"),
    "bytes": ("\ud800", "is not JSON"),
}


@pytest.mark.fault(70)
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "adapter_config.json", "generation_config.json"]
)
@pytest.mark.parametrize("text", TEXTS)
def test_json_is_bounded(text: str, name: str, tmp_path: Path) -> None:
    content, said = TEXTS[text]
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ArtifactError, match=said):
        safety.inspect(tmp_path, "stranger/model")


@pytest.mark.fault(65, "S2")
def test_pickled_weights_are_refused_by_name(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the real command: exit 4, the file is named, nothing ran."""
    folder, marker = hostile.copied(tiny_model, tmp_path / "model"), tmp_path / "marker"
    (folder / "model.safetensors").unlink()
    hostile.write_payload(folder / "pytorch_model.bin", marker, "zip")
    with pytest.raises(SystemExit) as end:
        main(["lora", "--model", str(folder), "--dataset", "demo#200", "--output-dir", str(tmp_path / "run")])
    assert end.value.code == 4
    assert "pytorch_model.bin" in capsys.readouterr().err
    assert not marker.exists()


@pytest.mark.fault(65)
def test_pickled_weights_beside_safetensors_are_not_opened(tiny_model: Path, tmp_path: Path) -> None:
    folder, marker = hostile.copied(tiny_model, tmp_path / "model"), tmp_path / "marker"
    hostile.write_payload(folder / "pytorch_model.bin", marker, "pickle")
    assert loaded(folder) is not None and not marker.exists()


@pytest.mark.fault(70)
def test_a_header_of_a_terabyte_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = hostile.copied(tiny_model, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 10**12) + b"{}")
    with pytest.raises(ArtifactError, match=r"model.safetensors is damaged"):
        loaded(folder)


@pytest.mark.fault(69, 70)
@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/model.safetensors", "pytorch_model.bin", "a\0.safetensors", 7]
)
def test_an_index_names_only_safetensors_of_its_own_folder(shard: Any, tiny_model: Path, tmp_path: Path) -> None:
    folder = hostile.copied(tiny_model, tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": shard}}))
    with pytest.raises(ArtifactError, match=r"as weights: refused"):
        loaded(folder)


@pytest.mark.fault(66)
def test_a_model_that_is_an_adapter_of_something_else_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """transformers would load the base that adapter_config.json names."""
    folder = hostile.copied(tiny_model, tmp_path / "model")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "evil/x"}))
    with pytest.raises(ArtifactError, match="it would load another base"):
        load_config(Run(model=resolve_model(str(folder))))


@pytest.mark.fault(70)
@pytest.mark.parametrize("place", ["tokenizer.json", "added_tokens.json", "tokenizer_config.json"])
def test_tokens_beyond_the_embedding_are_found_before_the_first_batch(
    place: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Each of the three places an id may come from."""
    folder = hostile.copied(tiny_model, tmp_path / "model")
    data = json.loads((folder / "tokenizer.json").read_text())
    token = {"content": "<far>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}  # fmt: skip
    if place == "tokenizer.json":
        data["added_tokens"].append({"id": 10_000_000, **token})
        (folder / place).write_text(json.dumps(data))
    elif place == "added_tokens.json":
        (folder / place).write_text(json.dumps({"<far>": 10_000_000}))
    else:
        settings = json.loads((folder / place).read_text())
        (folder / place).write_text(json.dumps({**settings, "added_tokens_decoder": {"10000000": token}}))
    with pytest.raises(ArtifactError, match=r"do not belong together|cannot be"):
        loaded(folder)


@pytest.mark.fault(69)
@pytest.mark.parametrize("key", ["vocab", "merges", "vocab_file", "tokenizer_file"])
def test_a_vocabulary_outside_the_folder_is_not_read(key: str, tiny_model: Path, tmp_path: Path) -> None:
    """A path in tokenizer_config.json is another file of this machine: refused where a tokenizer would read it."""
    secret = tmp_path / "secret.txt"
    secret.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nsecret\n")
    folder = hostile.copied(tiny_model, tmp_path / "model", tokenizer_config={key: str(secret)})
    if key in safety.FILES_OF_WORDS:
        (folder / "tokenizer.json").unlink()
        with pytest.raises(ArtifactError, match=rf"{key} names a file, .*: refused, it would be read"):
            load_processor(Run(model=str(folder)))
        return
    assert "secret" not in load_processor(Run(model=str(folder))).get_vocab()
    (folder / "tokenizer.json").unlink()
    with suppress(TunerError):  # there is nothing left to read
        assert "secret" not in load_processor(Run(model=str(folder))).get_vocab()


@pytest.mark.fault(69)
def test_the_vocabulary_would_be_read_when_trusted(tiny_model: Path, tmp_path: Path) -> None:
    """The plain library reads it: the test above can fail."""
    secret = tmp_path / "secret.txt"
    secret.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nsecret\n")
    folder = hostile.copied(tiny_model, tmp_path / "model", tokenizer_config={"vocab": str(secret)})
    (folder / "tokenizer.json").unlink()
    assert "secret" in AutoTokenizer.from_pretrained(folder).get_vocab()


def test_what_large_models_bring_is_not_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Shards of 100 GB, "no limit" in words of a tokenizer, large vocabularies, classes of any name."""
    config = load_config(Run(model=str(tiny_model)))
    folder = hostile.copied(tiny_model, tmp_path / "model", config={"sliding_window": 10**15, "label2id": {"size": 10**8}},
                            tokenizer_config={"max_len": 10**30, "max_model_input_sizes": {"x": 10**30}})  # fmt: skip
    (folder / "model.safetensors").unlink()
    AutoModelForSequenceClassification.from_pretrained(tiny_model, config=config).save_pretrained(
        folder / "shards", max_shard_size="10KB"
    )
    for path in (folder / "shards").glob("model*"):
        path.rename(folder / path.name)
    index = json.loads((folder / safety.INDEX).read_text())
    index["metadata"]["total_size"] = 10**11
    (folder / safety.INDEX).write_text(json.dumps(index))
    (folder / "added_tokens.json").write_text(json.dumps({"<size>": 10**8}))
    for name in ("unigram.json", "trainer_state.json"):
        (folder / name).write_text('{"a": "' + "x" * 9_000_000 + '"}')
    safety.inspect(folder)
    (folder / "added_tokens.json").unlink()
    assert len(list(folder.glob("*.safetensors"))) > 1 and loaded(folder) is not None


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "content", ['{"auto_map": 7, "model_type": 5}', '{"tokenizer_class": {"a": 1}}', '{"model": []}']
)
def test_files_of_the_wrong_shape_end_as_faults_not_as_tracebacks(
    name: str, content: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = hostile.copied(tiny_model, tmp_path / "model")
    (folder / name).write_text(content)
    with suppress(TunerError):  # of a sentence, or it loads: a file of that shape may be one that nobody needs
        loaded(folder)
