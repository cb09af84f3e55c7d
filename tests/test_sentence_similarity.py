"""Embedding models: what rows are taken for, losses and measures of sentence-transformers, folders that open there."""

import csv
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_tiny_model
from datasets import Dataset
from safetensors.torch import load_file
from tiny_tasks.sentence_similarity import write_pairs

from hf_tuner import finetune
from hf_tuner.config import Run
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.predict import predict
from hf_tuner.metrics import _similarity as similarity
from hf_tuner.tasks import _sentence_files as sentence_files
from hf_tuner.tasks import _similarity_loss as losses
from hf_tuner.tasks._groups import collate_groups
from hf_tuner.tasks._task import at_one
from hf_tuner.tasks.sentence_similarity import Config, SentenceSimilarity, never_negative

QUICK = {"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no", "warmup_steps": 0, "verify": False}
PAIRS = [("rain and snow", "cold storm"), ("warm soup", "bread and cheese"), ("the team", "a ball"), ("warm soup", "rice"),
         ("my race", "it was a match")]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as sentence-transformers has it: mean pooling and length 1."""
    folder = make_tiny_model(tmp_path_factory.mktemp("sentences"))
    for name, text in sentence_files.bi_encoder("mean", 32, True, 64).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def quiet() -> Iterator[None]:
    """sentence-transformers warns of old names that it uses itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def task(rows: list[dict[str, Any]], **settings: Any) -> SentenceSimilarity:
    run = Run(output_dir=".", task_config=Config(**settings))
    return SentenceSimilarity.from_data({"train": Dataset.from_list(rows)}, run)


@pytest.mark.parametrize(
    "scores, kind, low, high",
    [
        ([0, 1, 1], "labelled", 0, 1),
        ([0.2, 0.9], "scored", 0, 1),
        ([-0.5, 1], "scored", -1, 1),
        ([0, 2.5, 5], "scored", 0, 5),
    ],
)
def test_scores_of_any_range_are_learned_as_0_to_1(scores: list[float], kind: str, low: float, high: float) -> None:
    made = task([{"text": "a", "text_pair": "b", "label": float(score)} for score in scores])
    assert (made.kind, made.low, made.high) == (kind, low, high)
    assert ("are learned as 0 to 1" in made.note) == ((low, high) != (0, 1))


def test_loss_follows_the_rows_or_is_refused() -> None:
    pairs = [{"text": "a", "text_pair": "b"}]
    assert task(pairs).similarity_loss == "multiple-negatives"
    assert task([{"text": "a", "text_pair": "b", "label": x} for x in (0.0, 0.4)]).similarity_loss == "cosent"
    assert task(pairs, similarity_loss="symmetric").similarity_loss == "symmetric"
    with pytest.raises(UsageError, match="pairs that belong together; use multiple-negatives or symmetric"):
        task(pairs, similarity_loss="triplet")
    with pytest.raises(UsageError, match="expected whole numbers such as 384,128,64"):
        task(pairs, matryoshka_dims="all")


def test_encoded_scores_are_scaled_and_cut(made: Path) -> None:
    from transformers import AutoTokenizer

    rows = {"text": ["rain", "sun"], "text_pair": ["snow", "fog"], "label": [2.5, 9.0]}
    scored = task([{"text": "a", "text_pair": "b", "label": x} for x in (0.0, 5.0)])
    encoded = scored.encode(AutoTokenizer.from_pretrained(made), 64)(rows)
    assert (
        encoded["labels"] == [0.5, 1.0]
        and [len(row) for row in encoded["input_ids"]] == [2, 2]
        and encoded["length"] == [3, 3]
    )


def test_what_belongs_together_is_no_negative() -> None:
    same = torch.tensor([0, 1, 0, 2, 3, 1, 4, 3])  # anchors 0 0 3 4, positives 1 2 1 3: rows 0 and 1 share their anchor
    place = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])
    never = never_negative(same, place).int().tolist()
    assert never == [[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]]


def test_absent_negatives_are_no_negatives() -> None:
    place = torch.tensor([[0, 1, 2], [3, 4, -1]])
    assert never_negative(torch.arange(5), place).int().tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("loss", sorted(losses.LOSSES))
@pytest.mark.parametrize("dims", [(), (32, 8)])
def test_loss_is_that_of_sentence_transformers(loss: str, dims: tuple[int, ...], made: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses as theirs
    from transformers import AutoModel, AutoTokenizer

    texts = [("rain and snow", "cold storm", "soup"), ("warm bread", "cheese", "a race"), ("the team", "a ball", "fog")]
    labels = [1.0, 0.0, 1.0] if "contrastive" in loss else [0.9, 0.1, 0.5]
    columns = 3 if loss == "triplet" else 2
    model = SentenceTransformer(str(made), device="cpu").eval()
    extra = {"distance_metric": theirs.TripletDistanceMetric.COSINE, "triplet_margin": 0.5} if loss == "triplet" else {}
    if loss == "symmetric":
        extra = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    criterion = getattr(theirs, losses.LOSSES[loss])(model, **extra)
    if dims:
        criterion = theirs.MatryoshkaLoss(model, criterion, list(dims))
    features = [model.preprocess([row[k] for row in texts]) for k in range(columns)]
    expected = criterion(features, torch.tensor(labels)).item()

    tokenizer = AutoTokenizer.from_pretrained(made)
    kind = next(kind for kind, fitting in losses.FITTING.items() if loss in fitting)
    own = SentenceSimilarity(kind=kind, similarity_loss=loss, pooling="mean", normalize=True, matryoshka_dims=dims)
    rows = {"text": [row[0] for row in texts], "text_pair": [row[1] for row in texts], "label": labels}
    rows |= {"negative": [[row[2]] for row in texts]} if columns == 3 else {}
    encoded = own.encode(tokenizer, 64)(rows)
    batch = own.collate(tokenizer)([{name: values[k] for name, values in encoded.items()} for k in range(3)])
    items = own.items(batch)
    total = own.loss(AutoModel.from_pretrained(made).eval(), dict(batch))
    assert items == 3 and total.item() / 3 == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("loss", ["cosine", "cosent", "multiple-negatives", "triplet"])
def test_filler_rows_count_for_nothing(loss: str, made: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(made), AutoModel.from_pretrained(made).eval()
    own = SentenceSimilarity(kind="triplets", similarity_loss=loss, pooling="mean", normalize=True)
    rows = {"text": ["rain", "soup", "team"], "text_pair": ["snow", "rice", "ball"], "label": [0.2, 0.9, 0.5]}
    rows |= {"negative": [["bread"], ["goal", "race"], ["egg"]]} if loss == "triplet" else {}
    encoded = own.encode(tokenizer, 64)(rows)
    ready = [{name: values[k] for name, values in encoded.items()} for k in range(3)]
    alone, filled = (
        own.collate(tokenizer)(ready[:2]),
        own.collate(tokenizer)([*ready[:2], {**ready[2], "labels": -100}]),
    )
    assert own.items(alone) == own.items(filled) == (3 if loss == "triplet" else 2)
    torch.testing.assert_close(own.loss(model, dict(alone)), own.loss(model, dict(filled)))
    nothing = own.collate(tokenizer)([{**ready[2], "labels": -100}])
    assert own.loss(model, nothing).item() == 0


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_is_that_of_sentence_transformers(mode: str, side: str) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    states, mask = torch.randn(3, 5, 4), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    mask = mask.flip(1) if side == "left" else mask
    theirs = Pooling(4, pooling_mode=mode)({"token_embeddings": states, "attention_mask": mask})["sentence_embedding"]
    torch.testing.assert_close(sentence_files.pool(states, mask, mode), theirs)


def test_pooling_and_scaling_come_from_the_checkpoint() -> None:
    old = {
        "config.json": {"hidden_size": 8},
        "1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    }
    new = {"config.json": {"dim": 8}, "1_Pooling/config.json": {"pooling_mode": "lasttoken"},
           "modules.json": [{"type": "sentence_transformers.models.Transformer"}, {"type": "x.Normalize"}]}  # fmt: skip
    plain = SentenceSimilarity(kind="pairs")
    assert (plain.of_model(old.get).pooling, plain.of_model(old.get).normalize) == ("cls", False)
    assert (plain.of_model(new.get).pooling, plain.of_model(new.get).normalize) == ("lasttoken", True)
    assert plain.of_model({"config.json": {"hidden_size": 8}}.get).pooling == "mean"
    assert SentenceSimilarity(kind="pairs", pooling="first").of_model(new.get).pooling == "cls"


@pytest.mark.parametrize(
    "files, said",
    [
        (
            {"config.json": {"hidden_size": 8}, "modules.json": [{"type": "sentence_transformers.models.Dense"}]},
            "a Dense module",
        ),
        ({"config.json": {"is_encoder_decoder": True, "model_type": "t5", "d_model": 8}}, "t5 has a decoder"),
        ({"config.json": {}}, "how large its embeddings are"),
        (
            {"config.json": {"hidden_size": 8}, "1_Pooling/config.json": {"pooling_mode": ["cls", "mean"]}},
            "pools by cls and mean",
        ),
    ],
)
def test_models_that_cannot_be_trained_are_refused(files: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SentenceSimilarity(kind="pairs").of_model(files.get)


def test_matryoshka_sizes_fit_the_model() -> None:
    with pytest.raises(UsageError, match="512: this model's embeddings have 8 numbers"):
        SentenceSimilarity(kind="pairs", matryoshka_dims=(512, 4)).of_model({"config.json": {"hidden_size": 8}}.get)


@pytest.mark.usefixtures("quiet")
def test_scores_are_those_of_the_library(made: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import evaluation

    model, scores = SentenceTransformer(str(made), device="cpu"), [0.1, 0.9, 0.4, 0.4, 0.7]
    left, right = [a for a, _ in PAIRS], [b for _, b in PAIRS]
    kept = list(np.stack([model.encode(left), model.encode(right)], axis=1))
    rows = Dataset.from_dict({"text": left, "text_pair": right, "label": scores})
    own = at_one(SentenceSimilarity(kind="scored").measure(kept, None, rows))
    theirs = evaluation.EmbeddingSimilarityEvaluator(left, right, scores)(model)
    assert own == pytest.approx({name: theirs[name] for name in ("spearman_cosine", "pearson_cosine")}, abs=1e-5)
    binary = at_one(
        SentenceSimilarity(kind="labelled").measure(
            kept, None, rows.remove_columns("label").add_column("label", [1.0, 0, 0, 1, 0])
        )
    )
    theirs = evaluation.BinaryClassificationEvaluator(left, right, [1, 0, 0, 1, 0])(model)
    assert binary["average_precision"] == pytest.approx(theirs["cosine_ap"], abs=1e-5)


@pytest.mark.usefixtures("quiet")
def test_what_is_found_again_is_what_the_library_finds(made: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import evaluation

    model = SentenceTransformer(str(made), device="cpu")
    left, right, others = (
        [a for a, _ in PAIRS],
        [b for _, b in PAIRS],
        ["fog", "run and jump", "milk", "the sky", "apple"],
    )
    kept = list(np.stack([model.encode(texts) for texts in (left, right, others)], axis=1))
    rows = Dataset.from_dict({"text": left, "text_pair": right, "negative": [[text] for text in others]})
    measures = SentenceSimilarity(kind="triplets").measure(kept, None, rows)
    own = at_one(measures)
    assert measures.rows == 4, "the anchor that stands twice is one query"
    corpus = {text: text for text in right + others}
    relevant = {anchor: {b for a, b in PAIRS if a == anchor} for anchor in left}
    theirs = evaluation.InformationRetrievalEvaluator({a: a for a in left}, corpus, relevant)(model)
    expected = {
        "mrr_at_10": theirs["cosine_mrr@10"],
        "recall_at_1": theirs["cosine_recall@1"],
        "recall_at_10": theirs["cosine_recall@10"],
    }
    expected["triplet_accuracy"] = evaluation.TripletEvaluator(left, right, others)(model)["cosine_accuracy"]
    assert own == pytest.approx(expected, abs=1e-5)


def test_ranks_do_not_depend_on_how_much_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    queries, corpus = (similarity.unit(random.normal(size=(count, 4))) for count in (7, 9))
    relevant = [[k, k + 1] for k in range(7)]
    whole = similarity.ranks_of(queries, corpus, relevant)
    monkeypatch.setattr(similarity, "AT_ONCE", 18)
    cut = similarity.ranks_of(queries, corpus, relevant)
    assert [one.tolist() for one in whole] == [one.tolist() for one in cut]
    order = np.argsort(-(queries[0] @ corpus.T)).tolist()
    assert whole[0].tolist() == [order.index(place) + 1 for place in relevant[0]]


def test_batch_numbers_equal_texts_alike(made: Path) -> None:
    from transformers import AutoTokenizer

    rows = [{"input_ids": [[2, 7, 3], [2, 8, 9, 3]]}, {"input_ids": [[2, 7, 3], [2, 9, 3], [2, 5, 3]]}]
    batch = collate_groups(AutoTokenizer.from_pretrained(made))(rows)
    assert batch["same"].tolist() == [0, 1, 0, 2, 3] and batch["place"].tolist() == [[0, 1, -1], [2, 3, 4]]
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 4, 3, 3, 3]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_saved_folder_opens_with_sentence_transformers(method: str, made: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    for split, count in (("train", 12), ("test", 6)):
        write_pairs(tmp_path / f"{split}.csv", count, 0)
    finetune(
        "sentence-similarity",
        model=str(made),
        dataset=str(tmp_path),
        method=method,
        output_dir=str(tmp_path / "run"),
        **QUICK,
    )
    texts = ["rain and snow", "a warm soup with bread", "team"]
    own = np.array([row["prediction"] for row in predict(tmp_path / "run", texts)])
    theirs = SentenceTransformer(str(tmp_path / "run"), device="cpu").encode(texts)
    np.testing.assert_allclose(own, theirs, atol=1e-6)
    assert np.linalg.norm(own, axis=1) == pytest.approx(1)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert {"modules.json", "1_Pooling/config.json", "2_Normalize/config.json"} <= set(manifest["files"])


@pytest.mark.usefixtures("quiet")
def test_merged_folder_opens_with_sentence_transformers(made: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from hf_tuner import merge

    for split, count in (("train", 12), ("test", 6)):
        write_pairs(tmp_path / f"{split}.csv", count, 0)
    finetune(
        "sentence-similarity",
        model=str(made),
        dataset=str(tmp_path),
        method="lora",
        output_dir=str(tmp_path / "run"),
        **QUICK,
    )
    merge(tmp_path / "run", tmp_path / "merged")
    own = np.array([row["prediction"] for row in predict(tmp_path / "run", ["rain", "a soup"])])
    np.testing.assert_allclose(
        own, SentenceTransformer(str(tmp_path / "merged"), device="cpu").encode(["rain", "a soup"]), atol=1e-5
    )


def test_triplets_train_with_matryoshka_and_without_a_pooler(made: Path, tmp_path: Path) -> None:
    rows = [{"anchor": a, "positive": b, "negative": "fog"} for a, b in PAIRS] * 2
    rows = [{**row, "anchor": f"{row['anchor']} {'it' * number}"} for number, row in enumerate(rows)]
    for split in ("train", "test"):
        write(tmp_path / f"{split}.csv", rows)
    report = finetune("sentence-similarity", model=str(made), dataset=str(tmp_path), method="full",
                      output_dir=str(tmp_path / "run"), matryoshka_dims="32,8", **QUICK)  # fmt: skip
    found = {"mrr_at_10", "recall_at_1", "recall_at_10", "triplet_accuracy", "mrr_at_10_dim8"}
    assert set(report.metrics["test"]) == found
    assert report.baselines["before"]["test"]["mrr_at_10"]["value"] is not None
    assert not [key for key in load_file(tmp_path / "run" / "model.safetensors") if "pooler" in key]


def test_pairs_are_predicted_as_similarities(made: Path, tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 6)):
        write_pairs(tmp_path / f"{split}.csv", count, 0)
    finetune(
        "sentence-similarity",
        model=str(made),
        dataset=str(tmp_path),
        method="lora",
        output_dir=str(tmp_path / "run"),
        **QUICK,
    )
    pairs = [{"sentence1": "rain", "sentence2": "rain"}, {"sentence1": "rain", "sentence2": "a soup with bread"}]
    same, other = (row["prediction"] for row in predict(tmp_path / "run", pairs))
    assert same == pytest.approx(1) and -1 <= other < 1
