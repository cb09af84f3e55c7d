"""Accuracy of answers to questions about pictures, as the VQA challenge counts it (Antol et al. 2015, arXiv 1505.00468).

An answer that at least three of ten people gave is right, one that fewer gave is right in part: min(n / 3, 1), averaged
over all ways of leaving one person out. Answers are compared as the official evaluation does it: without case, articles,
punctuation and apostrophes, number words as digits.
"""

import re
from collections.abc import Sequence

DIGITS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
          "eight": "8", "nine": "9", "ten": "10"}  # fmt: skip
ARTICLES = ("a", "an", "the")
COMMA = re.compile(r"(?<=\d),(?=\d)")
POINT = re.compile(r"(?<!\d)\.|\.(?!\d)")
OTHER = re.compile(r"[^\w\s.:'%$€£-]")
ENOUGH = 3
"""So many people make an answer right."""


def normalised(text: str) -> str:
    """Lower case, digits for number words, without articles, punctuation and apostrophes; decimal points stay."""
    plain = text.lower().replace("\n", " ").replace("\t", " ").strip()
    plain = OTHER.sub(" ", POINT.sub("", COMMA.sub("", plain))).replace("'", "").replace("’", "")
    return " ".join(DIGITS.get(word, word) for word in plain.split() if word not in ARTICLES)


def exact(answer: str, known: Sequence[str]) -> float:
    """1 when the answer is one of the known ones, else 0."""
    return float(normalised(answer) in map(normalised, known))


def accuracy(answer: str, known: Sequence[str]) -> float:
    """min(n / 3, 1) with the n known answers that are the same, averaged over leaving out one known answer each."""
    mine, others = normalised(answer), [normalised(one) for one in known]
    same = sum(one == mine for one in others)
    if len(others) < ENOUGH + 1:  # too few people to leave one out
        return min(same / ENOUGH, 1.0)
    return sum(min((same - (one == mine)) / ENOUGH, 1.0) for one in others) / len(others)


def overlap(answer: str, known: Sequence[str]) -> float:
    """The best F1 of the answer's words over the known ones."""
    from hf_tuner.metrics._squad import overlapping

    mine = normalised(answer).split()
    return max((overlapping(mine, normalised(one).split()) for one in known), default=0.0)
