"""The card: its metadata parses back, names of strangers stay text, and it says what one should know.

What its code answers when it is pasted: test_card_code.py.
"""

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from hf_tuner.hub.card import HUB_METRICS, Facts, card, front_matter, in_progress
from hf_tuner.hub.manifest import Manifest
from hf_tuner.hub.markdown import text
from hf_tuner.report import wording
from hf_tuner.report.report import Report

PROBLEMS = ("single", "multi", "regression")
METRICS = {
    "single": ("accuracy", "macro_f1", "mcc", "log_loss"),
    "multi": ("micro_f1", "roc_auc"),
    "regression": ("pearson", "mse"),
}
ANSWERS = {
    "single": {},
    "multi": {"top_k": None, "function_to_apply": "sigmoid"},
    "regression": {"function_to_apply": "none"},
}
HUB_BASE = {"id": "google-bert/bert-base-uncased", "revision": "86b5e0934494bd15c9632b12f734a8a67f723594"}
HUB_DATA = {"dataset": "stanfordnlp/imdb:plain_text@main", "revision": "e6281661ce1c48d982bc483cf8a173c1bbeb5d31"}
HOSTILE = {
    "front matter": "---\nlicense: evil\ntags: [a]\n---\n\n# owned",
    "script": "<script>alert(1)</script>",
    "comment": "<!-- hidden",
    "entity": "&lt;b&gt; &#60;i&#62;",
    "link": "[click](https://evil.example)",
    "picture": "![x](https://evil.example/x.png)",
    "reference": "[x]: https://evil.example\n[x]",
    "backtick": "a`b",
    "backticks": "`` ` ```",
    "fence": "\n```\n<b>out</b>\n```\n",
    "cells": "| a | b |\n|---|---|",
    "escaped cell": "\\|<img src=x onerror=alert(1)>",
    "backslash": "ends in \\",
    "heading": "x\r\n# heading\n\n- item\n1. one\n> quote",
    "emphasis": "**bold** __bold__ ~~gone~~ _it_ $x^2$",
    "controls": "a\x00b\x1b[31mc\x85d\u2028e\u202egnp.exe",
    "surrogate": "a\ud800b",
    "quotes": '\'""" \\\' {x} %s',
    "empty": " \n ",
    "long": "x" * 1_000_000,
    "long words": "word, " * 200_000,
    "paths": "/home/me/secret.csv ../../etc/passwd",
}


def scores(*names: str) -> dict[str, dict[str, float]]:
    """A value with its bounds for each metric, each another one."""
    return {name: {"value": 0.5 + 0.01 * i, "low": 0.4, "high": 0.7} for i, name in enumerate(names)}


def facts(problem: str = "single", saves: str = "adapter", pair: bool = False, **more: Any) -> Facts:
    """The facts of a run that never ran; `base` and `data` change the manifest, `report` the report."""
    names = [] if problem == "regression" else ["bad", "good"]
    base = {**HUB_BASE, "fingerprint": "0" * 16, "parameters": 109_000_000, "pooling": False, "layers": 12,
            "dtype": "float32", "head": ["classifier"], "method": {"r": 16, "target_modules": "all-linear"}}  # fmt: skip
    data = {**HUB_DATA, "columns": None, "rows": {"train": 900, "test": 100}, "fingerprints": {"train": "ab"}}
    manifest = Manifest(
        task="text-classification", method="lora" if saves == "adapter" else "full", saves=saves, max_length=64,
        settings={"labels": {"problem": problem, "names": names, "note": "two classes", "raw": "names"}, "pair": pair},
        training={"learning_rate": 1.8e-4, "epochs": 3.0, "rows_per_update": 32, "precision": "bf16 autocast"},
        base={**base, **more.pop("base", {})}, data={**data, **more.pop("data", {})})  # fmt: skip
    report = Report(
        task=manifest.task, method=manifest.method, model=base["id"], dataset=data["dataset"], rows=data["rows"],
        metrics={"test": scores(*METRICS[problem]), "validation": scores(METRICS[problem][0])},
        baselines={"probe": {"test": scores(*METRICS[problem])}}, time={"train": 61.0}, memory={"peak_mb": 900.0},
        proofs=[{"name": "saved = measured", "passed": True, "detail": "100 rows: the same bits"}],
        parameters={"total": 110_000_000, "trainable": 300_000}, versions={"torch": "2.15.0"})  # fmt: skip
    given: dict[str, Any] = {
        "manifest": manifest,
        "report": replace(report, **more.pop("report", {})),
        "settings": {"model": base["id"], "dataset": data["dataset"], "verify": True, "seed": 42},
        "adapter": {"peft_type": "LORA", "modules_to_save": ["classifier", "bert.pooler"]}
        if saves == "adapter"
        else {},
    }
    return Facts(**{**given, **more})


def labelled(known: Facts, *names: str) -> Facts:
    """The same facts with other label names."""
    settings = known.manifest.settings
    labels = {**settings["labels"], "names": list(names)}
    return replace(known, manifest=replace(known.manifest, settings={**settings, "labels": labels}))


def test_numbers_are_rounded_for_reading() -> None:
    made = card(
        facts(progress={"epoch": 1.4285714285714286, "step": 10}, base={"method": {"scale": 0.30000000000000004}})
    )
    assert "- epochs: `1.429` (`10` updates)" in made and "- scale: `0.3`" in made


def python_blocks(content: str) -> list[str]:
    """The Python code of a card: with hf-tuner, without."""
    return re.findall(r"^```python\n(.*?)^```", content, re.DOTALL | re.MULTILINE)


def calls(code: str, name: str) -> dict[str, Any]:
    """Keyword arguments of the call of `name`, literals as values and all else as source."""
    found = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call) and ast.unparse(n.func) == name]
    assert len(found) == 1, code
    return {str(k.arg): k.value.value if isinstance(k.value, ast.Constant) else ast.unparse(k.value)
            for k in found[0].keywords}  # fmt: skip


def shape(content: str) -> list[str]:
    """Every element of the rendered card, in order, without the words in it."""
    from markdown_it import MarkdownIt  # comes with huggingface_hub (typer, rich)

    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(ModelCard(content).text)
    flat = [t for token in tokens for t in (token, *(token.children or []))]
    return [f"{t.type} {t.attrGet('href') or ''}" for t in flat if t.type not in ("text", "text_special")]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_front_matter_parses_back_and_holds_the_reports_values(problem: str) -> None:
    known = facts(problem, kilograms=0.0123, licence="apache-2.0", languages=("en", "de"), repo="alice/run")
    parsed = ModelCard(card(known)).data
    assert parsed.to_dict() == front_matter(known)
    held = {(r.dataset_split, r.metric_name): (r.metric_type, r.metric_value) for r in parsed.eval_results}
    assert held == {
        (split, wording.name(metric)): (HUB_METRICS.get(metric, (metric, None))[0], score["value"])
        for split, metrics in known.report.metrics.items()
        for metric, score in metrics.items()
    }
    result = parsed.eval_results[0]
    assert (result.task_type, result.dataset_type) == ("text-classification", "stanfordnlp/imdb")
    assert (result.dataset_config, result.dataset_revision) == ("plain_text", HUB_DATA["revision"])
    assert (parsed.base_model, parsed.base_model_relation) == (HUB_BASE["id"], "adapter")
    assert (parsed.library_name, parsed.pipeline_tag) == ("peft", "text-classification")
    assert (parsed.datasets, parsed.license, parsed.language) == (["stanfordnlp/imdb"], "apache-2.0", ["en", "de"])
    assert (parsed.tags, parsed.model_name) == (["hf-tuner", "lora"], "run")
    assert parsed.co2_eq_emissions["emissions"] == pytest.approx(12.3)


def test_a_value_that_could_not_be_computed_is_no_result_but_a_limit() -> None:
    nothing = {"value": None, "low": None, "high": None, "note": "one class only"}
    known = facts(report={"metrics": {"test": {"roc_auc": nothing}}})
    assert "model-index" not in front_matter(known)
    content = card(known)
    assert "**Not measured**" in content and "ROC AUC on test: one class only" in content


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ({}, ("google-bert/bert-base-uncased", "finetune")),
        ({"id": "gpt2"}, ("gpt2", "finetune")),
        ({"id": "/models/bert", "revision": None}, (None, None)),
        ({"id": "bert", "revision": None}, (None, None)),  # what is left of a path when a run was pushed
        ({"id": "demo", "revision": None}, (None, None)),
        ({"id": "tests/conftest.py", "revision": None}, (None, None)),
    ],
)
def test_only_what_is_on_the_hub_is_linked(
    base: dict[str, Any], expected: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    front = front_matter(facts(saves="model", base=base))
    assert (front.get("base_model"), front.get("base_model_relation")) == expected
    for name in ("rows.csv", "data/rows.csv", "/data/rows", "demo", "demo#50", "tests/", "./x"):
        local = front_matter(facts(data={"dataset": name, "revision": None}))
        assert "datasets" not in local and local["model-index"][0]["results"][0]["dataset"]["type"] == "local", name


@pytest.mark.fault("S12")
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_names_stay_text(case: str) -> None:
    evil = HOSTILE[case]

    def with_name(name: str) -> Facts:
        known = facts(
            base={"id": name, "revision": None, "method": {"target_modules": name}},
            data={"dataset": name, "revision": None, "columns": name, "fingerprints": {"train": name}},
            report={
                "metrics": {"test": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "note": name}}},
                "proofs": [{"name": name, "passed": True, "detail": name}],
                "versions": {"torch": name},
            },
            settings={"class_weights": name, "eval_dataset": name, "dataset_config": name, "learning_rate": name},
        )
        lineage = [{"from": name, "step": name}]
        noted = {**known.manifest.settings["labels"], "note": name}
        known = replace(known, languages=(name,), licence=name, progress={"epoch": name, "step": name})
        settings = {**known.manifest.settings, "labels": noted}
        return labelled(replace(known, manifest=replace(known.manifest, lineage=lineage, settings=settings)), name, "b")

    known, harmless = with_name(evil), with_name("harmless")
    content = card(known)
    assert len(content.encode("utf-8")) < 20_000
    assert ModelCard(content).data.to_dict() == front_matter(known)
    assert set(front_matter(known)) == set(front_matter(harmless))
    assert shape(content) == shape(card(harmless))
    assert not set(content) & set("\x00\x1b\x85\r\u2028\u202e")
    for code in python_blocks(content):
        ast.parse(code)
    if len(evil) <= 100:
        code = python_blocks(content)[1]
        assert ast.literal_eval(re.search(r"^id2label = (\{.*?\})$", code, re.M | re.S)[1]) == {0: evil, 1: "b"}  # type: ignore[index]


def test_addresses_in_text_are_not_made_links_of() -> None:
    shown = text("see https://evil.example or www.evil.example or me@evil.example")
    assert "://" not in shown and "www." not in shown and "@" not in shown


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("saves", ["adapter", "model"])
def test_the_code_is_valid_and_says_what_a_stranger_cannot_know(saves: str, problem: str, pair: bool) -> None:
    known = facts(problem, saves, pair, base={"pooling": True, "layers": 13}, repo="alice/run", revision="v1")
    for place in (replace(known, subfolder="en/small"), known, replace(known, repo=None)):
        mine, plain = python_blocks(card(place))
        ast.parse(mine)
        options = calls(plain, "pipeline")
        assert options["truncation"] is True and options["max_length"] == 64
        wanted = {
            "single": {},
            "multi": {"top_k": None, "function_to_apply": "sigmoid"},
            "regression": {"function_to_apply": "none"},
        }
        assert {k: v for k, v in options.items() if k in ("top_k", "function_to_apply")} == wanted[problem]
        assert ("text_pair" in plain) == ("text_pair" in mine) == pair
        assert (plain.count('revision="v1"'), plain.count('subfolder="en/small"')) == {
            True: (2, 2 if place.subfolder else 0) if saves == "adapter" or place.subfolder else (1, 0),
            False: (0, 0),
        }[place.repo is not None]
        if saves == "adapter":
            base = calls(plain, "AutoModelForSequenceClassification.from_pretrained")
            assert (base["revision"], base["num_hidden_layers"]) == (HUB_BASE["revision"], 13)
            assert base.get("num_labels", base.get("id2label")) == (1 if problem == "regression" else "id2label")


def test_the_code_loads_the_base_as_it_was_trained_on() -> None:
    method = {"r": 8, "bits": 4, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}
    code = python_blocks(card(facts(base={"method": method, "dtype": "bfloat16"})))[1]
    assert calls(code, "BitsAndBytesConfig")["llm_int8_skip_modules"] == "['classifier', 'bert.pooler']"
    assert calls(code, "AutoModelForSequenceClassification.from_pretrained")["dtype"] == "bfloat16"
    assert "quantised base" in card(facts(base={"method": method}))


def test_many_labels_are_read_from_the_manifest() -> None:
    many = labelled(facts(), *(f"class {i}" for i in range(150)))
    content = card(many)
    ast.parse(python_blocks(content)[1])
    assert 'open("FOLDER/manifest.json"' in content and "… and 50 more" in content
    assert 'hf_hub_download("alice/run", "manifest.json", revision="v1")' in card(
        replace(many, repo="alice/run", revision="v1")
    )


def test_no_local_path_is_in_a_card() -> None:
    place = "/home/alice/secret-project"
    known = facts(
        base={"id": f"{place}/model", "revision": None},
        data={"dataset": f"{place}/rows.csv", "revision": None},
        report={"proofs": [{"name": "saved = measured", "passed": False, "detail": f"{place}/run cannot be reloaded"}]},
        settings={"eval_dataset": f"{place}/held.csv", "output_dir": place, "verify": True},
    )
    content = card(known)
    assert "secret-project" not in content and "alice" not in content
    assert all(name in content for name in ("`model`", "`rows.csv`", "`held.csv`", "✗ saved = measured: run cannot"))
    assert "The base model and the data must be on your machine" in content


def test_a_card_says_what_one_should_know_before_use() -> None:
    content = card(
        facts(repo="alice/run", subfolder="en", revision="v1", kilograms=0.5, progress={"epoch": 3.0, "step": 87})
    )
    for said in (
        "**accuracy is 0.500 [0.400, 0.700]** (95 % interval); a linear probe on the frozen base model reaches 0.500",
        "hf-tuner predict alice/run@v1/en --input",
        "hf-tuner rerun alice/run@v1/en",
        "[`stanfordnlp/imdb`](https://huggingface.co/datasets/stanfordnlp/imdb), configuration `plain_text`",
        "- learning rate: `0.00018`\n- rows per update: `32`\n- precision: `bf16 autocast`",
        "- epochs: `3` (`87` updates)",
        "- CO2: 0.5 kg",
        "cut at 64 tokens",
        "test split is small (100 rows)",
        "0. `bad`\n1. `good`",
        "| train | 900 | ab |",
        "✓ saved = measured: 100 rows: the same bits",
        "peak memory: 900 MB",
        "torch 2.15.0",
    ):
        assert said in content, said
    assert "Not verified" not in content


def test_a_run_that_was_not_verified_says_so_before_anything_else() -> None:
    body = ModelCard(card(facts(settings={"verify": False}))).text
    assert body.strip().split("\n\n")[1].startswith("> **Not verified.**")


@pytest.mark.parametrize(
    ("method", "relation", "library"), [("lora", "adapter", "peft"), ("full", "finetune", "transformers")]
)
def test_a_run_in_progress_says_so_and_claims_nothing(method: str, relation: str, library: str) -> None:
    settings = {"task": "text-classification", "method": method, "model": "gpt2", "dataset": "imdb"}
    content = in_progress(settings, 1200, 4000)
    front = ModelCard(content).data.to_dict()
    assert front == {
        "base_model": "gpt2", "base_model_relation": relation, "datasets": ["imdb"], "library_name": library,
        "pipeline_tag": "text-classification", "tags": ["hf-tuner", method]}  # fmt: skip
    assert "step 1,200 of 4,000" in content and "Not measured yet" in content and "%" not in content
    assert "step 7.**" in in_progress(settings, 7, 0)
    evil = in_progress({**settings, "model": "/home/alice/---\n<b>", "dataset": HOSTILE["front matter"]}, 1, 2)
    assert shape(evil) == shape(content) and "alice" not in evil
    assert set(ModelCard(evil).data.to_dict()) == {"library_name", "pipeline_tag", "tags"}
