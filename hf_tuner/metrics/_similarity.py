"""How good embeddings are: correlation with scores, telling alike from unlike, finding what belongs together.

The values are those of the evaluators of sentence-transformers (EmbeddingSimilarity, BinaryClassification,
InformationRetrieval and Triplet), which the tests compare; here they are functions of row weights.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_tuner.metrics._weighted import Weighted, average_precision, mean, pearson, roc_auc, spearman
from hf_tuner.tasks._task import Measures

AT_ONCE = 20_000_000
"""Similarities held at once: 160 MB."""
DEPTH = 10
"""How many results a search looks at."""


def measures(kept: Sequence[np.ndarray], rows: Any) -> Measures:
    """Scores of embeddings [texts of the row, size] against rows with scores, with 0 and 1, or of what belongs together."""
    if "label" in rows.column_names:
        left, right = (unit(np.stack([row[k] for row in kept])) for k in (0, 1))
        return scored((left * right).sum(axis=1), np.asarray(rows["label"][:], np.float64))
    return found_again(kept, rows)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [any, size] scaled to length 1, float64."""
    values = np.asarray(vectors, np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def cosine(left: np.ndarray, right: np.ndarray) -> Any:
    """Cosine of two vectors [size]."""
    return unit(left) @ unit(right)


def scored(similarities: np.ndarray, scores: np.ndarray) -> Measures:
    """Correlations of similarities [rows] with scores [rows]; for scores of 0 and 1 how well they are told apart."""
    if set(np.unique(scores)) <= {0.0, 1.0}:
        truth, values = scores[:, None] > 0, similarities[:, None]
        one_sided = "all rows are of one kind" if truth.all() or not truth.any() else ""
        notes = dict.fromkeys(("average_precision", "roc_auc"), one_sided) if one_sided else {}
        result = {"average_precision": average_precision(values, truth), "roc_auc": roc_auc(values, truth)}
        return Measures(result, len(scores), notes)
    correlations = {"spearman_cosine": spearman(similarities, scores), "pearson_cosine": pearson(similarities, scores)}
    constant = (
        "similarities or scores are all the same number" if np.ptp(similarities) == 0 or np.ptp(scores) == 0 else ""
    )
    return Measures(correlations, len(scores), dict.fromkeys(correlations, constant) if constant else {})


def found_again(kept: Sequence[np.ndarray], rows: Any) -> Measures:
    """recall@1, recall@10 and MRR@10 of finding each anchor's positives among all texts of the split that are no anchors;
    with negatives, how often the positive is nearer than a negative. The bootstrap draws anchors."""
    negatives = rows["negative"][:] if "negative" in rows.column_names else [[]] * len(kept)
    anchors, anchor_of = _numbered([[text] for text in rows["text"][:]])
    corpus, lines = _numbered([[p, *n] for p, n in zip(rows["text_pair"][:], negatives, strict=True)])
    queries, texts = np.zeros((len(anchors), kept[0].shape[1])), np.zeros((len(corpus), kept[0].shape[1]))
    relevant: list[set[int]] = [set() for _ in anchors]
    nearer, compared = np.zeros(len(anchors)), np.zeros(len(anchors))
    for vectors, (query,), places in zip(kept, anchor_of, lines, strict=True):
        vectors = unit(vectors)
        queries[query], texts[places] = vectors[0], vectors[1:]
        relevant[query].add(places[0])
        similar = vectors[1:] @ vectors[0]
        nearer[query] += (similar[0] > similar[1:]).sum()
        compared[query] += len(similar) - 1
    ranks = ranks_of(queries, texts, [sorted(places) for places in relevant])
    result: dict[str, Weighted] = {
        "mrr_at_10": mean(np.array([1 / rank.min() if rank.min() <= DEPTH else 0.0 for rank in ranks])),
        "recall_at_1": mean(np.array([(rank <= 1).mean() for rank in ranks])),
        "recall_at_10": mean(np.array([(rank <= DEPTH).mean() for rank in ranks])),
    }
    if compared.any():
        result["triplet_accuracy"] = lambda weights: (weights @ nearer) / np.maximum(weights @ compared, 1e-12)
    return Measures(result, len(anchors))


def ranks_of(queries: np.ndarray, corpus: np.ndarray, relevant: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Ranks, from 1, of each query's relevant texts by cosine; of equals the one that stands first is first.

    `queries` [queries, size] and `corpus` [texts, size] have length 1.
    """
    result = []
    step = max(1, AT_ONCE // max(1, len(corpus)))
    for start in range(0, len(queries), step):
        similar = queries[start : start + step] @ corpus.T
        for row, places in zip(similar, relevant[start : start + step], strict=True):
            wanted = row[list(places)]
            above = (row > wanted[:, None]).sum(axis=1)
            before = [(row[:place] == value).sum() for place, value in zip(places, wanted, strict=True)]
            result.append(1 + above + np.array(before))
    return result


def _numbered(lists: Sequence[Sequence[str]]) -> tuple[list[str], list[list[int]]]:
    """Different texts in order of appearance, and each list as their numbers."""
    known: dict[str, int] = {}
    numbers = [[known.setdefault(text, len(known)) for text in texts] for texts in lists]
    return list(known), numbers
