"""Make a data set like SQuAD 2.0 out of one like SQuAD 1.1: to every two questions one that its context does not answer.

    python benchmarks/impossible.py policy_qa /tmp/policy_qa_v2
    hf-tuner lora --task question-answering --model demo --dataset /tmp/policy_qa_v2

A question without an answer is one of the same split, asked of another context (of the same title where there is one)
with which it never stands in the data. People have not looked at them: a few may be answered all the same, the more so
where the data ask the same questions everywhere.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_dataset

TRIES = 50


def impossible(rows: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` rows without an answer, made of questions and contexts of `rows`."""
    random = np.random.default_rng(seed)
    asked, contexts = defaultdict(set), defaultdict(list)
    for row in rows:
        asked[row["context"]].add(row["question"])
        contexts[row.get("title")].append(row["context"])
    everywhere = list(asked)
    made: list[dict[str, Any]] = []
    for row in (rows[int(i)] for i in random.permutation(len(rows))):
        if len(made) == count:
            break
        near = list(dict.fromkeys(contexts[row.get("title")]))
        pool = near if len(near) > 2 else everywhere
        for _ in range(TRIES):
            other = pool[int(random.integers(len(pool)))]
            if row["question"] not in asked[other]:
                asked[other].add(row["question"])
                made.append(
                    {**row, "id": f"{row['id']}-none", "context": other, "answers": {"text": [], "answer_start": []}}
                )
                break
    return made


def mixed(rows: Dataset, seed: int) -> list[dict[str, Any]]:
    """The rows with half as many impossible ones among them, in a drawn order."""
    given = rows.to_list()
    every = [*given, *impossible(given, len(given) // 2, seed)]
    return [every[int(i)] for i in np.random.default_rng(seed).permutation(len(every))]


def main() -> None:
    """Read SOURCE, write one JSON Lines file for each split into TARGET."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a data set with id, question, context and answers")
    parser.add_argument("target", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    seen = parser.parse_args()
    seen.target.mkdir(parents=True, exist_ok=True)
    for split, rows in load_dataset(seen.source).items():
        made = mixed(rows, seen.seed)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        (seen.target / f"{split}.jsonl").write_text(text, encoding="utf-8")
        none = sum(not row["answers"]["text"] for row in made)
        print(f"{split}: {len(made):,} questions, {none:,} without an answer")


if __name__ == "__main__":
    main()
