"""What rows of sentence-similarity look like: scored pairs, pairs of question and answer, triplets, pairs of 0 and 1."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_tuner.catalog import nearest
from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import EmptyRow, Findings, Layout, RowError

COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("text", "sentence1", "sentence_1", "anchor", "query", "question", "question1", "premise", "sentence", "text1",
             "sentence_a", "title", "source", "utterance", "input"),
    "text_pair": ("text_pair", "sentence2", "sentence_2", "positive", "pos", "answer", "answers", "passage", "document", "context",
                  "question2", "hypothesis", "response", "text2", "sentence_b", "entailment", "target"),
    "negative": ("negative", "negatives", "neg", "hard_negative", "hard_negatives", "contradiction"),
    "label": ("label", "score", "similarity_score", "similarity", "labels", "relatedness_score", "is_duplicate", "relevance"),
}  # fmt: skip
NUMBERED = re.compile(r"^(hard_)?neg(ative)?s?_?\d+$")
"""negative_1, neg2 …: one negative a column."""
OWN_TEXT = "a negative is the row's own anchor or positive; a negative is a text that does not belong to it"


def layout(features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
    """The layout of raw rows; `given` is what --columns says. Raises UsageError when there is no text."""
    names = {name.lower(): name for name in features}
    found = dict(given)
    for canonical, accepted in COLUMNS.items():
        free = (names[name] for name in accepted if name in names and names[name] not in found.values())
        column = found.get(canonical) or next((c for c in free if _fits(canonical, c, first)), None)
        if column:
            found[canonical] = column
    if "text" not in found:
        close = nearest("sentence1", list(features))
        hint = f'; is it "{close}"? --columns text={close},text_pair=…' if close else ""
        raise UsageError(f"no column with texts among {', '.join(features)}: expected sentence1 and sentence2, anchor and "
                         f"positive, query and passage …{hint} (any names: --columns text=COLUMN,text_pair=COLUMN)")  # fmt: skip
    _require_number(features, found)
    numbered = sorted(name for name in features if NUMBERED.match(name.lower()) and name not in found.values())
    negatives = [*([found["negative"]] if "negative" in found else []), *numbered]
    if negatives and "text_pair" in found:
        found |= {"negative": ", ".join(negatives)}
        found.pop("label", None)
    else:
        found.pop("negative", None)
        negatives = []
    return Layout(_name(found, first), found, _converter(found, negatives))


def kind_of(rows: Any) -> tuple[str, float, float]:
    """pairs, triplets, scored or labelled (0 and 1), and between which numbers the scores of canonical rows lie.

    Scores that lie in 0 … 1 or -1 … 1 are taken to be on that scale, others on that of the smallest and largest found.
    """
    names = rows.column_names
    if "label" not in names:
        return ("triplets" if "negative" in names else "pairs"), 0.0, 1.0
    values = [float(value) for value in rows["label"]]
    low, high = scale_of(values)
    return ("labelled" if set(values) <= {0.0, 1.0} else "scored"), low, high


def scale_of(values: Sequence[float]) -> tuple[float, float]:
    """Between which numbers training scores lie. Raises UsageError when they are all the same."""
    low, high = min(values), max(values)
    if low == high:
        raise UsageError(f"every training row has the score {low:g}: there is nothing to learn from")
    if low >= -1 and high <= 1:
        return (0.0 if low >= 0 else -1.0), 1.0
    return low, high


def audit(data: Mapping[str, Any]) -> Findings:
    """Training rows with a single text are refused; so are negatives that are the positive."""
    found = Findings()
    if "text_pair" not in data["train"].column_names:
        raise UsageError(
            "the training rows have one text each; what is learned is which texts are alike, so a second column is needed: "
            "sentence2 with a score, positive, answer or passage (--columns text=COLUMN,text_pair=COLUMN)"
        )
    for split, rows in data.items():
        if "negative" in rows.column_names:
            found.errors += [(split, number, OWN_TEXT) for number in _own_negatives(rows)]
    train = data["train"]
    alike = sum(map(str.__eq__, train["text"][:], train["text_pair"][:])) if "label" not in train.column_names else 0
    if alike:
        found.warnings.append(f"train: {alike:,} rows pair a text with itself, which only dropout makes different")
    return found


def _own_negatives(rows: Any) -> list[int]:
    """Rows one of whose negatives is their anchor or their positive."""
    texts = zip(rows["text"][:], rows["text_pair"][:], rows["negative"][:], strict=True)
    return [number for number, (anchor, positive, negatives) in enumerate(texts) if {anchor, positive} & set(negatives)]


def _fits(canonical: str, column: str, first: Sequence[dict[str, Any]]) -> bool:
    """Whether a column's values are of the kind that a canonical column holds; what is empty does not speak against it."""
    values = [row[column] for row in first if row.get(column) not in (None, "")]
    if canonical == "label":
        return bool(values) and all(is_number(value) for value in values)
    if canonical == "negative":
        return all(isinstance(value, str) or is_texts(value) for value in values)
    return all(isinstance(value, str) for value in values)


def is_number(value: Any) -> bool:
    """Whether a value is, or says, a finite number."""
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def is_texts(value: Any) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _require_number(features: Mapping[str, Any], found: Mapping[str, str]) -> None:
    """Raise UsageError for classes with names: entailed, neutral and contradicted are no scale."""
    names = getattr(features.get(found.get("label", "")), "names", None)
    if names and len(names) > 2:
        raise UsageError(f'column "{found["label"]}" holds the classes {", ".join(names[:4])}, which are no scale of similarity: '
                         "keep the pairs of one class and leave the column out, or give numbers")  # fmt: skip


def _name(found: Mapping[str, str], first: Sequence[dict[str, Any]]) -> str:
    if "text_pair" not in found:
        return "single texts"
    if "negative" in found:
        return "triplets"
    if "label" not in found:
        return "pairs that belong together"
    values = {float(row[found["label"]]) for row in first if is_number(row.get(found["label"]))}
    return "pairs that are alike (1) or not (0)" if values <= {0.0, 1.0} else "scored pairs"


def _converter(found: Mapping[str, str], negatives: Sequence[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def convert(row: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {
            name: text_of(row[found[name]], found[name]) for name in ("text", "text_pair") if name in found
        }
        if "label" in found:
            result["label"] = number_of(row[found["label"]], found["label"])
        if negatives:
            result["negative"] = [text for column in negatives for text in texts_of(row[column], column)]
        return result

    return convert


def text_of(value: Any, column: str) -> str:
    """A text. Raises EmptyRow for none, RowError for what is no text."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise EmptyRow(f'column "{column}" is empty')
    if not isinstance(value, str):
        raise RowError(f'column "{column}" holds {str(value)[:40]!r}, expected a text')
    return value


def texts_of(value: Any, column: str) -> list[str]:
    """A text, or a list of them; nothing where there is no negative."""
    values = value if isinstance(value, list) else [value]
    return [text_of(one, column) for one in values if one is not None and one != ""]


def number_of(value: Any, column: str) -> float:
    """A finite number. Raises EmptyRow for none, RowError for what is none."""
    if value is None or value == "":
        raise EmptyRow(f'column "{column}" is empty')
    if not is_number(value):
        raise RowError(f'column "{column}" holds {str(value)[:40]!r}, expected a number')
    return float(value)
