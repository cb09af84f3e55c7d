"""Rerank paragraphs of privacy policies: makes the data, and measures an untrained embedding model's cosine on it.

    python benchmarks/rerank_policies.py ../shared/data/policy_qa rerank_data
    hf-tuner lora --task reranking --model demo --dataset rerank_data --max-length 160 --output-dir runs/reranker

A question's own paragraph is to be found among other paragraphs of the same policy. Printed beside the reranker's MAP,
MRR@10 and nDCG@10, the cosine says what reading question and paragraph together is worth.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np


def lists(rows: Any, questions: int, others: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """Questions, each with its paragraph and `others` paragraphs of its policy (of any, where that has too few)."""
    titles, contexts, asked = (list(rows[name]) for name in ("title", "context", "question"))
    own: dict[str, set[str]] = {}
    for title, context in zip(titles, contexts, strict=True):
        own.setdefault(title, set()).add(context)
    every, found = sorted(set(contexts)), []
    for index in random.permutation(len(asked))[:questions]:
        same = sorted(own[titles[index]] - {contexts[index]})
        rest = sorted(set(every) - own[titles[index]])
        chosen = [*random.permutation(same), *random.permutation(rest)][:others]
        found.append({"query": asked[index], "positive": contexts[index], "negatives": [str(text) for text in chosen]})
    return found


def by_cosine(model: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    """MAP, MRR@10 and nDCG@10 of ordering each row's paragraphs by the cosine of their embeddings and the question's."""
    from sentence_transformers import SentenceTransformer

    from hf_tuner.metrics._reranking import by_query

    encoder = SentenceTransformer(model, device="cpu")
    options = {"normalize_embeddings": True, "show_progress_bar": False}
    texts = sorted({text for row in rows for text in (row["query"], row["positive"], *row["negatives"])})
    vectors = dict(zip(texts, encoder.encode(texts, **options), strict=True))
    scores, relevance, queries = [], [], []
    for number, row in enumerate(rows):
        for place, text in enumerate((row["positive"], *row["negatives"])):
            scores.append(float(vectors[row["query"]] @ vectors[text]))
            relevance.append(float(place == 0))
            queries.append(number)
    found, units, _ = by_query(np.array(scores), np.array(relevance), np.array(queries))
    return {name: round(float(score(np.ones((1, units)))[0]), 4) for name, score in found.items()}


def main() -> None:
    """Write train.jsonl and test.jsonl, and print the scores of the cosine on test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with train.parquet and test.parquet of policy_qa")
    parser.add_argument("target", type=Path, help="folder for the lists")
    parser.add_argument("--train", type=int, default=1500, help="questions to train on, each with 4 paragraphs")
    parser.add_argument("--test", type=int, default=300, help="questions to measure on, each with 10 paragraphs")
    parser.add_argument("--model", default="demo", help="the embedding model whose cosine is measured")
    seen = parser.parse_args()
    from datasets import load_dataset

    from hf_tuner.models.load import resolve_model

    random, sizes = np.random.default_rng(0), {"train": (seen.train, 3), "test": (seen.test, 9)}
    seen.target.mkdir(parents=True, exist_ok=True)
    for split, (questions, others) in sizes.items():
        rows = load_dataset("parquet", data_files=str(seen.source / f"{split}.parquet"), split="train")
        made = lists(rows, questions, others, random)
        (seen.target / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    print(json.dumps({"cosine": by_cosine(resolve_model(seen.model), made), "questions": len(made)}))


if __name__ == "__main__":
    main()
