"""How well documents are ordered: MAP, MRR@10 and nDCG@10 by query, or how well single pairs are scored.

The values are those of CrossEncoderRerankingEvaluator and CrossEncoderCorrelationEvaluator of sentence-transformers.
"""

from collections.abc import Sequence

import numpy as np

from hf_tuner.metrics._weighted import average_precision, mean, pearson, roc_auc, spearman
from hf_tuner.tasks._task import Measures

DEPTH = 10


def by_query(scores: np.ndarray, relevance: np.ndarray, queries: Sequence[int]) -> Measures:
    """MAP, MRR@10 and nDCG@10 of scores [pairs] against relevance [pairs], over the query of each pair.

    A document is relevant above 0; nDCG takes the relevance as gain. Queries all of whose documents are equally relevant
    have no order to find and are left out. The bootstrap draws queries.
    """
    order = np.argsort(queries, kind="stable")
    starts = np.flatnonzero(np.diff(np.asarray(queries)[order], prepend=-1))
    lists = [index for index in np.split(order, starts[1:]) if np.ptp(relevance[index]) > 0]
    found = np.array([one_query(scores[index], relevance[index]) for index in lists]).reshape(-1, 3)
    left_out = len(starts) - len(lists)
    note = f"{left_out:,} of {len(starts):,} queries have nothing to order and are left out" if left_out else ""
    names = ("map", "mrr_at_10", "ndcg_at_10")
    if not len(found):
        found = np.full((1, 3), np.nan)
    return Measures(
        {name: mean(found[:, k]) for k, name in enumerate(names)}, len(found), {names[0]: note} if note else {}
    )


def one_query(scores: np.ndarray, relevance: np.ndarray) -> tuple[float, float, float]:
    """Average precision, reciprocal rank within 10 and nDCG@10 of one query's documents."""
    from sklearn.metrics import average_precision_score, ndcg_score

    relevant = relevance > 0
    first = np.flatnonzero(relevant[np.argsort(scores)[::-1][:DEPTH]])
    ranked = float(average_precision_score(relevant, scores)) if relevant.any() else 0.0
    gain = relevance - min(0.0, relevance.min())
    return ranked, (1 / (first[0] + 1) if len(first) else 0.0), float(ndcg_score([gain], [scores], k=DEPTH))


def by_pair(scores: np.ndarray, relevance: np.ndarray) -> Measures:
    """Scores [pairs] in 0 … 1 against relevance [pairs]: told apart where it is 0 or 1, else correlations."""
    values = np.unique(relevance)
    if set(values) <= {0.0, 1.0}:
        truth = relevance[:, None] > 0
        note = {} if len(values) > 1 else dict.fromkeys(("average_precision", "roc_auc"), "all rows are of one kind")
        found = {
            "average_precision": average_precision(scores[:, None], truth),
            "roc_auc": roc_auc(scores[:, None], truth),
            "accuracy": mean((scores > 0.5) == truth[:, 0]),
        }
        return Measures(found, len(scores), note)
    note = {} if np.ptp(scores) > 0 else dict.fromkeys(("spearman", "pearson"), "scores are all the same number")
    return Measures({"spearman": spearman(scores, relevance), "pearson": pearson(scores, relevance)}, len(scores), note)
