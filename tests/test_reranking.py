"""Rerankers: what rows are taken for, losses and measures of sentence-transformers, folders that open there."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_tiny_model
from datasets import Dataset
from tiny_tasks.reranking import write_lists

from hf_tuner import finetune
from hf_tuner.config import Run
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.predict import predict
from hf_tuner.metrics import _reranking as metrics
from hf_tuner.tasks import _rerank_loss as losses
from hf_tuner.tasks import _rerank_rows as rows_of
from hf_tuner.tasks._task import EmptyRow, RowError, at_one
from hf_tuner.tasks.reranking import Config, Reranking

QUICK = {"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no", "warmup_steps": 0, "verify": False}
QUERIES = ["rain today", "a warm soup", "the team"]
DOCUMENTS = [
    ["snow and cold storm", "bread", "a ball"],
    ["rice and cheese", "the race"],
    ["goal", "coach with a ball", "fog", "milk"],
]
LABELS = [[1.0, 0.0, 0.0], [0.0, 1.0], [0.0, 1.0, 0.5, 0.0]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT."""
    return make_tiny_model(tmp_path_factory.mktemp("reranker"))


@pytest.fixture(scope="module")
def head(tiny: Path) -> Any:
    """The tiny BERT with one output."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1).eval()


@pytest.fixture
def quiet() -> Iterator[None]:
    """sentence-transformers warns of old names that it uses itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def layout(row: dict[str, Any]) -> Any:
    return rows_of.layout(Dataset.from_list([row]).features, [row], {})


@pytest.mark.parametrize(
    "row, name, canonical",
    [
        ({"query": "a", "passage": "b", "label": 1}, "pairs of query and document", {"text": "a", "text_pair": "b", "label": 1.0}),
        ({"sentence1": "a", "sentence2": "b", "score": 2.5}, "pairs of query and document",
         {"text": "a", "text_pair": "b", "label": 2.5}),
        ({"query": "a", "text": "b", "label": 0}, "pairs of query and document", {"text": "a", "text_pair": "b", "label": 0.0}),
        ({"question": "a", "context": "b"}, "pairs of query and document", {"text": "a", "text_pair": "b"}),
        ({"query": "a", "docs": ["b", "c"], "labels": [1, 0]}, "queries with lists of documents",
         {"text": "a", "documents": ["b", "c"], "label": [1.0, 0.0]}),
        ({"query": "a", "positive": "b", "negatives": ["c", "d"]}, "queries with positives and negatives",
         {"text": "a", "documents": ["b", "c", "d"], "label": [1.0, 0.0, 0.0]}),
        ({"query": "a", "positive": "b", "negative_1": "c", "negative_2": "d"}, "queries with positives and negatives",
         {"text": "a", "documents": ["b", "c", "d"], "label": [1.0, 0.0, 0.0]}),
    ],
)  # fmt: skip
def test_layout_is_recognised(row: dict[str, Any], name: str, canonical: dict[str, Any]) -> None:
    found = layout(row)
    assert found.name == name and found.convert(row) == canonical


def test_what_cannot_be_read_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="no column with queries among left, right"):
        layout({"left": "a", "right": "b"})
    with pytest.raises(UsageError, match="no column with documents among query"):
        layout({"query": "a"})
    row = {"query": "a", "docs": ["b", "c"], "labels": [1, 0]}
    with pytest.raises(RowError, match="one number for each of the 2 documents"):
        layout(row).convert({**row, "labels": [1]})
    with pytest.raises(EmptyRow, match='"docs" is empty'):
        layout(row).convert({**row, "docs": []})
    row = {"query": "a", "positive": "b", "negative": "c"}
    with pytest.raises(RowError, match="both positive and negative"):
        layout(row).convert({**row, "negative": "b"})


def test_training_needs_labels_and_lists_for_listwise_losses() -> None:
    with pytest.raises(UsageError, match="do not say which documents are relevant"):
        rows_of.audit({"train": Dataset.from_list([{"text": "a", "text_pair": "b"}])})
    pairs = {"train": Dataset.from_list([{"text": "a", "text_pair": "b", "label": x} for x in (0.0, 1.0)])}
    with pytest.raises(
        UsageError, match="--rerank-loss listnet: orders the documents of a query, and these rows are pairs"
    ):
        Reranking.from_data(pairs, Run(output_dir=".", task_config=Config(rerank_loss="listnet")))


def test_grades_are_learned_as_0_to_1(tiny: Path) -> None:
    from transformers import AutoTokenizer

    data = {"train": Dataset.from_list([{"text": "a", "text_pair": "b", "label": x} for x in (0.0, 4.0)])}
    task = Reranking.from_data(data, Run(output_dir=".", task_config=Config()))
    encoded = task.encode(AutoTokenizer.from_pretrained(tiny), 64)({"text": ["a"], "text_pair": ["b"], "label": [1.0]})
    assert encoded["labels"] == [0.25] and "0 to 4 are learned as 0 to 1" in task.note


def batch_of(task: Reranking, tiny: Path, count: int = 3) -> tuple[dict[str, Any], list[dict[str, Any]], Any]:
    """A batch of the queries above, its encoded rows, and the collator."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    rows = {"text": QUERIES[:count], "documents": DOCUMENTS[:count], "label": LABELS[:count]}
    encoded = task.encode(tokenizer, 64)(rows)
    ready = [{name: values[k] for name, values in encoded.items()} for k in range(len(encoded["labels"]))]
    return task.collate(tokenizer)(ready), ready, task.collate(tokenizer)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_loss_is_that_of_sentence_transformers(loss: str, tiny: Path, head: Any, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import losses as theirs
    from transformers import AutoTokenizer

    head.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path)
    model = CrossEncoder(str(tmp_path), device="cpu").eval()
    task = Reranking(rerank_loss=loss)
    batch, _, _ = batch_of(task, tiny)
    if loss == "bce":
        queries = [query for query, texts in zip(QUERIES, DOCUMENTS, strict=True) for _ in texts]
        flat = [text for texts in DOCUMENTS for text in texts]
        labels = torch.tensor([one for labels in LABELS for one in labels])
        expected = theirs.BinaryCrossEntropyLoss(model)([queries, flat], labels).item() * 9
        assert task.items(batch) == 9
    else:
        criterion = getattr(theirs, losses.LISTWISE[loss])(model)
        each = zip(QUERIES, DOCUMENTS, LABELS, strict=True)
        expected = sum(criterion([[query], [texts]], [torch.tensor(labels)]).item() for query, texts, labels in each)
        assert task.items(batch) == 3
    assert task.loss(head, dict(batch)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("loss", ["bce", "listnet"])
def test_filler_rows_count_for_nothing(loss: str, tiny: Path, head: Any) -> None:
    task = Reranking(rerank_loss=loss)
    batch, ready, collate = batch_of(task, tiny, 2)
    mask = [-100.0] * len(ready[0]["labels"]) if loss == "listnet" else -100
    filled = collate([*ready, {**ready[0], "labels": mask}])
    assert task.items(batch) == task.items(filled) == (2 if loss == "listnet" else 5)
    torch.testing.assert_close(task.loss(head, dict(batch)), task.loss(head, dict(filled)))
    assert task.loss(head, collate([{**ready[0], "labels": mask}])).item() == 0


@pytest.mark.parametrize("loss", ["bce", "listnet"])
def test_logits_come_in_the_order_of_the_documents(
    loss: str, tiny: Path, head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_tuner.tasks import reranking

    monkeypatch.setattr(reranking, "AT_ONCE", 4)
    task = Reranking(rerank_loss=loss)
    batch, ready, collate = batch_of(task, tiny)
    with torch.inference_mode():
        kept = np.concatenate(task.outputs(head, dict(batch)))
        alone = np.concatenate([task.outputs(head, collate([row]))[0] for row in ready])
    assert len(kept) == 9
    np.testing.assert_allclose(kept, alone, atol=1e-6)


@pytest.mark.usefixtures("quiet")
def test_measures_are_those_of_the_library() -> None:
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    scores, relevance = np.array([0.3, 0.9, 0.1, 0.2, 0.8, 0.5, 0.7, 0.6]), np.array([1, 0, 0, 0, 1, 1, 0, 0.0])
    queries = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    result, units, _ = metrics.by_query(scores, relevance, queries)
    evaluator = CrossEncoderRerankingEvaluator([{"query": "x", "positive": ["a"], "negative": ["b"]}])
    each = [evaluator.compute_metrics(relevance[queries == k].astype(int), scores[queries == k]) for k in range(3)]
    own = {name: float(score(np.ones((1, units)))[0]) for name, score in result.items()}
    mrr, ndcg, ap = np.mean(each, axis=0)
    assert own == pytest.approx({"map": ap, "mrr_at_10": mrr, "ndcg_at_10": ndcg})


def test_queries_with_nothing_to_order_are_left_out_and_said() -> None:
    result, units, notes = metrics.by_query(np.array([0.3, 0.9, 0.1]), np.array([1.0, 0.0, 0.0]), np.array([4, 4, 7]))
    assert units == 1 and notes == {"map": "1 of 2 queries have nothing to order and are left out"}
    assert result["map"](np.ones((1, 1)))[0] == pytest.approx(0.5)
    nothing, units, _ = metrics.by_query(np.array([0.3]), np.array([1.0]), np.array([0]))
    assert units == 1 and np.isnan(nothing["map"](np.ones((1, 1)))[0])


def test_rows_decide_what_is_measured() -> None:
    task, kept = Reranking(), [np.array([value], np.float32) for value in (2.0, -1.0, 0.5, -2.0)]
    single = Dataset.from_dict({"text": list("abcd"), "text_pair": list("efgh"), "label": [1.0, 0.0, 0.0, 0.0]})
    assert set(at_one(task.measure(kept, None, single))) == {"average_precision", "roc_auc", "accuracy"}
    assert at_one(task.measure(kept, None, single))["accuracy"] == 0.75
    graded = single.remove_columns("label").add_column("label", [3.0, 1.0, 2.0, 0.0])
    assert at_one(task.measure(kept, None, graded)) == pytest.approx({"spearman": 1.0, "pearson": 0.96}, abs=0.05)
    grouped = single.remove_columns("text").add_column("text", ["a", "b", "a", "b"])
    assert set(at_one(task.measure(kept, None, grouped))) == {"map", "mrr_at_10", "ndcg_at_10"}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_saved_folder_opens_with_sentence_transformers(method: str, tiny: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    from hf_tuner import merge

    for split, count in (("train", 8), ("test", 4)):
        write_lists(tmp_path / f"{split}.jsonl", count, 0)
    folder = tmp_path / "run"
    finetune(
        "reranking",
        model=str(tiny),
        dataset=str(tmp_path),
        method=method,
        output_dir=str(folder),
        pooling="mean",
        **QUICK,
    )
    pairs = [("rain today", "snow and fog"), ("a soup", "bread"), ("the team", "a " + "ball with my coach " * 40)]
    own = [row["prediction"] for row in predict(folder, [{"query": a, "passage": b} for a, b in pairs])]
    whole = merge(folder, tmp_path / "merged") if method == "lora" else folder
    theirs = CrossEncoder(str(whole), device="cpu").predict(pairs)
    np.testing.assert_allclose(own, theirs, atol=1e-5)


def test_lists_get_their_best_document(tiny: Path, tmp_path: Path) -> None:
    for split, count in (("train", 8), ("test", 4)):
        write_lists(tmp_path / f"{split}.jsonl", count, 0)
    finetune(
        "reranking", model=str(tiny), dataset=str(tmp_path), method="full", output_dir=str(tmp_path / "run"), **QUICK
    )
    rows = [{"query": query, "documents": texts} for query, texts in zip(QUERIES, DOCUMENTS, strict=True)]
    answers = predict(tmp_path / "run", rows)
    for answer, texts in zip(answers, DOCUMENTS, strict=True):
        assert len(answer["scores"]) == len(texts) and answer["score"] == max(answer["scores"])
        assert answer["prediction"] == texts[answer["scores"].index(answer["score"])]
