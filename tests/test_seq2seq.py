"""Summarization and translation: layouts, languages, losses, what is written, scores, and models without an encoder."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from datasets import Dataset
from rouge_score.rouge_scorer import RougeScorer
from safetensors.torch import load_file
from tiny_tasks._seq2seq import (
    ENGLISH,
    GERMAN,
    bart,
    llama,
    t5,
    write_translations,
)
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from hf_tuner import Summarization, Translation, finetune
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.evaluate import evaluate
from hf_tuner.evaluation.predict import predict
from hf_tuner.tasks._languages import model_code, name_of, two_letters
from hf_tuner.tasks._pairs import outliers, swapped
from hf_tuner.tasks._reading import bytes_of, text_of
from hf_tuner.tasks._task import EmptyRow, at_one
from hf_tuner.tasks.translation import Config

PAIRS = [{"translation": {"en": "the dog", "de": "der hund"}}]
WORDS = [*ENGLISH, *GERMAN, "short", ":", "English", "German", "TL", ";", "DR", "\n"]


def rows_of(task: Any, given: list[dict[str, Any]], columns: dict[str, str] | None = None) -> list[dict[str, Any]]:
    layout = task.layout(dict.fromkeys(given[0]), given, columns or {})
    return [layout.convert(row) for row in given]


@pytest.mark.parametrize(
    ("given", "columns", "expected"),
    [
        (PAIRS, {}, ("the dog", "der hund")),
        (PAIRS, {"source_language": "de"}, ("der hund", "the dog")),
        (PAIRS, {"target_language": "English"}, ("der hund", "the dog")),
        ([{"id": 1, "en": "a", "de": "b"}], {}, ("a", "b")),
        ([{"id": 1, "en": "a", "de": "b"}], {"source_language": "deu_Latn"}, ("b", "a")),
        ([{"src": "a", "tgt": "b"}], {}, ("a", "b")),
        ([{"x": "a", "y": "b"}], {"text": "y", "target": "x"}, ("b", "a")),
        ([{"translation": {"en": "a", "de": "b", "fr": "c"}}], {"source_language": "fr", "target_language": "en"}, ("c", "a")),
    ],
)  # fmt: skip
def test_direction_of_a_translation(given: list, columns: dict, expected: tuple[str, str]) -> None:
    row = rows_of(Translation, given, columns)[0]
    assert (row["text"], row["target"]) == expected


@pytest.mark.parametrize(
    ("given", "columns", "said"),
    [
        ([{"translation": {"en": "a", "de": "b", "fr": "c"}}], {}, "say which with --source-language"),
        (PAIRS, {"source_language": "fr"}, "--source-language fr: the data holds en, de"),
        ([{"sentance": "a", "n": 1}], {}, 'is it "sentance"'),
    ],
)
def test_a_direction_that_cannot_be_told_is_an_error(given: list, columns: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        rows_of(Translation, given, columns)


def test_rows_to_translate_need_no_target() -> None:
    assert rows_of(Translation, [{"translation": {"en": "a"}}], {"source_language": "en", "target_language": "de"}) == [
        {"text": "a"}
    ]
    assert rows_of(Summarization, [{"text": "a"}]) == [{"text": "a"}]


def test_sentences_are_joined_and_several_summaries_are_kept() -> None:
    given = [{"source": ["One.", "Two."], "target": ["first", "second", ""], "title": "t"}]
    assert rows_of(Summarization, given) == [
        {"text": "One. Two.", "target": "first", "references": ["first", "second"]}
    ]
    with pytest.raises(EmptyRow, match='"summary" is empty'):
        rows_of(Summarization, [{"article": "a", "summary": " "}])


def test_languages_by_any_name() -> None:
    assert [two_letters(c) for c in ("en", "en_XX", "deu_Latn", "German", "pt-BR", "xx")] == [
        "en",
        "en",
        "de",
        "de",
        "pt",
        None,
    ]
    assert name_of("ron_Latn") == "Romanian" and name_of("xx") == "xx"
    codes = ["en_XX", "de_DE", "zho_Hans", "zho_Hant"]
    assert model_code("en", codes, "--source-language") == "en_XX"
    with pytest.raises(UsageError, match=r"knows several: zho_Hans, zho_Hant"):
        model_code("zh", codes, "--target-language")
    with pytest.raises(UsageError, match='no language of this model named "dee_DE"; did you mean "de_DE"'):
        model_code("dee_DE", codes, "--target-language")


def test_rows_changed_over_and_out_of_proportion_are_found() -> None:
    random = np.random.default_rng(0)
    picked = [random.integers(0, len(ENGLISH), 8) for _ in range(40)]
    pairs = [(" ".join(ENGLISH[w] for w in words), " ".join(GERMAN[w] for w in words)) for words in picked]
    assert swapped(pairs) == [] and outliers(pairs) == []
    pairs[7] = pairs[7][::-1]
    assert swapped(pairs) == [7]
    assert outliers([*pairs, ("a dog sees a dog and a cat", "a"), ("Yes.", "no")]) == [40]


def test_scores_are_those_of_the_libraries() -> None:
    texts = ["the cat sat on the mat", "a dog", "", "the house is red ."]
    known = [
        ["a cat sat on the mat", "the cat sits"],
        ["a dog barks", "dogs"],
        ["yes", "no"],
        ["the houses are red .", "x"],
    ]
    columns = [[row[i] for row in known] for i in range(2)]
    ones = at_one(Translation(target_language="de")._scores(texts, known))
    assert ones["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, columns).score)
    assert ones["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, columns).score)
    drawn = [0, 0, 3]
    again = Translation()._scores(texts, known).scores["bleu"](np.array([[2, 0, 0, 1.0]]))[0]
    assert again == pytest.approx(
        sacrebleu.corpus_bleu([texts[i] for i in drawn], [[c[i] for i in drawn] for c in columns]).score
    )
    chinese = Translation(target_language="zho_Hans")._scores(["我喜欢狗和猫"], [["我喜欢猫和狗"]])
    assert at_one(chinese)["bleu"] == pytest.approx(
        sacrebleu.corpus_bleu(["我喜欢狗和猫"], [["我喜欢猫和狗"]], tokenize="zh").score
    )
    assert "zh" in chinese.notes["bleu"]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    rows = [scorer.score_multi(refs, text) for text, refs in zip(texts, known, strict=True)]
    ones = at_one(Summarization()._scores(texts, known))
    for ours, theirs in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        assert ones[ours] == pytest.approx(np.mean([row[theirs].fmeasure for row in rows]))


def test_rouge_reads_every_script_and_says_so() -> None:
    found = Summarization()._scores(["собака видит дом"], [["собака видит кота"]])
    assert at_one(found)["rouge_1"] == pytest.approx(2 / 3) and "any script" in found.notes["rouge_1"]
    assert not Summarization()._scores(["le café"], [["un café"]]).notes


def ready_for(kind: Any, model: Path, rows: list[dict[str, str]], **settings: Any) -> tuple[Any, Any, Any, Any]:
    """Task, tokenizer, model and a batch of rows."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    data = {"train": Dataset.from_list(rows)}
    task = kind(**settings).for_model(Run(model=str(model)), AutoConfig.from_pretrained(model), tokenizer, data)
    auto = {"AutoModelForSeq2SeqLM": AutoModelForSeq2SeqLM, "AutoModelForCausalLM": AutoModelForCausalLM}[
        task.auto_model
    ]
    encoded = task.encode(tokenizer, 64)({name: data["train"][name][:] for name in data["train"].column_names})
    made = [{name: encoded[name][i] for name in encoded} for i in range(len(rows))]
    torch.manual_seed(1)
    return task, tokenizer, auto.from_pretrained(model).eval(), made


ROWS = [
    {"text": "a dog sees the red ball", "target": "ein hund sieht"},
    {"text": "a cat", "target": "eine katze mag das haus ."},
]


@torch.no_grad()
@pytest.mark.parametrize("make", [t5, bart, llama])
def test_loss_is_the_models_own_summed_over_target_tokens(make: Any, tmp_path: Path) -> None:
    task, tokenizer, model, rows = ready_for(Translation, make(tmp_path / "m", WORDS), ROWS, source_language="en",
                                             target_language="de")  # fmt: skip
    batch = task.collate(tokenizer)(rows)
    count = int(task.items(batch))
    assert count == sum(len(row["labels"]) for row in rows)
    ids, mask = ("whole_ids", "whole_mask") if task.alone else ("input_ids", "attention_mask")
    own = model(input_ids=batch[ids], attention_mask=batch[mask], labels=batch["labels"]).loss * count
    assert task.loss(model, dict(batch)).item() == pytest.approx(own.item(), rel=1e-5)
    kept = task.quick_outputs(model, dict(batch))
    assert task.quick(kept, None, None)["loss"] == pytest.approx(own.item() / count, rel=1e-5)
    filler = [rows[0], {**rows[1], "labels": [-100.0] * len(rows[1]["labels"])}]
    assert int(task.items(task.collate(tokenizer)(filler))) == len(rows[0]["labels"])
    alone = task.loss(model, task.collate(tokenizer)(filler[:1])).item()
    assert task.loss(model, task.collate(tokenizer)(filler)).item() == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("make", [t5, bart, llama])
def test_padding_changes_nothing_of_what_is_written(make: Any, tmp_path: Path) -> None:
    task, tokenizer, model, rows = ready_for(Summarization, make(tmp_path / "m", WORDS), ROWS, max_new_tokens=9)
    together = task.outputs(model, task.collate(tokenizer)(rows))
    for row, ids in zip(rows, together, strict=True):
        assert np.array_equal(task.outputs(model, task.collate(tokenizer)([row]))[0], ids)
        assert ids.dtype == np.int32 and not set(ids.tolist()) & {-100, task.end, task.padding}
    assert len(task.answers(together, None, None, tokenizer)) == 2


@pytest.mark.parametrize("make", [t5, llama])
def test_beams_find_a_likelier_text(make: Any, tmp_path: Path) -> None:
    task, tokenizer, model, rows = ready_for(Summarization, make(tmp_path / "m", WORDS), ROWS[:1], max_new_tokens=6,
                                             no_repeat_ngram_size=0)  # fmt: skip
    wider = task.answering(num_beams=4, length_penalty=0.0)
    greedy, best = (one.outputs(model, one.collate(tokenizer)(rows))[0].tolist() for one in (task, wider))

    def likely(ids: list[int]) -> float:
        ended = [*ids, task.end][: task.max_new_tokens]
        with torch.no_grad():
            return -task.loss(model, task.collate(tokenizer)([{**rows[0], "labels": ended}])).item()

    assert likely(best) >= likely(greedy) - 1e-4


def test_without_an_encoder_an_update_does_not_depend_on_its_cut(tmp_path: Path) -> None:
    write_translations(tmp_path / "data" / "train.jsonl", 10)
    write_translations(tmp_path / "data" / "test.jsonl", 4, seed=3)
    model = llama(tmp_path / "model", WORDS)
    found = []
    for rows, cuts in ((8, 1), (2, 4)):
        folder = tmp_path / f"run{cuts}"
        finetune("translation", model=str(model), dataset=str(tmp_path / "data"), method="full", output_dir=str(folder),
                 optim="sgd", learning_rate=0.05, warmup_steps=0, max_grad_norm=0, num_train_epochs=1, verify=False,
                 lr_scheduler_type="constant", save_strategy="no", bf16=False, per_device_train_batch_size=rows,
                 gradient_accumulation_steps=cuts)  # fmt: skip
        found.append(load_file(folder / "model.safetensors"))
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=2e-5, atol=2e-6, err_msg=name)


def test_without_an_encoder_the_target_follows_a_separator_and_long_sources_make_room(tmp_path: Path) -> None:
    long = [{"text": "dog " * 200, "target": "ein hund"}, {"text": "a dog", "target": "ein hund"}]
    task, tokenizer, _, rows = ready_for(Translation, llama(tmp_path / "m", WORDS), long, source_language="en",
                                         target_language="de", max_target_length=8)  # fmt: skip
    shown = [tokenizer.decode(row["input_ids"]) for row in rows]
    assert (
        shown[1] == "English : a dog German :"
        and shown[0].startswith("English : dog dog")
        and shown[0].endswith("dog German :")
    )
    assert len(rows[0]["input_ids"]) == 56 and rows[0]["length"] == 64
    assert tokenizer.decode(rows[0]["labels"]) == "ein hund </s>"
    batch = task.collate(tokenizer)(rows)
    covered = batch["labels"] != -100
    assert (
        tokenizer.batch_decode([ids[keep] for ids, keep in zip(batch["whole_ids"], covered, strict=True)])
        == ["ein hund </s>"] * 2
    )
    assert batch["attention_mask"][1, 0] == 0 and batch["whole_mask"][1, 0] == 1


def test_prefix_is_that_of_the_models_files_or_made_from_languages(tmp_path: Path) -> None:
    folder = t5(tmp_path / "m", WORDS)
    config = AutoConfig.from_pretrained(folder)
    assert Summarization()._prefix(config, False)[0] == "short : "
    assert Summarization(source_prefix="")._prefix(config, False)[0] == ""
    pair = Translation(source_language="en", target_language="ro_RO")
    assert pair._prefix(config, False)[0] == ""
    config.task_specific_params = {"translation_en_to_ro": {"prefix": "to Romanian: "}}
    assert pair._prefix(config, False)[0] == "to Romanian: "
    other = Translation(source_language="en", target_language="fi")
    assert other._prefix(config, False)[0] == "translate English to Finnish: "


@pytest.mark.parametrize("kind", ["nllb", "mbart"])
def test_language_codes_reach_tokenizer_and_search(kind: str) -> None:
    from transformers import MBartTokenizer, NllbTokenizer

    tokenizer: Any = (NllbTokenizer if kind == "nllb" else MBartTokenizer)()
    task = (
        Translation(source_language="en", target_language="de")._with_languages(tokenizer)._with_ends(tokenizer, None)
    )
    code = {"nllb": "deu_Latn", "mbart": "de_DE"}[kind]
    number = tokenizer.convert_tokens_to_ids(code)
    assert task.target_code == code
    assert task.search().get("forced_bos_token_id" if kind == "nllb" else "decoder_start_token_id") == number
    made = task.encode(tokenizer, 16)({"text": ["a"], "target": ["b"]})
    assert tokenizer.src_lang == {"nllb": "eng_Latn", "mbart": "en_XX"}[kind]
    assert made["labels"][0][0 if kind == "nllb" else -1] == number
    assert "tokenizer.src_lang" in "\n".join(task.usage(64).lines)
    with pytest.raises(UsageError, match="say which with --target-language"):
        Translation(source_language="en")._with_languages(tokenizer)


def test_models_that_only_read_are_refused(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    with pytest.raises(UsageError, match="bert reads texts but does not write any"):
        Summarization().for_model(Run(model="x"), AutoConfig.from_pretrained(tiny_model), tokenizer, {})


def test_a_separator_is_for_models_without_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--source-suffix is for models without an encoder"):
        ready_for(Summarization, t5(tmp_path / "m", WORDS), ROWS, source_suffix="=>")


def test_settings_that_make_no_sense_are_refused() -> None:
    for bad in ({"num_beams": 0}, {"max_target_length": 1}, {"max_new_tokens": 0}, {"num_beams": 100}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Config(**bad)


def test_texts_survive_as_bytes() -> None:
    assert [text_of(bytes_of(text)) for text in ("", "naïve 日本")] == ["", "naïve 日本"]
    ends = Summarization(end=2, padding=1)._trimmed(np.array([0, 5, 6, 2, 1, 1]))
    assert ends.tolist() == [0, 5, 6]


def test_lead_is_as_long_as_summaries_are() -> None:
    rows = Dataset.from_list([{"text": "One. Two. Three.", "target": "A. B."}])
    task = Summarization.from_data({"train": rows}, Run())
    assert task.lead == 2 and text_of(task.baselines(None, None, rows)["lead"][0]) == "One. Two."


def test_a_saved_direction_holds_for_data_in_another_order(tmp_path: Path) -> None:
    write_translations(tmp_path / "data" / "train.jsonl", 8)
    data = load_data(
        Run(task="translation", dataset=str(tmp_path / "data"), output_dir="x", eval_split="25%"), Translation
    )
    task = Translation.from_data(data, Run())
    assert (task.source_language, task.target_language) == ("en", "de")
    from hf_tuner.data.rows import task_columns

    turned = Dataset.from_list([{"translation": {"de": "der hund", "en": "the dog"}}])
    assert task_columns(turned, task, None, answers=True)[0] == {"text": "the dog", "target": "der hund"}


@pytest.fixture(scope="module")
def without_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a Llama on translations."""
    home = tmp_path_factory.mktemp("alone")
    write_translations(home / "data" / "train.jsonl", 24)
    write_translations(home / "data" / "test.jsonl", 8, seed=3)
    write_translations(home / "data" / "validation.jsonl", 8, seed=4)
    finetune("translation", model=str(llama(home / "model", WORDS)), dataset=str(home / "data"), method="lora", max_steps=3,
             output_dir=str(home / "run"), save_strategy="no", eval_strategy="steps", eval_steps=1, warmup_steps=0)  # fmt: skip
    return home / "run"


def test_a_run_without_an_encoder_is_verified_and_measures_itself_again(without_encoder: Path) -> None:
    report = json.loads((without_encoder / "report.json").read_text())
    assert next(p for p in report["proofs"] if p["name"] == "saved = measured")["passed"]
    assert report["baselines"]["copy"]["test"]["chrf"]["value"] > 0
    _, rows, scores = evaluate(without_encoder)
    logged = [json.loads(line) for line in (without_encoder / "log.jsonl").read_text().splitlines()]
    assert any(0 <= line.get("eval_token_accuracy", -1) <= 1 and line["eval_loss"] > 0 for line in logged)
    assert rows == 8 and scores["bleu"]["value"] == pytest.approx(report["metrics"]["test"]["bleu"]["value"])
    assert (
        json.loads((without_encoder / "manifest.json").read_text())["settings"]["auto_model"] == "AutoModelForCausalLM"
    )


def test_the_cards_code_writes_what_predict_writes(without_encoder: Path) -> None:
    from hf_tuner.hub.card import read_facts
    from hf_tuner.hub.usage import plain_code

    code = "\n".join(plain_code(read_facts(without_encoder))).replace('"FOLDER"', repr(str(without_encoder)))
    code = code.replace('"BASE"', repr(str(without_encoder.parent / "model")))
    texts = ["a dog sees the ball .", "the cat", "the dog sees the ball " * 200]
    code = code.replace('["A sentence to translate.", "Another one."]', repr(texts))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = [answer["prediction"] for answer in predict(without_encoder, texts)]
    assert [text.strip() for text in eval_list(done.stdout)] == written


def eval_list(text: str) -> list[str]:
    """A list of strings that Python printed."""
    import ast

    return list(ast.literal_eval(text.strip()))


def test_audit_names_what_is_odd(tmp_path: Path) -> None:
    rows = [{"en": f"the dog number {i} sees a cat", "de": f"der hund nummer {i} sieht katze"} for i in range(30)]
    rows[3] = {"en": "same on both sides here", "de": "same on both sides here"}
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_data(Run(task="translation", dataset=str(tmp_path), output_dir="x"), Translation)
    assert any(
        "1 of 2" in w or "1 of 3" in w for w in data.tuner_notes["warnings"] if "the same text on both sides" in w
    )
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": row["en"]}) + "\n" for row in rows))
    with pytest.raises(UsageError, match="no column holds the target texts"):
        load_data(Run(task="translation", dataset=str(tmp_path), output_dir="x"), Translation)
